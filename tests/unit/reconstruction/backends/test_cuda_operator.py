"""What the CUDA operator does around ASTRA's kernels, with the kernels computed on the CPU.

ASTRA's EM_CUDA is stood in for by the same steps, as its source has them (src/CudaEMAlgorithm.cpp of 2.5), on the very
arrays that are linked to it.
"""

from functools import partial

import numpy as np
import pytest

from tomoseg.reconstruction.backends import astra as astra_backend
from tomoseg.reconstruction.backends import gpu
from tomoseg.reconstruction.backends.astra import AstraCpuOperator, AstraCudaOperator
from tomoseg.reconstruction.backends.gpu import GpuFailed, Usable
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import in_blocks, mlem

astra = pytest.importorskip("astra")

LEAST = 1e-6  # what EM_CUDA takes for 0 (cuda/2d/arith.cu)


class Kernels:
    """Stands for ASTRA's operator of a slab."""

    def __init__(self, geometry: ParallelGeometry) -> None:
        self._cpu = AstraCpuOperator(geometry)

    def FP(self, volume, out):
        self._cpu.forward(volume, out)

    def BP(self, projections, out):
        self._cpu.backward(projections, out)


class Stand(AstraCudaOperator):
    """The CUDA operator, its 3D kernels on the CPU."""

    def _matrix(self, n):
        return Kernels(self.geometry)


class Em:
    """EM_CUDA's algorithm object."""

    def __init__(self, settings) -> None:
        self.number = settings.get("option", {}).get("GPUindex", -1)
        self._data, self._volume = (settings[name] for name in ("ProjectionDataId", "ReconstructionDataId"))
        rays, plane = astra.data2d.get_geometry(self._data), astra.data2d.get_geometry(self._volume)
        self._matrix = astra.OpTomo(astra.create_projector("linear", rays, plane))
        self._norm = None

    def run(self, steps):
        measured, volume = astra.data2d.get(self._data), astra.data2d.get(self._volume)
        weights = self._matrix.BP(np.ones_like(measured))
        weights = np.where(weights > LEAST, 1 / np.maximum(weights, LEAST), 0)
        for _ in range(steps):
            computed = self._matrix.FP(volume)
            ratio = np.where(computed > LEAST, measured / np.maximum(computed, LEAST), 0)
            volume = volume * self._matrix.BP(ratio) * weights
        astra.data2d.store(self._volume, volume)
        self._norm = np.linalg.norm(measured - self._matrix.FP(volume))


@pytest.fixture
def em(monkeypatch):
    """Put the stand-in in the place of EM_CUDA; return its objects."""
    objects = []
    make, run, delete = (getattr(astra.algorithm, name) for name in ("create", "run", "delete"))

    def create(settings):
        if settings["type"] != "EM_CUDA":
            return make(settings)
        objects.append(Em(settings))
        return -len(objects)

    monkeypatch.setattr(astra.algorithm, "create", create)
    monkeypatch.setattr(astra.algorithm, "run", lambda i, n=1: objects[-i - 1].run(n) if i < 0 else run(i, n))
    monkeypatch.setattr(astra.algorithm, "get_res_norm", lambda i: objects[-i - 1]._norm)
    monkeypatch.setattr(astra.algorithm, "delete", lambda i: None if i < 0 else delete(i))
    return objects


@pytest.fixture(autouse=True)
def numbers(request, monkeypatch):
    found = Usable(getattr(request, "param", ()), 1 << 30, "a test")
    monkeypatch.setattr(gpu, "usable", lambda: found)
    monkeypatch.setattr(astra, "set_gpu_index", lambda numbers: None)
    monkeypatch.setattr(astra_backend, "_has_safe_em", lambda: True)
    return found.numbers


GEOMETRY = ParallelGeometry(np.linspace(-70, 65, 19), n_detector=26, nx=26, nz=20)


def projections(n: int = 5, unit: float = 1.0) -> np.ndarray:
    """Return (n_tilt, n, n_detector) of slices without symmetry; the one in the middle is empty."""
    volume = np.zeros((n, 20, 26), np.float32)
    for i in range(n):
        volume[i, 3 + i % 4 : 9, 5 : 9 + i % 6] = 1 + i
        volume[i, 12:14, 15:22] = 4
    volume[n // 2] = 0
    data = AstraCpuOperator(GEOMETRY).forward(volume).transpose(1, 0, 2) * np.float32(unit)
    data[4, 0, 3] = -unit
    return data


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("numbers", [(), (0, 1), (2,)], indirect=True)
@pytest.mark.parametrize("voxel_mask", [None, GEOMETRY.cylinder()], ids=["all", "cylinder"])
def test_mlem_on_the_gpu_is_mlem(em, numbers, voxel_mask):
    method = partial(mlem, iterations=12, voxel_mask=voxel_mask)
    ours = in_blocks(AstraCpuOperator(GEOMETRY), method, projections())
    theirs = in_blocks(Stand(GEOMETRY), method, projections())
    assert len(em) == 1 + 5  # the test slice, and the slices
    assert {one.number for one in em} == set(numbers or (-1,))
    # Both sum in float32, in another order, and again in every iteration.
    assert relative(theirs.volume, ours.volume) < 1e-4
    np.testing.assert_allclose(theirs.misfit, ours.misfit, rtol=1e-4)
    assert theirs.power == pytest.approx(ours.power)
    assert np.all(theirs.volume[:, 2] == 0)


def test_each_iteration_is_watched_with_its_volume(em):
    seen = []
    operator = Stand(GEOMETRY)
    result = mlem(operator, projections(), 3, watch=lambda i, volume: seen.append((i, volume.copy())))
    assert [i for i, _ in seen] == [0, 1, 2, 3]
    np.testing.assert_array_equal(operator.unload(seen[-1][1], 5), result.volume)
    misfit = [np.square(operator.forward(v) - operator.load(np.maximum(projections(), 0))).sum() for _, v in seen]
    np.testing.assert_allclose(result.misfit, misfit, rtol=1e-4)


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**-14, 2.0**20])
def test_the_unit_of_the_data_does_not_matter(em, unit):
    one = in_blocks(Stand(GEOMETRY), partial(mlem, iterations=6), projections())
    other = in_blocks(Stand(GEOMETRY), partial(mlem, iterations=6), projections(unit=unit))
    np.testing.assert_allclose(other.volume / unit, one.volume, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other.misfit / unit**2, one.misfit, rtol=1e-5)


def test_slabs_do_not_change_a_slice(em):
    whole, parts = Stand(GEOMETRY), Stand(GEOMETRY)
    parts.block = 2
    method = partial(mlem, iterations=4)
    a, b = in_blocks(whole, method, projections()), in_blocks(parts, method, projections())
    np.testing.assert_array_equal(a.volume, b.volume)


def test_weights_and_a_start_keep_to_the_3d_kernels(em):
    weights = np.ones((19, 26), np.float32)
    mlem(Stand(GEOMETRY), projections(), 1, weights=weights)
    mlem(Stand(GEOMETRY), projections(), 1, start=np.ones((20, 5, 26), np.float32))
    assert em == []


def test_an_em_that_does_something_else_is_not_used(em, monkeypatch):
    monkeypatch.setattr(Em, "run", lambda self, steps: setattr(self, "_norm", 1.0))
    ours = in_blocks(AstraCpuOperator(GEOMETRY), partial(mlem, iterations=3), projections())
    theirs = in_blocks(Stand(GEOMETRY), partial(mlem, iterations=3), projections())
    assert len(em) == 1
    np.testing.assert_array_equal(theirs.volume, ours.volume)


@pytest.mark.parametrize(("version", "safe"), [("2.5.0", True), ("2.10.1", True), ("2.4.1", False), ("unknown", False)])
def test_only_an_em_that_raises_errors_is_used(monkeypatch, version, safe):
    monkeypatch.undo()
    monkeypatch.setattr(astra, "__version__", version)
    assert astra_backend._has_safe_em() == safe


def test_a_slice_that_vanishes_is_a_failure(em):
    def lose(i, volume):
        if i == 2:
            volume[1] = 0

    with pytest.raises(GpuFailed, match="empty slice"):
        mlem(Stand(GEOMETRY), projections(), 3, watch=lose)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (lambda out: None, "returned nothing"),  # as it was: only logged
        (lambda out: out.fill(0), "returned nothing"),
        (lambda out: out.fill(np.nan), "returned nothing"),
    ],
    ids=["untouched", "zeros", "nan"],
)
def test_a_kernel_that_fails_silently_is_noticed(monkeypatch, left, words):
    monkeypatch.setattr(Kernels, "FP", lambda self, volume, out: left(out))
    monkeypatch.setattr(Kernels, "BP", lambda self, projections, out: left(out))
    operator = Stand(GEOMETRY)
    with pytest.raises(GpuFailed, match=words):
        operator.forward(np.ones((2, 20, 26), np.float32))
    with pytest.raises(GpuFailed, match=words):
        operator.backward(np.ones((2, 19, 26), np.float32), np.ones((2, 20, 26), np.float32))


def test_an_error_of_astra_is_a_failure_of_the_gpu(monkeypatch):
    def fail(self, volume, out):
        raise astra.log.AstraError("Algorithm failed: CUDA error 2: out of memory")

    monkeypatch.setattr(Kernels, "FP", fail)
    with pytest.raises(GpuFailed, match="out of memory"):
        Stand(GEOMETRY).forward(np.ones((2, 20, 26), np.float32))


def test_of_nothing_comes_nothing():
    operator = Stand(GEOMETRY)
    assert not operator.forward(np.zeros((2, 20, 26), np.float32)).any()
    assert not operator.backward(np.zeros((2, 19, 26), np.float32)).any()
