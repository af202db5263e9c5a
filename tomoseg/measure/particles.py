"""What is measured of each particle, and the table of particles."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measure.surface import RADIUS_PX, BoolArray, FloatArray, Sides, object_surface

Table = NDArray[np.void]
Box = tuple[slice, slice, slice]

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

# Bytes per voxel of the box around a particle: labels, mask, component labels u4, two smoothed fields f4, the mesh.
BYTES_PER_VOXEL = 32


@dataclass(frozen=True)
class Piece:
    """One particle cut out of the volume.

    `mask` (z, y, x) lies at `box` of a volume of `shape`, with `RADIUS_PX` free voxels around the particle wherever
    the volume has them; `intensity` is the volume in the same box, or None where it is not asked for.
    """

    mask: BoolArray
    box: Box
    shape: tuple[int, int, int]
    intensity: Array | None = None

    @property
    def border(self) -> Sides:
        """Per axis, whether the box begins and whether it ends at the border of the volume."""
        z, y, x = ((s.start == 0, s.stop == n) for s, n in zip(self.box, self.shape, strict=True))
        return z, y, x


def grown_box(start: Iterable[int], stop: Iterable[int], shape: Iterable[int], margin: int = RADIUS_PX) -> Box:
    """Return the box [start, stop) with a margin, as far as the volume goes."""
    z, y, x = (
        slice(max(0, int(a) - margin), min(int(n), int(b) + margin)) for a, b, n in zip(start, stop, shape, strict=True)
    )
    return z, y, x


def particle_row(piece: Piece) -> dict[str, Any]:
    """Measure one particle, all lengths in px.

    Voxels; the mean of their coordinates (z, y, x) from the centre of voxel (0, 0, 0) of the volume; the area of the
    smoothed surface inside the volume; whether a voxel lies at the border; the mean of the volume over its voxels.
    """
    where = np.nonzero(piece.mask)
    corner = [s.start for s in piece.box]
    z, y, x = (float(w.mean()) + c for w, c in zip(where, corner, strict=True))
    at_border = any(
        (low and w.min() == 0) or (high and w.max() == n - 1)
        for w, n, (low, high) in zip(where, piece.mask.shape, piece.border, strict=True)
    )
    return {
        "voxels": len(where[0]),
        "z_px": z,
        "y_px": y,
        "x_px": x,
        "surface_area_px2": object_surface(piece.mask, piece.border).area_px2(),
        "touches_border": at_border,
        "mean_intensity": np.nan if piece.intensity is None else float(piece.intensity[where].mean(dtype=np.float64)),
    }


def unresolved_row(component: Any, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return what is known of a component (a row of `COMPONENT`) without looking at its voxels."""
    z, y, x = component["sum"] / component["voxels"]
    at_border = bool((component["start"] == 0).any() or (component["stop"] == np.array(shape)).any())
    row = {"voxels": int(component["voxels"]), "z_px": float(z), "y_px": float(y), "x_px": float(x)}
    return {**row, "surface_area_px2": np.nan, "touches_border": at_border, "mean_intensity": np.nan}


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
