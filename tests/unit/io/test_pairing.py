"""Which images and labels belong together."""

import shutil
import unicodedata

import numpy as np
import pytest
import tifffile
from PIL import Image

from tomoseg.errors import InputError
from tomoseg.io.label_values import LabelMap
from tomoseg.io.pairing import images_by_name, paired
from tomoseg.io.slices import find_pairs, load_pairs, read_labels

CLASSES = ["vacuum", "oxide", "Pt metal"]


def touch(folder, *names):
    """Write a small image under each name."""
    folder.mkdir(exist_ok=True)
    for name in names:
        if name.endswith(("tif", "tiff")):
            tifffile.imwrite(folder / name, np.eye(5, dtype=np.uint8))
        else:
            Image.fromarray(np.eye(5, dtype=np.uint8)).save(folder / name)
    return folder


def by_name(found):
    assert found.problems == []
    return {pair.name: (pair.image.name, pair.labels.name) for pair in found.pairs}


@pytest.mark.parametrize(
    "labels",
    [
        *("x7_mask.tif", "x7_masks.png", "x7_label.tif", "x7_labels.tif", "x7-labels.png", "x7_seg.tif", "x7.ome.tif"),
        *("x7_Simple Segmentation.tif", "x7_Simple_Segmentation.png", "x7-data_Simple Segmentation.tif"),
        *("x7-data_Labels.tif", "x7_cp_masks.png", "x7_gt.png", "x7_mask.ome.tif", "mask_x7.tif", "Labels_x7.tif"),
        *("x7_GroundTruth.tif", "x7_ground truth.tif"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_names_that_differ_in_a_word(tmp_path, labels, together):
    images = touch(tmp_path / "a", "x7.tif", "x8.tif")
    folder = touch(images if together else tmp_path / "b", labels, labels.replace("7", "8"))
    assert by_name(paired(images, folder)) == {
        "x7": ("x7.tif", labels),
        "x8": ("x8.tif", labels.replace("7", "8")),
    }


@pytest.mark.parametrize(
    ("image", "labels"), [("s1_img.tif", "s1_mask.tif"), ("raw_s1.png", "seg_s1.png"), ("s1.ome.tif", "s1_labels.tif")]
)
def test_images_with_a_word_of_their_own(tmp_path, image, labels):
    folder = touch(tmp_path / "a", image, labels)
    assert list(by_name(paired(folder, folder)).values()) == [(image, labels)]


def test_equal_names_come_first(tmp_path):
    """`x` belongs to `x`, though `x_mask` would do; and `a_mask` is an image where it has labels of its name."""
    images = touch(tmp_path / "i", "x.tif", "x_mask.tif", "a.ome.tif")
    labels = touch(tmp_path / "l", "x.png", "x_mask.png", "a.ome.png")
    assert by_name(paired(images, labels)) == {
        name: (f"{name}.tif", f"{name}.png") for name in ("x", "x_mask", "a.ome")
    }


def test_ambiguous_names_are_refused_with_both(tmp_path):
    folder = touch(tmp_path / "a", "x.tif", "y.tif", "x_mask.tif", "x_seg.tif", "y_mask.tif")
    found = paired(folder, folder)
    assert [pair.name for pair in found.pairs] == ["y"]
    assert len(found.problems) == 1
    assert "x_mask.tif and" in found.problems[0]
    assert "x_seg.tif may both be the labels of" in found.problems[0]
    images, labels = touch(tmp_path / "i", "x.tif", "x_img.tif"), touch(tmp_path / "l", "x_gt.tif", "x.tif")
    assert "x.tif and" in paired(images, labels).problems[0]  # x.tif has its labels, x_gt.tif is left over
    images = touch(tmp_path / "j", "x.tif", "x.ome.tif")
    found = paired(images, touch(tmp_path / "m", "x_gt.tif"))
    assert "x_gt.tif may be the labels of" in found.problems[0]
    assert "x.tif and" in found.problems[0]
    assert "x.ome.tif" in found.problems[0]
    assert found.pairs == []


def test_a_pattern_says_how_labels_are_named(tmp_path):
    folder = touch(tmp_path / "a", "x1.tif", "x1_mask.tif", "x1_seg.tif", "x2.tif", "x2_seg.tif", "painted-x1.png")
    of = {"{name}_seg": "x1_seg.tif", "{name}_mask": "x1_mask.tif", "painted-{name}": "painted-x1.png"}
    for pattern, labels in of.items():
        assert by_name(paired(folder, folder, label_pattern=pattern))["x1"] == ("x1.tif", labels)
    assert by_name(paired(folder, folder, label_pattern="{name}_seg.tif"))["x2"] == ("x2.tif", "x2_seg.tif")
    assert "no labels" in paired(folder, folder, label_pattern="{name}_nothing").problems[0]
    labels = touch(tmp_path / "l", "x1_t.tif", "x3_t.tif", "notes.tif")
    found = paired(folder, labels, label_pattern="{name}_t")
    assert "no image of the same name: x3_t" in found.problems[0]
    assert any("notes" in text for text in found.left_out)
    for wrong in ("mask", "{name}{name}"):
        with pytest.raises(InputError, match="--label-pattern"):
            paired(folder, labels, label_pattern=wrong)


def test_names_that_macos_wrote(tmp_path):
    name = "Probe_Überblick_é_03"
    images = touch(tmp_path / "i", unicodedata.normalize("NFD", name) + ".png")
    labels = touch(tmp_path / "l", unicodedata.normalize("NFC", name) + ".png")
    assert list(by_name(paired(images, labels))) == [unicodedata.normalize("NFC", name)]
    touch(labels, unicodedata.normalize("NFD", name) + ".tif")
    with pytest.raises(InputError, match="have the same name"):
        paired(images, labels)


def test_jpeg_is_for_images_alone(tmp_path):
    folder = touch(tmp_path / "a", "x.jpg", "x_mask.png", "y.png", "y_mask.jpg")
    found = paired(folder, folder)
    assert [pair.image.name for pair in found.pairs] == ["x.jpg"]
    assert "y_mask.jpg is compressed as JPEG" in found.problems[0]


def test_without_labels_beside_the_images(tmp_path):
    folder = touch(tmp_path / "a", "x.tif", "y.tif")
    with pytest.raises(InputError, match="none of them has labels beside it"):
        find_pairs(folder, folder)


# Stacks ---------------------------------------------------------------------------------------------------------------


def stack(path, n, seed=0, **told):
    data = np.random.default_rng(seed).integers(0, 3, (n, 6, 8)).astype(np.uint8)
    tifffile.imwrite(path, data, photometric="minisblack", **told)
    return data


def test_every_page_of_a_stack_is_a_slice(tmp_path):
    images, labels = {}, {}
    for k, n in ((1, 3), (2, 4)):
        images[k] = stack(tmp_path / f"tomo{k}.tif", n, k)
        labels[k] = stack(tmp_path / f"tomo{k}_labels.tif", n, 10 + k, compression="zlib")
    data = load_pairs(find_pairs(tmp_path, tmp_path))
    assert data.names == [f"tomo{k}_page000{i}" for k, n in ((1, 3), (2, 4)) for i in range(n)]
    np.testing.assert_array_equal(data.images, np.concatenate([images[1], images[2]]))
    np.testing.assert_array_equal(data.labels, np.concatenate([labels[1], labels[2]]))
    assert set(images_by_name(tmp_path)) >= set(data.names)


def test_two_stacks_by_their_files(tmp_path):
    stack(tmp_path / "raw.tif", 3)
    wanted = stack(tmp_path / "painted by me.tif", 3, 5)
    pairs = find_pairs(tmp_path / "raw.tif", tmp_path / "painted by me.tif")
    assert [pair.name for pair in pairs] == ["raw_page0000", "raw_page0001", "raw_page0002"]
    np.testing.assert_array_equal([read_labels(pair.labels, 3) for pair in pairs], wanted)


def test_stacks_of_different_lengths_are_refused(tmp_path):
    stack(tmp_path / "a.tif", 3)
    stack(tmp_path / "a_mask.tif", 4)
    with pytest.raises(InputError, match=r"a\.tif holds 3 pages, its labels .*a_mask\.tif 4"):
        find_pairs(tmp_path, tmp_path)


def test_a_damaged_stack_is_told_as_such(tmp_path):
    stack(tmp_path / "a.tif", 5, metadata=None)
    stack(tmp_path / "a_mask.tif", 5)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.tif (is truncated|cannot be read)"):
        find_pairs(tmp_path, tmp_path)


def test_colours_on_the_pages_of_a_stack(tmp_path):
    labels = np.random.default_rng(2).integers(0, 2, (4, 5, 6)).astype(np.uint8)
    stack(tmp_path / "a.tif", 4)
    tifffile.imwrite(tmp_path / "a_mask.tif", np.array([[0, 0, 0], [9, 8, 7]], np.uint8)[labels], photometric="rgb")
    tifffile.imwrite(tmp_path / "a.tif", labels, photometric="minisblack")
    data = load_pairs(find_pairs(tmp_path, tmp_path, None, LabelMap.parse("#000000=0,#090807=1")))
    np.testing.assert_array_equal(data.labels, labels)


def test_pages_that_nobody_annotated_are_left_out(tmp_path):
    stack(tmp_path / "a.tif", 4)
    labels = np.random.default_rng(3).integers(0, 2, (4, 6, 8)).astype(np.uint8)
    labels[[0, 2]] = 255
    tifffile.imwrite(tmp_path / "a_mask.tif", labels, photometric="minisblack")
    assert load_pairs(find_pairs(tmp_path, tmp_path)).names == ["a_page0001", "a_page0003"]


# One mask per class ---------------------------------------------------------------------------------------------------


@pytest.fixture
def masks(tmp_path):
    """Return the labels of two slices, written as masks of 0 and 255 beside the images, and in folders."""
    wanted = {}
    for k, name in enumerate(("s1", "s2")):
        labels = np.random.default_rng(k).integers(0, 3, (6, 7)).astype(np.uint8)
        wanted[name] = labels
        for where in ("beside", "images"):
            (tmp_path / where).mkdir(exist_ok=True)
            Image.fromarray(labels).save(tmp_path / where / f"{name}.png")
        for number, value, names in ((1, 255, ("oxide", "Oxide")), (2, 1, ("Pt_metal", "pt metal"))):
            mask = np.where(labels == number, np.uint8(value), np.uint8(0))
            Image.fromarray(mask).save(tmp_path / "beside" / f"{name}_{names[0]}.png")
            folder = tmp_path / "folders" / names[1]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / f"{name}.png")
    return wanted


@pytest.mark.parametrize(("images", "labels"), [("beside", "beside"), ("images", "folders"), ("images", "beside")])
def test_masks_make_one_label_image(tmp_path, masks, images, labels):
    if (images, labels) == ("images", "beside"):
        for name in masks:
            (tmp_path / "beside" / f"{name}.png").unlink()
    pairs = find_pairs(tmp_path / images, tmp_path / labels, class_names=CLASSES)
    data = load_pairs(pairs, None, None, CLASSES)
    assert data.names == list(masks)
    np.testing.assert_array_equal(data.labels, list(masks.values()))
    with pytest.raises(InputError, match="class-names"):  # without names nothing is guessed
        find_pairs(tmp_path / images, tmp_path / labels)


def test_a_mask_of_the_first_class_leaves_the_rest_unannotated(tmp_path, masks):
    for name, labels in masks.items():
        vacuum = np.uint8(255) * ((labels == 0) & (np.arange(7) < 3))
        Image.fromarray(vacuum).save(tmp_path / "beside" / f"{name}_vacuum.png")
    data = load_pairs(find_pairs(tmp_path / "beside", tmp_path / "beside", class_names=CLASSES))
    for labels, found in zip(masks.values(), data.labels, strict=True):
        np.testing.assert_array_equal(found, np.where((labels == 0) & (np.arange(7) >= 3), 255, labels))


def test_masks_that_do_not_make_labels(tmp_path, masks):
    beside = tmp_path / "beside"
    name = beside / "s2_oxide.png"
    sound = np.asarray(Image.open(name))
    overlap = sound.copy()
    overlap[:2] = 255
    n = int((masks["s2"][:2] == 2).sum())
    for mask, message in (
        (overlap, rf"s2_oxide\.png and .*s2_Pt_metal\.png overlap in {n} pixels"),
        (np.arange(42, dtype=np.uint8).reshape(6, 7), "holds 0 and one other value"),
        (sound[:-1], "they must be masks of one slice"),
    ):
        Image.fromarray(mask).save(name)
        with pytest.raises(InputError, match=message):
            load_pairs(find_pairs(beside, beside, class_names=CLASSES))
    name.unlink()
    with pytest.raises(InputError, match="1 of 2 slices have no mask of oxide: s2"):
        find_pairs(beside, beside, class_names=CLASSES)
    Image.fromarray(sound).save(name)
    with pytest.raises(InputError, match="--label-map is for label images"):
        find_pairs(beside, beside, None, LabelMap.parse("0=0,255=1"), class_names=CLASSES)
    shutil.copy(name, beside / "s1_mask.png")
    with pytest.raises(InputError, match=r"overlap|no image of the same name|may both"):
        load_pairs(find_pairs(beside, beside, class_names=CLASSES))


def test_masks_may_be_stacks(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (3, 5, 6)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "t.tif", labels, photometric="minisblack")
    for number, name in ((1, "oxide"), (2, "pt-metal")):
        tifffile.imwrite(tmp_path / f"t_{name}.tif", (labels == number).astype(np.uint8), photometric="minisblack")
    data = load_pairs(find_pairs(tmp_path, tmp_path, class_names=CLASSES))
    np.testing.assert_array_equal(data.labels, labels)


def test_labels_in_a_tiff_that_is_compressed_as_jpeg_are_refused(tmp_path):
    images, labels = tmp_path / "i", tmp_path / "l"
    for folder in (images, labels):
        folder.mkdir()
    picture = np.kron(np.eye(4, dtype=np.uint8), np.full((16, 16), 200, np.uint8))
    Image.fromarray(picture).save(images / "a.tif")
    Image.fromarray(picture).save(labels / "a.tif", compression="jpeg")
    found = paired(images, labels)
    assert found.pairs == []
    assert "a.tif is compressed as JPEG, which changes values" in found.problems[0]
