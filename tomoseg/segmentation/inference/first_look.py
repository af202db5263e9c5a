"""What a network makes of some slices of a volume, before it labels them all.

From it follow the intensity scale, what to expect of the labels, and how far they agree with thresholds.

The level of the support, which is 1 on the scale of training, is the median of what the network labels as support.
On a scale that is wrong by a factor of two or three it still labels nearly the same voxels, so that this settles at
once. On one that is further off it may settle on noise, or on particles. So it begins on several scales, and of those
that it comes to the one counts on which it is surest of support and particles.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array
from tomoseg.segmentation.data.histogram import Histogram, partition
from tomoseg.segmentation.data.intensity_scaling import Scale, levels_of_labels
from tomoseg.segmentation.data.neighbours import middle
from tomoseg.segmentation.inference.expected_dice import ExpectedDice
from tomoseg.segmentation.inference.slice_prediction import SlicePredictor
from tomoseg.segmentation.thresholds.label_volume import apply_thresholds

BEGINNINGS = (1.0, 0.4, 2.5, 0.15)  # times the level of the foreground: of support, particles, dim things, noise
SURE = 0.93  # the Dice to expect of all classes that makes other beginnings needless
MOST_ROUNDS = 4
SETTLED = 0.05  # of the distance of the levels: a change of the scale that is too small to matter
SMOOTHED_PX = 0.5  # as the thresholds of a volume are


@dataclass(frozen=True)
class FirstLook:
    """What a network makes of some slices.

    Attributes
    ----------
    scale : on which the levels of what it labels as its first two classes are 0 and 1; where it began if these are
        unknown
    knows_levels : the network finds enough of both classes to tell their levels, or was not asked to
    expected : of each class, the Dice to expect; NaN where it finds none
    images, labels : (n, h, w) the slices and what it labels
    """

    scale: Scale
    knows_levels: bool
    expected: list[float]
    images: Array
    labels: NDArray[np.uint8]

    @property
    def sureness(self) -> float:
        """Sum of the Dice to expect of all classes but the first."""
        return float(np.nansum(self.expected[1:]))

    @property
    def share_of_last(self) -> float:
        """Fraction of what is labelled as no background that is of the last class; 0 where all is background."""
        n = int(np.count_nonzero(self.labels))
        return int(np.count_nonzero(self.labels == len(self.expected) - 1)) / n if n else 0.0

    def agreement(self, values: Histogram) -> list[float]:
        """Return the Dice of each class between these labels and those by thresholds on the volume's histogram.

        1 for a class that neither finds.
        """
        n = len(self.expected)
        images = ndimage.gaussian_filter(np.asarray(self.images, np.float32), (0, SMOOTHED_PX, SMOOTHED_PX))
        others = apply_thresholds(images, partition(values, n).thresholds.tolist())
        found = []
        for k in range(n):
            ours, theirs = self.labels == k, others == k
            total = int(ours.sum()) + int(theirs.sum())
            found.append(2 * int((ours & theirs).sum()) / total if total else 1.0)
        return found


def look_at(
    predictor: SlicePredictor,
    slices: Array,
    scale: Scale,
    check: Callable[[], object] = str,
    *,
    finds_levels: bool = True,
) -> FirstLook:
    """Label slices on the scale that suits the network best.

    Parameters
    ----------
    predictor : the network
    slices : (n, h, w), or (n, h, w, channels) with their neighbours
    scale : where to begin
    check : may raise to stop
    finds_levels : whether the scale is to follow from the labels
    """
    if not finds_levels:
        return _labelled(predictor, slices, scale, check)
    looks: list[FirstLook] = []
    for factor in BEGINNINGS:
        begun = replace(scale, one=scale.zero + factor * (scale.one - scale.zero))
        looks.append(_settled(predictor, slices, begun, check))
        if looks[-1].knows_levels and min(np.nan_to_num(looks[-1].expected[1:], nan=1.0)) > SURE:
            break
    return max(looks, key=lambda look: (look.knows_levels, look.sureness))


def _settled(predictor: SlicePredictor, slices: Array, scale: Scale, check: Callable[[], object]) -> FirstLook:
    """Label slices, on a better scale each time."""
    for _ in range(MOST_ROUNDS):
        look = _labelled(predictor, slices, scale, check)
        levels = levels_of_labels(list(look.images), list(look.labels))
        if levels is None:
            return replace(look, knows_levels=False)
        zero, one = levels
        moved = max(abs(zero - scale.zero), abs(one - scale.one)) / (one - zero)
        scale = replace(scale, zero=zero, one=one)
        if moved < SETTLED:
            break
    return replace(look, scale=scale)


def _labelled(predictor: SlicePredictor, slices: Array, scale: Scale, check: Callable[[], object]) -> FirstLook:
    """Label slices on a scale."""
    expected = ExpectedDice(predictor.n_classes)
    labels, _ = replace(predictor, scale=scale).classify(slices, check, expected)
    return FirstLook(scale, True, expected.of_each, np.stack([middle(one) for one in slices]), labels)
