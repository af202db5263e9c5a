"""Learning rates and early ends, which follow from the history alone."""

from pathlib import Path

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segmentation.training import train
from tomoseg.segmentation.training.parameters import TrainParameters, check
from tomoseg.segmentation.training.schedule import best_epoch, ends_early, learning_rate


def rows(*dice):
    return [{"val_dice": value} for value in dice]


def scored(*quality, key="val_dice"):
    """Return rows of epochs with values of one key, and other keys that must not count."""
    others = dict.fromkeys(("val_dice", "val_loss", "val_dice_particles"), 0.5)
    return [(others if value is not None else dict.fromkeys(others)) | {key: value} for value in quality]


def rates(settings, dice):
    return [learning_rate(settings, rows(*dice[:done])) for done in range(len(dice) + 1)]


def test_the_papers_rate_is_constant():
    assert rates(TrainParameters(), [0.1] * 50) == [5e-4] * 51


def test_a_cosine_falls_to_a_hundredth():
    settings = TrainParameters(epochs=100, learning_rate=1e-2, schedule="cosine")
    got = rates(settings, [0.1] * 100)
    assert got[0] == 1e-2
    assert got[50] == pytest.approx((1e-2 + 1e-4) / 2)
    assert got[100] == pytest.approx(1e-4)
    assert (np.diff(got) < 0).all()
    # Not as fast at the ends as in the middle.
    assert got[0] - got[10] < got[45] - got[55]


def test_a_finished_cosine_that_is_given_more_epochs_rises_again_and_never_leaves_its_range():
    settings = TrainParameters(epochs=10, learning_rate=1.0, schedule="cosine")
    longer = settings.changed(epochs=20)
    assert learning_rate(settings, rows(*[0.1] * 12)) == pytest.approx(0.01)
    assert learning_rate(longer, rows(*[0.1] * 10)) == pytest.approx(0.505)


def test_a_plateau_halves_the_rate():
    settings = TrainParameters(learning_rate=1.0, schedule="plateau", plateau_epochs=2)
    #        best  -    best  -    -     -     -     best
    dice = [0.50, 0.40, 0.60, 0.60, 0.59, 0.30, 0.20, 0.70]
    #   waited 0    1    0    1     2 = plateau   1     2 = plateau
    assert rates(settings, dice) == [1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_the_factor_of_a_plateau_may_be_another():
    settings = TrainParameters(learning_rate=1.0, schedule="plateau", plateau_epochs=2, plateau_factor=0.1)
    dice = [0.5, 0.4, 0.3, 0.2, 0.1]
    assert rates(settings, dice) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01])


def test_intersection_over_union_may_be_monitored():
    history = [{"val_dice": d, "val_iou": i, "val_iou_Pt": p} for d, i, p in ((0.9, 0.2, 0.1), (0.8, 0.3, 0.0))]
    assert [best_epoch(history, monitor) for monitor in ("dice", "iou", "iou:Pt")] == [1, 2, 1]
    assert TrainParameters(monitor="iou:Pt").monitored_class == "Pt"
    assert TrainParameters(monitor="iou").monitored_class == ""


def test_patience_counts_epochs_since_the_best():
    settings = TrainParameters(patience=3)
    assert [ends_early(settings, rows(*[0.5, 0.7, 0.6, 0.7, 0.65][:n])) for n in range(6)] == [False] * 5 + [True]
    assert not ends_early(TrainParameters(), rows(*[0.1] * 90))


def test_the_best_epoch_is_the_first_of_equals_and_the_last_without_validation():
    assert best_epoch(rows(0.2, 0.9, 0.9, 0.1)) == 2
    assert best_epoch(rows(None, None, None)) == 3


@pytest.mark.parametrize(
    ("monitor", "key", "sign"),
    [("dice", "val_dice", 1), ("loss", "val_loss", -1), ("dice:particles", "val_dice_particles", 1)],
)
def test_what_is_monitored_decides(monitor, key, sign):
    values = [sign * v for v in (0.50, 0.40, 0.60, 0.60, 0.59)]
    history = scored(*values, key=key)
    assert best_epoch(history, monitor) == 3
    settings = TrainParameters(monitor=monitor, patience=2, schedule="plateau", plateau_epochs=2, learning_rate=1.0)
    assert [ends_early(settings, history[:n]) for n in range(6)] == [False] * 5 + [True]
    assert [learning_rate(settings, history[:n]) for n in range(6)] == [1, 1, 1, 1, 1, 0.5]


def test_epochs_without_validation_neither_count_as_best_nor_end_it():
    dice = [None, None, 0.5, None, None, 0.4, None, None, 0.6]
    #                         3              6 = 3 later      9
    history = scored(*dice)
    assert [best_epoch(history[:n]) for n in range(1, 10)] == [1, 2, 3, 3, 3, 3, 3, 3, 9]
    settings = TrainParameters(patience=2, schedule="plateau", plateau_epochs=2, learning_rate=1.0, validate_every=3)
    assert [n for n in range(10) if ends_early(settings, history[:n])] == [6]
    assert [learning_rate(settings, history[:n]) for n in range(10)] == [1] * 6 + [0.5] * 4


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schedule": "linear"}, r"train.schedule: .*'linear'"),
        ({"architecture": "vgg"}, "train.architecture: there is no such network"),
        ({"loss": "hinge"}, "the loss 'hinge' cannot be used"),
        ({"ema": 1.0}, "train.ema: .*less than 1"),
        ({"sampling": 1.5}, "train.sampling: .*less than or equal to 1"),
        ({"patience": -1}, "train.patience: .*-1"),
        ({"plateau_epochs": 0}, "train.plateau_epochs: .*0"),
        ({"predict_patch": 100}, "predict_patch is 100 px"),
        ({"validate_every": 0}, "train.validate_every: .*0"),
        ({"monitor": "hausdorff"}, "train.monitor: .*hausdorff"),
        ({"monitor": "iou:"}, "train.monitor: .*iou:"),
        ({"monitor": "loss:particles"}, "train.monitor: .*loss:"),
        ({"folds": 1, "sweep_threshold": True}, "need validation"),
        ({"monitor": "dice:"}, "train.monitor: .*dice:"),
        ({"folds": 1, "patience": 5}, "need validation"),
        ({"folds": 1, "schedule": "plateau"}, "need validation"),
    ],
)
def test_settings_that_cannot_be_used(change, problem):
    with pytest.raises(InputError, match=problem) as error:
        train([], [], Path("m.keras"), **change)
    assert len(str(error.value).splitlines()) == 1  # one problem
    assert not check(TrainParameters())
