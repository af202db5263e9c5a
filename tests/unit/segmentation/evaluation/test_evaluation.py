"""Scores and their statistics, against hand-made cases and the paper's own confusion matrices."""

import csv
import json

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.evaluation.scores import Evaluation, confusion_matrix, evaluate_labels, scores, statistic

COLORS = ["#000000", "#0072b2", "#e69f00"]
CLASSES = ["background", "support", "particles"]


def paper_matrices(real_data):
    files = sorted((real_data / "genc-confusion-matrices").glob("cm_*.csv"))
    return np.stack([np.loadtxt(f, delimiter=",", skiprows=1, usecols=(1, 2, 3)) for f in files]).astype(np.int64)


def test_the_papers_table_1_is_reproduced(real_data):
    matrices = paper_matrices(real_data)
    assert matrices.shape == (15, 3, 3)
    assert (matrices.sum(axis=(1, 2)) <= 512 * 512).all()
    table = Evaluation(CLASSES, COLORS, [f"{i}" for i in range(15)], matrices).summary()
    np.testing.assert_array_equal(table["dice"].mean.round(4), [0.9928, 0.9637, 0.8446])
    np.testing.assert_array_equal(table["precision"].mean.round(4), [0.9945, 0.9558, 0.9204])
    np.testing.assert_array_equal(table["recall"].mean.round(4), [0.9911, 0.9719, 0.7849])
    for metric in ("dice", "precision", "recall", "iou"):
        np.testing.assert_array_equal(table[metric].n, [15, 15, 14])  # one image has no Pt
    # The article's 0.96 +- 0.003 for alumina and 0.84 +- 0.03 for Pt are these intervals, rounded.
    per_image = np.array([2 * np.diag(m) / (m.sum(0) + m.sum(1)) for m in matrices[1:].astype(float)])
    expected = 1.96 * np.std(per_image[:, 2], ddof=1) / np.sqrt(14)
    assert table["dice"].ci95[2] == pytest.approx(expected, rel=1e-12)
    assert table["dice"].ci95[2] == pytest.approx(0.03, abs=0.005)


def test_rows_are_truth():
    truth = np.array([[0, 0, 1], [2, IGNORE, 1]])
    prediction = np.array([[0, 1, 1], [1, 0, 1]])
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, 3), [[1, 1, 0], [0, 2, 0], [0, 1, 0]])
    with pytest.raises(InputError, match="same shape"):
        confusion_matrix(truth, prediction.T, 3)
    with pytest.raises(InputError, match="labels up to 2 for 2 classes"):
        confusion_matrix(truth, prediction, 2)


def test_a_known_overlap():
    # Two squares of 100 px, 60 of them shared.
    truth, prediction = np.zeros((20, 20), int), np.zeros((20, 20), int)
    truth[:10, :10], prediction[:10, 4:14] = 1, 1
    values = scores(confusion_matrix(truth, prediction, 2))
    assert values["dice"][1] == pytest.approx(0.6)
    assert values["precision"][1] == pytest.approx(0.6)
    assert values["recall"][1] == pytest.approx(0.6)
    assert values["iou"][1] == pytest.approx(60 / 140)
    assert values["dice"][0] == pytest.approx(2 * 260 / 600)


def test_absent_missed_and_invented_classes():
    absent = scores([[10, 0], [0, 0]])
    assert all(np.isnan(absent[m][1]) for m in absent)
    missed = scores([[10, 0], [5, 0]])
    assert [missed[m][1] for m in ("dice", "precision", "recall", "iou")] == [0, 0, 0, 0]
    invented = scores([[10, 5], [0, 0]])
    assert [invented[m][1] for m in ("dice", "precision", "iou")] == [0, 0, 0]
    assert np.isnan(invented["recall"][1])


def test_mean_and_interval_leave_out_what_is_not_there():
    stat = statistic(np.array([[0.5, np.nan, np.nan], [0.7, 0.8, np.nan], [0.9, np.nan, np.nan]]))
    np.testing.assert_allclose(stat.mean, [0.7, 0.8, np.nan])
    np.testing.assert_array_equal(stat.n, [3, 1, 0])
    assert stat.ci95[0] == pytest.approx(1.96 * 0.2 / np.sqrt(3))
    assert np.isnan(stat.ci95[1:]).all()  # one value has no spread


@pytest.fixture
def evaluation():
    rng = np.random.default_rng(0)
    truths = [np.zeros((40, 50), np.uint8) for _ in range(3)]
    for truth in truths:
        truth[10:30, 5:35] = 1
    truths[0][15:20, 10:16] = 2
    truths[1][12:18, 20:25] = 2
    predictions = [np.roll(t, shift, axis=1) for t, shift in zip(truths, (0, 1, 2), strict=True)]
    predictions[2][rng.random((40, 50)) < 0.01] = 1
    return evaluate_labels(truths, predictions, ["a", "b", "c"], CLASSES, COLORS, pixel_size_nm=0.5)


def test_the_json_holds_what_scripts_rely_on(evaluation):
    data = json.loads(json.dumps(evaluation.to_dict()))
    assert data["classes"] == CLASSES
    for metric in ("dice", "precision", "recall", "iou"):
        assert set(data[metric]) == {"mean", "ci95", "n"}
        assert all(len(data[metric][key]) == 3 for key in data[metric])
        assert len(data["pooled"][metric]) == 3
    assert data["dice"]["n"] == [3, 3, 2]  # no particle in truth or prediction of the third image
    assert [row["name"] for row in data["per_image"]] == ["a", "b", "c"]
    assert data["per_image"][0]["dice"] == [1, 1, 1]
    assert data["per_image"][2]["dice"][2] is None
    assert np.sum(data["confusion"]) == 3 * 40 * 50
    nm, px = data["hausdorff_nm"], data["hausdorff_px"]
    assert nm["percentiles"] == list(range(50, 101, 5))
    # The second image is shifted by one pixel of 0.5 nm.
    assert nm["per_image"][1][2][-1] == pytest.approx(0.5)
    assert px["per_image"][1][2][-1] == pytest.approx(1)
    assert nm["per_image"][2][2] == [None] * 11
    assert nm["mean"][2][-1] == pytest.approx(0.25)  # images a and b


def test_images_where_a_class_was_missed_altogether_are_counted():
    truth = np.zeros((20, 20), np.uint8)
    truth[5:9, 5:9] = 1
    missed, right = np.zeros_like(truth), truth
    data = evaluate_labels([truth, truth, missed], [missed, right, missed], "abc", ["x", "y"], COLORS[:2]).to_dict()
    # Background: in all three, with a surface on both sides in the second only.
    assert data["hausdorff_px"]["n"] == [1, 1]
    assert data["hausdorff_px"]["undefined"] == [2, 1]
    assert data["hausdorff_px"]["ci95"][0] == [None] * 11  # one image has no spread


def test_without_a_pixel_size_there_are_no_nanometres():
    labels = np.zeros((8, 8), np.uint8)
    labels[2:5, 2:5] = 1
    data = evaluate_labels([labels], [labels], ["a"], ["x", "y"], COLORS[:2]).to_dict()
    assert data["hausdorff_nm"] is None
    assert data["hausdorff_px"]["mean"][1] == [0.0] * 11


def test_the_table_as_csv(evaluation, tmp_path):
    evaluation.write_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 + 4 * 3
    assert list(rows[0].values()) == ["a", "background", *["1.000000"] * 4]
    assert [row["dice"] for row in rows if row["image"] == "n"] == ["3", "3", "2"]
    assert next(row for row in rows if row["image"] == "c" and row["class"] == "particles")["dice"] == ""


def test_nothing_to_evaluate():
    with pytest.raises(InputError, match="no image"):
        evaluate_labels([], [], [], CLASSES, COLORS)
