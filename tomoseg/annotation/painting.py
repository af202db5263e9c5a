"""Painting of slices one after the other, in a folder beside the project until they are imported."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.annotation.paint_folder import read_about
from tomoseg.arrays import Array
from tomoseg.io.atomic import atomic_path
from tomoseg.io.digest import sha256
from tomoseg.io.slices import IGNORE, read_slice

ENDING = ".paint"


def folder_for(project: Path) -> Path:
    """Return the folder beside a project that holds slices while they are painted."""
    return project.with_name(project.stem + ENDING)


class Painting:
    """The exported slices of a folder, to be painted: see `tomoseg.report.review_viewer.open_painting`."""

    def __init__(self, folder: Path) -> None:
        about = read_about(folder)
        self.names: Sequence[str] = [entry["name"] for entry in about["slices"]]
        self.class_names, self.class_colors = list(about["class_names"]), list(about["class_colors"])
        self._folder, self._digests = folder, {e["name"]: e["labels_sha256"] for e in about["slices"]}

    def load(self, index: int) -> tuple[Array, NDArray[np.int32]]:
        """Return an image (h, w) and its labels: 0 where nobody painted, else 1 more than the class."""
        name = f"{self.names[index]}.tif"
        labels = read_slice(self._folder / "labels" / name).astype(np.int32)
        return read_slice(self._folder / "images" / name), np.where(labels == IGNORE, 0, labels + 1)

    def save(self, index: int, labels: NDArray[np.int32]) -> str:
        """Write labels, and say so; those of no class count as not painted."""
        import tifffile

        known = (labels > 0) & (labels <= len(self.class_names))
        values = np.where(known, labels - 1, IGNORE).astype(np.uint8)
        with atomic_path(self._folder / "labels" / f"{self.names[index]}.tif") as part:
            tifffile.imwrite(part, values)
        return f"saved: {100 * float(known.mean()):.3g} % painted"

    def any_painted(self) -> bool:
        """Tell whether any labels were changed since they were exported."""
        return any(sha256(self._folder / "labels" / f"{name}.tif") != self._digests[name] for name in self.names)
