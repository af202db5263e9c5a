"""Corrections by hand: labels that were painted or deleted are measured again, and kept with their origin."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tomoseg.arrays import Array
from tomoseg.micrographs.folder import RECORDS, Task
from tomoseg.micrographs.parameters import MicrographParameters
from tomoseg.micrographs.records import Record
from tomoseg.micrographs.results import ADDED, CHANGED, DELETED, FOUND, LABELS


class Review:
    """Measured images one after the other; what is saved replaces labels, overlay and record.

    Particles that were deleted stay in the table, with their numbers as they were found and the origin 'deleted by
    hand'; they do not count. Attributes: `names` of the images, `records` of all, also of those that were skipped.
    """

    def __init__(self, folder: Path, records: Sequence[Record], params: MicrographParameters) -> None:
        self.folder, self.records, self.params = folder, list(records), params
        self._shown = [k for k, record in enumerate(records) if not record.skipped]
        self.names: Sequence[str] = [records[k].name for k in self._shown]

    def load(self, index: int) -> tuple[Array, NDArray[np.int32]]:
        """Return an image (y, x) and the labels of its particles."""
        from tomoseg.io.micrographs import read_micrograph
        from tomoseg.micrographs.pixels import grey_and_overlay

        record = self.records[self._shown[index]]
        grey, _ = grey_and_overlay(read_micrograph(Path(record.row["path"])).image)
        return grey, self._labels(record)

    def save(self, index: int, labels: NDArray[np.int32]) -> str:
        """Measure corrected labels, keep them, and say how many particles were added, changed and deleted."""
        from tomoseg.io.micrographs import read_micrograph
        from tomoseg.micrographs.api import with_labels
        from tomoseg.micrographs.results import row_of, write_pictures

        k = self._shown[index]
        record = self.records[k]
        before = self._labels(record)
        labels = whole_parts(labels)
        image = read_micrograph(Path(record.row["path"]))
        found = with_labels(image.image, labels, self.params, image.pixel_size.nm, record.row)
        origins = origins_of(found.labels, before, self._origins(record))
        added = np.array([origin == ADDED for origin in origins], bool)
        task = Task(Path(record.row["path"]), record.name, record.row["sample"])
        where = {name: record.row[name] for name in ("image", "sample", "path")}
        again = row_of(
            found,
            record.name,
            record.fingerprint,
            where,
            [record.row["warnings"]] if record.row["warnings"] else [],
            origins,
        )
        gone = _deleted(record, before, found.labels)
        particles = {name: [*values, *gone[name]] for name, values in again.particles.items()}
        self.records[k] = replace(again, particles=particles, reviewed=True)
        write_pictures(found, partial(task.in_folder, self.folder), added)
        self.records[k].write(task.in_folder(self.folder, RECORDS, ".json"))
        counts = [
            (added.sum(), "added"),
            (sum(o == CHANGED for o in origins), "changed"),
            (len(gone["label"]), "deleted"),
        ]
        return "saved: " + ", ".join(f"{n} {what}" for n, what in counts)

    def _labels(self, record: Record) -> NDArray[np.int32]:
        with Image.open(self.folder / LABELS / f"{record.name}.png") as picture:
            return np.array(picture, np.int32)

    @staticmethod
    def _origins(record: Record) -> dict[int, str]:
        pairs = zip(record.particles["label"], record.particles["origin"], strict=True)
        return {label: origin for label, origin in pairs if origin != DELETED}


def whole_parts(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return labels from 1 in which each connected part has its own, in the order of the labels painted."""
    out, n = np.zeros(labels.shape, np.int32), 0
    for label, box in enumerate(ndimage.find_objects(np.maximum(labels, 0)), 1):
        if box is None:
            continue
        parts, n_parts = ndimage.label(labels[box] == label, np.ones((3, 3)))
        out[box][parts > 0] = parts[parts > 0] + n
        n += n_parts
    return out


def origins_of(labels: NDArray[np.int32], before: NDArray[np.int32], known: dict[int, str]) -> list[str]:
    """Return for each label 1..n whether it is as found, was changed, or was added where none was."""
    origins = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[box] == label
        old = before[box][inside]
        main = int(np.bincount(old).argmax()) if len(old) else 0
        if main == 0:
            origins.append(ADDED)
        elif (old == main).all() and (before == main).sum() == len(old):
            origins.append(known.get(main, FOUND))
        else:
            origins.append(CHANGED if known.get(main, FOUND) != ADDED else ADDED)
    return origins


def _deleted(record: Record, before: NDArray[np.int32], labels: NDArray[np.int32]) -> dict[str, list[object]]:
    """Return the columns of the particles that are gone, and of those that were deleted earlier."""
    left = {int(label) for label in np.unique(before[labels > 0])}
    gone = [
        k
        for k, (label, origin) in enumerate(zip(record.particles["label"], record.particles["origin"], strict=True))
        if origin == DELETED or (origin != ADDED and label not in left)
    ]
    columns = {name: [values[k] for k in gone] for name, values in record.particles.items()}
    columns["origin"] = [DELETED] * len(gone)
    return columns
