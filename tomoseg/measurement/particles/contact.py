"""Contact: the part of a particle's surface that faces the support.

A ray from the middle of each triangle of the particle's surface runs outwards along its normal to the first voxel that
is not of the particle; the triangle is in contact where that voxel is support, which voxels of other particles are not.
The surface is smooth and lies within a voxel's diagonal of the voxels' faces, so that `REACH_PX` is far enough.
"""

import numba
import numpy as np

from tomoseg.arrays import Array, BoolArray
from tomoseg.measurement.common.surface import Mesh

REACH_PX, STEP_PX = 2.0, 0.25


def contact_area_px2(mesh: Mesh, inside: BoolArray, support: BoolArray, offset: tuple[int, int, int]) -> float:
    """Return the area of the triangles of a particle's surface that face support, px^2.

    `inside` and `support` (z, y, x) are the voxels of the particle and of the support, with `REACH_PX` around the mesh
    except at the border of the volume; `offset` is where the origin of the mesh lies in them, voxels.
    """
    if len(mesh.faces) == 0 or not support.any():
        return 0.0
    masks = np.ascontiguousarray(inside), np.ascontiguousarray(support)
    return float(_contact(mesh.vertices, mesh.faces, mesh.weights, *masks, np.array(offset, np.float64)))


@numba.njit(nogil=True, cache=True)
def _contact(vertices: Array, faces: Array, weights: Array, inside: Array, support: Array, offset: Array) -> float:
    """Follow the ray of each triangle; what lies at the border of the volume goes on beyond it."""
    total = 0.0
    a, b, normal, place = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    voxel = np.empty(3, np.int64)
    for k in range(len(faces)):
        for axis in range(3):
            p, q, r = vertices[faces[k, 0], axis], vertices[faces[k, 1], axis], vertices[faces[k, 2], axis]
            a[axis], b[axis] = q - p, r - p
            place[axis] = (p + q + r) / 3.0 + offset[axis]
        # Minus the cross product of (z, y, x) triples points outwards, see `Mesh.area_vectors`.
        normal[0] = a[2] * b[1] - a[1] * b[2]
        normal[1] = a[0] * b[2] - a[2] * b[0]
        normal[2] = a[1] * b[0] - a[0] * b[1]
        length = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
        if length == 0.0:
            continue
        for step in range(int(REACH_PX / STEP_PX) + 1):
            for axis in range(3):
                at = int(np.floor(place[axis] + step * STEP_PX * normal[axis] / length + 0.5))
                voxel[axis] = min(max(at, 0), inside.shape[axis] - 1)
            if not inside[voxel[0], voxel[1], voxel[2]]:
                if support[voxel[0], voxel[1], voxel[2]]:
                    total += 0.5 * length * weights[k]
                break
    return total
