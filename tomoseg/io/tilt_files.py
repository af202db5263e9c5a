"""A tilt series in a folder with one file per tilt: which files belong to it, their order, and their angles."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError, shown
from tomoseg.io.angles import read_angles
from tomoseg.io.companions import ANGLE_ENDINGS, companions_of, names_in
from tomoseg.io.formats import IMAGE_EXTENSIONS
from tomoseg.io.input_files import tilt_files
from tomoseg.io.limits import reason_without
from tomoseg.io.mdoc import read_mdoc
from tomoseg.io.raw_files import opener
from tomoseg.io.series import Angles, AngleSource, Axis, RawSeries
from tomoseg.io.units import PixelSize

_FEW = 4  # names in a message
# A number in a name, with what may be its sign: -12, n04.0 (negative), p04.0 or m12 where no word ends there.
_NUMBER = re.compile(r"(?P<sign>[-+\u2212]|(?<![A-Za-z])[npmNPM](?=\d))?(?P<digits>\d+(?:\.\d+)?)")
_NEGATIVE = {"-", "\u2212", "n", "m"}
_LABEL = re.compile(r"(tilt|angle|alpha|ang|deg|theta)[ _=-]*$", re.IGNORECASE)
_DEGREES = re.compile(r"^\s*(deg|\u00b0)", re.IGNORECASE)


@dataclass(frozen=True)
class _File:
    """What one file holds."""

    path: Path
    mdoc: Path | None
    n_images: int
    shape_yx: tuple[int, int]
    dtype: np.dtype[np.generic]
    angle_deg: float | None
    angle_source: str
    tilt_axis: Axis | None
    fetch: Callable[[slice], Array]


@dataclass(frozen=True)
class _Field:
    """A number that stands at the same place in all names: its values, and what speaks for tilt angles."""

    values: Angles
    in_brackets: bool
    labelled: bool
    signed: bool
    decimal: bool

    @property
    def evidence(self) -> tuple[bool, bool, bool, bool]:
        """What speaks for angles, the strongest first."""
        return self.in_brackets, self.labelled, self.signed, self.decimal


def open_tilt_files(path: Path, signal: str | None = None) -> RawSeries:
    """Open a folder, or the files of a pattern of names, as one series: a file for each tilt, in natural order.

    Angles come from the metadata of the files or their .mdoc, from their names, and from an angle file in the folder.
    A file that holds several images gives them all the same angle.

    Raises `InputError` if there are fewer than two images, a file cannot be read, or they differ in size or type.
    """
    files = tilt_files(path)
    folder = path if path.is_dir() else path.parent
    if len(files) < 2:
        raise InputError(_too_few(path, files))
    if signal is not None:
        raise InputError(f"{path} holds one file per tilt, of which no signal can be chosen; leave --signal away")
    with ExitStack() as stack:
        open_one = stack.enter_context(opener(files[0]))
        series = _joined(path, folder, files, [open_one(file) for file in files])
        series.close = stack.pop_all().close
    return series


def _too_few(path: Path, files: Sequence[Path]) -> str:
    what = "matches" if not path.is_dir() else "is a folder that holds"
    if len(files) == 1:
        return (
            f"{path} {what} one image, {files[0].name}; give that file if it holds the whole tilt series, or a folder "
            "with one file per tilt"
        )
    return f"{path} {what} no images ({' '.join(sorted(IMAGE_EXTENSIONS))})"


def _joined(path: Path, folder: Path, files: Sequence[Path], opened: Sequence[RawSeries]) -> RawSeries:
    names = names_in(files[0].parent)
    parts = [_part(series, file, names) for series, file in zip(opened, files, strict=True)]
    _require_alike(path, parts)
    first, counts = opened[0], [part.n_images for part in parts]
    owner = np.repeat(np.arange(len(parts)), counts)
    start = np.concatenate([[0], np.cumsum(counts)])

    def fetch(selected: slice) -> Array:
        images = []
        for i in range(*selected.indices(len(owner))):
            within = int(i - start[owner[i]])
            images.append(parts[owner[i]].fetch(slice(within, within + 1)))
        return np.concatenate(images)

    kind = f"{first.format} files, one per tilt"
    joined = RawSeries(path, kind, (len(owner), *first.shape[1:]), first.dtype, fetch)
    joined.pixel_size = _one_pixel_size(opened, joined)
    joined.tilt_axis = next((part.tilt_axis for part in parts if part.tilt_axis), None)
    joined.metadata = {"files": len(files), "first_file": {"name": files[0].name, **first.metadata}}
    recorded = [part.angle_deg for part in parts]
    if all(angle is not None for angle in recorded):
        angles = np.array([float(angle) for angle in recorded if angle is not None])
        joined.angles_deg, joined.angles_source = angles[owner], parts[0].angle_source
    elif any(angle is not None for angle in recorded):
        missing = [part.path.name for part in parts if part.angle_deg is None]
        joined.warnings.append(
            f"the angles in the metadata are not used: {len(missing)} of {len(files)} files have none "
            f"({', '.join(shown(name) for name in missing[:_FEW])})"
        )
    named, why = angles_in_names([file.name for file in files])
    if named is not None:
        joined.more_angles.append(AngleSource("the file names", named[owner]))
        joined.warnings += [why] if why else []
    elif why:
        joined.set_aside.append(why)
    _use_mdoc_of_all(joined, folder, parts, owner)
    _use_angle_files(joined, folder, parts, owner)
    joined.table = _table(parts, owner, joined, named)
    joined.notes.append(f"{len(files)} files, {shown(files[0].name)} to {shown(files[-1].name)}")
    joined.warnings += dict.fromkeys(text for series in opened for text in series.warnings)
    return joined


def _part(series: RawSeries, file: Path, names: Mapping[str, str]) -> _File:
    path, mdoc = companions_of(file, names).mdoc, None
    angle, source = None, ""
    try:
        mdoc = None if path is None else read_mdoc(path)
        if mdoc is not None:
            angle, source = float(np.median(mdoc.angles_deg())), "the .mdoc of each file"
    except InputError as error:
        assert path is not None
        series.warnings.append(f"{path.name} was set aside: {reason_without(error, path)}")
    if angle is None and series.angles_deg is not None and len(series.angles_deg):
        angle, source = float(np.median(series.angles_deg)), f"the {series.angles_source} of each file"
    axis = series.tilt_axis or (None if mdoc is None else mdoc.tilt_axis())
    return _File(file, path, series.shape[0], series.shape[1:], series.dtype, angle, source, axis, series.fetch)


def _require_alike(path: Path, parts: Sequence[_File]) -> None:
    """Raise `InputError` unless all images have the same size and type, with the names of those that differ."""
    kinds = Counter((part.shape_yx, str(part.dtype)) for part in parts)
    if len(kinds) == 1:
        return
    (usual_size, usual_type), _ = kinds.most_common(1)[0]
    others = [p for p in parts if (p.shape_yx, str(p.dtype)) != (usual_size, usual_type)]
    odd = others[0]
    raise InputError(
        f"the files of {path} do not form one series: most hold images of {usual_size[1]} x {usual_size[0]} px "
        f"({usual_type}), {len(others)} others do not, such as {shown(odd.path.name)} with {odd.shape_yx[1]} x "
        f"{odd.shape_yx[0]} px ({odd.dtype}); move what does not belong to it elsewhere, or give a pattern of names"
    )


def _one_pixel_size(opened: Sequence[RawSeries], joined: RawSeries) -> PixelSize:
    """Return the pixel size of the files, if it is the same in all."""
    sizes = [series.pixel_size for series in opened]
    known = [size.nm for size in sizes if size.nm is not None]
    if len(known) < len(sizes):
        return next((size for size in sizes if size.nm is None), sizes[0])
    if max(known) - min(known) > 0.01 * min(known):
        joined.warnings.append(f"the pixel size differs from file to file, {min(known):.6g} to {max(known):.6g} nm")
        return PixelSize(doubt="it is not the same in all files")
    return sizes[0]


def _use_mdoc_of_all(series: RawSeries, folder: Path, parts: Sequence[_File], owner: Array) -> None:
    """Add the angles of an .mdoc in the folder that describes all files, by the names of their frames."""
    own = {part.mdoc for part in parts}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() == ".mdoc" and p not in own):
        try:
            mdoc = read_mdoc(path)
            angles = mdoc.angles_deg()
        except InputError as error:
            series.set_aside.append(f"{path.name} was set aside: {reason_without(error, path)}")
            continue
        # Written by a program on Windows: the folder is another one by now.
        frames = (PureWindowsPath(image.get("SubFramePath", "")).stem.casefold() for image in mdoc.images)
        by_name = dict(zip(frames, angles, strict=True))
        found = [by_name.get(part.path.stem.casefold()) for part in parts]
        if all(angle is not None for angle in found):
            series.more_angles.append(AngleSource(path.name, np.array(found, np.float64)[owner]))
            series.tilt_axis = series.tilt_axis or mdoc.tilt_axis()
        else:
            missing = sum(angle is None for angle in found)
            series.set_aside.append(
                f"{path.name} was set aside: its SubFramePath entries do not name {missing} of the {len(parts)} files"
            )


def _use_angle_files(series: RawSeries, folder: Path, parts: Sequence[_File], owner: Array) -> None:
    """Add the angles of the only angle file in the folder, one for each file or one for each image."""
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.name.lower().endswith(ANGLE_ENDINGS))
    for file in found:
        try:
            angles = read_angles(file)
        except InputError as error:
            series.set_aside.append(f"{file.name} was set aside: {reason_without(error, file)}")
            continue
        if len(angles) == len(owner):
            series.more_angles.append(AngleSource(file.name, angles))
        elif len(angles) == len(parts):
            series.more_angles.append(AngleSource(file.name, angles[owner]))
        else:
            series.set_aside.append(
                f"{file.name} was set aside: it has {len(angles)} angles, the folder {len(parts)} files with "
                f"{len(owner)} images"
            )


def _table(parts: Sequence[_File], owner: Array, series: RawSeries, named: Angles | None) -> list[str]:
    """Return lines that show what was understood of each file."""
    width = min(60, max(len(shown(part.path.name, 60)) for part in parts))
    lines = [f"{'file':{width}}  images  angle in its name  in its metadata"]
    for i, part in enumerate(parts):
        by_name = "-" if named is None else f"{named[i]:g}"
        recorded = "-" if part.angle_deg is None else f"{part.angle_deg:g}"
        lines.append(f"{shown(part.path.name, 60):{width}}  {part.n_images:6d}  {by_name:>17}  {recorded:>15}")
    return lines


# --- angles in names ---


def angles_in_names(names: Sequence[str]) -> tuple[Angles | None, str]:
    """Return the tilt angles that stand in the names of files, (n,) float64 degrees, with a doubt; or None and why not.

    A number at the same place in all names is one if it varies, lies between -180 and 180, and is no running number.
    Of several, one in square brackets, after a word such as tilt, with a sign, or with decimals is preferred. Negative
    numbers are written -12, n12 or m12; where all have a minus, it is a hyphen.
    """
    stems = [name.rsplit(".", 1)[0] for name in names]
    matches = [list(_NUMBER.finditer(stem)) for stem in stems]
    counts = {len(found) for found in matches}
    if len(counts) != 1 or counts == {0}:
        return None, "the file names hold no numbers at the same places" if counts != {0} else ""
    fields = [_field(stems, [found[k] for found in matches]) for k in range(counts.pop())]
    likely = [field for field in fields if _can_be_angles(field)]
    if not likely:
        return None, ""
    best = max(field.evidence for field in likely)
    chosen = [field for field in likely if field.evidence == best]
    if len(chosen) > 1:
        return None, f"the file names hold {len(chosen)} numbers that could be tilt angles"
    if not any(best):
        low, high = chosen[0].values.min(), chosen[0].values.max()
        return chosen[0].values, f"the numbers in the file names, {low:g} to {high:g}, are taken as tilt angles"
    return chosen[0].values, ""


def _field(stems: Sequence[str], found: Sequence[re.Match[str]]) -> _Field:
    signs = [(match["sign"] or "").lower() for match in found]
    before = [stem[: match.start()] for stem, match in zip(stems, found, strict=True)]
    if all(sign == "-" for sign in signs):  # a hyphen: a minus would be a second one
        signs = ["-" if text.endswith("-") else "" for text in before]
    negative = np.array([sign in _NEGATIVE for sign in signs])
    values = np.array([float(match["digits"]) for match in found])
    after = [stem[match.end() :] for stem, match in zip(stems, found, strict=True)]
    return _Field(
        values=np.where(negative, -values, values),
        in_brackets=all(b.endswith("[") and a.startswith("]") for b, a in zip(before, after, strict=True)),
        labelled=all(_LABEL.search(b) or _DEGREES.search(a) for b, a in zip(before, after, strict=True)),
        signed=bool(negative.any()),
        decimal=any("." in match["digits"] for match in found),
    )


def _can_be_angles(field: _Field) -> bool:
    values = field.values
    if np.abs(values).max() > 180 or np.ptp(values) == 0:
        return False
    # Running numbers, of which some may be missing, go up by one.
    return field.signed or field.decimal or bool(np.median(np.diff(np.sort(values))) != 1)
