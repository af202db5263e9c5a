"""ASTRA's projectors behind the operator interface: on the CPU slice by slice, on a GPU slab by slab.

Signs. In a 2D ASTRA volume y points towards smaller row numbers, and a ray at angle a is seen at
``x*cos(a) + y*sin(a)``; our z points towards larger row numbers, hence a = -t. In 3D all of ASTRA's axes point towards
larger indices; there the detector is given as vectors, so that nothing depends on how an angle is counted. ASTRA's own
CPU weights are Joseph's, as ours, but summed in float32 along a ray: they wander by some 1e-4 over 500 pixels. The GPU
interpolates in texture units with 8 bits of fraction, and its back projection is voxel driven, not the exact adjoint.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruct.geometry import ParallelGeometry
from tomoseg.reconstruct.operators import Floats, Operator

GPU_BLOCK = 64  # slices; enough to fill a GPU, and 64 x 1024 x 1024 float32 stay below 0.3 GB


def cuda_available() -> bool:
    """Return whether ASTRA is installed, was built for CUDA and finds a GPU."""
    try:
        import astra

        return bool(astra.use_cuda())
    except (ImportError, OSError, AttributeError):  # not there, a CUDA library missing, or a version without the test
        return False


class _AstraOperator(Operator):
    """What both have in common: arrays are (n, nz, nx) and (n, n_tilt, n_detector)."""

    slice_axis = 0

    def load(self, projections: Floats) -> Floats:
        """Return a copy of a block of projections, shape (n_tilt, n, n_detector), in the backend's layout."""
        return np.array(projections.transpose(1, 0, 2), np.float32, order="C")

    def load_volume(self, volume: Floats) -> Floats:
        """Return a copy of a block of slices, shape (nz, n, nx), in the backend's layout."""
        return np.array(volume.transpose(1, 0, 2), np.float32, order="C")

    def unload(self, volume: Floats, n: int) -> Floats:
        """Return `n` slices of the backend's volume as a view of shape (nz, n, nx)."""
        return volume[:n].transpose(1, 0, 2)

    def unload_projections(self, projections: Floats, n: int) -> Floats:
        """Return `n` slices of the backend's projections as a view of shape (n_tilt, n, n_detector)."""
        return projections[:n].transpose(1, 0, 2)

    def _projections(self, n: int) -> Floats:
        return np.empty((n, self.geometry.n_tilt, self.geometry.n_detector), np.float32)

    def _volume(self, n: int) -> Floats:
        return np.empty((n, self.geometry.nz, self.geometry.nx), np.float32)


class AstraCpuOperator(_AstraOperator):
    """ASTRA's 2D `linear` projector, one slice at a time. Slow: meant for comparison."""

    block = 4
    threads = True

    def __init__(self, geometry: ParallelGeometry) -> None:
        super().__init__(geometry)
        import astra

        slice_geometry = astra.create_vol_geom(geometry.nz, geometry.nx)
        angles = -np.deg2rad(geometry.angles_deg)
        rays = astra.create_proj_geom("parallel", 1.0, geometry.n_detector, angles)
        self._projector = astra.create_projector("linear", rays, slice_geometry)
        self._matrix: Any = astra.OpTomo(self._projector)

    def forward(self, volume: Floats, out: Floats | None = None) -> Floats:
        """Return the projections of a volume, written to `out` where given."""
        out = self._projections(len(volume)) if out is None else out
        for one, projection in zip(volume, out, strict=True):
            self._matrix.FP(one, out=projection)
        return out

    def backward(self, projections: Floats, out: Floats | None = None) -> Floats:
        """Return the adjoint applied to `projections`, written to `out` where given."""
        out = self._volume(len(projections)) if out is None else out
        for projection, one in zip(projections, out, strict=True):
            self._matrix.BP(projection, out=one)
        return out

    def close(self) -> None:
        """Delete the projector."""
        import astra

        super().close()
        astra.projector.delete(self._projector)


class AstraCudaOperator(_AstraOperator):
    """ASTRA's 3D parallel-beam kernels on a GPU, a slab of slices at a time."""

    block = GPU_BLOCK
    threads = False

    def __init__(self, geometry: ParallelGeometry) -> None:
        super().__init__(geometry)
        self._matrices: dict[int, tuple[int, Any]] = {}  # by number of slices: projector and operator

    def _matrix(self, n: int) -> Any:
        """Return the operator for `n` slices."""
        if n not in self._matrices:
            import astra

            slab = astra.create_vol_geom(self.geometry.nz, self.geometry.nx, n)
            rays = astra.create_proj_geom(
                "parallel3d_vec", n, self.geometry.n_detector, detector_vectors(self.geometry)
            )
            projector = astra.create_projector("cuda3d", rays, slab)
            self._matrices[n] = (projector, astra.OpTomo(projector))
        return self._matrices[n][1]

    def forward(self, volume: Floats, out: Floats | None = None) -> Floats:
        """Return the projections of a volume, written to `out` where given."""
        out = self._projections(len(volume)) if out is None else out
        self._matrix(len(volume)).FP(volume, out=out)
        return out

    def backward(self, projections: Floats, out: Floats | None = None) -> Floats:
        """Return the voxel-driven back projection, written to `out` where given."""
        out = self._volume(len(projections)) if out is None else out
        self._matrix(len(projections)).BP(projections, out=out)
        return out

    def close(self) -> None:
        """Delete the projectors."""
        import astra

        super().close()
        for projector, _ in self._matrices.values():
            astra.projector3d.delete(projector)
        self._matrices.clear()


def detector_vectors(geometry: ParallelGeometry) -> NDArray[np.float64]:
    """Return ASTRA's description of each tilt, shape (n_tilt, 12): ray, detector centre, detector columns and rows.

    ASTRA's (x, y, z) are our (x, z, y): the detector's columns run along (cos t, sin t, 0), so that a point (x, z) is
    seen at ``x*cos(t) + z*sin(t)``; its rows are the slices.
    """
    cosines, sines, zeros = geometry.cosines, geometry.sines, np.zeros(geometry.n_tilt)
    ray = (-sines, cosines, zeros)
    centre = (zeros, zeros, zeros)
    return np.stack([*ray, *centre, cosines, sines, zeros, zeros, zeros, zeros + 1], axis=1)
