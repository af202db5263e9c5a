"""TIFF stacks: tifffile reads the pages, Pillow those whose compression tifffile cannot undo by itself (LZW).

The scale comes from ImageJ's or OME's description, or from the tags of microscope software, which RosettaSciIO reads.
TIFF's own resolution tags are not used: most programs write 72 dpi or 1 there.
"""

import gc
import math
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.limits import reason_of, require_plausible
from tomoseg.io.series import (
    COLOUR_IMAGES,
    RawSeries,
    captured_messages,
    choose_stack,
    contiguous,
    jsonable,
    native,
    require_bytes,
    stack_shape,
)
from tomoseg.io.units import PixelSize, checked_pixel_size

# Kinds of TIFF that tifffile would complete from other files: read as the pages of this file only.
ALONE: dict[str, Any] = {"_multifile": False, "is_mmstack": False, "is_ndtiff": False}
# Tags by which Gatan, FEI, TVIPS, Zeiss and Olympus tell their scale, and JEOL's name.
_SCALE_TAGS = {65003, 65009, 34680, 34682, 37706, 34118, 33471, 33560, 271}
_MOST_SERIES = 100  # of one page each: reading all their scales takes long
_MOST_MESSAGES = 5


def read(path: Path) -> RawSeries:
    """Open a TIFF stack.

    Raises `InputError` if the file holds a single image, colours or several channels, or is truncated.
    """
    import tifffile

    with captured_messages("tifffile") as messages:
        tiff = tifffile.TiffFile(path, **ALONE)
        try:
            series = _series(path, tiff, messages)
        except BaseException:
            tiff.close()
            raise
    series.warnings += [f"tifffile reports for {path.name}: {text}" for text in messages[:_MOST_MESSAGES]]
    return series


def _series(path: Path, tiff: Any, messages: list[str]) -> RawSeries:
    stack, note = _chosen(path, tiff)
    n_pages = len(tiff.pages)  # follows the chain of pages to its end, which may be lost
    described = len(stack.shape) >= 3 and stack.dataoffset is not None
    if any("invalid page offset" in text for text in messages) and not described:
        raise InputError(f"{path} is truncated: its list of pages breaks off after {n_pages}; copy it again")
    shape = stack_shape(path, [n for n in stack.shape[:-2] if n > 1] + list(stack.shape[-2:]), stack.dtype)
    series = RawSeries(path, "TIFF", shape, native(stack.dtype), _fetch(path, tiff, stack, shape), close=tiff.close)
    series.pixel_size = _pixel_size(path, tiff, stack)
    tags = {tag.name: tag.value for tag in stack.keyframe.tags if tag.name in {"Software", "DateTime", "Make", "Model"}}
    series.metadata = {"tags": jsonable(tags), "imagej": jsonable(_imagej(tiff))}
    series.notes += [note] if note else []
    return series


def _imagej(tiff: Any) -> dict[str, Any]:
    """Return ImageJ's own settings without the labels and display tables, which may be long."""
    settings = tiff.imagej_metadata if tiff.is_imagej else None
    return {key: value for key, value in (settings or {}).items() if key not in {"Labels", "LUTs", "Ranges", "Info"}}


def _chosen(path: Path, tiff: Any) -> tuple[Any, str]:
    """Return the stack among the series of pages in the file."""
    from tifffile import TiffPageSeries

    found = list(tiff.series)
    if not found:
        raise InputError(f"{path} holds no image; it may be truncated")
    if any("S" in series.axes for series in found):
        raise InputError(f"{path} {COLOUR_IMAGES}")
    stacks = [series for series in found if len(series.shape) >= 3]
    # Pages that were appended one by one come as one series each.
    if not stacks and len(found) > 1 and len({(series.shape, series.dtype) for series in found}) == 1:
        pages = [series.pages[0] for series in found]
        return TiffPageSeries(pages, (len(pages), *found[0].shape), found[0].dtype, "IYX", parent=tiff), ""
    index, note = choose_stack([f"series {i}" for i, _ in enumerate(stacks)] or ["image"])
    return (stacks or found)[index], note


def _fetch(path: Path, tiff: Any, stack: Any, shape: tuple[int, int, int]) -> Callable[[slice], Array]:
    """Return how images are read: in one go if they lie one after the other, else page by page."""
    if stack.dataoffset is not None and stack.keyframe.is_memmappable:
        return contiguous(path, stack.dataoffset, shape, np.dtype(tiff.byteorder + stack.dtype.str[1:]))
    _require_pages(path, stack, shape[0])
    # Many pages or strips may point to the same bytes: the file's size counts, not theirs.
    require_plausible(path, math.prod(shape) * stack.dtype.itemsize, path.stat().st_size)
    if not tifffile_decodes(stack.keyframe):
        return _pillow_fetch(path, [page.index for page in stack.pages])

    def fetch(part: slice) -> Array:
        return np.stack([stack.pages[i].asarray().reshape(shape[1:]) for i in range(*part.indices(shape[0]))])

    return fetch


def _require_pages(path: Path, stack: Any, n_images: int) -> None:
    """Check that every page is in the file."""
    if len(stack.pages) < n_images:
        raise InputError(f"{path} is truncated: it announces {n_images} images but has {len(stack.pages)} pages")
    for i in range(n_images):
        page = stack.pages[i]
        if page is None:
            raise InputError(f"{path} is truncated: page {i + 1} of {n_images} is missing")
        ends = (offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True))
        require_bytes(path, max(ends, default=0), n_images, i)


def tifffile_decodes(page: Any) -> bool:
    """Return whether tifffile can undo the compression of a page without further packages."""
    from tifffile import TIFF

    try:
        return TIFF.DECOMPRESSORS[page.compression] is not None and TIFF.UNPREDICTORS[page.predictor] is not None
    except (KeyError, ValueError):  # tifffile's way to say that a codec is not installed
        return False


def _pillow_fetch(path: Path, pages: list[int]) -> Callable[[slice], Array]:
    from PIL import Image

    def fetch(part: slice) -> Array:
        images = []
        with Image.open(path) as file:
            for page in pages[part]:
                file.seek(page)
                images.append(np.asarray(file))
        return np.stack(images)

    return fetch


def _pixel_size(path: Path, tiff: Any, stack: Any) -> PixelSize:
    if tiff.is_imagej:
        return _imagej_pixel_size(tiff, stack)
    if tiff.is_ome:
        return _ome_pixel_size(tiff)
    if not any(code in stack.keyframe.tags for code in _SCALE_TAGS) or len(tiff.series) > _MOST_SERIES:
        return PixelSize()
    return _tag_pixel_size(path)


def _imagej_pixel_size(tiff: Any, stack: Any) -> PixelSize:
    """Return ImageJ's scale: pixels per unit as fractions, the unit in the description."""
    unit = str(_imagej(tiff).get("unit", ""))
    sides = []
    for name in ("YResolution", "XResolution"):
        tag = stack.keyframe.tags.get(name)
        pixels, units = tag.value if tag is not None else (0, 1)
        sides.append(units / pixels if pixels else 0.0)
    return checked_pixel_size((sides[0], sides[1]), (unit, unit), "ImageJ scale")


def _ome_pixel_size(tiff: Any) -> PixelSize:
    try:
        root = ET.fromstring(tiff.ome_metadata)  # noqa: S314 - entities are not expanded
    except ET.ParseError:
        return PixelSize(doubt="the OME description is not valid XML")
    pixels = next((node for node in root.iter() if node.tag.endswith("}Pixels") or node.tag == "Pixels"), None)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return PixelSize()
    try:
        sides = float(pixels.get("PhysicalSizeY", "0")), float(pixels.get("PhysicalSizeX", "0"))
    except ValueError:
        return PixelSize(doubt="the pixel size in the OME description is not a number")
    # The OME schema has µm where no unit is given.
    units = pixels.get("PhysicalSizeYUnit", "µm"), pixels.get("PhysicalSizeXUnit", "µm")
    return checked_pixel_size(sides, units, "OME description")


def _tag_pixel_size(path: Path) -> PixelSize:
    """Return the scale from the tags of Digital Micrograph, FEI, TVIPS, JEOL, Zeiss or Olympus software."""
    from rsciio.tiff import file_reader

    try:
        with captured_messages("rsciio", "tifffile"):
            signals = file_reader(str(path), lazy=True, **ALONE)
            axes = [dict(axis) for axis in signals[0]["axes"]]
            # RosettaSciIO leaves the file open for its lazy array, which is not used here.
            del signals
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
    except Exception as error:  # on odd tags RosettaSciIO raises anything
        return PixelSize(doubt=f"the scale in the TIFF tags cannot be read ({reason_of(error)})")
    by_name = {axis["name"]: axis for axis in axes}
    y, x = by_name.get("height"), by_name.get("width")
    if x is None or y is None or (not x["units"] and not y["units"]):
        return PixelSize()
    scales = float(y["scale"]), float(x["scale"])
    return checked_pixel_size(scales, (y["units"], x["units"]), "microscope tags of the TIFF")
