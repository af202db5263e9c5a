"""Format `vtp`: a surface per class and the particles as points, as VTK poly data."""

from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.export.context import ExportContext, Facts
from tomoseg.export.formats.base import Format, one_file_per_surface
from tomoseg.export.polydata import points_polydata, vtk_texts, write_by_vtk
from tomoseg.export.tables import columns_of

TRIANGLE_BYTES = 25  # measured on smoothed surfaces of 10^5 to 10^6 triangles


def write_vtp(path: Path, polydata: Any, facts: Facts | None = None) -> None:
    """Write poly data as .vtp, compressed, with `facts` as field data; raises as `write_by_vtk` does."""
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

    for key, text in (facts or {}).items():
        polydata.GetFieldData().AddArray(vtk_texts([text] if isinstance(text, str) else text, key))
    writer = vtkXMLPolyDataWriter()
    writer.SetHeaderTypeToUInt64()
    writer.EncodeAppendedDataOff()
    write_by_vtk(writer, path, polydata)


def _write_points(context: ExportContext) -> None:
    if not context.has_points:
        return
    table = context.tables["particles"][:]
    points = np.stack([table[f"{axis}_px"] for axis in "zyx"], axis=1)
    with context.writing("particles.vtp", f", {len(table)} points") as path:
        write_vtp(path, points_polydata(points, context.voxel_size, columns_of(table)), context.facts)


FORMAT = Format(
    name="vtp",
    description="a surface per class and of the closed pores, and the particles as points, for ParaView",
    files=lambda context: {
        **({"particles.vtp": 0} if context.has_points else {}),
        **context.surface_files("vtp", TRIANGLE_BYTES),
    },
    write=_write_points,
    surface_writer=one_file_per_surface(
        "vtp", lambda path, s, context: write_vtp(path, s.data, {**context.facts, "class_name": s.name})
    ),
    by_default=True,
)
