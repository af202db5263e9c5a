"""Single images in files: the numbers that were stored, in native byte order, however they would be shown.

tifffile reads TIFF, Pillow PNG, BMP and JPEG, and those TIFF whose compression tifffile cannot undo by itself (LZW
without imagecodecs, CCITT, JPEG). Pillow gives what is to be seen: it inverts images whose 0 is white, spreads 2 and 4
bits over 8, and knows no signed bytes. All this is undone here.
"""

import math
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError, shown
from tomoseg.io.limits import reason_of, require_plausible
from tomoseg.io.series import captured_messages

LOSSLESS = (".tif", ".tiff", ".png", ".bmp", ".npy")
LOSSY = (".jpg", ".jpeg")
IMAGE_SUFFIXES = (*LOSSLESS, *LOSSY)
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PILLOW_FORMATS = ("PNG", "BMP", "JPEG")
_TIFF_COMPRESSIONS = {1, 5, 8, 32773, 32946, 34925, 50000}  # none, LZW, deflate, PackBits, LZMA, ZSTD
_PILLOW_COMPRESSIONS = {2, 3, 4, 5, 6, 7}  # CCITT, LZW, JPEG
_JPEG = {6, 7}
_WHITE_IS_ZERO, _PALETTE = 0, 3  # TIFF's photometric interpretation
_GREY = 0  # PNG's type of colour
# Kinds of TIFF that tifffile would complete from other files: read as the pages of this file only.
ALONE: dict[str, Any] = {"_multifile": False, "is_mmstack": False, "is_ndtiff": False}
T = TypeVar("T")


@dataclass(frozen=True)
class ImageFile:
    """One image: a file, or a page of a TIFF stack."""

    path: Path
    page: int | None = None  # from 0; None where the file holds one image

    @property
    def name(self) -> str:
        """The name of the file, and the page where it is a stack."""
        return self.path.name if self.page is None else f"{self.path.name} (page {self.page}, counted from 0)"

    def __str__(self) -> str:
        return str(self.path.with_name(self.name)) if self.page is not None else str(self.path)


def composed(text: str) -> str:
    """Return a name in Unicode's composed form (NFC): macOS writes file names decomposed, other systems composed."""
    return unicodedata.normalize("NFC", text)


def read_image(file: ImageFile, *, in_color: bool = False) -> Array:
    """Read an image (h, w), or (h, w, channels), as stored; of a palette image the indices, or colours if `in_color`.

    Raises `InputError` if it is damaged, of an unknown format, or a stack of which no page is named.
    """
    path = file.path
    if path.suffix.lower() == ".npy":
        return native(_guarded(path, _read_npy))
    if _is_tiff(path):
        return native(_guarded(path, lambda _: _read_tiff(file, in_color)))
    return native(_guarded(path, lambda _: _read_by_pillow(path, in_color)))


def native(data: Array) -> Array:
    """Return an array in the byte order of this machine."""
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def is_lossy(path: Path) -> bool:
    """Tell whether an image file changes values: JPEG, or TIFF with its compression.

    Raises `InputError` where the file cannot be read.
    """
    if path.suffix.lower() in LOSSY:
        return True

    def compressed(path: Path) -> bool:
        with _opened(path) as (tiff, _):
            return int(tiff.pages[0].compression) in _JPEG

    return _is_tiff(path) and _guarded(path, compressed)


def count_pages(path: Path) -> int:
    """Return the number of images in a file: 1, or the pages of a TIFF stack; raise `InputError` as `read_image`."""
    if not _is_tiff(path):
        return 1

    return _guarded(path, lambda _: _stack(path).n_pages)


@dataclass(frozen=True)
class Display:
    """How the numbers of an image are meant to be shown."""

    palette: NDArray[np.uint8] | None = None  # the colours (n, 3) of its indices, where it is a palette image
    zero_is_white: bool = False


def display_of(file: ImageFile) -> Display:
    """Return how an image is meant to be shown; raise `InputError` as `read_image`."""
    path = file.path
    if path.suffix.lower() == ".npy":
        return Display()
    return _guarded(path, lambda _: _tiff_display(path) if _is_tiff(path) else _pillow_display(path))


def _guarded(path: Path, read: Callable[[Path], T]) -> T:
    """Call a function that reads a file, and say what is wrong with the file where it fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; what matters raises
            return read(path)
    except InputError:
        raise
    except Exception as error:  # image libraries raise nearly anything on a broken file
        raise InputError(f"{path} cannot be read as an image: {reason_of(error)}") from error


def _is_tiff(path: Path) -> bool:
    """Tell a TIFF by its content: programs write TIFF into .png, and PNG into .tif."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _TIFF_HEADS
    except OSError as error:
        raise InputError(f"{path} cannot be read as an image: {reason_of(error)}") from error


# NumPy ----------------------------------------------------------------------------------------------------------------


def _read_npy(path: Path) -> Array:
    """Read a NumPy file; one that holds Python objects is refused, because reading them runs code."""
    with path.open("rb") as file:
        shape, by_columns, dtype = npy_header(path, file)
        return np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order="F" if by_columns else "C")


def npy_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array of one or several grey images: shape, whether in Fortran order, and type.

    Afterwards the file is positioned at the first pixel. Raises `InputError` if it holds something else, or fewer
    pixels than the header claims; `ValueError` if it is not a NumPy file.
    """
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in headers:
        raise InputError(f"{path} is a NumPy file of format {version}, which is not for images")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's about text in a damaged header
        shape, by_columns, dtype = headers[version](file)
    if dtype.hasobject or dtype.kind not in "uifb":
        raise InputError(f"{path} holds values of type {shown(dtype)}, which are not numbers")
    if not 2 <= len(shape) <= 3 or min(shape) < 1:
        raise InputError(f"{path} is not a single grey image (shape {shown(shape)})")
    n, stored = math.prod(shape), path.stat().st_size - file.tell()
    if n * dtype.itemsize > stored:
        raise InputError(f"{path} is truncated: its header claims {n * dtype.itemsize} bytes, it has {stored}")
    return shape, by_columns, dtype


# TIFF -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stack:
    """The pages of a TIFF, all of one shape and type."""

    n_pages: int
    # Where the description of each page is in the file, and its number there; fewer than `n_pages` where one
    # description stands for images that follow each other.
    pages: tuple[tuple[int, int], ...]
    start: int | None  # offset of the pixels in the file where they follow each other


def _stack(path: Path) -> _Stack:
    """Return the pages of a TIFF. Finding them takes long in large stacks, so those of the last files are kept."""
    facts = path.stat()
    return _found_stack(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=16)
def _found_stack(path: Path, _changed: int, size: int) -> _Stack:
    """Find the pages of a TIFF; raise `InputError` if they differ, or lie along more than one axis."""
    with _opened(path) as (tiff, messages):
        found = list(tiff.series)
        n_pages = len(tiff.pages)  # follows the chain of pages to its end, which may be lost
        if any("invalid page offset" in text for text in messages):
            raise InputError(f"{path} is truncated: its list of pages breaks off after {n_pages}; copy it again")
        if not found:
            raise InputError(f"{path} cannot be read as an image: it holds none, and may be truncated")
        if len({(series.shape, series.dtype) for series in found}) > 1:
            raise InputError(f"{path} holds {n_pages} pages of different sizes or types: save the slices alone")
        if len(found) > 1:  # pages that were appended one by one
            return _Stack(len(found), tuple((s.pages[0].offset, s.pages[0].index) for s in found), None)
        series = found[0]
        over = [n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXS" and n > 1]
        if len(over) > 1:
            raise InputError(
                f"{path} holds images in {len(over)} directions ({' x '.join(map(str, over))}): save a stack of slices"
            )
        pages = list(series.pages)
        if any(page is None for page in pages):
            raise InputError(f"{path} is truncated: page {pages.index(None) + 1} of {len(pages)} is missing")
        stack = _Stack(over[0] if over else 1, tuple((p.offset, p.index) for p in pages), series.dataoffset)
        needed = stack.n_pages * pages[0].size * (series.dtype.itemsize if series.dtype else 1)
        if len(pages) < stack.n_pages and (stack.start is None or stack.start + needed > size):
            raise InputError(f"{path} is truncated: it announces {stack.n_pages} images but has {len(pages)} pages")
        return stack


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, list[str]]]:
    """Open a TIFF with tifffile; return it and what tifffile reports."""
    import tifffile

    with captured_messages("tifffile") as messages, tifffile.TiffFile(path, **ALONE) as tiff:
        yield tiff, messages


def _read_tiff(file: ImageFile, in_color: bool) -> Array:
    from tifffile import TiffPage

    path, stack = file.path, _stack(file.path)
    number = _page_of(file, stack)
    with _opened(path) as (tiff, _):
        if len(stack.pages) < stack.n_pages:
            return _following(path, tiff, stack, number)
        offset, index = stack.pages[number]
        tiff.filehandle.seek(offset)
        page = TiffPage(tiff, index)
        data = _pixels(path, page)
        return _as_shown(page, data) if in_color else data


def _page_of(file: ImageFile, stack: _Stack) -> int:
    """Return the number of the page to read."""
    if file.page is None and stack.n_pages > 1:
        raise InputError(
            f"{file.path} holds {stack.n_pages} pages, one image is expected here: save it as a separate file"
        )
    if (file.page or 0) >= stack.n_pages:
        raise InputError(f"{file.path} holds {stack.n_pages} pages, and no page {file.page} (counted from 0)")
    return file.page or 0


def _following(path: Path, tiff: Any, stack: _Stack, number: int) -> Array:
    """Read one of many images that follow each other without a description of their own (large stacks of ImageJ)."""
    page = tiff.pages[0]
    if stack.start is None or page.dtype is None or len(page.shape) != 2:
        raise InputError(f"{path} holds {stack.n_pages} images of another kind than grey ones: save them as pages")
    dtype = np.dtype(tiff.byteorder + page.dtype.char)
    offset = stack.start + number * page.size * dtype.itemsize
    return np.fromfile(path, dtype, page.size, offset=offset).reshape(page.shape)


def _pixels(path: Path, page: Any) -> Array:
    """Return the stored values of a page, colours as the last axis."""
    code, stored = int(page.compression), path.stat().st_size
    if code not in _TIFF_COMPRESSIONS | _PILLOW_COMPRESSIONS:
        raise InputError(f"{path} is compressed as {shown(page.compression)}: save it as LZW, deflate or plain TIFF")
    require_plausible(path, page.size * (page.dtype.itemsize if page.dtype else 1), stored)
    if code not in _TIFF_COMPRESSIONS or not tifffile_decodes(page):
        return pixels_by_pillow(path, page)
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not segments or any(count < 1 or offset < 1 or offset + count > stored for offset, count in segments):
        raise InputError(f"{path} is truncated: pixels are missing, it has {stored} bytes")
    try:
        data = np.asarray(page.asarray(maxworkers=1))
    except NotImplementedError:  # 2, 4 or 12 bits without imagecodecs
        return pixels_by_pillow(path, page)
    except ImportError as error:  # ZSTD without imagecodecs, before Python 3.14
        raise _needs_imagecodecs(path, page) from error
    return np.moveaxis(data, 0, -1) if data.ndim == 3 and page.axes.startswith("S") else data


def tifffile_decodes(page: Any) -> bool:
    """Return whether tifffile can undo the compression of a page without further packages."""
    from tifffile import TIFF

    try:
        return TIFF.DECOMPRESSORS[page.compression] is not None and TIFF.UNPREDICTORS[page.predictor] is not None
    except (KeyError, ValueError):  # tifffile's way to say that a codec is not installed
        return False


def pixels_by_pillow(path: Path, page: Any) -> Array:
    """Let Pillow decompress a page, and return the values that are stored in it."""
    from PIL import Image, UnidentifiedImageError

    big_endian = page.parent.byteorder == ">"
    if big_endian and page.dtype is not None and page.dtype.itemsize > 1 and page.dtype.char != "H":
        raise _needs_imagecodecs(path, page)  # Pillow would swap bytes that libtiff has already swapped
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            image.seek(page.index)
            mode, data = image.mode, np.asarray(image)
    except UnidentifiedImageError as error:
        raise _needs_imagecodecs(path, page) from error
    if data.ndim != 2:
        return data
    bits = int(page.bitspersample)
    if page.photometric == _WHITE_IS_ZERO and mode in {"1", "L"}:
        data = ~data
    if mode == "L" and bits < 8:
        data = data // (255 // ((1 << bits) - 1))
    data = native(data)
    if page.dtype is None or page.dtype == data.dtype:
        return data
    wanted = page.dtype.newbyteorder("=")
    # The same bytes with another sign (int8, uint32), or numbers that Pillow holds in a larger type (int16).
    return data.view(wanted) if wanted.itemsize == data.itemsize and wanted.kind in "ui" else data.astype(wanted)


def _needs_imagecodecs(path: Path, page: Any) -> InputError:
    compression = shown(getattr(page.compression, "name", page.compression))
    return InputError(
        f"{path} holds {page.bitspersample}-bit values (compression: {compression.lower()}) that only the package "
        "imagecodecs can decode: install it, or save the image as 8, 16 or 32 bit without compression"
    )


def _as_shown(page: Any, data: Array) -> Array:
    """Return the colours (h, w, 3) that a palette stands for, or the grey (h, w) that is shown for a stored value."""
    colors = _colors(page)
    if colors is not None:
        return colors[np.minimum(data, len(colors) - 1)]
    grey = np.uint8(255) * data.astype(np.uint8) if data.dtype.kind == "b" else data
    inverted = page.photometric == _WHITE_IS_ZERO and grey.dtype == np.uint8
    return 255 - grey if inverted else grey


def _colors(page: Any) -> NDArray[np.uint8] | None:
    """Return the palette (n, 3) of a page."""
    if page.photometric != _PALETTE or page.colormap is None:
        return None
    return np.asarray(page.colormap.T >> 8, np.uint8)


def _tiff_display(path: Path) -> Display:
    with _opened(path) as (tiff, _):
        page = tiff.pages[0]  # all pages of a stack are of one kind
        return Display(_colors(page), page.photometric == _WHITE_IS_ZERO)


# Pillow ---------------------------------------------------------------------------------------------------------------


def _read_by_pillow(path: Path, in_color: bool) -> Array:
    """Read a PNG, BMP or JPEG."""
    from PIL import Image

    # Pillow goes by the content, so the formats are named: it would run Ghostscript on PostScript called .png.
    with Image.open(path, formats=_PILLOW_FORMATS) as image:
        bytes_per_px = {"1": 1, "L": 1, "P": 1, "I;16": 2}.get(image.mode, 4)
        require_plausible(path, image.width * image.height * bytes_per_px, path.stat().st_size)
        if getattr(image, "n_frames", 1) > 1:
            raise InputError(f"{path} is animated: save each slice as a separate file")
        if in_color and image.mode in {"1", "P"}:
            return np.asarray(image.convert("RGB"))
        data = np.asarray(image)
        return _png_values(path, data) if image.format == "PNG" else data


def _png_values(path: Path, data: Array) -> Array:
    """Return the stored values of a PNG: Pillow spreads 2 and 4 bits over 8, and cuts 16-bit colours to 8 bits."""
    with path.open("rb") as file:
        depth, color = file.read(26)[24:]  # of the header, which must come first
    if color == _GREY:
        return (
            data // (255 // ((1 << depth) - 1))
            if depth in {2, 4}
            else data.astype(np.uint16 if depth == 16 else data.dtype)
        )
    if depth == 16:
        raise InputError(f"{path} is a PNG of 16-bit colours, of which only 8 bits can be read: save it as 16-bit grey")
    return data


def _pillow_display(path: Path) -> Display:
    from PIL import Image

    with Image.open(path, formats=_PILLOW_FORMATS) as image:
        colors = image.getpalette("RGB") if image.mode == "P" else None
    return Display(None if colors is None else np.array(colors, np.uint8).reshape(-1, 3))
