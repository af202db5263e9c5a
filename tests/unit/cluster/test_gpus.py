"""Several GPUs of a machine, one for each worker; `nvidia-smi` is replaced, for most machines have none."""

import fcntl
import os

import pytest

from tomoseg.cluster import worker
from tomoseg.reconstruction.backends.gpu import Gpu

GPUS = [Gpu(f"GPU-{k}", "A100", 40 << 30) for k in "abc"]


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(worker, "listed", lambda: GPUS)
    monkeypatch.setattr(worker, "_held", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is as before afterwards
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    yield
    for descriptor in worker._held:
        os.close(descriptor)


def hold(folder, gpu):
    """Hold a GPU as another worker does."""
    descriptor = os.open(folder / f"tomoseg-{os.getuid()}-{gpu.uuid}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_the_first_free_gpu_is_taken(tmp_path):
    other = hold(tmp_path, GPUS[0])
    worker.take_gpu(tmp_path)
    os.close(other)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b"


def test_only_those_that_the_job_was_given(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-c,GPU-a")
    worker.take_gpu(tmp_path)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-c"


def test_where_all_are_taken_nothing_is_changed(tmp_path):
    others = [hold(tmp_path, gpu) for gpu in GPUS]
    worker.take_gpu(tmp_path)
    for other in others:
        os.close(other)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_single_gpu_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    worker.take_gpu(tmp_path)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
