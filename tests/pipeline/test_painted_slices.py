"""From a simulated catalyst to a network trained on a few of its own slices, by the commands a user types."""

import json

import h5py
import numpy as np
import pytest
import tifffile

from tests.conftest import tomoseg
from tomoseg import schema

PAINTED = 6  # slices of 96


@pytest.fixture(scope="module")
def catalyst(tmp_path_factory):
    """Return folder, project and true labels; nothing was shifted or turned, so that truth and volume share a frame."""
    folder = tmp_path_factory.mktemp("catalyst")
    raw, truth, project = folder / "raw.mrc", folder / "truth.h5", folder / "project.h5"
    still = ("--jitter", 0, "--drift", 0, "--tilt-axis-angle", 0, "--tilt-axis-offset", 0)
    tomoseg("simulate", "-o", raw, "--truth", truth, "--size", 96, "--particles", 40, "--step", 3, *still)
    none = ("--set", "align.method=none", "--set", "import.tilt_axis=y")
    tomoseg("run", raw, "-o", project, "--until", "reconstruct", *none, "--progress", "none")
    with h5py.File(truth) as file:
        return folder, project, file[schema.LABELS.path][:]


def paint_by_the_truth(folder, truth):
    """Paint half of each slice, in squares of 8 px, by the truth; return the numbers of the slices."""
    numbers = [entry["number"] for entry in json.loads((folder / "annotation.json").read_text())["slices"]]
    for number in numbers:
        path = folder / "labels" / f"xz_{number:04d}.tif"
        labels = tifffile.imread(path)
        squares = np.random.default_rng(number).random((12, 12)) < 0.5
        here = np.kron(squares, np.ones((8, 8))) > 0
        labels[here] = truth[:, number][here]
        tifffile.imwrite(path, labels)
    return numbers


def learn(catalyst, tmp_path, epochs):
    """Export, paint, take in, train and segment; return the Dice of each class in slices that nobody painted on."""
    _, project, truth = catalyst
    slices, model = tmp_path / "slices", tmp_path / "own.keras"
    quiet = ("--progress", "none")
    tomoseg("annotate", "export", project, "-o", slices, "--slices", PAINTED, *quiet)
    numbers = paint_by_the_truth(slices, truth)
    assert len(numbers) == PAINTED
    said = tomoseg("annotate", "import", project, slices, "--replace", *quiet).stdout
    assert said.count("% painted") == PAINTED
    size = ("--patch", 48, "--depth", 3, "--base-filters", 8, "--batch", 4, "--learning-rate", 5e-3)
    tomoseg("train", project, "-o", model, *size, "--epochs", epochs, "--folds", 1, "--device", "cpu", *quiet)
    tomoseg("segment", project, "--model", model, "--device", "cpu", *quiet)
    with h5py.File(project) as file:
        found = file[schema.LABELS.path][:]
    true, found = (np.delete(labels, numbers, axis=1) for labels in (truth, found))
    return [2 * np.sum((true == c) & (found == c)) / (np.sum(true == c) + np.sum(found == c)) for c in range(3)]


@pytest.mark.slow
def test_six_half_painted_slices_teach_a_tiny_network(catalyst, tmp_path):
    dice = learn(catalyst, tmp_path, epochs=12)
    # Measured: 0.997, 0.95, 0.85; the particles, 0.2 % of the volume and 4 voxels across, vary by some 0.03.
    assert np.mean(dice) > 0.85
    assert dice[1] > 0.9
    assert dice[2] > 0.75


@pytest.mark.slow
def test_more_epochs_and_what_the_network_doubts(catalyst, tmp_path):
    _, project, _ = catalyst
    dice = learn(catalyst, tmp_path, epochs=40)
    # Measured: 0.998, 0.96, 0.89.
    assert np.mean(dice) > 0.92
    assert dice[2] > 0.83
    before = [entry["number"] for entry in json.loads((tmp_path / "slices" / "annotation.json").read_text())["slices"]]
    said = tomoseg("annotate", "export", project, "-o", tmp_path / "more", "--progress", "plain").stderr
    assert "chosen by uncertainty" in said
    after = [entry["number"] for entry in json.loads((tmp_path / "more" / "annotation.json").read_text())["slices"]]
    assert not set(before) & set(after)
