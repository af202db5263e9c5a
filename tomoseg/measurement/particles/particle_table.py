"""Particles: what is measured of each, and their table."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.arrays import Array, ArraySource, BoolArray, Box
from tomoseg.lengths import NYQUIST_PX
from tomoseg.measurement.common.blocks import placed, strips
from tomoseg.measurement.common.columns import fill_nm, row_type
from tomoseg.measurement.common.surface import (
    RADIUS_PX,
    Float32Array,
    FloatArray,
    LevelFinder,
    block_mesh,
    object_surface,
)
from tomoseg.measurement.particles.contact import contact_area_px2
from tomoseg.measurement.particles.gaps import MOST_POINTS, thinned
from tomoseg.measurement.particles.intensity_size import volume_by_intensity_px3
from tomoseg.measurement.particles.shape import covariance, moments, principal_axes, sphericity
from tomoseg.missing_wedge import MissingWedge

Table = NDArray[np.void]

HALF_VOXEL_PX = 0.5
BACKGROUND = 0

PARTICLE = row_type(
    """
    id:i4 class_index:i4 voxels:i8 volume_nm3 volume_half_voxel_nm3 volume_half_voxel_px3 diameter_nm
    diameter_px diameter_half_voxel_nm diameter_half_voxel_px surface_area_nm2 surface_area_px2 sphericity
    major_axis_nm middle_axis_nm minor_axis_nm major_axis_px middle_axis_px minor_axis_px elongation major_z
    major_y major_x elongated_along_beam:? z_nm y_nm x_nm z_px y_px x_px neighbour_distance_nm
    neighbour_distance_px neighbour_gap_nm neighbour_gap_px contact_area_nm2 contact_area_px2 contact_fraction
    mean_intensity integrated_intensity touches_border:? below_resolution:?
    """
)
# What is measured of each particle on its own; the table is made of that.
MEASURED = row_type(
    """
    voxels:i8 z_px y_px x_px surface_area_px2 contact_area_px2 covariance_px2:(3,3)f8 mean_intensity
    integrated_intensity intensity_volume_px3 touches_border:?
    """
)

ReadMask = Callable[[Box], BoolArray]


@dataclass(frozen=True)
class Scene:
    """The volume that particles are measured in.

    Attributes
    ----------
    volume : (z, y, x), intensities
    labels : (z, y, x), class of each voxel; support is what is neither background (class 0) nor the class counted
    class_index : the class counted
    by_intensity : whether the volume of each particle by its intensity is wanted, too
    """

    volume: ArraySource
    labels: ArraySource
    class_index: int
    by_intensity: bool = False

    def outside(self, box: Box) -> BoolArray:
        """Return which voxels of a box are not of the class counted."""
        return np.asarray(self.labels[box] != self.class_index)

    def support(self, box: Box) -> BoolArray:
        """Return where support is in a box."""
        labels = self.labels[box]
        return np.asarray((labels != BACKGROUND) & (labels != self.class_index))


@dataclass(frozen=True)
class Particle:
    """One particle in the volume.

    Attributes
    ----------
    extent
        Its size and place as found by counting, a row of `tomoseg.components.EXTENT`.
    mask
        Returns the particle's voxels in a box of the volume. Boxes are asked for from the first to the last plane.
    """

    extent: Any
    mask: ReadMask

    def measured(self, scene: Scene, large_voxels: int, strip_bytes: float) -> tuple[np.void, Float32Array]:
        """Measure the particle, all lengths in px.

        One whose box has more than `large_voxels` is measured in blocks, some `strip_bytes` at a time.

        Returns
        -------
        row of `MEASURED`
            Coordinates (z, y, x) are from the centre of voxel (0, 0, 0) of the volume. Areas are of the smoothed
            surface inside the volume and of its part that faces support.
        surface : float32, (m, 3)
            Points (z, y, x) of its surface in the volume; its centroid where it has none.
        """
        shape = scene.volume.shape
        row = np.zeros(1, MEASURED)[0]
        n, start, stop = int(self.extent["voxels"]), self.extent["start"], self.extent["stop"]
        row["voxels"] = n
        row["z_px"], row["y_px"], row["x_px"] = centroid = self.extent["sum"] / n
        row["touches_border"] = (start == 0).any() or (stop == np.array(shape)).any()
        box = grown_box(start, stop, shape)
        row["intensity_volume_px3"] = np.nan
        if box_voxels(box) <= large_voxels:
            mask = self.mask(box)
            points = _measure_at_once(row, mask, scene, box)
            if scene.by_intensity and not row["touches_border"]:
                others = ~scene.outside(box) & ~mask
                row["intensity_volume_px3"] = volume_by_intensity_px3(scene.volume[box], mask, others)
        else:
            points = _measure_in_blocks(row, self.mask, scene, box, strip_bytes)
        if len(points) == 0:
            return row, centroid.astype(np.float32)[None]
        return row, points + np.array([s.start for s in box], np.float32)


def grown_box(start: Iterable[int], stop: Iterable[int], shape: Iterable[int], margin: int = RADIUS_PX) -> Box:
    """Return the box [start, stop) with a margin, as far as the volume goes."""
    z, y, x = (
        slice(max(0, int(a) - margin), min(int(n), int(b) + margin)) for a, b, n in zip(start, stop, shape, strict=True)
    )
    return z, y, x


def box_voxels(box: Box) -> int:
    """Return the number of voxels in a box."""
    return math.prod(s.stop - s.start for s in box)


def _measure_at_once(row: np.void, mask: BoolArray, scene: Scene, box: Box) -> Float32Array:
    """Fill in the row from what is in the box; return the points of the surface in it."""
    z, y, x = ((s.start == 0, s.stop == n) for s, n in zip(box, scene.volume.shape, strict=True))
    mesh = object_surface(mask, (z, y, x))
    row["surface_area_px2"] = mesh.area_px2()
    row["contact_area_px2"] = contact_area_px2(mesh, mask, scene.support(box), (0, 0, 0))
    row["covariance_px2"] = covariance(moments(mask), row["voxels"])
    values = scene.volume[box][mask].astype(np.float64)
    row["mean_intensity"], row["integrated_intensity"] = values.mean(), values.sum()
    return mesh.vertices


def _measure_in_blocks(row: np.void, mask: ReadMask, scene: Scene, box: Box, strip_bytes: float) -> Float32Array:
    """Do it in blocks of the box; where it ends within the volume, the mask is empty and has no surface."""
    pieces = strips([s.stop - s.start for s in box], strip_bytes, itemsize=2 + scene.volume.dtype.itemsize)
    finder, sums = LevelFinder(), np.zeros(9, np.int64)
    for strip in pieces:
        read = placed(strip.read, box)
        masks, intensities = strip.parts(mask(read)), strip.parts(scene.volume[read])
        for (block, inside), (_, intensity) in zip(masks, intensities, strict=True):
            finder.add(inside, block)
            own = inside[block.own]
            sums += moments(own, [r.start + o.start for r, o in zip(block.read, block.own, strict=True)])
            row["integrated_intensity"] += intensity[block.own][own].sum(dtype=np.float64)
    row["covariance_px2"] = covariance(sums, row["voxels"])
    row["mean_intensity"] = row["integrated_intensity"] / row["voxels"]
    level, points = finder.level(), np.zeros((0, 3), np.float32)
    for strip in pieces:
        read = placed(strip.read, box)
        masks, supports = strip.parts(mask(read)), strip.parts(scene.support(read))
        for (block, inside), (_, support) in zip(masks, supports, strict=True):
            mesh, offset = block_mesh(inside, level, block), tuple(s.start for s in block.meshed)
            row["surface_area_px2"] += mesh.area_px2()
            row["contact_area_px2"] += contact_area_px2(mesh, inside, support, offset)
            points = np.concatenate([points, mesh.vertices + np.add(offset, [r.start for r in block.read], dtype="f4")])
            if len(points) > 2 * MOST_POINTS:
                points = thinned(points)
    return thinned(points)


def particle_table(
    rows: ArrayLike,
    gaps_px: ArrayLike,
    voxel_size_nm: float,
    class_index: int = 0,
    missing_wedge: MissingWedge | None = None,
    resolution_px: float = math.nan,
) -> Table:
    """Return the table of particles from what was measured of each, largest first.

    Adds the diameter of the sphere of equal volume; the lengths of the axes, the elongation and the direction of the
    major axis of the ellipsoid of equal second moments; the sphericity (NaN for a particle at the border, whose
    surface is open); the distance to the nearest other particle, between centres (NaN where there is none); the part
    of the surface that is in contact with the support; by how much volume and diameter change when the surface moves
    by half a voxel: dV = A h, d(diameter) = 2 A h / (pi diameter^2); and all lengths, areas and volumes in nm, which
    are NaN where the voxel size is.

    `rows` are (n,) of `MEASURED`, the table (n,) of `PARTICLE`. `gaps_px` (n,) are the smallest distances to the
    surface of another particle. Without a `missing_wedge` no particles are elongated along it. Sizes below
    `resolution_px`, or what voxels can show, are not resolved.
    """
    order = _table_order(rows)
    rows = np.asarray(rows, dtype=MEASURED)[order]
    table = np.zeros(len(rows), PARTICLE)
    for name in set(MEASURED.names or ()) & set(PARTICLE.names or ()):
        table[name] = rows[name]
    table["id"] = np.arange(1, len(table) + 1)
    table["class_index"] = class_index
    table["neighbour_gap_px"] = np.asarray(gaps_px, dtype=np.float64)[order]
    table["neighbour_distance_px"] = neighbour_distances(np.stack([table[f"{a}_px"] for a in "zyx"], axis=1))
    volume, area = table["voxels"], table["surface_area_px2"]
    table["diameter_px"] = np.cbrt(6 / np.pi * volume)
    table["below_resolution"] = table["diameter_px"] < resolved_from_px(resolution_px)
    table["volume_half_voxel_px3"] = HALF_VOXEL_PX * area
    table["diameter_half_voxel_px"] = 2 * HALF_VOXEL_PX * area / (np.pi * table["diameter_px"] ** 2)
    table["sphericity"] = np.where(table["touches_border"], np.nan, sphericity(volume, area))
    table["contact_fraction"] = table["contact_area_px2"] / np.where(area > 0, area, np.nan)
    _fill_axes(table, rows["covariance_px2"], missing_wedge)
    fill_nm(table, voxel_size_nm)
    table["volume_nm3"] = volume * voxel_size_nm**3  # px^3 * (nm / px)^3
    return table


def in_table_order(rows: ArrayLike) -> Table:
    """Return what was measured of each particle, (n,) of `MEASURED`, in the order of the table."""
    return np.asarray(rows, dtype=MEASURED)[_table_order(rows)]


def _table_order(rows: ArrayLike) -> NDArray[np.int64]:
    """Return the order of the table: largest first, then by place."""
    rows = np.asarray(rows, dtype=MEASURED)
    return np.lexsort((rows["x_px"], rows["y_px"], rows["z_px"], -rows["voxels"]))


def resolved_from_px(resolution_px: float, side: int = 1) -> float:
    """Return the diameter, px, from which an object is resolved: that of the volume, and of its cells of `side` px."""
    return max(NYQUIST_PX * side, float(np.nan_to_num(resolution_px)))


def _fill_axes(table: Table, covariances: FloatArray, missing_wedge: MissingWedge | None) -> None:
    lengths, major = principal_axes(covariances)
    table["major_axis_px"], table["middle_axis_px"], table["minor_axis_px"] = lengths.T
    table["elongation"] = lengths[:, 0] / lengths[:, 2]
    table["major_z"], table["major_y"], table["major_x"] = major.T
    if missing_wedge is not None:
        table["elongated_along_beam"] = missing_wedge.suspects(table["elongation"], major) & ~table["touches_border"]


def with_columns(table: Table, columns: Mapping[str, Array]) -> Table:
    """Return a table with more columns (n,) behind those it has."""
    kinds = [(name, column.dtype) for name, column in columns.items()]
    out = np.empty(len(table), np.dtype([*table.dtype.descr, *kinds]))
    for name in table.dtype.names or ():
        out[name] = table[name]
    for name, column in columns.items():
        out[name] = column
    return out


def neighbour_distances(points: FloatArray) -> FloatArray:
    """Return the distance (n,) from each point (n, 3) to the nearest other one; NaN where there is no other."""
    from scipy.spatial import cKDTree

    if len(points) < 2:
        return np.full(len(points), np.nan)
    distances, _ = cKDTree(points).query(points, k=2)
    return np.asarray(distances[:, 1], dtype=np.float64)
