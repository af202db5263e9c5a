"""Training from Python: the parameters are keywords, and the result is that of the command's own function."""

import doctest
import inspect
import json

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.runtime import Runtime
from tomoseg.segmentation import training
from tomoseg.segmentation.networks.model_file import load_model
from tomoseg.segmentation.training import api, trainer
from tomoseg.segmentation.training.parameters import TrainParameters, preset

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def test_keywords_give_the_same_network(tmp_path, make_slices):
    images, labels = make_slices(6, size=32)
    names = [f"s_{i:03d}" for i in range(6)]
    given = {"epochs": 1, "patch": 32, "patches": 4, "depth": 2, "base_filters": 2, "folds": 2, "seed": 3}
    params = TrainParameters.of("train", given)
    runtime = Runtime(device="cpu", workers=1)
    a = trainer.train(images, labels, tmp_path / "a.keras", names=names, params=params, runtime=runtime)
    b = training.train(images, labels, tmp_path / "b.keras", names=names, device="cpu", workers=1, **given)
    assert [row | {"seconds": 0} for row in a.history] == [row | {"seconds": 0} for row in b.history]
    for one, other in zip(*(load_model(result.model)[0].get_weights() for result in (a, b)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (b.card.patch, b.card.training["seed"], b.best_epoch) == (32, 3, 1)


def test_the_example_in_the_docstring_runs():
    for test in doctest.DocTestFinder().find(api.train, "train", globs={}):
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("function", [api.train, api.cross_validate])
def test_every_parameter_is_a_keyword_and_described(function):
    keywords = inspect.signature(function).parameters
    assert set(TrainParameters.model_fields) <= set(keywords)
    assert keywords["learning_rate"].default == 5e-4
    for name in TrainParameters.model_fields:
        assert f"\n{name} : " in function.__doc__


def test_a_preset_is_a_set_of_keywords(tmp_path, make_slices):
    images, labels = make_slices(4, size=32)
    small = preset("small", 32, epochs=1, patches=4, depth=2)
    result = training.train(images, labels, tmp_path / "m.keras", **small.model_dump())
    assert result.card.training["architecture"] == "compact"
    assert result.card.training["base_filters"] == 16
    assert result.card.training["augmentation"]["straight"] == 0.5


def test_parameters_are_stored_as_before():
    """The keys, and their order, of the settings in checkpoints and on cards."""
    stored = json.loads(json.dumps(TrainParameters.of("train", {}).model_dump(mode="json")))
    augmentation = stored.pop("augmentation")
    later = {"plateau_factor", "frozen_epochs", "validation_fraction", "sweep_threshold", "intensity", "start"}
    later |= {"norm_epochs"}
    assert later <= set(stored)
    assert [key for key in stored if key not in later] == [
        *("epochs", "batch", "patch", "predict_patch", "learning_rate", "schedule", "plateau_epochs", "patience"),
        *("monitor", "validate_every", "ema", "loss", "gamma", "class_weights", "channels", "architecture", "depth"),
        *("base_filters", "encoder_weights", "patches", "sampling", "folds", "fold", "guard", "precision", "seed"),
    ]
    assert stored["class_weights"] is None
    assert stored["base_filters"] == 32
    assert augmentation.pop("scale") == augmentation.pop("gain") == 0
    assert list(augmentation) == [
        *("rotation_deg", "flip", "zoom", "shear", "shift", "elastic_px", "grid_px", "straight", "contrast"),
        *("brightness", "gamma", "noise", "blur_px", "sharpen"),
    ]
    assert augmentation["flip"] is True


def test_the_usual_number_of_filters_goes_by_the_network():
    assert TrainParameters.of("train", {"architecture": "compact"}).base_filters == 16
    assert TrainParameters.of("train", {"architecture": "compact", "base_filters": 4}).base_filters == 4
    with pytest.raises(InputError, match=r"train.epochs: .*greater than or equal to 1"):
        preset("small", epochs=0)
