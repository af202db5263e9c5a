"""Objects found one by one, against cases counted by hand."""

import csv
import itertools
import json

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.evaluation.detection import (
    Detection,
    ObjectRule,
    class_number,
    compare_objects,
    object_scores,
    size_edges,
    wilson,
)
from tomoseg.segmentation.evaluation.numbers import plain
from tomoseg.segmentation.evaluation.tables import sizes_table

P = 2  # class number of the objects


def image(*boxes, shape=(60, 60)):
    """Return labels with boxes (slices) of class 2 in them."""
    labels = np.zeros(shape, np.uint8)
    for box in boxes:
        labels[box] = P
    return labels


def counts(found):
    return object_scores(found.true, found.predicted)


def test_found_missed_and_invented():
    truth = image(np.s_[0:4, 0:4], np.s_[10:14, 10:14], np.s_[20:24, 20:24], np.s_[30:34, 30:34])
    # The first is right; the second is shifted by 1 px: IoU = 12 / 20 = 0.6; the third by 2 px: 8 / 24 = 1/3; the
    # fourth is not there, and one is invented.
    prediction = image(np.s_[0:4, 0:4], np.s_[10:14, 11:15], np.s_[20:24, 22:26], np.s_[50:54, 50:54])
    found = compare_objects(truth, prediction, P)
    np.testing.assert_allclose(found.true["iou"], [1, 0.6, np.nan, np.nan])
    got = counts(found)
    expected = {
        "true": 4,
        "found": 2,
        "missed": 2,
        "untouched": 1,
        "predicted": 4,
        "invented": 2,
        "split": 0,
        "merged": 0,
    }
    assert {key: got[key] for key in expected} == expected
    assert got["precision"] == got["recall"] == got["f1"] == 0.5
    assert got["touched_recall"] == 0.75
    loose = counts(compare_objects(truth, prediction, P, ObjectRule(iou=1 / 3)))
    assert loose["found"] == 3
    assert counts(compare_objects(truth, prediction, P, ObjectRule(iou=0.61)))["found"] == 1
    assert counts(compare_objects(truth, prediction, P, ObjectRule(iou=0.6)))["found"] == 2


def test_precision_recall_and_f1_differ():
    truth = image(np.s_[0:4, 0:4], np.s_[10:14, 10:14], np.s_[20:24, 20:24])
    prediction = image(np.s_[0:4, 0:4])
    got = counts(compare_objects(truth, prediction, P))
    assert (got["precision"], got["recall"], got["f1"]) == (1, pytest.approx(1 / 3), pytest.approx(0.5))
    other = counts(compare_objects(prediction, truth, P))
    assert (other["precision"], other["recall"]) == (pytest.approx(1 / 3), 1)


def test_merged_and_split():
    truth = image(np.s_[0:6, 0:6], np.s_[0:6, 8:14], np.s_[20:26, 0:14])
    prediction = image(np.s_[0:6, 0:14], np.s_[20:26, 0:6], np.s_[20:26, 8:14])
    got = counts(compare_objects(truth, prediction, P))
    assert got["merged"] == 1
    assert got["split"] == 1
    # The merged one has IoU 36 / 84 with each of the two, so does each half with the split one: nothing is found.
    assert got["found"] == 0
    assert got["untouched"] == 0
    # At an IoU of 0.4 they are partners, but each only once.
    assert counts(compare_objects(truth, prediction, P, ObjectRule(iou=0.4)))["found"] == 2


@pytest.mark.parametrize("seed", range(4))
def test_matching_is_the_best_of_all(seed):
    """Compare with all one-to-one matchings, at a threshold so low that objects compete."""
    rng = np.random.default_rng(seed)
    cut = [np.sort(rng.choice(np.arange(1, 120), 9, replace=False)) for _ in range(2)]
    strips = []
    for edges in cut:
        labels = np.full((3, 120), P, np.uint8)
        labels[:, edges] = 0
        strips.append(labels)
    rule = ObjectRule(min_size=1, iou=0.05)
    found = compare_objects(*strips, P, rule)

    def spans(edges):
        bounds = [-1, *edges, 120]
        return [set(range(a + 1, b)) for a, b in itertools.pairwise(bounds) if b - a > 1]

    a, b = spans(cut[0]), spans(cut[1])
    iou = np.array([[len(x & y) / len(x | y) for y in b] for x in a])

    def best(i, used):
        if i == len(a):
            return 0, 0.0
        options = [best(i + 1, used)]
        for j in range(len(b)):
            if j not in used and iou[i, j] >= 0.05:
                n, total = best(i + 1, used | {j})
                options.append((n + 1, total + iou[i, j]))
        return max(options)

    n, total = best(0, frozenset())
    assert found.true["matched"].sum() == found.predicted["matched"].sum() == n
    assert np.nansum(found.true["iou"]) == pytest.approx(total)


def test_small_objects_are_penalised_neither_way():
    small_true = image(np.s_[0:2, 0:2])
    nothing = image()
    none = {"true": 0, "predicted": 0, "missed": 0, "invented": 0}

    def part(found):
        return {key: counts(found)[key] for key in none}

    assert part(compare_objects(small_true, nothing, P)) == none  # not missed
    assert part(compare_objects(nothing, small_true, P)) == none  # not invented
    assert part(compare_objects(small_true, image(np.s_[0:2, 0:3]), P)) == none  # its partner, 6 px, is not invented
    assert part(compare_objects(small_true, image(np.s_[0:3, 0:6]), P)) == none  # nor is what overlaps only that
    assert counts(compare_objects(small_true, nothing, P, ObjectRule(min_size=4)))["missed"] == 1
    # A true object of 6 px is found by 4 of them: IoU 4 / 6.
    found = counts(compare_objects(image(np.s_[0:2, 0:3]), small_true, P))
    assert (found["true"], found["found"], found["predicted"], found["invented"]) == (1, 1, 1, 0)
    # One that overlaps a small and a large true one, but is no partner of either, is invented.
    truth = image(np.s_[0:2, 0:2], np.s_[0:2, 10:20])
    wide = counts(compare_objects(truth, image(np.s_[0:2, 0:11]), P))
    assert (wide["missed"], wide["invented"], wide["ignored_true"]) == (1, 1, 1)


def test_unannotated_pixels_belong_to_no_object():
    truth = image(np.s_[0:4, 0:4])
    truth[30:, :] = IGNORE
    prediction = image(np.s_[0:4, 0:4], np.s_[40:50, 40:50], np.s_[28:36, 5:9])
    found = compare_objects(truth, prediction, P)
    assert found.predicted["size_px"].tolist() == [16, 8]
    got = counts(found)
    assert (got["found"], got["invented"]) == (1, 1)


def test_pixels_that_share_an_edge_are_one_object_and_those_that_share_a_corner_two():
    assert len(compare_objects(image(np.s_[0:3, 0:3], np.s_[3:6, 3:6]), image(), P).true) == 2
    assert len(compare_objects(image(np.s_[0:3, 0:3], np.s_[3:6, 2:6]), image(), P).true) == 1


def test_in_a_volume():
    truth, prediction = np.zeros((2, 20, 20, 20), np.uint8)
    truth[2:8, 2:8, 2:8] = P
    truth[12:16, 12:16, 12:16] = P
    prediction[3:9, 2:8, 2:8] = P  # 180 of 252 voxels
    found = compare_objects(truth, prediction, P)
    assert found.true["iou"][0] == pytest.approx(180 / 252)
    np.testing.assert_allclose(found.true["center"], [[4.5] * 3, [13.5] * 3])
    detection = Detection("particles", ObjectRule(), ["v"], [found], n_dimensions=3, pixel_size_nm=2.0)
    assert detection.diameters(found.true)[0] == pytest.approx(2 * np.cbrt(6 * 216 / np.pi))
    assert detection.scores()["recall"] == 0.5


@pytest.fixture
def detection():
    """Two images: squares of 2 x 2 (not counted), 4 x 4 and 8 x 8 px; of the large ones all are found."""
    truth = image(np.s_[0:2, 0:2], np.s_[10:14, 10:14], np.s_[20:24, 20:24], np.s_[30:38, 30:38])
    prediction = image(np.s_[10:14, 10:14], np.s_[30:38, 30:38], np.s_[50:54, 0:4])
    pairs = [(truth, prediction), (image(np.s_[5:13, 5:13]), image(np.s_[5:13, 5:13]))]
    images = [compare_objects(t, p, P) for t, p in pairs]
    return Detection("particles", ObjectRule(), ["a", "b"], images, pixel_size_nm=0.5)


def test_found_by_size(detection):
    # Diameters of 16 and 64 px: 2.257 and 4.514 nm with 0.5 nm pixels.
    sizes = detection.by_size([0, 3, 6])
    assert sizes["true"].tolist() == [2, 2]
    assert sizes["found"].tolist() == [1, 2]
    assert sizes["recall"].tolist() == [0.5, 1]
    assert (sizes["low"] < sizes["recall"]).all()
    total = detection.by_size()
    assert total["true"].sum() == 4
    assert total["from"][0] == 0
    assert total["to"][-1] >= 4.514


def test_invented_by_size(detection, tmp_path):
    """Predicted: squares of 4 px (right), 8 px (right) and 4 px (invented) in the first image, 8 px in the second."""
    sizes = detection.by_size([0, 3, 6])
    assert sizes["predicted"].tolist() == [2, 2]
    assert sizes["invented"].tolist() == [1, 0]
    assert sizes["precision"].tolist() == [0.5, 1]
    assert sizes["missed"].tolist() == [1, 0]
    np.testing.assert_allclose([sizes["precision_low"], sizes["precision_high"]], wilson([1, 2], [2, 2]))
    total = detection.by_size()
    assert (total["predicted"].sum(), total["invented"].sum(), total["missed"].sum()) == (4, 1, 1)
    facts = detection.to_dict()["by_size"]
    assert facts["precision_ci95"] == plain(np.transpose(wilson(*_right_and_predicted(total))))
    assert np.shape(facts["recall_ci95"]) == (len(total["true"]), 2)
    detection.write_sizes_csv(tmp_path / "sizes.csv")
    with (tmp_path / "sizes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["from_nm"]) for row in rows] == total["from"].tolist()
    assert [row["class"] for row in rows] == ["particles"] * len(rows)
    assert [row["precision"] for row in rows] == ["" if np.isnan(p) else f"{p:.6g}" for p in total["precision"]]
    assert sum(int(row["invented"]) for row in rows) == 1
    assert {"recall_low", "recall_high", "precision_low", "precision_high"} <= set(rows[0])


def _right_and_predicted(sizes):
    return np.nan_to_num(sizes["precision"]) * sizes["predicted"], sizes["predicted"]


def test_an_invented_object_larger_than_all_true_ones_has_a_bin():
    truth, prediction = image(np.s_[0:4, 0:4]), image(np.s_[0:4, 0:4], np.s_[20:60, 20:60])
    found = Detection("particles", ObjectRule(), ["a"], [compare_objects(truth, prediction, P)])
    sizes = found.by_size()
    assert sizes["to"][-1] >= 2 * 40 / np.sqrt(np.pi)
    assert sizes["predicted"].sum() == 2
    assert (sizes["predicted"][-1], sizes["invented"][-1], sizes["true"][-1]) == (1, 1, 0)
    assert np.isnan(sizes["recall"][-1])
    lines = sizes_table(found).splitlines()
    assert lines[0].split()[-7:] == ["true", "found", "missed", "predicted", "invented", "recall", "precision"]
    assert lines[-1].split()[-7:] == ["0", "0", "0", "1", "1", "-", "0.0000"]
    assert len(lines) == 1 + len(sizes["true"])


def test_json_and_csv(detection, tmp_path):
    data = detection.to_dict()
    json.dumps(data, allow_nan=False)
    assert (data["class"], data["min_size_px"], data["iou"]) == ("particles", 5, 0.5)
    assert (data["true"], data["found"], data["missed"], data["invented"], data["ignored_true"]) == (4, 3, 1, 1, 1)
    assert data["by_size"]["unit"] == "nm"
    assert [row["recall"] for row in data["per_image"]] == [pytest.approx(2 / 3), 1]
    detection.write_csv(tmp_path / "objects.csv")
    with (tmp_path / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["outcome"] for row in rows if row["side"] == "true"] == ["ignored", "found", "missed", "found", "found"]
    assert [row["outcome"] for row in rows if row["side"] == "predicted"] == ["found", "found", "invented", "found"]
    assert (rows[1]["y_px"], rows[1]["x_px"], rows[1]["size_px"]) == ("11.50", "11.50", "16")
    assert float(rows[1]["diameter_nm"]) == pytest.approx(0.5 * 2 * np.sqrt(16 / np.pi), abs=1e-4)


def test_nothing_there_is_no_score(tmp_path):
    empty = Detection("particles", ObjectRule(), ["a"], [compare_objects(image(), image(), P)])
    data = empty.to_dict()
    assert data["recall"] is None
    assert data["precision"] is None
    assert data["recall_ci95"] == [None, None]
    empty.write_sizes_csv(tmp_path / "sizes.csv")
    assert (tmp_path / "sizes.csv").read_text().splitlines()[1].startswith("particles,0,1,0,0,0,,")
    empty.write_csv(tmp_path / "objects.csv")
    assert len((tmp_path / "objects.csv").read_text().splitlines()) == 1


def test_wilsons_interval():
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3: 81 of 263 and 0 of 20.
    np.testing.assert_allclose(wilson(81, 263), (0.2553, 0.3662), atol=5e-5)
    np.testing.assert_allclose(wilson(0, 20), (0.0, 0.1611), atol=5e-5)


def test_edges_are_round_and_hold_everything():
    edges = size_edges(np.array([0.6, 1.1, 2.3, 2.9, 3.0, 3.1, 3.3, 12.2]))
    assert edges[-1] >= 12.2
    np.testing.assert_allclose(edges / (edges[1] - edges[0]), np.round(edges / (edges[1] - edges[0])))
    assert 4 <= len(edges) <= 9


def test_classes_by_name_and_number():
    names = ["background", "support", "particles"]
    assert [class_number(names, text) for text in ("", "support", "0")] == [2, 1, 0]
    with pytest.raises(InputError, match="no class 'Pt'"):
        class_number(names, "Pt")
    with pytest.raises(InputError, match="no class '3'"):
        class_number(names, "3")


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        ObjectRule(min_size=0)
    with pytest.raises(InputError, match="above 0"):
        ObjectRule(iou=0)
    with pytest.raises(InputError, match="one shape"):
        compare_objects(np.zeros((3, 3)), np.zeros((3, 4)), 1)
