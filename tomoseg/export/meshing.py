"""Surfaces of an export: how finely each class is meshed, and the surfaces themselves, one after the other.

Last come the closed pores: regions of background that no path through background connects to the border of the volume.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import components
from tomoseg.ahead import ahead
from tomoseg.arrays import Array, ArraySource, BoolArray
from tomoseg.errors import StageFailed
from tomoseg.export import surfaces
from tomoseg.export.context import PORES, READING_SHARE, ExportContext, Surface, SurfacePlan
from tomoseg.export.polydata import surface_polydata
from tomoseg.measurement.common.blocks import threads_for_blocks
from tomoseg.measurement.common.coarse_grid import box_of
from tomoseg.measurement.common.surface import RADIUS_PX, Block, LevelFinder, Mesh, counted, object_surface
from tomoseg.palette import CLOSED_PORES
from tomoseg.runtime import Runtime, slabs

SURFACE_SHARE = 0.6  # of the memory allowed: how much a surface may take
MIN_VOXELS = 27  # smaller pores have no shape: 3 x 3 x 3 voxels, as for particles
# Per voxel of the box around a pore while it is meshed: labels, numbers of components, the mask, and three fields.
PORE_BYTES_PER_VOXEL = 30


def plan_surfaces(context: ExportContext, target_triangles: int) -> dict[int, SurfacePlan]:
    """Choose the cells from which each class is meshed, by class index; classes without voxel faces are left out.

    Raises StageFailed if a surface does not fit in the memory allowed.
    """
    labels, names, runtime = context.labels, context.class_names, context.runtime
    plane = math.prod(labels.shape[1:])
    pieces = slabs(labels.shape[0], runtime.slab_size(surfaces.BYTES_PER_VOXEL * plane, labels.shape[0]))
    faces = surfaces.boundary_faces((labels[z] for z in runtime.track(pieces, "counting voxel faces")), len(names))
    factors = {k: surfaces.coarsening(int(n), target_triangles) for k, n in enumerate(faces) if k and n}
    for k, factor in factors.items():
        needed = surfaces.bytes_needed(int(faces[k]), factor) / SURFACE_SHARE
        if needed > runtime.max_memory:
            fits = int(SURFACE_SHARE * runtime.max_memory / surfaces.BYTES_PER_TRIANGLE)
            raise StageFailed(
                f"the surface of {names[k]} has up to {2 * faces[k] // factor**2} triangles, which do not fit in "
                f"--max-memory ({runtime.max_memory / 2**20:.0f} MiB). Allow {needed / 2**20:.0f} MiB, or set "
                f"export.target_triangles to {fits} or fewer."
            )
    return {k: SurfacePlan(factor, int(2 * faces[k] // factor**2)) for k, factor in factors.items()}


def make_surfaces(context: ExportContext, smoothing_iterations: int, target_triangles: int) -> Iterator[Surface]:
    """Mesh the planned classes one after the other, then the closed pores."""
    labels, names, runtime = context.labels, context.class_names, context.runtime
    source: ArraySource = labels[:] if context.raw_bytes["labels"] <= READING_SHARE * runtime.max_memory else labels

    def polydata(mesh: Mesh) -> Any:
        target = target_triangles if len(mesh.faces) <= surfaces.MOST_REDUCED else 0
        return surface_polydata(mesh, tuple(labels.shape), context.voxel_size, smoothing_iterations, target)

    for k, plan in context.planned.items():
        name = names[k]
        if plan.factor > 1:
            runtime.say(
                f"the surface of {name} is meshed from cells of {plan.factor}^3 voxels to stay near "
                "export.target_triangles"
            )
        mesh = _class_mesh(surfaces.CoarseLabels(source, plan.factor), k, f"surface of {name}", runtime)
        if len(mesh.faces):
            yield Surface(context.stem(k), name, *context.appearance(k), polydata(mesh))
        else:
            runtime.say(f"no surface is written for {name}: the class consists of scattered voxels only")
    pores = _pore_mesh(source, runtime)
    if pores is not None:
        yield Surface(PORES, f"closed pores of {names[0]}", CLOSED_PORES, 1.0, polydata(pores))


def _class_mesh(coarse: surfaces.CoarseLabels, k: int, what: str, runtime: Runtime) -> Mesh:
    pieces, threads = coarse.strips(READING_SHARE * runtime.max_memory), threads_for_blocks(runtime)

    def parts(doing: str) -> Iterator[tuple[Block, Array]]:
        for strip in runtime.track(pieces, doing):
            yield from strip.parts(coarse.fraction(strip.read, k))

    finder = LevelFinder()
    with closing(ahead(lambda part: counted(part[1], part[0]), parts(f"{what}: level"), threads)) as counting:
        for found in counting:
            finder.take(found)
    level = finder.level()
    with closing(ahead(lambda part: surfaces.block_surface(part[1], level, part[0]), parts(what), threads)) as meshing:
        patches = [patch for patch in meshing if patch]
    return surfaces.joined(patches, coarse)


def _pore_mesh(labels: ArraySource, runtime: Runtime) -> Mesh | None:
    """Mesh all closed pores together; None if there are none, or too many for the memory allowed."""
    material = np.minimum(np.arange(256), 1).astype(np.uint8)
    box = box_of(labels, material, 1, runtime)  # all that lies outside is open
    z0, (height, width) = box[0].start, (part.stop - part.start for part in box[1:])
    n = box[0].stop - z0
    pieces = slabs(n, runtime.slab_size(components.BYTES_PER_VOXEL * max(height * width, 1), n))
    parts = runtime.track(pieces, "finding closed pores")
    found = closed_pores((labels[z0 + z.start : z0 + z.stop, *box[1:]] == 0 for z in parts), (n, height, width))
    if not len(found):
        return None
    for name in ("start", "stop", "seed"):
        found[name] += np.array([part.start for part in box], found[name].dtype)
    largest = PORE_BYTES_PER_VOXEL * int(box_voxels(found).max())
    meshes: list[Mesh] = []
    most, triangles = int(SURFACE_SHARE * runtime.max_memory / surfaces.BYTES_PER_TRIANGLE), 0
    if largest <= SURFACE_SHARE * runtime.max_memory:
        for pore in runtime.track(list(found), "surface of pores"):
            meshes.append(pore_surface(labels, pore))
            triangles += len(meshes[-1].faces)
            if triangles > most:
                break
        else:
            return together(meshes)
    runtime.say(f"no surface is written for the {len(found)} closed pores: it does not fit in --max-memory")
    return None


def closed_pores(background: Iterable[BoolArray], shape: Sequence[int]) -> NDArray[np.void]:
    """Find the closed pores of a volume of `shape` (z, y, x), given its background as consecutive slabs.

    Voxels of one pore share faces, so material that touches at an edge closes a pore. Returns (n,) of
    `tomoseg.components.COMPONENT`.
    """
    found, _ = components.find_components(background, 6, MIN_VOXELS)
    inside = (found["start"] > 0).all(axis=1) & (found["stop"] < np.array(shape)).all(axis=1)
    return found[inside]


def box_voxels(pores: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the number of voxels (n,) of the box in which each pore is meshed."""
    return np.asarray(np.prod(pores["stop"] - pores["start"] + 2 * RADIUS_PX, axis=1, dtype=np.int64))


def pore_surface(labels: ArraySource, pore: np.void) -> Mesh:
    """Mesh a pore, in px of the labels, at the level that encloses its number of voxels."""
    box = tuple(slice(int(a), int(b)) for a, b in zip(pore["start"], pore["stop"], strict=True))
    mask = components.component_at(np.asarray(labels[box] == 0), pore["seed"] - pore["start"])
    mesh = object_surface(np.pad(mask, RADIUS_PX))
    offset = (pore["start"] - RADIUS_PX).astype(np.float32)
    return Mesh(mesh.vertices + offset, mesh.faces, mesh.weights)


def together(meshes: Sequence[Mesh]) -> Mesh:
    """Combine separate surfaces into one mesh."""
    meshes = [Mesh.none(), *meshes]
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])], dtype=np.int32)
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate([mesh.weights for mesh in meshes]),
    )
