"""Tilt angles in degrees from text files (.rawtlt, .tlt, lists, tables, CSV, AreTomo's .aln) and SerialEM's .mdoc."""

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tomoseg.errors import InputError, shown
from tomoseg.io.aretomo import read_alignment
from tomoseg.io.limits import read_text
from tomoseg.io.mdoc import read_mdoc
from tomoseg.io.series import Angles

# More than any series needs; a larger file is something else, given by mistake.
_MAX_BYTES = 1_000_000
MOST_ANGLES = 100_000  # of a range
_RADIANS = re.compile(r"(?<![a-z])rad(ian)?s?(?![a-z])", re.IGNORECASE)
_ANGLE_COLUMN = re.compile(r"angle|tilt|theta", re.IGNORECASE)
_COMMENT = re.compile(r"\s*(#|%|//).*")
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+")
_WHOLE = re.compile(r"[-+]?\d+")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*:\s*({_NUMBER})\s*:\s*({_NUMBER})\s*")


@dataclass(frozen=True)
class _Line:
    """A line of a file, and its words."""

    number: int
    words: list[str]


def read_angles(path: Path | str) -> Angles:
    """Read tilt angles in degrees, in the order of the images.

    One number per line, all on one line, or a table whose columns are separated by blanks, commas, semicolons or tabs.
    Of a table the column is taken whose header is like angle, tilt or theta or, where there is no header, the only one
    that can hold angles: not a running number, not constant, and with negative numbers if that decides. A column whose
    name says radians ("theta (rad)") is converted. Comments begin with #, % or //; decimal commas are understood where
    they are not the separators. AreTomo's .aln gives its TILT column, with the dark images that it lists; an .mdoc
    gives its TiltAngle entries. UTF-8 or UTF-16.

    Returns a float64 array, shape (n,), degrees. Raises `InputError` if the file is missing, empty, has something that
    is not a number, NaN or infinity, or angles outside -180 to 180 degrees; the message names file and line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".mdoc":
        mdoc = read_mdoc(path)
        return checked(mdoc.angles_deg(), [f"[ZValue = {number}]" for number in mdoc.numbers], path)
    if suffix == ".aln":
        angles = read_alignment(path).all_angles_deg()
        return checked(angles, [f"image {i + 1}" for i in range(len(angles))], path)
    lines = _lines(path)
    values = _values(path, lines) if lines else []
    if not values:
        raise InputError(f"{path} holds no number: it should hold one tilt angle in degrees per line")
    return checked(np.array([value for _, value in values]), [f"line {i}" for i, _ in values], path)


def angles_of_range(text: str) -> Angles | None:
    """Return the angles of a range start:stop:step in degrees, stop included: (n,) float64; None if it is none.

    >>> angles_of_range("-4:4:2")
    array([-4., -2.,  0.,  2.,  4.])

    Raises `InputError` if the step does not lead from start to stop, or angles are outside -180 to 180 degrees.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    start, stop, step = (float(number) for number in match.groups())
    steps = (stop - start) / step if step else math.nan
    if not 0 <= steps < MOST_ANGLES or abs(steps - round(steps)) > 1e-6 * max(1, steps):
        raise InputError(
            f"the tilt angles {text} lead nowhere: steps of {step:g} degrees from {start:g} do not end at {stop:g}"
        )
    if max(abs(start), abs(stop)) > 180:
        raise InputError(f"the tilt angles {text} are not all between -180 and 180 degrees")
    return start + step * np.arange(round(steps) + 1, dtype=np.float64)


def checked(angles_deg: Angles, places: Sequence[str], path: Path) -> Angles:
    """Return `angles_deg` if all are finite and between -180 and 180; else raise InputError naming the place."""
    for angle, place in zip(angles_deg.tolist(), places, strict=True):
        if not math.isfinite(angle):
            raise InputError(f"{path}, {place}: the tilt angle is {angle}, not a finite number")
        if abs(angle) > 180.0:
            raise InputError(f"{path}, {place}: a tilt angle of {angle:g} is outside -180 to 180 degrees")
    return angles_deg


def is_number(text: str) -> bool:
    """Tell whether a word is a number, such as 1, -2.5e3 or nan."""
    try:
        float(text)
    except ValueError:
        return False
    return True


# --- the words of a file ---


def _lines(path: Path) -> list[_Line]:
    """Return the lines that hold something, cut into words."""
    numbered = enumerate(read_text(path, _MAX_BYTES, "angle file").splitlines(), 1)
    texts = [(i, text) for i, line in numbered if (text := _COMMENT.sub("", line).strip())]
    if not texts:
        return []
    delimiter = _delimiter(path, [text for _, text in texts])
    if delimiter is None:
        return _with_points([_Line(i, text.split()) for i, text in texts])
    try:
        lines = [_Line(i, [cell.strip() for cell in next(csv.reader([t], delimiter=delimiter))]) for i, t in texts]
    except csv.Error as error:  # an endless field
        raise InputError(f"{path} cannot be read as CSV: {error}") from error
    return lines if delimiter == "," else _with_points(lines)


def _delimiter(path: Path, lines: Sequence[str]) -> str | None:
    """Return what separates columns: a sign, or None for blanks."""
    first = lines[0]
    found = next((sign for sign in ";\t" if sign in first), None)
    if found is not None or "," not in first:
        return found
    # A comma separates columns where there are several, or in CSV; else it may be a decimal comma.
    words = [word for line in lines for word in line.split()]
    decimal = all(_DECIMAL_COMMA.fullmatch(word) or _WHOLE.fullmatch(word) for word in words)
    if path.suffix.lower() in {".csv", ".tsv"} or not decimal:
        return ","
    behind = [int(word.split(",")[1]) for word in words if "," in word]
    # -60,1 and -57,2 ... are angles and running numbers.
    return "," if len(behind) > 2 and len(behind) == len(lines) == len(words) and _is_count(behind) else None


def _with_points(lines: list[_Line]) -> list[_Line]:
    """Turn decimal commas into points, if all that is not whole has one."""
    words = [word for line in lines for word in line.words]
    with_comma = [word for word in words if _DECIMAL_COMMA.fullmatch(word)]
    if not with_comma or any("." in word for word in words):
        return lines
    return [
        _Line(line.number, [w.replace(",", ".") if _DECIMAL_COMMA.fullmatch(w) else w for w in line.words])
        for line in lines
    ]


# --- the column of angles ---


def _values(path: Path, lines: list[_Line]) -> list[tuple[int, float]]:
    """Return the angles, each with its line."""
    header = [] if is_number(lines[0].words[0]) or len(lines) == 1 else lines[0].words
    if len(lines) == 1 and len(lines[0].words) == 1 and _ANGLE_COLUMN.search(lines[0].words[0]):
        raise InputError(f"{path} has a header line but no tilt angles")
    rows = lines[1:] if header else lines
    if len(rows) == 1 and len(rows[0].words) > 1 and not header:  # all on one line
        return [(rows[0].number, _number(path, rows[0].number, word)) for word in rows[0].words if word]
    if header and len(header) == 1 and not _ANGLE_COLUMN.search(header[0]) and len(rows[0].words) == 1:
        _number(path, lines[0].number, header[0])  # no header, but something that is no number
    column = _column(path, lines[0].number, header, rows)
    factor = 180.0 / math.pi if header and _RADIANS.search(header[column]) else 1.0
    return [(row.number, factor * _number(path, row.number, _cell(path, row, column))) for row in rows]


def _column(path: Path, line: int, header: list[str], rows: list[_Line]) -> int:
    """Return the index of the column that holds the angles."""
    n_columns = len(header or rows[0].words)
    if n_columns == 1:
        uneven = next((row for row in rows if len(row.words) != 1), None)
        if uneven is not None:
            raise InputError(
                f"{path}, line {uneven.number}: '{shown(' '.join(uneven.words), 80)}' is not one number, as the lines "
                "before it are"
            )
        return 0
    if header:
        found = [i for i, name in enumerate(header) if _ANGLE_COLUMN.search(name)]
        have = f"the columns are {shown(', '.join(header), 200)}"
    else:
        found = _angle_like(path, rows, n_columns)
        have = f"there are {n_columns} columns and no header line"
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"{path}, line {line}: it is not clear which column holds the tilt angles ({have}); "
        "name one column 'angle_deg', or leave only that column"
    )


def _angle_like(path: Path, rows: list[_Line], n_columns: int) -> list[int]:
    """Return the columns that may hold tilt angles: other programs add running numbers and doses."""
    table = np.array([[_number(path, r.number, _cell(path, r, k)) for k in range(n_columns)] for r in rows])
    within = [bool(np.isfinite(column).all() and np.abs(column).max() <= 180) for column in table.T]
    varied = [k for k in range(n_columns) if within[k] and np.ptp(table[:, k]) > 0 and not _is_count(table[:, k])]
    negative = [k for k in varied if table[:, k].min() < 0]
    return negative if len(varied) > 1 else varied


def _is_count(values: Iterable[float]) -> bool:
    """Return whether numbers are 0, 1, 2 ... or 1, 2, 3 ... in any order."""
    ordered = np.sort(np.array(list(values), float))
    return any(np.array_equal(ordered, np.arange(first, first + len(ordered))) for first in (0, 1))


def _cell(path: Path, row: _Line, column: int) -> str:
    if column >= len(row.words):
        raise InputError(
            f"{path}, line {row.number}: the line has {len(row.words)} columns, but the angle should be in column "
            f"{column + 1}"
        )
    return row.words[column]


def _number(path: Path, line: int, text: str) -> float:
    try:
        if "_" in text:  # Python's own digit separator, which is a slip in a data file
            raise ValueError
        return float(text)
    except ValueError as error:
        raise InputError(
            f"{path}, line {line}: '{shown(text)}' is not a number; give one tilt angle in degrees per line"
        ) from error
