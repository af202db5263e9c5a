"""Format `stl`: the surfaces as binary STL, for printing and finite elements."""

from pathlib import Path
from typing import Any

from tomoseg.export.formats.base import Format, one_file_per_surface
from tomoseg.export.polydata import write_by_vtk

TRIANGLE_BYTES = 50  # by definition of the format


def write_stl(path: Path, polydata: Any, unit: str) -> None:
    """Write a surface as binary STL, with the unit in the header, since the format has none; see `write_by_vtk`."""
    from vtkmodules.vtkIOGeometry import vtkSTLWriter

    writer = vtkSTLWriter()
    writer.SetFileTypeToBinary()
    writer.SetHeader(f"tomoseg; unit of length: {unit}"[:79])  # never begins with "solid", as text files do
    write_by_vtk(writer, path, polydata)


FORMAT = Format(
    name="stl",
    description="the same surfaces, for printing and finite elements",
    files=lambda context: context.surface_files("stl", TRIANGLE_BYTES),
    surface_writer=one_file_per_surface("stl", lambda path, s, context: write_stl(path, s.data, context.unit)),
)
