"""Format `ply`: the surfaces as binary PLY with normals and colours, for Blender and MeshLab.

Written by hand, because VTK's writer reports success on a full disk (VTK 9.7) and takes 20 times as long.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.export.formats.base import Format, one_file_per_surface
from tomoseg.export.polydata import surface_arrays

VERTEX = np.dtype([("position", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)])
FACE = np.dtype([("n", "u1"), ("points", "<i4", 3)])
TRIANGLE_BYTES = 27  # measured on smoothed surfaces of 10^5 to 10^6 triangles


def write_ply(path: Path, polydata: Any, unit: str, color: str) -> None:
    """Write a surface as binary PLY with normals and one colour, #rrggbb; a comment names the unit."""
    points, normals, triangles = surface_arrays(polydata)
    vertices = np.empty(len(points), VERTEX)
    vertices["position"], vertices["normal"] = points, normals
    vertices["color"] = np.frombuffer(bytes.fromhex(color.lstrip("#")), np.uint8)
    faces = np.empty(len(triangles), FACE)
    faces["n"], faces["points"] = 3, triangles
    properties = [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    properties += [f"property uchar {name}" for name in ("red", "green", "blue")]
    head = ["ply", "format binary_little_endian 1.0", f"comment tomoseg; unit of length: {unit}"]
    head += [f"element vertex {len(points)}", *properties]
    head += [f"element face {len(triangles)}", "property list uchar int vertex_indices", "end_header"]
    with path.open("wb") as file:
        file.write("".join(f"{line}\n" for line in head).encode("ascii"))
        file.write(vertices.data)
        file.write(faces.data)


FORMAT = Format(
    name="ply",
    description="the same surfaces with normals and colours, for Blender and MeshLab",
    files=lambda context: context.surface_files("ply", TRIANGLE_BYTES),
    surface_writer=one_file_per_surface("ply", lambda path, s, context: write_ply(path, s.data, context.unit, s.color)),
)
