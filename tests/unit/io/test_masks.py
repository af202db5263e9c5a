"""Masks of one image or one per tilt, in the formats that programs save them in."""

import mrcfile
import numpy as np
import pytest
import tifffile

from tomoseg.errors import InputError
from tomoseg.io.masks import open_mask, require_fit

ONE = np.zeros((6, 9), np.uint8)
ONE[1:3, 4:] = 255
MANY = np.stack([ONE, 1 - ONE // 255, ONE])


def saved(folder, suffix, array):
    path = folder / f"mask{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        with mrcfile.new(path) as file:
            file.set_data(array.astype(np.int8))
    return path


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".mrc"])
def test_one_image_for_all_tilts(tmp_path, suffix):
    with open_mask(saved(tmp_path, suffix, ONE)) as mask:
        require_fit(mask, (3, 6, 9))
        np.testing.assert_array_equal(mask.used(slice(1, 3)), [ONE != 0])


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".mrc"])
def test_one_image_per_tilt(tmp_path, suffix):
    with open_mask(saved(tmp_path, suffix, MANY)) as mask:
        require_fit(mask, (3, 6, 9))
        np.testing.assert_array_equal(mask.used(slice(1, 3)), MANY[1:] != 0)


@pytest.mark.parametrize("shape", [(3, 6, 8), (2, 6, 9), (3, 9, 6)])
def test_a_mask_of_another_size_is_refused(tmp_path, shape):
    with open_mask(saved(tmp_path, ".npy", MANY)) as mask, pytest.raises(InputError, match="3 images of 9 x 6 px"):
        require_fit(mask, shape)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.npy", b"", "cannot be read"),
        ("m.npy", b"\x93NUMPY\x01\x00", "cannot be read"),
        ("m.tif", b"II*\0", "cannot be read as an image"),
        ("m.mrc", b"short", "truncated"),
        ("m.txt", b"1 1 0", "cannot be read as an image"),
    ],
)
def test_what_is_no_mask(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        with open_mask(tmp_path / name):
            pass


def test_no_file(tmp_path):
    for name in ("m.npy", "m.tif", "m.mrc", "m.png"):
        with pytest.raises(InputError, match=name):
            with open_mask(tmp_path / name):
                pass
