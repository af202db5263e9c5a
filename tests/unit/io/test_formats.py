"""The table of formats, and the page that shows it."""

from pathlib import Path

from tomoseg.io.formats import FORMATS

PAGE = Path(__file__).parents[3] / "docs/input.md"


def test_the_page_shows_the_formats_as_they_are():
    rows = ["| format | files | read |", "|---|---|---|"]
    for f in FORMATS:
        how = "single images, one file per tilt" if f.single else "series and single images"
        how += ", in a process of its own" if f.libraries else ""
        rows.append(f"| {f.name} | {' '.join(f.extensions)} | {how} |")
    text = PAGE.read_text(encoding="utf-8")
    shown = text[text.index("-->", text.index("formats: begin")) + 3 : text.index("<!-- formats: end")]
    assert shown.strip().splitlines() == rows


def test_no_ending_belongs_to_two_formats():
    endings = [ending for f in FORMATS for ending in f.extensions]
    assert len(endings) == len(set(endings))
