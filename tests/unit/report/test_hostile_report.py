"""The report of a stranger's project: whatever its texts are, they stay texts."""

import json

import h5py
import numpy as np
import pytest

from tests.conftest import tomoseg
from tests.unit.report.test_report_page import PICTURES, Page
from tomoseg.report.page.page import page_script

HOSTILE = (
    "</script></style></title>--><img src=x onerror=\"alert(1)\"><svg onload='alert(1)'>&lt;b&gt;javascript:alert(1)"
)


def poison_attributes(_name, item):
    """Put the hostile text in place of every text among the attributes, also inside JSON."""
    for key, value in item.attrs.items():
        if isinstance(value, str) and value[:1] in ("{", "["):
            item.attrs[key] = json.dumps(poisoned(json.loads(value)))
        elif isinstance(value, str) and key != "tilt_axis":
            item.attrs[key] = HOSTILE
        elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
            item.attrs[key] = [f"{text}{HOSTILE}" for text in value]


def poisoned(value):
    if isinstance(value, dict):
        kept = {"stage", "run_id", "fingerprint", "started", "outcome", "continues", "path", "sha256", "consumed"}
        return {key: item if key in kept else poisoned(item) for key, item in value.items()} | {HOSTILE: HOSTILE}
    if isinstance(value, list):
        return [*(poisoned(item) for item in value), HOSTILE]
    return HOSTILE if isinstance(value, str) else value


def poison_record(attrs):
    record = json.loads(attrs["record"])
    for key in ("parameters", "versions"):
        record[key] = poisoned(record[key])
    for key in ("warnings", "notes"):
        record[key] = [HOSTILE]
    for key in ("host", "device", "started", "job_id"):
        record[key] = HOSTILE
    attrs["record"] = json.dumps(record)


@pytest.fixture
def page(project, tmp_path):
    """Return the report of a project full of hostile texts, whose file is called like one."""
    with h5py.File(project, "r+") as file:
        for group in ("tilt_series", "alignment", "reconstruction", "segmentation", "measurement", "export"):
            if group in file:
                poison_attributes(group, file[group])
                file[group].visititems(poison_attributes)
        for stage in file["provenance"]:
            if "record" in file["provenance"][stage].attrs:
                poison_record(file["provenance"][stage].attrs)
    named = project.rename(tmp_path / "<img src=x onerror=alert(1)>\"'&.h5")
    tomoseg("report", named, "-o", tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_nothing_from_the_file_becomes_markup(page):
    assert {tag for tag, _ in page.tags}.isdisjoint({"svg", "b", "iframe", "object", "link", "base"})
    assert [text for text in page.scripts if text[:1] != "{"] == [page_script()]
    assert page.data.keys() == {"tilts", "slices", "surfaces"}
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], tag
        for name in ("src", "srcset", "href"):
            assert attrs.get(name, "#").startswith(("#", *PICTURES))
        assert "alert" not in attrs.get("style", "")
    assert [tag for tag, _ in page.tags].count("style") == 1
    # It is there to be read: as title, class names, source and metadata, warnings, notes, parameters, host.
    assert "<img src=x onerror=alert(1)>\"'& · tomoseg report" in page.words
    assert page.words.count(HOSTILE) > 40
