"""Which tilt series there are, and what each is to be run with: from a list in CSV, or from names and patterns."""

import csv
import glob
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tomoseg import config
from tomoseg.errors import InputError, printable, shown
from tomoseg.project import PROJECT_ENDINGS, is_project

LIST_ENDING = ".csv"
RAW_COLUMNS = ("raw", "series", "file")  # names of the column of raw files
OPTIONS = {  # options of `tomoseg run` by the names of their columns
    "angles": "--angles",
    "pixel_size": "--pixel-size",
    "pixel_size_nm": "--pixel-size",
    "tilt_axis": "--tilt-axis",
    "signal": "--signal",
    "exclude": "--exclude",
    "pipeline": "--pipeline",
}
FILES = ("angles", "pipeline")  # whose values may be files, by paths from the folder of the list
MORE = "options"  # of `tomoseg run`, as on a command line
IGNORED = ("notes",)
LONGEST_LIST = 100_000  # rows


@dataclass(frozen=True)
class Series:
    """A raw series (or a project to bring up to date), its project file, and options of `tomoseg run` of its own."""

    name: str
    raw: Path
    project: Path
    options: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """What `tomoseg run` is given for it, without options."""
        return [str(self.project)] if self.raw == self.project else [str(self.raw), "-o", str(self.project)]

    @property
    def log(self) -> Path:
        """What its runs said."""
        return self.project.with_suffix(".log")


def series_of(sources: Sequence[Path], folder: Path) -> list[Series]:
    """Return the series of a list in CSV, or those that names and patterns of files stand for.

    Parameters
    ----------
    sources : one file that ends in .csv, or raw series, folders of images, projects and patterns such as ``day1/*.mrc``
    folder : where project files go that are not named otherwise

    Raises
    ------
    InputError
        A pattern matches nothing, the list cannot be read, or two series would go to the same project.
    """
    if len(sources) == 1 and sources[0].suffix.lower() == LIST_ENDING:
        found = _listed(sources[0], folder)
    else:
        found = [_of_file(path, folder) for path in _matches(sources)]
    _refuse_doubles(found)
    return found


def _of_file(path: Path, folder: Path) -> Series:
    path = path.absolute()
    if path.suffix.lower() in PROJECT_ENDINGS and is_project(path):
        return Series(path.stem, path, path)
    return Series(path.stem, path, (folder / f"{path.stem}.h5").absolute())


def _matches(sources: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for source in sources:
        if source.exists() or not glob.has_magic(str(source)):
            found.append(source)  # one that does not exist is told when its turn comes
            continue
        matches = sorted(glob.glob(str(source), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not matches:
            raise InputError(f"No file matches {printable(source)}.")
        found += map(Path, matches)
    return found


def _refuse_doubles(found: Sequence[Series]) -> None:
    if not found:
        raise InputError("There is no series to run.")
    for what in ("project", "name"):
        counts = Counter(getattr(one, what) for one in found)
        doubles = [value for value, n in counts.items() if n > 1]
        if doubles:
            names = ", ".join(str(one.raw) for one in found if getattr(one, what) == doubles[0])
            raise InputError(
                f"Several series have the {what} {doubles[0]}: {shown(names, 300)}. Give them names of their own in a "
                "list (columns raw, name)."
            )


# --- lists ---


def _listed(path: Path, folder: Path) -> list[Series]:
    rows = _rows(path)
    problems: list[str] = []
    found = []
    for number, row in rows:
        try:
            found.append(_of_row(row, path.parent.absolute(), folder))
        except InputError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise InputError.of([f"{path}, {problem}" for problem in problems[:30]])
    return found


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a list with the numbers of their lines, without empty ones and comments."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read(64 << 20)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list {path} cannot be read: {error}.") from error
    lines = text.splitlines()
    kept = [(k, line) for k, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
    if not kept or len(kept) > LONGEST_LIST:
        raise InputError(f"The list {path} must hold a line of column names and up to {LONGEST_LIST} lines of series.")
    header = kept[0][1]
    delimiter = max(",;\t", key=header.count)
    table = list(csv.reader([line for _, line in kept], delimiter=delimiter))
    names = [name.strip() for name in table[0]]
    _check_columns(path, names)
    rows = []
    for (number, _), cells in zip(kept[1:], table[1:], strict=True):
        if len(cells) > len(names):
            raise InputError(f"{path}, line {number} has {len(cells)} cells for {len(names)} columns.")
        rows.append((number, {n: c.strip() for n, c in zip(names, cells, strict=False) if c.strip()}))
    return rows


def _check_columns(path: Path, names: Sequence[str]) -> None:
    doubles = [name for name, n in Counter(names).items() if n > 1]
    if doubles:
        raise InputError(f"The list {path} has the column {shown(doubles[0])} more than once.")
    if sum(name in RAW_COLUMNS for name in names) != 1:
        raise InputError(f"The list {path} must have one column of raw files, named {' or '.join(RAW_COLUMNS)}.")
    known = {*RAW_COLUMNS, "name", "project", *OPTIONS, MORE, *IGNORED}
    unknown = [name for name in names if name not in known and "." not in name]
    if unknown:
        raise InputError(
            f"The list {path} has the column {shown(unknown[0])}, which tomoseg does not know. Columns are raw, "
            f"name, project, {', '.join(OPTIONS)}, options, notes, and parameters such as reconstruct.iterations."
        )


def _of_row(row: Mapping[str, str], beside: Path, folder: Path) -> Series:
    raw = next((row[name] for name in RAW_COLUMNS if name in row), "")
    if not raw:
        raise InputError("no raw file is named")
    plain = _of_file(beside / Path(raw).expanduser(), folder)
    name = row.get("name", plain.name)
    project = plain.project if "name" not in row else (folder / f"{name}.h5").absolute()
    if "project" in row:
        project = (folder / Path(row["project"]).expanduser()).absolute()
    options: list[str] = []
    for column, value in row.items():
        if column in OPTIONS:
            given = str(beside / value) if column in FILES and (beside / value).exists() else value
            options.append(f"{OPTIONS[column]}={given}")
        elif column == MORE:
            options += shlex.split(value)
        elif "." in column:
            options += ["--set", f"{column}={value}"]
    config.resolve(config.parse_sets([option for option in options if "=" in option and not option.startswith("--")]))
    return Series(name, plain.raw, project, tuple(options))
