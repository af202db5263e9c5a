"""What follows from the history of a training: its learning rate, and when it ends.

Nothing else is remembered between epochs, so a training that is resumed goes on as it would have.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tomoseg.segment.train_settings import TrainSettings

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
        return float(settings.learning_rate * DROP ** _plateaus(history, settings.plateau_epochs))
    return settings.learning_rate


def ends_early(settings: TrainSettings, history: Rows) -> bool:
    """Tell whether validation has not become better for as many epochs as patience lasts."""
    return bool(settings.patience and history) and len(history) - best_epoch(history) >= settings.patience


def best_epoch(history: Rows) -> int:
    """Return the first epoch, from 1, with the highest validation Dice; without validation the last one."""
    scores = [row["val_dice"] for row in history]
    return len(scores) if None in scores else 1 + scores.index(max(scores))


def _plateaus(history: Rows, length: int) -> int:
    """Return how often validation stayed without a new best for `length` epochs since the last best or plateau."""
    best, waited, count = -math.inf, 0, 0
    for row in history:
        waited += 1
        if row["val_dice"] > best:
            best, waited = row["val_dice"], 0
        if waited == length:
            waited, count = 0, count + 1
    return count
