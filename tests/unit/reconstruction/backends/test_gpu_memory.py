"""Which GPUs there are, what is free on them, and how many slices fit: from what `nvidia-smi` and ASTRA say."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tomoseg.reconstruction.backends import gpu
from tomoseg.reconstruction.backends.gpu import Gpu, parse, slab, usable, visible, why_unused
from tomoseg.reconstruction.geometry import ParallelGeometry

LISTING = """\
GPU-5f3c1d80-0000-1111-2222-333344445555, NVIDIA RTX A5000, 23821
GPU-77aa90ee-0000-1111-2222-333344445555, NVIDIA RTX A5000, 4012
"""
TWO = [
    Gpu("GPU-5f3c1d80-0000-1111-2222-333344445555", "NVIDIA RTX A5000", 23821 << 20),
    Gpu("GPU-77aa90ee-0000-1111-2222-333344445555", "NVIDIA RTX A5000", 4012 << 20),
]


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ASTRA_GPU_INDEX"):
        monkeypatch.delenv(name, raising=False)
    usable.cache_clear()
    yield
    usable.cache_clear()


def machine_with(monkeypatch, gpus, description="Error getting current GPU index"):
    monkeypatch.setattr(gpu, "listed", lambda: gpus)
    monkeypatch.setattr(gpu, "_told_by_astra", lambda: description)


def test_the_listing_is_read():
    assert parse(LISTING) == TWO


@pytest.mark.parametrize("free", ["[N/A]", "[Insufficient Permissions]", "[Not Supported]"])
def test_memory_that_is_not_told_is_unknown(free):
    (found,) = parse(f"GPU-1, NVIDIA A100, {free}\n")
    assert found.free is None


@pytest.mark.parametrize(
    "text", ["", "No devices were found\n", "NVIDIA-SMI has failed because it couldn't talk\n", "a, b"]
)
def test_what_is_no_listing_holds_no_gpu(text):
    assert parse(text) == []


@pytest.mark.parametrize(
    ("setting", "by_place", "free"),
    [
        (None, False, [23821, 4012]),
        ("1", True, [4012]),
        ("0,1", True, [23821, 4012]),
        ("0", False, [4012]),  # CUDA may number them in another order: the fuller one may be meant
        ("1, 7, 0", True, [4012]),  # the list ends where no GPU is named
        ("GPU-77aa", False, [4012]),
        ("GPU-5f3c1d80-0000-1111-2222-333344445555,GPU-77", False, [23821, 4012]),
        ("GPU-", False, []),  # both begin so
        ("", False, []),
        ("-1", False, []),
        ("MIG-1234", False, []),
    ],
)
def test_gpus_that_cuda_may_not_use_do_not_count(setting, by_place, free):
    assert [one.free for one in visible(TWO, setting, by_place)] == [size << 20 for size in free]


def test_gpus_of_one_model_are_used_together_with_the_least_free_memory(monkeypatch):
    machine_with(monkeypatch, TWO)
    assert usable() == gpu.Usable((0, 1), 4012 << 20, "nvidia-smi")


def test_of_different_gpus_the_one_that_cuda_takes_first_is_used(monkeypatch):
    machine_with(monkeypatch, [TWO[0], Gpu("GPU-2", "NVIDIA T400", 1500 << 20)])
    assert usable() == gpu.Usable((), 1500 << 20, "nvidia-smi")


def test_astras_own_setting_is_obeyed(monkeypatch):
    machine_with(monkeypatch, TWO)
    monkeypatch.setenv("ASTRA_GPU_INDEX", "1")
    assert usable().numbers == (1,)


def test_where_nvidia_smi_is_silent_half_of_the_gpu_is_taken_to_be_free(monkeypatch):
    machine_with(monkeypatch, [], "GPU #0: NVIDIA A100-SXM4 MIG 1g.5gb, with 4864MB, CUDA compute capability 8.0")
    assert usable().free == 2432 << 20


def test_where_nothing_tells_little_is_taken_to_be_free(monkeypatch):
    machine_with(monkeypatch, [])
    assert (usable().numbers, usable().free) == ((), 1 << 30)


@pytest.mark.parametrize(
    "trouble",
    [FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 1), subprocess.CalledProcessError(9, "nvidia-smi")],
)
def test_an_nvidia_smi_that_fails_lists_nothing(monkeypatch, trouble):
    def fail(*_args, **_options):
        raise trouble

    monkeypatch.setattr(gpu.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(gpu.subprocess, "run", fail)
    assert gpu.listed() == []


def test_nvidia_smi_is_asked(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$1" = --query-gpu=uuid,name,memory.free ] || exit 1\nprintf "%s" "{LISTING}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpu.listed() == TWO


def geometry(n: int, n_tilt: int = 69) -> ParallelGeometry:
    return ParallelGeometry(np.linspace(-68, 68, n_tilt), n_detector=n, nx=n, nz=n)


@pytest.mark.parametrize(
    ("width", "gib", "slices"),
    [
        (512, 8, 256),
        (1024, 24, 256),
        (1024, 4, 128),  # 13.4 MB each: 160 in 2 GiB
        (2048, 8, 64),  # 52 MB each: 82 in 4 GiB
        (4096, 8, 16),  # 205 MB each: 20
        (4096, 1, 16),  # 2: ASTRA takes them in parts
    ],
)
def test_slabs_fit_in_half_of_what_is_free(width, gib, slices):
    assert slab(geometry(width), gib << 30) == slices


def test_no_array_has_more_values_than_32_bits_count():
    wide = geometry(8192)
    assert slab(wide, 1 << 50) * 8192**2 < 2**31


@pytest.mark.parametrize(
    ("has_cuda", "words"),
    [(False, "built without CUDA"), (True, "driver older than the CUDA")],
    ids=["build", "driver"],
)
def test_a_gpu_that_astra_cannot_use_is_explained(monkeypatch, has_cuda, words):
    machine_with(monkeypatch, TWO)
    monkeypatch.setitem(sys.modules, "astra", SimpleNamespace(has_feature=lambda name: has_cuda and name == "cuda"))
    assert words in why_unused()
    assert "NVIDIA RTX A5000" in why_unused()


def test_a_gpu_without_astra_is_explained(monkeypatch):
    machine_with(monkeypatch, TWO)
    monkeypatch.setitem(sys.modules, "astra", None)
    assert "pip install astra-toolbox" in why_unused()


@pytest.mark.parametrize("setting", ["", "-1", "NoDevFiles"])
def test_nothing_is_to_be_explained_where_gpus_are_hidden_or_missing(monkeypatch, setting):
    machine_with(monkeypatch, [])
    assert why_unused() == ""
    machine_with(monkeypatch, TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert why_unused() == ""
