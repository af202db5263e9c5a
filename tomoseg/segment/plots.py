"""Pictures of training and evaluation, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.io.slices import IGNORE
from tomoseg.segment.evaluation import METRICS, EvaluatedImage, Evaluation

# Okabe & Ito's black, blue, orange and green.
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

    def draw(axes: Any, key: str, color: str, label: str) -> None:
        known = [(row["epoch"], row[key]) for row in rows if row[key] is not None]  # not every epoch ends in validation
        axes.plot(*zip(*known, strict=True) if known else ([], []), ".-", ms=3, color=color, label=label)

    draw(left, "loss", "#0072b2", "training")
    draw(left, "val_loss", "#e69f00", "validation")
    left.set_ylabel("loss")
    left.set_yscale("log")
    for name, color in zip(class_names, colors, strict=True):
        draw(right, f"val_dice_{name}", color, name)
    right.set_ylabel("Dice on the validation slices")
    right.set_ylim(0, 1.02)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130, format="png")
