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

_ROWS = (vti, vtkhdf, vtp, stl, ply, gltf, multiblock, paraview, mrc, tiff, zarr, csv, parquet, json, alignment)
FORMATS: tuple[Format, ...] = tuple(module.FORMAT for module in _ROWS)
