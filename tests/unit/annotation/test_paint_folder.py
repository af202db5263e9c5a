"""Folders of slices to paint on: what other programs see, and what is taken back."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from tomoseg.annotation.paint_folder import PaintedSlices, merged, read_about, read_folder, write_folder
from tomoseg.errors import InputError
from tomoseg.io.label_values import LabelMap


def slices(numbers=(3, 12), shape=(20, 30), seed=0, **other):
    rng = np.random.default_rng(seed)
    facts = {
        "plane": "xz",
        "numbers": list(numbers),
        "run_ids": ["a" * 32] * len(numbers),
        "images": [rng.normal(50, 400, shape).astype(np.float32) for _ in numbers],
        "labels": [np.full(shape, 255, np.uint8) for _ in numbers],
        "class_names": ["background", "support", "particles"],
        "class_colors": ["#000000", "#0072b2", "#e69f00"],
        "pixel_size_nm": 0.5,
    }
    return PaintedSlices(**(facts | other))


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "paint", slices(), {"project": "p.h5"})
    return tmp_path / "paint"


def paint(folder, name="xz_0003", value=2):
    path = folder / "labels" / f"{name}.tif"
    labels = tifffile.imread(path)
    labels[2:5, 4:9] = value
    tifffile.imwrite(path, labels)


def test_the_files_are_plain_tiff_with_a_scale(folder):
    with tifffile.TiffFile(folder / "images" / "xz_0012.tif") as image:
        assert (image.pages[0].dtype, image.pages[0].shape) == (np.uint16, (20, 30))
        assert image.imagej_metadata["unit"] == "nm"
        px, per = image.pages[0].tags["XResolution"].value
        assert px / per == pytest.approx(2.0)  # px per nm
    with Image.open(folder / "labels" / "xz_0012.tif") as labels:
        assert (labels.mode, labels.size) == ("L", (30, 20))
        assert (np.asarray(labels) == 255).all()
    about = json.loads((folder / "annotation.json").read_text())
    assert [entry["number"] for entry in about["slices"]] == [3, 12]
    assert about["project"] == "p.h5"


def test_painted_slices_come_back_in_the_unit_of_the_volume(folder):
    paint(folder)
    found, left_out = read_folder(folder)
    assert (found.numbers, left_out) == ([3], ["xz_0012"])
    whole = slices().images
    step = (max(i.max() for i in whole) - min(i.min() for i in whole)) / 65535
    np.testing.assert_allclose(found.images[0], whole[0], atol=0.51 * step)
    assert found.images[0].dtype == np.float32
    expected = np.full((20, 30), 255)
    expected[2:5, 4:9] = 2
    np.testing.assert_array_equal(found.labels[0], expected)
    assert (found.pixel_size_nm, found.run_ids) == (0.5, ["a" * 32])
    assert found.as_slices().names == ["xz_0003"]


def test_labels_of_another_program(folder):
    """Exported as PNG, numbered from 1, with 0 where nobody painted."""
    labels = np.zeros((20, 30), np.uint8)
    labels[:5], labels[5:9] = 1, 3
    Image.fromarray(labels).save(folder / "labels" / "xz_0003.png")
    (folder / "labels" / "xz_0003.tif").unlink()
    found, _ = read_folder(folder, LabelMap.parse("0=ignore,1=0,2=1,3=2,255=ignore"))
    np.testing.assert_array_equal(found.labels[0], np.array([255, 0, 1, 2], np.uint8)[labels])


def test_prefilled_labels_that_nobody_changed(tmp_path):
    folder, given = tmp_path / "paint", slices(labels=[np.zeros((20, 30), np.uint8)] * 2)
    write_folder(folder, given, {})
    with pytest.raises(InputError, match="nothing is painted"):
        read_folder(folder)
    assert read_folder(folder, take_unchanged=True)[0].numbers == [3, 12]
    paint(folder)
    assert read_folder(folder)[0].numbers == [3]


def test_pixels_tell_what_was_changed_and_not_the_way_they_are_saved(tmp_path):
    folder, given = tmp_path / "paint", slices(labels=[np.eye(20, 30, dtype=np.uint8)] * 2)
    write_folder(folder, given, {})
    for part, name in (("labels", "xz_0003"), ("images", "xz_0003"), ("labels", "xz_0012")):
        path = folder / part / f"{name}.tif"
        tifffile.imwrite(path, tifffile.imread(path), compression="zlib", byteorder=">")
    with pytest.raises(InputError, match="nothing is painted"):
        read_folder(folder)
    labels = tifffile.imread(folder / "labels" / "xz_0012.tif")
    labels[3, 3] = 2
    Image.fromarray(labels.astype(np.int32)).save(folder / "labels" / "xz_0012.tif")
    found, left_out = read_folder(folder)
    assert (found.numbers, left_out) == ([12], ["xz_0003"])
    about = json.loads((folder / "annotation.json").read_text())  # as an earlier version wrote it: digests of files
    for entry in about["slices"]:
        del entry["image_pixels"], entry["labels_pixels"]
    (folder / "annotation.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="has changed since the export"):
        read_folder(folder)


def test_masks_in_place_of_labels(folder):
    for name in ("xz_0003", "xz_0012"):
        mask = np.zeros((20, 30), np.uint8)
        mask[4:7, 5:9] = 255
        tifffile.imwrite(folder / "labels" / f"{name}.tif", mask)
    with pytest.raises(InputError, match="0=0,255=1, and if only class 0 was painted, --label-map 0=0,255=ignore"):
        read_folder(folder)
    found, _ = read_folder(folder, LabelMap.parse("0=0,255=2"))
    np.testing.assert_array_equal(found.labels[0], 2 * (mask == 255))
    found, _ = read_folder(folder, LabelMap.parse("0=0,255=ignore"))
    np.testing.assert_array_equal(found.labels[0], mask)
    paint(folder, "xz_0012", value=1)  # one mask among labels is told
    told = []
    read_folder(folder, warn=told.append)
    assert "1 of 2 label images hold only 0 and 255" in told[0]


def test_one_mask_for_each_class(folder):
    (folder / "labels" / "xz_0012.tif").unlink()
    for number, name in ((1, "support"), (2, "particles")):
        mask = np.zeros((20, 30), np.uint8)
        mask[5 * number : 5 * number + 3] = 255
        Image.fromarray(mask).save(folder / "labels" / f"xz_0012_{name}.png")
    found, _ = read_folder(folder)
    assert found.numbers == [12]
    np.testing.assert_array_equal(np.unique(found.labels[0][:, 0], return_counts=True), [[0, 1, 2], [14, 3, 3]])
    assert sorted(found.files) == ["xz_0012_particles.png", "xz_0012_support.png"]


def test_labels_beside_those_that_were_exported(folder):
    paint(folder)
    (folder / "labels" / "xz_0003.tif").rename(folder / "labels" / "xz_0003_Simple Segmentation.tif")
    assert read_folder(folder)[0].numbers == [3]
    shutil.copy(folder / "labels" / "xz_0012.tif", folder / "labels" / "xz_0003.tif")
    with pytest.raises(InputError, match=r"xz_0003\.tif and .*xz_0003_Simple Segmentation\.tif may both be"):
        read_folder(folder)


def _other_image(folder):
    tifffile.imwrite(folder / "images" / "xz_0012.tif", np.zeros((20, 30), np.uint16))


def _resized(folder):
    tifffile.imwrite(folder / "labels" / "xz_0012.tif", np.zeros((10, 15), np.uint8))


def _stranger(folder):
    for part in ("images", "labels"):
        shutil.copy(folder / part / "xz_0003.tif", folder / part / "xz_0004.tif")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: paint(f, value=3), r"xz_0003\.tif holds the labels 3, 255, but there are 3 classes"),
        (_other_image, r"xz_0012\.tif has changed since the export"),
        (_resized, "30 x 20 px, its labels .* are 15 x 10 px"),
        (_stranger, r"xz_0004\.tif is not one of the exported slices"),
        (lambda f: (f / "annotation.json").unlink(), "holds no annotation.json"),
        (lambda f: (f / "annotation.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "images" / "xz_0012.tif").unlink(), "no image of the same name"),
    ],
)
def test_what_cannot_be_taken_back(folder, spoil, message):
    paint(folder)
    spoil(folder)
    with pytest.raises(InputError, match=message):
        read_folder(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"plane": "zx"},
        {"scaling": {"offset": "0", "step": 1}},
        {"scaling": {"offset": float("nan"), "step": 1}},
        {"pixel_size_nm": [1]},
        {"slices": [{"name": "../../etc", "number": 1}]},
        {"slices": 3},
        {"class_names": [1, 2]},
    ],
)
def test_descriptions_that_make_no_sense(folder, change):
    path = folder / "annotation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=r"annotation\.json"):
        read_about(folder)


def test_nothing_is_overwritten(folder):
    paint(folder)
    with pytest.raises(InputError, match="not empty"):
        write_folder(folder, slices(), {})
    assert read_folder(folder)[0].numbers == [3]


def test_later_paintings_join_earlier_ones():
    old, new = slices((3, 12)), slices((7, 12), seed=1)
    both = merged(old, new)
    assert both.numbers == [3, 7, 12]
    for n, source in ((0, old.images[0]), (1, new.images[0]), (2, new.images[1])):
        np.testing.assert_array_equal(both.images[n], source)
    for other in ({"plane": "xy"}, {"shape": (20, 31)}, {"class_names": ["a", "b"]}):
        with pytest.raises(InputError, match="--replace"):
            merged(old, slices(**other))
