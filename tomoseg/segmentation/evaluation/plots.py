"""Charts of scores, distances, calibration, detected objects and comparisons, as PNG files."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.io.atomic import atomic_path
from tomoseg.palette import BLACK, BLUE, GREEN, ORANGE, rgb
from tomoseg.segmentation.evaluation.calibration import Bins
from tomoseg.segmentation.evaluation.comparison import Comparison
from tomoseg.segmentation.evaluation.numbers import divided
from tomoseg.segmentation.evaluation.scores import METRICS, Evaluation
from tomoseg.segmentation.evaluation.surface_distances import PERCENTILES

ALL_PIXELS = "#bbbbbb"
LINES = ("o-", "s--", "^-.", "D:", "v-", "P--")  # one per class, told apart without colour
FEWEST_PIXELS = 20
METRIC_NAMES = {"dice": "Dice", "iou": "IoU"}
METRIC_COLORS = (BLUE, ORANGE, GREEN, "#777777")  # in the order of `METRICS`


def new_figure(width: float, height: float, columns: int = 1, rows: int = 0) -> tuple[Any, Any]:
    """Return a figure that needs no screen and its row of axes, or with `rows` a grid (rows, columns) of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows or 1, columns, squeeze=False)
    return figure, grid if rows else grid[0]


def save(figure: Any, path: Path, dpi: int = 150) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_path(path) as part:
        figure.savefig(part, dpi=dpi, format="png")


def _mark(figure: Any, evaluation: Evaluation) -> None:
    """Write below a figure what its scores must not be taken for, such as images that the network was trained on."""
    if evaluation.notes:
        width = 12 * int(figure.get_figwidth())
        text = "\n".join(line for note in evaluation.notes for line in textwrap.wrap(note, width))
        figure.supxlabel(text, fontsize=7, color="#d55e00")


def plot_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Draw all charts of an evaluation into a folder."""
    plot_scores(evaluation, folder / "scores.png")
    plot_hausdorff(evaluation, folder / "hausdorff.png")
    plot_calibration(evaluation, folder / "calibration.png")
    plot_detection(evaluation, folder / "objects.png")


def plot_scores(evaluation: Evaluation, path: Path) -> None:
    """Draw the metrics of each class as bars with 95 % confidence intervals, and each image as a dot."""
    n_classes = len(evaluation.classes)
    figure, (axes,) = new_figure(max(5.0, 1.6 + 1.5 * n_classes), 3.8)
    summary, per_image = evaluation.summary(), evaluation.per_image()
    spread = np.linspace(-0.05, 0.05, len(evaluation.names))  # so that dots of equal height are told apart
    for k, metric in enumerate(METRICS):
        stat = summary[metric]
        place = np.arange(n_classes) + 0.8 * ((k + 0.5) / len(METRICS) - 0.5)
        mean, error = np.nan_to_num(stat.mean), np.nan_to_num(stat.ci95)
        style = {"color": METRIC_COLORS[k % len(METRIC_COLORS)], "label": METRIC_NAMES.get(metric, metric)}
        axes.bar(place, mean, 0.72 / len(METRICS), yerr=error, capsize=2.5, **style)
        dots = (place + spread[:, None]).ravel()
        axes.plot(dots, per_image[metric].ravel(), ".", ms=3.5, color=BLACK, alpha=0.45, mew=0)
    labels = [f"{c}\n(n = {n})" for c, n in zip(evaluation.classes, summary["dice"].n, strict=True)]
    axes.set_xticks(np.arange(n_classes), labels)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("mean over images, 95 % CI\n(dots: single images)")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=len(METRICS), frameon=False)
    _mark(figure, evaluation)
    save(figure, path)


def plot_hausdorff(evaluation: Evaluation, path: Path) -> None:
    """Draw the mean Hausdorff distance of each class against the percentile, with its 95 % confidence interval."""
    stat = evaluation.hausdorff_statistic()
    if stat is None:
        return
    scale, unit = (evaluation.pixel_size_nm, "nm") if evaluation.pixel_size_nm else (1.0, "px")
    figure, (axes,) = new_figure(6.0, 4.0)
    for k, (label, color) in enumerate(zip(evaluation.classes, line_colors(evaluation.colors), strict=True)):
        mean, half = stat.mean[k] * scale, np.nan_to_num(stat.ci95[k]) * scale
        axes.fill_between(PERCENTILES, mean - half, mean + half, color=color, alpha=0.15, lw=0)
        n = f"{label} (n = {stat.n[k].max()})"
        axes.plot(PERCENTILES, mean, LINES[k % len(LINES)], ms=4, color=color, label=n)
    axes.set_xlabel("percentile of the distances between surfaces")
    axes.set_ylabel(f"Hausdorff distance ({unit})\nmean over images, 95 % CI")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _mark(figure, evaluation)
    save(figure, path)


def plot_calibration(evaluation: Evaluation, path: Path) -> None:
    """Draw accuracy against confidence (a reliability diagram), and how many pixels have each confidence.

    One line for all pixels, and one for the pixels predicted as each class. On the diagonal the network is right as
    often as it says; below, it is overconfident. Bins of fewer than `FEWEST_PIXELS` are not drawn.
    """
    calibration = evaluation.calibration
    if calibration is None:
        return
    figure, (left, right) = new_figure(9.0, 4.0, 2)
    left.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
    overall = calibration.confidence.over_groups()
    centers = (np.arange(len(overall.n)) + 0.5) / len(overall.n)
    for k, (label, color) in enumerate(zip(evaluation.classes, line_colors(evaluation.colors), strict=True)):
        bins = calibration.confidence.group(k)
        left.plot(*_reliability(bins), LINES[k % len(LINES)], ms=4, color=color, label=f"predicted {label}")
        right.plot(centers, np.where(bins.n > 0, bins.n, np.nan), LINES[k % len(LINES)], ms=4, color=color)
    left.plot(*_reliability(overall), "o-", ms=5, lw=2.2, color=ALL_PIXELS, label="all pixels", zorder=1)
    left.set_ylabel("fraction of correct pixels")
    left.set_ylim(0, 1.02)
    left.legend(frameon=False, loc="upper left")
    right.set_yscale("log")
    right.set_ylabel("pixels in the bin")
    error = overall.calibration_error()
    left.set_title(f"expected calibration error {error:.4f}, Brier score {calibration.brier().sum():.4f}", fontsize=9)
    for axes in (left, right):
        axes.set_xlabel("confidence of the network")
        axes.set_xlim(0, 1.02)
        axes.grid(alpha=0.3)
    _mark(figure, evaluation)
    save(figure, path)


def _reliability(bins: Bins) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean confidence and accuracy of the bins with enough pixels."""
    confidence, accuracy = bins.reliability()
    return confidence[bins.n >= FEWEST_PIXELS], accuracy[bins.n >= FEWEST_PIXELS]


def plot_detection(evaluation: Evaluation, path: Path) -> None:
    """Draw the recall of true objects by size with 95 % intervals, and the scores of all objects."""
    detection = evaluation.detection
    if detection is None:
        return
    sizes, total = detection.by_size(), detection.scores()
    place = np.arange(len(sizes["true"]))
    figure, (axes,) = new_figure(max(6.0, 1.6 + 0.9 * len(place)), 4.2)
    recall = np.nan_to_num(sizes["recall"])
    ends = np.nan_to_num([sizes["recall"] - sizes["low"], sizes["high"] - sizes["recall"]]).clip(min=0)
    axes.bar(place, recall, 0.7, yerr=ends, capsize=3, color=GREEN, label="found")
    touched = divided(sizes["touched"], sizes["true"])
    diamonds = {"ms": 7, "clip_on": False, "mfc": "none", "mec": BLACK}
    axes.plot(place, touched, "D", label="overlapped by any predicted object", **diamonds)
    spans = zip(sizes["from"], sizes["to"], sizes["true"], strict=True)
    axes.set_xticks(place, [f"{low:g} to {high:g}\nn = {n:.0f}" for low, high, n in spans], fontsize=9)
    axes.set_xlabel(f"equivalent diameter of the true object ({detection.unit})")
    axes.set_ylabel("fraction of the true objects")
    axes.set_ylim(0, 1.08)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    scores = f"precision {total['precision']:.2f}, recall {total['recall']:.2f}, F1 {total['f1']:.2f}"
    axes.set_title(f"{detection.class_name}, IoU ≥ {detection.rule.iou:g}: {scores}", fontsize=10, pad=26)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=9)
    _mark(figure, evaluation)
    save(figure, path)


def line_colors(colors: Sequence[str]) -> list[str]:
    """Return the colours of classes for lines on white: nearly white ones become grey."""
    return ["#888888" if min(rgb(color)) > 215 else color for color in colors]


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Draw the difference of each network's Dice from that of the first, by class, with both 95 % intervals.

    Thick: from resampled groups of neighbouring slices; thin: as if images were independent.
    """
    others, n_classes = list(comparison.differences), len(comparison.classes)
    figure, panels = new_figure(max(6.0, 3.4 * n_classes), 1.6 + 0.35 * len(others), n_classes)
    for c, (axes, label) in enumerate(zip(panels, comparison.classes, strict=True)):
        axes.axvline(0, color="#999999", lw=1)
        for row, model in enumerate(others):
            d = comparison.differences[model]["dice"]
            axes.errorbar(d.mean[c], row, xerr=np.nan_to_num(d.ci95[c]), color=BLACK, lw=1, capsize=4)
            axes.plot([d.low[c], d.high[c]], [row, row], color=BLUE, lw=5, alpha=0.6, solid_capstyle="butt")
            axes.plot(d.mean[c], row, "o", ms=6, color=BLACK)
        axes.set_yticks(range(len(others)) if c == 0 else [], others if c == 0 else [])
        axes.set_ylim(len(others) - 0.5, -0.5)
        axes.set_title(label, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.locator_params(axis="x", nbins=5)
        axes.margins(x=0.1)
    n, k = len(comparison.names), comparison.n_groups
    intervals = f"95 % intervals: thick by {k} groups of neighbouring slices, thin by {n} images"
    figure.supxlabel(f"Dice minus that of {comparison.baseline}\n{intervals}", fontsize=9)
    save(figure, path)
