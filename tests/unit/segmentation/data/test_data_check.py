"""What `check-data` finds in folders of labelled slices."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.conftest import tomoseg
from tomoseg.errors import InputError
from tomoseg.io.label_values import LabelMap
from tomoseg.segmentation.data.check import check_data


@pytest.fixture
def data(tmp_path, make_slices):
    """Return a function that writes named slices, and the two folders of 12 sound ones, far from each other."""

    def write(name, image, labels):
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{name}.png")

    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    pairs = list(zip(*make_slices(12), strict=True))
    for i, (image, labels) in enumerate(pairs):
        write(f"s_{10 * i:03d}", image, labels)
    write.pairs, write.folders = pairs, (tmp_path / "images", tmp_path / "labels")
    return write


def test_sound_data_have_nothing_wrong(data):
    report = check_data(*data.folders)
    assert (report.errors, report.warnings) == ([], [])
    assert (report.n_slices, dict(report.sizes), dict(report.dtypes)) == (12, {"64x64": 12}, {"uint8": 12})
    truth = np.stack([labels for _, labels in data.pairs])
    assert [c.name for c in report.classes] == ["background", "support", "particles"]
    for c, share in enumerate(report.classes):
        assert share.pixels == (truth == c).sum()
        assert share.share == pytest.approx((truth == c).mean())
        assert share.slices == (truth == c).any(axis=(1, 2)).sum()


def problems(report):
    return "\n".join(report.errors), "\n".join(report.warnings)


def test_every_kind_of_unusable_file_is_named(data):
    images, labels = data.folders
    image, label = data.pairs[0]
    data("other_size", image, label[:-1])
    data("other_type", image.astype(np.uint16), label)
    data("broken", image, label)
    (images / "broken.png").write_bytes(b"\x89PNG nothing")
    Image.fromarray(label).save(labels / "lonely.png")
    Image.fromarray(image[::-1].copy()).save(images / "unlabelled.png")
    errors, warnings = problems(check_data(*data.folders))
    assert "no image of the same name: lonely" in errors
    assert "other_size.png is 64 x 64 px" in errors
    assert "64 x 63 px" in errors
    assert "broken.png cannot be read" in errors
    assert "12 uint8, 1 uint16" in errors
    assert "not uint8 are other_type.png" in errors
    assert "1 images have no labels and are left out: unlabelled" in warnings


def test_values_outside_the_classes(data):
    report = check_data(*data.folders, class_names=["background", "support"])
    assert "hold 2, but there are 2 classes" in problems(report)[0]
    for i, (image, labels) in enumerate(data.pairs):
        data(f"s_{10 * i:03d}", image, np.array([0, 128, 254], np.uint8)[labels])
    assert "--label-map 0=0,128=1,254=2" in problems(check_data(*data.folders))[0]
    assert not check_data(*data.folders, label_map=LabelMap.parse("0=0,128=1,254=2")).errors
    unknown = check_data(*data.folders, label_map=LabelMap.parse("0=0,128=1"))
    assert len(unknown.errors) >= 12
    assert "holds the value 254" in unknown.errors[0]


def test_masks_and_single_classes(data):
    for i, (image, labels) in enumerate(data.pairs):
        data(f"s_{10 * i:03d}", image, np.uint8(255) * (labels > 0))
    assert "--label-map 0=0,255=1" in problems(check_data(*data.folders))[0]
    for i, (image, labels) in enumerate(data.pairs):
        data(f"s_{10 * i:03d}", image, np.zeros_like(labels))
    assert "hold 1 class: there is nothing" in problems(check_data(*data.folders))[0]


def test_missing_and_rare_classes(data):
    for i, (image, labels) in enumerate(data.pairs):
        few = np.minimum(labels, 1)
        if i == 3:
            few[0, :5] = 2
        data(f"s_{10 * i:03d}", image, few)
    report = check_data(*data.folders, class_names=["background", "support", "particles", "pores"])
    warnings = problems(report)[1]
    assert report.errors == []
    assert "class 2 (particles) is rare: 0.0001 of the annotated pixels, in 1 slices" in warnings
    assert "class 3 (pores) does not occur" in warnings
    assert "fold 1 of 4: no training slice holds particles" in warnings
    assert "fold 0 of 4: no validation slice holds particles" in warnings


def test_copies_and_leaks(data):
    image, labels = data.pairs[0]
    data("s_110", image, labels[::-1].copy())  # far from s_000 by its name
    data("s_060", np.round(0.7 * data.pairs[4][0] + 20).astype(np.uint8), data.pairs[4][1])
    errors, warnings = problems(check_data(*data.folders))
    assert errors == ""
    assert "2 images are identical: s_000, s_110" in warnings
    assert "1 pairs of images are nearly identical, as copies with another brightness are: s_040 and s_060" in warnings
    assert (
        "fold 0 of 4: 1 of 3 validation slices look much like a training slice (such as s_000 like s_110)" in warnings
    )


def test_neighbours_with_neighbouring_numbers_do_not_leak(data, make_slices):
    """A window that moves by 2 px over a large phantom shows nearly the same from one slice to the next."""
    for file in [*data.folders[0].iterdir(), *data.folders[1].iterdir()]:
        file.unlink()
    images, labels = make_slices(1, size=256, seed=3)
    smooth = ndimage.gaussian_filter(images[0], 1)
    for i in range(80):
        window = np.s_[64:128, 2 * i : 2 * i + 64]
        data(f"n_{i:03d}", smooth[window], labels[0][window])
    assert "look much like" in problems(check_data(*data.folders, guard=0))[1]
    assert "look much like" not in problems(check_data(*data.folders, guard=9))[1]


def test_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        check_data(tmp_path / "images", tmp_path / "labels")


def test_the_command_tells_by_table_json_and_exit_code(data):
    done = tomoseg("check-data", *data.folders, "--progress", "none")
    assert "usable for training" in done.stdout
    assert "  2  particles" in done.stdout
    (data.folders[0] / "s_000.png").unlink()
    failed = tomoseg("check-data", *data.folders, "--json", "--progress", "none", code=2)
    assert "no image of the same name: s_000" in failed.stderr
    found = json.loads(failed.stdout)
    assert (found["usable"], found["slices"]) == (False, 11)
    assert found["classes"][2]["name"] == "particles"
