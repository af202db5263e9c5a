"""Format `zarr`: volume and labels as OME-Zarr 0.5 (Zarr 3), in chunks and at decreasing resolutions.

The specification is that of ngff.openmicroscopy.org/0.5. The arrays are those of the project, (z, y, x) with y down, as
napari shows them; nothing is rotated. The centre of voxel (0, 0, 0) is the origin at every level.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array, ArraySource
from tomoseg.chunks import pieces
from tomoseg.export.context import ExportContext
from tomoseg.export.formats.base import Format
from tomoseg.io.atomic import atomic_folder
from tomoseg.runtime import Track, untracked

CHUNKS = (64, 128, 128)
# The coarsest level is no larger than this along any axis.
SMALLEST_PX = 128
LABELS = "classes"
CHUNKS_AT_ONCE = 2  # are compressed at a time; zarr's default of ten takes 90 MB more and is no faster

Reduce = Callable[[Array, Sequence[int]], Array]


def write_ome_zarr(
    folder: Path,
    volume: ArraySource,
    labels: ArraySource,
    voxel_size_nm: float,
    class_names: Sequence[str],
    class_colors: Sequence[str],
    *,
    slab_bytes: int = 64 << 20,
    track: Track = untracked,
) -> None:
    """Write volume and labels into an empty folder as one OME-Zarr image with its labels under `labels/classes`.

    Parameters
    ----------
    volume, labels : array or handle, (z, y, x)
        Read in boxes of whole chunks. Each level of the volume is the mean over 2 x 2 x 2 voxels of the finer level,
        each level of the labels their most common class; ties go to the lowest index.
    voxel_size_nm : scale, in nanometer. If NaN (unknown), the scale is 1 and no unit is given
    class_names, class_colors : one per class; colours as #rrggbb. Class 0, the background, is transparent
    slab_bytes, track
        Bytes to read at once, and what shows the progress. At least 33 MB are read, from which one chunk of a coarser
        level is made; peak memory is then 150 MB (measured).
    """
    import zarr

    shapes = _level_shapes(volume.shape)
    most_common = partial(_most_common, n_classes=len(class_names))
    with zarr.config.set({"async.concurrency": CHUNKS_AT_ONCE}):
        group = zarr.open_group(folder, mode="w", zarr_format=3)
        _write_levels(group, volume, shapes, _mean, slab_bytes, track, "volume")
        group.attrs["ome"] = {"version": "0.5", "multiscales": [_multiscale("volume", shapes, voxel_size_nm, "mean")]}
        group.create_group("labels").attrs["ome"] = {"version": "0.5", "labels": [LABELS]}
        of_labels = group.create_group(f"labels/{LABELS}")
        _write_levels(of_labels, labels, shapes, most_common, slab_bytes, track, "labels")
        of_labels.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [_multiscale(LABELS, shapes, voxel_size_nm, "mode")],
            "image-label": {
                "colors": [
                    {"label-value": k, "rgba": [*bytes.fromhex(color.lstrip("#")), 255 if k else 0]}
                    for k, color in enumerate(class_colors)
                ],
                "properties": [{"label-value": k, "class": name} for k, name in enumerate(class_names)],
                "source": {"image": "../../"},
            },
        }


def stored_voxels(shape: Sequence[int]) -> int:
    """Return the total number of voxels of all levels."""
    return sum(math.prod(level) for level in _level_shapes(shape))


def _level_shapes(shape: Sequence[int]) -> list[tuple[int, ...]]:
    levels = [tuple(int(n) for n in shape)]
    while max(levels[-1]) > SMALLEST_PX:
        levels.append(tuple(-(-n // 2) for n in levels[-1]))
    return levels


def _factors(fine: Sequence[int], coarse: Sequence[int]) -> tuple[int, ...]:
    """Return the reduction factor of each axis: 2, or 1 for an axis of a single voxel."""
    return tuple(1 if n == m else 2 for n, m in zip(fine, coarse, strict=True))


def _multiscale(name: str, shapes: Sequence[tuple[int, ...]], voxel_size_nm: float, method: str) -> dict[str, Any]:
    size, unit = (voxel_size_nm, {"unit": "nanometer"}) if math.isfinite(voxel_size_nm) else (1.0, {})
    datasets, scale = [], np.ones(3)
    for level, shape in enumerate(shapes):
        if level:
            scale = scale * _factors(shapes[level - 1], shape)
        # Voxel 0 of a level lies at the centre of the voxels that it was made of.
        transforms = [
            {"type": "scale", "scale": (scale * size).tolist()},
            {"type": "translation", "translation": ((scale - 1) / 2 * size).tolist()},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    axes = [{"name": axis, "type": "space", **unit} for axis in "zyx"]
    return {"name": name, "axes": axes, "datasets": datasets, "type": method}


def _write_levels(
    group: Any,
    data: ArraySource,
    shapes: Sequence[tuple[int, ...]],
    reduce: Reduce,
    slab_bytes: int,
    track: Track,
    name: str,
) -> None:
    from zarr.codecs import BloscCodec

    dtype = np.dtype(data.dtype).newbyteorder("=")
    source: ArraySource = data
    for level, shape in enumerate(shapes):
        chunks = tuple(min(c, n) for c, n in zip(CHUNKS, shape, strict=True))
        target = group.create_array(
            str(level),
            shape=shape,
            dtype=dtype,
            chunks=chunks,
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=dtype.itemsize),
            fill_value=0,
            dimension_names=list("zyx"),
        )
        factors = (1, 1, 1) if level == 0 else _factors(shapes[level - 1], shape)
        todo = pieces(shape, chunks, dtype.itemsize * math.prod(factors), slab_bytes)
        what = f"writing {name}, level {level + 1} of {len(shapes)}"
        for piece in track(todo, what):
            fine = source[tuple(slice(p.start * f, p.stop * f) for p, f in zip(piece, factors, strict=True))]
            target[piece] = fine if level == 0 else reduce(fine, factors)
        source = target


def _cells(values: Array, factors: Sequence[int]) -> list[Array]:
    """Return one array per position in a cell of `factors`; an incomplete last cell repeats its last voxel."""
    padding = [(0, -n % f) for n, f in zip(values.shape, factors, strict=True)]
    whole = np.pad(values, padding, mode="edge") if any(after for _, after in padding) else values
    starts = itertools.product(*(range(f) for f in factors))
    return [whole[tuple(slice(s, None, f) for s, f in zip(start, factors, strict=True))] for start in starts]


def _mean(values: Array, factors: Sequence[int]) -> Array:
    voxels = _cells(values, factors)
    total = voxels[0].astype(np.float32)
    for voxel in voxels[1:]:
        total += voxel
    return np.asarray(total / np.float32(len(voxels)), dtype=values.dtype)


def _most_common(values: Array, factors: Sequence[int], n_classes: int) -> Array:
    voxels = _cells(values, factors)
    best = np.zeros(voxels[0].shape, values.dtype)
    most = np.zeros(voxels[0].shape, np.uint8)
    for k in range(n_classes):
        count = np.zeros(voxels[0].shape, np.uint8)
        for voxel in voxels:
            count += voxel == k
        best[count > most] = k
        np.maximum(most, count, out=most)
    return best


def _write(context: ExportContext) -> None:
    volume, labels, size, options = context.volume, context.labels, context.voxel_size_nm, context.writing_options
    with context.writing("volume.ome.zarr", atomic=atomic_folder) as folder:
        write_ome_zarr(folder, volume, labels, size, context.class_names, context.class_colors, **options)


def _files(context: ExportContext) -> dict[str, int]:
    shape = context.volume.shape
    size = sum(context.compressed_bytes.values()) * stored_voxels(shape) / math.prod(shape)
    return {"volume.ome.zarr": int(size)}


FORMAT = Format(
    name="zarr",
    description="volume and labels as OME-Zarr 0.5 for napari, Fiji and web viewers",
    files=_files,
    write=_write,
)
