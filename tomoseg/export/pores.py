"""Closed pores: regions of background that no path through background connects to the border of the volume."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import ArraySource, BoolArray
from tomoseg.components import component_at, find_components
from tomoseg.measurement.common.surface import RADIUS_PX, Mesh, object_surface

# Smaller pores have no shape: 3 x 3 x 3 voxels, as for particles.
MIN_VOXELS = 27
# Per voxel of the box around a pore while it is meshed: labels, numbers of components, the mask, and three fields.
BYTES_PER_VOXEL = 30


def closed_pores(
    background: Iterable[BoolArray], shape: Sequence[int], min_voxels: int = MIN_VOXELS
) -> NDArray[np.void]:
    """Find the closed pores of a volume of `shape` (z, y, x), given its background as consecutive slabs.

    Voxels of one pore share faces, so material that touches at an edge closes a pore.

    Returns
    -------
    array of `tomoseg.components.COMPONENT`, (n,)
    """
    found, _ = find_components(background, 6, min_voxels)
    inside = (found["start"] > 0).all(axis=1) & (found["stop"] < np.array(shape)).all(axis=1)
    return found[inside]


def box_voxels(pores: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the number of voxels (n,) of the box in which each pore is meshed."""
    return np.asarray(np.prod(pores["stop"] - pores["start"] + 2 * RADIUS_PX, axis=1, dtype=np.int64))


def pore_surface(labels: ArraySource, pore: np.void) -> Mesh:
    """Mesh a pore, in px of the labels, at the level that encloses its number of voxels."""
    box = tuple(slice(int(a), int(b)) for a, b in zip(pore["start"], pore["stop"], strict=True))
    mask = component_at(np.asarray(labels[box] == 0), pore["seed"] - pore["start"])
    mesh = object_surface(np.pad(mask, RADIUS_PX))
    offset = (pore["start"] - RADIUS_PX).astype(np.float32)
    return Mesh(mesh.vertices + offset, mesh.faces, mesh.weights)


def together(meshes: Sequence[Mesh]) -> Mesh:
    """Combine separate surfaces into one mesh."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(
        np.concatenate([np.zeros((0, 3), np.float32), *(mesh.vertices for mesh in meshes)]),
        np.concatenate(
            [np.zeros((0, 3), np.int32)]
            + [mesh.faces + np.int32(start) for mesh, start in zip(meshes, starts, strict=False)]
        ),
        np.concatenate([np.zeros(0, np.float32), *(mesh.weights for mesh in meshes)]),
    )
