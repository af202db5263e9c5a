"""A project's exported pipeline makes the same results again, to the bit, on the same machine."""

import h5py
import numpy as np

from tests.conftest import tomoseg
from tomoseg import schema


def test_the_exported_pipeline_makes_the_same_results(small_run, project, tmp_path):
    tomoseg("run", project, "--until", "measure", "--set", "reconstruct.iterations=4", "--set", "segment.smooth=0.6")
    pipeline, again = tmp_path / "again.yaml", tmp_path / "again.h5"
    tomoseg("export-pipeline", project, "-o", pipeline)
    assert "iterations: 4\n" in pipeline.read_text()
    tomoseg("run", small_run.raw, "--pipeline", pipeline, "-o", again, "--until", "measure")
    with h5py.File(project) as first, h5py.File(again) as second:
        for artifact in schema.ARTIFACTS:
            if artifact.path in first and not artifact.is_group:
                assert np.array_equal(
                    first[artifact.path][()].view(np.uint8), second[artifact.path][()].view(np.uint8)
                ), artifact.name


def test_history_tells_what_changed(project):
    tomoseg("reconstruct", project, "--iterations", "4")
    lines = tomoseg("history", project).stdout.splitlines()
    assert len(lines) == 7
    assert "reconstruct" in lines[-1]
    assert lines[-1].endswith("done  iterations auto -> 4")
