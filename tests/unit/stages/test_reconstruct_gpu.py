"""The reconstruct stage on a GPU, which is played by ASTRA's CPU projector: slabs, failures, interruptions."""

import numpy as np
import pytest

from tests.unit.stages.interruptions import Fatal, Killed, killed_again_and_again
from tests.unit.stages.test_reconstruct_stage import ANGLES, N_X, reconstruct
from tomoseg.arrays import MemoryOutputs
from tomoseg.errors import StageFailed
from tomoseg.reconstruction.backends import choice as backends
from tomoseg.reconstruction.backends import gpu
from tomoseg.reconstruction.backends.astra import AstraCpuOperator
from tomoseg.reconstruction.backends.gpu import GpuFailed
from tomoseg.runtime import Runtime

N_Y = 150
GIB = 1 << 30


class PlayedGpu(AstraCpuOperator):
    """Projects at most `room` slices at once, `calls` times in all."""

    room, calls, slab = 1000, 10**9, 64
    ruins = False
    threads = False

    def __init__(self, geometry) -> None:
        super().__init__(geometry)
        self.block = self.slab

    def forward(self, volume, out=None):
        type(self).calls -= 1
        if len(volume) > self.room or self.calls < 0:
            raise GpuFailed("CUDA error 2: out of memory")
        out = super().forward(volume, out)
        if self.ruins:
            out[:, :, 3] = np.nan
        return out


@pytest.fixture
def played(monkeypatch):
    """Put a GPU into this machine; return its class."""
    astra_or_cpu = backends.Choice.operator

    class Gpu(PlayedGpu):
        pass

    def operator(choice, geometry, block=None):
        return Gpu(geometry) if choice.device == "cuda" else astra_or_cpu(choice, geometry, block)

    monkeypatch.setattr(backends, "_gpu", lambda: True)
    monkeypatch.setattr(backends.Choice, "operator", operator)
    return Gpu


@pytest.fixture(scope="module")
def aligned():
    rng = np.random.default_rng(3)
    smooth = np.cumsum(rng.random((len(ANGLES), N_Y, N_X), np.float32) - 0.4, axis=2)
    return np.maximum(smooth, 0)


def on_gpu(aligned, device="auto", max_memory=GIB, outputs=None, **params):
    runtime = Runtime(device=device, workers=1, max_memory=max_memory)
    return reconstruct(aligned, runtime=runtime, outputs=outputs, **params)


@pytest.fixture(scope="module")
def on_cpu(aligned):
    outputs, _ = reconstruct(aligned, runtime=Runtime(device="cpu", workers=1))
    return outputs


def assert_same(found, expected):
    assert found.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, strict=True)


@pytest.mark.parametrize("method", ["mlem", "osem", "sirt", "tv", "fbp"])
def test_slabs_are_as_large_as_the_gpu_allows(played, aligned, method):
    outputs, runtime = on_gpu(aligned, method=method)
    assert "reconstructing 64 slices at a time on the GPU" in runtime.notes
    assert outputs.attrs["reconstruction_info"]["device"] == runtime.device_used == "cuda"
    played.slab = 16
    small, _ = on_gpu(aligned, method=method)
    np.testing.assert_array_equal(outputs.arrays["volume"], small.arrays["volume"])
    np.testing.assert_allclose(outputs.arrays["residuals"], small.arrays["residuals"], rtol=1e-12)


def test_slabs_are_no_larger_than_the_memory_here_allows(played, aligned):
    # A slice of 24 x 24 voxels and 17 tilts takes 3 x 2304 + 6 x 1632 bytes, 32 of them 0.53 MB.
    _, runtime = on_gpu(aligned, max_memory=2 * 600_000)
    assert "reconstructing 32 slices at a time on the GPU" in runtime.notes
    _, runtime = on_gpu(aligned, max_memory=1)
    assert "reconstructing 16 slices at a time on the GPU" in runtime.notes


def test_a_slab_that_does_not_fit_is_halved(played, aligned):
    whole, _ = on_gpu(aligned)
    played.room = 40
    outputs, runtime = on_gpu(aligned)
    assert runtime.warnings == ["CUDA error 2: out of memory; continuing with 32 slices at a time"]
    assert outputs.attrs["reconstruction_info"]["device"] == "cuda"
    np.testing.assert_array_equal(outputs.arrays["volume"], whole.arrays["volume"])


@pytest.mark.parametrize("calls", [0, 3, 8, 20])
def test_a_gpu_that_fails_is_replaced_for_all_slices(played, aligned, on_cpu, calls):
    played.calls = calls
    outputs, runtime = on_gpu(aligned)
    assert_same(outputs, on_cpu)
    assert runtime.device_used == outputs.attrs["reconstruction_info"]["device"] == "cpu"
    assert "failed on the GPU (CUDA error 2: out of memory)" in runtime.warnings[-1]


def test_results_that_are_not_numbers_are_a_failure(played, aligned, on_cpu):
    played.ruins = True
    outputs, runtime = on_gpu(aligned)
    assert_same(outputs, on_cpu)
    assert "failed on the GPU (the volume or its residual is NaN or infinite" in runtime.warnings[-1]


@pytest.mark.parametrize("params", [{"iterations": "auto"}, {"method": "osem", "iterations": "auto"}])
def test_a_sample_that_is_not_finite_is_a_failure(played, aligned, params):
    """The number of iterations would be read from NaN."""
    played.ruins = True
    outputs, runtime = on_gpu(aligned[:, :20], **params)
    assert "failed on the GPU (the volume or its residual is NaN or infinite" in runtime.warnings[-1]
    assert_same(outputs, reconstruct(aligned[:, :20], runtime=Runtime(device="cpu", workers=2), **params)[0])


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_blank_images_are_not_the_fault_of_the_gpu(played, aligned, device):
    with pytest.raises(StageFailed, match="images are blank"):
        on_gpu(np.zeros_like(aligned), device=device)


def test_a_gpu_that_was_asked_for_is_not_replaced(played, aligned):
    played.calls = 3
    with pytest.raises(StageFailed, match=r"failed on the GPU: CUDA error 2.*--device auto or cpu"):
        on_gpu(aligned, device="cuda")


@pytest.mark.parametrize("every", [1, 2])
def test_slabs_stay_the_same_after_an_interruption(played, aligned, every):
    whole, _ = on_gpu(aligned)

    def run(outputs, slab):
        played.slab = slab if outputs.resumed else 64
        on_gpu(aligned, max_memory=GIB if slab == 64 else 1, outputs=outputs)

    resumed = killed_again_and_again(run, every, (64, 16, 256))
    assert_same(resumed, whole)


def test_after_an_interruption_the_gpu_that_failed_is_not_tried_again(played, aligned, on_cpu):
    played.calls = 8
    first = Fatal(4)
    with pytest.raises(Killed):
        on_gpu(aligned, outputs=first)
    state, _ = first.kept
    assert (state["device"], state["gpu_failed"]) == ("cpu", "CUDA error 2: out of memory")
    assert state["slices"] > 0
    played.calls = 10**9
    resumed, runtime = on_gpu(aligned, outputs=MemoryOutputs(*first.kept))
    assert_same(resumed, on_cpu)
    assert f"continuing after {state['slices']} of {N_Y} slices" in runtime.notes
    assert "failed on the GPU" in runtime.warnings[-1]
    assert played.calls == 10**9


def test_no_slice_from_the_gpu_remains_where_the_cpu_takes_over(played, aligned, on_cpu):
    played.calls = 8
    first = Fatal(2)  # a slab of the GPU, and the beginning of the CPU's
    with pytest.raises(Killed):
        on_gpu(aligned, outputs=first)
    state, arrays = first.kept
    assert (state["device"], state["slices"]) == ("cpu", 0)
    assert np.isfinite(arrays["volume"][:, :64]).all()
    played.calls = 10**9
    resumed, _ = on_gpu(aligned, outputs=MemoryOutputs(state, arrays))
    assert_same(resumed, on_cpu)


def test_a_gpu_that_astra_cannot_use_is_warned_of(monkeypatch, aligned):
    monkeypatch.setattr(backends, "_gpu", lambda: False)
    monkeypatch.setattr(gpu, "why_unused", lambda: "there is a GPU, but")
    _, runtime = on_gpu(aligned[:, :3])
    assert runtime.warnings == ["there is a GPU, but"]
    _, runtime = on_gpu(aligned[:, :3], device="cpu")
    assert runtime.warnings == []
