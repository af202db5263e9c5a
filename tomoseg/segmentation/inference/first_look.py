"""What a network makes of some slices of a volume, before it labels them all.

From it follow the intensity scale, what to expect of the labels, and how far they agree with thresholds.

The level of the support, which is 1 on the scale of training, is the median of what the network labels as support.
On a scale that is wrong by a factor of a few it still labels nearly the same voxels, so that this settles at once.
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
    """Label slices, on a better scale each time.

    Parameters
    ----------
    predictor : the network
    slices : (n, h, w), or (n, h, w, channels) with their neighbours
    scale : where to begin
    check : may raise to stop
    finds_levels : whether the scale is to follow from the labels
    """
    images, knows_levels = [middle(one) for one in slices], True
    for _ in range(MOST_ROUNDS):
        expected = ExpectedDice(predictor.n_classes)
        labels, _ = replace(predictor, scale=scale).classify(slices, check, expected)
        levels = levels_of_labels(images, list(labels)) if finds_levels else None
        if levels is None:
            knows_levels = not finds_levels
            break
        zero, one = levels
        moved = max(abs(zero - scale.zero), abs(one - scale.one)) / (one - zero)
        scale = replace(scale, zero=zero, one=one)
        if moved < SETTLED:
            break
    return FirstLook(scale, knows_levels, expected.of_each, np.stack(images), labels)
