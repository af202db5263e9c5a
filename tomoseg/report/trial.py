"""The page of `tomoseg try`: variants of a slice side by side."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg import __version__
from tomoseg.arrays import Array
from tomoseg.io.atomic import atomic_path
from tomoseg.palette import PlotColors
from tomoseg.report.figures.images import Panel, grey_limits, grey_picture, label_picture
from tomoseg.report.figures.plots import Plot
from tomoseg.report.html import Html, el, figure, join, table
from tomoseg.report.page.page import document
from tomoseg.report.page.parts import grey_note, legend, pair
from tomoseg.report.results import Results
from tomoseg.words import count

LEVELS = (
    "Thresholds, and the intensity scale of a network, were found in this slice and its neighbours; those of the whole "
    "volume may differ."
)


@dataclass(frozen=True, eq=False)
class Tried:
    """A variant of a slice (z, x) at y: the picture, its labels (z, x) if it was labelled, and its figures."""

    y: int
    label: str
    image: Array
    labels: Array | None
    figures: Mapping[str, str]
    warnings: Sequence[str] = ()
    thresholds: Sequence[float] = field(default_factory=list)


def write_trial(path: Path, tried: Sequence[Tried], results: Results) -> None:
    """Write the page, one self-contained HTML file."""
    places = sorted({one.y for one in tried})
    title = f"{results.title}: {count(len(tried) // max(len(places), 1), 'variant')} tried"
    header = el(
        "header",
        el("p", "Trial", class_="kicker"),
        el("h1", title),
        el("p", "Slices perpendicular to the tilt axis. The project was not changed.", class_="lead"),
    )
    main = el("main", *(_slice(y, [one for one in tried if one.y == y], results) for y in places))
    with atomic_path(path) as temporary:
        text = document(title, header, main, el("footer", f"Made by tomoseg {__version__}."))
        temporary.write_text(text, encoding="utf-8", errors="replace")


def _slice(y: int, variants: Sequence[Tried], results: Results) -> Html:
    limits = grey_limits([one.image for one in variants])
    pictures = []
    for one in variants:
        panel = Panel(one.image, ("z", "x"), results.voxel_size_nm)
        if one.labels is not None:
            picture = label_picture(panel, one.labels, results.classes, limits, f"labels, {one.label}")
        else:
            picture = grey_picture(panel, limits, one.label)
        said = [el("p", text, class_="note") for text in one.warnings]
        pictures.append(figure(picture, join([el("b", one.label), *said])))
    is_labelled = any(one.labels is not None for one in variants)
    names = list(dict.fromkeys(name for one in variants for name in one.figures))
    rows = [(one.label, *(one.figures.get(name, "") for name in names)) for one in variants]
    marked = [one for one in variants if one.thresholds]
    histogram = None
    if marked:
        caption = "Values of the slice, with the thresholds of each variant."
        histogram = pair([figure(_histogram(variants[0].image, marked).picture(), caption)])
    return el(
        "section",
        el("div", el("h2", f"Slice y = {y}"), class_="title"),
        pair(pictures),
        legend(results.classes[1:]) if is_labelled else None,
        grey_note(limits),
        el("p", LEVELS, class_="note") if is_labelled else None,
        table(("variant", *names), rows, "Figures of the slice"),
        histogram,
    )


def _histogram(image: Array, variants: Sequence[Tried]) -> Plot:
    def draw(axes: Any, colors: PlotColors) -> None:
        low, high = np.percentile(image, (0.1, 99.9))
        axes.hist(np.ravel(image), bins=128, range=(float(low), float(high)), color=colors.grid, log=True)
        lines = itertools.product(("-", "--", ":", "-."), (colors.first, colors.second, colors.third))
        for one, (style, color) in zip(variants, itertools.cycle(lines), strict=False):
            for k, threshold in enumerate(one.thresholds):
                axes.axvline(threshold, color=color, ls=style, lw=1.2, label=one.label if k == 0 else None)
        axes.set(xlabel="value", ylabel="voxels")

    return Plot("thresholds", draw, "histogram of the slice with the thresholds of each variant", legend=True)
