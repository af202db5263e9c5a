"""What is measured of each particle, and the table of particles."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource
from tomoseg.measure.blocks import placed, strips
from tomoseg.measure.classes import area_px2
from tomoseg.measure.surface import RADIUS_PX, BoolArray, Box, FloatArray, LevelFinder, object_surface

Table = NDArray[np.void]

PARTICLE = np.dtype(
    [
        ("id", "i4"),
        ("voxels", "i8"),
        ("volume_nm3", "f8"),
        ("diameter_nm", "f8"),
        ("diameter_px", "f8"),
        ("surface_area_nm2", "f8"),
        ("surface_area_px2", "f8"),
        ("z_nm", "f8"),
        ("y_nm", "f8"),
        ("x_nm", "f8"),
        ("z_px", "f8"),
        ("y_px", "f8"),
        ("x_px", "f8"),
        ("neighbour_distance_nm", "f8"),
        ("neighbour_distance_px", "f8"),
        ("mean_intensity", "f8"),
        ("touches_border", "?"),
    ]
)

# Particles whose boxes have more voxels are meshed in blocks, as classes are.
LARGE_VOXELS = 96**3

ReadMask = Callable[[Box], BoolArray]


@dataclass(frozen=True)
class Particle:
    """One particle in the volume.

    Attributes
    ----------
    extent
        What is known of it from counting, a row of `tomoseg.measure.components.EXTENT`.
    mask
        Returns the particle's voxels in a box of the volume. Boxes are asked for from the first to the last plane.
    """

    extent: Any
    mask: ReadMask

    def measured(self, volume: ArraySource, strip_bytes: float) -> dict[str, Any]:
        """Measure it, all lengths in px.

        Voxels; the mean of their coordinates (z, y, x) from the centre of voxel (0, 0, 0) of the volume; whether one
        lies at the border; the area of the smoothed surface inside the volume; the mean of `volume` over its voxels.
        A large particle is looked at in blocks, some `strip_bytes` at a time.
        """
        shape = volume.shape
        n, start, stop = int(self.extent["voxels"]), self.extent["start"], self.extent["stop"]
        z, y, x = (float(s) / n for s in self.extent["sum"])
        at_border = bool((start == 0).any() or (stop == np.array(shape)).any())
        row = {"voxels": n, "z_px": z, "y_px": y, "x_px": x, "touches_border": at_border}
        box = grown_box(start, stop, shape)
        if box_voxels(box) <= LARGE_VOXELS:
            return {**row, **_measured_at_once(self.mask(box), volume[box], box, shape)}
        return {**row, **_measured_in_blocks(self.mask, volume, box, strip_bytes)}


def grown_box(start: Iterable[int], stop: Iterable[int], shape: Iterable[int], margin: int = RADIUS_PX) -> Box:
    """Return the box [start, stop) with a margin, as far as the volume goes."""
    z, y, x = (
        slice(max(0, int(a) - margin), min(int(n), int(b) + margin)) for a, b, n in zip(start, stop, shape, strict=True)
    )
    return z, y, x


def box_voxels(box: Box) -> int:
    """Return the number of voxels in a box."""
    return math.prod(s.stop - s.start for s in box)


def _measured_at_once(mask: BoolArray, intensity: Array, box: Box, shape: Sequence[int]) -> dict[str, float]:
    z, y, x = ((s.start == 0, s.stop == n) for s, n in zip(box, shape, strict=True))
    return {
        "surface_area_px2": object_surface(mask, (z, y, x)).area_px2(),
        "mean_intensity": float(intensity[mask].mean(dtype=np.float64)),
    }


def _measured_in_blocks(mask: ReadMask, volume: ArraySource, box: Box, strip_bytes: float) -> dict[str, float]:
    """Measure in blocks of the box: where it ends within the volume, the mask is empty and has no surface."""
    pieces = strips([s.stop - s.start for s in box], strip_bytes, itemsize=1 + volume.dtype.itemsize)
    finder, n_voxels, total = LevelFinder(), 0, 0.0
    for strip in pieces:
        read = placed(strip.read, box)
        masks, intensities = strip.parts(mask(read)), strip.parts(volume[read])
        for (block, inside), (_, intensity) in zip(masks, intensities, strict=True):
            finder.add(inside, block)
            n_voxels += int(np.count_nonzero(inside[block.own]))
            total += float(intensity[block.own][inside[block.own]].sum(dtype=np.float64))
    level, area = finder.level(), 0.0
    for strip in pieces:
        for block, inside in strip.parts(mask(placed(strip.read, box))):
            area += area_px2(inside, level, block)
    return {"surface_area_px2": area, "mean_intensity": total / n_voxels}


def particle_table(rows: Iterable[Mapping[str, Any]], voxel_size_nm: float) -> Table:
    """Make the table of particles from what was measured of each, largest first.

    Adds the diameter of the sphere of equal volume, the distance to the nearest other particle (between centres; NaN
    where there is none) and all lengths, areas and volumes in nm, which are NaN where the voxel size is.

    Returns
    -------
    array of `PARTICLE`, (n,)
    """
    rows = sorted(rows, key=lambda row: (-row["voxels"], row["z_px"], row["y_px"], row["x_px"]))
    table = np.zeros(len(rows), PARTICLE)
    for i, row in enumerate(rows):
        for name, value in row.items():
            table[name][i] = value
    table["id"] = np.arange(1, len(table) + 1)
    table["diameter_px"] = np.cbrt(6 / np.pi * table["voxels"])
    table["neighbour_distance_px"] = neighbour_distances(np.stack([table[f"{a}_px"] for a in "zyx"], axis=1))
    table["volume_nm3"] = table["voxels"] * voxel_size_nm**3  # px^3 * (nm / px)^3
    table["surface_area_nm2"] = table["surface_area_px2"] * voxel_size_nm**2
    for name in ("diameter", "z", "y", "x", "neighbour_distance"):
        table[f"{name}_nm"] = table[f"{name}_px"] * voxel_size_nm
    return table


def neighbour_distances(points: FloatArray) -> FloatArray:
    """Return the distance (n,) from each point (n, 3) to the nearest other one; NaN where there is no other."""
    from scipy.spatial import cKDTree

    if len(points) < 2:
        return np.full(len(points), np.nan)
    distances, _ = cKDTree(points).query(points, k=2)
    return np.asarray(distances[:, 1], dtype=np.float64)
