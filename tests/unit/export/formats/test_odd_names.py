"""Names of classes, columns and raw files that hold anything: every file is valid, and its name is safe."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import tifffile

from tests.unit.stages.test_export_stage import alignment
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.classes import colors_in, default_colors, names_in, problems_with_colors, problems_with_names
from tomoseg.errors import InputError
from tomoseg.export.api import export
from tomoseg.export.context import Surface
from tomoseg.export.formats.json import write_json
from tomoseg.export.formats.multiblock import write_vtm
from tomoseg.export.formats.paraview import write_script
from tomoseg.export.formats.vti import write_vti
from tomoseg.export.parameters import ExportParameters
from tomoseg.runtime import Runtime
from tomoseg.stages.export import STAGE

ODD = "a\x00\x01\x1b[2J\x7f\x9b\ud800\udfff\ufffe\uffff\u202e\n<&\"'>/..\\" + "x" * 300
COLORS = [["notacolour", "", "#zzzzzz"], ["#000000"], [], None, 3, [b"#\xff\xff", b"x", b"y"]]


def text_of(path):
    """Return the text of an XML file, without data appended in binary."""
    return path.read_bytes().partition(b"<AppendedData")[0].decode()


def checked_xml(path):
    """Parse what stands before binary data, and check that every character is one that a person sees."""
    text = text_of(path)
    if "</VTKFile>" not in text:
        text += "</VTKFile>"
    assert text.replace("\n", "").isprintable()
    return ET.fromstring(text)


@pytest.fixture(scope="module", params=COLORS, ids=str)
def exported(request, tmp_path_factory):
    """Return the folder of an export of all formats with odd names and colours in the stored labels."""
    shape = (12, 14, 16)
    classes = np.zeros(shape, np.uint8)
    classes[2:8, 2:9, 2:9] = 1
    classes[4:7, 4:7, 4:7] = 2
    attrs = {"class_names": [f"b{ODD}", f"s{ODD}", f"p{ODD}"], "voxel_size_nm": 1e308}
    if request.param is not None:
        attrs["class_colors"] = request.param
    odd_column = "n\x1b\uffff<"
    particles = np.zeros(2, [("z_px", "f8"), ("y_px", "f8"), ("x_px", "f8"), (odd_column, "f8"), ("name", "S40")])
    particles["name"] = b"p\x1b[2J\xff\n"
    folder = tmp_path_factory.mktemp("odd")
    source = {"source": f"/data/{ODD}", "pixel_size_source": ODD, "source_sha256": "", "tilt_axis": ODD}
    STAGE.run(
        volume=MemoryInput(np.ones(shape, np.float32), {}),
        labels=MemoryInput(classes, attrs),
        **alignment(),
        tilt_series_info=MemoryInput(np.zeros(0), source),
        class_table=MemoryInput(particles[:0], {}),
        particle_table=MemoryInput(particles, {}),
        size_table=MemoryInput(particles[:0], {}),
        params=ExportParameters(export_dir=str(folder), formats=("all",)),
        runtime=Runtime(),
        outputs=MemoryOutputs(),
    )
    return folder


def test_files_of_any_names_are_valid(exported):
    for ending in ("vtm", "vti", "vtp"):
        files = list(exported.glob(f"*.{ending}"))
        assert files
        for file in files:
            checked_xml(file)
    for file in exported.glob("*.csv"):
        assert all(line.isprintable() for line in file.read_text(encoding="utf-8").split("\n"))
    json.loads((exported / "summary.json").read_text(encoding="utf-8"))
    for file in exported.glob("*.ome.tif"):
        with tifffile.TiffFile(file) as tiff:
            ET.fromstring(tiff.ome_metadata)
    compile((exported / "paraview_view.py").read_text(encoding="utf-8"), "script", "exec")
    glb = (exported / "surfaces.glb").read_bytes()
    document = json.loads(glb[20 : 20 + int.from_bytes(glb[12:16], "little")])
    assert all(mesh["name"].isprintable() for mesh in document["meshes"])


def test_files_get_plain_short_names(exported):
    for path in exported.rglob("*"):
        if "zarr" not in str(path):
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", path.name)
    assert sum(path.name.startswith("surface_1_sa_") for path in exported.iterdir()) >= 2


@pytest.mark.parametrize(
    "character", [*map(chr, range(0x20)), "\x7f", "\x85", "\ud83d", "\ufffe", "\uffff", "\u202e"], ids=ascii
)
def test_every_character_that_xml_forbids(tmp_path, character):
    name = f'a{character}b"<&'
    write_vtm(tmp_path / "a.vtm", {f"surfaces{character}": {name: f"f{character}.vtp"}})
    write_vti(tmp_path / "a.vti", np.zeros((2, 2, 2), np.uint8), 1.0, name, {f"k{character}": name, "l": [name]})
    found = [checked_xml(tmp_path / f"a.{ending}") for ending in ("vtm", "vti")]
    shown = {element.get("name") or element.get("Name") for root in found for element in root.iter()}
    assert {'a?b"<&', 'a b"<&'} & shown


def test_the_script_for_paraview_holds_names_as_they_are(tmp_path):
    names = ["γ-Al₂O₃ 😀", 'a"b\\n', "@UNIT@", "@POINTS@"]
    surfaces = [Surface(f"s{i}", name, "#000000", 0.5) for i, name in enumerate(names)]
    write_script(tmp_path / "script.py", surfaces, None, "nm")
    text = (tmp_path / "script.py").read_text(encoding="utf-8")
    held = {}
    exec(text[text.index("SURFACES =") : text.index("AZIMUTH_DEG")], held)
    assert [surface["name"] for surface in held["SURFACES"]] == names
    assert (held["POINTS"], held["UNIT"]) == (None, "nm")


def test_json_keeps_umlauts_and_escapes_what_cannot_be_shown(tmp_path):
    write_json(tmp_path / "a.json", {"größe": 1})
    assert "größe" in (tmp_path / "a.json").read_text(encoding="utf-8")
    write_json(tmp_path / "b.json", {"a": "\x9b2J\u202e\ud800", "größe": 1})
    text = (tmp_path / "b.json").read_text(encoding="utf-8")
    assert text.isascii()
    assert json.loads(text) == {"a": "\x9b2J\u202e\ud800", "größe": 1}


@pytest.mark.parametrize("colors", [["#zzzzzz"] * 2, ["red", "blue"], ["", ""], ["#000000"], ["#00000", "#1111111"]])
def test_colours_that_are_none(tmp_path, colors):
    assert problems_with_colors(colors, 2)
    assert colors_in({"class_colors": colors}, 2) is None
    with pytest.raises(InputError, match="class_colors"):
        export(tmp_path / "x", np.ones((4, 4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), class_names=["a", "b"],
               class_colors=colors)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_names_and_colours_in_a_file():
    assert names_in({"class_names": [b"a\xff\x1b", "b\nc", "γ"]}) == ["a�?", "b c", "γ"]
    for nothing in ({}, {"class_names": []}, {"class_names": 3}, {"class_names": "abc"}):
        assert names_in(nothing) is None
    assert colors_in({"class_colors": default_colors(3)}, 3) == default_colors(3)
    assert problems_with_names(["a", "γ-Al₂O₃ 2"]) == []
    assert "cannot be shown" in problems_with_names(["a", "b\u202e"])[0]
