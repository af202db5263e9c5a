"""The geometry of single-axis tomography, as a value.

Every slice perpendicular to the tilt axis is seen in the same way, so one geometry serves them all. In a slice, a
point at (x, z) from the centre is seen at ``x*cos(t) + z*sin(t)`` from the tilt axis at tilt t. The centre of n pixels
is (n - 1)/2, and the tilt axis meets the detector at (n_detector - 1)/2. All lengths are in detector pixels, which are
also the voxels.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import InputError

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class ParallelGeometry:
    """Tilt angles, detector width and slice size.

    Parameters
    ----------
    angles_deg : array, shape (n_tilt,), in degrees
    n_detector : detector pixels across the tilt axis
    nx, nz : size of a slice of the volume, across the tilt axis and along the beam at zero tilt

    Raises
    ------
    InputError
        An angle is not finite, there is none, or a size is not positive.
    """

    angles_deg: FloatArray
    n_detector: int
    nx: int
    nz: int

    def __post_init__(self) -> None:
        angles = np.array(self.angles_deg, np.float64)
        if angles.ndim != 1 or angles.size == 0 or not np.isfinite(angles).all():
            raise InputError("The tilt angles must be a list of finite numbers of degrees, one per projection.")
        if min(self.n_detector, self.nx, self.nz) < 1:
            raise InputError(
                f"A slice of {self.nz} x {self.nx} pixels seen by {self.n_detector} detector pixels is empty; "
                "sizes must be at least 1."
            )
        angles.flags.writeable = False
        object.__setattr__(self, "angles_deg", angles)

    @property
    def n_tilt(self) -> int:
        """Number of tilts."""
        return len(self.angles_deg)

    @property
    def cosines(self) -> NDArray[np.float64]:
        """Cosine of each tilt."""
        return np.asarray(np.cos(np.deg2rad(self.angles_deg)), np.float64)

    @property
    def sines(self) -> NDArray[np.float64]:
        """Sine of each tilt."""
        return np.asarray(np.sin(np.deg2rad(self.angles_deg)), np.float64)

    @property
    def x(self) -> NDArray[np.float64]:
        """Distance of each column of a slice from the tilt axis, in pixels."""
        return _centred(self.nx)

    @property
    def z(self) -> NDArray[np.float64]:
        """Distance of each row of a slice from the tilt axis, in pixels."""
        return _centred(self.nz)

    @property
    def detector(self) -> NDArray[np.float64]:
        """Distance of each detector pixel from the tilt axis, in pixels."""
        return _centred(self.n_detector)

    def of(self, tilts: slice | NDArray[np.integer]) -> "ParallelGeometry":
        """Return the geometry with some of the tilts only."""
        return replace(self, angles_deg=self.angles_deg[tilts])

    def cylinder(self) -> NDArray[np.bool_]:
        """Return the voxels whose centres the detector sees at every possible tilt, shape (nz, nx)."""
        distance = np.hypot(self.z[:, None], self.x[None, :])
        return np.asarray(distance <= self.n_detector / 2)


def _centred(n: int) -> NDArray[np.float64]:
    return np.arange(n, dtype=np.float64) - (n - 1) / 2
