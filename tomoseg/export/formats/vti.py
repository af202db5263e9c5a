"""Format `vti`: VTK image data, written plane by plane as raw or zlib-compressed appended data with 64-bit offsets.

VTK's own writer is not used because it takes the whole volume in memory. The layout is that of VTK's XML files ("VTK
XML Formats", docs.vtk.org): after the underscore of AppendedData, each array is a header of UInt64 and the values.
Without compression the header is the number of bytes; with it, the number of blocks, the size of a block, the size of a
last smaller block (0: none), and the compressed size of each block.
"""

import math
import os
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tomoseg.ahead import ahead
from tomoseg.arrays import Array, ArraySource, Box
from tomoseg.chunks import pieces_of, planes_at_once, write_piece
from tomoseg.errors import printable
from tomoseg.export.context import ExportContext, Facts
from tomoseg.export.formats.base import Format, xml_attribute
from tomoseg.export.frame import world_origin
from tomoseg.runtime import Track, slabs, untracked

TYPES = {"u1": "UInt8", "i1": "Int8", "u2": "UInt16", "i2": "Int16", "i4": "Int32", "f4": "Float32", "f8": "Float64"}


def write_vti(
    path: Path,
    data: ArraySource,
    voxel_size: float,
    name: str,
    facts: Facts | None = None,
    *,
    compress: bool = False,
    slab_bytes: int = 64 << 20,
    track: Track = untracked,
) -> None:
    """Write a volume as VTK image data, upright in ParaView: see `tomoseg.export.frame`.

    The values are at the centres of the voxels (point data), so that ParaView can contour and render them.

    Parameters
    ----------
    path : file to write
    data : array or handle, (z, y, x), read in boxes, or in slabs where it is compressed
    voxel_size : distance of neighbouring voxels, in the unit of the file
    name : of the array
    facts : texts to store as field data
    compress : compress each plane by zlib: worth it for labels, not for noisy floats
    slab_bytes, track : bytes to read at once, and what shows the progress
    """
    dtype = np.dtype(data.dtype).newbyteorder("<")
    head = _head(tuple(data.shape), voxel_size, name, TYPES[f"{dtype.kind}{dtype.itemsize}"], facts or {}, compress)
    with path.open("wb") as file:
        file.write(head.encode())
        (_append_zlib if compress else _append_raw)(file, data, dtype, slab_bytes, track, f"writing {name}")
        file.write(b"\n  </AppendedData>\n</VTKFile>\n")


def _head(shape: tuple[int, ...], voxel_size: float, name: str, vtk_type: str, facts: Facts, compress: bool) -> str:
    extent = " ".join(f"0 {n - 1}" for n in shape[::-1])
    origin = " ".join(repr(float(v)) for v in world_origin(shape, voxel_size))
    spacing = " ".join([repr(float(voxel_size))] * 3)
    fields = "".join(_text_array(key, text) for key, text in facts.items())
    compressor = ' compressor="vtkZLibDataCompressor"' if compress else ""
    return (
        '<?xml version="1.0"?>\n'
        f'<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64"{compressor}>\n'
        f'  <ImageData WholeExtent="{extent}" Origin="{origin}" Spacing="{spacing}" Direction="1 0 0 0 1 0 0 0 1">\n'
        f"    <FieldData>\n{fields}    </FieldData>\n"
        f'    <Piece Extent="{extent}">\n'
        f"      <PointData Scalars={xml_attribute(name)}>\n"
        f'        <DataArray type="{vtk_type}" Name={xml_attribute(name)} format="appended" offset="0"/>\n'
        "      </PointData>\n      <CellData/>\n    </Piece>\n  </ImageData>\n"
        '  <AppendedData encoding="raw">\n_'
    )


def _text_array(key: str, text: str | Sequence[str]) -> str:
    """Return a string array of field data: the bytes of each text, ended by 0, as decimal numbers."""
    texts = [text] if isinstance(text, str) else list(text)
    codes = " ".join(str(byte) for t in texts for byte in (*printable(t).encode(), 0))
    tuples = f'NumberOfTuples="{len(texts)}"'
    return f'      <Array type="String" Name={xml_attribute(key)} {tuples} format="ascii">{codes}</Array>\n'


def _append_raw(file: BinaryIO, data: ArraySource, dtype: np.dtype[Any], n_bytes: int, track: Track, what: str) -> None:
    nz, ny, _ = shape = tuple(data.shape)
    file.write(np.array([math.prod(shape) * dtype.itemsize], "<u8").tobytes())
    start = file.tell()

    def read(box: Box) -> tuple[Box, Array]:
        z, y, x = box
        return box, np.ascontiguousarray(
            data[nz - z.stop : nz - z.start, ny - y.stop : ny - y.start, x][::-1, ::-1], dtype
        )

    boxes = pieces_of(data, dtype.itemsize, n_bytes)
    with closing(ahead(read, boxes)) as parts:
        for _ in track(boxes, what):
            box, values = next(parts)
            write_piece(file, start, values, box, shape)
    file.seek(0, os.SEEK_END)


def _append_zlib(
    file: BinaryIO, data: ArraySource, dtype: np.dtype[Any], n_bytes: int, track: Track, what: str
) -> None:
    nz, plane_bytes = data.shape[0], math.prod(data.shape[1:]) * dtype.itemsize
    header = np.zeros(3 + nz, "<u8")
    header[:3] = nz, plane_bytes, 0
    start = file.tell()
    file.write(header.tobytes())
    parts = slabs(nz, planes_at_once(data, max(1, n_bytes // plane_bytes)))[::-1]
    i = 3
    with closing(ahead(lambda z: data[z], parts)) as read:
        for _ in track(parts, what):
            for plane in next(read)[::-1]:
                header[i] = file.write(zlib.compress(np.ascontiguousarray(plane[::-1], dtype).data, 3))
                i += 1
    file.seek(start)
    file.write(header.tobytes())  # now with the sizes
    file.seek(0, os.SEEK_END)


def _write(context: ExportContext) -> None:
    for name, data in {**context.arrays, **context.signals}.items():
        with context.writing(f"{name}.vti") as path:
            compress = name == "labels"
            write_vti(path, data, context.voxel_size, name, context.facts, compress=compress, **context.writing_options)


FORMAT = Format(
    name="vti",
    description="volume, labels and further signals for ParaView",
    files=lambda context: {
        "volume.vti": context.raw_bytes["volume"],
        "labels.vti": context.compressed_bytes["labels"],
        **{f"{name}.vti": context.raw_bytes[name] for name in context.signals},
    },
    write=_write,
    by_default=True,
)
