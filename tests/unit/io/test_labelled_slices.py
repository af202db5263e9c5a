"""Slices and labels in folders."""

import io
import struct
import tracemalloc
import zlib

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
    assert runtime.notes == ["1 images have no labels and are left out: extra"]
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


def test_real_slices_and_labels_are_read(real_data):
    root = real_data / "gamma-alumina"
    pairs = find_pairs(root / "images", root / "labels")
    assert len(pairs) == 45
    data = load_pairs(pairs[:3], 3)
    assert {image.shape for image in data.images} == {(512, 512)}
    assert data.images[0].dtype == np.uint8


# What strangers may put into the folders ------------------------------------------------------------------------------


def png(width, height, rows=b""):
    """Return a PNG that claims a size and holds some rows."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def npy(shape, dtype="<f4", data=b"", version=(1, 0)):
    """Return a NumPy file whose header says so."""
    header = str({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header + data


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


def tiff(**keywords):
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((4, 5)), **keywords)  # float64, which Pillow leaves to tifffile
    return file.getvalue()


def with_tag(content, code, value):
    """Return a little-endian TIFF with the value of one tag replaced."""
    out = bytearray(content)
    at = struct.unpack("<I", out[4:8])[0]
    for i in range(struct.unpack("<H", out[at : at + 2])[0]):
        entry = at + 2 + 12 * i
        if struct.unpack("<H", out[entry : entry + 2])[0] == code:
            out[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(out)


HOSTILE = {
    "png that claims 10 gigapixels": ("a.png", png(100_000, 100_000)),
    "png that claims 400 megapixels": ("a.png", png(20_000, 20_000, bytes(1000))),
    "png of no size": ("a.png", png(0, 5)),
    "png cut": ("a.png", png(50, 50, bytes(51 * 50))[:60]),
    "postscript": ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(RAN) (w) file\n"),
    "gif": ("a.png", b"GIF89a\x05\x00\x05\x00\x00\x00\x00,\x00\x00\x00\x00\x05\x00\x05\x00\x00\x02\x00\x00;"),
    "pickle": ("a.npy", pickled()),
    "bare pickle": ("a.npy", b"cos\nsystem\n(S'touch RAN'\ntR."),
    "npy that claims 4 TB": ("a.npy", npy((10**6, 10**6))),
    "npy of negative size": ("a.npy", npy((-5, -5), data=bytes(100))),
    "npy of many dimensions": ("a.npy", npy((1,) * 40, data=bytes(4))),
    "npy of texts": ("a.npy", npy((2, 2), "<U10", bytes(160))),
    "npy of code": ("a.npy", npy("__import__('os').system('touch RAN')")),
    "npy that is cut": ("a.npy", npy((5, 5), data=bytes(99))),
    "npy of another version": ("a.npy", npy((2, 2), data=bytes(16), version=(9, 0))),
    "npz": ("a.npy", b"PK\x03\x04" + bytes(40)),
    "tiff that claims 16 exapixels": ("a.tif", with_tag(with_tag(tiff(), 256, 2**32 - 1), 257, 2**32 - 1)),
    "tiff of a huge row": ("a.tif", with_tag(tiff(), 256, 2**31 - 1)),
    "tiff with its pixels outside": ("a.tif", with_tag(tiff(), 273, 2**31)),
    "tiff whose directories go in circles": ("a.tif", tiff()[:4] + struct.pack("<I", 8) + struct.pack("<HI", 0, 8) * 3),
    "empty": ("a.tif", b""),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_slices_are_refused(tmp_path, monkeypatch, what):
    name, content = HOSTILE[what]
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    try:
        for read in (read_slice, read_labels):
            with pytest.raises(InputError, match=name) as caught:
                read(tmp_path / name)
            assert len(str(caught.value)) < 1000
        # NumPy's arrays are counted, too.
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert [p.name for p in tmp_path.iterdir()] == [name]
