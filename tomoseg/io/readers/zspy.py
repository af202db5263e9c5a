"""HyperSpy signals in a Zarr store (.zspy), read with RosettaSciIO."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg import plain_json
from tomoseg.arrays import Array
from tomoseg.errors import InputError, shown
from tomoseg.io.readers.hdf5 import hyperspy_order, use_hyperspy_angles
from tomoseg.io.series import RawSeries, choose_signal, jsonable, n_images_of, native, signals_of, stack_shape
from tomoseg.io.units import checked_pixel_size
from tomoseg.words import bytes_as_text

# Codecs that only change bytes. Others may run code (pickle), or are not for images.
_CODECS = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "bytes", "transpose", "crc32c"}
_TEXTS = {"vlen-utf8", "vlen-bytes", "json2", "msgpack2"}  # of arrays of text among the metadata
_DESCRIPTIONS = (".zarray", "zarr.json", ".zmetadata")
_LARGEST_DESCRIPTION = 4 << 20
_LARGEST_CHUNK = 256 << 20


def read(path: Path, signal: str | None = None) -> RawSeries:
    """Open the tilt series in a store, a folder.

    Raises `InputError` if the store holds links, codecs that are not for images, or no grey images.
    """
    _require_harmless(path)
    from rsciio.zspy import file_reader

    found = [one for one in file_reader(str(path), lazy=True) if hasattr(one.get("data"), "shape")]
    if not found:
        raise InputError(f"{path} is a HyperSpy store without a signal")
    data = [one["data"] for one in found]
    names = [str(one["metadata"].get("General", {}).get("title") or "untitled") for one in found]
    orders = [hyperspy_order(one["axes"]) for one in found]
    counts = [
        array.shape[order[0]] if array.ndim == 3 else n_images_of(array.shape, array.dtype)
        for array, order in zip(data, orders, strict=True)
    ]
    signals = signals_of(names, [a.shape for a in data], [a.dtype for a in data], counts)
    index, note = choose_signal(path, signals, signal)
    chosen, order, axes = data[index], orders[index], found[index]["axes"]
    stack_shape(path, chosen.shape, chosen.dtype)
    shape = stack_shape(path, [chosen.shape[i] for i in order], chosen.dtype)

    def fetch(part: slice) -> Array:
        key: list[slice] = [slice(None)] * len(order)
        if len(order) == 2:
            return np.asarray(chosen).transpose(order)[None][part]
        key[order[0]] = part
        return np.asarray(chosen[tuple(key)]).transpose(order)

    series = RawSeries(path, "HyperSpy Zarr", shape, native(chosen.dtype), fetch, signals=signals, signal=index)
    series.scratch_bytes = math.prod(max(sizes) for sizes in chosen.chunks) * chosen.dtype.itemsize
    if series.scratch_bytes > _LARGEST_CHUNK:
        raise InputError(f"{path} is compressed in pieces of {bytes_as_text(series.scratch_bytes)}, which is too much")
    y, x = (axes[i] for i in order[-2:])
    series.pixel_size = checked_pixel_size(
        (float(y.get("scale", 0)), float(x.get("scale", 0))), (_unit(y), _unit(x)), "HyperSpy axes"
    )
    if len(order) == 3:
        tomography = found[index]["metadata"].get("Tomography", {})
        known = {key: np.asarray(v) if isinstance(v, list) else v for key, v in dict(tomography).items()}
        use_hyperspy_angles(series, axes[order[0]], known)
    series.metadata = {"metadata": jsonable(found[index]["metadata"])}
    series.notes += [note] if note else []
    return series


def _unit(axis: dict[str, Any]) -> str:
    unit = axis.get("units")
    return unit if isinstance(unit, str) else ""


def _require_harmless(path: Path) -> None:
    """Refuse a store that holds links, or whose arrays name codecs that do more than change bytes."""
    for file in path.rglob("*"):
        if file.is_symlink():
            raise InputError(f"{path} holds a link, {shown(file.name)}, which is not followed for safety")
        if file.name not in _DESCRIPTIONS or not file.is_file():
            continue
        if file.stat().st_size > _LARGEST_DESCRIPTION:
            raise InputError(f"{path} is damaged: {shown(file.name)} in it is too large")
        unknown = set(_codecs(plain_json.load(file.read_text("utf-8", "replace")))) - _CODECS - _TEXTS
        if unknown:
            raise InputError(
                f"{path} is packed with {shown(', '.join(sorted(unknown)), 100)}, which is not unpacked for safety; "
                "save it as .hspy"
            )


def _codecs(node: Any) -> Iterator[str]:
    """Yield the names of all codecs in the description of a store, wherever they stand."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"compressor", "filters", "codecs", "serializer"}:
                listed = value if isinstance(value, list) else [value]
                yield from (str(one.get("id") or one.get("name")) for one in listed if isinstance(one, dict))
            yield from _codecs(value)
    elif isinstance(node, list):
        for value in node:
            yield from _codecs(value)
