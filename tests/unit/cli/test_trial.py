"""`tomoseg try`: variants of a slice; the project stays as it is."""

import hashlib

import numpy as np
import pytest
from typer.testing import CliRunner

from tomoseg import config
from tomoseg.cli import trial
from tomoseg.cli.app import app
from tomoseg.errors import InputError
from tomoseg.report import trial as page


def tried(project, *words):
    return CliRunner().invoke(app, ["try", str(project), *map(str, words)])


@pytest.fixture
def seen(monkeypatch):
    """Return what the pages were made of."""
    kept = []
    written = page.write_trial
    monkeypatch.setattr(
        page, "write_trial", lambda path, found, results: kept.extend(found) or written(path, found, results)
    )
    return kept


def test_variants_are_what_a_run_would_give_and_nothing_changes(project, tmp_path, seen):
    before = hashlib.sha256(project.read_bytes()).hexdigest()
    path = tmp_path / "try.html"
    done = tried(project, "--set", "reconstruct.iterations=3,12", "--slice", 10, "--slice", 20, "-o", path)
    assert done.exception is None, done.exception
    assert hashlib.sha256(project.read_bytes()).hexdigest() == before
    assert [(one.y, one.label) for one in seen] == [
        (y, f"reconstruct.iterations={n}") for y in (10, 20) for n in (3, 12)
    ]
    copy = tmp_path / "copy.h5"
    copy.write_bytes(project.read_bytes())
    options = ["--until", "reconstruct", "--set", "reconstruct.iterations=12", "--set", "segment.method=otsu"]
    assert CliRunner().invoke(app, ["run", str(copy), *options]).exception is None
    import h5py

    with h5py.File(copy) as file:
        expected = file["reconstruction/volume"][:, 20]
    np.testing.assert_allclose(seen[3].image, expected, rtol=1e-4, atol=1e-4 * expected.max())
    text = path.read_text()
    assert "reconstruct.iterations=12" in text
    assert "relative residual" in text


def test_thresholds_are_drawn_on_a_histogram(project, tmp_path, seen):
    path = tmp_path / "try.html"
    options = ["--set", "segment.method=otsu", "--set", "segment.smooth=0.3,0.9", "--slice", 20, "-o", path]
    done = tried(project, *options)
    assert done.exception is None, done.exception
    assert [len(one.thresholds) for one in seen] == [2, 2]
    assert all(set(np.unique(one.labels)) <= {0, 1, 2} for one in seen)
    assert "histogram of the slice" in path.read_text()


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["reconstruct.iterations=10,30"], ["reconstruct.iterations=10", "reconstruct.iterations=30"]),
        (
            ["segment.thresholds=[1,2],[1,3]", "segment.method=otsu"],
            ["segment.thresholds=[1,2], segment.method=otsu", "segment.thresholds=[1,3], segment.method=otsu"],
        ),
    ],
)
def test_values_are_split_at_commas_outside_brackets(sets, expected):
    assert [variant.label for variant in trial.variants_of(sets, config.as_raw(config.resolve()))] == expected


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["measure.min_voxels=1,2"], "try varies parameters of reconstruct and segment"),
        (["reconstruct.iterations=10,-4"], "reconstruct.iterations"),
        (["reconstruct.iterations=" + ",".join(map(str, range(1, 40)))], "39 combinations; try at most 24"),
    ],
)
def test_what_cannot_be_tried_is_said_at_once(sets, told):
    with pytest.raises(InputError, match=told):
        trial.variants_of(sets, config.as_raw(config.resolve()))


def test_a_slice_that_is_not_there(project, tmp_path):
    done = tried(project, "--set", "reconstruct.iterations=3", "--slice", 4000, "-o", tmp_path / "t.html")
    assert "--slice 4000: the volume has" in str(done.exception)
