"""Evaluation of a network on labelled slices in folders, and the pictures of it."""

import numpy as np
import pytest
from PIL import Image

from tomoseg.errors import InputError
from tomoseg.io.slices import find_pairs
from tomoseg.runtime import Runtime
from tomoseg.segment.card import read_card
from tomoseg.segment.evaluation import evaluate_labels, evaluate_model, validation_pairs
from tomoseg.segment.plots import error_map, label_picture, plot_errors, plot_hausdorff, plot_scores

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, trained):
    root = tmp_path_factory.mktemp("slices")
    for kind, arrays in (("images", trained.images), ("labels", trained.labels)):
        (root / kind).mkdir()
        for name, array in zip(trained.names, arrays, strict=True):
            Image.fromarray(array).save(root / kind / f"{name}.png")
    return root


def test_scores_are_those_of_the_predicted_labels(folders, trained):
    pairs = find_pairs(folders / "images", folders / "labels")
    held_out = validation_pairs(pairs, read_card(trained.path))
    assert [pair.name for pair in held_out] == trained.result.card.training["validation_names"]
    seen = []
    runtime = Runtime(device="cpu")
    evaluation = evaluate_model(trained.path, held_out, runtime=runtime, on_image=seen.append)
    assert not runtime.warnings
    assert evaluation.pixel_size_nm == 0.3  # the one the network was trained with
    again = evaluate_labels(
        [image.truth for image in seen],
        [image.prediction for image in seen],
        evaluation.names,
        *([["a", "b", "c"]] * 2),
    )
    np.testing.assert_array_equal(evaluation.matrices, again.matrices)
    # Patches cover whole slices of 64 px, as in training: the pooled Dice is that of the best epoch.
    assert np.mean(evaluation.pooled()["dice"]) == pytest.approx(trained.result.card.scores["val_dice"], abs=1e-6)


def test_training_slices_are_pointed_out(folders, trained):
    runtime = Runtime(device="cpu")
    pairs = find_pairs(folders / "images", folders / "labels")
    evaluation = evaluate_model(trained.path, pairs[:8], runtime=runtime, pixel_size_nm=2.0)
    # 16 slices in 4 folds: the first 4 validate, the fifth is a neighbour of them, 3 of these 8 were trained on.
    assert runtime.warnings == evaluation.notes
    assert evaluation.notes[0].startswith("3 of 8 images")
    assert evaluation.pixel_size_nm == 2.0


def test_unusable_input(folders, trained, tmp_path):
    with pytest.raises(InputError, match="no labelled image"):
        evaluate_model(trained.path, [])
    pairs = find_pairs(folders / "images", folders / "labels")
    with pytest.raises(InputError, match="does not exist"):
        evaluate_model(tmp_path / "none.keras", pairs)
    with pytest.raises(InputError, match="multiple of 4"):
        evaluate_model(trained.path, pairs[:1], patch=30)


def test_error_maps_show_what_was_missed_in_its_colour():
    colors = ["#000000", "#0072b2", "#e69f00"]
    truth = np.array([[0, 1, 2, 255]], np.uint8)
    prediction = np.array([[0, 2, 0, 1]], np.uint8)
    picture = error_map(truth, prediction, colors)
    assert picture[0].tolist() == [[255, 255, 255], [0, 0x72, 0xB2], [0xE6, 0x9F, 0], [225, 225, 225]]
    labels = label_picture(truth, colors)
    assert labels[0].tolist() == [[0, 0, 0], [0, 0x72, 0xB2], [0xE6, 0x9F, 0], [128, 128, 128]]


def test_pictures_are_written(folders, trained, tmp_path):
    pairs = find_pairs(folders / "images", folders / "labels")
    drawn = []

    def draw(image):
        path = tmp_path / f"{image.name}.png"
        plot_errors(image, trained.result.card.class_names, trained.result.card.class_colors, path)
        drawn.append(path)

    evaluation = evaluate_model(trained.path, pairs[:2], runtime=Runtime(device="cpu"), on_image=draw)
    plot_scores(evaluation, tmp_path / "scores.png")
    plot_hausdorff(evaluation, tmp_path / "hausdorff.png")
    for path in (*drawn, tmp_path / "scores.png", tmp_path / "hausdorff.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 20  # something is drawn
