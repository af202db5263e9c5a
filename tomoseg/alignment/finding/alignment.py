"""The result of finding an alignment: shifts and tilt axis, and the images that they were found from."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import rotate_vectors
from tomoseg.io.shifts import ImageCorrections


@dataclass(frozen=True)
class Alignment:
    """How a tilt series is brought into register, in raw pixels; see `tomoseg.alignment.images.warp` for the geometry.

    Attributes
    ----------
    shifts_px : (n_tilt, 2) f8, (dy, dx)
    axis_angle_deg, axis_offset_px : float
    whole : bool
        Whether the sample is whole in the frame across the axis.
    method : str
        How the shifts were found, in words.
    notes, warnings : sentences for the user
    unpredicted : (n_tilt,) bool, or None
        Tilts that the others do not predict, and that took no part in finding shifts and axis; None: not tested.
    corrections : ImageCorrections, or None where they were not asked for or gained nothing
    """

    shifts_px: NDArray[np.float64]
    axis_angle_deg: float
    axis_offset_px: float
    whole: bool
    method: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unpredicted: NDArray[np.bool_] | None = None
    corrections: ImageCorrections | None = None

    @property
    def moves_px(self) -> NDArray[np.float64]:
        """Shifts and offset together: (n_tilt, 2) (dy', dx') to add to raw pixels' coordinates after rotation."""
        return np.asarray(rotate_vectors(self.shifts_px, self.axis_angle_deg) - np.array([0.0, self.axis_offset_px]))


@dataclass(frozen=True)
class Placement:
    """The reduced images that an alignment was found from (all of the frame, or a patch), raw and aligned.

    Attributes
    ----------
    raw, aligned : ReducedSeries
        `aligned` has the image corrections applied.
    raw_moves_px, aligned_moves_px : (n_tilt, 2) f8
        (dy', dx') after rotation in pixels of the reduced series.
    """

    raw: ReducedSeries
    raw_moves_px: NDArray[np.float64]
    aligned: ReducedSeries
    aligned_moves_px: NDArray[np.float64]
