"""Plots: in the page in light and dark colours, of which it shows those that suit the screen, or as files.

Text from files enters a plot only if it consists of plain letters: others might be missing in the font, or be read as
mathematics.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array
from tomoseg.palette import DARK, LIGHT, PlotColors
from tomoseg.report.html import Html, el


@dataclass(frozen=True)
class Plot:
    """A plot to be drawn into axes of matplotlib: `name` is that of its file, `alt` says what it shows."""

    name: str
    draw: Callable[[Any, PlotColors], None]
    alt: str
    legend: bool = False

    def picture(self) -> Html:
        """Return the plot in light and in dark colours, for the page."""
        drawn = self._svg()
        light, dark = (_uri(drawn, colors) for colors in (LIGHT, DARK))
        return el(
            "picture",
            el("source", media="screen and (prefers-color-scheme: dark)", srcset=dark),
            el("img", src=light, alt=self.alt),
            class_="plot",
        )

    def into(self, axes: Any, colors: PlotColors) -> None:
        """Draw the plot, with grid and legend, into axes of any figure."""
        self.draw(axes, colors)
        if axes.axison:
            axes.grid(color=colors.grid, lw=0.6)
            axes.set_axisbelow(True)
        axes.set_facecolor("none")
        axes.tick_params(colors=colors.text, labelsize=8.5)
        axes.xaxis.label.set(color=colors.text, size=9.5)
        axes.yaxis.label.set(color=colors.text, size=9.5)
        for spine in axes.spines.values():
            spine.set_color(colors.grid)
        if self.legend:
            legend = axes.legend(frameon=False, labelcolor=colors.text, fontsize=8.5)
            for text in legend.get_texts():
                text.set_parse_math(False)  # a class may be named $x$

    def save(self, path: Path, file_format: str) -> None:
        """Write the plot to a file of its own, on white; in PDF and SVG, text stays text."""
        import matplotlib as mpl

        with mpl.rc_context(KEEP_TEXT):
            self._figure(LIGHT).savefig(
                path, format=file_format, dpi=300, facecolor="white", metadata=UNDATED.get(file_format)
            )

    def _svg(self) -> str:
        """Return the plot as SVG in the colours `PLACES`, whose letters are outlines."""
        import matplotlib as mpl

        figure, buffer = self._figure(PLACES), io.StringIO()
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")  # it would be laid out twice more
        with mpl.rc_context(KEEP_TEXT | {"svg.fonttype": "path"}):
            figure.savefig(buffer, format="svg", dpi=RASTER_DPI, transparent=True, metadata=UNDATED["svg"])
        return buffer.getvalue()

    def _figure(self, colors: PlotColors) -> Any:
        figure = new_figure(SIZE_INCHES, RASTER_DPI, layout="constrained")
        self.into(figure.add_subplot(), colors)
        return figure


def _uri(drawn: str, colors: PlotColors) -> str:
    """Return SVG drawn in the colours `PLACES` in others, as a data URI."""
    for place, color in zip(astuple(PLACES), astuple(colors), strict=True):
        drawn = drawn.replace(place, color)
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.encode()).decode()


SIZE_INCHES = (4.4, 2.7)
RASTER_DPI = 200  # of images within a plot
PLACES = PlotColors("#010203", "#010204", "#010205", "#010206", "#010207")  # of colours, in a plot drawn once for all
# In files: letters as letters, so that they can be searched and edited.
KEEP_TEXT: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "tomoseg"}
# The same project gives the same file.
UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def new_figure(size_inches: tuple[float, float], dpi: int, **options: Any) -> Any:
    """Return an empty matplotlib figure that draws without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches, dpi=dpi, **options)
    FigureCanvasAgg(figure)
    return figure


# --- curves against tilt or iteration ---

TILT = "tilt (degrees)"
Line = tuple[Array, str | None, str, str]  # values, label, colour (first or second) and style


def lines_plot(
    name: str,
    alt: str,
    labels: tuple[str, str],
    x: Array,
    lines: Sequence[Line],
    *,
    outliers: Array | None = None,
    limits: tuple[float | None, float | None] = (None, None),
) -> Plot:
    """Plot values (n,) against `x` (n,); those of the last `o-` line at the `outliers` (n,) bool are marked.

    `labels` are those of the axes, `limits` those of y.
    """

    def draw(axes: Any, colors: PlotColors) -> None:
        for values, label, color, style in lines:
            axes.plot(x, values, style, ms=2.5, lw=1, color=getattr(colors, color), label=label)
        if outliers is not None and outliers.any():
            values = next(line[0] for line in reversed(lines) if line[3] == "o-")[outliers]
            heights = np.where(np.isfinite(values), values, 0.0)  # at zero where there is none
            axes.plot(x[outliers], heights, "x", ms=7, mew=1.8, color=colors.third, label="outlier", clip_on=False)
        axes.set_ylim(*limits)
        _label(axes, *labels)

    return Plot(name, draw, alt, legend=lines[0][1] is not None)


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)


# --- reconstruction ---


def stopping_plot(iterations: Array, held_out: Array, chosen: int) -> Plot:
    """Plot the residual (n,) of the held-out tilts against the number of iterations (n,), and the number chosen.

    The axis shows the minimum, not the first iterations, whose residuals are many times as large.
    """

    def draw(axes: Any, colors: PlotColors) -> None:
        axes.semilogx(iterations, held_out, "o-", ms=2.5, lw=1, color=colors.first, label="held-out tilts")
        axes.axvline(chosen, color=colors.second, lw=1.5, ls="--", label=f"{chosen} iterations")
        least = float(np.min(held_out))
        if least > 0:
            axes.axhline(1.02 * least, color=colors.third, lw=1, ls=":", label="within 2 % of the least")
            axes.set_ylim(0.98 * least, 1.25 * least)
        axes.xaxis.set_major_formatter("{x:g}")
        _label(axes, "iterations", "relative residual")

    return Plot("stopping", draw, "residual of the held-out tilts against the number of iterations", legend=True)


def shell_plot(shells: Array, voxel_size_nm: float) -> Plot:
    """Plot Fourier shell correlations against frequency, labelled in 1/nm where the voxel size is known."""

    def draw(axes: Any, colors: PlotColors) -> None:
        scale = voxel_size_nm if np.isfinite(voxel_size_nm) else 1.0
        frequency = shells["frequency_per_px"] / scale
        for axis, color in (("x", colors.second), ("y", colors.third)):
            if f"correlation_{axis}" in (shells.dtype.names or ()):  # projects of earlier versions have none
                axes.plot(frequency, shells[f"correlation_{axis}"], lw=0.7, color=color, label=f"near {axis}")
        axes.plot(frequency, shells["correlation"], lw=1.5, color=colors.first, label="all directions")
        axes.axhline(1 / 7, color=colors.first, lw=0.8, ls="--", label="1/7")
        axes.set_ylim(min(0, float(np.min(shells["correlation"]))), 1.02)
        _label(axes, "spatial frequency (1/nm)" if scale == voxel_size_nm else "frequency (1/px)", "correlation")

    return Plot("shell_correlation", draw, "Fourier shell correlation against spatial frequency", legend=True)


# --- measurement ---


def size_plot(edges: Array, counts: Array, mean: float, unit: str) -> Plot:
    """Plot the size distribution: `edges` (n + 1,) in `unit`, `counts` (n,)."""

    def draw(axes: Any, colors: PlotColors) -> None:
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colors.first, edgecolor="white", lw=0.6)
        if np.isfinite(mean):
            axes.axvline(mean, color=colors.second, lw=1.5, ls="--", label="mean")
        axes.yaxis.get_major_locator().set_params(integer=True)
        _label(axes, diameter_label(unit), "particles")

    return Plot("sizes", draw, "histogram of particle diameters", legend=bool(np.isfinite(mean)))


def diameter_label(unit: str) -> str:
    """Return the label of an axis of particle diameters."""
    return f"equivalent-sphere diameter ({unit})"


def distribution_plot(name: str, edges: Array, values: Sequence[tuple[str, Array]], x: str, y: str, alt: str) -> Plot:
    """Plot up to three distributions over the same bins: the first as bars, the others as steps.

    `edges` (n + 1,), `values` pairs of a label of plain letters and heights (n,).
    """

    def draw(axes: Any, colors: PlotColors) -> None:
        (label, heights), *others = values
        axes.bar(edges[:-1], heights, np.diff(edges), align="edge", color=colors.first, alpha=0.45, lw=0, label=label)
        for (other, steps), color, style in zip(others, (colors.second, colors.third), ("-", "--"), strict=False):
            axes.stairs(steps, edges, color=color, lw=1.6, ls=style, label=other)
        axes.set_ylim(bottom=min(0.0, float(np.nanmin([heights for _, heights in values]))))
        _label(axes, x, y)

    return Plot(name, draw, alt, legend=len(values) > 1)


def bars_plot(name: str, labels: Sequence[str], values: Sequence[tuple[str, Array]], y: str, alt: str) -> Plot:
    """Plot up to three numbers per item as bars beside each other; `labels` consist of plain letters."""

    def draw(axes: Any, colors: PlotColors) -> None:
        width = 0.8 / len(values)
        centres = np.arange(len(labels))
        for i, ((label, heights), color) in enumerate(
            zip(values, (colors.first, colors.second, colors.third), strict=False)
        ):
            at = centres + (i - (len(values) - 1) / 2) * width
            axes.bar(at, heights, width * 0.94, color=color, label=label)
        long = max(map(len, labels)) * len(labels) > 45
        axes.set_xticks(centres, labels, rotation=40 if long else 0, ha="right" if long else "center")
        _label(axes, "", y)

    return Plot(name, draw, alt, legend=len(values) > 1)


def discs_plot(density: Array, signs: Sequence[str]) -> Plot:
    """Plot area densities of normals (2, rows, columns), NaN outside the discs, seen from -z and from +z."""

    def draw(axes: Any, colors: PlotColors) -> None:
        axes.set_axis_off()
        top = float(np.nanmax(density)) if np.isfinite(density).any() else 1.0
        for i, (disc, sign) in enumerate(zip(density, signs, strict=True)):
            left = 0.05 + 0.455 * i  # room for the arrow along y beside each disc
            part = axes.inset_axes((left, 0.06, 0.385, 0.84))
            drawn = part.imshow(disc, vmin=0, vmax=top, cmap="cividis", interpolation="nearest", extent=(-1, 1, 1, -1))
            part.set_axis_off()
            part.set_title(f"normals towards {sign}", color=colors.text, fontsize=8.5)
            arrow = {"color": colors.text, "fontsize": 8, "annotation_clip": False}
            part.annotate("x →", (0, 1.05), ha="center", va="top", **arrow)
            part.annotate("y ↓", (-1.05, 0), ha="right", va="center", **arrow)
        bar = axes.figure.colorbar(drawn, cax=axes.inset_axes((0.935, 0.12, 0.022, 0.72)))
        bar.set_label("area density (1/sr)", color=colors.text, size=8)
        bar.ax.tick_params(colors=colors.text, labelsize=7)
        bar.outline.set_edgecolor(colors.grid)

    return Plot("orientations", draw, "density of the support's surface normals by direction")
