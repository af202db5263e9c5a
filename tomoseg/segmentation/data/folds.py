"""Splits of labelled slices and images into training and validation that do not leak.

Neighbouring slices of a reconstruction look alike: a network trained on one of them has nearly seen the other, and
validation on it measures memory. Slices are therefore split in blocks of neighbours, and slices next to a validation
block are used for neither training nor validation. Single micrographs are no neighbours: they are drawn one by one.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.pairing import page_of

SliceKey = tuple[str, int]
THUMBNAIL = 32  # px
ALIKE = 0.97  # correlation of thumbnails; neighbouring slices of the gamma-alumina set have 0.994 to 0.998


@dataclass(frozen=True)
class Split:
    """Indices of the slices for training, for validation, and of those too close to validation to train on."""

    training: list[int]
    validation: list[int]
    unused: list[int]


def slice_keys(names: Sequence[str]) -> list[SliceKey]:
    """Return the series of each name and the slice number in it.

    Names that differ in digits only are compared. The number with the most values among them is the slice number; the
    text before it names the series; the text after it (for the left or right half, say) distinguishes images of one
    slice. `al_10012_00` is slice 10012 of series 'al_'. A name without digits is a series of its own. The pages
    of a stack are a series, whatever numbers its name holds.
    """
    return [(series, number) for series, number, _ in slice_parts(names)]


def slice_parts(names: Sequence[str]) -> list[tuple[str, int, str]]:
    """Return the text before the slice number in each name, the number, and the text after it; see `slice_keys`."""
    families: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if page_of(name) is None:
            families[re.sub(r"\d+", "#", name)].append(name)
    slots = {shape: _slice_slot(members) for shape, members in families.items()}
    keys = []
    for name in names:
        if (page := page_of(name)) is not None:
            keys.append((*page, ""))
            continue
        numbers = list(re.finditer(r"\d+", name))
        if not numbers:
            keys.append((name, 0, ""))
            continue
        number = numbers[slots[re.sub(r"\d+", "#", name)]]
        keys.append((name[: number.start()], int(number.group()), name[number.end() :]))
    return keys


def _slice_slot(names: Sequence[str]) -> int:
    """Return the position of the number with the most values in names of one shape; the first of equals."""
    values = list(zip(*(re.findall(r"\d+", name) for name in names), strict=True))
    if not values:
        return 0
    return max(range(len(values)), key=lambda slot: (len(set(values[slot])), -slot))


def split(
    names: Sequence[str], folds: int = 4, fold: int = 0, guard: int = 1, group_of: Callable[[str], str] | None = None
) -> Split:
    """Split slices into training and validation by blocks of neighbours.

    Raises `InputError`: `fold` is not one of `folds`.

    Parameters
    ----------
    names : file names without suffix
    folds : number of blocks of about equal size; 0 or 1 for no validation
    fold : the block to validate on, from 0
    guard : training slices whose number is within `guard` of a validation slice of the same series are not used
    group_of : returns the group of a slice by its name, where numbers do not tell neighbours; groups stay together,
        without a guard
    """
    if folds <= 1:
        return Split(list(range(len(names))), [], [])
    if not 0 <= fold < folds:
        raise InputError(f"fold {fold} does not exist: with {folds} folds it is 0 to {folds - 1}")
    keys = slice_keys(names) if group_of is None else [(group_of(name), 0) for name in names]
    of_key = _fold_of_each_key(keys, folds)
    validation = [i for i, key in enumerate(keys) if of_key[key] == fold]
    reserved = {keys[i] for i in validation}
    near = {(series, number + step) for series, number in reserved for step in range(-guard, guard + 1)}
    training = [i for i, key in enumerate(keys) if key not in near]
    unused = [i for i, key in enumerate(keys) if key in near and key not in reserved]
    if not training or not validation:
        return Split(list(range(len(names))), [], [])
    return Split(training, validation, unused)


def split_at_random(
    names: Sequence[str], fraction: float, seed: int = 0, group_of: Callable[[str], str] | None = None
) -> Split:
    """Split images that are no neighbours of each other, whatever the numbers in their names, at random.

    Validation gets the number of images nearest to that fraction, at least one; at least one is trained on. `group_of`
    is that of `split`; a group goes to one part as a whole, so that the fraction is only nearly met.

    Raises `InputError`: there are fewer than two images, or all are of one group.
    """
    group = [name if group_of is None else group_of(name) for name in names]
    different = sorted(set(group))
    if len(different) < 2:
        kind = "image" if group_of is None else "group of images"
        raise InputError(f"there is {len(different)} {kind}: keeping some for validation needs at least 2")
    wanted = max(1, round(fraction * len(names)))
    drawn: list[str] = []
    for i in np.random.default_rng(seed).permutation(len(different))[:-1]:
        if sum(group.count(one) for one in drawn) < wanted:
            drawn.append(different[i])
    kept = set(drawn)
    parts = [[i for i, one in enumerate(group) if (one in kept) == validation] for validation in (False, True)]
    return Split(parts[0], parts[1], [])


def _fold_of_each_key(keys: Sequence[SliceKey], folds: int) -> dict[SliceKey, int]:
    """Cut the slices, in order of series and number, into consecutive folds holding about equally many images."""
    order = sorted(set(keys))
    folds = min(folds, len(order))
    fold_of, before = {}, 0
    for key in order:
        count = list(keys).count(key)
        fold_of[key] = min(int(folds * (before + count / 2) / len(keys)), folds - 1)
        before += count
    return fold_of


def lookalikes(thumbnails: Sequence[Array], parts: Split) -> list[tuple[int, int]]:
    """Return (training, validation) indices of slices that look much the same, whatever their names.

    Each validation slice is compared with all training slices. Where the thumbnail of the most similar one correlates
    by more than `ALIKE`, the pair is returned.
    """
    if not parts.validation:
        return []
    training = np.stack([thumbnails[i] for i in parts.training])
    alike = [(training @ thumbnails[j], j) for j in parts.validation]
    return [(parts.training[int(with_j.argmax())], j) for with_j, j in alike if with_j.max() > ALIKE]


def leak_warning(names: Sequence[str], thumbnails: Sequence[Array], parts: Split) -> str:
    """Say that validation slices look like training slices, naming one pair of them; empty if none does."""
    alike = lookalikes(thumbnails, parts)
    if not alike:
        return ""
    i, j = alike[0]
    return (
        f"{len(alike)} of {len(parts.validation)} validation slices look much like a training slice (such as "
        f"{names[j]} like {names[i]}), so scores will be too good: name neighbouring slices by neighbouring numbers, "
        "or raise the guard"
    )


def thumbnail(image: Array) -> Array:
    """Return block means of the square root of an image of any size as a vector of mean 0 and length 1."""
    root = np.sqrt(np.asarray(image, float) - float(image.min()))
    starts = [np.unique(np.arange(THUMBNAIL) * n // THUMBNAIL) for n in root.shape]
    sums = np.add.reduceat(np.add.reduceat(root, starts[0], axis=0), starts[1], axis=1)
    heights, widths = (np.diff([*edges, n]) for edges, n in zip(starts, root.shape, strict=True))
    small = np.zeros((THUMBNAIL, THUMBNAIL))
    small[: sums.shape[0], : sums.shape[1]] = sums / np.outer(heights, widths)
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return np.asarray(small.ravel() / length if length > 0 else small.ravel())
