"""Slices and labels in folders."""

import numpy as np
import pytest
from PIL import Image

from tomoseg.errors import InputError
from tomoseg.io.slices import data_digest, find_pairs, load_pairs, read_labels, read_slice
from tomoseg.runtime import Runtime


@pytest.fixture
def folders(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    return images, labels


def write(path, array):
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".tif", np.uint8), (".png", np.uint16), (".tif", np.float32), (".npy", np.int16)]
)
def test_images_keep_their_type(tmp_path, suffix, dtype):
    data = np.random.default_rng(0).integers(0, 200, (5, 7)).astype(dtype)
    write(tmp_path / f"a{suffix}", data)
    read = read_slice(tmp_path / f"a{suffix}")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, data)


def test_tiff_that_pillow_does_not_know(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    data = np.random.default_rng(0).normal(size=(5, 7))  # float64
    tifffile.imwrite(tmp_path / "a.tif", data)
    np.testing.assert_array_equal(read_slice(tmp_path / "a.tif"), data)


def test_grey_saved_as_colour_is_grey(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write(tmp_path / "rgb.png", np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(read_slice(tmp_path / "rgb.png"), grey)
    write(tmp_path / "colour.png", np.stack([grey, grey, grey + 1], axis=-1))
    with pytest.raises(InputError, match="not a single grey image"):
        read_slice(tmp_path / "colour.png")


def test_palette_labels_are_their_indices(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.new("P", (2, 2))
    picture.putdata(indices.ravel().tolist())
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.png", 3), indices)


def test_pairs_share_their_name(folders):
    images, labels = folders
    for name in ("b", "a", "extra"):
        write(images / f"{name}.tif", np.zeros((4, 4), np.uint8))
    for name in ("a", "b"):
        write(labels / f"{name}.png", np.zeros((4, 4), np.uint8))
    runtime = Runtime()
    pairs = find_pairs(images, labels, runtime)
    assert [(p.name, p.image.name, p.labels.name) for p in pairs] == [("a", "a.tif", "a.png"), ("b", "b.tif", "b.png")]
    assert runtime.notes == ["1 images without labels are left out: extra"]
    write(labels / "lonely.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"no image of the same name.*lonely"):
        find_pairs(images, labels)


def test_unusable_folders(folders, tmp_path):
    images, labels = folders
    with pytest.raises(InputError, match="does not exist"):
        find_pairs(tmp_path / "nowhere", labels)
    with pytest.raises(InputError, match="holds no image files"):
        find_pairs(images, labels)
    for suffix in (".tif", ".png"):
        write(images / f"a{suffix}", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="same name"):
        find_pairs(images, labels)


@pytest.mark.parametrize(
    ("values", "message"),
    [([0, 1, 3], "there are 3 classes"), ([0, 127, 254], "there are 3 classes"), ([0, 1, 300], "whole numbers")],
)
def test_labels_that_are_no_classes(tmp_path, values, message):
    write(tmp_path / "l.png", np.array([values], np.uint16))
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "l.png", 3)


def test_unannotated_pixels_are_allowed(tmp_path):
    write(tmp_path / "l.png", np.array([[0, 255, 2]], np.uint8))
    np.testing.assert_array_equal(read_labels(tmp_path / "l.png", 3), [[0, 255, 2]])


def test_broken_and_mismatched_files(folders):
    images, labels = folders
    (images / "a.tif").write_bytes(b"II*\x00 nothing of the kind")
    write(labels / "a.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="cannot be read as an image"):
        load_pairs(find_pairs(images, labels))
    write(images / "a.tif", np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match=r"5 x 4 px, its labels .* are 4 x 4 px"):
        load_pairs(find_pairs(images, labels))
    write(images / "a.tif", np.zeros((4, 4), np.uint8))
    write(images / "b.tif", np.zeros((4, 4), np.float32))
    write(labels / "b.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="save all in one type"):
        load_pairs(find_pairs(images, labels))


def test_a_stack_in_one_file_is_refused(tmp_path):
    pages = [Image.fromarray(np.zeros((4, 4), np.uint8)) for _ in range(2)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="2 pages"):
        read_slice(tmp_path / "stack.tif")


def test_the_digest_tells_data_apart():
    image, label = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    other = label.copy()
    other[0, 0] = 1
    digests = {
        data_digest(["a"], [image], [label]),
        data_digest(["b"], [image], [label]),
        data_digest(["a"], [image], [other]),
        data_digest(["a"], [image.reshape(2, 8)], [label.reshape(2, 8)]),
    }
    assert len(digests) == 4


def test_real_slices_and_labels_are_read(shared_data):
    root = shared_data / "gamma-alumina"
    pairs = find_pairs(root / "images", root / "labels")
    assert len(pairs) == 45
    data = load_pairs(pairs[:3], 3)
    assert {image.shape for image in data.images} == {(512, 512)}
    assert data.images[0].dtype == np.uint8
