"""What a parameter that names an input may lead to: a file, a folder with one file per tilt, or a pattern of names."""

import fnmatch
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tomoseg.errors import InputError
from tomoseg.io import digest
from tomoseg.io.companions import ANGLE_ENDINGS
from tomoseg.io.formats import IMAGE_EXTENSIONS
from tomoseg.io.regular import status_of

WILDCARDS = "*?"
MOST_FILES = 20_000
STORES = (".zspy",)  # folders that are one file to their users


@dataclass(frozen=True)
class Extent:
    """Size in bytes and time of the last change of a file, or of several together."""

    size: int
    mtime_ns: int


def is_pattern(path: Path) -> bool:
    """Return whether a path is a pattern of names, and not a file or folder."""
    try:
        return any(sign in path.name for sign in WILDCARDS) and not os.path.lexists(path)
    except ValueError:  # no possible name
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # it may not be seen, or is no possible name
        return False


def is_store(path: Path) -> bool:
    """Return whether a path is a folder that holds one data set (.zspy)."""
    return path.suffix.lower() in STORES and _is_folder(path)


def extent_of(path: Path) -> Extent | None:
    """Return the extent of what a path leads to, without opening anything; None if there is nothing to be read."""
    status = status_of(path)
    if status is not None:
        return Extent(status.st_size, status.st_mtime_ns)
    statuses = [status for member in members(path) if (status := status_of(member))]
    if not statuses:
        return None
    return Extent(sum(s.st_size for s in statuses), max(s.st_mtime_ns for s in statuses))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and digests of several, as hex.

    Raises `OSError` if a file may not be read, `InputError` if it is no regular file.
    """
    if status_of(path) is not None or not (found := members(path)):
        return digest.sha256(path)
    together = hashlib.sha256()
    base = path if _is_folder(path) else path.parent
    for member in found:
        together.update(f"{member.relative_to(base).as_posix()}\0{digest.sha256(member)}\n".encode("utf-8", "replace"))
    return together.hexdigest()


def members(path: Path) -> list[Path]:
    """Return the files behind a folder or a pattern, in natural order; none if it is something else."""
    if is_store(path):
        return _all_below(path)
    tilts = tilt_files(path)
    if not tilts:
        return []
    beside = {p.name.lower(): p for p in _listed(path if _is_folder(path) else path.parent)}
    if is_pattern(path):
        wanted = {f"{tilt.name.lower()}.mdoc" for tilt in tilts} | {f"{tilt.stem.lower()}.mdoc" for tilt in tilts}
        more = [p for name, p in beside.items() if name in wanted]
    else:
        more = [p for name, p in beside.items() if name.endswith((".mdoc", *ANGLE_ENDINGS))]
    return sorted({*tilts, *more}, key=natural)


def tilt_files(path: Path) -> list[Path]:
    """Return the images that a folder or a pattern of names leads to, in natural order.

    Of a folder these are the files of the kind that most of its images are of. Raises `InputError` if there are far
    too many.
    """
    if is_pattern(path):
        # Square brackets are common in the names of tilt images.
        pattern = re.compile(fnmatch.translate(path.name.replace("[", "[[]")))
        found = [p for p in _listed(path.parent) if pattern.match(p.name)]
    elif _is_folder(path) and not is_store(path):
        found = _listed(path)
    else:
        return []
    by_kind: dict[str, list[Path]] = {}
    for file in found:
        kind = file.suffix.lower()
        if kind in IMAGE_EXTENSIONS and not file.name.startswith("."):
            by_kind.setdefault(_SAME_KIND.get(kind, kind), []).append(file)
    largest = max(by_kind.values(), key=len, default=[])
    if len(largest) > MOST_FILES:
        raise InputError(f"{path} holds {len(largest)} images; a tilt series has at most {MOST_FILES}")
    return sorted(largest, key=natural)


_SAME_KIND = {".tiff": ".tif", ".jpeg": ".jpg", ".dm4": ".dm3"}


def as_one(paths: Sequence[Path]) -> Path:
    """Return the one path that stands for the files named, as a shell makes them of a pattern: a folder or a pattern.

    Raises `InputError` if neither stands for just these files.
    """
    if len(paths) == 1:
        return paths[0]
    folder = paths[0].parent
    names = [path.name for path in paths]
    start = os.path.commonprefix(names)  # noqa: RUF071 - of texts
    end = os.path.commonprefix([name[::-1] for name in names])[::-1]  # noqa: RUF071
    if all(path.parent == folder for path in paths):
        for one in (folder, folder / f"{start}*{end}"):
            if {path.name for path in tilt_files(one)} == set(names):
                return one
    raise InputError(
        f"{len(paths)} files are named, from {paths[0]} to {paths[-1]}: give the folder that holds one file per tilt, "
        "or a pattern of their names in quotation marks"
    )


def natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Return the sort key by which tilt_2 comes before tilt_10."""
    words = [w for w in re.split(r"(\d+)", path.name.casefold()) if w]
    numbered = [(0, int(w[:18]), "") if w.isascii() and w.isdigit() else (1, 0, w) for w in words]
    return numbered, path.name


def _listed(folder: Path) -> list[Path]:
    """Return the regular files of a folder."""
    try:
        return [folder / entry.name for entry in os.scandir(folder) if entry.is_file()]
    except (OSError, ValueError):
        return []


def _all_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, _folders, names in os.walk(folder):
        found += [Path(parent) / name for name in names]
        if len(found) > 50 * MOST_FILES:
            raise InputError(f"{folder} holds more than {50 * MOST_FILES} files")
    return sorted(found)
