"""`tomoseg train` stopped by signals, by SIGKILL and by a time budget: continued, it gives the very same network."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import tomoseg
from tomoseg.segmentation.training.files import TrainFiles

EPOCHS = 5
# One thread: with several, convolutions may be summed in another order in every run.
SHAPE = ["--epochs", f"{EPOCHS}", "--batch", "1", "--patch", "64", "--depth", "3", "--base-filters", "4"]
SHAPE += ["--workers", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_slices):
    """Return folders of images and labels."""
    root = tmp_path_factory.mktemp("slices")
    images, labels = make_slices(16, seed=1)
    for name, arrays in (("images", images), ("labels", labels)):
        (root / name).mkdir()
        for i, array in enumerate(arrays):
            np.save(root / name / f"s_{i:03d}.npy", array)
    return root / "images", root / "labels"


@pytest.fixture(scope="module")
def undisturbed(folders, tmp_path_factory):
    """Return the network of a training that nothing disturbed, its history, and how long it took in all, in s."""
    output = tmp_path_factory.mktemp("undisturbed") / "net.keras"
    began = time.monotonic()
    tomoseg("train", *folders, "-o", output, *SHAPE)
    seconds = time.monotonic() - began
    return weights(output), history(output), seconds


def weights(model: Path) -> list[np.ndarray]:
    from tomoseg.segmentation.networks.model_file import load_model

    return load_model(model)[0].get_weights()


def history(model: Path) -> list[dict]:
    state = json.loads((TrainFiles(model).checkpoint / "state.json").read_text())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in state["history"]]


def assert_same(output: Path, undisturbed) -> None:
    for a, b in zip(weights(output), undisturbed[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert history(output) == undisturbed[1]
    # Nothing is left behind: the checkpoint holds the state, the latest and the best weights.
    kept = {path.suffix for path in TrainFiles(output).checkpoint.iterdir()}
    assert kept == {".json", ".keras"}
    assert not list(output.parent.glob(".*"))


def stop_in_the_midst(folders, output: Path, signum: signal.Signals, after: float, *options) -> str:
    """Start training, send the signal some time after the first epoch that ends, and return what it said."""
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", "train", *map(str, folders), "-o", str(output)]
    process = subprocess.Popen([*command, *SHAPE, *options], stderr=subprocess.PIPE, text=True)
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("epoch ") and "val_dice" in line:
            break
    time.sleep(after)
    process.send_signal(signum)
    said += process.communicate(timeout=60)[1]
    assert process.returncode == (130 if signum != signal.SIGKILL else -signal.SIGKILL), said
    return said


def test_a_signal(folders, undisturbed, tmp_path):
    output = tmp_path / "net.keras"
    said = stop_in_the_midst(folders, output, signal.SIGTERM, 0.0)
    done = len(history(output))
    assert 1 <= done < EPOCHS
    assert (
        f"stopped by SIGTERM: {done} of {EPOCHS} epochs are done and kept in {TrainFiles(output).checkpoint}." in said
    )
    assert "--resume" in said
    tomoseg("train", *folders, "-o", output, *SHAPE, "--resume")
    assert_same(output, undisturbed)


@pytest.mark.slow
def test_sigkill_again_and_again(folders, undisturbed, tmp_path):
    output = tmp_path / "net.keras"
    # That is within the next epoch, or while its weights are written. --resume is fine the first time, too.
    for after in (0.0, 0.1):
        stop_in_the_midst(folders, output, signal.SIGKILL, after, "--resume")
    assert 2 <= len(history(output)) < EPOCHS
    tomoseg("train", *folders, "-o", output, *SHAPE, "--resume")
    assert_same(output, undisturbed)


@pytest.mark.slow
def test_a_time_budget(folders, undisturbed, tmp_path):
    output = tmp_path / "net.keras"
    # Enough to start and for an epoch or more, also on a machine that is busier than it was; not for all of them.
    budget = 5 + 2 * round(undisturbed[2])
    began = time.monotonic()
    options = ("--epochs", "10000", "--stop-before", f"{budget}s")
    done = tomoseg("train", *folders, "-o", output, *SHAPE, *options, code=130)
    assert time.monotonic() - began < budget
    finished = history(output)
    assert f"the time budget of {budget}s is used up: {len(finished)} of 10000 epochs are done" in done.stderr
    assert "--resume" in done.stderr
    common = min(len(finished), EPOCHS)
    assert finished[:common] == undisturbed[1][:common]
    assert common >= 1
