"""Worlds as labelled slices to train on: slices of the plane of reconstruction with their neighbours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tomoseg.io.slices import LabelledSlices
from tomoseg.worlds.library import read_world


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
    return LabelledSlices(names, images, labels, ["background", "support", "particles"])


def world_of(name: str) -> str:
    """Return the name of the world of a slice."""
    return name.rpartition("-y")[0]
