"""Paired comparison of networks on the same images, with confidence intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.segmentation.data.folds import slice_keys
from tomoseg.segmentation.evaluation.numbers import divided, plain
from tomoseg.segmentation.evaluation.scores import METRICS, Evaluation, statistic

RESAMPLES = 10_000
SLICES_PER_GROUP = 3
FEW_GROUPS = 6  # with fewer, resampling underestimates how groups differ
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Difference between the scores of two networks on the same images, by class (C,)."""

    mean: Values  # mean over images of the difference
    ci95: Values  # half width of its 95 % interval, 1.96 s / sqrt(n), as if images were independent
    low: Values  # lower end of its 95 % interval from resampled groups of neighbouring slices
    high: Values  # upper end of that interval
    n: NDArray[np.int64]  # number of images for which both have a value

    def is_sure(self) -> NDArray[np.bool_]:
        """Tell (C,) where both intervals exclude 0."""
        return (np.abs(self.mean) > self.ci95) & ((self.low > 0) | (self.high < 0))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types; NaN becomes null."""
        ends = np.stack([self.low, self.high], axis=1)
        return dict(plain({"mean": self.mean, "ci95": self.ci95, "bootstrap_ci95": ends, "n": self.n}))


@dataclass(frozen=True)
class Comparison:
    """Scores of several networks on the images that all of them were evaluated on."""

    baseline: str  # name of the network with which the others are compared
    classes: list[str]  # one per class
    names: list[str]  # the images
    groups: NDArray[np.int64]  # (n_images,) the group of neighbouring slices of each image
    means: dict[str, dict[str, Values]]  # mean (C,) over those images, by network and metric
    differences: dict[str, dict[str, Difference]]  # difference from the baseline, by other network and metric

    @property
    def n_groups(self) -> int:
        """Number of groups of neighbouring slices."""
        return len(np.unique(self.groups))

    def note(self) -> str:
        """Say why the intervals are too narrow or missing; empty if they are sound."""
        if self.n_groups >= FEW_GROUPS:
            return ""
        if self.n_groups == 1:
            return "all images are neighbouring slices of one group, so there is no interval from resampled groups"
        return f"the images form {self.n_groups} groups of neighbouring slices: intervals from so few are too narrow"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types; NaN becomes null."""
        return {
            "baseline": self.baseline,
            "classes": list(self.classes),
            "images": list(self.names),
            "groups": self.groups.tolist(),
            "means": plain(self.means),
            "differences": {
                model: {metric: difference.to_dict() for metric, difference in metrics.items()}
                for model, metrics in self.differences.items()
            },
            "note": self.note(),
        }


def compare(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Compare networks with the first of them, image by image.

    An image counts for a class if both networks have a value: if the class is in the truth, or both predict it. The
    scores of two networks on one image are correlated, so their difference is known better than either. The images that
    all have in common are compared; classes take the names of the first network.

    Raises `InputError`: there are fewer than two networks, their numbers of classes differ, they have no image in
    common, or they were evaluated with different labels.
    """
    if len(evaluations) < 2:
        raise InputError("there is nothing to compare: give two networks or more")
    (baseline, first), *others = evaluations.items()
    require_same_classes({model: evaluation.classes for model, evaluation in evaluations.items()})
    names = common_names([evaluation.names for evaluation in evaluations.values()])
    rows = {model: [evaluation.names.index(name) for name in names] for model, evaluation in evaluations.items()}
    _require_same_truth(evaluations, rows, names)
    values = {
        model: {metric: each[rows[model]] for metric, each in evaluation.per_image().items()}
        for model, evaluation in evaluations.items()
    }
    groups = slice_groups(names)
    return Comparison(
        baseline,
        list(first.classes),
        names,
        groups,
        {model: {metric: statistic(values[model][metric]).mean for metric in METRICS} for model in values},
        {
            model: {metric: difference(values[model][metric], values[baseline][metric], groups) for metric in METRICS}
            for model, _ in others
        },
    )


def require_same_classes(classes: Mapping[str, Sequence[str]]) -> None:
    """Raise `InputError` if networks have different numbers of classes; their names may differ."""
    baseline, first = next(iter(classes.items()))
    for model, names in classes.items():
        if len(names) != len(first):
            raise InputError(
                f"{model} has {len(names)} classes ({', '.join(names)}), {baseline} has {len(first)} "
                f"({', '.join(first)}): only networks for the same classes can be compared"
            )


def common_names(names: Sequence[Sequence[str]]) -> list[str]:
    """Return the images that are in all the lists, in the order of the first; raise `InputError` if there is none."""
    common = [name for name in names[0] if all(name in other for other in names[1:])]
    if not common:
        raise InputError("the networks have no image in common, so they cannot be compared")
    return common


def _require_same_truth(
    evaluations: Mapping[str, Evaluation], rows: Mapping[str, list[int]], names: Sequence[str]
) -> None:
    """Raise `InputError` if an image was scored with different labels."""
    true_pixels = [e.matrices[rows[model]].sum(axis=2) for model, e in evaluations.items()]
    for other in true_pixels[1:]:
        differs = (other != true_pixels[0]).any(axis=1)
        if differs.any():
            raise InputError(f"the labels of {names[int(differs.argmax())]} are not the same for all networks")


def difference(scores: Array, baseline: Array, groups: Array) -> Difference:
    """Return scores minus those of the baseline, both (n_images, C) with NaN where undefined."""
    paired = np.asarray(scores, float) - np.asarray(baseline, float)
    stat = statistic(paired)
    low, high = np.array([bootstrap_interval(column, groups) for column in paired.T]).reshape(-1, 2).T
    return Difference(stat.mean, stat.ci95, low, high, stat.n)


def bootstrap_interval(values: Array, groups: Array, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values that are independent between, but not within, groups.

    As many groups as there are are drawn with replacement, each with all its values; the ends are the 2.5th and the
    97.5th percentile of the means (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13; of groups:
    Davison & Hinkley, Bootstrap Methods and their Application, 1997, ch. 3.8). Values (n,) are NaN where undefined,
    groups (n,) whole numbers; the ends are NaN where fewer than two groups have a value.
    """
    present = np.isfinite(values)
    _, member = np.unique(np.asarray(groups)[present], return_inverse=True)
    sums, counts = np.bincount(member, np.asarray(values)[present]), np.bincount(member)
    k = len(counts)
    if k < 2:
        return np.nan, np.nan
    drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), resamples)
    low, high = np.percentile(divided(drawn @ sums, drawn @ counts), [2.5, 97.5])
    return float(low), float(high)


def slice_groups(names: Sequence[str], most: int = SLICES_PER_GROUP) -> NDArray[np.int64]:
    """Return the group (n,) of each image: neighbouring slices look alike, so they are not independent.

    Slices of consecutive numbers in a series (see `tomoseg.segmentation.data.folds.slice_keys`) are one group, with
    all images of each slice; longer runs are cut after every `most` slices.
    """
    keys = slice_keys(names)
    group_of: dict[tuple[str, int], int] = {}
    group, length, before = -1, 0, ("", 0)
    for series, slice_number in sorted(set(keys)):
        goes_on = group >= 0 and before == (series, slice_number - 1) and length < most
        group, length = (group, length + 1) if goes_on else (group + 1, 1)
        group_of[series, slice_number] = group
        before = (series, slice_number)
    return np.array([group_of[key] for key in keys], np.int64)
