import pytest

from tomoseg.errors import InputError
from tomoseg.reconstruction.backends import choice as backends
from tomoseg.reconstruction.backends.choice import Choice, choose, why_missing


@pytest.fixture
def gpu(request, monkeypatch):
    monkeypatch.setattr(backends, "_gpu", lambda: request.param)


@pytest.mark.parametrize("gpu", [True], indirect=True)
@pytest.mark.parametrize(
    ("backend", "device", "expected"),
    [
        ("auto", "auto", ("astra", "cuda")),
        ("auto", "cuda", ("astra", "cuda")),
        ("auto", "cpu", ("cpu", "cpu")),
        ("astra", "auto", ("astra", "cuda")),
        ("astra", "cpu", ("astra", "cpu")),
        ("tomopy-astra", "auto", ("tomopy-astra", "cuda")),
        ("tomopy-astra", "cpu", ("tomopy-astra", "cpu")),
        ("tomopy", "cuda", ("tomopy", "cpu")),
        ("cpu", "auto", ("cpu", "cpu")),
        ("cpu", "cuda", ("cpu", "cpu")),
    ],
)
def test_choice_with_a_gpu(gpu, monkeypatch, backend, device, expected):
    monkeypatch.setattr(backends, "find_spec", lambda name: True)
    choice = choose(backend, device)
    assert (choice.backend, choice.device) == expected


@pytest.mark.parametrize("gpu", [False], indirect=True)
@pytest.mark.parametrize(
    ("backend", "device", "expected"),
    [
        ("auto", "auto", ("cpu", "cpu")),
        ("astra", "auto", ("astra", "cpu")),
        ("tomopy-astra", "auto", ("tomopy-astra", "cpu")),
        ("auto", "cpu", ("cpu", "cpu")),
    ],
)
def test_choice_without_a_gpu(gpu, monkeypatch, backend, device, expected):
    monkeypatch.setattr(backends, "find_spec", lambda name: True)
    choice = choose(backend, device)
    assert (choice.backend, choice.device) == expected
    assert choice.reason


@pytest.mark.parametrize("gpu", [False], indirect=True)
@pytest.mark.parametrize("backend", ["auto", "astra"])
def test_asking_for_a_gpu_that_is_not_there_is_refused(gpu, backend):
    with pytest.raises(InputError, match="finds no CUDA GPU"):
        choose(backend, "cuda")


@pytest.mark.parametrize(("backend", "how"), [("tomopy", "conda install"), ("astra", "pip install")])
def test_a_backend_that_is_not_installed_says_how_to_install_it(monkeypatch, backend, how):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert how in why_missing(backend)
    assert why_missing("auto") == why_missing("cpu") == ""
    with pytest.raises(InputError, match=how):
        choose(backend, "auto")


@pytest.mark.parametrize(("absent", "how"), [("tomopy", "conda install"), ("astra", "pip install")])
def test_astra_through_tomopy_needs_both(monkeypatch, absent, how):
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == absent else True)
    assert how in why_missing("tomopy-astra")


def test_operators_are_those_of_the_choice():
    import numpy as np

    from tomoseg.reconstruction.geometry import ParallelGeometry

    geometry = ParallelGeometry(np.array([0.0, 10.0]), 8, 8, 8)
    names = {
        type(Choice(b, d, "").operator(geometry)).__name__
        for b, d in (("cpu", "cpu"), ("astra", "cpu"), ("astra", "cuda"))
    }
    assert names == {"CpuOperator", "AstraCpuOperator", "AstraCudaOperator"}
