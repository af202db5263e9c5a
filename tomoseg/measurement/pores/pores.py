"""Pores of a body: how many, how large, how wide, which way they lie, and how they hang together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.measurement.common.surface import BoolArray, FloatArray
from tomoseg.measurement.pores.porosimetry import Ways, covered, distances, outside_radius

PORE = np.dtype(
    [
        ("id", "i4"),
        ("closed", "?"),
        ("touches_border", "?"),
        ("voxels", "i8"),
        ("volume_nm3", "f8"),
        ("volume_px3", "f8"),
        ("diameter_nm", "f8"),
        ("diameter_px", "f8"),
        ("inscribed_diameter_nm", "f8"),
        ("inscribed_diameter_px", "f8"),
        ("wall_area_nm2", "f8"),
        ("wall_area_px2", "f8"),
        ("z_nm", "f8"),
        ("y_nm", "f8"),
        ("x_nm", "f8"),
        ("z_px", "f8"),
        ("y_px", "f8"),
        ("x_px", "f8"),
        ("elongation", "f8"),
        ("flatness", "f8"),
        ("axis_z", "f8"),
        ("axis_y", "f8"),
        ("axis_x", "f8"),
        ("axis_to_facet_deg", "f8"),
        ("flat_to_facet_deg", "f8"),
    ]
)
PORE_SIZE = np.dtype(
    [
        ("from_nm", "f8"),
        ("to_nm", "f8"),
        ("from_px", "f8"),
        ("to_px", "f8"),
        ("volume_nm3", "f8"),
        ("volume_px3", "f8"),
        ("volume_fraction", "f8"),
    ]
)
LEAST_PORE = 27  # cells; less is left out of the table, not of the volume


@dataclass(frozen=True)
class PoreSpace:
    """The support in cells, in a box around it, with what is within.

    Attributes
    ----------
    kinds : (z, y, x) u1, 0 background, 1 support, 2 particles
    ways : free space around the support alone (particles are no walls on the way in)
    numbers : (z, y, x) i4, number of the pore of each cell, 0 in none, -1 in one too small for the table
    closed : (n,) bool, whether pore 1 + i is cut off from outside
    inside : (z, y, x) bool, support, pores, and particles in them
    start : (3,) the first cell of the box in the volume; negative where the box reaches beyond it
    shape : of the volume, cells
    side : of a cell, px
    """

    kinds: NDArray[np.uint8]
    ways: Ways
    numbers: NDArray[np.int32]
    closed: NDArray[np.bool_]
    inside: BoolArray
    start: NDArray[np.int64]
    shape: tuple[int, ...]
    side: int

    @classmethod
    def of(cls, kinds: NDArray[np.uint8], side: int, ball_cells: float | None = None) -> "PoreSpace":
        """Find the pores of a volume of `kinds`; with the radius of a ball, all that it cannot reach are pores."""
        import cc3d

        shape = kinds.shape
        most = outside_radius(shape)
        if ball_cells is not None:
            most = max(most, int(np.ceil(ball_cells)))
        boxed, start = _boxed(kinds, most + 2)
        support = boxed == 1
        ways = Ways.around(support, most, _part_in_volume(start, support.shape, shape))
        within = ways.hidden() if ball_cells is None else ways.not_reached(ball_cells)
        within |= _cut_off(boxed == 0)
        inside = within | support
        pores = within & (boxed == 0)
        pores &= _in_volume(boxed.shape, start, shape)
        labels = cc3d.connected_components(pores, connectivity=6).astype(np.int32)
        voxels = np.bincount(labels.ravel())
        order = np.argsort(-voxels[1:], kind="stable") + 1
        n = int((voxels[1:] >= LEAST_PORE).sum())
        numbers = np.full(len(voxels), -1, np.int32)
        numbers[0] = 0
        numbers[order[:n]] = np.arange(1, n + 1)
        numbered = numbers[labels]
        is_open = _touching(numbered, (boxed == 0) & ~pores, n)
        return cls(boxed, ways, numbered, ~is_open, inside, start, shape, side)

    @property
    def pores(self) -> BoolArray:
        """All pores, the small ones too."""
        return np.asarray(self.numbers != 0)

    def in_volume(self) -> tuple[slice, ...]:
        """Return the part of the box that lies in the volume."""
        return _part_in_volume(self.start, self.kinds.shape, self.shape)

    def numbers_of_volume(self) -> NDArray[np.int32]:
        """Return the numbers of the pores of the whole volume, (z, y, x) i4; 0 also in the small ones."""
        out = np.zeros(self.shape, np.int32)
        here = self.in_volume()
        there = tuple(slice(h.start + int(s), h.stop + int(s)) for h, s in zip(here, self.start, strict=True))
        out[there] = self.numbers[here]
        return out

    def look_up(self, points_px: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the cells of the box, as an index, next to points (n, 3) in px of the volume."""
        cells = np.rint((points_px - (self.side - 1) / 2) / self.side).astype(np.int64) - self.start
        z, y, x = np.clip(cells, 0, np.array(self.kinds.shape) - 1).T
        return z, y, x


def _part_in_volume(start: Array, box: tuple[int, ...], volume: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(max(0, -int(s)), min(n, size - int(s))) for s, n, size in zip(start, box, volume, strict=True))


def _boxed(kinds: NDArray[np.uint8], margin: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Cut out the support with a margin; beyond the border of the volume it goes on as at the border."""
    support = kinds == 1
    start, stop = [], []
    for axis in range(3):
        found = np.flatnonzero(support.any(axis=tuple(a for a in range(3) if a != axis)))
        start.append(int(found[0]) - margin)
        stop.append(int(found[-1]) + 1 + margin)
    index = [np.clip(np.arange(a, b), 0, n - 1) for a, b, n in zip(start, stop, kinds.shape, strict=True)]
    return np.ascontiguousarray(kinds[np.ix_(*index)]), np.array(start)


def _in_volume(box: tuple[int, ...], start: NDArray[np.int64], shape: tuple[int, ...]) -> BoolArray:
    z, y, x = (
        (np.arange(n) + s >= 0) & (np.arange(n) + s < size) for n, s, size in zip(box, start, shape, strict=True)
    )
    return np.asarray(z[:, None, None] & y[:, None] & x)


def _cut_off(free: BoolArray) -> BoolArray:
    """Return the free cells that no path through faces joins to the border of the box."""
    import cc3d

    labels = cc3d.connected_components(free, connectivity=6)
    joined = np.zeros(int(labels.max()) + 1, bool)
    for axis in range(3):
        for end in (0, -1):
            joined[np.unique(labels.take(end, axis=axis))] = True
    joined[0] = True
    return ~joined[labels]


def _touching(numbers: NDArray[np.int32], outside: BoolArray, n: int) -> NDArray[np.bool_]:
    """Tell which of the pores 1..n share a face with a cell outside."""
    touched = np.zeros(n + 1, bool)
    for axis in range(3):
        a, b = np.moveaxis(numbers, axis, 0), np.moveaxis(outside, axis, 0)
        for mine, other in ((a[:-1], b[1:]), (a[1:], b[:-1])):
            touched[mine[(mine > 0) & other]] = True
    return touched[1:]


def pore_table(space: PoreSpace, wall_area_px2: Array, facets: FloatArray, voxel_size_nm: float) -> NDArray[np.void]:
    """Return one row per pore, largest first.

    Parameters
    ----------
    space
        The pores.
    wall_area_px2 : (n,)
        Area of the support's surface in each.
    facets : (m, 3)
        Normals of the facets that pores may be aligned with; the angles are those to the nearest, 0 to 90 degrees.
    voxel_size_nm
        NaN where unknown, as all columns in nm then are.
    """
    n = len(space.closed)
    table = np.zeros(n, PORE)
    if not n:
        return table
    cells = np.argwhere(space.numbers > 0)
    number = space.numbers[tuple(cells.T)] - 1
    count = np.bincount(number, minlength=n)
    table["id"], table["closed"] = np.arange(1, n + 1), space.closed
    table["voxels"] = count * space.side**3
    table["volume_px3"] = table["voxels"]
    table["diameter_px"] = np.cbrt(6 / np.pi * table["volume_px3"])
    position = (cells + space.start) * space.side + (space.side - 1) / 2
    centre = np.stack([np.bincount(number, position[:, i], n) / count for i in range(3)], axis=1)
    for i, axis in enumerate("zyx"):
        table[f"{axis}_px"] = centre[:, i]
    volume = cells + space.start
    at_border = ((volume == 0) | (volume == np.array(space.shape) - 1)).any(axis=1)
    table["touches_border"] = np.bincount(number[at_border], minlength=n) > 0
    largest = np.zeros(n)
    np.maximum.at(largest, number, distances(space.numbers > 0)[tuple(cells.T)])
    table["inscribed_diameter_px"] = (2 * largest - 1) * space.side  # the wall is half a cell before the next centre
    table["wall_area_px2"] = wall_area_px2
    _add_axes(table, position - centre[number], number, count, facets, space.side)
    table["volume_nm3"] = table["volume_px3"] * voxel_size_nm**3
    table["wall_area_nm2"] = table["wall_area_px2"] * voxel_size_nm**2
    for name in ("diameter", "inscribed_diameter", "z", "y", "x"):
        table[f"{name}_nm"] = table[f"{name}_px"] * voxel_size_nm
    return table


def _add_axes(table: Any, offset: FloatArray, number: Array, count: Array, facets: FloatArray, side: int) -> None:
    """Add the principal axes, from the second moments of a pore's cells; a cell itself has side^2 / 12."""
    n = len(table)
    moments = np.zeros((n, 3, 3))
    for i in range(3):
        for j in range(i, 3):
            moments[:, i, j] = moments[:, j, i] = np.bincount(number, offset[:, i] * offset[:, j], n) / count
        moments[:, i, i] += side**2 / 12
    values, vectors = np.linalg.eigh(moments)
    longest, flattest = vectors[:, :, 2], vectors[:, :, 0]
    longest = longest * np.where(longest[np.arange(n), np.abs(longest).argmax(axis=1)] < 0, -1, 1)[:, None]
    table["elongation"] = np.sqrt(values[:, 2] / values[:, 1])
    table["flatness"] = np.sqrt(values[:, 1] / values[:, 0])
    for i, axis in enumerate("zyx"):
        table[f"axis_{axis}"] = longest[:, i]
    for name, axes in (("axis_to_facet_deg", longest), ("flat_to_facet_deg", flattest)):
        cosine = np.abs(axes @ facets.T).max(axis=1) if len(facets) else np.full(n, np.nan)
        table[name] = np.degrees(np.arccos(np.minimum(cosine, 1)))


def pore_sizes(space: PoreSpace, voxel_size_nm: float) -> NDArray[np.void]:
    """Return the volume of pores by the diameter of the largest sphere in the pores that covers a place.

    Local thickness (Hildebrand & Rueegsegger, J. Microscopy 185, 1997). The sphere around a cell reaches to half a
    cell before the next one that is no pore: its diameter is 2 D - 1 cells.
    """
    squared = np.minimum(np.rint(distances(space.pores) ** 2), np.iinfo(np.uint16).max).astype(np.uint16)
    radii = np.sqrt(covered(squared)[space.pores].astype(float))
    if not len(radii):
        return np.zeros(0, PORE_SIZE)
    diameters = (2 * radii - 1) * space.side
    step = space.side * max(1.0, np.ceil(diameters.max() / space.side / 24))
    edges = np.arange(0, diameters.max() + step, step)
    table = np.zeros(len(edges) - 1, PORE_SIZE)
    table["from_px"], table["to_px"] = edges[:-1], edges[1:]
    # A diameter on an edge belongs to the bin that ends there.
    place = np.clip(np.ceil(diameters / step - 1e-9).astype(int) - 1, 0, len(table) - 1)
    table["volume_px3"] = np.bincount(place, minlength=len(table)) * float(space.side) ** 3
    table["volume_fraction"] = table["volume_px3"] / table["volume_px3"].sum()
    table["volume_nm3"] = table["volume_px3"] * voxel_size_nm**3
    for name in ("from", "to"):
        table[f"{name}_nm"] = table[f"{name}_px"] * voxel_size_nm
    return table


def mean_pore_diameter(sizes: NDArray[np.void]) -> float:
    """Return the mean diameter, px, by volume; NaN where there are no pores."""
    if not len(sizes):
        return float("nan")
    middle = (sizes["from_px"] + sizes["to_px"]) / 2
    return float(np.average(middle, weights=sizes["volume_px3"]))


def euler_number(space: PoreSpace) -> int:
    """Return pores (joined through faces) less tunnels plus what floats within them."""
    from skimage import measure

    numbered: Any = measure.euler_number
    return int(numbered(np.pad(space.pores, 1), connectivity=1)) if space.pores.any() else 0


def with_gaps(space: PoreSpace, ball_cells: float) -> float:
    """Return the porosity if all that a ball cannot reach from outside were pores: gaps and corners too."""
    here = space.in_volume()
    body = (space.ways.not_reached(ball_cells) | space.inside)[here]
    return float((body & (space.kinds[here] == 0)).sum() / max(int(body.sum()), 1))


def connected_sides(space: PoreSpace) -> tuple[bool, bool, bool]:
    """Tell whether one pore joins opposite sides of the volume along z, y and x."""
    numbers = space.numbers_of_volume()
    ends = [(np.unique(numbers.take(0, axis=a)), np.unique(numbers.take(-1, axis=a))) for a in range(3)]
    z, y, x = (bool((np.intersect1d(first, last) > 0).any()) for first, last in ends)
    return z, y, x


def box_within(space: PoreSpace) -> tuple[slice, slice, slice] | None:
    """Return a box of cells inside the body, of the box of `space`; None where it would be below 8 cells across.

    The cube within the largest sphere in the body, grown on all sides as far as no more than 1% of a side lies outside.
    """
    here = space.in_volume()
    inside = space.inside | space.pores
    bounds = [[h.start, h.stop] for h in here]
    if inside[here].mean() < 0.99:
        depth = distances(inside)[here]
        centre = np.unravel_index(int(np.argmax(depth)), depth.shape)
        half = int(depth[centre] / 3**0.5 - 1)
        middle = [int(c) + h.start for c, h in zip(centre, here, strict=True)]
        low = [[max(h.start, m - half), min(h.stop, m + half + 1)] for m, h in zip(middle, here, strict=True)]
        bounds = _grown(inside, low, bounds)
    if min(b - a for a, b in bounds) < 8:
        return None
    z, y, x = (slice(a, b) for a, b in bounds)
    return z, y, x


def _grown(inside: BoolArray, box: list[list[int]], limits: list[list[int]]) -> list[list[int]]:
    going = True
    while going:
        going = False
        for axis in range(3):
            for end, step in ((0, -1), (1, 1)):
                if box[axis][end] == limits[axis][end]:
                    continue
                face = [slice(a, b) for a, b in box]
                at = box[axis][end] - 1 if end == 0 else box[axis][end]
                face[axis] = slice(at, at + 1)
                if inside[tuple(face)].mean() >= 0.99:
                    box[axis][end] += step
                    going = True
    return box
