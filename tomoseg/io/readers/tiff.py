"""TIFF stacks: tifffile reads the pages, Pillow those whose compression tifffile cannot undo by itself (LZW).

The scale comes from ImageJ's or OME's description, or from the tags of microscope software, which RosettaSciIO reads.
TIFF's own resolution tags are not used: most programs write 72 dpi or 1 there.
"""

import gc
import math
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.image_files import ALONE, pixels_by_pillow, tifffile_decodes
from tomoseg.io.limits import reason_of, require_plausible
from tomoseg.io.sandbox import import_beyond_limits
from tomoseg.io.series import (
    COLOUR_IMAGES,
    RawSeries,
    captured_messages,
    choose_signal,
    contiguous,
    jsonable,
    native,
    require_bytes,
    signals_of,
    stack_shape,
)
from tomoseg.io.units import PixelSize, checked_pixel_size

# Tags by which Gatan, FEI, TVIPS, Zeiss and Olympus tell their scale, and JEOL's name.
_SCALE_TAGS = {65003, 65009, 34680, 34682, 37706, 34118, 33471, 33560, 271}
_MOST_SERIES = 100  # of one page each: reading all their scales takes long
_MOST_MESSAGES = 5


def read(path: Path, signal: str | None = None) -> RawSeries:
    """Open a TIFF stack, or one channel of a stack of several.

    Raises `InputError` if the file holds colours or more dimensions, or is truncated.
    """
    import tifffile

    with captured_messages("tifffile") as messages:
        tiff = tifffile.TiffFile(path, **ALONE)
        try:
            series = _series(path, tiff, messages, signal)
        except BaseException:
            tiff.close()
            raise
    series.warnings += [f"tifffile reports for {path.name}: {text}" for text in messages[:_MOST_MESSAGES]]
    return series


def _series(path: Path, tiff: Any, messages: list[str], signal: str | None) -> RawSeries:
    parts = _parts(path, tiff)
    signals = signals_of(
        [part.name for part in parts],
        [part.shape for part in parts],
        [part.stack.dtype for part in parts],
        [part.shape[0] if len(part.shape) == 3 else int(len(part.shape) == 2) for part in parts],
    )
    index, note = choose_signal(path, signals, signal)
    part = parts[index]
    stack = part.stack
    n_pages = len(tiff.pages)  # follows the chain of pages to its end, which may be lost
    described = len(stack.shape) >= 3 and stack.dataoffset is not None
    if any("invalid page offset" in text for text in messages) and not described:
        raise InputError(f"{path} is truncated: its list of pages breaks off after {n_pages}; copy it again")
    shape = stack_shape(path, part.shape, stack.dtype)
    fetch = _fetch(path, tiff, stack, shape, part.pages)
    series = RawSeries(path, "TIFF", shape, native(stack.dtype), fetch, close=tiff.close)
    series.signals, series.signal = signals, index
    series.pixel_size = _pixel_size(path, tiff, stack)
    tags = {tag.name: tag.value for tag in stack.keyframe.tags if tag.name in {"Software", "DateTime", "Make", "Model"}}
    series.metadata = {"tags": jsonable(tags), "imagej": jsonable(_imagej(tiff))}
    series.notes += [note] if note else []
    return series


def _imagej(tiff: Any) -> dict[str, Any]:
    """Return ImageJ's own settings without the labels and display tables, which may be long."""
    settings = tiff.imagej_metadata if tiff.is_imagej else None
    return {key: value for key, value in (settings or {}).items() if key not in {"Labels", "LUTs", "Ranges", "Info"}}


@dataclass(frozen=True)
class _Part:
    """A stack in the file, or one channel of it: its shape without dimensions of 1, and its pages in the stack."""

    name: str
    stack: Any
    shape: tuple[int, ...]
    pages: tuple[int, ...]


def _parts(path: Path, tiff: Any) -> list[_Part]:
    """Return the stacks and channels of the file."""
    from tifffile import TiffPageSeries

    found = list(tiff.series)
    if not found:
        raise InputError(f"{path} holds no image; it may be truncated")
    if any("S" in series.axes for series in found):
        raise InputError(f"{path} {COLOUR_IMAGES}")
    # Pages that were appended one by one come as one series each.
    alike = len({(series.shape, series.dtype) for series in found}) == 1
    if len(found) > 1 and alike and len(found[0].shape) == 2:
        pages = [series.pages[0] for series in found]
        found = [TiffPageSeries(pages, (len(pages), *found[0].shape), found[0].dtype, "IYX", parent=tiff)]
    channels = _channel_names(tiff)
    return [part for i, stack in enumerate(found) for part in _channels(stack, f"series {i + 1}", channels)]


def _channels(stack: Any, name: str, channels: Sequence[str]) -> list[_Part]:
    """Return a stack as it is or, where it has another dimension than that of its channels, channel by channel."""
    sizes, axes = tuple(int(n) for n in stack.shape[:-2]), stack.axes[:-2]
    shape = (*(n for n in sizes if n > 1), *(int(n) for n in stack.shape[-2:]))
    n_pages = math.prod(sizes)
    where = axes.find("C")
    if len(shape) != 4 or where < 0 or sizes[where] < 2:
        return [_Part(name, stack, shape, tuple(range(n_pages)) if len(shape) <= 3 else ())]
    n_channels = sizes[where]
    pages = np.moveaxis(np.arange(n_pages).reshape(sizes), where, 0).reshape(n_channels, -1)
    names = channels if len(channels) == n_channels else [f"channel {c + 1}" for c in range(n_channels)]
    shape = (pages.shape[1], *shape[-2:])
    return [_Part(names[c], stack, shape, tuple(pages[c].tolist())) for c in range(n_channels)]


def _channel_names(tiff: Any) -> list[str]:
    """Return the names that an OME description gives to channels; none where there are no names."""
    if not tiff.is_ome:
        return []
    try:
        root = ET.fromstring(tiff.ome_metadata)  # noqa: S314 - entities are not expanded
    except ET.ParseError:
        return []
    names = [node.get("Name") or "" for node in root.iter() if node.tag.rpartition("}")[2] == "Channel"]
    return names if all(names) else []


def _fetch(
    path: Path, tiff: Any, stack: Any, shape: tuple[int, int, int], pages: tuple[int, ...]
) -> Callable[[slice], Array]:
    """Return how images are read: in one go if they lie one after the other, else page by page."""
    if stack.dataoffset is not None and stack.keyframe.is_memmappable:
        dtype = np.dtype(tiff.byteorder + stack.dtype.str[1:])
        together = contiguous(path, stack.dataoffset, (max(pages) + 1, *shape[1:]), dtype)
        if pages == tuple(range(len(pages))):
            return together
        return lambda part: np.concatenate([together(slice(page, page + 1)) for page in pages[part]])
    _require_pages(path, stack, max(pages) + 1)
    # Many pages or strips may point to the same bytes: the file's size counts, not theirs.
    require_plausible(path, math.prod(shape) * stack.dtype.itemsize, path.stat().st_size)
    if not tifffile_decodes(stack.keyframe):
        return lambda part: np.stack([pixels_by_pillow(path, stack.pages[page]) for page in pages[part]])

    def fetch(part: slice) -> Array:
        return np.stack([stack.pages[page].asarray().reshape(shape[1:]) for page in pages[part]])

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

    import_beyond_limits("dask.array")  # RosettaSciIO would
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
