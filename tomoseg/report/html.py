"""Elements of HTML, built such that text from files can never become markup."""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Markup that is safe; every other string is escaped when it becomes part of the page."""

    __slots__ = ()


NUMBER = re.compile(r"–|−?\d[\d.]*(e−?\+?\d+)?(\s?[A-Za-zµ]{1,3}| min \d+ s| h \d+ min)?")
PRINTED_ROWS = 25
VOID = {"img", "input", "meta", "source", "br", "col"}


def el(tag: str, *children: Any, **attributes: Any) -> Html:
    """Return an element; children that are not `Html` are escaped, None is omitted, `class_` stands for class."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def join(parts: Iterable[Any], separator: str = "") -> Html:
    """Concatenate parts, escaping all that are not `Html`."""
    return Html(separator.join(p if isinstance(p, Html) else _escaped(p) for p in parts if p is not None))


def _escaped(value: Any) -> str:
    """Return text as it may stand in markup, without characters that HTML forbids or that turn the text around."""
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else "?" for c in text)
    return html.escape(text, quote=True)


def facts(rows: Iterable[tuple[str, Any]]) -> Html:
    """Return a list of names and values, without those whose value is None or empty."""
    return el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in rows if value not in (None, "")))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    caption: Any = None,
    *,
    sortable: bool = False,
    row_ids: Sequence[Any] | None = None,
) -> Html:
    """Return a table that scrolls sideways on a narrow screen, and down where it is long.

    Numbers are right-aligned. The script lets readers sort a `sortable` table by a click on a heading. Printed pages
    show the first `PRINTED_ROWS`. By `row_ids` the script finds rows.
    """
    rows = [list(row) for row in rows]
    right = ["number" if rows and all(_is_number(row[i]) for row in rows) else None for i in range(len(columns))]
    marks = [None] * len(rows) if row_ids is None else row_ids
    body = (
        el(
            "tr",
            *(el("td", cell, class_=c) for cell, c in zip(row, right, strict=True)),
            class_="more" if i >= PRINTED_ROWS else None,
            data_id=mark,
        )
        for i, (row, mark) in enumerate(zip(rows, marks, strict=True))
    )
    head = (el("th", cell, scope="col", class_=c) for cell, c in zip(columns, right, strict=True))
    written = el(
        "table",
        el("thead", el("tr", *head)),
        el("tbody", *body),
        class_="sortable" if sortable and len(rows) > 1 else None,
    )
    hidden = len(rows) - PRINTED_ROWS
    paper = f"The first {PRINTED_ROWS} rows are printed; page and project file hold all." if hidden > 0 else None
    # Focusable, so that the keyboard can scroll it.
    scrolling = el(
        "div",
        written,
        class_="scroll tall" if hidden > 0 else "scroll",
        tabindex="0",
        role="region",
        aria_label=caption or columns[0],
    )
    return el(
        "div",
        el("p", caption, class_="caption") if caption else None,
        scrolling,
        el("p", paper, class_="note paper") if paper else None,
        class_="listing",
    )


def _is_number(cell: Any) -> bool:
    return not isinstance(cell, Html) and NUMBER.fullmatch(str(cell)) is not None


def figure(picture: Html, caption: Any, class_: str | None = None) -> Html:
    """Return a picture with a caption."""
    return el("figure", picture, el("figcaption", caption), class_=class_)


def details(summary: Any, *content: Any) -> Html:
    """Return content that a click on the summary reveals."""
    return el("details", el("summary", summary), *content)
