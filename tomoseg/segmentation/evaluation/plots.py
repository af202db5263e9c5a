"""Pictures of training and evaluation, as PNG files."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.io.slices import IGNORE, Pair, load_pair
from tomoseg.palette import BLACK, BLUE, GREEN, ORANGE, rgb
from tomoseg.segmentation.evaluation.calibration import Bins
from tomoseg.segmentation.evaluation.comparison import Comparison
from tomoseg.segmentation.evaluation.scores import METRICS, EvaluatedImage, Evaluation
from tomoseg.segmentation.numbers import divided

ALL_PIXELS = "#bbbbbb"
LINES = ("o-", "s--", "^-.", "D:", "v-", "P--")  # one per class, told apart without colour
FEWEST_PIXELS = 20
METRIC_NAMES = {"dice": "Dice", "iou": "IoU"}
METRIC_COLORS = {"dice": BLUE, "precision": ORANGE, "recall": GREEN, "iou": "#777777"}


def _figure(width: float, height: float, columns: int = 1, rows: int = 0) -> tuple[Any, Any]:
    """Return a figure that draws without a screen, and its row of axes; with `rows` a grid (rows, columns) of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows or 1, columns, squeeze=False)
    return figure, grid if rows else grid[0]


def plot_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Draw everything that the numbers of an evaluation tell into a folder."""
    plot_scores(evaluation, folder / "scores.png")
    plot_hausdorff(evaluation, folder / "hausdorff.png")
    plot_calibration(evaluation, folder / "calibration.png")
    plot_detection(evaluation, folder / "objects.png")


def plot_scores(evaluation: Evaluation, path: Path) -> None:
    """Draw the metrics of each class as bars with their 95 % confidence interval, and each image as a dot."""
    n_classes = len(evaluation.classes)
    figure, (axes,) = _figure(max(5.0, 1.6 + 1.5 * n_classes), 3.8)
    summary, per_image = evaluation.summary(), evaluation.per_image()
    spread = np.linspace(-0.05, 0.05, len(evaluation.names))  # so that dots of equal height are told apart
    for k, metric in enumerate(METRICS):
        stat = summary[metric]
        place = np.arange(n_classes) + 0.2 * (k - 1.5)
        error = np.nan_to_num(stat.ci95)
        axes.bar(
            place,
            np.nan_to_num(stat.mean),
            0.18,
            yerr=error,
            capsize=2.5,
            color=METRIC_COLORS[metric],
            label=METRIC_NAMES.get(metric, metric),
        )
        dots = (place + spread[:, None]).ravel()
        axes.plot(dots, per_image[metric].ravel(), ".", ms=3.5, color=BLACK, alpha=0.45, mew=0)
    labels = [f"{c}\n(n = {n})" for c, n in zip(evaluation.classes, summary["dice"].n, strict=True)]
    axes.set_xticks(np.arange(n_classes), labels)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("mean over images, 95 % CI\n(dots: single images)")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=4, frameon=False)
    figure.savefig(path, dpi=150)


def plot_hausdorff(evaluation: Evaluation, path: Path) -> None:
    """Draw the mean Hausdorff distance of each class against the percentile, with its 95 % confidence interval."""
    stat = evaluation.hausdorff_statistic()
    if stat is None:
        return
    scale, unit = (evaluation.pixel_size_nm, "nm") if evaluation.pixel_size_nm else (1.0, "px")
    figure, (axes,) = _figure(6.0, 4.0)
    for k, (label, color) in enumerate(zip(evaluation.classes, line_colors(evaluation.colors), strict=True)):
        mean, half = stat.mean[k] * scale, np.nan_to_num(stat.ci95[k]) * scale
        axes.fill_between(evaluation.percentiles, mean - half, mean + half, color=color, alpha=0.15, lw=0)
        n = f"{label} (n = {stat.n[k].max()})"
        axes.plot(evaluation.percentiles, mean, LINES[k % len(LINES)], ms=4, color=color, label=n)
    axes.set_xlabel("percentile of the distances between surfaces")
    axes.set_ylabel(f"Hausdorff distance ({unit})\nmean over images, 95 % CI")
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
    axes.plot(
        place, touched, "D", ms=7, clip_on=False, mfc="none", mec=BLACK, label="overlapped by any predicted object"
    )
    spans = zip(sizes["from"], sizes["to"], sizes["true"], strict=True)
    axes.set_xticks(place, [f"{low:g} to {high:g}\nn = {n:.0f}" for low, high, n in spans], fontsize=9)
    axes.set_xlabel(f"equivalent diameter of the true object ({detection.unit})")
    axes.set_ylabel("part of the true objects")
    axes.set_ylim(0, 1.08)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    scores = f"precision {total['precision']:.2f}, recall {total['recall']:.2f}, F1 {total['f1']:.2f}"
    axes.set_title(f"{detection.class_name}, IoU ≥ {detection.rule.iou:g}: {scores}", fontsize=10, pad=26)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def line_colors(colors: Sequence[str]) -> list[str]:
    """Return colours of classes as they are told apart on white: those nearly white become grey."""
    return ["#888888" if min(rgb(color)) > 215 else color for color in colors]


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Draw how the Dice of each network differs from that of the first, by class, with both 95 % intervals.

    Thick: by resampling groups of neighbouring slices; thin: with images taken for independent.
    """
    others, n_classes = list(comparison.differences), len(comparison.classes)
    figure, panels = _figure(max(6.0, 3.4 * n_classes), 1.6 + 0.35 * len(others), n_classes)
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
    figure.savefig(path, dpi=150)


class Cases:
    """Predictions kept, compressed, until it is known which images are the best, the median and the worst."""

    def __init__(self) -> None:
        self._predictions: dict[str, bytes] = {}

    def add(self, image: EvaluatedImage) -> None:
        """Keep the prediction of an image."""
        self._predictions[image.name] = zlib.compress(image.prediction.tobytes(), 1)

    def plot(self, evaluation: Evaluation, pairs: Sequence[Pair], path: Path) -> None:
        """Draw the best, the median and the worst image of an evaluation whose images have all been added."""
        rows = []
        for case, i in ranked_cases(evaluation).items():
            image, truth = load_pair(pairs[i], len(evaluation.classes))
            prediction = np.frombuffer(zlib.decompress(self._predictions[pairs[i].name]), np.uint8)
            rows.append((case, i, EvaluatedImage(pairs[i].name, image, truth, prediction.reshape(truth.shape))))
        plot_cases(evaluation, rows, path)


def ranked_cases(evaluation: Evaluation) -> dict[str, int]:
    """Return the indices of the images with the best, the median and the worst mean Dice of the classes but the first.

    Images without one of those classes are left out, unless fewer than three are left: a class that is not there is
    easily right. Of an even number of images the better one of the two in the middle is the median.
    """
    dice = evaluation.per_image()["dice"]
    foreground = dice[:, 1:] if dice.shape[1] > 1 else dice
    present = np.isfinite(foreground)
    mean = divided(np.where(present, foreground, 0).sum(axis=1), present.sum(axis=1))
    complete = present.all(axis=1)
    if complete.sum() >= 3:
        mean[~complete] = np.nan
    order = [int(i) for i in np.argsort(-mean, kind="stable") if np.isfinite(mean[i])]
    if len(order) < 3:
        return dict(zip(("best", "worst"), order, strict=False))
    return {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}


def plot_cases(evaluation: Evaluation, rows: Sequence[tuple[str, int, EvaluatedImage]], path: Path) -> None:
    """Draw slices, one a row, with their true and predicted labels and the Dice of each class.

    Parameters
    ----------
    evaluation : of all images
    rows : what the case is called, the index of the image in `evaluation`, and the image
    path : a PNG file
    """
    from matplotlib.patches import Patch

    if not rows:
        return
    dice, (first, *_) = evaluation.per_image()["dice"], rows
    height, width = first[2].truth.shape
    figure, grid = _figure(9.6, 0.8 + len(rows) * (0.1 + 2.66 * height / width), 3, len(rows))
    for axes, (case, i, image) in zip(grid, rows, strict=True):
        show_slice(axes[0], image.image)
        axes[1].imshow(label_picture(image.truth, evaluation.colors), interpolation="nearest")
        axes[2].imshow(label_picture(image.prediction, evaluation.colors), interpolation="nearest")
        scores = "\n".join(
            f"{name} {'absent' if np.isnan(value) else format(value, '.3f')}"
            for name, value in zip(evaluation.classes, dice[i], strict=True)
        )
        axes[0].set_ylabel(f"{case}: {image.name}\n\nDice\n{scores}", rotation=0, ha="right", va="center", fontsize=9)
        for axis in axes:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, title in zip(grid[0], ("slice", "truth", "prediction"), strict=True):
        axis.set_title(title, fontsize=10)
    if evaluation.pixel_size_nm:
        scale_bar(grid[0][0], width, evaluation.pixel_size_nm)
    pairs = zip(evaluation.classes, evaluation.colors, strict=True)
    handles = [Patch(facecolor=color, edgecolor="k", label=name) for name, color in pairs]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False)
    figure.savefig(path, dpi=130)


def show_slice(axis: Any, image: Array) -> None:
    """Draw a slice in grey, the brightest half per cent saturated."""
    bright = float(np.percentile(image, 99.5))
    axis.imshow(image, cmap="gray", vmin=float(image.min()), vmax=bright, interpolation="nearest")


def scale_bar(axis: Any, width_px: int, pixel_size_nm: float) -> None:
    """Draw a bar of a round length, about a fifth of the picture, in its lower left corner."""
    target = width_px * pixel_size_nm / 5
    power = 10.0 ** np.floor(np.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target)
    bar = {"transform": axis.get_xaxis_transform(), "color": "#ffffff"}
    start = 0.04 * width_px
    axis.plot([start, start + length / pixel_size_nm], [0.05, 0.05], lw=3, solid_capstyle="butt", **bar)
    axis.text(start + length / pixel_size_nm / 2, 0.07, f"{length:g} nm", ha="center", va="bottom", fontsize=8, **bar)


def error_map(truth: Array, other: Array, colors: Sequence[str]) -> NDArray[np.uint8]:
    """Return an RGB picture (h, w, 3): where `truth` and `other` differ, in the colour of the class in `truth`.

    Agreement is white and unannotated pixels are light grey; black, the colour of the background, shows as dark grey.
    With the labels exchanged it shows false positives instead of false negatives.
    """
    palette = np.array([rgb(color) for color in colors], np.uint8)
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
    show_slice(axes[0], image.image)
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
    palette[: len(colors)] = [rgb(color) for color in colors]
    return palette[labels]


def plot_history(
    rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], colors: Sequence[str], path: Path
) -> None:
    """Draw the loss and the validation Dice of each class against the epoch, from the rows of the history file."""
    figure, (left, right) = _figure(9.0, 3.6, 2)

    def draw(axes: Any, key: str, color: str, label: str) -> None:
        known = [(row["epoch"], row[key]) for row in rows if row[key] is not None]  # not every epoch ends in validation
        axes.plot(*zip(*known, strict=True) if known else ([], []), ".-", ms=3, color=color, label=label)

    draw(left, "loss", BLUE, "training")
    draw(left, "val_loss", ORANGE, "validation")
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
