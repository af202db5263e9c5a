"""A VTK multi-block file (.vtm): an index by which ParaView opens all files of an export at once, with their names."""

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr


def write_vtm(path: Path, blocks: Mapping[str, Mapping[str, str]]) -> None:
    """Write an index of files; no data are copied.

    Parameters
    ----------
    path
        File to write, in the folder of the others.
    blocks
        For each group its data sets: name and file name, .vtp or .vti. Groups without any are left out.
    """
    groups: list[str] = []
    for name, files in blocks.items():
        if files:
            sets = [
                f"      <DataSet index={quoteattr(str(i))} name={quoteattr(title)} file={quoteattr(file)}/>\n"
                for i, (title, file) in enumerate(files.items())
            ]
            head = f'    <Block index="{len(groups)}" name={quoteattr(name)}>\n'
            groups.append(head + "".join(sets) + "    </Block>\n")
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VTKFile type="vtkMultiBlockDataSet" version="1.0" byte_order="LittleEndian" header_type="UInt64">\n'
        "  <vtkMultiBlockDataSet>\n" + "".join(groups) + "  </vtkMultiBlockDataSet>\n</VTKFile>\n",
        encoding="utf-8",
    )
