"""Labelled slices to train on: those of worlds in the plane of reconstruction, and real ones on the same scale."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tomoseg.errors import InputError
from tomoseg.io.slices import IGNORE, LabelledSlices
from tomoseg.segmentation.data.intensity_scaling import levels_of_labels
from tomoseg.segmentation.data.resampling import resized
from tomoseg.worlds.library import read_world

CLASS_NAMES = ["background", "support", "particles"]
# Sizes at which real slices are shown. Their pixels are finer than the worlds' are for objects of this size.
REDUCTIONS = (1, 2)
REAL = "~real"  # the group of all real slices, which comes after all worlds


def labelled_slices(paths: Sequence[Path], channels: int, every: int = 1) -> LabelledSlices:
    """Return every so many slices of worlds, (z, x) or (z, x, channels), which are views of the volumes.

    Their names are those of the world and of the slice; `world_of` tells the first.
    """
    names, images, labels = [], [], []
    reach = channels // 2
    for path in paths:
        volume, truth, _, _ = read_world(path)
        around = np.pad(volume, ((0, 0), (reach, reach), (0, 0)), mode="edge")
        windows = sliding_window_view(around, channels, axis=1)
        for y in range(every // 2, volume.shape[1], every):
            names.append(f"{path.stem}-y{y:04d}")
            images.append(windows[:, y] if channels > 1 else windows[:, y, :, 0])
            labels.append(truth[:, y])
    return LabelledSlices(names, images, labels, CLASS_NAMES)


def with_real(worlds: LabelledSlices, real: LabelledSlices) -> LabelledSlices:
    """Add real slices to those of worlds: scaled alike, each at its own size and at half of it.

    Real ones are (h, w) or (h, w, channels) with labels of background, support and particles. Raises `InputError`:
    their labels do not tell the levels of background and support.
    """
    levels = levels_of_labels(real.images, real.labels)
    if levels is None:
        raise InputError(
            "the labels of the real slices do not tell the levels of background and support: class 0 must be the "
            "background, class 1 the support, which is brighter, and class 2 the particles"
        )
    zero, one = levels
    names, shown, labels = list(worlds.names), list(worlds.images), list(worlds.labels)
    for name, image, truth in zip(real.names, real.images, real.labels, strict=True):
        scaled = (np.asarray(image, np.float32) - np.float32(zero)) / np.float32(one - zero)
        planes = np.moveaxis(scaled, -1, 0) if scaled.ndim == 3 else scaled[None]
        for reduction in REDUCTIONS:
            shape = (truth.shape[0] // reduction, truth.shape[1] // reduction)
            small = resized(planes, shape).astype(np.float16)
            names.append(f"{REAL}-{name}-{reduction}")
            shown.append(np.moveaxis(small, 0, -1) if scaled.ndim == 3 else small[0])
            labels.append(_reduced(truth, shape))
    return LabelledSlices(names, shown, labels, CLASS_NAMES)


def _reduced(labels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return labels (h, w) of larger pixels: of each, the class of most of it."""
    if labels.shape == shape:
        return labels
    values = [*range(len(CLASS_NAMES)), IGNORE]
    shares = resized(np.stack([labels == value for value in values]), shape)
    return np.asarray(np.array(values, np.uint8)[shares.argmax(axis=0)])


def world_of(name: str) -> str:
    """Return the name of the world of a slice, or `REAL`."""
    return REAL if name.startswith(REAL) else name.rpartition("-y")[0]
