"""FEI/Thermo TIA series: the pixels in a .ser file, the settings in an .emi file beside it.

Read here and not with RosettaSciIO, which loads the whole series into memory. The format was worked out by
C. Boothroyd (http://www.er-c.org/cbb/info/TIAformat): a header, a table of offsets, and for each image 50 bytes of
calibration and size followed by its pixels, bottom row first.
"""

import struct
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.series import RawSeries, Signal, choose_signal, native, require_bytes, stack_shape
from tomoseg.io.units import PixelSize, checked_pixel_size

_HEADER = struct.Struct("<hhhiiii")
_IMAGE = struct.Struct("<ddiddihii")
_IMAGES_2D = 0x4122
_LARGE_VERSION = 0x0220  # from here on offsets have 8 bytes
_DTYPES = {1: "u1", 2: "u2", 3: "u4", 4: "i1", 5: "i2", 6: "i4", 7: "f4", 8: "f8", 9: "c8", 10: "c16"}
_LARGEST_SERIES = 1_000_000
_SEARCHED_BYTES, _LARGEST_SETTINGS = 64 << 20, 4 << 20  # of an .emi file, and of the XML in it


@dataclass(frozen=True)
class _Table:
    """Where the images of a .ser file are, and their common size and type."""

    offsets: tuple[int, ...]
    shape_yx: tuple[int, int]
    dtype: np.dtype[Any]
    pixel_m: tuple[float, float]  # height, width


def read(path: Path, signal: str | None = None) -> RawSeries:
    """Open a TIA series by its .ser or its .emi file; of an .emi with several .ser files, each is a signal.

    Raises `InputError` if the .ser file is missing or truncated, or holds spectra or images of different sizes.
    """
    files, settings = _files(path)
    signals = [_signal(file) for file in files] if len(files) > 1 else []
    index, note = choose_signal(path, signals, signal) if signals else (0, "")
    data = files[index]
    table = _table(data)
    n = len(table.offsets)
    shape = stack_shape(data, (n, *table.shape_yx), table.dtype)

    def fetch(part: slice) -> Array:
        size = table.shape_yx[0] * table.shape_yx[1]
        images = [
            np.fromfile(data, table.dtype, size, offset=offset + _IMAGE.size).reshape(table.shape_yx)[::-1]
            for offset in table.offsets[part]
        ]
        return np.stack(images)

    series = RawSeries(data, "TIA", shape, native(table.dtype), fetch, signals=signals, signal=index)
    series.metadata = _settings(settings) if settings is not None else {}
    if "diffraction" in str(series.metadata.get("Mode", "")).lower() and "STEM" not in str(series.metadata["Mode"]):
        series.pixel_size = PixelSize(
            doubt="the pixel size in the TIA series is not used: the images were taken in diffraction mode"
        )
    else:
        series.pixel_size = checked_pixel_size(table.pixel_m, ("m", "m"), "TIA series")
    series.notes += [note] if note else []
    return series


def _files(path: Path) -> tuple[list[Path], Path | None]:
    """Return the .ser files with the images, and the .emi file that belongs to them if there is one."""
    if path.suffix.lower() != ".emi":
        stem = path.stem.rsplit("_", 1)[0] if path.stem.rsplit("_", 1)[-1].isdigit() else path.stem
        emi = next((p for p in (path.with_suffix(".emi"), path.with_name(f"{stem}.emi")) if p.is_file()), None)
        return [path], emi
    numbered = sorted(p for p in path.parent.glob("*.ser") if p.stem.rsplit("_", 1)[0] == path.stem)
    found = [*([path.with_suffix(".ser")] if path.with_suffix(".ser").is_file() else []), *numbered]
    if not found:
        raise InputError(f"{path} holds settings only; put the .ser file with its images beside it")
    return found, path


def _signal(path: Path) -> Signal:
    """Return what a .ser file holds; no images where it cannot be read as some."""
    try:
        table = _table(path)
    except InputError:
        return Signal(path.stem, (), "", 0)
    return Signal(path.stem, (len(table.offsets), *table.shape_yx), str(table.dtype), len(table.offsets))


def _table(path: Path) -> _Table:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEADER.size + 8)
        if len(head) < _HEADER.size + 8:
            raise InputError(f"{path} is truncated: it has {size} bytes, fewer than a TIA header")
        order, identifier, version, kind, _tags, _total, valid = _HEADER.unpack(head[: _HEADER.size])
        if (order, identifier) != (0x4949, 0x0197):
            raise InputError(f"{path} is not a TIA series (.ser)")
        if kind != _IMAGES_2D:
            raise InputError(f"{path} holds spectra, not images")
        wide = version >= _LARGE_VERSION
        (start,) = struct.unpack_from("<q" if wide else "<i", head, _HEADER.size)
        if not 0 < valid <= _LARGEST_SERIES:
            raise InputError(f"{path} is empty or damaged: its header says that {valid} images were recorded")
        entry = 8 if wide else 4
        require_bytes(path, start + valid * entry, valid, 0)
        file.seek(start)
        offsets = tuple(np.frombuffer(file.read(valid * entry), "<u8" if wide else "<u4").tolist())
        return _checked_images(path, file, offsets)


def _checked_images(path: Path, file: Any, offsets: tuple[int, ...]) -> _Table:
    """Read the header of every image and check that all are alike and complete."""
    size = path.stat().st_size
    first: tuple[Any, ...] = ()
    for i, offset in enumerate(offsets):
        require_bytes(path, offset + _IMAGE.size, len(offsets), i)
        file.seek(offset)
        fields = _IMAGE.unpack(file.read(_IMAGE.size))
        first = first or fields
        if fields[6:] != first[6:] or fields[6] not in _DTYPES:
            raise InputError(f"{path}: image {i + 1} has another size or type than the first one")
        image_bytes = fields[7] * fields[8] * np.dtype(_DTYPES[fields[6]]).itemsize
        if offset + _IMAGE.size + image_bytes > size:
            require_bytes(path, max(offsets) + _IMAGE.size + image_bytes, len(offsets), i)
    _, delta_x, _, _, delta_y, _, kind, nx, ny = first
    if len(offsets) * nx * ny * np.dtype(_DTYPES[kind]).itemsize > size:
        raise InputError(f"{path} is damaged: its {len(offsets)} images of {ny} x {nx} pixels cannot all be in it")
    return _Table(offsets, (ny, nx), np.dtype(_DTYPES[kind]).newbyteorder("<"), (abs(delta_y), abs(delta_x)))


def _settings(path: Path) -> dict[str, Any]:
    """Return the microscope settings from the XML inside an .emi file: label -> "value unit"."""
    with path.open("rb") as file:
        content = file.read(_SEARCHED_BYTES)
    start, end = content.find(b"<ObjectInfo>"), content.find(b"</ObjectInfo>")
    text = content[start : end + len(b"</ObjectInfo>")] if 0 <= start < end else b""
    # Declarations could define entities that expand without end; TIA writes none.
    if not text or len(text) > _LARGEST_SETTINGS or b"<!" in text:
        return {}
    try:
        root = ET.fromstring(text)  # noqa: S314 - there are no entities
    except ET.ParseError:
        return {}
    entries = {
        (data.findtext("Label") or "").strip(): f"{data.findtext('Value') or ''} {data.findtext('Unit') or ''}".strip()
        for data in root.iter("Data")
    }
    return {"AcquireDate": root.findtext(".//AcquireDate") or "", **entries}
