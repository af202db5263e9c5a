"""OpenVINO: how many threads it takes, and that it reports nothing."""

import pytest

from tomoseg.machine import available_cpus
from tomoseg.segmentation.networks import openvino_setup


@pytest.mark.parametrize(("said", "threads"), [("3", 3), ("", None), ("0", None), ("4,2", None), ("many", None)])
def test_threads_are_those_of_openmp_or_all(said, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert openvino_setup.n_threads() == (threads or available_cpus())
