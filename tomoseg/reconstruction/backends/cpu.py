"""The CPU projector: matched, slice-interleaved, compiled for the machine at hand; see `kernels`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruction import kernels
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.kernels import PAD, WIDE
from tomoseg.reconstruction.operators import Floats, Operator
from tomoseg.reconstruction.simd import LANES

STRIP_BYTES = 1 << 19  # of LANES slices under all tilts at once: half of a common second-level cache for WIDE blocks
CACHE_LINE = 64  # bytes; a vector that straddles two lines costs two loads


def aligned_zeros(shape: tuple[int, ...]) -> Floats:
    """Return a float32 array of zeros that begins at a cache line."""
    size = 4 * int(np.prod(shape))
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size].view(np.float32).reshape(shape)


def split(position: NDArray[np.float64], width: int | None = None) -> tuple[Floats, Floats]:
    """Return whole part and fraction in [0, 1) of `position`, flat, the last axis padded with zeros to `width`."""
    whole = np.floor(position)
    # A fraction that rounds up to 1 in float32 is carried by the kernel like any other sum.
    parts = (whole.astype(np.float32), (position - whole).astype(np.float32))
    if width is not None:
        padding = [(0, 0)] * (position.ndim - 1) + [(0, width - position.shape[-1])]
        parts = (np.pad(parts[0], padding), np.pad(parts[1], padding))
    return parts[0].ravel(), parts[1].ravel()


def _direction(geometry: ParallelGeometry, along_z: bool, width: int) -> tuple[Any, ...]:
    """Tabulate the rays of the tilts below 45 degrees (`along_z`: sampled once per row) or above (per column).

    These are the arguments of `kernels.project` from the tilts on.
    """
    cosines, sines = geometry.cosines, geometry.sines
    tilts = np.flatnonzero((np.abs(cosines) >= np.abs(sines)) == along_z)
    row_floats = (geometry.nx + 2 * PAD) * width
    if along_z:
        across, along, rows, columns = cosines[tilts], sines[tilts], geometry.z, geometry.x
        strides = (row_floats, width)
    else:
        across, along, rows, columns = sines[tilts], cosines[tilts], geometry.x, geometry.z
        strides = (width, row_floats)
    across, along = across[:, None], along[:, None]
    # A ray at detector distance u crosses a row at distance (u - row*along)/across from the centre of that row.
    ray = geometry.detector / across + (len(columns) - 1) / 2
    row = -rows * along / across
    edges = np.array([columns[0] - 1, columns[-1] + 1])[:, None, None]  # where both taps have left the volume
    seen = edges * across + rows * along + (geometry.n_detector - 1) / 2
    return (
        tilts.astype(np.int64),
        *split(ray, geometry.n_detector + LANES),
        *split(row),
        np.clip(np.floor(seen.min(0)), 0, geometry.n_detector).astype(np.int32).ravel(),
        np.clip(np.ceil(seen.max(0)) + 1, 0, geometry.n_detector).astype(np.int32).ravel(),
        (1 / np.abs(across[:, 0])).astype(np.float32),
        len(rows),
        len(columns),
        *strides,
        geometry.n_detector,
        int(np.clip(STRIP_BYTES // (4 * LANES * len(columns)), 4, 32)),  # rows that are kept in the cache at a time
        width,
    )


class CpuOperator(Operator):
    """Joseph's projector and its transpose on the CPU.

    Arrays are (nz + 2*PAD, nx + 2*PAD, block) and (n_tilt, n_detector + 2*PAD, block), with a border of zeros. The
    operator itself is only read, so threads can share it. `block` is LANES or WIDE.
    """

    block = LANES
    threads = True
    slice_axis = -1

    def __init__(self, geometry: ParallelGeometry, block: int = LANES) -> None:
        super().__init__(geometry)
        if block not in (LANES, WIDE):
            raise ValueError(f"a block has {LANES} or {WIDE} slices, not {block}")
        self.block = block
        self.directions = _direction(geometry, True, block), _direction(geometry, False, block)
        cosines, sines = geometry.cosines[:, None], geometry.sines[:, None]
        column = geometry.x * cosines + (geometry.n_detector - 1) / 2
        self._columns = split(column, geometry.nx + LANES)
        self._rows = split(geometry.z * sines)
        self._adjoint = (1 / np.maximum(np.abs(cosines), np.abs(sines))[:, 0]).astype(np.float32)
        self._linear = np.ones(geometry.n_tilt, np.float32)
        self._ones = np.ones(geometry.nz * geometry.nx, np.float32)

    def of(self, geometry: ParallelGeometry) -> "CpuOperator":
        """Return the operator of another geometry, for blocks of the same size."""
        return CpuOperator(geometry, self.block)

    def _new_projections(self) -> Floats:
        return aligned_zeros((self.geometry.n_tilt, self.geometry.n_detector + 2 * PAD, self.block))

    def _new_volume(self) -> Floats:
        return aligned_zeros(self.volume_shape)

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """Shape of a volume in the backend's layout."""
        return self.geometry.nz + 2 * PAD, self.geometry.nx + 2 * PAD, self.block

    @property
    def adjoint_tables(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats], Floats, tuple[int, int, int, int]]:
        """What `kernels.backproject` needs: columns, rows, 1/m of tilts, sizes."""
        sizes = (self.geometry.nz, self.geometry.nx, self.geometry.n_detector, self.block)
        return self._columns, self._rows, self._adjoint, sizes

    def load(self, projections: Floats) -> Floats:
        """Return a copy of a block of projections, shape (n_tilt, n, n_detector), in the backend's layout."""
        loaded = self._new_projections()
        loaded[:, PAD:-PAD, : projections.shape[1]] = projections.transpose(0, 2, 1)
        return loaded

    def load_volume(self, volume: Floats) -> Floats:
        """Return a copy of a block of slices, shape (nz, n, nx), in the backend's layout."""
        loaded = self._new_volume()
        loaded[PAD:-PAD, PAD:-PAD, : volume.shape[1]] = volume.transpose(0, 2, 1)
        return loaded

    def unload(self, volume: Floats, n: int) -> Floats:
        """Return `n` slices of the backend's volume as a view of shape (nz, n, nx)."""
        return volume[PAD:-PAD, PAD:-PAD, :n].transpose(0, 2, 1)

    def unload_projections(self, projections: Floats, n: int) -> Floats:
        """Return `n` slices of the backend's projections as a view of shape (n_tilt, n, n_detector)."""
        return projections[:, PAD:-PAD, :n].transpose(0, 2, 1)

    def planes(self, volume: Floats) -> Floats:
        """Return the backend's volume as a view of shape (nz, nx, slices)."""
        return volume[PAD:-PAD, PAD:-PAD]

    def forward(self, volume: Floats, out: Floats | None = None) -> Floats:
        """Return the projections of a volume, written to `out` where given."""
        if out is None:
            out = self._new_projections()
        else:
            out.fill(0)
        for tables in self.directions:
            kernels.project(volume.reshape(-1), out.reshape(-1), *tables)
        return out

    def backward(self, projections: Floats, out: Floats | None = None) -> Floats:
        """Return the adjoint applied to `projections`, written to `out` where given."""
        out = self._new_volume() if out is None else out
        self._backproject(out, projections, self._adjoint, self._ones, kernels.STORE)
        return out

    def interpolate(self, projections: Floats, plane: Floats) -> Floats:
        """Return the sum over tilts of the value interpolated where each voxel is seen, times `plane` (nz, nx)."""
        out = self._new_volume()
        self._backproject(out, projections, self._linear, plane.reshape(-1), kernels.STORE)
        return out

    def multiply(self, volume: Floats, projections: Floats, plane: Floats) -> None:
        """Multiply `volume` in place by the adjoint applied to `projections` and by `plane` (nz, nx)."""
        self._backproject(volume, projections, self._adjoint, plane.reshape(-1), kernels.PRODUCT)

    def add(self, volume: Floats, projections: Floats, plane: Floats, least: float) -> None:
        """Add to `volume` in place the adjoint times `plane` (nz, nx); clip the result to at least `least`."""
        self._backproject(volume, projections, self._adjoint, plane.reshape(-1), kernels.SUM, least)

    def rays(self, plane: Floats) -> Floats:
        """Return one value per ray, shape (n_tilt, n_detector), to be multiplied with the backend's projections."""
        return np.pad(plane, ((0, 0), (PAD, PAD)))[:, :, None]

    def _backproject(
        self, volume: Floats, projections: Floats, inverse: Floats, plane: Floats, mode: int, least: float = -np.inf
    ) -> None:
        geometry = self.geometry
        kernels.backproject(
            volume.reshape(-1), projections.reshape(-1), *self._columns, *self._rows, inverse, plane, mode,
            float(least), geometry.nz, geometry.nx, geometry.n_detector, self.block,
        )  # fmt: skip
