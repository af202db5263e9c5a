"""Paired comparison of networks, by hand and by simulation."""

import json

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segmentation.evaluation.comparison import bootstrap_interval, compare, difference, slice_groups
from tomoseg.segmentation.evaluation.scores import Evaluation

CLASSES = ["a", "b"]
COLORS = ["#000000", "#0072b2"]


def evaluation(hits, names, total=100, classes=CLASSES):
    """Return an evaluation of images with `total` pixels of class b each, of which `hits` are found."""
    matrices = np.array([[[1000, 0], [total - h, h]] for h in hits])
    return Evaluation(classes, COLORS, list(names), matrices)


def test_differences_of_four_images_by_hand():
    names = ["s_10", "s_20", "s_30", "s_40"]
    result = compare({"A": evaluation([80, 70, 90, 60], names), "B": evaluation([82, 75, 91, 64], names)})
    recall = result.differences["B"]["recall"]
    # Differences 0.02, 0.05, 0.01, 0.04: mean 0.03, s^2 = (0.0001 + 0.0004 + 0.0004 + 0.0001) / 3.
    assert recall.mean[1] == pytest.approx(0.03)
    assert recall.ci95[1] == pytest.approx(1.96 * np.sqrt(0.001 / 3 / 4))
    assert recall.n.tolist() == [4, 4]
    assert 0.01 < recall.low[1] < 0.03 < recall.high[1] < 0.05
    # The interval of the mean by images is 0.03 +- 0.018, so both leave out 0; of class a nothing differs.
    assert recall.is_sure().tolist() == [False, True]
    assert result.means["A"]["recall"][1] == pytest.approx(0.75)
    assert result.means["B"]["recall"][1] == pytest.approx(0.78)
    assert result.differences["B"]["recall"].mean[0] == 0
    assert result.n_groups == 4
    json.dumps(result.to_dict(), allow_nan=False)


def test_only_common_images_count_and_order_does_not():
    a = evaluation([80, 70, 90], ["x_10", "x_20", "x_30"])
    b = evaluation([50, 71, 82], ["x_50", "x_20", "x_10"])
    result = compare({"A": a, "B": b})
    assert result.names == ["x_10", "x_20"]
    np.testing.assert_allclose(result.differences["B"]["recall"].mean[1], (0.02 + 0.01) / 2)


def test_three_networks_in_one_table():
    names = ["x_10", "x_20"]
    result = compare({n: evaluation(h, names) for n, h in (("A", [50, 60]), ("B", [60, 70]), ("C", [40, 50]))})
    assert list(result.differences) == ["B", "C"]
    assert result.differences["C"]["recall"].mean[1] == pytest.approx(-0.1)
    assert list(result.to_dict()["means"]) == ["A", "B", "C"]


def test_classes_of_other_names_are_compared_by_number():
    names = ["x_1"]
    result = compare({"A": evaluation([50], names), "B": evaluation([60], names, classes=["vacuum", "Pt"])})
    assert result.classes == ["a", "b"]
    assert result.differences["B"]["recall"].mean[1] == pytest.approx(0.1)


def test_what_cannot_be_compared_is_refused():
    one = evaluation([50], ["x"])
    with pytest.raises(InputError, match="two networks"):
        compare({"A": one})
    with pytest.raises(InputError, match="no image in common"):
        compare({"A": one, "B": evaluation([50], ["y"])})
    three = Evaluation(["a", "b", "c"], COLORS, ["x"], np.ones((1, 3, 3), int))
    with pytest.raises(InputError, match=r"B has 3 classes .* A has 2 .*same classes"):
        compare({"A": one, "B": three})
    with pytest.raises(InputError, match="labels of x are not the same"):
        compare({"A": one, "B": evaluation([50], ["x"], total=90)})


def test_a_missing_value_leaves_the_image_out_for_that_class():
    nan = np.nan
    scores = np.array([[0.5, nan], [0.6, 0.5], [0.9, 0.7]])
    baseline = np.array([[0.4, 0.3], [0.6, nan], [0.7, 0.4]])
    result = difference(scores, baseline, np.arange(3))
    np.testing.assert_allclose(result.mean, [0.1, 0.3])
    assert result.n.tolist() == [3, 1]
    assert np.isnan([result.ci95[1], result.low[1], result.high[1]]).all()


def test_neighbouring_slices_are_one_group():
    names = ["al_10_00", "al_10_01", "al_11_00", "al_12_00", "al_13_01", "al_15_00", "al_16_00"]
    assert slice_groups(names).tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert slice_groups(["a_1", "b_2", "a_2"]).tolist() == [0, 1, 0]
    assert slice_groups(["one", "two", "three"]).tolist() == [0, 2, 1]
    assert slice_groups(names, most=10).tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_the_bootstrap_of_two_groups_is_that_of_its_four_draws():
    # Means 0.5 (one draw in four), 0 and 1 (one in four each), so the percentiles are the ends.
    assert bootstrap_interval(np.array([0.0, 1.0]), np.array([0, 1])) == (0, 1)
    # With 3 values in one group and 1 in the other the middle draw is 0.75; ends the same.
    assert bootstrap_interval(np.array([1.0, 1.0, 1.0, 0.0]), np.array([4, 4, 4, 9])) == (0, 1)


def test_the_same_seed_gives_the_same_interval():
    values, groups = np.random.default_rng(0).normal(size=30), np.arange(30) // 2
    assert bootstrap_interval(values, groups) == bootstrap_interval(values, groups)
    assert bootstrap_interval(values, groups) != bootstrap_interval(values, groups, seed=1)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Draw 30 groups of 4 alike images: resampled by group the interval is right, by image it is far too narrow."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    by_group = by_image = 0
    for _ in range(300):
        values = np.repeat(rng.normal(0, 1, 30), 4) + rng.normal(0, 0.1, 120)
        low, high = bootstrap_interval(values, groups, 1000)
        by_group += low < 0 < high
        low, high = bootstrap_interval(values, np.arange(120), 1000)
        by_image += low < 0 < high
    # 95 % less what percentiles of 30 groups lack (about 2 %); 300 trials have a standard error of 1.4 %.
    assert 0.89 <= by_group / 300 <= 0.98
    assert by_image / 300 < 0.75


def test_few_groups_are_pointed_out():
    few = compare({k: evaluation([50, 60], ["x_1", "x_2"]) for k in "AB"})
    assert "one group" in few.note()
    assert "3 groups" in compare({k: evaluation([50] * 3, ["x_1", "x_3", "x_5"]) for k in "AB"}).note()
    many = [f"x_{10 * i}" for i in range(8)]
    assert compare({k: evaluation([50] * 8, many) for k in "AB"}).note() == ""
