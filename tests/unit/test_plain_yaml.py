"""YAML of plain values: read as YAML 1.2 reads them, and written so that nobody reads anything else."""

import math

import pytest
import yaml

from tomoseg import config, plain_yaml
from tomoseg.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            (text, text)
            for text in ("0b1", "1:1", "1:30:00", "1_000", "on", "off", "yes", "no", "y", "N", "=", "-0x1f")
        ],
        *[(text, text) for text in ("2026-01-31", "1.2.3", "nan", "inf", ".", "1e", "0x", "0o8", "tRUE", "NuLL")],
        *[("0o17", 15), ("0xff", 255), ("0777", 777), ("08", 8), ("+3", 3), ("-12", -12), ("1e3", 1000.0)],
        *[(".5", 0.5), ("5.", 5.0), ("1e-05", 1e-5), ("-1.5E+2", -150.0), (".inf", math.inf), ("-.INF", -math.inf)],
        *[("true", True), ("FALSE", False), ("null", None), ("~", None), ("", None), ("'12'", "12"), ("!!str 1", "1")],
        ("[0b1, 1:1, 2, no]", ["0b1", "1:1", 2, "no"]),
        ("{a: {<<: {b: 1:1}}}", {"a": {"b": "1:1"}}),
    ],
    ids=str,
)
def test_plain_words(text, value):
    found = plain_yaml.load(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "!!int 0b1", "9" * 5000, "!!float x"]
)
def test_what_cannot_be_read_is_a_value_error(text):
    with pytest.raises(ValueError, match=r".") as caught:
        plain_yaml.load(text)
    assert len(str(caught.value)) < 500


VALUES = [
    *(
        "0b1",
        "1:1",
        "0o7",
        "0777",
        "no",
        "on",
        "null",
        "~",
        "1e3",
        "12",
        "1_0",
        "",
        "<<",
        "=",
        "2026-01-31",
        "#x",
        "- a",
    ),
    *("a\nreconstruct: {iterations: 1}", "\x1b[2J", "a\x85b", "\u202eb", "größe", "\t", " a ", "x: y", "\x00"),
    *(12, 1.5, 1e-5, 1e300, -0.0, True, False, None, [], {}, ["a\x9b", 1, None, "1:1"], {"a\x1b": ["b", "no"]}),
]


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_a_value_is_written_on_one_printable_line_and_read_back(value, ascii_only):
    text = plain_yaml.dump(value, ascii_only=ascii_only)
    assert text.isprintable()
    assert text.isascii() or not ascii_only
    if value == "\x00":
        return  # which no pipeline may hold
    assert plain_yaml.load(text) == value
    assert yaml.safe_load(text) == value  # nor does a reader of YAML 1.1 take it for something else


def test_a_ratio_in_a_pipeline_is_no_number(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("reconstruct: {iterations: 0b1, binning: 1:1, resolution: no, z_size: 0100}\n")
    content = config.read_pipeline(path)["reconstruct"]
    assert content == {"iterations": "0b1", "binning": "1:1", "resolution": "no", "z_size": 100}
    with pytest.raises(InputError) as caught:
        config.resolve({"reconstruct": content})
    assert "2 problems" in str(caught.value)
    assert "'0b1'" in str(caught.value)
    assert "'1:1'" in str(caught.value)
    assert config.resolve({"reconstruct": {"resolution": "no", "z_size": 100}})["reconstruct"].resolution is False


def test_a_list_on_the_command_line_is_told_in_short():
    with pytest.raises(InputError, match="nested too deep") as caught:
        config.parse_sets(["export.formats=" + "[" * 100_000])
    assert len(str(caught.value)) < 400


def test_an_exported_pipeline_forges_no_line():
    parameters = {"segment": {"class_names": ["a\nreconstruct:\n  iterations: 1", "b\x1b[2J", "größe"]}, "x\ny": {}}
    digests = {"segment": {"class_names": "12\n\x1b[2J"}}
    for ascii_only in (False, True):
        text = config.pipeline_text(parameters, digests, ["RAW was a\nimport: {}"], ascii_only=ascii_only)
        assert plain_yaml.load(text) == parameters
        assert all(line.isprintable() for line in text.split("\n"))
        assert "\nimport" not in text
    assert text.isascii()
