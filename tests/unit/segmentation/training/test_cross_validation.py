"""Cross-validation: every slice is scored by a network that did not see it, and nothing is done twice."""

import csv
import json

import numpy as np
import pytest

from tomoseg.cli.annotate import _model_lines
from tomoseg.errors import InputError, Interrupted
from tomoseg.runtime import Runtime
from tomoseg.segmentation.evaluation.scores import confusion_matrix, statistic
from tomoseg.segmentation.inference.slice_prediction import SlicePredictor
from tomoseg.segmentation.networks.known_models import KnownModel
from tomoseg.segmentation.networks.model_file import load_model
from tomoseg.segmentation.training.cross_validation import cross_validate, fold_path
from tomoseg.segmentation.training.parameters import TrainParameters

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
NAMES = [f"s_{i:03d}" for i in range(12)]
SETTINGS = TrainParameters(
    epochs=2, batch=4, patch=32, patches=8, depth=2, base_filters=2, folds=3, fold=1, learning_rate=1e-2
)


@pytest.fixture(scope="module")
def slices(make_slices):
    return make_slices(12, size=32)


@pytest.fixture(scope="module")
def crossed(slices, tmp_path_factory):
    """Cross-validate once, stopped in the second epoch of the second fold and resumed."""
    output = tmp_path_factory.mktemp("crossed") / "net.keras"
    rows, done = [], {}

    def checkpoint():
        return {path.name: path.stat().st_mtime_ns for path in output.parent.glob("net-fold0.keras.checkpoint/*")}

    def on_epoch(row):
        rows.append((row["fold"], row["epoch"]))
        if len(rows) == 3:
            done.update(checkpoint())
            monkeypatch.setattr("tomoseg.runtime._signals", [15])

    options = {"names": NAMES, "params": SETTINGS, "pixel_size_nm": 0.5, "on_epoch": on_epoch}
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Interrupted, match="1 of 2 epochs are done"):
        cross_validate(*slices, output, runtime=Runtime(device="cpu"), **options)
    assert not list(output.parent.glob("*.crossval.*"))
    found = cross_validate(*slices, output, runtime=Runtime(device="cpu"), resume=True, final=True, **options)
    assert checkpoint() == done
    assert len(done) >= 2  # the state and the weights
    return output, found, rows


def test_no_epoch_is_trained_twice(crossed):
    _, found, rows = crossed
    assert rows[:6] == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    median = sorted(result.best_epoch for result in found.results)[1]
    assert rows[6:] == [(-1, epoch) for epoch in range(1, median + 1)]


def test_each_slice_is_scored_by_the_network_that_did_not_see_it(crossed, slices):
    output, found, _ = crossed
    assert found.evaluation.names == NAMES
    for fold in range(3):
        model, card = load_model(fold_path(output, fold))
        assert card.training["fold"] == fold
        mine = [name for name, of in zip(NAMES, found.fold_of, strict=True) if of == fold]
        assert mine == card.training["validation_names"]
        assert not set(mine) & set(card.training["training_names"])
        predictor = SlicePredictor.of(model, card, card.scaling.trained)
        for i in (NAMES.index(name) for name in mine):
            labels, _ = predictor.classify(slices[0][i][None])
            np.testing.assert_array_equal(
                found.evaluation.matrices[i], confusion_matrix(slices[1][i], labels[0], len(card.class_names))
            )


def test_the_scores_are_in_the_files_and_in_the_table(crossed):
    output, found, _ = crossed
    content = json.loads((output.parent / "net.crossval.json").read_text())
    each = np.array([image["dice"] for image in content["per_image"]], float)
    expected = statistic(each)
    np.testing.assert_allclose(content["dice"]["mean"], expected.mean)
    assert content["fold_of_image"] == [0] * 4 + [1] * 4 + [2] * 4
    assert [fold["model"] for fold in content["folds"]] == [f"net-fold{fold}.keras" for fold in range(3)]
    assert content["pixel_size_nm"] == 0.5
    assert "best epoch it helped to choose" in content["notes"][0]
    with (output.parent / "net.crossval.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0][:2] == ["image", "class"]
    assert {row[0] for row in rows[1:]} == {*NAMES, "mean", "ci95", "n", "pooled"}
    lines = found.table().splitlines()
    assert lines[0].split() == [
        "class",
        "dice",
        "precision",
        "recall",
        "iou",
        "slices",
        *["fold", "0", "fold", "1", "fold", "2"],
    ]
    for c, line in enumerate(lines[1:]):
        words = line.split()
        assert words[:4] == [found.evaluation.classes[c], f"{expected.mean[c]:.4f}", "±", f"{expected.ci95[c]:.4f}"]
        pooled = found.evaluation.matrices[:4].sum(axis=0)
        dice = 2 * pooled[c, c] / (pooled[c].sum() + pooled[:, c].sum())
        assert words[-3] == f"{dice:.4f}"


def test_the_final_network_is_trained_on_all(crossed):
    output, found, _ = crossed
    assert found.final.model == output
    card = load_model(output)[1]
    assert card.training["training_names"] == NAMES
    scores, dice = card.scores["cross_validated"], found.evaluation.summary()["dice"]
    assert (scores["folds"], scores["slices"]) == ([0, 1, 2], 12)
    np.testing.assert_array_equal(list(scores["dice"].values()), dice.mean)
    np.testing.assert_array_equal(list(scores["dice_ci95"].values()), dice.ci95)
    pooled = found.evaluation.pooled()["dice"]
    np.testing.assert_array_equal(list(scores["pooled_dice"].values()), pooled)
    assert any(
        f"{pooled[-1]:.3f} (cross-validated" in line
        for line in _model_lines(KnownModel("net", output, False, False, card))
    )


def test_some_folds_only(crossed, slices, tmp_path):
    """The networks of the folds that are asked for are those of the whole cross-validation."""
    all_of_them = crossed[1]
    found = cross_validate(
        *slices, tmp_path / "net.keras", names=NAMES, params=SETTINGS, only_folds=[2], runtime=Runtime()
    )
    assert found.folds == [2]
    assert found.fold_of == [2] * 4
    assert found.evaluation.names == NAMES[8:]
    np.testing.assert_array_equal(found.evaluation.matrices, all_of_them.evaluation.matrices[8:])
    assert found.table().splitlines()[0].endswith("fold 2")


def test_what_is_there_is_not_replaced_by_accident(crossed, slices, tmp_path):
    output, _, _ = crossed
    before = {path: path.read_bytes() for path in output.parent.glob("net*") if path.is_file()}
    with pytest.raises(InputError, match=r"net-fold0\.keras.* exists already.*--resume"):
        cross_validate(*slices, output, names=NAMES, params=SETTINGS, runtime=Runtime())
    fold_path(tmp_path / "m.keras", 2).write_bytes(b"")  # the last one alone
    with pytest.raises(InputError, match=r"m-fold2\.keras exists already"):
        cross_validate(*slices, tmp_path / "m.keras", names=NAMES, params=SETTINGS, runtime=Runtime())
    assert [path.name for path in tmp_path.iterdir()] == ["m-fold2.keras"]
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"folds": 1}, {}, "cross-validation needs 2 or more"),
        ({"folds": 12, "guard": 12}, {}, r"of 12 slices, fold 0, 1, .* of 12 leaves none"),
        ({}, {"only_folds": [1, 3]}, "there is no fold 3: with 3 folds they are 0 to 2"),
        ({"schedule": "plateau"}, {"final": True}, "final network has no validation"),
    ],
)
def test_what_cannot_work_is_refused(slices, tmp_path, changes, options, message):
    settings = SETTINGS.changed(**changes)
    with pytest.raises(InputError, match=message):
        cross_validate(*slices, tmp_path / "m.keras", names=NAMES, params=settings, **options, runtime=Runtime())
    assert not list(tmp_path.iterdir())
