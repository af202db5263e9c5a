"""The page of many series: how each run ended, their figures side by side, and what needs a look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomoseg.io.atomic import atomic_path
from tomoseg.report.formatting import cell, heading
from tomoseg.report.html import Html, el, table
from tomoseg.report.page.page import document
from tomoseg.words import count

NOT_SHOWN = ("exit_code", "reason", "job_id", "project")  # in the table of all series


@dataclass(frozen=True)
class SeriesPage:
    """What the page shows: a row of cells per series, and the warnings of each by its name."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    columns: Sequence[str]
    warnings: Mapping[str, Sequence[str]]
    version: str


def write_series_page(path: Path, page: SeriesPage) -> None:
    """Write the page, one self-contained HTML file."""
    main = el("main", _failed(page), _all(page), _doubts(page))
    footer = el("footer", f"Made by tomoseg {page.version}.")
    with atomic_path(path) as temporary:
        temporary.write_text(document(page.title, _header(page), main, footer), encoding="utf-8", errors="replace")


def _header(page: SeriesPage) -> Html:
    states = [row["state"] for row in page.rows]
    ended = [(state, states.count(state)) for state in dict.fromkeys(states)]
    boxes = (el("div", el("dt", state), el("dd", str(n))) for state, n in ended)
    lead = f"{states.count('done')} of {count(len(states), 'series', 'series')} done."
    return el(
        "header",
        el("p", "Report of many series", class_="kicker"),
        el("h1", page.title),
        el("div", el("div", el("p", lead, class_="lead"), el("dl", *boxes, class_="numbers")), class_="hero plain"),
    )


def _failed(page: SeriesPage) -> Html | None:
    rows = [(row["series"], row["state"], row["reason"]) for row in page.rows if row["reason"]]
    if not rows:
        return None
    title = el("div", el("h2", "Not finished"), class_="title")
    return el("section", title, table(("series", "state", "reason"), rows))


def _all(page: SeriesPage) -> Html:
    columns = [name for name in page.columns if name not in NOT_SHOWN]
    rows = [[cell(row.get(name)) for name in columns] for row in page.rows]
    title = el("div", el("h2", "All series"), class_="title")
    return el("section", title, table([heading(name) for name in columns], rows, sortable=True))


def _doubts(page: SeriesPage) -> Html | None:
    rows = [(name, text) for name, texts in page.warnings.items() for text in texts]
    if not rows:
        return None
    title = el("div", el("h2", "Warnings"), class_="title")
    return el("section", title, table(("series", "warning"), rows))
