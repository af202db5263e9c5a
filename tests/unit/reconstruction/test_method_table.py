"""The table of methods agrees with the code that it speaks of."""

import inspect
from typing import get_args

import pytest

from tomoseg.reconstruction import methods
from tomoseg.reconstruction.backends.tomopy import ASTRA_METHODS
from tomoseg.reconstruction.method_table import METHODS, BackendName, MethodName, describe_methods, methods_of
from tomoseg.reconstruction.parameters import ReconstructParameters, check
from tomoseg.stages.reconstruct import STAGE

ROWS = list(METHODS.values())
HELD_BY_ITERATIVE = {"iterations", "weights", "start", "watch"}


def test_names_are_those_of_the_parameter():
    assert tuple(METHODS) == get_args(MethodName)
    assert all(f"{row.name}: {row.description}" in describe_methods() for row in ROWS)
    assert ReconstructParameters.model_fields["method"].description == describe_methods()
    assert all(row.name in STAGE.summary.lower() for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_options_are_the_keywords_of_the_function(row):
    keywords = set(inspect.signature(getattr(methods, row.function)).parameters) - {"operator", "projections"}
    assert keywords - HELD_BY_ITERATIVE == {"voxel_mask", *row.options}
    assert ("iterations" in keywords) == (not row.is_direct)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_iterations_are_sensible(row):
    assert (row.usual_iterations == 0) == (row.most_iterations == 0) == row.is_direct
    assert row.usual_iterations <= row.most_iterations


def test_the_numbers_are_those_that_results_were_made_with():
    # (most, usual, volumes, sinograms, volumes of TomoPy)
    assert {
        r.name: (r.most_iterations, r.usual_iterations, r.volumes, r.sinograms, r.tomopy_volumes) for r in ROWS
    } == {
        "mlem": (120, 30, 1, 4, 5),
        "osem": (20, 5, 2, 6, 5),
        "sirt": (240, 100, 1, 4, 5),
        "tv": (120, 60, 5, 4, 5),
        "fbp": (0, 0, 1, 10, 5),
        "gridrec": (0, 0, 1, 18, 7),
    }


def test_backends_are_those_of_the_parameter():
    backends = get_args(BackendName)
    for row in ROWS:
        assert set(row.backends) <= set(backends)
        assert set(row.on_gpu_only) <= set(row.backends)
    assert methods_of("auto") == methods_of("cpu") == methods_of("astra") == ["mlem", "osem", "sirt", "tv", "fbp"]
    assert methods_of("tomopy") == ["mlem", "osem", "sirt", "fbp", "gridrec"]
    assert methods_of("tomopy-astra") == ["mlem", "sirt", "fbp"] == list(ASTRA_METHODS)


@pytest.mark.parametrize("backend", get_args(BackendName))
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_only_what_a_backend_computes_is_accepted(monkeypatch, row, backend):
    monkeypatch.setattr("tomoseg.reconstruction.backends.choice.find_spec", lambda name: True)
    problems = check(ReconstructParameters(method=row.name, backend=backend))
    if backend in row.backends:
        assert problems == []
    else:
        assert problems == [
            f"reconstruct.method: backend {backend} does not compute {row.name}. Use backend "
            f"{' or '.join(row.backends)}, or one of the methods of backend {backend}: {', '.join(methods_of(backend))}"
        ]
