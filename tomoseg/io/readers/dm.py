"""Digital Micrograph DM3 and DM4: image stacks among a tree of tags."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.errors import InputError
from tomoseg.io.readers.dm_tags import Block, TagFile, Tags
from tomoseg.io.series import (
    RawSeries,
    choose_signal,
    contiguous,
    jsonable,
    n_images_of,
    native,
    signals_of,
    stack_shape,
)
from tomoseg.io.units import checked_pixel_size, degrees_per

# The tags of an image that are kept as metadata: settings, no tables or thumbnails.
_KEPT_TAGS = ("Microscope Info", "DigiScan", "DataBar", "Acquisition")
# ImageData/DataType. Colours have their channels as fields, and packed complex numbers (5, 27, 28) are complex.
_COLOURS = np.dtype([("b", "u1"), ("g", "u1"), ("r", "u1"), ("a", "u1")])
_DTYPES: dict[int, Any] = {
    **{1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 14: "?"},
    **{3: "c8", 5: "c8", 13: "c16", 27: "c8", 28: "c16", 8: _COLOURS, 23: _COLOURS},
}


def read(path: Path, signal: str | None = None) -> RawSeries:
    """Open an image or image stack of a DM3 or DM4 file.

    Raises `InputError` if it holds no grey images, or is truncated.
    """
    with path.open("rb") as file:
        content = TagFile(path, file)
        images = _images(content.tags())
    if not images:
        raise InputError(f"{path} holds no image")
    titles = [str(image.get("Name") or "") or f"image {i}" for i, image in enumerate(images, 1)]
    sizes, dtypes = [_sizes(image) for image in images], [_dtype(image) for image in images]
    signals = signals_of(titles, sizes, dtypes, [n_images_of(*pair) for pair in zip(sizes, dtypes, strict=True)])
    index, note = choose_signal(path, signals, signal)
    image, dtype = images[index], dtypes[index]
    data = _group(image, "ImageData")
    shape = stack_shape(path, _sizes(image), dtype)
    place = data.get("Data")
    dtype = dtype.newbyteorder("<" if content.order == "<" else ">")
    if not isinstance(place, Block) or place.dtype is None:
        raise InputError(f"{path} holds no pixels where its tags say they are")
    if place.size * place.dtype.itemsize < shape[0] * shape[1] * shape[2] * dtype.itemsize:
        raise InputError(f"{path} is damaged: its tags announce {shape} pixels, but {place.size} are stored")
    series = RawSeries(path, "Digital Micrograph", shape, native(dtype), contiguous(path, place.offset, shape, dtype))
    x, y, tilt = _axes(data)
    series.pixel_size = checked_pixel_size((y[1], x[1]), (y[2], x[2]), "Digital Micrograph calibration")
    tags = _group(image, "ImageTags")
    _use_angles(series, tilt, tags)
    settings = {key: value for key, value in tags.items() if key in _KEPT_TAGS}
    series.signals, series.signal = signals, index
    series.metadata = {"title": titles[index], "tags": jsonable(settings)}
    series.notes += [note] if note else []
    return series


def _group(tags: Any, *names: str) -> Tags:
    """Return a nested group; an empty one where there is none."""
    for name in names:
        tags = tags.get(name) if isinstance(tags, Mapping) else None
    return dict(tags) if isinstance(tags, Mapping) else {}


def _images(tags: Tags) -> list[Tags]:
    """Return the images of the file, without the thumbnails."""
    listed = [value for value in _group(tags, "Thumbnails").values() if isinstance(value, Mapping)]
    thumbnails = {thumbnail.get("ImageIndex") for thumbnail in listed}
    found = list(_group(tags, "ImageList").values())
    return [image for i, image in enumerate(found) if i not in thumbnails and _group(image, "ImageData")]


def _sizes(image: Tags) -> list[int]:
    """Return the size along each dimension, the last one first: (tilt, y, x)."""
    sizes = list(_group(image, "ImageData", "Dimensions").values())
    return [size if isinstance(size, int) else 0 for size in reversed(sizes)]


def _dtype(image: Tags) -> np.dtype[Any]:
    known: np.dtype[Any] = np.dtype(_DTYPES.get(_group(image, "ImageData").get("DataType", 0), "V"))
    return known


def _axes(data: Tags) -> list[tuple[float, float, str]]:
    """Return origin (px), scale and unit of x, y and tilt; 0, 1 and none where there is no calibration."""
    axes = [(0.0, 1.0, "")] * 3
    for i, axis in enumerate(list(_group(data, "Calibrations", "Dimension").values())[:3]):
        origin, scale, unit = (_group(axis).get(key) for key in ("Origin", "Scale", "Units"))
        if isinstance(origin, int | float) and isinstance(scale, int | float):
            axes[i] = float(origin), float(scale), unit if isinstance(unit, str) else ""
    return axes


def _use_angles(series: RawSeries, axis: tuple[float, float, str], tags: Tags) -> None:
    """Take the angles from the list that Gatan's tomography leaves in the tags, else from the axis calibration."""
    n = series.shape[0]
    for dimension in _group(tags, "Meta Data", "Dimension info").values():
        label, values = str(_group(dimension).get("Label", "")), _group(dimension, "Data")
        unit = re.search(r"\(([^()]*)\)", label)
        factor = degrees_per(unit[1]) if unit else None
        if factor is not None and len(values) == n and all(isinstance(v, int | float) for v in values.values()):
            listed = [float(values[key]) for key in sorted(values, key=_place_of)]
            series.angles_deg, series.angles_source = factor * np.array(listed), f"tag '{label}'"
            return
    factor, (origin, scale, _) = degrees_per(axis[2]), axis
    if factor is not None and scale != 0:
        with np.errstate(all="ignore"):  # angles that overflow are dropped later
            series.angles_deg = factor * scale * (np.arange(n, dtype=np.float64) - origin)
        series.angles_source = "Digital Micrograph calibration of the stack axis"


def _place_of(key: str) -> tuple[int, str]:
    """Return the sort key that puts the names of tags in the order of their numbers."""
    return (int(key), "") if key.isascii() and key.isdigit() and len(key) < 10 else (0, key)
