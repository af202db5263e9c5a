"""Tilt angles in degrees from text files: one per line (.rawtlt, .tlt), CSV, SerialEM .mdoc."""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tomoseg.errors import InputError, shown
from tomoseg.io.limits import read_text
from tomoseg.io.mdoc import read_mdoc
from tomoseg.io.regular import status_of
from tomoseg.io.series import Angles

# More than any series needs; a larger file is something else, given by mistake.
_MAX_BYTES = 1_000_000
_RADIANS = re.compile(r"(?<![a-z])rad(ian)?s?(?![a-z])", re.IGNORECASE)
_ANGLE_COLUMN = re.compile(r"angle|tilt|theta", re.IGNORECASE)


def angles_beside(raw: Path) -> Path | None:
    """Return the .rawtlt or .tlt of the same name as a raw series, if there is one."""
    return next((p for p in (raw.with_suffix(".rawtlt"), raw.with_suffix(".tlt")) if status_of(p)), None)


def read_angles(path: Path | str) -> Angles:
    """Read tilt angles in degrees, in the order of the images.

    One number per line (blank lines and lines that start with # are skipped), or a CSV file (comma, semicolon or tab)
    with a column named like angle, tilt or theta, or with a single column; a column whose name says radians ("theta
    (rad)") is converted. An .mdoc file gives its TiltAngle entries. Returns a float64 array, shape (n,), degrees.
    Raises `InputError` if the file is missing, empty, has a line that is not a number, NaN or infinity, or angles
    outside -180 to 180 degrees; the message names file and line.
    """
    path = Path(path)
    if path.suffix.lower() == ".mdoc":
        angles = read_mdoc(path).angles_deg()
        return checked(angles, [f"[ZValue = {i}]" for i in range(len(angles))], path)
    lines = [(i, line.strip()) for i, line in enumerate(read_text(path, _MAX_BYTES, "angle file").splitlines(), 1)]
    lines = [(i, line) for i, line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path} is empty: it should hold one tilt angle in degrees per line")
    is_csv = _is_csv(path, lines)
    values = list(_csv_values(path, lines)) if is_csv else [(i, _number(path, i, line)) for i, line in lines]
    return checked(np.array([value for _, value in values]), [f"line {i}" for i, _ in values], path)


def checked(angles_deg: Angles, places: Sequence[str], path: Path) -> Angles:
    """Return `angles_deg` if all are finite and between -180 and 180; else raise InputError naming the place."""
    for angle, place in zip(angles_deg.tolist(), places, strict=True):
        if not math.isfinite(angle):
            raise InputError(f"{path}, {place}: the tilt angle is {angle}, not a finite number")
        if abs(angle) > 180.0:
            raise InputError(f"{path}, {place}: a tilt angle of {angle:g} is outside -180 to 180 degrees")
    return angles_deg


def _is_csv(path: Path, lines: list[tuple[int, str]]) -> bool:
    # A number with a decimal comma in a plain file must not pass for two columns.
    if path.suffix.lower() in {".csv", ".tsv"}:
        return True
    return path.suffix.lower() not in {".rawtlt", ".tlt"} and any(sign in lines[0][1] for sign in ";\t")


def _number(path: Path, line: int, text: str) -> float:
    try:
        if "_" in text:  # Python's own digit separator, which is a slip in a data file
            raise ValueError
        return float(text)
    except ValueError as error:
        hint = "; use a point for decimals" if re.fullmatch(r"[-+\d]+,\d+", text) else ""
        raise InputError(
            f"{path}, line {line}: '{shown(text)}' is not a number; give one tilt angle in degrees per line{hint}"
        ) from error


def _csv_values(path: Path, lines: list[tuple[int, str]]) -> Iterator[tuple[int, float]]:
    delimiter = next((sign for sign in ";\t," if sign in lines[0][1]), ",")
    try:
        rows = [(i, next(csv.reader([line], delimiter=delimiter))) for i, line in lines]
    except csv.Error as error:  # an endless field
        raise InputError(f"{path} cannot be read as CSV: {error}") from error
    first = [cell.strip() for cell in rows[0][1]]
    header = [] if is_number(first[0]) else first
    column = _column(path, rows[0][0], header, len(first))
    factor = 180.0 / math.pi if header and _RADIANS.search(header[column]) else 1.0
    if header:
        rows = rows[1:]
    if not rows:
        raise InputError(f"{path} has a header line but no tilt angles")
    for i, row in rows:
        if column >= len(row):
            raise InputError(
                f"{path}, line {i}: the line has {len(row)} columns, but the angle should be in column {column + 1}"
            )
        yield i, factor * _number(path, i, row[column].strip())


def _column(path: Path, line: int, header: list[str], n_columns: int) -> int:
    """Return the index of the column that holds the angles."""
    if n_columns == 1:
        return 0
    found = [i for i, name in enumerate(header) if _ANGLE_COLUMN.search(name)]
    if len(found) == 1:
        return found[0]
    have = (
        f"the columns are {shown(', '.join(header), 200)}"
        if header
        else f"there are {n_columns} columns and no header line"
    )
    raise InputError(
        f"{path}, line {line}: it is not clear which column holds the tilt angles ({have}); "
        "name one column 'angle_deg', or leave only that column"
    )


def is_number(text: str) -> bool:
    """Tell whether a word is a number, such as 1, -2.5e3 or nan."""
    try:
        float(text)
    except ValueError:
        return False
    return True
