"""HyperSpy's .hspy. Read here and not with RosettaSciIO, which cannot open an unchunked dataset lazily.

Each group of /Experiments is a signal: `data`, one group `axis-i` of attributes per dimension, and groups of
metadata (https://hyperspy.org/rosettasciio/file_specification/hspy.html).
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.errors import InputError
from tomoseg.io.series import RawSeries, choose_stack, jsonable, stack_shape
from tomoseg.io.units import checked_pixel_size, degrees_per

MakeSeries = Callable[[Path, str, Any, tuple[int, int, int], Any], RawSeries]

# Of metadata: groups in groups, and entries in all. A group may hold itself.
_DEEPEST, _MOST_ENTRIES = 20, 20_000


def open_hspy(path: Path, file: Any, make_series: MakeSeries) -> RawSeries:
    """Open the image stack of an open HyperSpy file; `make_series(path, kind, dataset, order, file)` opens a dataset.

    Raises `InputError` if it holds no stack of grey images.
    """
    signals = [group for group in file["Experiments"].values() if "data" in group]
    stacks = [group for group in signals if group["data"].ndim >= 3] or signals
    if not stacks:
        raise InputError(f"{path} is a HyperSpy file without a signal")
    index, note = choose_stack(
        [str(_metadata(group).get("General", {}).get("title") or "untitled") for group in stacks]
    )
    group = stacks[index]
    data = group["data"]
    if data.ndim != 3:
        stack_shape(path, data.shape, data.dtype)
    axes = [_attributes(group[f"axis-{i}"]) if f"axis-{i}" in group else {} for i in range(3)]
    order = _order(axes)
    series = make_series(path, "HyperSpy", data, order, file)
    tilt, y, x = (axes[i] for i in order)
    scales = _float(y.get("scale")), _float(x.get("scale"))
    series.pixel_size = checked_pixel_size(scales, (_text(y.get("units")), _text(x.get("units"))), "HyperSpy axes")
    metadata = _metadata(group)
    _use_angles(series, tilt, metadata.get("Tomography", {}))
    # The history of loading and saving is long and says nothing about the acquisition.
    metadata.get("General", {}).pop("FileIO", None)
    series.metadata = {"metadata": jsonable(metadata)}
    if "original_metadata" in group:
        series.metadata["original_metadata"] = jsonable(_attributes(group["original_metadata"]))
    series.notes += [note] if note else []
    return series


def _metadata(group: Any) -> dict[str, Any]:
    return _attributes(group["metadata"]) if "metadata" in group else {}


def _attributes(group: Any) -> dict[str, Any]:
    """Return a group's attributes, its small datasets, and its groups in the same way."""
    return _entries(group, _DEEPEST, iter(range(_MOST_ENTRIES)))


def _entries(group: Any, depth: int, left: Iterator[int]) -> dict[str, Any]:
    """Return the entries of a group as long as there are some `left`."""
    found: dict[str, Any] = {key: jsonable(value) for key, value in group.attrs.items()}
    for name, item in group.items():
        if next(left, None) is None:
            break
        if hasattr(item, "shape"):
            small = item.size is not None and item.size * item.dtype.itemsize <= 80_000
            found[name] = item[()] if small else f"array of shape {item.shape}"
        elif depth > 0:
            found[name] = _entries(item, depth - 1, left)
    return found


def _order(axes: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Return which array dimensions are tilt, y and x: the one in degrees, or the navigation axis, comes first."""
    angular = [i for i, axis in enumerate(axes) if degrees_per(_text(axis.get("units"))) is not None]
    navigation = [i for i, axis in enumerate(axes) if axis.get("navigate")]
    tilt = (angular or navigation or [0])[0]
    y, x = (i for i in range(3) if i != tilt)
    return tilt, y, x


def _use_angles(series: RawSeries, axis: Mapping[str, Any], tomography: Mapping[str, Any]) -> None:
    """Take the angles that ETSpy stores, else the calibration of the stack axis if it is in degrees or radians."""
    n = series.shape[0]
    stored = tomography.get("_sig_tilts", tomography.get("tilts"))
    values = stored.get("data") if isinstance(stored, Mapping) else stored
    if isinstance(values, np.ndarray) and values.size == n:
        series.angles_deg = np.asarray(values, np.float64).ravel()
        series.angles_source = "tilts in the HyperSpy metadata"
        return
    factor = degrees_per(_text(axis.get("units")))
    if factor is None:
        return
    listed = axis.get("axis")  # a list of values instead of scale and offset
    if isinstance(listed, np.ndarray) and listed.size == n:
        series.angles_deg = np.asarray(factor * listed, np.float64)
    elif _float(axis.get("scale")) != 0:
        start, step = factor * _float(axis.get("offset")), factor * _float(axis.get("scale"))
        series.angles_deg = start + step * np.arange(n, dtype=np.float64)
    series.angles_source = "HyperSpy calibration of the stack axis" if series.angles_deg is not None else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
