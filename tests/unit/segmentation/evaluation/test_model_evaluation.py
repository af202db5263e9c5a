"""Evaluation of a network on labelled slices in folders, and the pictures of it."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tomoseg.cli.app import app
from tomoseg.errors import InputError
from tomoseg.io.slices import find_pairs
from tomoseg.runtime import Runtime
from tomoseg.segmentation.evaluation.detection import compare_objects
from tomoseg.segmentation.evaluation.model_evaluation import evaluate_model, validation_pairs
from tomoseg.segmentation.evaluation.pictures import error_map, label_picture, plot_errors, ranked_cases
from tomoseg.segmentation.evaluation.plots import plot_evaluation
from tomoseg.segmentation.evaluation.scores import Evaluation, evaluate_labels
from tomoseg.segmentation.networks.card import add_card, read_card
from tomoseg.segmentation.networks.file_validation import CARD_ENTRY

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
    assert evaluation.calibration.n_pixels == sum(image.truth.size for image in seen)
    right = np.trace(evaluation.matrices.sum(axis=0))
    assert evaluation.calibration.confidence.observed.sum() == right  # its predictions are those of the labels
    objects = [compare_objects(image.truth, image.prediction, 2) for image in seen]
    assert evaluation.detection.class_name == trained.result.card.class_names[2]
    assert evaluation.detection.scores()["true"] == sum(int(found.true["counted"].sum()) for found in objects)
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
    with pytest.raises(InputError, match="no class 'Pt'"):
        evaluate_model(trained.path, pairs[:1], objects="Pt")


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
    plot_evaluation(evaluation, tmp_path)
    names = {f"{kind}.png" for kind in ("scores", "hausdorff", "calibration", "objects")}
    assert {path.name for path in tmp_path.iterdir()} == names | {path.name for path in drawn}
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 20  # something is drawn


def test_best_median_and_worst_are_ranked_by_the_foreground():
    # Recall of class 1 is 0.9, 0.5, 0.8, 0.2, 0.7; the last image has none of it.
    matrices = np.array([[[100, 0], [10 - h, h]] for h in (9, 5, 8, 2, 7)] + [[[100, 0], [0, 0]]])
    evaluation = Evaluation(["a", "b"], ["#000000", "#0072b2"], list("uvwxyz"), matrices)
    assert ranked_cases(evaluation) == {"best": 0, "median": 4, "worst": 3}
    pair = Evaluation(["a", "b"], ["#000000", "#0072b2"], list("uv"), matrices[:2][::-1])
    assert ranked_cases(pair) == {"best": 1, "worst": 0}


# ------------------------------------------------------------------------------------------------------ command


@pytest.fixture
def other(trained, tmp_path):
    """Return a function that writes the network once more, with changes to its card."""

    def write(name, **changes):
        path = tmp_path / f"{name}.keras"
        with zipfile.ZipFile(trained.path) as old, zipfile.ZipFile(path, "w") as new:
            for entry in old.namelist():
                if entry != CARD_ENTRY:
                    new.writestr(entry, old.read(entry))
        add_card(path, replace(trained.result.card, **changes))
        return path

    return write


def evaluate(folders, model, *options):
    """Run `tomoseg evaluate` and return what it printed, or raise its error."""
    places = [str(path) for path in (model, folders / "images", folders / "labels")]
    result = CliRunner().invoke(app, ["evaluate", *places, "--device", "cpu", "--progress", "none", *map(str, options)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_everything_the_command_writes(folders, trained, other, tmp_path):
    scaling = trained.result.card.scaling
    worse = other("worse", scaling=replace(scaling, trained=replace(scaling.trained, one=2 * scaling.trained.one)))
    out = {name: tmp_path / name for name in ("all.json", "all.csv", "objects.csv", "figures")}
    options = ["--held-out", "--against", worse, "--objects", "1", "--min-object", 20, "--object-iou", 0.3]
    options += ["--json", out["all.json"], "--csv", out["all.csv"], "--objects-csv", out["objects.csv"]]
    printed = evaluate(folders, trained.path, *options, "--plots", out["figures"])
    data = json.loads(out["all.json"].read_text())
    names = trained.result.card.training["validation_names"]
    assert data["images"] == data["comparison"]["images"] == names
    assert data["calibration"]["pixels"] == 64 * 64 * len(names)
    assert (data["detection"]["min_size_px"], data["detection"]["iou"]) == (20, 0.3)
    assert data["detection"]["class"] == trained.result.card.class_names[1]
    difference = data["comparison"]["differences"]["worse"]["dice"]["mean"]
    both = np.array([data["dice"]["mean"], data["against"]["worse"]["dice"]["mean"]])
    np.testing.assert_allclose(difference, both[1] - both[0])
    assert np.abs(difference).max() > 0
    drawn = {path.name for path in out["figures"].iterdir()}
    figures = {"scores", "hausdorff", "calibration", "objects", "cases", "comparison"}
    assert drawn == {f"{name}.png" for name in (*figures, *(f"errors_{name}" for name in names))}
    for part in ("calibration: expected error", "objects of class", "differences from tiny", "worse"):
        assert part in printed
    assert len(out["objects.csv"].read_text().splitlines()) > 1
    assert out["all.csv"].exists()


def test_networks_without_a_common_held_out_slice_are_refused(folders, trained, other):
    training = trained.result.card.training
    elsewhere = other("elsewhere", training={**training, "validation_names": training["training_names"][:3]})
    with pytest.raises(InputError, match="no image in common"):
        evaluate(folders, trained.path, "--held-out", "--against", elsewhere)
    unknown = other("unknown", training={})
    with pytest.raises(InputError, match=r"none of these slices .*unknown\.keras was validated"):
        evaluate(folders, trained.path, "--held-out", "--against", unknown)
    with pytest.raises(InputError, match="twice"):
        evaluate(folders, trained.path, "--against", trained.path)


def test_networks_are_compared_on_the_slices_held_out_for_both(folders, trained, other):
    training = trained.result.card.training
    mine = training["validation_names"]
    partly = other("partly", training={**training, "validation_names": [mine[1], mine[3], "s_012"]})
    printed = evaluate(folders, trained.path, "--held-out", "--against", partly)
    assert "Dice on the 2 images that all networks have in common" in printed
