"""The table of export formats, in the order in which they are listed and written; see `base.Format` for adding one."""

from tomoseg.export.formats import (
    alignment,
    csv,
    gltf,
    json,
    mrc,
    multiblock,
    paraview,
    parquet,
    ply,
    stl,
    tiff,
    vti,
    vtkhdf,
    vtp,
    zarr,
)
from tomoseg.export.formats.base import Format

FORMATS: tuple[Format, ...] = (
    vti.FORMAT,
    vtkhdf.FORMAT,
    vtp.FORMAT,
    stl.FORMAT,
    ply.FORMAT,
    gltf.FORMAT,
    multiblock.FORMAT,
    paraview.FORMAT,
    mrc.FORMAT,
    tiff.FORMAT,
    zarr.FORMAT,
    csv.FORMAT,
    parquet.FORMAT,
    json.FORMAT,
    alignment.FORMAT,
)
