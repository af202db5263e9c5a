"""Format `tiff`: OME-TIFF, written plane by plane, for Fiji, QuPath and every program that reads TIFF.

The planes are those of the array, (z, y, x) with y down, as napari and Fiji show them; nothing is rotated.
"""

import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array, ArraySource
from tomoseg.chunks import planes_at_once
from tomoseg.export.context import ExportContext, Facts, as_texts
from tomoseg.export.formats.base import Format
from tomoseg.runtime import Track, slabs, untracked

# Offsets of classic TIFF have 32 bits; some room for the directories of the planes.
MOST_CLASSIC_BYTES = (1 << 32) - (1 << 26)


def write_ome_tiff(
    path: Path,
    data: ArraySource,
    voxel_size_nm: float,
    name: str,
    facts: Facts | None = None,
    *,
    slab_bytes: int = 64 << 20,
    track: Track = untracked,
) -> None:
    """Write a volume as OME-TIFF with zlib compression; BigTIFF where it needs more than 4 GB.

    `data` are float32 or integers. `voxel_size_nm` is stored as PhysicalSizeX, Y and Z in nm, and as the resolution of
    each plane, for programs that do not read OME metadata. If NaN (unknown), neither is stored and programs show
    voxels. `facts` are stored as a map annotation. Other parameters as for `write_vti`; at least one plane is read.
    """
    import tifffile

    shape = tuple(int(n) for n in data.shape)
    dtype = np.dtype(data.dtype).newbyteorder("<")
    plane = shape[1] * shape[2] * dtype.itemsize
    parts = slabs(shape[0], planes_at_once(data, max(1, slab_bytes // plane)))

    def planes() -> Iterator[Array]:
        for part in track(parts, f"writing {name}.ome.tif"):
            yield from np.ascontiguousarray(data[part], dtype=dtype)

    texts = as_texts(facts or {})
    # Not made from the time, as is usual: the same data give the same file.
    identity = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([name, shape, voxel_size_nm, texts]))
    metadata: dict[str, Any] = {"axes": "ZYX", "Name": name, "UUID": f"urn:uuid:{identity}"}
    if texts:
        metadata["MapAnnotation"] = {"Namespace": "tomoseg", **texts}
    physical: dict[str, Any] = {}
    if math.isfinite(voxel_size_nm):
        for axis in "XYZ":
            metadata |= {f"PhysicalSize{axis}": voxel_size_nm, f"PhysicalSize{axis}Unit": "nm"}
        per_cm = 1e7 / voxel_size_nm  # (nm / cm) / (nm / px)
        physical = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, ome=True, bigtiff=plane * shape[0] > MOST_CLASSIC_BYTES, byteorder="<") as file:
        file.write(
            planes(),
            shape=shape,
            dtype=dtype,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 3},
            metadata=metadata,
            **physical,
        )


def _write(context: ExportContext) -> None:
    for name, data in context.arrays.items():
        with context.writing(f"{name}.ome.tif") as path:
            write_ome_tiff(path, data, context.voxel_size_nm, name, context.facts, **context.writing_options)


FORMAT = Format(
    name="tiff",
    description="volume and labels as OME-TIFF for Fiji and napari",
    files=lambda context: {f"{name}.ome.tif": size for name, size in context.compressed_bytes.items()},
    write=_write,
)
