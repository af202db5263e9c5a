"""Validation splits never put neighbouring slices on both sides."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.errors import InputError
from tomoseg.io.slices import read_slice
from tomoseg.segmentation.data.folds import Split, lookalikes, slice_keys, split, split_at_random, thumbnail

PAPER_LIKE = [
    f"al_{s:05d}_{p:02d}" for s in (*range(10000, 10003), *range(10004, 10015), *range(20000, 20015)) for p in (0, 1)
]


def test_names_tell_series_and_slice():
    assert slice_keys(["al_10002_00", "al_10002_01", "al_10003_00"]) == [("al_", 10002), ("al_", 10002), ("al_", 10003)]
    assert slice_keys(["vol1_z5", "vol2_z5", "vol2_z6", "vol2_z7"]) == [
        ("vol1_z", 5),
        ("vol2_z", 5),
        ("vol2_z", 6),
        ("vol2_z", 7),
    ]
    # Two pages of many stacks: the number of the page counts, though the stacks have more numbers.
    pages = [f"tomo{k}_page000{i}" for k in (1, 2, 3, 4) for i in (7, 8)]
    assert slice_keys(pages) == [(f"tomo{k}_page", i) for k in (1, 2, 3, 4) for i in (7, 8)]
    assert slice_keys(["7", "12"]) == [("", 7), ("", 12)]
    assert slice_keys(["left", "right"]) == [("left", 0), ("right", 0)]


@pytest.mark.parametrize(
    ("n", "fraction", "expected"), [(10, 0.3, 3), (6, 0.3, 2), (2, 0.9, 1), (40, 0.01, 1), (7, 0.99, 6)]
)
def test_micrographs_are_drawn_one_by_one(n, fraction, expected):
    names = [f"{k:03d}_3" for k in range(n)]  # consecutive numbers, of images that are no neighbours
    parts = split_at_random(names, fraction)
    assert len(parts.validation) == expected
    assert sorted(parts.training + parts.validation) == list(range(n))
    assert parts.unused == []
    assert split_at_random(names, fraction) == parts
    others = [split_at_random(names, fraction, seed).validation for seed in range(20)]
    assert len({tuple(v) for v in others}) > 1  # 20 draws of one and the same part: at most 2 ** -19
    assert {i for v in others for i in v} == set(range(n)) or n > 20


def test_images_of_a_group_are_not_separated():
    names = [f"grid{g}_{k}" for g in range(6) for k in range(5)]
    parts = split_at_random(names, 0.3, 1, lambda name: name.split("_")[0])
    groups = [{names[i].split("_")[0] for i in part} for part in (parts.training, parts.validation)]
    assert not groups[0] & groups[1]
    assert len(groups[1]) == 2  # ten images are two groups, where nine are a third of thirty
    for few, of in ((["a"], None), (["a", "b"], lambda _: "one")):
        with pytest.raises(InputError, match="needs at least 2"):
            split_at_random(few, 0.3, 0, of)


@pytest.mark.parametrize("folds", [2, 3, 4, 5])
def test_no_slice_next_to_validation_is_trained_on(folds):
    seen = []
    for fold in range(folds):
        parts = split(PAPER_LIKE, folds, fold)
        number = [int(name.split("_")[1]) for name in PAPER_LIKE]
        gap = min(abs(number[i] - number[j]) for i in parts.training for j in parts.validation)
        assert gap > 1
        assert sorted(parts.training + parts.validation + parts.unused) == list(range(len(PAPER_LIKE)))
        # Blocks of about equal size: within two slices (four images) of an even share.
        assert abs(len(parts.validation) - len(PAPER_LIKE) / folds) <= 4
        assert len(parts.unused) <= 4  # one slice of two images at each end of the block
        seen += parts.validation
    assert sorted(seen) == list(range(len(PAPER_LIKE)))  # cross-validation sees every slice once


def test_both_halves_of_a_slice_stay_together():
    for fold in range(4):
        parts = split(PAPER_LIKE, 4, fold)
        slices = [{PAPER_LIKE[i].rsplit("_", 1)[0] for i in group} for group in (parts.training, parts.validation)]
        assert not slices[0] & slices[1]


def test_order_of_files_does_not_matter():
    backwards = PAPER_LIKE[::-1]
    a, b = split(PAPER_LIKE, 4, 1), split(backwards, 4, 1)
    assert {PAPER_LIKE[i] for i in a.validation} == {backwards[i] for i in b.validation}


def test_groups_by_hand_stay_whole():
    names = [f"{sample}{i}" for sample in "abcd" for i in range(5)]
    parts = split(names, 4, 2, group_of=lambda name: name[0])
    assert {names[i][0] for i in parts.validation} == {"c"}
    assert len(parts.training) == 15
    assert not parts.unused


def test_without_folds_everything_is_trained_on():
    parts = split(PAPER_LIKE, 0)
    assert len(parts.training) == len(PAPER_LIKE)
    assert not parts.validation


def test_too_few_slices_give_no_validation_rather_than_a_leaking_one():
    parts = split(["s_001", "s_002", "s_003"], 4, 1)
    assert parts.training == [0, 1, 2]
    assert not parts.validation


def test_a_fold_that_is_not_there():
    with pytest.raises(InputError, match="0 to 3"):
        split(PAPER_LIKE, 4, 4)


def smooth_slices(n, seed, shape=(128, 160)):
    """Return slices of a smooth random object, neighbours 1 px apart."""
    volume = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(n, *shape)), 4)
    return list(volume)


def alike(images, parts):
    return lookalikes([thumbnail(image) for image in images], parts)


def test_slices_that_look_alike_are_found_whatever_their_names():
    ours, others = smooth_slices(30, 0), smooth_slices(5, 1)
    # Slice 1 lies right beside slice 0, slice 29 is far away in the same object.
    assert alike([ours[0], ours[29], others[2], ours[1]], Split([1, 2, 3], [0], [])) == [(3, 0)]
    assert alike([ours[0], ours[29], others[2]], Split([1, 2], [0], [])) == []
    assert alike([ours[0], ours[0][::2, ::2]], Split([0], [1], [])) == [(0, 1)]  # the same at another size
    assert alike([np.zeros((4, 5)), np.zeros((40, 5))], Split([0], [1], [])) == []


def test_real_series_of_one_object_are_found_alike(real_data):
    # Series 10000 and 20000 of the real set show the same object: slices 20001 and 10002 are nearly the same.
    folder = real_data / "gamma-alumina/images"
    names = ["al_20001_00", "al_10002_00", "al_10013_00"]
    images = [read_slice(folder / f"{name}.tif") for name in names]
    assert alike(images, Split([1, 2], [0], [])) == [(1, 0)]
