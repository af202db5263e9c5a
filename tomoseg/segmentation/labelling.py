"""What labelling by thresholds and by a network have in common: slabs, small objects, counts, and the summary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySink
from tomoseg.components import ComponentSizes
from tomoseg.errors import InputError
from tomoseg.runtime import Runtime, slabs

# Bytes held per voxel of a slab to find its objects: u1 labels and masks, u4 numbers of components, and what finding
# these takes.
LABELLING_BYTES = 14
# Slabs are no larger than this even where memory allows, so that progress is seen, little is lost with a slab that is
# dropped, and no library holds up a signal for more than a second or two.
MAX_SLAB_VOXELS = 1 << 26


@dataclass(frozen=True)
class LabelSummary:
    """What there is to know of a labelled volume besides the labels."""

    class_names: list[str]  # in class order
    class_colors: list[str]  # as #rrggbb
    class_fractions: list[float]  # fraction of the voxels in each class
    info: dict[str, Any]  # how the labels were made ('method', thresholds or model, ...)


def planes_per_slab(shape: Sequence[int], max_memory: int, margin_bytes: int = 0) -> int:
    """Return how many planes (along z) of a volume make a slab that fits, with its margins, in the memory allowed."""
    nz, ny, nx = shape
    fits = int((0.4 * max_memory - margin_bytes) / (LABELLING_BYTES * ny * nx))
    return max(1, min(nz, fits, MAX_SLAB_VOXELS // (ny * nx)))


def label_attrs(names: list[str], colors: list[str], voxel_size_nm: float) -> dict[str, Any]:
    """Return the attributes of a label volume."""
    return {"class_names": list(names), "class_colors": list(colors), "voxel_size_nm": voxel_size_nm}


def with_counts(counts: Sequence[int], labels: Array) -> list[int]:
    """Return the number of voxels of each class, those of `labels` added to `counts`."""
    more = np.bincount(labels.ravel(), minlength=len(counts))
    return [a + int(b) for a, b in zip(counts, more, strict=True)]


def say_continuing(first: int, n: int, runtime: Runtime) -> None:
    """Say that an interrupted run continues with slice `first` of `n`."""
    if first:
        runtime.say(f"continuing after {first} of {n} slices")


def summarise(
    names: list[str], colors: list[str], counts: Sequence[int], info: dict[str, Any], runtime: Runtime
) -> LabelSummary:
    """Report the fraction of each class, warn of empty classes, and return the summary."""
    fractions = [count / max(sum(counts), 1) for count in counts]
    runtime.say(", ".join(f"{name} {100 * f:.3g} %" for name, f in zip(names, fractions, strict=True)))
    empty = [name for name, n in zip(names, counts, strict=True) if n == 0]
    if empty:
        runtime.warn(f"no voxel was labelled as {' or '.join(empty)}")
    return LabelSummary(list(names), list(colors), fractions, info)


class SmallObjects:
    """Removal of small objects, slab by slab.

    An object of class k is a connected region of voxels of class k or above; where it has fewer voxels than `min_size`
    (one number for all classes above 0, or one for each) it falls to class k - 1. So a bright speck in the support
    becomes support, and a speck in vacuum becomes vacuum. Holes stay: pores are real.

    Show all slabs in order with `add`, then get them back, in order too, with `clean`.
    """

    def __init__(self, n_classes: int, min_size: int | Sequence[int]) -> None:
        sizes = [min_size] * (n_classes - 1) if isinstance(min_size, int) else list(min_size)
        if len(sizes) != n_classes - 1:
            raise InputError(f"min_size has {len(sizes)} numbers for the {n_classes - 1} classes above the first")
        self._sizes = [ComponentSizes(size) for size in sizes]

    def add(self, labels: Array) -> None:
        """Count the objects of the next slab (z, y, x)."""
        for k, sizes in enumerate(self._sizes, start=1):
            sizes.add(labels >= k)

    def clean(self, slab: int, labels: Array) -> NDArray[np.uint8]:
        """Return the labels of slab number `slab` without small objects."""
        cleaned = np.zeros(labels.shape, np.uint8)
        alive = np.ones(labels.shape, bool)
        for k, sizes in enumerate(self._sizes, start=1):
            alive &= sizes.large(slab, labels >= k)
            cleaned += alive
        return cleaned

    def removed(self) -> list[int]:
        """Return how many objects of each class from 1 on were too small."""
        return [sizes.removed() for sizes in self._sizes]


def remove_small_objects(
    labels: ArraySink,
    min_sizes: list[int],
    state: dict[str, Any],
    checkpoint: Callable[[dict[str, Any]], None],
    runtime: Runtime,
) -> None:
    """Remove small objects from finished labels in place, in two passes over them.

    An interrupted removal looks for objects again in labels that are partly clean already. What was cleaned has no
    small objects, and what is left of objects that go on beyond it is smaller than before, so the result is the same.

    Parameters
    ----------
    labels : (z, y, x) u1
    min_sizes : smallest size in voxels of an object of each class above the first
    state : of the last checkpoint; gets 'removed' (objects per class), 'cleaned' (planes) and new 'counts'
    checkpoint : called with `state` after each slab
    """
    n_classes, nz = len(min_sizes) + 1, labels.shape[0]
    first, size = state.get("cleaned", 0), planes_per_slab(labels.shape, runtime.max_memory)
    small = SmallObjects(n_classes, min_sizes)
    finished, parts = slabs(first, size), slabs(nz, size, first)
    for part in runtime.track(finished + parts, "segment: find small objects"):
        small.add(np.asarray(labels[part]))
    if "removed" not in state:
        state |= {"removed": small.removed(), "cleaned": 0, "counts": [0] * n_classes}
    for i, part in runtime.track(list(enumerate(parts, start=len(finished))), "segment: remove small objects"):
        cleaned = small.clean(i, np.asarray(labels[part]))
        labels[part] = cleaned
        state |= {"counts": with_counts(state["counts"], cleaned), "cleaned": part.stop}
        checkpoint(state)


def say_removed(removed: Sequence[int], names: Sequence[str], min_sizes: Sequence[int], runtime: Runtime) -> None:
    """Report how many small objects of each class above the first were removed."""
    classes = [c for c in zip(removed, names[1:], min_sizes, strict=True) if c[2] > 1]
    counts = [f"{n} of {name}" for n, name, _ in classes]
    limits = [f" (fewer than {size} voxels)" for *_, size in classes]
    if len(set(limits)) == 1:
        runtime.say(f"small objects removed{limits[0]}: {', '.join(counts)}")
    else:
        runtime.say(f"small objects removed: {', '.join(map(str.__add__, counts, limits))}")
