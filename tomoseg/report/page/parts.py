"""Parts that several sections share."""

from collections.abc import Iterable, Sequence

from tomoseg.report.figures.curves import Curve
from tomoseg.report.figures.images import Limits
from tomoseg.report.html import Html, el, figure
from tomoseg.report.results import LabelClass


def pair(parts: Iterable[Html]) -> Html:
    """Return parts side by side, where the screen is wide enough."""
    return el("div", *parts, class_="pair")


def curves(found: Iterable[Curve]) -> Html:
    """Return plots with their captions, side by side."""
    return pair(figure(plot.picture(), caption) for plot, caption in found)


def legend(classes: Sequence[LabelClass]) -> Html:
    """Return the classes with their colours."""
    entries = []
    for label in classes:
        swatch = el("span", class_="swatch", style=f"background:{label.color}")
        if label.index == 0:
            swatch = el("span", class_="swatch empty")
        entries.append(el("li", swatch, label.name if label.index else f"{label.name} (not painted)"))
    return el("ul", *entries, class_="legend")


def grey_note(limits: Limits, unit: str = "") -> Html:
    """Return what the grey levels of three slices mean."""
    return el("p", f"Common grey levels: {limits.words(unit)}.", class_="note")
