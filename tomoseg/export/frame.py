"""The coordinate frame of exported VTK files and surfaces, in which ParaView shows a volume upright.

Our arrays are (z, y, x) with y pointing down as displayed; x right, y down and z into the screen are right-handed. VTK
and ParaView look along -z with y up. The volume is therefore rotated by 180 degrees about x, never mirrored:

    X = x h,  Y = -y h,  Z = -z h          (h: voxel size)

with the centre of voxel (0, 0, 0) at the origin. Files hold the rows and planes in reverse order, because their
spacings are positive.
"""

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array

WORLD_SIGNS = np.array([1.0, -1.0, -1.0])


def to_world(points_px: Array, voxel_size: float) -> NDArray[np.float32]:
    """Convert points (n, 3), (z, y, x) in px, to (X, Y, Z) in the unit of `voxel_size`."""
    return np.asarray(points_px[:, ::-1] * WORLD_SIGNS * voxel_size, dtype=np.float32)


def world_origin(shape: tuple[int, ...], voxel_size: float) -> tuple[float, float, float]:
    """Return (X, Y, Z) of the first voxel in a file, which is in the last row and the last plane of the array."""
    nz, ny, _ = shape
    return 0.0, -(ny - 1) * voxel_size, -(nz - 1) * voxel_size
