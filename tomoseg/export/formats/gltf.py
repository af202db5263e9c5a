"""Format `gltf`: all surfaces as one binary glTF 2.0 scene (.glb), for browsers, Blender, PowerPoint and slides.

Written by hand, because VTK's writer (9.7) stores no transparency, names or unit and reports success on a full disk,
and trimesh holds the whole scene in memory; here one surface at a time is held. The layout is that of the Khronos
specification: a header of 12 bytes, a chunk of JSON, a chunk of binary data. The standard's unit of length is the
metre, in which a particle would be too small for any viewer: a unit of the file is a nanometre instead (a scale of
10^9), as `asset.extras` says. The standard's axes, right-handed with y up, are those of our other surfaces.
"""

import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import StageFailed
from tomoseg.export.context import ExportContext, Facts, Surface
from tomoseg.export.formats.base import Format
from tomoseg.export.polydata import surface_arrays

JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942  # "JSON" and "BIN\0"
FLOAT32, UINT32 = 5126, 5125
VERTICES, INDICES = 34962, 34963
MOST_BYTES = (1 << 32) - 1  # lengths have 32 bits
TRIANGLE_BYTES = 24  # measured on smoothed surfaces of 10^5 to 10^6 triangles


class Scene:
    """A scene of surfaces, collected in `spool`, an open binary file, until it is written with the `facts`."""

    def __init__(self, spool: IO[bytes], unit: str, facts: Facts | None = None) -> None:
        self._spool = spool
        self._accessors: list[dict[str, Any]] = []
        self._views: list[dict[str, Any]] = []
        self._meshes: list[dict[str, Any]] = []
        self._materials: list[dict[str, Any]] = []
        self._extras = {**(facts or {}), "unit_of_length": f"1 unit of the file = 1 {unit}, not 1 m"}

    @property
    def bytes(self) -> int:
        """Bytes of the file, except for a few kB."""
        return sum(view["byteLength"] for view in self._views)

    def add(self, name: str, points: Array, normals: Array, triangles: Array, color: str, opacity: float) -> None:
        """Add points and outward normals (n, 3), counter-clockwise triangles (m, 3), a colour #rrggbb, an opacity."""
        ends = {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
        attributes = {
            "POSITION": self._store(points.astype("<f4"), FLOAT32, "VEC3", VERTICES, **ends),
            "NORMAL": self._store(normals.astype("<f4"), FLOAT32, "VEC3", VERTICES),
        }
        indices = self._store(triangles.astype("<u4").ravel(), UINT32, "SCALAR", INDICES)
        self._materials.append(_material(name, color, opacity))
        primitive = {"attributes": attributes, "indices": indices, "material": len(self._materials) - 1, "mode": 4}
        self._meshes.append({"name": name, "primitives": [primitive]})

    def write(self, path: Path) -> None:
        """Write the scene; raise StageFailed if it has more than 4 GiB, which the format cannot hold."""
        document = json.dumps(self._document(), ensure_ascii=False).encode()
        document += b" " * (-len(document) % 4)
        total = 12 + 8 + len(document) + 8 + self.bytes
        if total > MOST_BYTES:
            raise StageFailed(
                f"surfaces.glb would have {total / 2**30:.1f} GiB, and a .glb file holds at most 4 GiB. Lower "
                "export.target_triangles, or leave out gltf."
            )
        with path.open("wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, total))
            file.write(struct.pack("<II", len(document), JSON_CHUNK) + document)
            file.write(struct.pack("<II", self.bytes, BINARY_CHUNK))
            self._spool.seek(0)
            shutil.copyfileobj(self._spool, file)

    def _document(self) -> dict[str, Any]:
        nodes = [{"name": mesh["name"], "mesh": i} for i, mesh in enumerate(self._meshes)]
        return {
            "asset": {"version": "2.0", "generator": "tomoseg", "extras": self._extras},
            "scene": 0,
            "scenes": [{"nodes": list(range(len(nodes)))}],
            "nodes": nodes,
            "meshes": self._meshes,
            "materials": self._materials,
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": self.bytes}],
        }

    def _store(self, values: Array, component: int, kind: str, target: int, **more: Any) -> int:
        data = np.ascontiguousarray(values)
        self._views.append({"buffer": 0, "byteOffset": self.bytes, "byteLength": data.nbytes, "target": target})
        self._spool.write(data.data)
        view = len(self._views) - 1
        self._accessors.append(
            {"bufferView": view, "componentType": component, "count": len(data), "type": kind, **more}
        )
        return view


def _material(name: str, color: str, opacity: float) -> dict[str, Any]:
    rgb = np.frombuffer(bytes.fromhex(color.lstrip("#")), np.uint8) / 255
    # Colours are given as sRGB; the format wants them linear (IEC 61966-2-1).
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    blend = {"alphaMode": "BLEND"} if opacity < 1 else {}
    return {
        "name": name,
        "pbrMetallicRoughness": {
            "baseColorFactor": [*linear.round(6).tolist(), opacity],
            "metallicFactor": 0.0,
            "roughnessFactor": 0.6,
        },
        "doubleSided": True,
        **blend,
    }


@contextmanager
def _surface_writer(context: ExportContext) -> Iterator[Callable[[Surface], None]]:
    with tempfile.TemporaryFile(dir=context.manifest.directory) as spool:
        scene = Scene(spool, context.unit, context.facts)

        def add(surface: Surface) -> None:
            scene.add(surface.name, *surface_arrays(surface.data), surface.color, surface.opacity)

        yield add
        if scene.bytes:
            with context.writing("surfaces.glb") as path:
                scene.write(path)


FORMAT = Format(
    name="gltf",
    description="all surfaces with colours in one file, for browsers, Blender and slides",
    # Twice, because the scene is collected in a file without a name before it is written.
    files=lambda context: {"surfaces.glb": 2 * sum(context.surface_files("glb", TRIANGLE_BYTES).values())},
    surface_writer=_surface_writer,
)
