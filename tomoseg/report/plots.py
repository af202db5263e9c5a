"""Plots: in the page in a light and a dark version, of which it shows the one that suits the reader's screen, or alone.

No text from files enters a plot unless it is made of plain letters: it could name letters the font does not have, or be
read as mathematics.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array
from tomoseg.report.html import Html, el


@dataclass(frozen=True)
class Theme:
    """Colours of text, grid and series (Okabe & Ito's blue and orange, and green)."""

    text: str
    grid: str
    first: str
    second: str
    third: str


@dataclass(frozen=True)
class Plot:
    """A plot to be drawn into axes of matplotlib: `name` is that of its file, `alt` says what it shows."""

    name: str
    draw: Callable[[Any, Theme], None]
    alt: str
    legend: bool = False

    def picture(self) -> Html:
        """Return it in both themes, for the page."""
        light, dark = (self._png(theme) for theme in (LIGHT, DARK))
        return el(
            "picture",
            el("source", media="screen and (prefers-color-scheme: dark)", srcset=dark),
            el("img", src=light, alt=self.alt),
            class_="plot",
        )

    def into(self, axes: Any, theme: Theme) -> None:
        """Draw it, with grid and legend, into axes of someone else's figure."""
        self.draw(axes, theme)
        if axes.axison:
            axes.grid(color=theme.grid, lw=0.6)
            axes.set_axisbelow(True)
        axes.set_facecolor("none")
        axes.tick_params(colors=theme.text, labelsize=8.5)
        axes.xaxis.label.set(color=theme.text, size=9.5)
        axes.yaxis.label.set(color=theme.text, size=9.5)
        for spine in axes.spines.values():
            spine.set_color(theme.grid)
        if self.legend:
            axes.legend(frameon=False, labelcolor=theme.text, fontsize=8.5)

    def save(self, path: Path, file_format: str) -> None:
        """Write it to a file of its own, on white; text stays text in PDF and SVG."""
        import matplotlib as mpl

        with mpl.rc_context(KEEP_TEXT):
            self._figure(LIGHT).savefig(
                path, format=file_format, dpi=300, facecolor="white", metadata=UNDATED.get(file_format)
            )

    def _png(self, theme: Theme) -> str:
        buffer = io.BytesIO()
        self._figure(theme).savefig(buffer, format="png", transparent=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

    def _figure(self, theme: Theme) -> Any:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        self.into(figure.add_subplot(), theme)
        return figure


SIZE_INCHES, DPI = (4.4, 2.7), 200  # 880 px wide: shown at half of that or less
# In files: letters as letters, so that they can be searched and edited.
KEEP_TEXT: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "tomoseg"}
# The same project gives the same file.
UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
LIGHT = Theme("#33383f", "#d5d9de", "#0072b2", "#d55e00", "#007a5a")
DARK = Theme("#c9cfd6", "#3a4048", "#56b4e9", "#e69f00", "#2bbf95")


def shifts_plot(angles_deg: Array, shifts_px: Array) -> Plot:
    """Plot the shifts (n_tilt, 2) found for each tilt."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(angles_deg, shifts_px[:, 1], "o-", ms=2.5, lw=1, color=theme.first, label="x")
        axes.plot(angles_deg, shifts_px[:, 0], "s-", ms=2.5, lw=1, color=theme.second, label="y")
        _label(axes, "tilt (degrees)", "shift (px)")

    return Plot("shifts", draw, "shifts found in x and y for each tilt", legend=True)


def correlation_plot(angles_deg: Array, before: Array, after: Array) -> Plot:
    """Plot how well each tilt correlates with its neighbour, before and after alignment."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(angles_deg, before, "o-", ms=2.5, lw=1, color=theme.second, label="raw")
        axes.plot(angles_deg, after, "o-", ms=2.5, lw=1, color=theme.first, label="aligned")
        axes.set_ylim(top=1.0)
        _label(axes, "tilt (degrees)", "correlation with neighbour")

    return Plot("correlation", draw, "correlation of neighbouring tilts before and after alignment", legend=True)


def prediction_plot(angles_deg: Array, before: Array, after: Array, outliers: Array) -> Plot:
    """Plot how much of each tilt the others do not predict (n_tilt,), raw and aligned; outliers (n_tilt,) bool."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(angles_deg, before, "o-", ms=2.5, lw=1, color=theme.second, label="raw")
        axes.plot(angles_deg, after, "o-", ms=2.5, lw=1, color=theme.first, label="aligned")
        _mark(axes, theme, angles_deg, after, outliers)
        # 1 is as bad as foreseeing nothing: a single image far above must not press the others flat.
        axes.set_ylim(0, min(1.2, 1.1 * float(np.nanmax([before, after]))) or 1.0)
        _label(axes, "tilt (degrees)", "relative residual")

    return Plot(
        "residual_of_tilts",
        draw,
        "residual of each tilt against its prediction by others, raw and aligned",
        legend=True,
    )


def error_plot(angles_deg: Array, error_px: Array, uncertainty_px: Array | None, outliers: Array) -> Plot:
    """Plot the estimated error of each tilt's position (n_tilt,), and the least that can be seen, where known."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(angles_deg, error_px, "o-", ms=2.5, lw=1, color=theme.first, label="estimated error")
        if uncertainty_px is not None:
            axes.plot(angles_deg, uncertainty_px, "--", lw=1, color=theme.second, label="least that can be seen")
        _mark(axes, theme, angles_deg, error_px, outliers)
        axes.set_ylim(0, 1.35 * float(np.nanmax(error_px)) or 1.0)  # room for the legend
        _label(axes, "tilt (degrees)", "error of position (px)")

    return Plot("error_of_positions", draw, "estimated error of each tilt's position", legend=True)


def _mark(axes: Any, theme: Theme, angles_deg: Array, values: Array, outliers: Array) -> None:
    """Mark outliers: on their values, or on the angle where they have none."""
    if outliers.any():
        heights = np.where(np.isfinite(values), values, 0.0)[outliers]
        axes.plot(angles_deg[outliers], heights, "x", ms=7, mew=1.8, color=theme.third, label="outlier", clip_on=False)


def residual_plot(residuals: Array) -> Plot:
    """Plot the residual (n_iterations + 1,) before each iteration and after the last."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(np.arange(len(residuals)), residuals, "o-", ms=2.5, lw=1, color=theme.first)
        axes.set_ylim(bottom=0)
        _label(axes, "iteration", "relative residual")

    return Plot("residual", draw, "relative residual against iteration")


def stopping_plot(iterations: Array, held_out: Array, chosen: int) -> Plot:
    """Plot how well the tilts left out are predicted (n,) against the number of iterations (n,), and the choice."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.semilogx(iterations, held_out, "o-", ms=2.5, lw=1, color=theme.first, label="tilts left out")
        axes.axvline(chosen, color=theme.second, lw=1.5, ls="--", label=f"{chosen} iterations")
        axes.xaxis.set_major_formatter("{x:g}")
        _label(axes, "iterations", "relative residual")

    return Plot("stopping", draw, "residual of the tilts left out against iterations", legend=True)


def shell_plot(frequency: Array, correlation: Array, voxel_size_nm: float) -> Plot:
    """Plot the Fourier shell correlation (n,) against frequency (n,) in cycles per px, labelled in nm where known."""

    def draw(axes: Any, theme: Theme) -> None:
        scale = voxel_size_nm if np.isfinite(voxel_size_nm) else 1.0
        axes.plot(frequency / scale, correlation, lw=1.2, color=theme.first, label="even against odd tilts")
        axes.axhline(1 / 7, color=theme.second, lw=1, ls="--", label="1/7")
        axes.set_ylim(min(0, float(np.min(correlation))), 1.02)
        _label(axes, "spatial frequency (1/nm)" if scale == voxel_size_nm else "frequency (1/px)", "correlation")

    return Plot("shell_correlation", draw, "Fourier shell correlation against spatial frequency", legend=True)


def size_plot(edges: Array, counts: Array, mean: float, unit: str) -> Plot:
    """Plot the size distribution: `edges` (n + 1,) in `unit`, `counts` (n,)."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=theme.first, edgecolor="white", lw=0.6)
        if np.isfinite(mean):
            axes.axvline(mean, color=theme.second, lw=1.5, ls="--", label="mean")
        axes.yaxis.get_major_locator().set_params(integer=True)
        _label(axes, f"equivalent-sphere diameter ({unit})", "particles")

    return Plot("sizes", draw, "histogram of particle diameters", legend=bool(np.isfinite(mean)))


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _columns(axes: Any, theme: Theme, edges: Array, values: Sequence[tuple[str, Array]]) -> None:
    """Draw distributions over the same bins: the first as bars, others as steps."""
    (label, heights), *others = values
    axes.bar(edges[:-1], heights, np.diff(edges), align="edge", color=theme.first, alpha=0.45, lw=0, label=label)
    for (name, other), color, style in zip(others, (theme.second, theme.third), ("-", "--"), strict=False):
        axes.stairs(other, edges, color=color, lw=1.6, ls=style, label=name)


def distribution_plot(name: str, edges: Array, values: Sequence[tuple[str, Array]], x: str, y: str, alt: str) -> Plot:
    """Plot up to three distributions over the same bins.

    `edges` (n + 1,), `values` pairs of a legend, one of our own words, and heights (n,).
    """

    def draw(axes: Any, theme: Theme) -> None:
        _columns(axes, theme, edges, values)
        axes.set_ylim(bottom=min(0.0, float(np.nanmin([heights for _, heights in values]))))
        _label(axes, x, y)

    return Plot(name, draw, alt, legend=len(values) > 1)


def bars_plot(name: str, labels: Sequence[str], values: Sequence[tuple[str, Array]], y: str, alt: str) -> Plot:
    """Plot up to three numbers per thing as bars beside each other; `labels` are plain letters."""

    def draw(axes: Any, theme: Theme) -> None:
        width = 0.8 / len(values)
        places = np.arange(len(labels))
        for i, ((label, heights), color) in enumerate(
            zip(values, (theme.first, theme.second, theme.third), strict=False)
        ):
            at = places + (i - (len(values) - 1) / 2) * width
            axes.bar(at, heights, width * 0.94, color=color, label=label)
        long = max(map(len, labels)) * len(labels) > 45
        axes.set_xticks(places, labels, rotation=40 if long else 0, ha="right" if long else "center")
        _label(axes, "", y)

    return Plot(name, draw, alt, legend=len(values) > 1)


def discs_plot(density: Array, signs: Sequence[str]) -> Plot:
    """Plot area densities of normals (2, rows, columns), NaN outside the discs, seen from -z and from +z."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.set_axis_off()
        top = float(np.nanmax(density)) if np.isfinite(density).any() else 1.0
        for i, (disc, sign) in enumerate(zip(density, signs, strict=True)):
            left = 0.01 + 0.45 * i
            part = axes.inset_axes((left, 0.06, 0.42, 0.84))
            drawn = part.imshow(disc, vmin=0, vmax=top, cmap="cividis", interpolation="nearest", extent=(-1, 1, 1, -1))
            part.set_axis_off()
            part.set_title(f"normals towards {sign}", color=theme.text, fontsize=8.5)
            part.annotate("x →", (0, 1.05), color=theme.text, fontsize=8, ha="center", va="top", annotation_clip=False)
            part.annotate(
                "y ↓", (-1.05, 0), color=theme.text, fontsize=8, ha="right", va="center", annotation_clip=False
            )
        bar = axes.figure.colorbar(drawn, cax=axes.inset_axes((0.935, 0.12, 0.022, 0.72)))
        bar.set_label("area density (1/sr)", color=theme.text, size=8)
        bar.ax.tick_params(colors=theme.text, labelsize=7)
        bar.outline.set_edgecolor(theme.grid)

    return Plot("orientations", draw, "where the normals of the support's surface point")
