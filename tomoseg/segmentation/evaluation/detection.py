"""Detection of the objects of a class, such as particles: scores by object instead of by pixel."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.evaluation.numbers import divided, plain

Z95 = 1.959964  # of the normal distribution
MOSTLY = 0.5  # an object lies mostly in another if more than this fraction of it does
Values = NDArray[np.float64]

# One row per object. `center` is (z, y, x) in px, z = 0 in an image. `iou` is that with its partner, NaN without one.
# `holds` is the number of counted objects of the other side that lie mostly in this one.
_FLAGS = [("counted", "?"), ("matched", "?"), ("touched", "?")]
OBJECT = np.dtype([("size_px", "i8"), ("center", "f8", (3,)), *_FLAGS, ("iou", "f8"), ("holds", "i8")])


@dataclass(frozen=True)
class ObjectRule:
    """When an object counts, and when it is found."""

    min_size: int = 5  # smallest object that counts, in px (see `compare_objects`)
    iou: float = 0.5  # smallest intersection over union of a true and a predicted object that are partners, above 0

    def __post_init__(self) -> None:
        if self.min_size < 1:
            raise InputError(f"the smallest object has {self.min_size} px: give at least 1")
        if not 0 < self.iou <= 1:
            raise InputError(f"the intersection over union is {self.iou:g}: it must be above 0 and at most 1")


@dataclass(frozen=True)
class FoundObjects:
    """The true and the predicted objects of one image or volume, arrays of `OBJECT`."""

    true: NDArray[np.void]
    predicted: NDArray[np.void]


def compare_objects(truth: Array, prediction: Array, class_number: int, rule: ObjectRule | None = None) -> FoundObjects:
    """Match the objects of one class in the truth with those in the prediction.

    Objects are connected components of pixels that share an edge (voxels: a face), as in the stage `measure`. Pixels
    that nobody annotated (255 in the truth) belong to no object on either side. A true and a predicted object may be
    partners if their intersection over union is at least `rule.iou`. Each has at most one partner; partners are chosen
    so that as many objects as possible have one, and then for the largest sum of overlaps.

    Objects of fewer than `rule.min_size` px are penalised in neither direction. A small true object is not missed, and
    its prediction is not false: a predicted object that is its partner, or overlaps only small true objects, is left
    out. A small predicted object without a partner is left out as well. A true object that is large enough is found by
    a partner of any size.

    Truth and prediction are (y, x) or (z, y, x) arrays of class numbers; raises `InputError` if the shapes differ.
    """
    rule = rule or ObjectRule()
    if truth.shape != prediction.shape or truth.ndim not in (2, 3):
        raise InputError(f"truth {truth.shape} and prediction {prediction.shape} must be of one shape, 2D or 3D")
    known = truth != IGNORE
    true_labels, true = _objects((truth == class_number) & known)
    predicted_labels, predicted = _objects((prediction == class_number) & known)
    pairs, shared = _overlaps(true_labels, predicted_labels)
    t, p = pairs.T
    iou = shared / (true["size_px"][t] + predicted["size_px"][p] - shared)

    true["counted"] = true["size_px"] >= rule.min_size
    true["touched"][t] = True
    predicted["touched"][p] = True
    partner = np.full(len(predicted), -1)  # the true object of each predicted one
    for side in (true["counted"][t], ~true["counted"][t]):
        free = np.flatnonzero((iou >= rule.iou) & side & (partner[p] < 0))
        best = free[_partners(pairs[free], iou[free])]
        partner[p[best]] = t[best]
        true["matched"][t[best]] = predicted["matched"][p[best]] = True
        true["iou"][t[best]] = predicted["iou"][p[best]] = iou[best]

    large = predicted["size_px"] >= rule.min_size
    beside_large = np.zeros(len(predicted), bool)
    beside_large[p[true["counted"][t]]] = True
    predicted["counted"] = large & (beside_large | ~predicted["touched"])
    predicted["counted"][partner >= 0] = true["counted"][partner[partner >= 0]]

    in_predicted = (shared > MOSTLY * true["size_px"][t]) & true["counted"][t]
    in_true = (shared > MOSTLY * predicted["size_px"][p]) & large[p]
    predicted["holds"] = np.bincount(p[in_predicted], minlength=len(predicted))
    true["holds"] = np.bincount(t[in_true], minlength=len(true))
    return FoundObjects(true, predicted)


def _objects(mask: Array) -> tuple[Array, NDArray[np.void]]:
    """Return the number of the object at each pixel, from 1, and the rows of objects with size and centre."""
    import cc3d

    volume = np.ascontiguousarray(mask.reshape((1,) * (3 - mask.ndim) + mask.shape)).view(np.uint8)
    labels: Any
    labels, n = cc3d.connected_components(volume, connectivity=6, return_N=True)
    places = np.nonzero(labels)
    number_at = labels[places].astype(np.int64) - 1
    rows = np.zeros(int(n), OBJECT)
    rows["size_px"] = np.bincount(number_at, minlength=len(rows))
    for axis, place in enumerate(places):
        rows["center"][:, axis] = np.bincount(number_at, place, len(rows)) / rows["size_px"]
    rows["iou"] = np.nan
    return labels, rows


def _overlaps(true_labels: Array, predicted_labels: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (n, 2) pairs of true and predicted objects, from 0, that overlap, and by how many pixels."""
    both = (true_labels > 0) & (predicted_labels > 0)
    stacked = np.stack([true_labels[both], predicted_labels[both]], axis=1).astype(np.int64) - 1
    pairs, shared = np.unique(stacked, axis=0, return_counts=True)
    return pairs.reshape(-1, 2), shared


def _partners(pairs: Array, iou: Array) -> NDArray[np.int64]:
    """Return the indices of as many pairs (n, 2) as possible with no object in two of them, then by overlap."""
    from scipy.optimize import linear_sum_assignment

    chosen = [np.zeros(0, np.int64)]
    for group in _entangled(pairs):
        t, rows = np.unique(pairs[group, 0], return_inverse=True)
        p, columns = np.unique(pairs[group, 1], return_inverse=True)
        index = np.full((len(t), len(p)), -1)
        index[rows, columns] = group
        value = np.zeros(index.shape)
        value[rows, columns] = len(group) + iou[group]  # one more pair is worth more than any overlaps
        picked = index[linear_sum_assignment(value, maximize=True)]
        chosen.append(picked[picked >= 0])
    return np.concatenate(chosen)


def _entangled(pairs: Array) -> list[NDArray[np.int64]]:
    """Return the indices of the pairs in groups that have no object in common."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return []
    n_true, n_predicted = pairs.max(axis=0) + 1
    n = n_true + n_predicted
    graph = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], n_true + pairs[:, 1])), shape=(n, n))
    group = connected_components(graph, directed=False)[1][pairs[:, 0]]
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


@dataclass(frozen=True)
class Detection:
    """The objects of one class, found or not, over a set of images or volumes."""

    class_name: str  # class of the objects
    rule: ObjectRule  # by which they were matched
    names: list[str]  # one per image
    images: list[FoundObjects]  # one per image, see `compare_objects`
    n_dimensions: int = 2  # 2 for images, 3 for volumes
    pixel_size_nm: float | None = None  # None if unknown

    @property
    def true(self) -> NDArray[np.void]:
        """The true objects of all images, array of `OBJECT`."""
        return np.concatenate([np.zeros(0, OBJECT), *(image.true for image in self.images)])

    @property
    def predicted(self) -> NDArray[np.void]:
        """The predicted objects of all images, array of `OBJECT`."""
        return np.concatenate([np.zeros(0, OBJECT), *(image.predicted for image in self.images)])

    def diameters(self, objects: NDArray[np.void]) -> Values:
        """Return the diameters of the circles (spheres) of equal area (volume), in nm if known, else in px."""
        size = objects["size_px"].astype(float)
        diameter = 2 * np.sqrt(size / np.pi) if self.n_dimensions == 2 else np.cbrt(6 * size / np.pi)
        return np.asarray(diameter * (self.pixel_size_nm or 1.0))

    @property
    def unit(self) -> str:
        """Unit of the diameters."""
        return "nm" if self.pixel_size_nm else "px"

    def scores(self) -> dict[str, Any]:
        """Return counts and scores of all images together; see `object_scores`."""
        return object_scores(self.true, self.predicted)

    def by_size(self, edges: Sequence[float] | None = None) -> dict[str, Values]:
        """Return the scores of objects by size, in bins between (n + 1,) diameters in nm if known, else in px.

        Bins include their lower edge, the last one also its upper edge; by default they are those of `size_edges` for
        the true objects, and one more where predicted ones are larger than all of these. The result has, all (n,),
            `from`, `to` : ends of the bins
            `true`, `found`, `missed` : true objects of this size
            `touched` : true ones that any predicted object overlaps
            `recall`, `low`, `high` : found / true, with its 95 % interval
            `predicted`, `invented` : predicted objects of this size, and those among them without a partner
            `precision`, `precision_low`, `precision_high` : fraction of the predicted that are not invented
        True objects are in the bin of their own size, predicted ones in that of theirs, so that found and not invented
        ones may differ in a bin, but not in all of them together.
        """
        true, predicted = self.true[self.true["counted"]], self.predicted[self.predicted["counted"]]
        diameters, of_predicted = self.diameters(true), self.diameters(predicted)
        bounds = _with_largest(size_edges(diameters), of_predicted) if edges is None else np.asarray(edges, float)

        def count(chosen: Array, values: Values = diameters) -> Values:
            return np.histogram(values[chosen], bounds)[0].astype(float)

        n, found = count(np.ones(len(true), bool)), count(true["matched"])
        low, high = wilson(found, n)
        n_predicted = count(np.ones(len(predicted), bool), of_predicted)
        right = count(predicted["matched"], of_predicted)
        precision_low, precision_high = wilson(right, n_predicted)
        return {
            "from": bounds[:-1],
            "to": bounds[1:],
            "true": n,
            "found": found,
            "touched": count(true["touched"]),
            "recall": divided(found, n),
            "low": low,
            "high": high,
            "missed": n - found,
            "predicted": n_predicted,
            "invented": n_predicted - right,
            "precision": divided(right, n_predicted),
            "precision_low": precision_low,
            "precision_high": precision_high,
        }

    def write_sizes_csv(self, path: Path) -> None:
        """Write counts, recall and precision of the objects by size, one bin a row; see `by_size`."""
        sizes = self.by_size()
        columns = {"low": "recall_low", "high": "recall_high", **{end: f"{end}_{self.unit}" for end in ("from", "to")}}
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["class", *(columns.get(name, name) for name in sizes)])
            for row in zip(*sizes.values(), strict=True):
                writer.writerow([self.class_name, *("" if np.isnan(value) else f"{value:.6g}" for value in row)])

    def to_dict(self) -> dict[str, Any]:
        """Return everything except single objects as JSON types; NaN becomes null."""
        sizes = self.by_size()
        ends = np.stack([sizes.pop("low"), sizes.pop("high")], axis=1)
        precision_ends = np.stack([sizes.pop("precision_low"), sizes.pop("precision_high")], axis=1)
        facts: dict[str, Any] = plain(
            {
                "class": self.class_name,
                "min_size_px": self.rule.min_size,
                "iou": self.rule.iou,
                **self.scores(),
                "by_size": {"unit": self.unit, **sizes, "recall_ci95": ends, "precision_ci95": precision_ends},
                "per_image": [
                    {"name": name, **object_scores(image.true, image.predicted)}
                    for name, image in zip(self.names, self.images, strict=True)
                ],
            }
        )
        return facts

    def write_csv(self, path: Path) -> None:
        """Write one row per true and predicted object, with its outcome."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            place = ["z_px", "y_px", "x_px"][3 - self.n_dimensions :]
            header = ["image", "side", *place, "size_px", f"diameter_{self.unit}", "outcome", "iou", "holds"]
            writer.writerow(header)
            for name, image in zip(self.names, self.images, strict=True):
                for side, objects in (("true", image.true), ("predicted", image.predicted)):
                    for row, diameter in zip(objects, self.diameters(objects), strict=True):
                        center = [f"{v:.2f}" for v in row["center"][3 - self.n_dimensions :]]
                        iou = f"{row['iou']:.4f}" if row["matched"] else ""
                        facts = [int(row["size_px"]), f"{diameter:.4f}", _outcome(side, row), iou, int(row["holds"])]
                        writer.writerow([name, side, *center, *facts])


def object_scores(true: NDArray[np.void], predicted: NDArray[np.void]) -> dict[str, Any]:
    """Count the objects, arrays of `OBJECT`, that were found, and return scores.

    The result has
        `true`, `found`, `missed` = true - found : counted true objects
        `untouched` : missed ones that no predicted object overlaps
        `predicted`, `invented` = predicted - found : counted predicted objects
        `split` : true objects in which two or more predicted ones lie mostly (with more than half of their pixels)
        `merged` : predicted objects in which two or more true ones lie mostly
        `ignored_true`, `ignored_predicted` : objects left out as too small
        `precision` = found / predicted, `recall` = found / true, `f1` = 2 found / (predicted + true), and
        `touched_recall` : fraction of the true objects that any predicted one overlaps; NaN without objects
        `precision_ci95`, `recall_ci95` : see `wilson`
    """
    counted, expected = true[true["counted"]], predicted[predicted["counted"]]
    n_true, n_predicted, found = len(counted), len(expected), int(counted["matched"].sum())
    touched = int(counted["touched"].sum())
    return {
        "true": n_true,
        "found": found,
        "missed": n_true - found,
        "untouched": n_true - touched,
        "predicted": n_predicted,
        "invented": n_predicted - found,
        "split": int((counted["holds"] > 1).sum()),
        "merged": int((predicted["holds"] > 1).sum()),
        "ignored_true": len(true) - n_true,
        "ignored_predicted": len(predicted) - n_predicted,
        "precision": float(divided(found, n_predicted)),
        "recall": float(divided(found, n_true)),
        "f1": float(divided(2 * found, n_true + n_predicted)),
        "touched_recall": float(divided(touched, n_true)),
        "precision_ci95": [float(v) for v in wilson(found, n_predicted)],
        "recall_ci95": [float(v) for v in wilson(found, n_true)],
    }


def wilson(hits: Any, n: Any) -> tuple[Values, Values]:
    """Return the 95 % interval of a proportion from `hits` of `n`; NaN for n = 0.

    Wilson, Journal of the American Statistical Association 22, 1927. Objects are taken as independent.
    """
    n, part = np.asarray(n, float), divided(hits, n)
    middle = divided(part * n + Z95**2 / 2, n + Z95**2)
    half = divided(Z95 * np.sqrt(part * (1 - part) * n + Z95**2 / 4), n + Z95**2)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def size_edges(diameters: Array) -> Values:
    """Return round edges of bins: about six up to the 90th percentile, and one for larger objects."""
    if not diameters.size:
        return np.array([0.0, 1.0])
    usual = float(np.quantile(diameters, 0.9))
    power = 10.0 ** np.floor(np.log10(usual / 6))
    width = next(step * power for step in (1, 2, 5, 10) if step * power >= usual / 6)
    return _with_largest(np.arange(np.floor(usual / width) + 2) * width, diameters)


def _with_largest(edges: Values, diameters: Values) -> Values:
    """Return edges of bins with one more, at a whole multiple of their width, where diameters lie beyond the last."""
    largest = float(diameters.max(initial=0))
    width = edges[1] - edges[0]
    return np.append(edges, np.ceil(largest / width + 1e-9) * width) if largest > edges[-1] else edges


def class_number(names: Sequence[str], text: str) -> int:
    """Return the number of a class given by name or number, the last for an empty text; raise `InputError` if none."""
    if not text:
        return len(names) - 1
    if text in names:
        return list(names).index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise InputError(f"there is no class '{text}': the network has {', '.join(names)}")


def _outcome(side: str, row: Any) -> str:
    if not row["counted"]:
        return "ignored"
    if row["matched"]:
        return "found"
    return "missed" if side == "true" else "invented"
