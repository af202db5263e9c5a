"""The planes in which a volume is labelled, and the slabs of slices that are labelled together."""

import math
from collections.abc import Sequence

from tomoseg.runtime import Runtime
from tomoseg.segmentation.inference.slice_prediction import NORMAL_AXIS, SlicePredictor

# Slabs are no larger than these even where memory allows, so that progress is seen, little is lost with a slab that is
# dropped, and no library holds up a signal for more than a second or two; the volume is chunked by 16 along y.
MAX_SLAB_PIXELS, MAX_SLAB_SLICES = 1 << 24, 16
# For all planes, probabilities are added up in whole numbers, so that the result does not depend on the slabs. The last
# plane is that of reconstruction.
PLANES = ("yz", "xy", "xz")


def planes_of(plane: str) -> tuple[str, ...]:
    """Return the planes to predict, one after the other."""
    return PLANES if plane == "all" else (plane,)


def n_slices(shape: Sequence[int], plane: str) -> int:
    """Return the number of slices of a volume of `shape` in a plane; for 'all', in the last plane predicted."""
    return shape[NORMAL_AXIS[planes_of(plane)[-1]]]


def batch_shapes(
    shape: Sequence[int], predictor: SlicePredictor, plane: str, *, transposed: bool
) -> list[tuple[int, int, int]]:
    """Return the shapes (patches, height, width) of all batches for a volume of `shape`, `transposed` ones too."""
    found = []
    for slice_shape in (plane_shape(shape, one) for one in planes_of(plane)):
        (height, width), n = predictor.patch_shape(slice_shape), predictor.batch_size(slice_shape)
        found += [(n, height, width), (n, width, height)][: 1 + transposed]
    return list(dict.fromkeys(found))


def slab_size(volume_shape: Sequence[int], predictor: SlicePredictor, plane: str, runtime: Runtime) -> int:
    """Return how many slices make a slab."""
    shape = plane_shape(volume_shape, plane)
    always, per_slice = predictor.memory_bytes(shape)
    fits = int((0.75 * runtime.max_memory - always) / per_slice)
    return max(1, min(fits, MAX_SLAB_SLICES, MAX_SLAB_PIXELS // math.prod(shape)))


def plane_shape(shape: Sequence[int], plane: str) -> tuple[int, int]:
    """Return height and width of the slices of a volume of `shape` in a plane."""
    height, width = (n for axis, n in enumerate(shape) if axis != NORMAL_AXIS[plane])
    return height, width
