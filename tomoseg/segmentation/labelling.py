"""What labelling by thresholds and by a network have in common: slabs, counts of voxels, and the summary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomoseg.arrays import Array
from tomoseg.runtime import Runtime

# Bytes held per voxel of a slab to find its objects: u1 labels and masks, u4 numbers of components, and what finding
# these takes.
LABELLING_BYTES = 14
# Slabs are no larger than this even where memory allows, so that progress is seen, little is lost with a slab that is
# dropped, and no library holds up a signal for more than a second or two.
MAX_SLAB_VOXELS = 1 << 26


@dataclass(frozen=True)
class LabelSummary:
    """What there is to know of a labelled volume besides the labels."""

    class_names: list[str]  # in class order; colours as #rrggbb
    class_colors: list[str]  # in class order; colours as #rrggbb
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
