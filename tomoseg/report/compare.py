"""Several projects side by side: their figures, their size distributions, and whether these differ."""

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array
from tomoseg.io.atomic import atomic_path
from tomoseg.palette import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION, PlotColors
from tomoseg.report.figures.plots import Plot, diameter_label
from tomoseg.report.formatting import NBSP, number, plus_minus, split_unit, uncertainty_of
from tomoseg.report.html import Html, el, figure, join, table
from tomoseg.report.page.page import document
from tomoseg.report.page.parts import pair
from tomoseg.report.results import Results
from tomoseg.words import count

LEAST = 5  # particles of known size, for a test
LINE_COLORS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY_BLUE)
# Name on the page, artifact ('' for what is computed here), and attribute, which is also the column of the CSV.
FIGURES = (
    ("tilts", "", "n_tilts"),
    ("alignment error", "alignment_info", "estimated_error_px"),
    ("iterations", "reconstruction_info", "iterations"),
    ("voxel size", "volume", "voxel_size_nm"),
    ("resolution", "reconstruction_info", "resolution_nm"),
    ("particles", "measurement_info", "n_particles"),
    ("particles of known size", "measurement_info", "n_in_size_statistics"),
    ("mean diameter", "measurement_info", "mean_diameter_nm"),
    ("standard deviation of the diameters", "measurement_info", "std_diameter_nm"),
    ("median diameter", "measurement_info", "median_diameter_nm"),
    ("surface-weighted mean (d32)", "measurement_info", "d32_nm"),
    ("dispersion", "measurement_info", "dispersion"),
    ("particles per 1000 nm² of exposed support", "", "particles_per_1000_nm2"),
    ("particles per 10 000 nm³ of support", "", "particles_per_10000_nm3"),
    ("porosity", "support_info", "porosity"),
    ("mean pore diameter", "support_info", "mean_pore_diameter_nm"),
    ("specific surface area", "support_info", "specific_area_m2_g"),
    ("warnings", "", "n_warnings"),
)


@dataclass(frozen=True)
class Compared:
    """A project's figures by column, with their uncertainties where known, and the diameters (n,) of its particles."""

    name: str
    figures: Mapping[str, float]
    diameters: Array
    unit: str
    warnings: Sequence[str] = ()

    @classmethod
    def of(cls, name: str, results: Results) -> "Compared":
        """Take what is compared from a project."""
        figures = {}
        for _, artifact, column in FIGURES:
            if artifact:
                for key in (column, uncertainty_of(column)):
                    figures[key] = results.number(artifact, key)
        area, volume, n = (
            results.number(artifact, key)
            for artifact, key in (
                ("support_info", "exposed_area_nm2"),
                ("support_info", "body_volume_nm3"),
                ("measurement_info", "n_particles"),
            )
        )
        series = results.artifacts.get("tilt_series")
        warnings = [text for state in results.stages if state.record is not None for text in state.record.warnings]
        figures |= {
            "n_tilts": float("nan") if series is None else float(series.shape[0]),
            "particles_per_1000_nm2": 1e3 * n / area if area > 0 else float("nan"),
            "particles_per_10000_nm3": 1e4 * n / volume if volume > 0 else float("nan"),
            "n_warnings": float(len(warnings)),
        }
        particles, unit = results.rows("particle_table"), results.diameter_unit
        diameters = np.zeros(0)
        if particles is not None:
            known = ~particles["touches_border"]
            if "below_resolution" in (particles.dtype.names or ()):
                known &= ~particles["below_resolution"]
            diameters = np.sort(particles[f"diameter_{unit}"][known].astype(float))
        return cls(name, figures, diameters, unit, warnings)


@dataclass(frozen=True)
class Difference:
    """Whether the diameters of two projects differ.

    `of_means` is the second's mean less the first's, with its 95 % confidence interval (Welch). `p_location` is that of
    Mann & Whitney's test, `p_distribution` that of Kolmogorov & Smirnov's; both are corrected for the number of pairs
    (Holm, Scand. J. Statist. 6, 65, 1979).
    """

    first: str
    second: str
    of_means: float
    low: float
    high: float
    p_location: float
    p_distribution: float


def differences(samples: Sequence[Compared]) -> list[Difference]:
    """Compare the diameters of each pair of projects that have enough particles and the same unit."""
    from scipy import stats

    found = []
    for a, b in itertools.combinations(samples, 2):
        if min(len(a.diameters), len(b.diameters)) < LEAST or a.unit != b.unit:
            continue
        x, y = a.diameters, b.diameters
        variances = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
        error = float(np.sqrt(sum(variances)))
        freedom = error**4 / max(variances[0] ** 2 / (len(x) - 1) + variances[1] ** 2 / (len(y) - 1), 1e-300)
        half = float(stats.t.ppf(0.975, max(freedom, 1))) * error
        mean = float(y.mean() - x.mean())
        p = float(stats.mannwhitneyu(x, y).pvalue), float(stats.ks_2samp(x, y).pvalue)
        found.append(Difference(a.name, b.name, mean, mean - half, mean + half, *p))
    location, distribution = (_holm([getattr(d, key) for d in found]) for key in ("p_location", "p_distribution"))
    return [replace(d, p_location=p, p_distribution=q) for d, p, q in zip(found, location, distribution, strict=True)]


def _holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number."""
    out, largest, n = [0.0] * len(values), 0.0, len(values)
    for rank, i in enumerate(np.argsort(values, kind="stable")):
        largest = max(largest, min(1.0, (n - rank) * values[i]))
        out[i] = largest
    return out


def write_figures_csv(path: Path, samples: Sequence[Compared]) -> None:
    """Write the figures as CSV, a row for each project; cells of what is unknown are empty."""
    columns = [c for _, _, column in FIGURES for c in (column, uncertainty_of(column))]
    columns = [c for c in columns if any(np.isfinite(s.figures.get(c, np.nan)) for s in samples)]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["project", *columns])
        for sample in samples:
            values = (sample.figures.get(c, np.nan) for c in columns)
            writer.writerow([sample.name, *(f"{v:.10g}" if np.isfinite(v) else "" for v in values)])


def write_comparison(path: Path, samples: Sequence[Compared], version: str) -> None:
    """Write the page, one self-contained HTML file."""
    title = f"{count(len(samples), 'project')} compared"
    header = el("header", el("p", "Comparison", class_="kicker"), el("h1", title))
    main = el("main", _figures(samples), _sizes(samples), _warnings(samples))
    with atomic_path(path) as temporary:
        text = document(title, header, main, el("footer", f"Made by tomoseg {version}."))
        temporary.write_text(text, encoding="utf-8", errors="replace")


def _figures(samples: Sequence[Compared]) -> Html:
    rows = []
    for name, _, column in FIGURES:
        if not any(np.isfinite(s.figures[column]) for s in samples):
            continue
        unit = "" if column.startswith("particles_per") else split_unit(column)[1]
        rows.append([f"{name} ({unit})" if unit else name, *(_cell(s.figures, column) for s in samples)])
    stated = any(np.isfinite(s.figures.get(uncertainty_of(c), np.nan)) for s in samples for _, _, c in FIGURES)
    note = "± is the standard uncertainty that `tomoseg measure --uncertainty` found." if stated else None
    return el(
        "section",
        el("div", el("h2", "Figures"), class_="title"),
        table(("", *(s.name for s in samples)), rows, "Figures of each project"),
        el("p", note, class_="note") if note else None,
    )


def _cell(figures: Mapping[str, float], column: str) -> str:
    return plus_minus(*(figures.get(key, np.nan) for key in (column, uncertainty_of(column))))


def _sizes(samples: Sequence[Compared]) -> Html | None:
    known = [s for s in samples if len(s.diameters) >= LEAST]
    if not known:
        return None
    units = sorted({s.unit for s in known})
    plots = [_cumulative([s for s in known if s.unit == unit], unit) for unit in units]
    caption = "Part of the particles that are smaller than a diameter; particles that the border cuts are left out."
    parts: list[Html | None] = [pair(figure(plot.picture(), caption) for plot in plots)]
    found = differences(samples)
    if found:
        unit = known[0].unit
        rows = [
            (
                d.first,
                d.second,
                number(d.of_means),
                f"{number(d.low)} to {number(d.high)}",
                number(d.p_location, 2),
                number(d.p_distribution, 2),
            )
            for d in found
        ]
        heads = ("first", "second", f"difference of means ({unit})", "95 % interval", "p, location", "p, distribution")
        parts += [
            table(heads, rows, "Do the diameters differ?"),
            el(
                "p",
                "Second less first. p: probability of so large a difference between samples of one population, by the "
                f"tests of Mann{NBSP}&{NBSP}Whitney and of Kolmogorov{NBSP}&{NBSP}Smirnov, corrected for the number of "
                "pairs (Holm). Particles of one volume are one place of a material: a small p tells that these volumes "
                "differ, and several volumes of each material are needed to tell whether the materials do.",
                class_="note",
            ),
        ]
    if len(units) > 1:
        parts.append(
            el("p", "Projects without a voxel size are in px and are not compared with others.", class_="note")
        )
    return el("section", el("div", el("h2", "Particle sizes"), class_="title"), join(parts))


def _cumulative(samples: Sequence[Compared], unit: str) -> Plot:
    def draw(axes: Any, _colors: PlotColors) -> None:
        for i, sample in enumerate(samples):
            n = len(sample.diameters)
            style = ("-", "--", ":", "-.")[i // len(LINE_COLORS) % 4]
            color = LINE_COLORS[i % len(LINE_COLORS)]
            label = f"{sample.name} (n = {n})" if sample.name.isascii() else f"project {i + 1} (n = {n})"
            axes.step(sample.diameters, np.arange(1, n + 1) / n, style, where="post", lw=1.3, color=color, label=label)
        axes.set(xlabel=diameter_label(unit), ylabel="cumulative fraction", ylim=(0, 1.02))

    return Plot(f"sizes_{unit}", draw, "cumulative size distributions", legend=True)


def _warnings(samples: Sequence[Compared]) -> Html | None:
    items = [el("li", el("b", sample.name), ": ", text) for sample in samples for text in sample.warnings]
    if not items:
        return None
    return el("section", el("div", el("h2", "Warnings of the stages"), class_="title"), el("ul", *items))


def named(paths: Sequence[Path]) -> Iterator[str]:
    """Yield a name for each project: that of its file, with the folder where several have the same."""
    stems = [path.stem for path in paths]
    for path in paths:
        yield path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}/{path.stem}"
