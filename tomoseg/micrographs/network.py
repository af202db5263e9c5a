"""Particles of a micrograph by a trained network, as for the slices of a volume."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, MemoryOutputs
from tomoseg.errors import InputError
from tomoseg.micrographs.parameters import MicrographParameters
from tomoseg.micrographs.particles import separated
from tomoseg.runtime import Runtime
from tomoseg.segmentation.api import segment_volume
from tomoseg.segmentation.networks.known_models import resolve_model
from tomoseg.segmentation.parameters import SegmentParameters

AROUND_PX = 4  # beside particles, to tell whether they are bright or dark


def labelled_by(
    params: MicrographParameters, grey: NDArray[np.float32], left_out: NDArray[np.bool_], pixel_size_nm: float
) -> tuple[NDArray[np.int32], str, str, list[str]]:
    """Return labels (y, x) i4 of the particles that a network finds, their polarity, how it was found, and warnings.

    The image is resampled to the pixel size that the network was trained on, where both are known.

    Raises `InputError`: there is no such network, it cannot be used, or it has no such class.
    """
    path = resolve_model(params.model)
    options = SegmentParameters.of(
        "images", {"method": "unet", "model": Path(path), "plane": "xy", "intensity": "volume", "min_size": 1}
    )
    runtime, outputs = Runtime(), MemoryOutputs()
    summary = segment_volume(grey[None], pixel_size_nm, options, runtime, outputs)
    inside = np.asarray(outputs.arrays["labels"])[0] == _class_number(params.particle_class, summary.class_names)
    inside &= ~left_out
    objects, _ = ndimage.label(inside)
    labels, _ = separated(np.asarray(objects, np.int32), params.neck_ratio if params.split else 0.0)
    polarity = _polarity(grey, labels > 0, left_out)
    return labels, polarity, "the network's labels", list(runtime.warnings)


def _class_number(name: str, names: Sequence[str]) -> int:
    if not name:
        return len(names) - 1
    if name not in names:
        raise InputError(f"particle_class is {name}: the network has the classes {', '.join(names)}")
    return list(names).index(name)


def _polarity(grey: Array, inside: NDArray[np.bool_], left_out: NDArray[np.bool_]) -> str:
    """Return whether particles are brighter or darker than what is around them."""
    around = ndimage.binary_dilation(inside, iterations=AROUND_PX) & ~inside & ~left_out
    if not inside.any() or not around.any():
        return "unknown"
    return "bright" if np.median(grey[inside]) > np.median(grey[around]) else "dark"
