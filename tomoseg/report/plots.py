"""Plots in a light and a dark version; the page shows the one that suits the reader's screen.

No text from files enters a plot: it could name letters the font does not have, or be read as mathematics.
"""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
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


SIZE_INCHES, DPI = (4.4, 2.7), 200  # 880 px wide: shown at half of that or less
LIGHT = Theme("#33383f", "#d5d9de", "#0072b2", "#d55e00", "#007a5a")
DARK = Theme("#c9cfd6", "#3a4048", "#56b4e9", "#e69f00", "#2bbf95")


def shifts_plot(angles_deg: Array, shifts_px: Array) -> Html:
    """Plot the shifts (n_tilt, 2) found for each tilt."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(angles_deg, shifts_px[:, 1], "o-", ms=2.5, lw=1, color=theme.first, label="x")
        axes.plot(angles_deg, shifts_px[:, 0], "s-", ms=2.5, lw=1, color=theme.second, label="y")
        _label(axes, "tilt (degrees)", "shift (px)")

    return _plot(draw, "shifts found in x and y for each tilt", legend=True)


def correlation_plot(angles_deg: Array, before: Array, after: Array) -> Html:
    """Plot how well each tilt correlates with its neighbour, before and after alignment."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(angles_deg, before, "o-", ms=2.5, lw=1, color=theme.second, label="raw")
        axes.plot(angles_deg, after, "o-", ms=2.5, lw=1, color=theme.first, label="aligned")
        axes.set_ylim(top=1.0)
        _label(axes, "tilt (degrees)", "correlation with neighbour")

    return _plot(draw, "correlation of neighbouring tilts before and after alignment", legend=True)


def prediction_plot(angles_deg: Array, before: Array, after: Array, outliers: Array) -> Html:
    """Plot how much of each tilt the others do not predict (n_tilt,), raw and aligned; outliers (n_tilt,) bool."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(angles_deg, before, "o-", ms=2.5, lw=1, color=theme.second, label="raw")
        axes.plot(angles_deg, after, "o-", ms=2.5, lw=1, color=theme.first, label="aligned")
        _mark(axes, theme, angles_deg, after, outliers)
        # 1 is as bad as foreseeing nothing: a single image far above must not press the others flat.
        axes.set_ylim(0, min(1.2, 1.1 * float(np.nanmax([before, after]))) or 1.0)
        _label(axes, "tilt (degrees)", "relative residual")

    return _plot(draw, "residual of each tilt against its prediction by others, raw and aligned", legend=True)


def error_plot(angles_deg: Array, error_px: Array, uncertainty_px: Array | None, outliers: Array) -> Html:
    """Plot the estimated error of each tilt's position (n_tilt,), and the least that can be seen, where known."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(angles_deg, error_px, "o-", ms=2.5, lw=1, color=theme.first, label="estimated error")
        if uncertainty_px is not None:
            axes.plot(angles_deg, uncertainty_px, "--", lw=1, color=theme.second, label="least that can be seen")
        _mark(axes, theme, angles_deg, error_px, outliers)
        axes.set_ylim(0, 1.35 * float(np.nanmax(error_px)) or 1.0)  # room for the legend
        _label(axes, "tilt (degrees)", "error of position (px)")

    return _plot(draw, "estimated error of each tilt's position", legend=True)


def _mark(axes: Any, theme: Theme, angles_deg: Array, values: Array, outliers: Array) -> None:
    """Mark outliers: on their values, or on the angle where they have none."""
    if outliers.any():
        heights = np.where(np.isfinite(values), values, 0.0)[outliers]
        axes.plot(angles_deg[outliers], heights, "x", ms=7, mew=1.8, color=theme.third, label="outlier", clip_on=False)


def residual_plot(residuals: Array) -> Html:
    """Plot the residual (n_iterations + 1,) before each iteration and after the last."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot(np.arange(len(residuals)), residuals, "o-", ms=2.5, lw=1, color=theme.first)
        axes.set_ylim(bottom=0)
        _label(axes, "iteration", "relative residual")

    return _plot(draw, "relative residual against iteration")


def stopping_plot(iterations: Array, held_out: Array, chosen: int) -> Html:
    """Plot how well the tilts left out are predicted (n,) against the number of iterations (n,), and the choice."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.semilogx(iterations, held_out, "o-", ms=2.5, lw=1, color=theme.first, label="tilts left out")
        axes.axvline(chosen, color=theme.second, lw=1.5, ls="--", label=f"{chosen} iterations")
        axes.xaxis.set_major_formatter("{x:g}")
        _label(axes, "iterations", "relative residual")

    return _plot(draw, "residual of the tilts left out against iterations", legend=True)


def shell_plot(frequency: Array, correlation: Array, voxel_size_nm: float) -> Html:
    """Plot the Fourier shell correlation (n,) against frequency (n,) in cycles per px, labelled in nm where known."""

    def draw(axes: Any, theme: Theme) -> None:
        scale = voxel_size_nm if np.isfinite(voxel_size_nm) else 1.0
        axes.plot(frequency / scale, correlation, lw=1.2, color=theme.first, label="even against odd tilts")
        axes.axhline(1 / 7, color=theme.second, lw=1, ls="--", label="1/7")
        axes.set_ylim(min(0, float(np.min(correlation))), 1.02)
        _label(axes, "spatial frequency (1/nm)" if scale == voxel_size_nm else "frequency (1/px)", "correlation")

    return _plot(draw, "Fourier shell correlation against spatial frequency", legend=True)


def size_plot(edges: Array, counts: Array, mean: float, unit: str) -> Html:
    """Plot the size distribution: `edges` (n + 1,) in `unit`, `counts` (n,)."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=theme.first, edgecolor="white", lw=0.6)
        if np.isfinite(mean):
            axes.axvline(mean, color=theme.second, lw=1.5, ls="--", label="mean")
        axes.yaxis.get_major_locator().set_params(integer=True)
        _label(axes, f"equivalent-sphere diameter ({unit})", "particles")

    return _plot(draw, "histogram of particle diameters", legend=bool(np.isfinite(mean)))


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _plot(draw: Callable[[Any, Theme], None], alt: str, *, legend: bool = False) -> Html:
    """Return the picture in both themes."""
    light, dark = (_png(draw, theme, legend=legend) for theme in (LIGHT, DARK))
    return el(
        "picture",
        el("source", media="screen and (prefers-color-scheme: dark)", srcset=dark),
        el("img", src=light, alt=alt, loading="lazy"),
        class_="plot",
    )


def _png(draw: Callable[[Any, Theme], None], theme: Theme, *, legend: bool) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes, theme)
    axes.grid(color=theme.grid, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    axes.tick_params(colors=theme.text, labelsize=8.5)
    axes.xaxis.label.set(color=theme.text, size=9.5)
    axes.yaxis.label.set(color=theme.text, size=9.5)
    for spine in axes.spines.values():
        spine.set_color(theme.grid)
    if legend:
        axes.legend(frameon=False, labelcolor=theme.text, fontsize=8.5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
