"""Learning rate, best epoch and early end, from the history of a training alone.

Nothing else is remembered between epochs, so a resumed training goes on as it would have without the interruption.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tomoseg.segmentation.training.parameters import TrainParameters

LOWEST = 0.01  # of the learning rate, at the end of a cosine

Rows = Sequence[Mapping[str, Any]]


def learning_rate(params: TrainParameters, history: Rows) -> float:
    """Return the learning rate of the epoch that comes after `history`.

    'cosine' is the schedule of Loshchilov & Hutter (ICLR 2017) without restarts.
    """
    if params.schedule == "cosine":
        done = min(len(history) / params.epochs, 1.0)
        return params.learning_rate * (LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * done)) / 2)
    if params.schedule == "plateau":
        return float(params.learning_rate * params.plateau_factor ** _plateaus(params, history))
    return params.learning_rate


def ends_early(params: TrainParameters, history: Rows) -> bool:
    """Tell whether validation has not improved for `patience` epochs; never after an epoch without validation."""
    if not params.patience or not history or _quality(history[-1], params.monitor) is None:
        return False
    return len(history) - best_epoch(history, params.monitor) >= params.patience


def best_epoch(history: Rows, monitor: str = "dice") -> int:
    """Return the first epoch, from 1, with the best validation by `monitor`; the last epoch without any validation."""
    found = [(quality, -i) for i, row in enumerate(history) if (quality := _quality(row, monitor)) is not None]
    return 1 - max(found)[1] if found else len(history)


def _quality(row: Mapping[str, Any], monitor: str) -> float | None:
    """Return the monitored score, the larger the better; None for an epoch without validation."""
    key = "val_" + monitor.replace(":", "_", 1)
    value: float | None = row[key]
    return -value if monitor == "loss" and value is not None else value


def _plateaus(params: TrainParameters, history: Rows) -> int:
    """Count the plateaus: `plateau_epochs` epochs without a new best since the last best or plateau."""
    best, waited, count = -math.inf, 0, 0
    for row in history:
        waited += 1
        quality = _quality(row, params.monitor)
        if quality is None:
            continue
        if quality > best:
            best, waited = quality, 0
        if waited >= params.plateau_epochs:
            waited, count = 0, count + 1
    return count
