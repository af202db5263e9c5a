"""Alignments exchanged with other programs and projects: IMOD's .xf, AreTomo's .aln, tables of shifts, and their fit.

A line of an .xf file is A11 A12 A21 A22 DX DY, which moves (X, Y) of the raw image to

    X' = A11 (X - Xci) + A12 (Y - Yci) + DX + Xco
    Y' = A21 (X - Xci) + A22 (Y - Yci) + DY + Yco

with (Xci, Yci) and (Xco, Yco) the centres of the image before and after (manual page of IMOD's xf2rotmagstr); they lie
between pixels where their number is even, as here. Y counts the rows as they lie in an MRC file, the first one shown at
the bottom, and tomoseg keeps the rows in that order, so no sign changes. TIFF files, whose first row is the top one,
are turned upside down when IMOD reads them: then Y runs against the rows (`rows_up`).

With a shift (dy, dx), the axis' angle phi and its offset o as `tomoseg.alignment.images.warp` defines them, A is the
rotation ((cos, -sin), (sin, cos)) of (x, y) and (DX, DY) = A (dx, dy) - (o, 0). The axis is vertical in the middle of
the frame afterwards.
"""

import csv
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import FloatArray
from tomoseg.errors import InputError, shown
from tomoseg.io.angles import is_number, read_angles
from tomoseg.io.aretomo import AreTomoAlignment, read_alignment
from tomoseg.io.companions import angles_beside
from tomoseg.io.limits import read_text

_MAX_BYTES = 4_000_000  # more than ten thousand tilts of six numbers
ANGLE_TOLERANCE_DEG = 0.05
# IMOD's tiltalign refines the angles beside an .xf; a larger difference, after a common offset, is another series.
REFINED_DEG = 2.0
# Magnification and rotation of single images are not taken from an .xf: up to this much is left out with a warning.
MOST_STRETCH, MOST_TURN_DEG = 0.02, 1.0
SAME_PIXEL = 0.01  # relative difference below which two pixel sizes are the same


@dataclass(frozen=True)
class ImageCorrections:
    """Image corrections, (n_tilt,) f8 each: what single images need in addition to a shift.

    An image is turned about its centre by `rotation_deg`, in the sense of the tilt axis' angle, and magnified;
    `tilt_error_deg` is to be added to the tilt angles as recorded.
    """

    rotation_deg: NDArray[np.float64]
    magnification: NDArray[np.float64]
    tilt_error_deg: NDArray[np.float64]

    @classmethod
    def none(cls, n_tilt: int) -> "ImageCorrections":
        """Return corrections that change nothing."""
        return cls(np.zeros(n_tilt), np.ones(n_tilt), np.zeros(n_tilt))

    @property
    def columns(self) -> NDArray[np.float64]:
        """Rotation, magnification and tilt error as the columns of an (n_tilt, 3) array."""
        return np.column_stack([self.rotation_deg, self.magnification, self.tilt_error_deg])

    def __str__(self) -> str:
        """Return the size of the corrections in a sentence; '' if all that they do is change all angles alike."""
        found = (
            ("rotation", self.rotation_deg, " degrees"),
            ("magnification", 100 * (self.magnification - 1), " %"),
            ("tilt angle", self.tilt_error_deg, " degrees"),
        )
        said = [
            f"{what} {np.sqrt(np.square(v).mean()):.2f}{unit} rms ({np.abs(v).max():.2f} at most)"
            for what, v, unit in found
            if v.any() and not (what == "tilt angle" and np.ptp(v) == 0)
        ]
        return f"image corrections: {', '.join(said)}" if said else ""


@dataclass(frozen=True)
class GivenAlignment:
    """An alignment that was not found from the images of the series it is applied to.

    Attributes
    ----------
    source : what it comes from, for messages
    shifts_px : (n, 2) f8, (dy, dx) to add to a raw image's coordinates
    angles_deg : (n,) f8 of these shifts, ascending, or None where they have the order of the series
    angles_refined : whether the other program may have refined those angles
    axis_angle_deg, axis_offset_px : float, or None where unknown
    image_shape : (height, width) of the images that the shifts are for, or None: those of the series
    pixel_size_nm : NaN where unknown
    corrections : image corrections, or None where there are none
    notes : what the user should be told
    """

    source: str
    shifts_px: NDArray[np.float64]
    angles_deg: NDArray[np.float64] | None = None
    angles_refined: bool = False
    axis_angle_deg: float | None = None
    axis_offset_px: float | None = None
    image_shape: tuple[int, int] | None = None
    pixel_size_nm: float = math.nan
    corrections: ImageCorrections | None = None
    notes: list[str] = field(default_factory=list)


# --- files of shifts ---


def tilts_beside(path: Path) -> Path | None:
    """Return the .tlt or .rawtlt beside an .xf, which gives the order of its lines."""
    return angles_beside(path) if _is_xf(path) else None


def read_shifts(path: Path | str, *, rows_up: bool = False) -> GivenAlignment:
    """Read shifts from an IMOD .xf, an AreTomo .aln, or a table.

    The columns of a table are separated by commas, semicolons, tabs or blanks. Its header names one column like dy, one
    like dx and optionally one like angle or tilt; without a header there are two columns, dy and dx. Lines that start
    with # are skipped.

    Parameters
    ----------
    path : file of any of these kinds; an .xf and an .aln are recognised by their names
    rows_up : whether IMOD turns the raw file upside down, see the module's text

    Raises
    ------
    InputError
        The file is missing or a line is malformed; the message names the line.
    """
    path = Path(path)
    if path.suffix.lower() == ".aln":
        return _from_aretomo(read_alignment(path))
    lines = [(i, line.strip()) for i, line in enumerate(read_text(path, _MAX_BYTES, "file of shifts").splitlines(), 1)]
    lines = [(i, line) for i, line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path} is empty: it must hold one line for each tilt")
    return _read_xf(path, lines, rows_up=rows_up) if _is_xf(path) else _read_table(path, lines)


def _from_aretomo(aln: AreTomoAlignment) -> GivenAlignment:
    turns = aln.rotation_deg
    apart = float(np.ptp(turns))
    if apart > MOST_TURN_DEG:
        raise InputError(
            f"{aln.path} turns the images by {turns.min():.2f} to {turns.max():.2f} degrees: tomoseg takes shifts and "
            f"one direction of the tilt axis from it, and leaves out rotations of up to {MOST_TURN_DEG:g} degree"
        )
    found = GivenAlignment(
        str(aln.path),
        aln.shifts_px,
        axis_angle_deg=90 - (90 - float(turns.mean())) % 180,
        axis_offset_px=0.0,
        image_shape=aln.image_shape,
    )
    if aln.has_local:
        found.notes.append(f"{aln.path.name} also holds a local alignment, which is left out")
    if aln.dark:
        listed = ", ".join(f"{tilt:g}" for _, tilt in aln.dark)
        found.notes.append(
            f"{aln.path.name} leaves out {len(aln.dark)} images, at {listed} degrees: leave them out at import as well "
            "(--exclude)"
        )
    return replace(_sorted(found, aln.tilt_deg), angles_refined=True)


def _is_xf(path: Path) -> bool:
    return path.suffix.lower() in {".xf", ".prexf", ".prexg", ".tltxf", ".xg"}


def _read_xf(path: Path, lines: list[tuple[int, str]], *, rows_up: bool) -> GivenAlignment:
    rows = [_numbers(path, i, line.split(), 6) for i, line in lines]
    if rows_up:
        rows = [[a, -b, -c, d, x, -y] for a, b, c, d, x, y in rows]
    table = np.array(rows)
    matrices, moves = table[:, :4].reshape(-1, 2, 2), table[:, 4:]
    stretch = np.sqrt(np.abs(np.linalg.det(matrices)))
    turns = np.rad2deg(np.arctan2(matrices[:, 1, 0] - matrices[:, 0, 1], matrices[:, 0, 0] + matrices[:, 1, 1]))
    turn = math.degrees(math.atan2(np.sin(np.deg2rad(turns)).mean(), np.cos(np.deg2rad(turns)).mean()))
    apart = np.abs((turns - turn + 180) % 360 - 180).max()
    if np.linalg.det(matrices).min() <= 0 or np.abs(stretch - 1).max() > MOST_STRETCH or apart > MOST_TURN_DEG:
        raise InputError(
            f"{path} does more than shift and rotate the series: it magnifies images by {stretch.min():.3f} to "
            f"{stretch.max():.3f} and turns them by up to {apart:.2f} degrees against each other. tomoseg takes shifts "
            f"and one direction of the tilt axis from it, and leaves out magnifications of up to {MOST_STRETCH:.0%} "
            f"and rotations of up to {MOST_TURN_DEG:g} degree"
        )
    shifts = np.linalg.solve(matrices, moves[:, :, None])[:, ::-1, 0]  # (dy, dx) with A (dx, dy) = (DX, DY)
    found = GivenAlignment(str(path), np.ascontiguousarray(shifts))
    if np.abs(stretch - 1).max() > 1e-4 or apart > 0.01:
        found.notes.append(
            f"{path.name} also magnifies images by up to {np.abs(stretch - 1).max():.2%} and turns them by up to "
            f"{apart:.2f} degrees against each other; both are left out"
        )
    if np.abs(matrices - np.eye(2)).max() > 1e-6:  # else it only shifts, and does not tell the axis
        angle = 90 - (90 - turn) % 180
        # The axis is along Y either way up; half a turn of the frame is the same alignment.
        found = replace(found, axis_angle_deg=angle, axis_offset_px=0.0)
    beside = tilts_beside(path)
    if beside is None:
        return found
    angles = read_angles(beside)
    _require_as_many(f"{beside} has {len(angles)} angles", len(angles), path.name, len(found.shifts_px))
    return replace(_sorted(found, angles), angles_refined=True)


def _read_table(path: Path, lines: list[tuple[int, str]]) -> GivenAlignment:
    delimiter = next((sign for sign in ";\t," if sign in lines[0][1]), "")
    try:
        rows = [(i, next(csv.reader([line], delimiter=delimiter)) if delimiter else line.split()) for i, line in lines]
    except csv.Error as error:  # an endless field
        raise InputError(f"{path} cannot be read as a table: {error}") from error
    first = [cell.strip().lower() for cell in rows[0][1]]
    if is_number(first[0]):
        pairs = np.array([_numbers(path, i, row, 2, "dy and dx in px") for i, row in rows])
        return GivenAlignment(str(path), pairs)
    columns = [_column(path, first, name) for name in (r"dy|y.?shift|shift.?y", r"dx|x.?shift|shift.?x")]
    angle = next((k for k, name in enumerate(first) if re.search(r"angle|tilt|theta", name)), None)
    wanted = columns if angle is None else [*columns, angle]
    if len(rows) < 2:
        raise InputError(f"{path} holds a header line but no shifts")
    values = np.array([_numbers(path, i, _picked(path, i, row, wanted), len(wanted)) for i, row in rows[1:]])
    found = GivenAlignment(str(path), values[:, :2])
    return found if angle is None else _sorted(found, values[:, 2])


def _column(path: Path, header: list[str], pattern: str) -> int:
    found = [k for k, name in enumerate(header) if re.match(rf"({pattern})(?![a-z])", name)]
    if len(found) != 1:
        raise InputError(
            f"{path}: it is not clear which columns hold the shifts (the columns are {shown(', '.join(header), 200)}); "
            "name them dy_px and dx_px, and a column of tilt angles angle_deg"
        )
    return found[0]


def _picked(path: Path, line: int, row: list[str], columns: list[int]) -> list[str]:
    if len(row) <= max(columns):
        raise InputError(f"{path}, line {line}: {max(columns) + 1} columns are needed, not {len(row)}")
    return [row[k] for k in columns]


def _numbers(path: Path, line: int, cells: list[str], n: int, what: str = "numbers") -> list[float]:
    try:
        values = [float(cell) for cell in cells if "_" not in cell]
    except ValueError:
        values = []
    if len(cells) != n or len(values) != n or not all(map(math.isfinite, values)):
        raise InputError(f"{path}, line {line}: '{shown(' '.join(cells), 80)}' must be {n} {what}")
    return values


def _sorted(found: GivenAlignment, angles_deg: NDArray[np.float64]) -> GivenAlignment:
    """Sort shifts by tilt angle, as the import sorts the images."""
    order = np.argsort(angles_deg, kind="stable")
    return replace(found, shifts_px=found.shifts_px[order], angles_deg=angles_deg[order])


# --- fit to a series ---


def fitted(
    given: GivenAlignment, angles_deg: FloatArray, image_shape: tuple[int, ...], pixel_size_nm: float
) -> GivenAlignment:
    """Convert an alignment to pixels of the series that it is applied to.

    `angles_deg` (n_tilt,) are those of the series, ascending, `image_shape` (height, width) is that of its images, and
    `pixel_size_nm` NaN where unknown.

    Raises
    ------
    InputError
        The alignment is for another number of tilts, other angles, or another field of view.
    """
    _require_as_many(f"{given.source} aligns {len(given.shifts_px)} tilts", len(given.shifts_px), "", len(angles_deg))
    if given.angles_deg is not None:
        apart = given.angles_deg - np.asarray(angles_deg, float)
        if given.angles_refined:
            apart = apart - np.median(apart)
        worst = int(np.abs(apart).argmax())
        limit = REFINED_DEG if given.angles_refined else ANGLE_TOLERANCE_DEG
        if abs(apart[worst]) > limit:
            raise InputError(
                f"{given.source} is the alignment of other tilts: its image at {given.angles_deg[worst]:g} degrees "
                f"would be used for the image at {angles_deg[worst]:g} degrees; the angles may differ by at most "
                f"{limit:g} degrees. Give the alignment of a series taken at the same angles."
            )
    if given.image_shape is None:
        return given
    scale = _scale(given, (int(image_shape[0]), int(image_shape[1])), pixel_size_nm)
    offset = None if given.axis_offset_px is None else given.axis_offset_px * scale
    return replace(given, shifts_px=given.shifts_px * scale, axis_offset_px=offset)


def _require_as_many(what: str, n: int, name: str, expected: int) -> None:
    if n != expected:
        raise InputError(f"{what}, {name or 'the series'} has {expected}: both must describe the same images.")


def _scale(given: GivenAlignment, shape: tuple[int, int], pixel_size_nm: float) -> float:
    """Return how many pixels of the series one pixel of the alignment is wide.

    Binned images lose the rows and columns that do not fill a pixel, so their sizes give the factor to within a pixel
    only: a whole number that fits is taken, else the ratio of the pixel sizes where both are known.
    """
    assert given.image_shape is not None
    by_sides = [mine / other for mine, other in zip(shape, given.image_shape, strict=True)]
    leeway = 1 / min(*shape, *given.image_shape)
    by_pixel = given.pixel_size_nm / pixel_size_nm  # NaN where one is unknown
    whole = [float(round(by_sides[1])), 1 / max(round(1 / by_sides[1]), 1)]
    fitting = [t for t in (*whole, by_pixel, by_sides[1]) if max(abs(t / r - 1) for r in by_sides) <= 1.01 * leeway]
    if not fitting or abs(by_pixel / fitting[0] - 1) > max(SAME_PIXEL, 2 * leeway):
        raise InputError(
            f"{given.source} is the alignment of another field of view: "
            f"{_size_words(given.image_shape, given.pixel_size_nm)}, while this series has "
            f"{_size_words(shape, pixel_size_nm)}. Both must show the same area, though the binning may differ. If a "
            "pixel size is wrong, import that series again with the right one (--pixel-size NM)."
        )
    return fitting[0]


def _size_words(shape: tuple[int, int], pixel_size_nm: float) -> str:
    size = "" if math.isnan(pixel_size_nm) else f" of {pixel_size_nm:.4g} nm"
    return f"images of {shape[1]} x {shape[0]} px{size}"


# --- IMOD ---


def transforms(
    shifts_px: FloatArray,
    axis_angle_deg: float,
    axis_offset_px: float,
    rotation_deg: FloatArray | float = 0.0,
    magnification: FloatArray | float = 1.0,
    *,
    rows_up: bool = False,
) -> NDArray[np.float64]:
    """Return (n, 6) lines A11 A12 A21 A22 DX DY that bring raw images into the aligned frame, see the module's text.

    `rotation_deg` and `magnification`, (n,), are image corrections: about the centre of each image, before its shift.
    """
    phi = math.radians(axis_angle_deg)
    matrix = np.array([[math.cos(phi), -math.sin(phi)], [math.sin(phi), math.cos(phi)]])
    moves = np.asarray(shifts_px, float)[:, ::-1] @ matrix.T - np.array([axis_offset_px, 0.0])
    turns = phi + np.deg2rad(np.broadcast_to(rotation_deg, len(moves)))
    cos, sin = magnification * np.cos(turns), magnification * np.sin(turns)
    table = np.column_stack([cos, -sin, sin, cos, moves])
    return np.asarray(table * np.array([1, -1, -1, 1, 1, -1]) if rows_up else table)


def write_transforms(path: Path, table: FloatArray) -> None:
    """Write the (n, 6) lines of an .xf."""
    lines = ("".join([*(f"{v:15.10f}" for v in row[:4]), *(f"{v:14.6f}" for v in row[4:])]) for row in table)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def imod_turns(source: str) -> bool:
    """Return whether IMOD turns a raw file upside down when reading it."""
    return Path(source).suffix.lower() in {".tif", ".tiff"}
