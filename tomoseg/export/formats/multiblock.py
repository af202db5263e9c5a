"""Format `multiblock`: a VTK index (.vtm) through which ParaView opens all files of an export, by name."""

from collections.abc import Mapping
from pathlib import Path

from tomoseg.export.context import ExportContext
from tomoseg.export.formats.base import Format, xml_attribute


def write_vtm(path: Path, blocks: Mapping[str, Mapping[str, str]]) -> None:
    """Write an index of files beside it: by group, the names and files (.vtp or .vti) of data sets; no empty groups."""
    groups: list[str] = []
    for name, files in blocks.items():
        if files:
            sets = [
                f'      <DataSet index="{i}" name={xml_attribute(title)} file={xml_attribute(file)}/>\n'
                for i, (title, file) in enumerate(files.items())
            ]
            head = f'    <Block index="{len(groups)}" name={xml_attribute(name)}>\n'
            groups.append(head + "".join(sets) + "    </Block>\n")
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VTKFile type="vtkMultiBlockDataSet" version="1.0" byte_order="LittleEndian" header_type="UInt64">\n'
        "  <vtkMultiBlockDataSet>\n" + "".join(groups) + "  </vtkMultiBlockDataSet>\n</VTKFile>\n",
        encoding="utf-8",
    )


def _write(context: ExportContext) -> None:
    has_polydata = "vtp" in context.formats
    blocks = {
        "surfaces": {s.name: f"{s.stem}.vtp" for s in context.surfaces} if has_polydata else {},
        "points": {"particles as points": "particles.vtp"} if has_polydata and context.has_points else {},
        "images": {name: f"{name}.vti" for name in context.arrays} if "vti" in context.formats else {},
    }
    with context.writing("all.vtm") as path:
        write_vtm(path, blocks)


FORMAT = Format(
    name="multiblock",
    description="one file that opens those of vti and vtp together",
    files=lambda _: {"all.vtm": 0},
    write=_write,
    refers_to=("vti", "vtp"),
    by_default=True,
)
