"""Selection of the slices of a volume that are most worth painting: informative, and different from each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, Input
from tomoseg.runtime import Runtime, slabs
from tomoseg.segmentation.data.folds import thumbnail
from tomoseg.segmentation.data.histogram import sampled_range

Values = NDArray[np.float64]
SLICES_AT_ONCE = 16  # volumes are chunked by 16 along y
CERTAIN = 255
BLOCK = 4  # px; averaged before the entropy is taken, so that noise counts little
BINS = 64
# Of the slices, at either end: there the volume cuts the sample, and not every tilt shows it.
BORDER = 0.05


@dataclass(frozen=True)
class SliceDescriptions:
    """How much there is to learn from each of n slices, and what each looks like."""

    worth: Values  # (n,), 0 and up: how much there is to learn from a slice
    looks: Values  # (n, k) vectors of length 1; their distance says how differently slices look
    criterion: str  # 'uncertainty' or 'entropy': the measure of worth


def describe_slices(volume: Input, confidence: Input | None, axis: int, runtime: Runtime) -> SliceDescriptions:
    """Read a volume once, slab by slab, and describe its slices perpendicular to `axis`.

    With the confidence of a network (u1, 255 = certain), the worth of a slice is the mean of 1 - confidence / 255.
    Otherwise it is the Shannon entropy in bits of its intensities, averaged in blocks of 4 x 4 px and counted in 64
    bins over the range of the volume: 0 for an empty slice, largest for a slice with much structure at many levels.
    Raises `StageFailed`: the volume holds NaN or infinity, or is constant.
    """
    low, high = sampled_range(volume)
    worth: list[float] = []
    looks: list[Array] = []
    for part in runtime.track(slabs(volume.shape[axis], SLICES_AT_ONCE), "annotate: reading slices"):
        box = (slice(None),) * axis + (part,)
        images = np.moveaxis(np.asarray(volume[box], np.float32), axis, 0)
        looks += [thumbnail(image) for image in images]
        if confidence is None:
            worth += [_entropy(image, low, high) for image in images]
        else:
            doubt = CERTAIN - np.moveaxis(np.asarray(confidence[box], np.float32), axis, 0)
            worth += [float(d) for d in doubt.mean(axis=(1, 2)) / CERTAIN]
    return SliceDescriptions(np.array(worth), np.array(looks), "entropy" if confidence is None else "uncertainty")


def _entropy(image: Array, low: float, high: float) -> float:
    """Return the entropy of a slice in bits; values beyond the range count in the end bins."""
    starts = [np.arange(0, n, BLOCK) for n in image.shape]
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), starts[0], axis=0), starts[1], axis=1)
    heights, widths = (np.diff([*edges, n]) for edges, n in zip(starts, image.shape, strict=True))
    blocks = np.clip(sums / np.outer(heights, widths), low, high)
    counts = np.histogram(blocks, BINS, (low, high))[0]
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def select_slices(slices: SliceDescriptions, wanted: int, painted: Sequence[int] = ()) -> list[int]:
    """Return the numbers of up to `wanted` slices to paint, ascending.

    Each next slice is the one with the largest product of its worth and the distance, in looks, to the most similar
    slice that is selected or painted already: farthest-first traversal (Gonzalez 1985,
    doi:10.1016/0304-3975(85)90224-5), weighted by worth. Slices nearer to those than half of an even spacing are left
    out while there are others. The first and last 5 % of the slices are never selected.
    """
    n = len(slices.worth)
    border = round(BORDER * n)
    inside = np.arange(n) == np.clip(np.arange(n), border, n - 1 - border)
    wanted = min(wanted, int(inside.sum()) - len({k for k in painted if inside[k]}))
    gap = n // (2 * max(wanted + len(painted), 1))
    selected: list[int] = []
    while len(selected) < wanted:
        taken = [*painted, *selected]
        away = np.min([np.abs(np.arange(n) - t) for t in taken], axis=0) if taken else np.full(n, n)
        near = np.max([slices.looks @ slices.looks[t] for t in taken], axis=0) if taken else np.zeros(n)
        value = (1e-9 + slices.worth) * np.sqrt(np.maximum(2 - 2 * near, 1e-9))
        for least in (gap, 0):
            free = inside & (away > least)
            if free.any():
                selected.append(int(np.where(free, value, -1.0).argmax()))
                break
    return sorted(selected)
