"""Surfaces of an export: how finely each class is meshed, and the surfaces themselves, one after the other."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tomoseg.arrays import ArraySource
from tomoseg.errors import StageFailed
from tomoseg.export.context import PORES, READING_SHARE, ExportContext, Surface, SurfacePlan
from tomoseg.palette import SURFACE_BLUE
from tomoseg.runtime import Runtime, slabs

if TYPE_CHECKING:
    from tomoseg.export.surfaces import CoarseLabels
    from tomoseg.measurement.common.surface import Mesh

# Of the memory allowed: how much a surface may take.
SURFACE_SHARE = 0.6


def plan_surfaces(context: ExportContext, target_triangles: int) -> dict[int, SurfacePlan]:
    """Choose the cells from which each class is meshed, by class index; classes without voxel faces are left out.

    Raises
    ------
    StageFailed
        A surface does not fit in the memory allowed.
    """
    from tomoseg.export import surfaces

    labels, names, runtime = context.labels, context.classes.names, context.runtime
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
    from tomoseg.export import surfaces
    from tomoseg.export.polydata import surface_polydata

    labels, classes, runtime = context.labels, context.classes, context.runtime
    source: ArraySource = labels[:] if context.raw_bytes["labels"] <= READING_SHARE * runtime.max_memory else labels

    def polydata(mesh: "Mesh") -> Any:
        return surface_polydata(
            mesh,
            tuple(labels.shape),
            context.voxel_size,
            smoothing_iterations=smoothing_iterations,
            target_triangles=target_triangles if len(mesh.faces) <= surfaces.MOST_REDUCED else 0,
        )

    for k, plan in context.planned.items():
        name = classes.names[k]
        if plan.factor > 1:
            runtime.say(
                f"the surface of {name} is meshed from cells of {plan.factor}^3 voxels to stay near "
                "export.target_triangles"
            )
        mesh = _class_mesh(surfaces.CoarseLabels(source, plan.factor), k, f"surface of {name}", runtime)
        if len(mesh.faces):
            yield Surface(classes.stem(k), name, *classes.appearance(k), polydata(mesh))
        else:
            runtime.say(f"no surface is written for {name}: the class consists of scattered voxels only")
    pores = _pore_mesh(source, runtime)
    if pores is not None:
        yield Surface(PORES, f"closed pores of {classes.names[0]}", SURFACE_BLUE, 1.0, polydata(pores))


def _class_mesh(coarse: "CoarseLabels", k: int, what: str, runtime: Runtime) -> "Mesh":
    from tomoseg.export import surfaces
    from tomoseg.measurement.common.surface import LevelFinder

    pieces = coarse.strips(READING_SHARE * runtime.max_memory)
    finder = LevelFinder()
    for strip in runtime.track(pieces, f"{what}: level"):
        for block, fraction in strip.parts(coarse.fraction(strip.read, k)):
            finder.add(fraction, block)
    level = finder.level()
    patches: list[surfaces.Patch] = []
    for strip in runtime.track(pieces, what):
        for block, fraction in strip.parts(coarse.fraction(strip.read, k)):
            patch = surfaces.block_surface(fraction, level, block)
            patches += [patch] if patch else []
    return surfaces.joined(patches, coarse)


def _pore_mesh(labels: ArraySource, runtime: Runtime) -> "Mesh | None":
    """Mesh all closed pores together; None if there are none, or too many for the memory allowed."""
    from tomoseg.components import BYTES_PER_VOXEL
    from tomoseg.export import pores, surfaces

    shape = labels.shape
    pieces = slabs(shape[0], runtime.slab_size(BYTES_PER_VOXEL * math.prod(shape[1:]), shape[0]))
    found = pores.closed_pores((labels[z] == 0 for z in runtime.track(pieces, "finding closed pores")), shape)
    if not len(found):
        return None
    largest = pores.BYTES_PER_VOXEL * int(pores.box_voxels(found).max())
    meshes: list[Mesh] = []
    most, triangles = int(SURFACE_SHARE * runtime.max_memory / surfaces.BYTES_PER_TRIANGLE), 0
    if largest <= SURFACE_SHARE * runtime.max_memory:
        for pore in runtime.track(list(found), "surface of pores"):
            meshes.append(pores.pore_surface(labels, pore))
            triangles += len(meshes[-1].faces)
            if triangles > most:
                break
        else:
            return pores.together(meshes)
    runtime.say(f"no surface is written for the {len(found)} closed pores: it does not fit in --max-memory")
    return None
