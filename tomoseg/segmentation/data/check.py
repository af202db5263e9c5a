"""Check of a set of labelled slices before hours of training are spent on it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.classes import default_names, problems_with_names
from tomoseg.errors import InputError
from tomoseg.io.label_values import LabelMap, few, label_doubts, label_problems, present_classes
from tomoseg.io.pairing import Pair, paired
from tomoseg.io.slices import IGNORE, DisplayCheck, blank_pages, is_blank, load_pair, n_classes_of, read_slice
from tomoseg.runtime import Runtime
from tomoseg.segmentation.data.folds import ALIKE, leak_warning, split, thumbnail

RARE_SHARE = 1e-3  # of the annotated pixels
RARE_SLICES = 3
MOST_IN_TABLE = 8  # classes, where the labels are no class numbers: hundreds of empty ones would hide why
# Correlation of all pixels, which does not depend on brightness and contrast. Neighbouring slices of the gamma-alumina
# set have up to 0.990; a copy with another brightness and contrast, rounded to 8 bit, has 0.9996.
NEAR_COPY = 0.995


@dataclass(frozen=True)
class ClassShare:
    """Annotated pixels of a class, their share of all, and the number of slices that show the class."""

    name: str
    pixels: int
    share: float
    slices: int


@dataclass(frozen=True)
class DataReport:
    """Result of the check of a set of labelled slices."""

    n_slices: int  # pairs that could be read
    sizes: Mapping[str, int]  # number of slices by 'WxH' in px
    dtypes: Mapping[str, int]  # number of slices by type
    classes: list[ClassShare]  # empty where the labels are no class numbers
    unannotated: float  # fraction of all pixels that nobody annotated
    errors: list[str] = field(default_factory=list)  # reasons why the set cannot be trained on; empty if it can
    warnings: list[str] = field(default_factory=list)  # what makes the training, or its scores, worse than necessary

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        facts = {"usable": not self.errors, "slices": self.n_slices, **vars(self)}
        del facts["n_slices"]
        return facts | {"classes": [vars(c) for c in self.classes]}


@dataclass(frozen=True)
class _Slice:
    """Facts about a slice that has been read; `counts` are its pixels by label."""

    pair: Pair
    shape: tuple[int, ...]
    dtype: str
    digest: str
    thumbnail: Array
    least: float  # value of the image
    most: float
    counts: NDArray[np.int64]


def check_data(
    images_dir: Path,
    labels_dir: Path,
    *,
    label_map: LabelMap | None = None,
    label_pattern: str = "",
    class_names: Sequence[str] | None = None,
    folds: int = 4,
    guard: int = 1,
    runtime: Runtime | None = None,
) -> DataReport:
    """Read all labelled slices, one at a time, and report every problem.

    Classes get default names, as many as occur, unless named. Every fold is checked; for `folds` and `guard` see
    `tomoseg.segmentation.data.folds.split`, for `label_pattern` `tomoseg.io.pairing.paired`.

    Raises `InputError`: a folder is missing or holds no images, or options are wrong, so that there is nothing to
    report on.
    """
    if problems := problems_with_names(class_names) if class_names else []:
        raise InputError.of(problems)
    found = paired(images_dir, labels_dir, label_map=label_map, class_names=class_names, label_pattern=label_pattern)
    errors, warnings = list(found.problems), [*found.left_out, *found.notes]
    slices, displays, runtime = [], DisplayCheck(), runtime or Runtime()
    blank = []
    for pair in runtime.track(found.pairs, "check-data"):
        try:
            image, labels = load_pair(pair)
            displays.look(pair)
        except InputError as error:
            errors.append(str(error))
            continue
        if is_blank(pair, labels):
            blank.append(pair.name)
        else:
            slices.append(_facts(pair, image, labels))
    warnings += [blank_pages(blank)] if blank else []
    counts = np.array([s.counts for s in slices], np.int64).reshape(-1, 256)
    known = n_classes_of(counts, found.pairs, class_names)
    no_classes = label_problems(counts, known, mapped=label_map is not None)
    names = list(class_names or default_names(known or max(2, 1 + max(present_classes(counts), default=0))))
    errors += no_classes
    if not slices and not errors:
        errors.append("there is no image with labels that can be read")
    errors += _problems_with_types(slices)
    warnings += [*label_doubts(counts, [s.pair.name for s in slices]), *displays.doubts()]
    shares = [] if not slices or (no_classes and len(names) > MOST_IN_TABLE) else _shares(counts, names)
    warnings += _problems_with_shares(shares)
    warnings += _copies(slices, runtime)
    warnings += _problems_with_folds(slices, names if shares else [], folds, guard)
    total = int(counts.sum())
    return DataReport(
        len(slices),
        Counter(f"{s.shape[1]}x{s.shape[0]}" for s in slices),
        Counter(s.dtype for s in slices),
        shares,
        float(counts[:, IGNORE].sum() / total) if total else 0.0,
        errors,
        warnings,
    )


def _facts(pair: Pair, image: Array, labels: NDArray[np.uint8]) -> _Slice:
    """Return what is needed of a slice and its labels."""
    digest = hashlib.sha256(f"{image.shape} {image.dtype} ".encode() + np.ascontiguousarray(image).tobytes())
    counts = np.bincount(labels.ravel(), minlength=256)
    ends = float(image.min()), float(image.max())
    return _Slice(pair, image.shape, str(image.dtype), digest.hexdigest(), thumbnail(image), *ends, counts)


def _problems_with_types(slices: Sequence[_Slice]) -> list[str]:
    dtypes = Counter(s.dtype for s in slices)
    if slices and min(s.least for s in slices) == max(s.most for s in slices):
        return [f"every pixel of the images has the same value, {slices[0].least:g}"]
    if len(dtypes) < 2:
        return []
    usual = dtypes.most_common(1)[0][0]
    others = [s.pair.image.name for s in slices if s.dtype != usual]
    kinds = ", ".join(f"{n} {dtype}" for dtype, n in dtypes.most_common())
    return [f"the images are of several types ({kinds}): save all in one; not {usual} are {few(others)}"]


def _shares(counts: NDArray[np.int64], names: Sequence[str]) -> list[ClassShare]:
    known = max(int(counts[:, :IGNORE].sum()), 1)
    pixels, occurs = counts.sum(axis=0), (counts > 0).sum(axis=0)
    return [ClassShare(name, int(pixels[c]), float(pixels[c] / known), int(occurs[c])) for c, name in enumerate(names)]


def _problems_with_shares(shares: Sequence[ClassShare]) -> Iterator[str]:
    for c, share in enumerate(shares):
        if not share.pixels:
            yield f"class {c} ({share.name}) does not occur: a network will never predict it"
        elif share.share < RARE_SHARE or share.slices < RARE_SLICES:
            yield (
                f"class {c} ({share.name}) is rare: {share.share:.2g} of the annotated pixels, in {share.slices} slices"
            )


def _copies(slices: Sequence[_Slice], runtime: Runtime) -> list[str]:
    """Report images that are identical, or identical except for brightness and contrast."""
    of_digest = defaultdict(list)
    for s in slices:
        of_digest[s.digest].append(s)
    found = []
    for same in (group for group in of_digest.values() if len(group) > 1):
        differ = any((s.counts != same[0].counts).any() for s in same)
        found.append(
            f"{len(same)} images are identical: {few(s.pair.name for s in same)}"
            + ("; their labels differ" if differ else "")
        )
    singles = [group[0] for group in of_digest.values()]
    near = list(_near_copies(singles, runtime))
    if near:
        names = (f"{a} and {b}" for a, b in near)
        found.append(
            f"{len(near)} pairs of images are nearly identical, as copies with another brightness are: {few(names)}"
        )
    return found


def _near_copies(slices: Sequence[_Slice], runtime: Runtime) -> Iterator[tuple[str, str]]:
    """Compare each image, pixel by pixel, with the most similar one before it."""
    thumbnails = np.array([s.thumbnail for s in slices])
    for i in runtime.track(range(1, len(slices)), "check-data: copies"):
        alike = thumbnails[:i] @ thumbnails[i]
        j = int(alike.argmax())
        if alike[j] > ALIKE and slices[i].shape == slices[j].shape:
            a, b = (read_slice(slices[k].pair.image).astype(np.float64).ravel() for k in (i, j))
            a, b = a - a.mean(), b - b.mean()
            if a @ b > NEAR_COPY * np.sqrt((a @ a) * (b @ b)):
                yield slices[j].pair.name, slices[i].pair.name


def _problems_with_folds(slices: Sequence[_Slice], names: Sequence[str], folds: int, guard: int) -> Iterator[str]:
    """Check every split that training may use: whether it leaks, and whether each part has every class."""
    thumbnails, slice_names = [s.thumbnail for s in slices], [s.pair.name for s in slices]
    total = np.sum([s.counts for s in slices], axis=0)
    for fold in range(folds if folds > 1 and slices else 0):
        parts = split(slice_names, folds, fold, guard)
        if not parts.validation:
            yield f"fold {fold} of {folds}: too few slices to validate on any"
            continue
        if leak := leak_warning(slice_names, thumbnails, parts):
            yield f"fold {fold} of {folds}: {leak}"
        for what, part in (("training", parts.training), ("validation", parts.validation)):
            counts = np.sum([slices[i].counts for i in part], axis=0)
            absent = [name for c, name in enumerate(names) if total[c] and not counts[c]]
            if absent:
                yield f"fold {fold} of {folds}: no {what} slice holds {few(absent)}"
