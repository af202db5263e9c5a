"""HyperSpy's .hspy, through RosettaSciIO, which knows all versions of that format."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.series import RawSeries, chosen_stack, heard, jsonable, native, stack_shape
from tomoseg.io.units import degrees_per, judged_pixel_size


def read(path: Path) -> RawSeries:
    """Open the image stack of a HyperSpy file.

    Raises
    ------
    InputError
        No stack of grey images in it.
    """
    from rsciio.hspy import file_reader

    with heard("rsciio") as said:
        signals: list[dict[str, Any]] = [s for s in file_reader(str(path), lazy=True) if "data" in s]

    def close() -> None:
        for signal in signals:
            _close(signal["data"])

    try:
        series = _series(path, signals)
    except BaseException:
        close()
        raise
    series.close = close
    series.notes += said
    return series


def _series(path: Path, signals: list[dict[str, Any]]) -> RawSeries:
    stacks = [signal for signal in signals if signal["data"].ndim >= 3] or signals
    if not stacks:
        raise InputError(f"{path} holds no signal")
    index, note = chosen_stack([str(s["metadata"].get("General", {}).get("title") or "untitled") for s in stacks])
    signal = stacks[index]
    data = signal["data"]
    if data.ndim != 3:
        stack_shape(path, data.shape, data.dtype)
    order = _order(signal["axes"])
    shape = stack_shape(path, [data.shape[i] for i in order], data.dtype)

    def fetch(part: slice) -> Array:
        key = [slice(None)] * 3
        key[order[0]] = part
        images: Array = data[tuple(key)].compute(scheduler="synchronous")
        return images.transpose(order)

    series = RawSeries(path, "HyperSpy", shape, native(data.dtype), fetch)
    tilt, y, x = (signal["axes"][i] for i in order)
    scales = _float(y.get("scale")), _float(x.get("scale"))
    series.pixel_size = judged_pixel_size(scales, (_text(y.get("units")), _text(x.get("units"))), "HyperSpy axes")
    _use_angles(series, tilt, signal["metadata"].get("Tomography", {}))
    # The history of loading and saving is long and says nothing about the acquisition.
    signal["metadata"].get("General", {}).pop("FileIO", None)
    series.metadata = {key: jsonable(signal[key]) for key in ("metadata", "original_metadata")}
    series.notes += [note] if note else []
    return series


def _order(axes: list[Mapping[str, Any]]) -> tuple[int, int, int]:
    """Return which array dimensions are tilt, y and x: the navigation axis or the one in degrees comes first."""
    angular = [i for i, axis in enumerate(axes) if degrees_per(_text(axis.get("units"))) is not None]
    navigation = [i for i, axis in enumerate(axes) if axis.get("navigate")]
    tilt = (angular or navigation or [0])[0]
    y, x = (i for i in range(3) if i != tilt)
    return tilt, y, x


def _use_angles(series: RawSeries, axis: Mapping[str, Any], tomography: Mapping[str, Any]) -> None:
    """Take the angles that ETSpy stores, else the calibration of the stack axis if it is in degrees or radians."""
    n = series.shape[0]
    stored = tomography.get("_sig_tilts") or tomography.get("tilts")
    values = stored.get("data") if isinstance(stored, Mapping) else stored
    if values is not None and np.size(values) == n:
        series.angles_deg = np.asarray(values, np.float64).ravel()
        series.angles_source = "tilts in the HyperSpy metadata"
        return
    factor = degrees_per(_text(axis.get("units")))
    if factor is not None and "axis" in axis:  # a list of values instead of scale and offset
        series.angles_deg = factor * np.asarray(axis["axis"], np.float64)
    elif factor is not None and _float(axis.get("scale")) != 0:
        start, step = factor * _float(axis.get("offset")), factor * _float(axis["scale"])
        series.angles_deg = start + step * np.arange(n, dtype=np.float64)
    series.angles_source = "HyperSpy calibration of the stack axis" if series.angles_deg is not None else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _close(data: Any) -> None:
    """Close the HDF5 file behind a lazy array, which RosettaSciIO leaves open."""
    for source in _sources(data):
        with suppress(ValueError):  # already closed through another array of the same file
            source.file.close()


def _sources(data: Any) -> Iterator[Any]:
    import h5py

    return (item for item in dict(data.dask).values() if isinstance(item, h5py.Dataset))
