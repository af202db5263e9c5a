"""Slices through a volume in all three directions, taken in one pass.

A slice per position read by itself would read every block of a stored volume dozens of times. Here slabs along y, in
which volumes are stored, are read once each; images wider than the page shows are averaged as they come.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource
from tomoseg.errors import InputError

SLICES = 64  # of each direction, at most
SIDE = 400  # px of a slice, at most
SLAB_BYTES = 48 << 20
MOST_SLAB_BYTES = 1 << 30  # of the lines of voxels that make one line of pixels, in an array of unusual shape


@dataclass(frozen=True)
class Plane:
    """A direction of slices through an array (z, y, x): the axis they cut, and the axes that run down and right."""

    name: str
    cut_axis: str
    down: str
    right: str
    view: str

    @property
    def axis(self) -> int:
        """The number of the axis that is cut."""
        return "zyx".index(self.cut_axis)

    def cut(self, volume: ArraySource, position: int) -> Array:
        """Return one slice (down, right)."""
        index = tuple(position if axis == self.cut_axis else slice(None) for axis in "zyx")
        image = np.asarray(volume[index])
        return image.T if "zyx".index(self.down) > "zyx".index(self.right) else image


PLANES = (
    Plane("xy", "z", "y", "x", "along the beam at zero tilt"),
    Plane("zy", "x", "y", "z", "from the side"),
    Plane("xz", "y", "z", "x", "across the tilt axis, with the missing wedge"),
)


@dataclass(frozen=True)
class Orthoslice:
    """The slice through the centre of an array, in one of the three directions."""

    image: Array
    plane: Plane
    position: int

    @property
    def name(self) -> str:
        """What it is: 'xy slice at z = 96'."""
        return f"{self.plane.name} slice at {self.plane.cut_axis} = {self.position}"

    @property
    def caption(self) -> str:
        """What it is, and from where one looks."""
        return f"{self.name}: {self.plane.view}"


def orthoslices(volume: ArraySource) -> list[Orthoslice]:
    """Return the three central slices of an array (z, y, x)."""
    centre = [(plane, int(volume.shape[plane.axis]) // 2) for plane in PLANES]
    return [Orthoslice(plane.cut(volume, at), plane, at) for plane, at in centre]


def evenly_spaced(n: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of the positions 0 to n - 1, evenly from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


@dataclass(frozen=True)
class Slices:
    """Slices through an array (z, y, x), by plane: `images` (n, rows, columns) at `positions` (n,).

    A pixel is `factor`^2 voxels.
    """

    images: dict[str, Array]
    positions: dict[str, NDArray[np.int64]]
    factor: int


def slices(source: ArraySource, side: int = SIDE, *, average: bool = True, slab_bytes: int = SLAB_BYTES) -> Slices:
    """Cut an array (z, y, x), read once in slabs along y, into slices of all three directions, about `side` px long.

    The voxels of a pixel are averaged, in float32, or if not `average`, the middle one is taken, as labels require. A
    slab holds at most `slab_bytes`, unless a single line is more.
    """
    shape = (int(source.shape[0]), int(source.shape[1]), int(source.shape[2]))
    factor = -(-max(shape) // side)
    sizes = {axis: -(-n // factor) for axis, n in zip("zyx", shape, strict=True)}
    at = {plane.name: evenly_spaced(shape[plane.axis], SLICES) for plane in PLANES}
    dtype = np.float32 if average else source.dtype
    images = {p.name: np.empty((len(at[p.name]), sizes[p.down], sizes[p.right]), dtype) for p in PLANES}
    for start, slab in slabs(source, factor, slab_bytes):
        rows = slice(start // factor, start // factor + -(-slab.shape[1] // factor))
        images["xy"][:, rows] = _reduced(slab[at["xy"]], factor, average)
        images["zy"][:, rows] = _reduced(np.moveaxis(slab[:, :, at["zy"]], 2, 0).swapaxes(1, 2), factor, average)
        here = np.flatnonzero((at["xz"] >= start) & (at["xz"] < start + slab.shape[1]))
        images["xz"][here] = _reduced(slab[:, at["xz"][here] - start].swapaxes(0, 1), factor, average)
    return Slices(images, at, factor)


def slabs(source: ArraySource, multiple: int, slab_bytes: int = SLAB_BYTES) -> Iterator[tuple[int, Array]]:
    """Yield (first y, slab) along y; slabs are as long as `slab_bytes` allow and begin at multiples of `multiple`.

    Raises `InputError` where that many lines are more than `MOST_SLAB_BYTES`.
    """
    nz, ny, nx = source.shape
    line_bytes = nz * nx * source.dtype.itemsize
    lines = max(1, slab_bytes // line_bytes // multiple) * multiple
    if min(lines, ny) * line_bytes > max(MOST_SLAB_BYTES, slab_bytes):
        raise InputError(f"an array of {nz} x {ny} x {nx} (z, y, x) cannot be shown: it is too large in one direction")
    for start in range(0, ny, lines):
        yield start, np.asarray(source[:, start : start + lines])


def _reduced(images: Array, factor: int, average: bool) -> Array:
    """Reduce images (n, rows, columns) by a whole factor; pixels at the far ends may lack voxels."""
    if factor == 1:
        return images
    if not average:
        rows, columns = (np.minimum(np.arange(0, n, factor) + factor // 2, n - 1) for n in images.shape[1:])
        return images[:, rows[:, None], columns]
    starts = [np.arange(0, n, factor) for n in images.shape[1:]]
    sums = np.add.reduceat(np.add.reduceat(images.astype(np.float32), starts[0], axis=1), starts[1], axis=2)
    lengths = [np.diff(np.append(s, n)) for s, n in zip(starts, images.shape[1:], strict=True)]
    return np.asarray(sums / np.float32(lengths[0][:, None] * lengths[1]), np.float32)
