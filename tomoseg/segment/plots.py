"""Pictures of training and evaluation, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.io.slices import IGNORE
from tomoseg.segment.calibration import Bins
from tomoseg.segment.evaluation import METRICS, EvaluatedImage, Evaluation
from tomoseg.segment.numbers import divided

# Okabe & Ito's black, blue, orange and green.
ALL_PIXELS = "#bbbbbb"
LINES = ("o-", "s--", "^-.", "D:", "v-", "P--")  # one per class, told apart without colour
FEWEST_PIXELS = 20
METRIC_COLORS = {"dice": "#0072b2", "precision": "#e69f00", "recall": "#009e73", "iou": "#777777"}


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure that draws without a screen, and its row of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def plot_scores(evaluation: Evaluation, path: Path) -> None:
    """Draw the metrics of each class as bars with their 95 % confidence interval."""
    n_classes = len(evaluation.classes)
    figure, (axes,) = _figure(max(5.0, 1.6 + 1.5 * n_classes), 3.8)
    summary = evaluation.summary()
    for k, metric in enumerate(METRICS):
        stat = summary[metric]
        place = np.arange(n_classes) + 0.2 * (k - 1.5)
        error = np.nan_to_num(stat.ci95)
        axes.bar(
            place, np.nan_to_num(stat.mean), 0.18, yerr=error, capsize=2.5, color=METRIC_COLORS[metric], label=metric
        )
    labels = [f"{c}\n(n = {n})" for c, n in zip(evaluation.classes, summary["dice"].n, strict=True)]
    axes.set_xticks(np.arange(n_classes), labels)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("mean over images, 95 % CI")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=4, frameon=False)
    figure.savefig(path, dpi=150)


def plot_hausdorff(evaluation: Evaluation, path: Path) -> None:
    """Draw the mean Hausdorff distance of each class against the percentile."""
    mean = evaluation.hausdorff_mean_px()
    if mean is None:
        return
    scale, unit = (evaluation.pixel_size_nm, "nm") if evaluation.pixel_size_nm else (1.0, "px")
    figure, (axes,) = _figure(5.5, 3.8)
    for label, color, distances in zip(evaluation.classes, evaluation.colors, mean, strict=True):
        axes.plot(evaluation.percentiles, distances * scale, "o-", ms=4, color=color, label=label)
    axes.set_xlabel("percentile of the distances between surfaces")
    axes.set_ylabel(f"Hausdorff distance ({unit}), mean over images")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def plot_calibration(evaluation: Evaluation, path: Path) -> None:
    """Draw how often the network is right at each confidence, and how many pixels have that confidence.

    One line for all pixels, and one for the pixels predicted as each class. On the diagonal a network is right as
    often as it says; below it, it is too sure of itself. Bins of fewer than `FEWEST_PIXELS` are not drawn.
    """
    calibration = evaluation.calibration
    if calibration is None:
        return
    figure, (left, right) = _figure(9.0, 4.0, 2)
    left.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
    overall = calibration.confidence.over_groups()
    centers = (np.arange(len(overall.n)) + 0.5) / len(overall.n)
    for k, (label, color) in enumerate(zip(evaluation.classes, line_colors(evaluation.colors), strict=True)):
        bins = calibration.confidence.group(k)
        left.plot(*_reliability(bins), LINES[k % len(LINES)], ms=4, color=color, label=f"predicted {label}")
        right.plot(centers, np.where(bins.n > 0, bins.n, np.nan), LINES[k % len(LINES)], ms=4, color=color)
    left.plot(*_reliability(overall), "o-", ms=5, lw=2.2, color=ALL_PIXELS, label="all pixels", zorder=1)
    left.set_ylabel("part of the pixels that is right")
    left.set_ylim(0, 1.02)
    left.legend(frameon=False, loc="upper left")
    right.set_yscale("log")
    right.set_ylabel("pixels in the bin")
    error = calibration.confidence.over_groups().calibration_error()
    left.set_title(f"expected calibration error {error:.4f}, Brier score {calibration.brier().sum():.4f}", fontsize=9)
    for axes in (left, right):
        axes.set_xlabel("confidence of the network")
        axes.set_xlim(0, 1.02)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def _reliability(bins: Bins) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean confidence and accuracy of the bins that hold enough pixels to tell."""
    enough = bins.n >= FEWEST_PIXELS
    return bins.mean_predicted()[enough], bins.frequency()[enough]


def plot_detection(evaluation: Evaluation, path: Path) -> None:
    """Draw how many of the true objects of each size are found, with 95 % intervals, and the scores of all of them."""
    detection = evaluation.detection
    if detection is None:
        return
    sizes, total = detection.by_size(), detection.scores()
    place = np.arange(len(sizes["true"]))
    figure, (axes,) = _figure(max(6.0, 1.6 + 0.9 * len(place)), 4.2)
    recall = np.nan_to_num(sizes["recall"])
    ends = np.nan_to_num([sizes["recall"] - sizes["low"], sizes["high"] - sizes["recall"]]).clip(min=0)
    axes.bar(place, recall, 0.7, yerr=ends, capsize=3, color=METRIC_COLORS["recall"], label="found")
    touched = divided(sizes["touched"], sizes["true"])
    axes.plot(place, touched, "D", ms=7, mfc="none", mec="#000000", label="overlapped by any predicted object")
    spans = zip(sizes["from"], sizes["to"], sizes["true"], strict=True)
    axes.set_xticks(place, [f"{low:g} to {high:g}\nn = {n:.0f}" for low, high, n in spans], fontsize=9)
    axes.set_xlabel(f"equivalent diameter of the true object ({detection.unit})")
    axes.set_ylabel("part of the true objects")
    axes.set_ylim(0, 1.08)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    scores = ", ".join(f"{key} {total[key]:.2f}" for key in ("precision", "recall", "f1"))
    axes.set_title(f"{detection.class_name}, IoU ≥ {detection.rule.iou:g}: {scores}", fontsize=10, pad=26)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def line_colors(colors: Sequence[str]) -> list[str]:
    """Return colours of classes as they are told apart on white: those nearly white become grey."""
    return ["#888888" if min(_rgb(color)) > 215 else color for color in colors]


def error_map(truth: Array, other: Array, colors: Sequence[str]) -> NDArray[np.uint8]:
    """Return an RGB picture (h, w, 3): where `truth` and `other` differ, in the colour of the class in `truth`.

    Agreement is white and unannotated pixels are light grey; black, the colour of the background, shows as dark grey.
    With the labels exchanged it shows false positives instead of false negatives.
    """
    palette = np.array([_rgb(color) for color in colors], np.uint8)
    palette[(palette == 0).all(axis=1)] = 60
    picture = np.full((*truth.shape, 3), 255, np.uint8)
    unknown = (truth == IGNORE) | (other == IGNORE)
    wrong = (truth != other) & ~unknown
    picture[wrong] = palette[truth[wrong]]
    picture[unknown] = 225
    return picture


def plot_errors(image: EvaluatedImage, classes: Sequence[str], colors: Sequence[str], path: Path) -> None:
    """Draw a slice, its true and predicted labels, and what was missed and what was invented.

    Left to right: slice, truth, prediction, false negatives (in the colour of the true class), false positives (in the
    colour of the predicted class).
    """
    from matplotlib.patches import Patch

    height, width = image.truth.shape
    figure, axes = _figure(16.0, 16.0 / 5 * height / width + 0.9, 5)
    bright = float(np.percentile(image.image, 99.5))
    axes[0].imshow(image.image, cmap="gray", vmin=float(image.image.min()), vmax=bright, interpolation="nearest")
    pictures = [
        label_picture(image.truth, colors),
        label_picture(image.prediction, colors),
        error_map(image.truth, image.prediction, colors),
        error_map(np.where(image.truth == IGNORE, IGNORE, image.prediction), image.truth, colors),
    ]
    titles = [image.name, "truth", "prediction", "false negatives", "false positives"]
    for axis, picture in zip(axes[1:], pictures, strict=True):
        axis.imshow(picture, interpolation="nearest")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    handles = [Patch(facecolor=color, edgecolor="k", label=name) for name, color in zip(classes, colors, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(classes), frameon=False)
    figure.savefig(path, dpi=110)


def label_picture(labels: Array, colors: Sequence[str]) -> NDArray[np.uint8]:
    """Return labels (h, w) as RGB (h, w, 3); unannotated pixels are grey."""
    palette = np.full((256, 3), 128, np.uint8)
    palette[: len(colors)] = [_rgb(color) for color in colors]
    return palette[labels]


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def plot_history(
    rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], colors: Sequence[str], path: Path
) -> None:
    """Draw the loss and the validation Dice of each class against the epoch, from the rows of the history file."""
    figure, (left, right) = _figure(9.0, 3.6, 2)
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["loss"] for row in rows], color="#0072b2", label="training")
    left.plot(epochs, [row["val_loss"] for row in rows], color="#e69f00", label="validation")
    left.set_ylabel("weighted focal loss")
    left.set_yscale("log")
    for name, color in zip(class_names, colors, strict=True):
        right.plot(epochs, [row[f"val_dice_{name}"] for row in rows], color=color, label=name)
    right.set_ylabel("Dice on the validation slices")
    right.set_ylim(0, 1.02)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
