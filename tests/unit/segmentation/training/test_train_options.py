"""Options of `tomoseg train` that are read before anything else is done."""

import numpy as np
import pytest
from typer.testing import CliRunner

from tomoseg.cli.app import app
from tomoseg.cli.train import _folds
from tomoseg.errors import InputError
from tomoseg.segmentation.data.augmentation import Augmentation
from tomoseg.segmentation.training.parameters import check


def params_of(*given):
    """Return the parameters that `tomoseg train` hands on, or raise its error."""
    return handed_on(*given)["params"]


def handed_on(monkeypatch, make_slices, tmp_path, *options):
    """Return parameters and images that `tomoseg train` hands on, or raise its error."""
    from PIL import Image

    for kind, arrays in zip(("images", "labels"), make_slices(3), strict=True):
        (tmp_path / kind).mkdir(exist_ok=True)
        for i, array in enumerate(arrays if kind == "images" else arrays[:2]):
            Image.fromarray(array).save(tmp_path / kind / f"{i}.png")
    seen = {}

    def take(images, *_, params, **__):
        seen["params"], seen["images"] = params, images
        raise InputError("enough")

    monkeypatch.setattr("tomoseg.segmentation.training.several.train", take)
    command = ["train", str(tmp_path / "images"), str(tmp_path / "labels"), "-o", str(tmp_path / "m.keras")]
    result = CliRunner().invoke(app, [*command, *options])
    if "params" not in seen:
        raise result.exception
    return seen


def test_without_options_it_is_the_papers_training(monkeypatch, make_slices, tmp_path):
    s = params_of(monkeypatch, make_slices, tmp_path)
    assert (s.architecture, s.depth, s.base_filters) == ("unet", 6, 32)
    assert (s.epochs, s.batch, s.patch, s.learning_rate, s.schedule) == (100, 2, 512, 5e-4, "constant")
    assert (s.loss, s.gamma, s.class_weights) == ("focal", 1.0, None)
    assert (s.sampling, s.ema, s.patience, s.patches, s.predict_patch) == (0, 0, 0, 0, 0)
    assert s.augmentation == Augmentation()
    assert not check(s)


def test_every_option_arrives(monkeypatch, make_slices, tmp_path):
    options = "--architecture compact --loss 0.5*focal+dice --schedule cosine --patience 7 --ema 0.99 --sampling 0.4"
    more = "--patches 200 --predict-patch 256 --augment rotation_deg=180,noise=0.1,flip=0"
    s = params_of(monkeypatch, make_slices, tmp_path, *options.split(), *more.split())
    assert (s.architecture, s.loss, s.schedule, s.patience) == ("compact", "0.5*focal+dice", "cosine", 7)
    assert s.base_filters == 16  # of a compact network, unless told otherwise
    assert (s.ema, s.sampling, s.patches, s.predict_patch) == (0.99, 0.4, 200, 256)
    assert s.augmentation == Augmentation(rotation_deg=180.0, noise=0.1, flip=False)
    assert not check(s)


def test_a_preset_holds_where_nothing_else_is_given(monkeypatch, make_slices, tmp_path):
    s = params_of(monkeypatch, make_slices, tmp_path, "--preset", "small", "--epochs", "100", "--augment", "noise=0.2")
    assert (s.architecture, s.base_filters, s.sampling, s.schedule, s.ema) == ("compact", 16, 0.4, "cosine", 0.99)
    assert s.epochs == 100  # as given, though that is what the default would be
    assert (s.augmentation.noise, s.augmentation.straight) == (0.2, 0.5)
    assert s.patch < 320  # the slices are smaller
    assert not check(s)


def test_another_network_in_a_preset_has_its_own_width(monkeypatch, make_slices, tmp_path):
    s = params_of(monkeypatch, make_slices, tmp_path, "--preset", "small", "--architecture", "attention-unet")
    assert (s.architecture, s.base_filters, s.ema) == ("attention-unet", 32, 0.99)


def test_an_unknown_preset_is_refused(monkeypatch, make_slices, tmp_path):
    with pytest.raises(InputError, match="no preset 'large'"):
        params_of(monkeypatch, make_slices, tmp_path, "--preset", "large")


@pytest.mark.parametrize("text", ["hue=0.1", "noise", "noise=loud", "noise=0.1,", "=3"])
def test_random_views_that_do_not_exist(monkeypatch, make_slices, tmp_path, text):
    with pytest.raises(InputError, match=r"--augment .* as NAME=NUMBER|there are rotation_deg, flip, "):
        params_of(monkeypatch, make_slices, tmp_path, "--augment", text)


def test_neighbours_come_from_the_folder_labelled_or_not(monkeypatch, make_slices, tmp_path):
    planes, _ = make_slices(3)
    seen = handed_on(monkeypatch, make_slices, tmp_path, "--channels", "3")
    assert seen["params"].channels == 3
    for image, places in zip(seen["images"], ([0, 0, 1], [0, 1, 2]), strict=True):  # 2 has no labels
        np.testing.assert_array_equal(image, np.stack([planes[n] for n in places], axis=-1))
    with pytest.raises(InputError, match="must be odd"):
        params_of(monkeypatch, make_slices, tmp_path, "--channels", "2")


def test_a_pretrained_encoder_has_its_own_width(monkeypatch, make_slices, tmp_path):
    options = ("--architecture", "se-resnet34-unet", "--encoder-weights", "imagenet")
    s = params_of(monkeypatch, make_slices, tmp_path, *options)
    assert (s.base_filters, s.encoder_weights) == (64, "imagenet")
    assert not check(s)


@pytest.mark.parametrize(("text", "parts"), [("all", None), ("2", [2]), ("0, 2", [0, 2])])
def test_folds_to_validate_on(text, parts):
    assert _folds(text) == parts


@pytest.mark.parametrize("text", ["-1", "one", "0,,1", ""])
def test_folds_that_are_none(text):
    with pytest.raises(InputError, match="give the number of a part"):
        _folds(text)
