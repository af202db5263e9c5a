"""Label images whose values are not class numbers."""

import numpy as np
import pytest
from PIL import Image

from tomoseg.errors import InputError
from tomoseg.io.label_values import LabelMap
from tomoseg.io.slices import find_pairs, load_pairs, read_labels

TRUTH = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
COLORS = {0: (0, 0, 0), 1: (0, 114, 178), 2: (230, 159, 0), 255: (255, 255, 255)}
COLOR_MAP = "#000000=0,#0072B2=1,#e69f00=2,#ffffff=ignore"


def painted(lookup):
    """Return TRUTH with each class replaced by what stands for it."""
    return np.array([[lookup[int(c)] for c in row] for row in TRUTH])


@pytest.mark.parametrize(
    ("values", "dtype", "text"),
    [
        ({0: 0, 1: 128, 2: 255, 255: 64}, np.uint8, "0=0,128=1,255=2,64=ignore"),
        ({0: 10, 1: 3000, 2: 65535, 255: 0}, np.uint16, "10=0, 3000=1, 65535=2, 0=255"),
        ({0: -1, 1: 0.5, 2: 7, 255: 9}, np.float32, "-1=0,0.5=1,7=2,9=ignore"),
    ],
)
def test_grey_values_become_classes(tmp_path, values, dtype, text):
    np.save(tmp_path / "l.npy", painted(values).astype(dtype))
    np.testing.assert_array_equal(read_labels(tmp_path / "l.npy", 3, LabelMap.parse(text)), TRUTH)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_become_classes(tmp_path, mode, suffix):
    path = tmp_path / f"l{suffix}"
    if mode == "P":
        # The indices are in another order than the classes, so that taking them for classes would be seen.
        order = [2, 255, 0, 1]
        image = Image.fromarray(painted({c: i for i, c in enumerate(order)}).astype(np.uint8))
        image.putpalette([channel for c in order for channel in COLORS[c]])
    else:
        image = Image.fromarray(painted(COLORS).astype(np.uint8)).convert(mode)
    image.save(path)
    np.testing.assert_array_equal(read_labels(path, 3, LabelMap.parse(COLOR_MAP)), TRUTH)


def test_numbers_of_objects_become_one_class(tmp_path):
    objects = np.array([[0, 1, 0, 300], [0, 1, 7, 300]], np.uint16)
    Image.fromarray(objects).save(tmp_path / "l.png")
    label_map = LabelMap.parse("0=0,other=1")
    assert label_map.n_classes == 2
    np.testing.assert_array_equal(read_labels(tmp_path / "l.png", 2, label_map), objects > 0)
    rest = LabelMap.parse("0=0,7=2,other=ignore")
    assert rest.n_classes == 3
    np.testing.assert_array_equal(read_labels(tmp_path / "l.png", 3, rest)[1], [0, 255, 2, 255])


def test_a_grey_image_has_grey_colours(tmp_path):
    Image.fromarray(np.array([[0, 128]], np.uint8)).save(tmp_path / "l.png")
    np.testing.assert_array_equal(
        read_labels(tmp_path / "l.png", 2, LabelMap.parse("#000000=0,#808080=1")), np.array([[0, 1]])
    )


def test_unknown_values_are_named(tmp_path):
    Image.fromarray(np.array([[0, 128, 7, 9, 7, 0, 0, 0]], np.uint8)).save(tmp_path / "l.png")
    with pytest.raises(InputError, match=r"l\.png holds the values 7, 9, which --label-map 0=0,128=1 .*0\.38 of") as e:
        read_labels(tmp_path / "l.png", None, LabelMap.parse("0=0,128=1"))
    assert "\n" not in str(e.value)
    Image.fromarray(np.array([[[0, 0, 0], [254, 1, 0]]], np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(InputError, match="holds the colour #fe0100"):
        read_labels(tmp_path / "c.png", None, LabelMap.parse("#000000=0"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:1", "'0:1' is not of the form"),
        ("0=0,1=256", "'1=256' is not"),
        ("#12345=1", "is not of the form"),
        ("0=0,0.0=1", "named twice"),
        ("0=0,#ffffff=1", "mixed"),
        ("0=0,other=1,other=2", "other is named twice"),
    ],
)
def test_maps_that_are_none(text, message):
    with pytest.raises(InputError, match=message):
        LabelMap.parse(text)


def test_masks_are_not_taken_for_unannotated(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            mask = np.zeros((4, 4), np.uint8)
            mask[1:3] = 255
            Image.fromarray(mask).save(tmp_path / folder / f"{name}.png")
    folders = tmp_path / "images", tmp_path / "labels"
    with pytest.raises(InputError, match="--label-map 0=0,255=1"):
        load_pairs(find_pairs(*folders))
    loaded = load_pairs(find_pairs(*folders, label_map=LabelMap.parse("0=0,255=1")))
    assert [int(labels.sum()) for labels in loaded.labels] == [8, 8]
