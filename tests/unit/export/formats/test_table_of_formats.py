"""The table of formats agrees with the modules, the parameters, the documentation, and with what is written."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import tomoseg
from tests.unit.stages.test_export_stage import exported, labelled, measured
from tomoseg.arrays import MemoryInput
from tomoseg.export import formats as package
from tomoseg.export.context import AlignmentRecord, ExportContext, SurfacePlan
from tomoseg.export.formats import FORMATS
from tomoseg.export.manifest import Manifest
from tomoseg.export.parameters import ALL_FORMATS, DEFAULT_FORMATS, ExportParameters
from tomoseg.runtime import Runtime

NAMES = ["background", "γ-Al₂O₃", "Pt", "absent"]


@pytest.fixture
def context(tmp_path):
    tables = {
        "particles": np.zeros(1, [("z_px", "f8"), ("y_px", "f8"), ("x_px", "f8")]),
        "classes": np.zeros(1, "i4,i4"),
    }
    record = AlignmentRecord(np.zeros(3), np.zeros((3, 2)), 0.0, 0.0, (24, 40))
    labels = labelled()
    planned = {1: SurfacePlan(1, 1000), 2: SurfacePlan(1, 500)}
    return ExportContext(
        Manifest(tmp_path), labels * np.float32(2), labels, 0.5, NAMES, (), "", tables, {}, record, ALL_FORMATS,
        Runtime(), planned,
    )  # fmt: skip


def test_each_module_is_a_row_and_each_row_a_module():
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert set(ALL_FORMATS) == modules
    assert len(FORMATS) == len(modules)


def test_the_formats_that_others_refer_to_come_first():
    for f in FORMATS:
        assert all(ALL_FORMATS.index(other) < ALL_FORMATS.index(f.name) for other in f.refers_to)
        assert not (f.refers_to and f.surface_writer)


def test_no_two_formats_write_the_same_file(context):
    names = [name for f in FORMATS for name in f.files(context)]
    assert len(names) == len(set(names))
    for f in FORMATS:
        assert f.files(context)


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_a_format_writes_no_files_but_those_it_names(tmp_path, name):
    labels = labelled()
    labels[15:19, 24:28, 10:20] = 0  # a closed pore
    attrs = {"class_names": NAMES, "voxel_size_nm": 0.5}
    given = {**measured(), "labels": MemoryInput(labels, attrs)}
    wanted = next(f for f in FORMATS if f.name == name)
    info, _ = exported(given, tmp_path, formats=[*wanted.refers_to[:1], name])
    tables = {stem: given[key] for stem, key in {"classes": "class_table", "particles": "particle_table"}.items()}
    tables["size_distribution"] = given["size_table"]
    record = AlignmentRecord(np.zeros(3), np.zeros((3, 2)), 0.0, 0.0, (24, 40))
    context = ExportContext(
        Manifest(tmp_path), labels, labels, 0.5, NAMES, (), "", tables, {}, record, ALL_FORMATS, Runtime()
    )
    first = [file for f in FORMATS if f.name in wanted.refers_to[:1] for file in f.files(context)]
    written = {entry["name"] for entry in json.loads(info["files"])}
    named = set(wanted.files(context))
    assert written - set(first) <= named
    # A class without voxels has no surface.
    assert {file for file in named - written if "absent" not in file} == set()


def test_the_help_text_describes_each_format():
    text = ExportParameters.model_fields["formats"].description
    for f in FORMATS:
        assert f"{f.name}: {f.description}" in text
        assert "\n" not in f.description
        assert not f.description.endswith(".")


def test_the_page_of_the_documentation_lists_each_format_and_marks_the_usual_ones():
    page = Path(tomoseg.__file__).parent.parent / "docs" / "export.md"
    if not page.exists():
        pytest.skip("not a source checkout")
    table = page.read_text(encoding="utf-8").split("##")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = dict(re.findall(r"`(\w+)`( \*)?", "".join(rows)))
    assert set(listed) == set(ALL_FORMATS)
    assert {name for name, mark in listed.items() if mark} == set(DEFAULT_FORMATS)
