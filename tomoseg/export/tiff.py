"""OME-TIFF, plane by plane: for Fiji, QuPath and everything that reads TIFF.

Planes are the array's own, (z, y, x) with y down, as napari and Fiji show them; nothing is turned.
"""

import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array, ArraySource
from tomoseg.runtime import slabs

# Like `Runtime.track`: yields the slabs one after the other while somebody watches.
Track = Callable[[Sequence[slice], str], Iterable[slice]]

# Offsets of classic TIFF have 32 bits; some room for the directories of the planes.
MOST_CLASSIC_BYTES = (1 << 32) - (1 << 26)


def write_ome_tiff(
    path: Path,
    data: ArraySource,
    voxel_size_nm: float,
    name: str,
    *,
    facts: Mapping[str, str | Sequence[str]] | None = None,
    slab_bytes: int = 64 << 20,
    track: Track | None = None,
) -> None:
    """Write a volume as OME-TIFF with zlib compression; BigTIFF where it needs more than 4 GB.

    Parameters
    ----------
    path
        File to write.
    data : array or handle, (z, y, x)
        float32 or integers; read in slabs from the first plane to the last.
    voxel_size_nm
        Stored as PhysicalSizeX, Y and Z in nm, and as the resolution of each plane, which programs that know nothing
        of OME use; NaN where unknown: then neither is stored, and programs show voxels.
    name
        Name of the image.
    facts
        Texts to be stored as a map annotation.
    slab_bytes
        How much is read at once; a plane at least.
    track
        Called with the slabs and a description and yields the slabs, to show progress: `runtime.track` fits.
    """
    import tifffile

    shape = tuple(int(n) for n in data.shape)
    dtype = np.dtype(data.dtype).newbyteorder("<")
    plane = shape[1] * shape[2] * dtype.itemsize
    parts = slabs(shape[0], max(1, slab_bytes // plane))

    def planes() -> Iterator[Array]:
        for part in track(parts, f"writing {name}.ome.tif") if track else parts:
            yield from np.ascontiguousarray(data[part], dtype=dtype)

    texts = {key: text if isinstance(text, str) else ", ".join(text) for key, text in (facts or {}).items()}
    # Not by the time, as is usual: the same data give the same file.
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
