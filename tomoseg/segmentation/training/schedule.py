"""What follows from the history of a training: its learning rate, and when it ends.

Nothing else is remembered between epochs, so a training that is resumed goes on as it would have.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tomoseg.segmentation.training.parameters import TrainSettings

LOWEST = 0.01  # of the learning rate, at the end of a cosine
DROP = 0.5  # of the learning rate, at a plateau

Rows = Sequence[Mapping[str, Any]]


def learning_rate(settings: TrainSettings, history: Rows) -> float:
    """Return the learning rate of the epoch that comes after `history`.

    'cosine' is the schedule of Loshchilov & Hutter (ICLR 2017) without restarts.
    """
    if settings.schedule == "cosine":
        done = min(len(history) / settings.epochs, 1.0)
        return settings.learning_rate * (LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * done)) / 2)
    if settings.schedule == "plateau":
        return float(settings.learning_rate * DROP ** _plateaus(settings, history))
    return settings.learning_rate


def ends_early(settings: TrainSettings, history: Rows) -> bool:
    """Tell, after an epoch with validation, whether it has not become better for as many epochs as patience lasts."""
    if not settings.patience or not history or _quality(history[-1], settings.monitor) is None:
        return False
    return len(history) - best_epoch(history, settings.monitor) >= settings.patience


def best_epoch(history: Rows, monitor: str = "dice") -> int:
    """Return the first epoch, from 1, in which validation was best; the last one as long as there was none.

    What counts is told by `monitor`, see `tomoseg.segmentation.training.parameters`.
    """
    found = [(quality, -i) for i, row in enumerate(history) if (quality := _quality(row, monitor)) is not None]
    return 1 - max(found)[1] if found else len(history)


def _quality(row: Mapping[str, Any], monitor: str) -> float | None:
    """Return what is monitored, the larger the better; None where it is not known in this epoch."""
    key = "val_" + monitor.replace(":", "_", 1)
    value: float | None = row[key]
    return -value if monitor == "loss" and value is not None else value


def _plateaus(settings: TrainSettings, history: Rows) -> int:
    """Return how often validation was without a new best for `plateau_epochs` since the last best or plateau."""
    best, waited, count = -math.inf, 0, 0
    for row in history:
        waited += 1
        quality = _quality(row, settings.monitor)
        if quality is None:
            continue
        if quality > best:
            best, waited = quality, 0
        if waited >= settings.plateau_epochs:
            waited, count = 0, count + 1
    return count
