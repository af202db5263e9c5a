"""What is kept of each measured image: a row, its particles, and where both come from, as JSON beside its pictures."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import plain_json
from tomoseg.io.atomic import atomic_path

VERSION = 2  # of the method: a higher one measures all images again


@dataclass(frozen=True)
class Record:
    """One image: `row` of the table of images, `particles` of the table of particles, `fingerprint` of their making.

    `skipped` says why an image was not measured, '' if it was. `reviewed` are results that were corrected by hand.
    """

    name: str
    fingerprint: str
    row: dict[str, Any] = field(default_factory=dict)
    particles: dict[str, list[Any]] = field(default_factory=dict)
    skipped: str = ""
    reviewed: bool = False

    def write(self, path: Path) -> None:
        """Write the record; a reader sees the old one or this one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(vars(self), ensure_ascii=False, allow_nan=True), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Record | None":
        """Return the record of a file; None where there is none that can be read."""
        try:
            content = plain_json.load(path.read_text(encoding="utf-8"))
            return cls(**content)
        except (OSError, ValueError, TypeError):
            return None


def fingerprint(data: bytes, parameters: dict[str, Any], version: str) -> str:
    """Return the digest of an image file and of all that its results depend on."""
    digest = hashlib.sha256(data)
    digest.update(json.dumps([VERSION, version, parameters], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def columns_of(table: NDArray[np.void]) -> dict[str, list[Any]]:
    """Return the columns of a structured array as lists."""
    return {name: table[name].tolist() for name in table.dtype.names or ()}
