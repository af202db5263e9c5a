"""Single images: the numbers that other programs stored."""

import importlib.util
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from tomoseg.errors import InputError
from tomoseg.io.image_files import ImageFile, count_pages, display_of, read_image
from tomoseg.io.raw import open_raw
from tomoseg.io.slices import read_labels, read_slice

RNG = np.random.default_rng(11)


def values(dtype, shape=(13, 21)):
    """Return values over the whole range of a type."""
    if np.dtype(dtype).kind == "f":
        return RNG.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "f4", "f8"])
def test_every_type_comes_back_as_stored(tmp_path, dtype, byteorder, photometric):
    data = values(dtype)
    for k, told in enumerate(({}, {"compression": "zlib"}, {"tile": (16, 16)})):
        tifffile.imwrite(tmp_path / f"{k}.tif", data, byteorder=byteorder, photometric=photometric, **told)
        read = read_slice(tmp_path / f"{k}.tif")
        assert read.dtype == np.dtype(dtype)
        assert read.dtype.isnative
        np.testing.assert_array_equal(read, data)


def test_labels_with_an_inverting_lut_are_the_stored_ones(tmp_path):
    labels = RNG.integers(0, 3, (9, 14)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "l.tif", labels, photometric="miniswhite")
    np.testing.assert_array_equal(read_labels(tmp_path / "l.tif", 3), labels)


def packed(data, bits):
    """Return rows of numbers of a few bits as bytes, the first number in the highest bits."""
    rows = []
    for row in data:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)))
    return rows


def tiff_of_bits(data, bits, photometric):
    """Return an uncompressed TIFF of 1, 2 or 4 bits."""
    pixels = b"".join(packed(data, bits))
    pixels += b"\0" * (len(pixels) % 2)
    height, width = data.shape
    short = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height}
    entries = {code: struct.pack("<HHIHH", code, 3, 1, value, 0) for code, value in short.items()}
    for code, value in ((273, 8), (279, len(pixels))):
        entries[code] = struct.pack("<HHII", code, 4, 1, value)
    tags = b"".join(entries[code] for code in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(entries)) + tags + bytes(4)


def png(data, depth, color=0):
    """Return a PNG of numbers of `depth` bits; color 0: grey, 2: colours, 3: indices of a palette."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    width = data.shape[1] // (3 if color == 2 else 1)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, data.shape[0], depth, color, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(range(3 << depth))) if color == 3 else b""
    rows = b"".join(b"\0" + row for row in packed(data, depth))
    return b"\x89PNG\r\n\x1a\n" + head + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_not_spread_over_eight(tmp_path, bits, photometric):
    data = RNG.integers(0, 1 << bits, (5, 11)).astype(np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff_of_bits(data, bits, photometric))
    np.testing.assert_array_equal(read_slice(tmp_path / "a.tif"), data)


@pytest.mark.parametrize("color", [0, 3])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_of_few_bits(tmp_path, depth, color):
    data = RNG.integers(0, 1 << depth, (6, 9)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(png(data, depth, color))
    np.testing.assert_array_equal(read_slice(tmp_path / "a.png"), data)


def test_png_of_16_bits(tmp_path):
    grey = values("u2")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_slice(tmp_path / "grey.png"), grey)
    (tmp_path / "colour.png").write_bytes(png(np.ones((4, 9), int), 16, color=2))  # Pillow would give 0 for 1
    with pytest.raises(InputError, match="16-bit colours"):
        read_slice(tmp_path / "colour.png")


def test_palette_tiff_gives_indices_or_colours(tmp_path):
    indices = RNG.integers(0, 3, (6, 7)).astype(np.uint8)
    colors = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    table = np.zeros((3, 256), np.uint16)
    table[:, :3] = colors.T * 257
    for byteorder in "<>":
        tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=table, byteorder=byteorder)
        np.testing.assert_array_equal(read_slice(tmp_path / "a.tif"), indices)
        np.testing.assert_array_equal(read_image(ImageFile(tmp_path / "a.tif"), in_color=True), colors[indices])
        np.testing.assert_array_equal(display_of(ImageFile(tmp_path / "a.tif")).palette[:3], colors)


def test_the_content_tells_the_format(tmp_path):
    data = values("u1")
    Image.fromarray(data).save(tmp_path / "png_called.tif", format="PNG")
    tifffile.imwrite(tmp_path / "tiff_called.png", data, photometric="miniswhite")
    for name in ("png_called.tif", "tiff_called.png"):
        np.testing.assert_array_equal(read_slice(tmp_path / name), data)


def test_planar_colours_that_are_grey(tmp_path):
    grey = values("u1")
    tifffile.imwrite(tmp_path / "a.tif", np.stack([grey] * 3), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_slice(tmp_path / "a.tif"), grey)


STACKS = {
    "ImageJ": {"imagej": True},
    "OME": {"ome": True},
    "plain": {"photometric": "minisblack"},
    "zlib": {"photometric": "minisblack", "compression": "zlib"},
    "big-endian": {"photometric": "minisblack", "byteorder": ">", "metadata": None},
}


@pytest.mark.parametrize("kind", STACKS)
def test_pages_of_stacks(tmp_path, kind):
    data = values("u2", (4, 12, 10))
    tifffile.imwrite(tmp_path / "s.tif", data, **STACKS[kind])
    assert count_pages(tmp_path / "s.tif") == 4
    for page in range(4):
        np.testing.assert_array_equal(read_slice(ImageFile(tmp_path / "s.tif", page)), data[page])
    with pytest.raises(InputError, match="no page 4"):
        read_slice(ImageFile(tmp_path / "s.tif", 4))
    with pytest.raises(InputError, match="4 pages"):
        read_slice(tmp_path / "s.tif")


def test_pages_appended_one_by_one(tmp_path):
    data = values("u1", (3, 8, 9))
    with tifffile.TiffWriter(tmp_path / "s.tif") as file:
        for page in data:
            file.write(page)
    np.testing.assert_array_equal(read_slice(ImageFile(tmp_path / "s.tif", 2)), data[2])
    data = data[::-1]  # the same file with other content is looked at anew
    tifffile.imwrite(tmp_path / "s.tif", data[:2])
    assert count_pages(tmp_path / "s.tif") == 2
    np.testing.assert_array_equal(read_slice(ImageFile(tmp_path / "s.tif", 1)), data[1])


def test_stacks_that_are_none(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(values("u1", (8, 9)))
        file.write(values("u1", (4, 5)))
    with pytest.raises(InputError, match="different sizes"):
        count_pages(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", values("u1", (2, 3, 8, 9)), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match="2 directions"):
        count_pages(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "c.tif", values("u1", (5, 40, 40)), compression="zlib")
    content = (tmp_path / "c.tif").read_bytes()
    (tmp_path / "c.tif").write_bytes(content[: len(content) // 2])
    for read in (count_pages, read_slice, read_labels):  # not as the one page that is left
        with pytest.raises(InputError, match="truncated"):
            read(tmp_path / "c.tif")


def test_stacks_of_few_descriptions(tmp_path):
    """ImageJ describes the first image of a large stack alone; what is announced must be in the file."""
    data = values("u2", (4, 10, 12))
    tifffile.imwrite(tmp_path / "s.tif", data, imagej=True, metadata={"axes": "ZYX"})
    content = bytearray((tmp_path / "s.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "s.tif") as tiff:
        after = tiff.pages[0].offset + 2 + 12 * len(tiff.pages[0].tags)  # where the next description is
    content[after : after + 4] = bytes(4)
    (tmp_path / "s.tif").write_bytes(content)
    assert count_pages(tmp_path / "s.tif") == 4
    np.testing.assert_array_equal(read_slice(ImageFile(tmp_path / "s.tif", 3)), data[3])
    for old in (b"images=4", b"slices=4"):
        content = content.replace(old, old[:-1] + b"9")
    (tmp_path / "s.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"truncated|1 pages|no page 8"):
        read_slice(ImageFile(tmp_path / "s.tif", 8))


def test_numpy_arrays_of_the_other_byte_order(tmp_path):
    np.save(tmp_path / "a.npy", values("u2").astype(">u2"))
    read = read_slice(tmp_path / "a.npy")
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, np.load(tmp_path / "a.npy"))


# Without imagecodecs, LZW is left to Pillow, which is asked in a process of its own. ---------------------------------

WITHOUT_IMAGECODECS = """
import sys
sys.modules["imagecodecs"] = None
import numpy as np
from tomoseg.errors import InputError
from tomoseg.io.slices import read_slice
for path in sys.argv[1:]:
    try:
        np.save(path + ".read.npy", read_slice(__import__("pathlib").Path(path)))
    except InputError as error:
        print(error)
"""


def lzw(segment):
    """Return bytes as TIFF's LZW, 9-bit codes alone: the table is cleared before it grows out of them."""
    codes = []
    for i, byte in enumerate(segment):
        codes += [256] * (i % 200 == 0) + [byte]
    bits = "".join(format(code, "09b") for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def lzw_tiff(data, photometric, byteorder="<", *, difference=False):
    """Return a TIFF of one strip compressed by LZW, with horizontal differences if asked for."""
    stored = np.diff(data, axis=1, prepend=np.zeros_like(data[:, :1])) if difference else data
    pixels = lzw(stored.astype(data.dtype.newbyteorder(byteorder)).tobytes())
    pixels += b"\0" * (len(pixels) % 2)
    height, width = data.shape
    kind = {"u": 1, "i": 2, "f": 3}[data.dtype.kind]
    tags = {256: width, 257: height, 258: 8 * data.itemsize, 259: 5, 262: photometric, 273: 8, 277: 1, 278: height}
    tags |= {279: len(pixels), 317: 2 if difference else 1, 339: kind}
    head = struct.pack(byteorder + "HI", 42, 8 + len(pixels))
    entries = b"".join(struct.pack(byteorder + "HHII", code, 4, 1, tags[code]) for code in sorted(tags))
    count = struct.pack(byteorder + "H", len(tags))
    return (b"II" if byteorder == "<" else b"MM") + head + pixels + count + entries + bytes(4)


def test_lzw_without_imagecodecs_is_as_stored_or_refused(tmp_path):
    """Values that Pillow inverts, gives another sign or swaps."""
    right, refused = {}, []
    for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "f4"):
        for photometric in (0, 1):
            for byteorder in "<>":
                for difference in (False, True) if dtype != "f4" else (False,):
                    data = values(dtype, (7, 10))
                    path = tmp_path / f"{dtype}_{photometric}_{'be' if byteorder == '>' else 'le'}_{difference}.tif"
                    path.write_bytes(lzw_tiff(data, photometric, byteorder, difference=difference))
                    right[path] = data
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_IMAGECODECS, *map(str, right)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for path, data in right.items():
        read = path.with_name(path.name + ".read.npy")
        if read.exists():
            found = np.load(read)
            assert found.dtype == data.dtype, path.name
            np.testing.assert_array_equal(found, data, err_msg=path.name)
        else:
            assert f"{path} holds" in done.stdout
            refused.append(path.name)
    assert done.stdout.count("imagecodecs can decode") == len(refused)
    must_be_read = [f"{t}_{p}_le_{d}.tif" for t, p in (("u1", 0), ("u1", 1), ("i1", 1), ("u2", 1), ("i2", 1), ("u4", 1))
                    for d in (False, True)]  # fmt: skip
    assert not set(must_be_read) & set(refused)
    if importlib.util.find_spec("imagecodecs") is not None:  # which proves that the inputs are sound
        for path, data in right.items():
            np.testing.assert_array_equal(read_slice(path), data)


def test_bilevel_masks_of_fax_compression(tmp_path):
    mask = values("u1") > 100
    for compression in ("group4", "packbits"):
        Image.fromarray(mask).save(tmp_path / "m.tif", compression=compression)
        with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
            white_is_zero = tiff.pages[0].photometric == 0
        np.testing.assert_array_equal(read_slice(tmp_path / "m.tif"), mask != white_is_zero)


def test_an_animated_png_is_no_slice(tmp_path):
    frames = [Image.fromarray(values("u1", (4, 4))) for _ in range(2)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    (tmp_path / "a.png").write_bytes(file.getvalue())
    with pytest.raises(InputError, match="animated"):
        read_slice(tmp_path / "a.png")


def test_a_damaged_numpy_header_is_one_clear_error(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((4, 5), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"descr", b"\\escr"))
    for read in (read_slice, open_raw):
        with pytest.raises(InputError, match="cannot be read"):
            read(path)
