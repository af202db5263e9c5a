"""Curves of a training, as a PNG file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tomoseg.palette import BLUE, ORANGE
from tomoseg.segmentation.evaluation.plots import new_figure


def plot_history(
    rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], colors: Sequence[str], path: Path
) -> None:
    """Draw loss and validation Dice of each class against the epoch, from the rows of the history."""
    figure, (left, right) = new_figure(9.0, 3.6, 2)

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
