"""What `check-data` refuses, training and evaluation refuse too, and what it accepts they accept."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.conftest import tomoseg
from tomoseg.errors import InputError
from tomoseg.io.label_values import LabelMap, UsedColors, label_problems, palette_doubts
from tomoseg.io.slices import find_pairs, load_pairs
from tomoseg.runtime import Runtime
from tomoseg.segmentation.data.check import check_data
from tomoseg.segmentation.data.neighbours import load_slices
from tomoseg.segmentation.evaluation.model_evaluation import evaluate_model
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.segmentation.training.training_set import TrainingSet


@pytest.fixture
def write(tmp_path, make_slices):
    """Return a function that writes twelve slices with changed images and labels, and gives their folders."""

    def files(of_image=lambda k, image: image, of_labels=lambda k, labels: labels):
        folders = tmp_path / "images", tmp_path / "labels"
        for folder in folders:
            folder.mkdir(exist_ok=True)
        for k, (image, labels) in enumerate(zip(*make_slices(12, seed=7), strict=True)):
            tifffile.imwrite(folders[0] / f"s{10 * k:03d}.tif", of_image(k, image))
            tifffile.imwrite(folders[1] / f"s{10 * k:03d}.tif", of_labels(k, labels))
        return folders

    return files


def refused(folders, label_map="", class_names=None):
    """Return the errors of the check, after training and reading from Python have refused the same."""
    mapped = LabelMap.parse(label_map) if label_map else None
    errors = check_data(*folders, label_map=mapped, class_names=class_names).errors
    for read in (
        lambda: load_slices(*folders, 1, mapped, Runtime(), class_names=class_names),
        lambda: load_pairs(find_pairs(*folders, None, mapped), class_names=class_names),
    ):
        if errors:
            with pytest.raises(InputError):
                read()
        else:
            read()
    return "\n".join(errors)


def in_training(labels, class_names=None):
    """Check labels as training from Python does."""
    images = [np.random.default_rng(k).normal(size=label.shape) for k, label in enumerate(labels)]
    return TrainingSet.checked(images, labels, None, class_names, None, TrainParameters(patch=32, depth=2), None)


GREY, MASK = np.array([0, 128, 255], np.uint8), np.array([0, 0, 255], np.uint8)
CHANGES = {
    "grey values": (lambda k, labels: GREY[labels], "--label-map 0=0,128=1,255=2"),
    "all zero": (lambda k, labels: 0 * labels, "hold 1 class: there is nothing to tell apart"),
    "masks": (lambda k, labels: MASK[labels], "--label-map 0=0,255=1"),
    "nothing annotated": (lambda k, labels: 0 * labels + 255, "hold 0 classes"),
    "numbers of objects": (lambda k, labels: np.where(labels == 2, 2 + np.arange(64) % 30, labels), "exchanged"),
    "negative": (lambda k, labels: labels.astype(np.int8) - 1, "whole numbers"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_labels_that_are_none(write, what):
    change, message = CHANGES[what]
    assert message in refused(write(of_labels=change))


@pytest.mark.parametrize("what", ["grey values", "all zero", "masks", "numbers of objects"])
def test_training_from_python_refuses_them_too(make_slices, what):
    change, message = CHANGES[what]
    labels = [change(k, label) for k, label in enumerate(make_slices(20, seed=7)[1])]
    with pytest.raises(InputError, match=message.split(":")[0].split("=")[0]):
        in_training(labels)


def test_exchanged_folders(write):
    folders = write(of_image=lambda k, image: image + np.uint8(k))
    assert "were images and labels exchanged?" in refused(folders[::-1])
    assert "but there are 3 classes" in refused(folders[::-1], class_names=["a", "b", "c"])
    told = tomoseg("check-data", *folders[::-1], "--progress", "none", code=2)
    assert len(told.stdout.splitlines()) < 10
    assert "class" not in told.stdout.split("warning")[0]


def test_grey_values_are_told_in_few_lines(write):
    told = tomoseg("check-data", *write(of_labels=lambda k, labels: GREY[labels]), "--progress", "none", code=2)
    assert len(told.stdout.splitlines()) < 5
    assert "look like grey values" in told.stderr
    assert check_data(*write()).classes[2].pixels > 0


def test_images_of_one_value(write):
    folders = write(of_image=lambda k, image: 0 * image + 7)
    assert "every pixel of the images has the same value, 7" in check_data(*folders).errors
    slices = load_pairs(find_pairs(*folders))
    with pytest.raises(InputError, match="the same value, 7"):
        TrainingSet.checked(slices.images, slices.labels, None, None, None, TrainParameters(patch=32, depth=2), None)


@pytest.mark.slow
def test_byte_orders_and_photometric_interpretations_are_one_type(tmp_path, make_slices):
    """A network trained on such images must evaluate them, too."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    truth = []
    for k, (image, labels) in enumerate(zip(*make_slices(8, seed=2), strict=True)):
        told = {"byteorder": "<>"[k % 2], "photometric": ("minisblack", "miniswhite")[k // 2 % 2]}
        tifffile.imwrite(tmp_path / "images" / f"s{10 * k}.tif", image.astype(np.uint16) * 3, **told)
        tifffile.imwrite(tmp_path / "labels" / f"s{10 * k}.tif", labels, photometric=told["photometric"])
        truth.append(labels)
    folders = tmp_path / "images", tmp_path / "labels"
    report = check_data(*folders)
    assert (report.errors, dict(report.dtypes)) == ([], {"uint16": 8})
    told = [text for text in report.warnings if "0 as white" in text]
    assert [text.split(" are")[0] for text in told] == ["4 label images", "4 of 8 images"]
    assert [c.pixels for c in report.classes] == [int((np.array(truth) == c).sum()) for c in range(3)]
    done = tomoseg(
        *("train", *folders, "-o", tmp_path / "m.keras", "--epochs", 1, "--patch", 32, "--depth", 2),
        *("--base-filters", 2, "--patches", 4, "--progress", "none"),
    )
    assert "m.keras" in done.stdout
    assert evaluate_model(tmp_path / "m.keras", find_pairs(*folders)).matrices.sum() == np.array(truth).size
    for file in (tmp_path / "labels").iterdir():
        tifffile.imwrite(file, np.uint8(255) * (tifffile.imread(file) == 2))
    with pytest.raises(InputError, match="hold only 0 and 255"):
        evaluate_model(tmp_path / "m.keras", find_pairs(*folders))


def test_a_class_of_the_map_that_does_not_occur_is_a_class_everywhere(write):
    folders = write(of_labels=lambda k, labels: 100 * np.minimum(labels, 1))
    mapped = LabelMap.parse("0=0,100=1,200=2")
    assert refused(folders, "0=0,100=1,200=2") == ""
    slices = load_slices(*folders, 1, mapped, Runtime())
    assert slices.class_names == ["background", "support", "particles"]
    assert len(in_training(slices.labels, slices.class_names).class_names) == 3


def test_many_classes_that_have_names_are_classes():
    counts = np.zeros((2, 256), np.int64)
    counts[:, :40] = 5
    assert label_problems(counts, 40) == []
    assert "40 values" in label_problems(counts, None)[0]


def palette_image(path, indices, colors):
    picture = Image.new("P", indices.shape[::-1])
    picture.putdata(indices.ravel().tolist())
    picture.putpalette([part for color in colors for part in color])
    picture.save(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_palettes_that_differ_are_told(tmp_path, write, suffix):
    images, labels = write()
    colors = [(0, 0, 0), (200, 0, 0), (0, 200, 0)]
    for k, file in enumerate(sorted(labels.iterdir())):
        indices = tifffile.imread(file)
        file.unlink()
        # Colours of indices that do not occur may differ: programs fill a palette with what they like.
        palette_image(file.with_suffix(suffix), indices, [*colors, (k, 2, 3)])
    assert not any("palette" in text for text in check_data(images, labels).warnings)
    odd = labels / f"s050{suffix}"
    palette_image(odd, indices, [colors[0], colors[2], colors[1]])
    warned = [text for text in check_data(images, labels).warnings if "palette" in text]
    assert len(warned) == 1
    assert "1 is #c80000 in s000" in warned[0]
    assert f"#00c800 in s050{suffix}" in warned[0]
    runtime = Runtime()
    load_slices(images, labels, 1, None, runtime)
    assert warned[0] in runtime.warnings
    by_color = LabelMap.parse("#000000=0,#c80000=1,#00c800=2")  # then colours count, whatever their number
    report = check_data(images, labels, label_map=by_color)
    assert not any("palette" in text for text in report.warnings + report.errors)


def test_one_colour_of_two_indices_is_a_difference_too():
    first = UsedColors("a.png", {0: (0, 0, 0), 1: (9, 9, 9)})
    again = UsedColors("b.png", {0: (0, 0, 0), 5: (9, 9, 9)})
    assert "#090909 is 1 in a.png and 5 in b.png" in next(palette_doubts([first, again], "label images"))
    double = UsedColors("c.png", {1: (9, 9, 9), 5: (9, 9, 9)})  # both are known here
    assert list(palette_doubts([double, first, again], "label images")) == []


@pytest.mark.slow
def test_the_commands_take_stacks_masks_and_patterns(tmp_path, make_slices):
    images, labels = (np.array(part) for part in make_slices(12, seed=4))
    tifffile.imwrite(tmp_path / "raw.tif", images, photometric="minisblack")
    tifffile.imwrite(tmp_path / "raw_x.tif", labels, imagej=True)
    report = json.loads(tomoseg("check-data", tmp_path, tmp_path, "--label-pattern", "{name}_x", "--json").stdout)
    assert (report["usable"], report["slices"]) == (True, 12)
    (tmp_path / "raw_x.tif").unlink()
    for number, name in ((1, "oxide"), (2, "metal")):
        mask = np.uint8(255) * (labels == number)
        tifffile.imwrite(tmp_path / f"raw_{name}.tif", mask, photometric="minisblack")
    model = tmp_path / "m.keras"
    tomoseg(
        *("train", tmp_path, tmp_path, "-o", model, "--class-names", "vacuum,oxide,metal", "--epochs", 1),
        *("--patch", 32, "--depth", 2, "--base-filters", 2, "--patches", 4, "--channels", 3, "--progress", "none"),
    )
    done = tomoseg("evaluate", model, tmp_path, tmp_path, "--held-out", "--json", tmp_path / "s.json")
    assert "metal" in done.stdout
    assert json.loads((tmp_path / "s.json").read_text())["dice"]["n"] == [3, 3, 3]
