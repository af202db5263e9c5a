"""The page of a folder of micrographs: sizes, samples, every image with its outlines, and what needs a look."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tomoseg.io.atomic import atomic_path
from tomoseg.measurement.particles.sizes import SampleSizes
from tomoseg.report.figures.encoding import data_uri
from tomoseg.report.figures.plots import Plot, distribution_plot
from tomoseg.report.formatting import NBSP, cell, heading, number
from tomoseg.report.html import Html, details, el, facts, figure, join, table
from tomoseg.report.page.page import document
from tomoseg.words import count

MOST_PICTURES, PICTURE_PX = 60, 560  # overlays in the page; the folder holds all
MOST_ROWS = 2000
FACTS = (
    ("mean", "mean diameter"),
    ("std", "standard deviation"),
    ("d10", "10th percentile"),
    ("d50", "median (d50)"),
    ("d90", "90th percentile"),
    ("d32", "surface-weighted mean (d32)"),
    ("dv50", "volume-weighted median"),
    ("lognormal_median", "median of the log-normal fit"),
    ("lognormal_sigma", "width of the log-normal fit (sigma of ln d)"),
)


@dataclass(frozen=True)
class MicrographPage:
    """What the page shows: `images` rows of the table of images, `samples` first all together, then each.

    The folder `overlays` holds a picture of each image.
    """

    title: str
    overlays: Path
    images: Sequence[Mapping[str, Any]]
    samples: Sequence[SampleSizes]
    skipped: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""


def size_plot_of(sizes: SampleSizes, name: str = "sizes") -> Plot:
    """Return the size distribution of a sample by number and by volume."""
    rows, unit = sizes.histogram, sizes.unit
    edges = np.append(rows[f"from_{unit}"], rows[f"to_{unit}"][-1:])
    values = [("number", rows["number_fraction"]), ("volume", rows["volume_fraction"])]
    x, alt = f"equivalent circular diameter ({unit})", "size distribution by number and by volume"
    return distribution_plot(name, edges, values, x, "fraction", alt)


def write_micrograph_page(path: Path, page: MicrographPage) -> None:
    """Write the page, one self-contained HTML file."""
    main = el("main", *_samples(page), _images(page), _pictures(page), _skipped(page), _settings(page))
    footer = el("footer", f"Made by tomoseg {page.version}".strip() + ".")
    with atomic_path(path) as temporary:
        text = document(page.title, _header(page), main, footer)
        temporary.write_text(text, encoding="utf-8", errors="replace")


def _header(page: MicrographPage) -> Html:
    everything = page.samples[0]
    lead = f"{count(everything.n_particles, 'particle')} in {count(everything.n_images, 'image')}"
    mean, (low, high) = everything.numbers.get("mean", np.nan), everything.intervals.get("mean", (np.nan, np.nan))
    if np.isfinite(mean):
        lead += f", mean diameter {number(mean)}{NBSP}{everything.unit}"
    if np.isfinite(low):
        lead += f" (95{NBSP}% confidence interval {number(low)} to {number(high)}{NBSP}{everything.unit})"
    named = [(name, everything.numbers.get(key, np.nan)) for key, name in FACTS[2:6]]
    numbers = [("particles", str(everything.n_particles), "")]
    numbers += [(name, number(value), everything.unit) for name, value in named if np.isfinite(value)]
    boxes = (el("div", el("dt", name), el("dd", value, " ", el("small", unit))) for name, value, unit in numbers)
    return el(
        "header",
        el("p", "Micrograph report", class_="kicker"),
        el("h1", page.title),
        el(
            "div",
            el("div", el("p", lead + ".", class_="lead"), el("dl", *boxes, class_="numbers")),
            class_="hero plain",
        ),
        _warnings(page),
    )


def _warnings(page: MicrographPage) -> Html:
    doubted = [row for row in page.images if row["warnings"]]
    items = [el("li", text) for text in page.warnings]
    if doubted:
        items.append(el("li", f"{count(len(doubted), 'image')} with warnings, see the table of images"))
    if page.skipped:
        items.append(el("li", f"{count(len(page.skipped), 'file')} not measured, see the end of the page"))
    if not items:
        return el("p", "✓ No warnings.", class_="clear")
    return el("div", el("h2", "To be looked at"), el("ul", *items), class_="warnings")


def _samples(page: MicrographPage) -> Iterator[Html]:
    """Yield a section on all particles, and one on each sample where there are several."""
    several = len(page.samples) > 2
    for sizes in page.samples if several else page.samples[:1]:
        rows = [*_numbers(sizes)]
        plot = None
        if len(sizes.histogram):
            caption = f"Size distribution by number and by volume: {count(sizes.n_particles, 'particle')}."
            plot = figure(size_plot_of(sizes).picture(), caption)
        yield el(
            "section",
            el("div", el("h2", sizes.name), class_="title"),
            el("div", plot, table(("particle diameter", "value"), rows), class_="pair"),
            *(el("p", note, class_="note") for note in sizes.notes),
        )


def _numbers(sizes: SampleSizes) -> Iterator[tuple[str, str]]:
    for key, name in FACTS:
        value = sizes.numbers.get(key, np.nan)
        if not np.isfinite(value):
            continue
        unit = "" if key.endswith("sigma") else f"{NBSP}{sizes.unit}"
        low, high = sizes.intervals.get(key, (np.nan, np.nan))
        interval = f" (95{NBSP}% confidence interval {number(low)} to {number(high)})" if np.isfinite(low) else ""
        yield name, f"{number(value)}{unit}{interval}"
    yield "particles included", str(sizes.n_particles)
    yield "particles left out because the border cuts them", str(sizes.n_cut)


def _images(page: MicrographPage) -> Html:
    names = (
        *("image", "sample", "pixel_size_nm", "scale_source", "scale_confidence", "polarity", "n_particles"),
        *("d50_nm", "d50_px", "warnings"),
    )
    rows = [[cell(row.get(name)) for name in names] for row in page.images[:MOST_ROWS]]
    more = len(page.images) - MOST_ROWS
    note = el("p", f"{more} more are in images.csv.", class_="note") if more > 0 else None
    title = el("div", el("h2", "Images"), class_="title")
    return el("section", title, table([heading(name) for name in names], rows, sortable=True), note)


def _pictures(page: MicrographPage) -> Html:
    """Show the outlines: of all images, or of those with warnings first where there are many."""
    ordered = sorted(page.images, key=lambda row: not row["warnings"])[:MOST_PICTURES]
    shown = {row["image"] for row in ordered}
    figures = []
    for row in page.images:
        path = page.overlays / f"{row['image']}.png"
        if row["image"] not in shown or not path.is_file():
            continue
        with Image.open(path) as picture:
            picture.thumbnail((PICTURE_PX, PICTURE_PX))
            image = el("img", src=data_uri(picture.convert("RGB")), alt=f"outlines of the particles in {row['image']}")
        figures.append(figure(image, f"{row['image']}: {count(int(row['n_particles']), 'particle')}"))
    left = len(page.images) - len(figures)
    words = (
        "Orange: particles that count. Blue: cut by the border, left out of the sizes. Green: added by hand. What is "
        "darkened was left out: scale bar, label, footer."
    )
    if left > 0:
        words += f" {left} more images are in the folder {page.overlays.name}."
    title = el("div", el("h2", "Outlines"), class_="title")
    return el("section", title, el("p", words), el("div", *figures, class_="triple"))


def _skipped(page: MicrographPage) -> Html | None:
    if not page.skipped:
        return None
    title = el("div", el("h2", "Not measured"), class_="title")
    return el("section", title, table(("file", "reason"), page.skipped))


def _settings(page: MicrographPage) -> Html:
    rows = [(heading(name), cell(value)) for name, value in page.settings.items()]
    return el("section", details("Parameters", join([facts(rows)])))
