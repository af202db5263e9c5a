"""Text of a project in the page and in pictures: nothing invisible, nothing that turns the text, valid XML."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tomoseg.arrays import MemoryInput
from tomoseg.project.provenance import Record, StageState
from tomoseg.report.figure_files import write_figures
from tomoseg.report.html import el
from tomoseg.report.page.page import write_report
from tomoseg.report.preview import write_preview
from tomoseg.report.results import Results

ODD = "a\x00\x1b[2J\x9b31m\ud800\ufffe\u202eb\u2066<script>"


@pytest.fixture
def results():
    shape = (12, 12, 12)
    labels = np.zeros(shape, np.uint8)
    labels[4:8, 4:8, 4:8] = 1
    labels[5:7, 5:7, 5:7] = 2
    names = {"class_names": [f"background{ODD}", f"s{ODD}", f"p{ODD}"], "class_colors": [ODD, "red", "#zzzzzz"]}
    artifacts = {
        "volume": MemoryInput(labels.astype(np.float32), {"voxel_size_nm": 1e308}),
        "labels": MemoryInput(labels, names),
        "tilt_series": MemoryInput(np.ones((5, 12, 12), np.float32), {}),
        "tilt_series_info": MemoryInput(None, {"source": ODD, "metadata": '{"a": "' + ODD[5:] + '"}', "format": ODD}),
        "angles_deg": MemoryInput(np.linspace(-60, 60, 5), {}),
    }
    record = Record("import", ODD, "", 1, {"raw": ODD}, {}, {}, ODD, host=ODD, device=ODD, notes=[ODD], warnings=[ODD])
    return Results(artifacts, [StageState("import", "stale", [ODD], record)], f"title{ODD}")


def test_the_page_holds_no_character_that_is_not_seen(results, tmp_path):
    write_report(tmp_path / "r.html", results, f"tomoseg run {ODD}")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    seen = text.replace("\n", "").replace("\t", "").replace("\u00a0", "").replace("\u202f", "").replace("\u2009", "")
    assert seen.isprintable()
    assert "b?<script>" not in text
    assert "<title>titlea??[2J?31m???b?&lt;script&gt;" in text


@pytest.mark.parametrize("file_format", ["svg", "pdf", "png"])
def test_the_preview_of_odd_names(results, tmp_path, file_format):
    write_preview(tmp_path / f"p.{file_format}", results)
    if file_format == "svg":
        ET.fromstring((tmp_path / "p.svg").read_text(encoding="utf-8"))


def test_plots_in_files_are_valid(results, tmp_path):
    for path in write_figures(tmp_path / "figures", "svg", results):
        ET.fromstring(path.read_text(encoding="utf-8"))


def test_text_in_markup():
    made = el("p", "a\x1bb\u202ec\nd\u00a0e\u2009f<", title='x\x00"y')
    assert made == '<p title="x?&quot;y">a?b?c\nd\u00a0e\u2009f&lt;</p>'
