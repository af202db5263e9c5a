"""How much of each image lies in the aligned frame: shifts that move an image out of it are no alignment."""

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding.estimate import Alignment
from tomoseg.alignment.images.warp import aligned_shape, sampling
from tomoseg.alignment.judging.warnings import listed
from tomoseg.errors import InputError, StageFailed

SAMPLES = 50  # points of the aligned frame along each side
# Parts of the aligned frame that an image shows: with less than the first it is out of it; with less than the second,
# most of the sample is missing.
NOTHING, LITTLE = 0.05, 0.5


def part_in_frame(alignment: Alignment, raw_shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return which part of the aligned frame each image shows, (n_tilt,), beside an image that is only turned.

    `raw_shape` is (height, width).
    """
    height, width = raw_shape
    angle, offset = alignment.axis_angle_deg, alignment.axis_offset_px
    shape = aligned_shape((height, width), angle)
    grid = np.stack(np.meshgrid(*((np.arange(SAMPLES) + 0.5) / SAMPLES * n - 0.5 for n in shape), indexing="ij"))

    def part(shift_px: NDArray[np.float64], offset_px: float) -> float:
        matrix, start = sampling(raw_shape, shape, shift_px, angle, offset_px)
        y, x = np.tensordot(matrix, grid, 1) + start[:, None, None]
        inside = (np.abs(y - (height - 1) / 2) <= height / 2) & (np.abs(x - (width - 1) / 2) <= width / 2)
        return float(inside.mean())

    whole = part(np.zeros(2), 0.0)  # less than 1 where the axis is oblique
    return np.array([part(shift, offset) for shift in alignment.shifts_px]) / whole


def require_in_frame(
    parts: NDArray[np.float64], angles_deg: NDArray[np.float64], used: NDArray[np.bool_], *, found: bool
) -> None:
    """Raise unless all images that are `used` (n_tilt,) show something of the aligned frame.

    Raises
    ------
    StageFailed
        Shifts and axis were `found` from the images.
    InputError
        They were given.
    """
    out = used & (parts < NOTHING)
    if not out.any():
        return
    which = f"{out.sum()} of {len(parts)} images ({listed(angles_deg[out])})"
    if found:
        raise StageFailed(
            f"the shifts found move {which} out of the frame, so they are no alignment. The images may be too noisy, "
            "show another area, or belong to other angles: look at them, leave out those that are bad, give "
            "tilt_axis_angle if it is known, or lower max_shift."
        )
    raise InputError(
        f"the shifts and axis offset given move {which} out of the frame: check that they belong to this series, are "
        "in px of its images, and go by ascending angle."
    )


def frame_warnings(parts: NDArray[np.float64], angles_deg: NDArray[np.float64], used: NDArray[np.bool_]) -> list[str]:
    """Return a sentence if a large part of an image lies outside the aligned frame."""
    little = used & (parts < LITTLE)
    if not little.any():
        return []
    return [
        f"{little.sum()} of {len(parts)} images lie with more than half of their area outside the aligned frame "
        f"({listed(angles_deg[little])}; the least shows {parts[little].min():.0%} of it): check their shifts"
    ]
