"""ASTRA's projectors behind the operator interface: on the CPU slice by slice, on a GPU slab by slab.

Signs. In a 2D ASTRA volume y points towards smaller row numbers, and a ray at angle a is seen at
``x*cos(a) + y*sin(a)``; our z points towards larger row numbers, hence a = -t. In 3D all of ASTRA's axes point towards
larger indices; there the detector is given as vectors, so that nothing depends on how an angle is counted. ASTRA's own
CPU weights are Joseph's, as ours, but summed in float32 along a ray: they wander by some 1e-4 over 500 pixels. The GPU
interpolates in texture units with 8 bits of fraction, and its back projection is voxel driven, not the exact adjoint.
"""

import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruction import kernels
from tomoseg.reconstruction.backends import gpu
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.operators import Floats, Operator

EM_TOLERANCE = 0.01  # relative; the 8-bit fractions of the 2D and 3D kernels differ by less
CHOSEN = -1  # ASTRA's number for the GPU that CUDA chose
FAINT = 128.0  # data whose maximum is smaller are scaled up for EM_CUDA


def cuda_available() -> bool:
    """Return whether ASTRA is installed, was built for CUDA and finds a GPU."""
    try:
        import astra

        return bool(astra.use_cuda())
    except Exception:  # not there, a CUDA library missing, a version without the test, or built for another NumPy
        return False


class _AstraOperator(Operator):
    """Common part of both: arrays are (n, nz, nx) and (n, n_tilt, n_detector)."""

    slice_axis = 0

    def load(self, projections: Floats) -> Floats:
        """Return a copy of a block of projections, shape (n_tilt, n, n_detector), in the backend's layout."""
        return np.array(projections.transpose(1, 0, 2), np.float32, order="C")

    def load_volume(self, volume: Floats) -> Floats:
        """Return a copy of a block of slices, shape (nz, n, nx), in the backend's layout."""
        return self.load(volume)

    def unload(self, volume: Floats, n: int) -> Floats:
        """Return `n` slices of the backend's volume as a view of shape (nz, n, nx)."""
        return volume[:n].transpose(1, 0, 2)

    def unload_projections(self, projections: Floats, n: int) -> Floats:
        """Return `n` slices of the backend's projections as a view of shape (n_tilt, n, n_detector)."""
        return self.unload(projections, n)

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
    """ASTRA's 3D parallel-beam kernels on one or several GPUs, a slab of slices at a time.

    With several GPUs, ASTRA itself distributes the tilts of a projection and the slices of a back projection (its
    CompositeGeometryManager), once it is told which GPUs to use. MLEM stays on the GPU, see `mlem`.

    Older versions of ASTRA only log the failure of a GPU and leave the result as it was; newer ones raise (2.5 does).
    Either becomes a `GpuFailed`.
    """

    threads = False

    def __init__(self, geometry: ParallelGeometry) -> None:
        super().__init__(geometry)
        self._gpus = gpu.usable()
        self.block = gpu.slab(geometry, self._gpus.free)
        self._matrices: dict[int, tuple[int, Any]] = {}  # by number of slices: projector and operator
        if len(self._gpus.numbers) > 1:  # a single one is chosen by CUDA or ASTRA_GPU_INDEX
            import astra

            astra.set_gpu_index(list(self._gpus.numbers))

    def _matrix(self, n: int) -> Any:
        """Return the operator for `n` slices."""
        if n not in self._matrices:
            import astra

            geometry = self.geometry
            slab = astra.create_vol_geom(geometry.nz, geometry.nx, n)
            rays = astra.create_proj_geom("parallel3d_vec", n, geometry.n_detector, detector_vectors(geometry))
            projector = astra.create_projector("cuda3d", rays, slab)
            self._matrices[n] = (projector, astra.OpTomo(projector))
        return self._matrices[n][1]

    def forward(self, volume: Floats, out: Floats | None = None) -> Floats:
        """Return the projections of a volume, written to `out` where given."""
        out = self._projections(len(volume)) if out is None else out
        mark = out[:, :, 0]  # touches every part that ASTRA may compute separately
        _compute(lambda: self._matrix(len(volume)).FP(volume, out=out), volume, out, mark)
        return out

    def backward(self, projections: Floats, out: Floats | None = None) -> Floats:
        """Return the voxel-driven back projection, written to `out` where given."""
        out = self._volume(len(projections)) if out is None else out
        mark = out[:, 0, 0]
        _compute(lambda: self._matrix(len(projections)).BP(projections, out=out), projections, out, mark)
        return out

    def mlem(
        self, measured: Floats, volume: Floats, iterations: int, watch: Callable[[int, Floats], None]
    ) -> NDArray[np.float64] | None:
        """Iterate MLEM with ASTRA's EM_CUDA, which keeps an iteration on the GPU; return None where it is not safe.

        It is not safe with an ASTRA before 2.5, whose EM_CUDA ends the whole process when memory is short, or where it
        does not do to a test slice what the 3D kernels do. Each slice is a 2D problem of its own. Every call copies the
        data and the volume to the GPU and the volume back, and a call is one iteration, since the misfit and the volume
        are needed after each. What is saved are the copies between the two projections and all arithmetic here.
        """
        if not self.keeps_mlem:
            return None
        kept = self._not_to_vanish(measured, volume)
        numbers = self._gpus.numbers or (CHOSEN,)
        with ExitStack() as stack:
            slices = [
                stack.enter_context(_EmSlice(self.geometry, data, image, number))
                for data, image, number in zip(measured, volume, cycle(numbers), strict=False)
            ]
            shares = [slices[first :: len(numbers)] for first in range(len(numbers))]
            pool = stack.enter_context(ThreadPoolExecutor(len(shares)))
            map_to = pool.map if len(shares) > 1 else map

            def advance(steps: int) -> float:
                """Advance all slices by `steps` iterations, a thread for each GPU; return the misfit after them."""
                return sum(map_to(lambda share: sum([one.advance(steps) for one in share]), shares))

            misfit = np.zeros(iterations + 1)
            misfit[0] = advance(0)
            for i in range(iterations):
                watch(i, volume)
                misfit[i + 1] = advance(1)
            watch(iterations, volume)
        if not all(volume[i].any() for i in kept):  # EM_CUDA does not report that one of its projections failed
            raise gpu.GpuFailed("the GPU failed without an error: it returned an empty slice")
        return misfit

    def _not_to_vanish(self, measured: Floats, volume: Floats) -> list[int]:
        """Return the slices that MLEM cannot make empty: something was measured on rays through their voxels."""
        begun = [i for i, image in enumerate(volume) if image.any()]
        if not begun:
            return []
        voxels = (volume[begun[0]] > 0)[None].astype(np.float32)  # the same in all slices
        met = self.forward(voxels)[0] > 1
        return [i for i in begun if (measured[i] > 0)[met].any()]

    @cached_property
    def keeps_mlem(self) -> bool:
        """Whether `mlem` stays on the GPU: EM_CUDA does to a slice without symmetry what the 3D kernels do."""
        if not _has_safe_em():
            return False
        z, x = np.meshgrid(self.geometry.z, self.geometry.x, indexing="ij")
        truth = (2 + x / self.geometry.nx + z / self.geometry.nz)[None].astype(np.float32)
        seen = self.column_sums > 0
        measured, image = self.forward(truth), np.array(seen[None], np.float32)
        ratio = self.forward(image)
        kernels.ratio(measured.reshape(-1), ratio.reshape(-1))
        expected = image * self.backward(ratio) / np.where(seen, self.column_sums, 1)
        try:
            with _EmSlice(self.geometry, measured[0], image[0], (self._gpus.numbers or (CHOSEN,))[0]) as one:
                one.advance(1)
        except gpu.GpuFailed:
            return False
        return bool(np.linalg.norm(image - expected) <= EM_TOLERANCE * np.linalg.norm(expected))

    def close(self) -> None:
        """Delete the projectors."""
        import astra

        super().close()
        for projector, _ in self._matrices.values():
            astra.projector3d.delete(projector)
        self._matrices.clear()


class _EmSlice:
    """A slice in ASTRA's EM_CUDA, which works on the arrays here, (n_tilt, n_detector) and (nz, nx).

    EM_CUDA treats projections of at most 1e-6 as 0. Data of small numbers are therefore scaled by a power of two, which
    rounds nothing: a result does not depend on the unit of the data.
    """

    def __init__(self, geometry: ParallelGeometry, measured: Floats, image: Floats, number: int) -> None:
        brightest = float(measured.max(initial=0))
        power = math.ceil(math.log2(FAINT / brightest)) if 0 < brightest < FAINT else 0
        self._scale = np.float32(2.0 ** min(power, 100))
        self._measured, self._image = np.ascontiguousarray(measured * self._scale), image
        self._geometry, self._number = geometry, number
        self._stack = ExitStack()
        self._algorithm = 0

    def __enter__(self) -> "_EmSlice":
        import astra

        geometry, stack = self._geometry, self._stack
        plane = astra.create_vol_geom(geometry.nz, geometry.nx)
        rays = astra.create_proj_geom("parallel", 1.0, geometry.n_detector, -np.deg2rad(geometry.angles_deg))
        try:
            data = astra.data2d.link("-sino", rays, self._measured)
            stack.callback(astra.data2d.delete, data)
            image = astra.data2d.link("-vol", plane, self._image)
            stack.callback(astra.data2d.delete, image)
            settings = astra.astra_dict("EM_CUDA")
            settings |= {"ProjectionDataId": data, "ReconstructionDataId": image}
            if self._number >= 0:
                settings["option"] = {"GPUindex": self._number}
            self._algorithm = astra.algorithm.create(settings)
            stack.callback(astra.algorithm.delete, self._algorithm)
        except Exception as error:
            stack.close()
            raise gpu.GpuFailed(f"the GPU failed: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def advance(self, steps: int) -> float:
        """Advance by `steps` iterations; return the misfit after them."""
        import astra

        if self._scale != 1:
            self._image *= self._scale
        try:
            astra.algorithm.run(self._algorithm, steps)
            norm = float(astra.algorithm.get_res_norm(self._algorithm))
        except Exception as error:
            raise gpu.GpuFailed(f"the GPU failed: {error}") from error
        if not math.isfinite(norm):
            raise gpu.GpuFailed("the GPU failed without an error: the residual is not a number")
        if self._scale != 1:
            self._image /= self._scale
        return (norm / float(self._scale)) ** 2


def _compute(what: Callable[[], object], given: Floats, out: Floats, mark: Floats) -> None:
    """Compute `out` on the GPU from `given`; raise if that failed, with or without an error.

    `mark` is a view of a part of `out` that must have been written. Zeros only, from data that are not, are a failure
    too: older versions of ASTRA carry on after an error with the zeros they began with.
    """
    mark.fill(np.nan)
    try:
        what()
    except Exception as error:  # each version of ASTRA has its own
        raise gpu.GpuFailed(f"the GPU failed: {error}") from error
    if not np.isfinite(mark).all() or (not out.any() and given.any()):
        raise gpu.GpuFailed("the GPU failed without an error: it returned nothing")


def _has_safe_em() -> bool:
    """Return whether ASTRA's EM_CUDA raises an error when it cannot continue."""
    import astra

    version = re.match(r"(\d+)\.(\d+)", str(astra.__version__))
    return version is not None and (int(version[1]), int(version[2])) >= (2, 5)


def detector_vectors(geometry: ParallelGeometry) -> NDArray[np.float64]:
    """Return ASTRA's description of each tilt, shape (n_tilt, 12): ray, detector centre, detector columns and rows.

    ASTRA's (x, y, z) are our (x, z, y): the detector's columns run along (cos t, sin t, 0), so that a point (x, z) is
    seen at ``x*cos(t) + z*sin(t)``; its rows are the slices.
    """
    cosines, sines, zeros = geometry.cosines, geometry.sines, np.zeros(geometry.n_tilt)
    ray, centre = (-sines, cosines, zeros), (zeros, zeros, zeros)
    return np.stack([*ray, *centre, cosines, sines, zeros, zeros, zeros, zeros + 1], axis=1)
