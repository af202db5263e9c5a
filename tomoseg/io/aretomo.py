"""AreTomo's .aln: the alignment of a tilt series, a line for each image that was kept, as AreTomo 1 to 3 write it.

    # AreTomo Alignment / Priims bprmMn
    # RawSize = 1024 1024 41
    # NumPatches = 0
    # DarkFrame =    0    0  -60.00
    # SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT
        1    -2.9340    1.00000      3.204     -1.711     1.00     1.00     1.00     0.00    -57.00

`DarkFrame` lists images that were left out: their place by tilt angle, their section in the raw series, their angle.
The image is turned by ROT about its centre after (TX, TY) was taken from its coordinates; the same alignment in IMOD's
terms is the matrix ((cos, -sin), (sin, cos)) of ROT and the shift -A (TX, TY).
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import InputError, shown
from tomoseg.io.limits import read_text

_MAX_BYTES = 16 << 20  # local alignments have some hundred lines for each image
_HEADER = re.compile(r"#\s*(RawSize|DarkFrame)\s*=\s*(.*)")
_COLUMNS = ("section", "rotation", "magnification", "tx", "ty", "mean", "fit", "scale", "base", "tilt")


@dataclass(frozen=True)
class AreTomoAlignment:
    """An alignment found by AreTomo: one row for each image that was kept, in the order of the file.

    Attributes
    ----------
    path : the file
    sections : (n,) i8, as the file numbers them
    rotation_deg, tilt_deg : (n,) f8
    shifts_px : (n, 2) f8, (dy, dx) to add to a raw image's coordinates
    dark : sections and tilts in degrees of the images that were left out
    image_shape : (height, width) of the raw images in px, or None
    has_local : whether there is a local alignment, too
    """

    path: Path
    sections: NDArray[np.int64]
    rotation_deg: NDArray[np.float64]
    tilt_deg: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    dark: tuple[tuple[int, float], ...]
    image_shape: tuple[int, int] | None
    has_local: bool

    def all_angles_deg(self) -> NDArray[np.float64]:
        """Return the tilts of all images of the raw series, in its order, those that were left out among them.

        Sections are counted from 0 or from 1. Where they do not tell the order, the lines do.
        """
        sections = [*self.sections.tolist(), *(section for section, _ in self.dark)]
        tilts = np.array([*self.tilt_deg.tolist(), *(tilt for _, tilt in self.dark)])
        if len(set(sections)) == len(sections):
            return tilts[np.argsort(sections)]
        return self.tilt_deg


def read_alignment(path: Path) -> AreTomoAlignment:
    """Read the global alignment of an .aln.

    Raises `InputError` if the file is missing, holds no alignment, or a line is malformed; the message names the line.
    """
    rows: list[list[float]] = []
    dark: list[tuple[int, float]] = []
    size: tuple[int, ...] = ()
    has_local = False
    for number, text in enumerate(read_text(path, _MAX_BYTES, "alignment file").splitlines(), 1):
        line = text.strip()
        header = _HEADER.match(line)
        if line.startswith("# Local"):
            has_local = True
            break
        if header is not None:
            values = _numbers(path, number, header[2], 1)
            if header[1] == "DarkFrame" and len(values) >= 3:
                dark.append((int(values[1]), values[2]))
            elif header[1] == "RawSize" and len(values) == 3:
                size = tuple(int(v) for v in values)
        elif line and not line.startswith("#"):
            rows.append(_numbers(path, number, line, len(_COLUMNS)))
            if len(rows[-1]) != len(rows[0]):
                raise InputError(
                    f"{path}, line {number}: it holds {len(rows[-1])} numbers, and the lines before it {len(rows[0])}"
                )
    if not rows:
        raise InputError(f"{path} holds no alignment: an .aln of AreTomo has one line of ten numbers for each image")
    table = dict(zip(_COLUMNS, np.array(rows)[:, : len(_COLUMNS)].T, strict=True))
    return AreTomoAlignment(
        path=path,
        sections=table["section"].astype(np.int64),
        rotation_deg=table["rotation"],
        tilt_deg=table["tilt"],
        shifts_px=-np.column_stack([table["ty"], table["tx"]]),
        dark=tuple(dark),
        image_shape=(size[1], size[0]) if size else None,
        has_local=has_local,
    )


def _numbers(path: Path, line: int, text: str, at_least: int) -> list[float]:
    try:
        values = [float(word) for word in text.split() if "_" not in word]
    except ValueError:
        values = []
    if len(values) < at_least or not all(math.isfinite(v) and abs(v) < 1e9 for v in values):
        raise InputError(f"{path}, line {line}: '{shown(text, 80)}' should hold {at_least} numbers or more")
    return values
