"""HDF5 files that hold tilt series: Velox EMD, NCEM EMD, HyperSpy and DXchange, told apart by their content.

Read here and not with RosettaSciIO, which loses the tilt angles of Velox frames and the angle vectors of NCEM files,
cannot open an unchunked HyperSpy dataset lazily, and does not know DXchange.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg import plain_json
from tomoseg.arrays import Array
from tomoseg.errors import InputError, shown
from tomoseg.io.limits import require_plausible
from tomoseg.io.series import (
    Angles,
    RawSeries,
    Signal,
    choose_signal,
    jsonable,
    n_images_of,
    native,
    signals_of,
    stack_shape,
)
from tomoseg.io.units import PixelSize, checked_pixel_size, degrees_per
from tomoseg.schema import SCHEMA_ATTR
from tomoseg.words import bytes_as_text

_MOST_LINKS = 200_000
_LARGEST_VALUES = 16 << 20  # bytes of everything but the images: angles, metadata of one frame
_LARGEST_METADATA = 4 << 20  # characters as JSON; some 100 kB are common
_LARGEST_CHUNK = 256 << 20  # bytes of a compressed chunk, which is unpacked as a whole
# Filters that do not make data much smaller: shuffle, checksum, n-bit, scale-offset, bitshuffle. Of all others, one is
# enough: what is compressed twice may unpack to a million times as much.
_MILD_FILTERS = {2, 3, 5, 6, 32008}
_ANGLE_NAME = re.compile(r"angle|tilt|theta|projection", re.IGNORECASE)


def read(path: Path, signal: str | None = None) -> RawSeries:
    """Open the tilt series in an HDF5 file.

    Raises `InputError` if the file is of no known kind, is truncated, refers to other files, or holds no grey images.
    """
    import h5py
    import hdf5plugin  # noqa: F401 - registers the compression filters

    with _open_until_error(h5py.File(path, "r")) as file:
        require_self_contained(path, file)
        series = _series_in(path, file, signal)
        if len(json.dumps(series.metadata)) > _LARGEST_METADATA:
            series.metadata = {}
            series.warnings.append(
                f"the metadata of {path.name} are not kept: they have more than {bytes_as_text(_LARGEST_METADATA)}"
            )
        return series


def _series_in(path: Path, file: Any, signal: str | None) -> RawSeries:
    if "Experiments" in file:
        return _hyperspy(path, file, signal)
    if "Data/Image" in file and "Version" in file:
        return _velox(path, file, signal)
    if "exchange/data" in file:
        return _dxchange(path, file)
    groups = _emd_groups(file)
    if groups:
        return _ncem(path, file, groups, signal)
    return _plain(path, file, signal)


def _signals(names: Sequence[str], datasets: Sequence[Any], n_images: Sequence[int] | None = None) -> list[Signal]:
    counts = n_images or [n_images_of(data.shape or (), data.dtype) for data in datasets]
    shapes, dtypes = [data.shape or () for data in datasets], [data.dtype for data in datasets]
    return signals_of(names, shapes, dtypes, counts)


@contextmanager
def _open_until_error(file: Any) -> Iterator[Any]:
    """Close the file if opening the series fails; else the series closes it."""
    try:
        yield file
    except BaseException:
        file.close()
        raise


def require_self_contained(path: Path, file: Any) -> None:
    """Refuse a file that refers to other files: it could make a report show what only its reader may see.

    Raises `InputError` if there is an external link, a dataset stored in other files or assembled from them, or an
    endless tree.
    """
    import h5py

    n_links = 0

    def visit(name: bytes, info: Any) -> bool | None:
        nonlocal n_links
        n_links += 1
        if info.type not in {h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT}:
            _refuse_other_files(path, name.decode("utf-8", "replace"))
        return True if n_links > _MOST_LINKS else None

    if file.id.links.visit(visit, info=True):
        raise InputError(f"{path} is damaged: it has more than {_MOST_LINKS} groups and datasets")

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            _refuse_other_files(path, name)

    file.visititems(look)


def _refuse_other_files(path: Path, name: str) -> None:
    raise InputError(
        f"{path} does not hold all of its data: '{shown(name)}' refers to another file, which is not opened for "
        "safety; make a copy that holds everything (for example with h5py or HDFView)"
    )


def _values(path: Path, dataset: Any) -> Any:
    """Return all of a small dataset."""
    n_bytes = math.prod(dataset.shape or (1,)) * dataset.dtype.itemsize
    if n_bytes > _LARGEST_VALUES:
        raise InputError(f"{path} is damaged: '{shown(dataset.name)}', which should be small, has {n_bytes} bytes")
    return dataset[()]


def _series(path: Path, kind: str, dataset: Any, order: tuple[int, ...], file: Any) -> RawSeries:
    """Return the series in a dataset whose tilt, y and x, or y and x, are the dimensions in `order`.

    Raises `InputError` if it cannot be a tilt series, or claims more than is stored.
    """
    shape = stack_shape(path, [dataset.shape[i] for i in order], dataset.dtype)
    # An unwritten dataset would give nothing but its fill value.
    stored = min(dataset.id.get_storage_size(), path.stat().st_size)
    chunk_bytes = _checked_chunk(path, dataset)
    claimed = math.prod(shape) * dataset.dtype.itemsize
    if stored == 0 or (dataset.chunks is None and claimed > stored):
        raise InputError(
            f"{path} is incomplete: its header announces {claimed} bytes of images, but {stored} are stored"
        )
    require_plausible(path, max(claimed, chunk_bytes), stored, f"'{shown(dataset.name)}'")

    def fetch(part: slice) -> Array:
        if len(order) == 2:
            single: Array = dataset[()].transpose(order)[None]
            return single[part]
        key: list[slice] = [slice(None)] * 3
        key[order[0]] = part
        images: Array = dataset[tuple(key)]
        return images.transpose(order)

    return RawSeries(path, kind, shape, native(dataset.dtype), fetch, close=file.close, scratch_bytes=chunk_bytes)


def _checked_chunk(path: Path, dataset: Any) -> int:
    """Return the bytes of a chunk, 0 where there are none.

    Raises `InputError` if chunks are compressed several times over, or are too large to be unpacked as a whole.
    """
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    n_bytes = math.prod(dataset.chunks or (0,)) * int(dataset.dtype.itemsize)
    if len(filters) > len(set(filters)) or len(set(filters) - _MILD_FILTERS) > 1:
        problem = "compressed several times over"
    elif filters and n_bytes > _LARGEST_CHUNK:
        problem = f"compressed in pieces of {bytes_as_text(n_bytes)}"
    else:
        return n_bytes
    raise InputError(
        f"'{shown(dataset.name)}' in {path} is {problem}, which is not unpacked for safety; save it without compression"
    )


# Velox ---------------------------------------------------------------------------------------------------------------


def _velox(path: Path, file: Any, signal: str | None) -> RawSeries:
    """Open an image series of a Velox file: (y, x, frame), and a JSON text for every frame."""
    groups = [group for group in file["Data/Image"].values() if "Data" in group and group["Data"].ndim == 3]
    if not groups:
        raise InputError(f"{path} is a Velox file without images")
    first = [_velox_frame(group, 0) for group in groups]
    datasets = [group["Data"] for group in groups]
    names = [str(frame.get("BinaryResult", {}).get("Detector") or f"image {i}") for i, frame in enumerate(first, 1)]
    # Compound types are Fourier transforms and phase images.
    counts = [data.shape[2] if data.dtype.names is None else 0 for data in datasets]
    signals = _signals(names, datasets, counts)
    index, note = choose_signal(path, signals, signal)
    frame = first[index]
    if datasets[index].dtype.names is not None:
        stack_shape(path, datasets[index].shape, np.dtype(np.complex64))
    series = _series(path, "Velox EMD", datasets[index], (2, 0, 1), file)
    series.signals, series.signal = signals, index
    result = frame.get("BinaryResult", {})
    size = result.get("PixelSize", {})
    scales = float(size.get("height", 0)), float(size.get("width", 0))
    series.pixel_size = checked_pixel_size(
        scales, (result.get("PixelUnitY"), result.get("PixelUnitX")), "Velox metadata"
    )
    # Velox stores SI units: radians.
    frames = (_velox_frame(groups[index], i) for i in range(series.shape[0]))
    tilts = [frame.get("Stage", {}).get("AlphaTilt") for frame in frames]
    if all(tilt is not None for tilt in tilts):
        series.angles_deg = np.degrees(np.array([float(tilt) for tilt in tilts]))
        series.angles_source = "Velox stage metadata of each frame"
    kept = ("Core", "Instrument", "Acquisition", "Optics", "Stage", "Scan", "BinaryResult", "Sample")
    series.metadata = {key: jsonable(frame[key]) for key in kept if key in frame}
    series.notes += [note] if note else []
    return series


def _velox_frame(group: Any, frame: int) -> dict[str, Any]:
    """Return the metadata of a frame; the last one known where there are fewer texts than frames."""
    if "Metadata" not in group or group["Metadata"].shape[1] == 0:
        return {}
    texts = group["Metadata"]
    if texts.shape[0] > _LARGEST_VALUES:
        raise InputError(f"{group.file.filename} is damaged: the metadata of one frame has {texts.shape[0]} bytes")
    content = bytes(texts[:, min(frame, texts.shape[1] - 1)])
    found: dict[str, Any] = plain_json.load(content.split(b"\0")[0].decode("utf-8", "replace") or "{}")
    return found


# DXchange ------------------------------------------------------------------------------------------------------------


def _dxchange(path: Path, file: Any) -> RawSeries:
    """Open /exchange/data (projections, y, x) with /exchange/theta."""
    data = file["exchange/data"]
    names = str(jsonable(data.attrs.get("axes", "theta:y:x"))).split(":")
    tilt = next((i for i, name in enumerate(names[: data.ndim]) if _ANGLE_NAME.search(name)), 0)
    order = (tilt, *(i for i in range(data.ndim) if i != tilt)) if data.ndim == 3 else (0, 1)
    stack_shape(path, data.shape, data.dtype)
    series = _series(path, "DXchange", data, order, file)
    if "theta" in file["exchange"]:
        theta = file["exchange/theta"]
        # The specification has degrees where no unit is given.
        unit = str(jsonable(theta.attrs.get("units", "degree")))
        _use_angles(series, np.asarray(_values(path, theta), np.float64).ravel(), unit, "DXchange theta")
    if "data_white" in file["exchange"] or "data_dark" in file["exchange"]:
        series.warnings.append(
            f"{path.name} holds white or dark fields, which are not applied: the images are used as stored"
        )
    series.pixel_size = PixelSize(doubt="DXchange holds no pixel size of the specimen")
    texts = ("exchange/title", "measurement/sample/name", "measurement/instrument/name")
    series.metadata = {name: jsonable(_values(path, file[name])) for name in texts if name in file}
    return series


def _use_angles(series: RawSeries, angles: Angles, unit: str, where: str) -> None:
    """Use angles in a stated unit, if there is one for every image."""
    factor = degrees_per(unit)
    if factor is None:
        factor = 1.0
        series.warnings.append(f"the tilt angles ({where}) have no unit: they are taken as degrees")
    if len(angles) != series.shape[0]:
        series.warnings.append(
            f"the tilt angles ({where}) are not used: there are {len(angles)} for {series.shape[0]} images"
        )
    elif not np.isfinite(angles).all() or np.abs(factor * angles).max() > 180:
        series.warnings.append(f"the tilt angles ({where}) are not used: not all are between -180 and 180 degrees")
    else:
        series.angles_deg, series.angles_source = factor * angles, where


# NCEM ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Dimension:
    """One dimension of an NCEM dataset: its vector of coordinates (two values where it is regular), name and unit."""

    name: str
    unit: str
    values: Array
    size: int

    @property
    def is_angle(self) -> bool:
        return degrees_per(self.unit) is not None or bool(_ANGLE_NAME.search(self.name))

    @property
    def step(self) -> float:
        return float(self.values[1] - self.values[0]) if len(self.values) > 1 else 0.0

    def coordinates(self) -> Array:
        if len(self.values) == self.size:
            return self.values
        regular: Array = self.values[0] + self.step * np.arange(self.size)
        return regular


def _emd_groups(file: Any) -> list[Any]:
    """Return the groups that hold an NCEM dataset."""
    found: list[Any] = []

    def visit(_name: str, item: Any) -> None:
        if item.attrs.get("emd_group_type", 0) == 1 and "data" in item:
            found.append(item)

    file.visititems(visit)
    return found


def _ncem(path: Path, file: Any, groups: list[Any], signal: str | None) -> RawSeries:
    """Open an NCEM (Berkeley) dataset: `data` and vectors `dim1`... (or `dim0`...) with names and units."""
    datasets = [group["data"] for group in groups]
    every = [_dimensions(path, group, group["data"].shape) for group in groups]
    orders = [_order(dimensions) if len(dimensions) == 3 else ((0, 1), "") for dimensions in every]
    counts = [
        data.shape[order[0]] if data.ndim == 3 and data.dtype.kind in "iufb" else n_images_of(data.shape, data.dtype)
        for data, (order, _) in zip(datasets, orders, strict=True)
    ]
    signals = _signals([group.name.rsplit("/", 1)[-1] for group in groups], datasets, counts)
    index, note = choose_signal(path, signals, signal)
    data, dimensions, (order, how) = datasets[index], every[index], orders[index]
    stack_shape(path, data.shape, data.dtype)
    series = _series(path, "NCEM EMD", data, order, file)
    series.signals, series.signal = signals, index
    y, x = (dimensions[i] for i in order[-2:])
    tilt = dimensions[order[0]]
    if len(order) == 3 and tilt.is_angle and len(tilt.values) > 1:
        _use_angles(
            series, np.asarray(tilt.coordinates(), np.float64), tilt.unit, f"angles of dimension '{shown(tilt.name)}'"
        )
    series.pixel_size = checked_pixel_size((abs(y.step), abs(x.step)), (y.unit, x.unit), "NCEM EMD dimensions")
    series.metadata = {
        name: {key: jsonable(value) for key, value in file[name].attrs.items()}
        for name in ("microscope", "sample", "user", "comments")
        if name in file
    }
    series.notes += [text for text in (note, how) if text]
    return series


def _dimensions(path: Path, group: Any, sizes: tuple[int, ...]) -> list[_Dimension]:
    first = 0 if "dim0" in group else 1
    dimensions = []
    for i, size in enumerate(sizes):
        vector = group.get(f"dim{first + i}")
        values = np.asarray(_values(path, vector), np.float64).ravel() if vector is not None else np.empty(0)
        attrs = vector.attrs if vector is not None else {}
        unit = str(jsonable(attrs.get("units", ""))).strip("[]_ ")
        dimensions.append(_Dimension(str(jsonable(attrs.get("name", ""))), unit, values, size))
    return dimensions


def _order(dimensions: list[_Dimension]) -> tuple[tuple[int, int, int], str]:
    """Return which dimensions are tilt, y and x, and a note where the file does not say it."""
    names = [dimension.name.lower() for dimension in dimensions]
    tilt = next((i for i, dimension in enumerate(dimensions) if dimension.is_angle), None)
    how = ""
    if tilt is None:
        # Unnamed dimensions come from HyperSpy, which writes (x, y, stack).
        tilt = 0 if any(names) else 2
        how = f"no dimension is marked as an angle: the {'first' if tilt == 0 else 'last'} one is taken as the tilts"
    rest = [i for i in range(3) if i != tilt]
    x_first = names[rest[0]].startswith("x") or (not any(names[i].startswith(("x", "y")) for i in rest) and tilt == 2)
    y, x = (rest[1], rest[0]) if x_first else (rest[0], rest[1])
    return (tilt, y, x), how


# HyperSpy ------------------------------------------------------------------------------------------------------------

# Of metadata: groups in groups, and entries in all. A group may hold itself.
_DEEPEST, _MOST_ENTRIES = 20, 20_000


def _hyperspy(path: Path, file: Any, signal: str | None) -> RawSeries:
    """Open a HyperSpy signal, a group of /Experiments: `data`, attributes `axis-i` per dimension, groups of metadata.

    See https://hyperspy.org/rosettasciio/file_specification/hspy.html.
    """
    groups = [group for group in file["Experiments"].values() if "data" in group]
    if not groups:
        raise InputError(f"{path} is a HyperSpy file without a signal")
    titles = [str(_metadata(group).get("General", {}).get("title") or "untitled") for group in groups]
    every = [_hyperspy_axes(group) for group in groups]
    orders = [hyperspy_order(axes) for axes in every]
    datasets = [group["data"] for group in groups]
    counts = [
        data.shape[order[0]] if data.ndim == 3 and data.dtype.kind in "iufb" else n_images_of(data.shape, data.dtype)
        for data, order in zip(datasets, orders, strict=True)
    ]
    signals = _signals(titles, datasets, counts)
    index, note = choose_signal(path, signals, signal)
    group, data, axes, order = groups[index], datasets[index], every[index], orders[index]
    stack_shape(path, data.shape, data.dtype)
    series = _series(path, "HyperSpy", data, order, file)
    series.signals, series.signal = signals, index
    y, x = (axes[i] for i in order[-2:])
    scales = _float(y.get("scale")), _float(x.get("scale"))
    series.pixel_size = checked_pixel_size(scales, (_text(y.get("units")), _text(x.get("units"))), "HyperSpy axes")
    metadata = _metadata(group)
    if len(order) == 3:
        use_hyperspy_angles(series, axes[order[0]], metadata.get("Tomography", {}))
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


def _hyperspy_axes(group: Any) -> list[dict[str, Any]]:
    n = min(group["data"].ndim, 3)
    return [_attributes(group[f"axis-{i}"]) if f"axis-{i}" in group else {} for i in range(n)]


def hyperspy_order(axes: list[dict[str, Any]]) -> tuple[int, ...]:
    """Return which array dimensions are tilt, y and x: the one in degrees, or the navigation axis, comes first."""
    if len(axes) != 3:
        return tuple(range(len(axes)))
    angular = [i for i, axis in enumerate(axes) if degrees_per(_text(axis.get("units"))) is not None]
    navigation = [i for i, axis in enumerate(axes) if axis.get("navigate")]
    tilt = (angular or navigation or [0])[0]
    y, x = (i for i in range(3) if i != tilt)
    return tilt, y, x


def use_hyperspy_angles(series: RawSeries, axis: Mapping[str, Any], tomography: Mapping[str, Any]) -> None:
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


# Others ---------------------------------------------------------------------------------------------------------------


def _plain(path: Path, file: Any, signal: str | None) -> RawSeries:
    """Open a stack of images in an HDF5 file that says nothing of them; what else holds numbers is no tilt series."""
    import h5py

    if SCHEMA_ATTR in file.attrs:
        raise InputError(f"{path} is a project of tomoseg, not a raw tilt series")
    stacks: list[Any] = []

    def look(_name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "iufb" and min(item.shape) > 1:
            stacks.append(item)

    file.visititems(look)
    if not stacks:
        raise InputError(
            f"{path} is an HDF5 file without a tilt series: it is neither Velox or NCEM EMD nor HyperSpy nor DXchange, "
            "and no dataset in it has three dimensions"
        )
    signals = _signals([data.name for data in stacks], stacks)
    index, note = choose_signal(path, signals, signal)
    if len(stacks) > 1 and signal is None:
        raise InputError(
            f"{path} is an HDF5 file of no known kind that holds {len(stacks)} stacks of images "
            f"({', '.join(shown(s.name) for s in signals[:12])}): name one of them (--signal NAME)"
        )
    series = _series(path, "HDF5", stacks[index], (0, 1, 2), file)
    series.signals, series.signal = signals, index
    series.warnings.append(
        f"nothing in {path.name} says what '{shown(signals[index].name)}' is: its first dimension is taken as the tilts"
    )
    series.notes += [note] if note else []
    return series
