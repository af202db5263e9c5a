"""Pictures of slices with their true and predicted labels, as PNG files."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.io.pairing import Pair
from tomoseg.io.slices import IGNORE, load_pair
from tomoseg.palette import rgb
from tomoseg.segmentation.evaluation.model_evaluation import EvaluatedImage
from tomoseg.segmentation.evaluation.numbers import divided
from tomoseg.segmentation.evaluation.plots import new_figure, save
from tomoseg.segmentation.evaluation.scores import Evaluation


class Cases:
    """Compressed predictions, kept until the best, the median and the worst image are known."""

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
    """Return the indices of the images with the best, median and worst mean Dice over all classes but the first.

    Images that lack one of those classes are left out, unless fewer than three remain: an absent class is easily
    right. Of an even number of images, the median is the better of the two in the middle.
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
    """Draw slices, one a row, with their true and predicted labels and the Dice of each class, as a PNG file.

    `rows` hold the name of the case, the index of the image in the evaluation of all images, and the image.
    """
    if not rows:
        return
    dice, (first, *_) = evaluation.per_image()["dice"], rows
    height, width = first[2].truth.shape
    figure, grid = new_figure(9.6, 0.8 + len(rows) * (0.1 + 2.66 * height / width), 3, len(rows))
    for axes, (case, i, image) in zip(grid, rows, strict=True):
        show_slice(axes[0], image.image)
        axes[1].imshow(label_picture(image.truth, evaluation.colors), interpolation="nearest")
        axes[2].imshow(label_picture(image.prediction, evaluation.colors), interpolation="nearest")
        scores = "\n".join(
            f"{name} {'absent' if np.isnan(value) else format(value, '.3f')}"
            for name, value in zip(evaluation.classes, dice[i], strict=True)
        )
        axes[0].set_ylabel(f"{case}: {image.name}\n\nDice\n{scores}", rotation=0, ha="right", va="center", fontsize=9)
    if evaluation.pixel_size_nm:
        scale_bar(grid[0][0], width, evaluation.pixel_size_nm)
    titles, n_columns = ("slice", "truth", "prediction"), min(6, len(evaluation.classes))
    _label_and_save(figure, grid, titles, evaluation.classes, evaluation.colors, n_columns, path, dpi=130)


def _label_and_save(
    figure: Any,
    grid: Array,
    titles: Sequence[str],
    classes: Sequence[str],
    colors: Sequence[str],
    n_columns: int,
    path: Path,
    dpi: int,
) -> None:
    """Put titles over the first row of pictures and a legend of the classes below all, and save the figure."""
    from matplotlib.patches import Patch

    for axis in grid.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    handles = [Patch(facecolor=color, edgecolor="k", label=name) for name, color in zip(classes, colors, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=n_columns, frameon=False)
    save(figure, path, dpi)


def show_slice(axis: Any, image: Array) -> None:
    """Draw a slice in grey, the brightest half per cent saturated."""
    bright = float(np.percentile(image, 99.5))
    axis.imshow(image, cmap="gray", vmin=float(image.min()), vmax=bright, interpolation="nearest")


def scale_bar(axis: Any, width_px: int, pixel_size_nm: float) -> None:
    """Draw a scale bar of a round length, about a fifth of the picture, in its lower left corner."""
    target = width_px * pixel_size_nm / 5
    power = 10.0 ** np.floor(np.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target)
    bar = {"transform": axis.get_xaxis_transform(), "color": "#ffffff"}
    start = 0.04 * width_px
    axis.plot([start, start + length / pixel_size_nm], [0.05, 0.05], lw=3, solid_capstyle="butt", **bar)
    axis.text(start + length / pixel_size_nm / 2, 0.07, f"{length:g} nm", ha="center", va="bottom", fontsize=8, **bar)


def error_map(truth: Array, other: Array, colors: Sequence[str]) -> NDArray[np.uint8]:
    """Return an RGB picture (h, w, 3) of the pixels where `truth` and `other` differ, in the colour of the true class.

    Agreement is white, unannotated pixels are light grey, and black, the colour of the background, becomes dark grey.
    With the arguments exchanged, the picture shows false positives instead of false negatives.
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
    """Draw a slice, its true and predicted labels, false negatives and false positives, from left to right.

    False negatives have the colour of the true class, false positives that of the predicted one.
    """
    height, width = image.truth.shape
    figure, grid = new_figure(16.0, 16.0 / 5 * height / width + 0.9, 5, 1)
    show_slice(grid[0][0], image.image)
    pictures = [
        label_picture(image.truth, colors),
        label_picture(image.prediction, colors),
        error_map(image.truth, image.prediction, colors),
        error_map(np.where(image.truth == IGNORE, IGNORE, image.prediction), image.truth, colors),
    ]
    titles = [image.name, "truth", "prediction", "false negatives", "false positives"]
    for axis, picture in zip(grid[0][1:], pictures, strict=True):
        axis.imshow(picture, interpolation="nearest")
    _label_and_save(figure, grid, titles, classes, colors, len(classes), path, dpi=110)


def label_picture(labels: Array, colors: Sequence[str]) -> NDArray[np.uint8]:
    """Return labels (h, w) as RGB (h, w, 3); unannotated pixels are grey."""
    palette = np.full((256, 3), 128, np.uint8)
    palette[: len(colors)] = [rgb(color) for color in colors]
    return palette[labels]
