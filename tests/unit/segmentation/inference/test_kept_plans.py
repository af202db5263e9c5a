"""A network that was used before on such a volume is used again without Keras, with the same labels."""

import json

import numpy as np
import pytest

from tomoseg.runtime import Runtime
from tomoseg.segmentation.inference import kept_plans
from tomoseg.segmentation.inference.engines import cache_folder, problem_with
from tomoseg.segmentation.inference.kept_plans import computes_on_cpu
from tomoseg.segmentation.inference.network import Network
from tomoseg.segmentation.networks import model_file
from tomoseg.segmentation.parameters import SegmentParameters

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.skipif(problem_with("openvino") is not None, reason="openvino is not installed"),
]
SHAPE = (40, 16, 48)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def labelled(path, shape=SHAPE, max_memory=2 << 30, engine="openvino"):
    """Return labels and confidence of a slice, and what is known of the network."""
    network = Network(path, SegmentParameters(model=str(path), engine=engine), shape, 0.3)
    runtime = Runtime(device="cpu", workers=1, max_memory=max_memory)
    predictor, facts = network.opened(runtime)
    slices = np.random.default_rng(0).normal(50, 20, (1, shape[0], shape[2])).astype(np.float32)
    return (*predictor.classify(slices), facts, runtime)


@pytest.fixture
def no_keras(monkeypatch):
    def forbid():
        def fails(path):
            raise AssertionError(f"{path} was opened by Keras")

        monkeypatch.setattr(model_file, "load_model", fails)

    return forbid


def test_the_second_time_keras_is_not_asked_and_the_labels_are_the_same(trained, cache, no_keras):
    path = trained.path
    labels, confidence, facts, first = labelled(path)
    no_keras()
    again = labelled(path)
    np.testing.assert_array_equal(again[0], labels)
    np.testing.assert_array_equal(again[1], confidence)
    assert again[2] == facts
    about_keras = {note for note in first.notes if "TensorFlow" in note}  # it ran in this process before
    assert again[3].notes == [note for note in first.notes if note not in about_keras]
    for changed in ({"shape": (96, 16, 48)}, {"max_memory": 1 << 30}, {"engine": "keras"}):
        with pytest.raises(AssertionError, match="opened by Keras"):
            labelled(path, **changed)


@pytest.mark.parametrize("damage", ["not json", "{}", '{"n_classes": 0}', "[" * 100_000, "copy"])
def test_a_damaged_plan_or_copy_is_made_again(trained, cache, damage):
    path = trained.path
    labels, *_ = labelled(path)
    (plan,) = cache_folder().glob("*-plan-*.json")
    kept = plan.read_text()
    if damage == "copy":
        for copy in cache_folder().glob("*.zip"):
            copy.write_bytes(b"PK")
    else:
        plan.write_text(damage)
    np.testing.assert_array_equal(labelled(path)[0], labels)
    assert json.loads(plan.read_text()) == json.loads(kept)


def test_where_a_gpu_may_be_keras_is_asked(tmp_path, monkeypatch):
    assert computes_on_cpu(Runtime(device="cpu"))
    assert not computes_on_cpu(Runtime(device="cuda"))
    monkeypatch.setattr(kept_plans.sys, "platform", "linux")
    monkeypatch.setattr(kept_plans, "GPU_DEVICES", (str(tmp_path / "gpu"),))
    assert computes_on_cpu(Runtime(device="auto"))
    (tmp_path / "gpu").touch()
    assert not computes_on_cpu(Runtime(device="auto"))
    monkeypatch.setattr(kept_plans.sys, "platform", "darwin")
    monkeypatch.setattr(kept_plans, "GPU_DEVICES", ())
    assert not computes_on_cpu(Runtime(device="auto"))
