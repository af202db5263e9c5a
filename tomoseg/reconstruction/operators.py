"""The operator that a reconstruction method works with: projection and back projection of a block of slices.

A backend keeps a block of slices in the layout that suits it; the methods see those arrays only through this interface
and through arithmetic that is the same for every element.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruction.geometry import ParallelGeometry

Floats = NDArray[np.float32]
POWER_STEPS = 12


class Operator(ABC):
    """Projection and back projection in one geometry.

    Attributes
    ----------
    geometry : ParallelGeometry
    block : int
        Most slices in a block.
    threads : bool
        Whether several blocks may be computed at the same time by threads.
    slice_axis : int
        Axis of the slices in the backend's own arrays, 0 or -1.
    """

    block: int
    threads: bool
    slice_axis: int

    def __init__(self, geometry: ParallelGeometry) -> None:
        self.geometry = geometry
        self._subsets: dict[int, list[tuple[slice, Operator]]] = {}

    @abstractmethod
    def load(self, projections: Floats) -> Floats:
        """Return a copy of a block of projections, shape (n_tilt, n, n_detector), in the backend's layout."""

    @abstractmethod
    def load_volume(self, volume: Floats) -> Floats:
        """Return a copy of a block of slices, shape (nz, n, nx), in the backend's layout."""

    @abstractmethod
    def unload(self, volume: Floats, n: int) -> Floats:
        """Return `n` slices of the backend's volume as a view of shape (nz, n, nx)."""

    @abstractmethod
    def unload_projections(self, projections: Floats, n: int) -> Floats:
        """Return `n` slices of the backend's projections, shape (n_tilt, n, n_detector), a view where possible."""

    @abstractmethod
    def forward(self, volume: Floats, out: Floats | None = None) -> Floats:
        """Return the projections of a volume, written to `out` where given."""

    @abstractmethod
    def backward(self, projections: Floats, out: Floats | None = None) -> Floats:
        """Return the back projection (the adjoint, as far as the backend has it), written to `out` where given."""

    def interpolate(self, projections: Floats, plane: Floats) -> Floats:
        """Return the sum over tilts of the value interpolated where each voxel is seen, times `plane` (nz, nx).

        Filtered back projection needs this. A backend that has only the adjoint uses the adjoint.
        """
        volume = self.backward(projections)
        volume *= np.expand_dims(plane, self.slice_axis)
        return volume

    def multiply(self, volume: Floats, projections: Floats, plane: Floats) -> None:
        """Multiply `volume` in place by the back projection of `projections` and by `plane` (nz, nx)."""
        volume *= self.backward(projections)
        volume *= np.expand_dims(plane, self.slice_axis)

    def add(self, volume: Floats, projections: Floats, plane: Floats, least: float) -> None:
        """Add to `volume` in place the back projection times `plane` (nz, nx); clip the result to at least `least`."""
        back = self.backward(projections)
        back *= np.expand_dims(plane, self.slice_axis)
        volume += back
        np.maximum(volume, np.float32(least), out=volume)

    def mlem(
        self, measured: Floats, volume: Floats, iterations: int, watch: Callable[[int, Floats], None]
    ) -> NDArray[np.float64] | None:
        """Iterate `methods.mlem` in place from `volume` if the backend has a faster way; return None if it has none.

        `measured` and `volume` are in the backend's layout; voxels of `volume` that are 0 stay 0. Returns the misfit
        before each iteration and after the last; `watch` is called as `methods.mlem` says.
        """
        return None

    def rays(self, plane: Floats) -> Floats:
        """Return one value per ray, shape (n_tilt, n_detector), to be multiplied with the backend's projections."""
        return np.expand_dims(plane, self.slice_axis)

    @cached_property
    def row_sums(self) -> Floats:
        """Projection of a slice of ones, shape (n_tilt, n_detector): the length of each ray within the slice."""
        ones = self.load_volume(np.ones((self.geometry.nz, 1, self.geometry.nx), np.float32))
        return np.ascontiguousarray(self.unload_projections(self.forward(ones), 1)[:, 0])

    @cached_property
    def column_sums(self) -> Floats:
        """Back projection of ones, shape (nz, nx): by how many rays, and how closely, each voxel is seen."""
        ones = self.load(np.ones((self.geometry.n_tilt, 1, self.geometry.n_detector), np.float32))
        return np.ascontiguousarray(self.unload(self.backward(ones), 1)[:, 0])

    @cached_property
    def norm_squared(self) -> float:
        """Largest eigenvalue of A'A, to about 1 %, by the power method from a slice of ones."""
        ones = np.ones((self.geometry.nz, 1, self.geometry.nx), np.float32)
        volume, value = self.load_volume(ones / np.sqrt(ones.size)), 0.0
        for _ in range(POWER_STEPS):
            volume = self.backward(self.forward(volume))
            value = float(np.linalg.norm(np.asarray(self.unload(volume, 1), np.float64)))
            volume /= np.float32(max(value, 1e-30))
        return value

    def of(self, geometry: ParallelGeometry) -> "Operator":
        """Return the backend's operator of another geometry."""
        return type(self)(geometry)

    def subsets(self, n: int) -> "list[tuple[slice, Operator]]":
        """Return the tilts and the operator of each of `n` interleaved subsets; operators are kept until `close`."""
        n = min(n, self.geometry.n_tilt)
        if n not in self._subsets:
            taken = [slice(start, None, n) for start in spread_order(n)]
            self._subsets[n] = [(tilts, self.of(self.geometry.of(tilts))) for tilts in taken]
        return self._subsets[n]

    def planes(self, volume: Floats) -> Floats:
        """Return the backend's volume as a view of shape (nz, nx, slices)."""
        return np.moveaxis(volume, self.slice_axis, -1)

    def close(self) -> None:
        """Free what the backend holds outside Python. The operator is not used afterwards."""
        for group in self._subsets.values():
            for _, operator in group:
                operator.close()
        self._subsets.clear()


def spread_order(n: int) -> list[int]:
    """Return 0..n-1 in an order in which each is far from those just before it (van der Corput)."""
    bits = max(1, (n - 1).bit_length())
    return sorted(range(n), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))
