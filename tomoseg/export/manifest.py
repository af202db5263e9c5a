"""The manifest of an export folder: which files an export wrote, so that the next one replaces these and no others.

A result may be a folder of many files (OME-Zarr): it is listed, checked and replaced as one. Folder, manifest and what
a project says of them may come from a stranger: names lead nowhere else, links are not followed, and what is not listed
is not touched.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from tomoseg import plain_json
from tomoseg.errors import InputError, named
from tomoseg.io.atomic import atomic_path, remove_unfinished
from tomoseg.io.regular import open_regular

MANIFEST = "tomoseg-export.json"
MADE_FROM, FIRST_STAGE = "made_from", "import"  # of an entry: run ids by stage; a series is known by that of its import
MOST_BYTES = 8 << 20  # of a manifest: some 100 for each file
MOST_FILES = 100_000  # of a folder are looked at where the project alone says that an export wrote it
MOST_NAME_BYTES = 255
Atomic = Callable[[Path], AbstractContextManager[Path]]  # `atomic_path` or `atomic_folder`


class Manifest:
    """The list of exported files with their sizes and times of change, kept in the folder as `tomoseg-export.json`.

    A file is our own as long as it has the size and the time that it was written with, a folder as long as this holds
    for all files in it and there are no others; a link is never. `id` is a random name of the folder, which projects
    that were exported to it keep, so that they are known there. Parameters: `directory`, an existing folder;
    `made_from`, the run ids of the results that the files show, by stage.
    """

    def __init__(self, directory: Path, made_from: Mapping[str, str] | None = None) -> None:
        self.directory, self._made_from = directory, dict(made_from or {})
        self.id, self._entries = _read_manifest(directory / MANIFEST)
        self.id = self.id or uuid4().hex
        self.written: list[dict[str, Any]] = []

    def foreign(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that exist and were not written by an export, or were changed since."""
        return [name for name in names if os.path.lexists(self.directory / name) and not self._is_ours(name)]

    def left_over(self) -> list[str]:
        """Return the unchanged files of earlier exports, not written again, that may show other results than these."""
        return list(dict.fromkeys(e["name"] for e in self._others() if not self._is_alike(e)))

    def remove_outdated(self) -> list[str]:
        """Remove the unchanged files of earlier exports that show earlier results of the same series; return which."""
        names = list(dict.fromkeys(e["name"] for e in self._others() if self._is_outdated(e)))
        for name in names:
            path = self.directory / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return names

    def _others(self) -> Iterator[dict[str, Any]]:
        """Yield the entries of unchanged files that this export did not write."""
        now = {entry["name"] for entry in self.written}
        for entry in self._entries:
            path = self.directory / entry["name"]
            if entry["name"] not in now and os.path.lexists(path) and _entry(path, entry["name"]) == _plain(entry):
                yield entry

    def _is_alike(self, entry: dict[str, Any]) -> bool:
        return bool(self._made_from) and entry.get(MADE_FROM) == self._made_from

    def _is_outdated(self, entry: dict[str, Any]) -> bool:
        made, now = entry.get(MADE_FROM), self._made_from
        is_of_series = isinstance(made, dict) and bool(now) and made.get(FIRST_STAGE) == now.get(FIRST_STAGE)
        return is_of_series and made != now

    @contextmanager
    def writing(self, name: str, atomic: Atomic = atomic_path) -> Iterator[Path]:
        """Yield a temporary path, of an empty folder by `atomic_folder`; it takes its name and is listed on leaving."""
        path = self.directory / name
        remove_unfinished(path)
        with atomic(path) as temporary:
            yield temporary
            # Listed before it takes its name, beside the entry of what it replaces: if the process is killed in
            # between, either of the two is still known as ours. Renaming keeps size and time.
            entry = _entry(temporary, name)
            assert entry is not None  # it was made by `atomic`
            listed = entry | ({MADE_FROM: self._made_from} if self._made_from else {})
            self._save([*self._entries, listed])
        self._entries = [e for e in self._entries if e["name"] != name] + [listed]
        self.written.append(entry)

    def finish(self) -> None:
        """Save the list without entries of files that were replaced or removed."""
        remove_unfinished(self.directory / MANIFEST)
        self._entries = [e for e in self._entries if os.path.lexists(self.directory / e["name"])]
        self._save(self._entries)

    def _is_ours(self, name: str) -> bool:
        return _entry(self.directory / name, name) in [_plain(entry) for entry in self._entries]

    def _save(self, entries: list[dict[str, Any]]) -> None:
        text = json.dumps({"written by": "tomoseg export", "id": self.id, "files": entries}, indent=1)
        with atomic_path(self.directory / MANIFEST) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def lost_files(export_info: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each exported file that is missing or has another size; none is opened.

    Files that this user may not see count as there.

    `export_info` are the attributes `directory` and `files` that an export left in the project. Raises `ValueError`,
    `TypeError` or `KeyError` if something else wrote them.
    """
    directory = Path(str(export_info.get("directory", "")))
    problems = []
    for entry in _checked(plain_json.load(export_info.get("files", "[]"))):
        path, is_folder = directory / entry["name"], "files" in entry
        try:
            status = path.lstat()
            there = stat.S_ISDIR(status.st_mode) if is_folder else stat.S_ISREG(status.st_mode)
            size = _bytes_in(path) if is_folder and there else status.st_size
        except PermissionError:
            continue
        except OSError:
            there, size = False, None
        if not there:
            problems.append(f"{path} is gone")
        elif size not in (None, entry["bytes"]):
            problems.append(f"{path} was changed")
    return problems


# --- whose a folder is ---


def default_folder(project: Path) -> Path:
    """Return the folder that a project is exported to unless another is named."""
    return project.with_name(f"{project.stem}_export")


def doubt_about(folder: Path, project: Path, export_info: Mapping[str, Any]) -> str:
    """Say what speaks against writing to a folder that nobody but a project's own settings names; '' if nothing does.

    It may be the default folder, or a new one beside the project; or its manifest tells that this project was exported
    to it. `export_info` are the attributes that the last export left in the project.
    """
    try:
        real, beside = Path(os.path.realpath(folder)), Path(os.path.realpath(project.parent))
        is_new = not real.exists() or (real.is_dir() and not any(real.iterdir()))
    except (OSError, ValueError):  # a name that no folder can have, or one that may not be looked into
        return "cannot be looked into"
    is_beside, is_default = real.parent == beside, real.name == default_folder(project).name
    if (is_beside and (is_new or is_default)) or (not is_new and _holds_export(real, export_info)):
        return ""
    facts = [f"leads to {named(real)}"] if folder.is_symlink() else []
    facts += [] if is_beside else ["is not beside it"]
    return " and ".join([*facts, "holds no export of it"])


def _holds_export(folder: Path, export_info: Mapping[str, Any]) -> bool:
    """Tell whether the last export of a project went to this folder."""
    try:
        identity, _ = _read_manifest(folder / MANIFEST)
        if identity:
            return bool(export_info.get("manifest") == identity)
        # Written before folders had a name. Whoever knows times to the nanosecond has seen the files.
        entries = _checked(plain_json.load(export_info.get("files", "[]")))
        return bool(entries) and all(_entry(folder / e["name"], e["name"]) == _plain(e) for e in entries)
    except (InputError, OSError, KeyError, TypeError, ValueError, RecursionError):
        return False


# --- entries ---


def _checked(entries: Any) -> list[dict[str, Any]]:
    """Return entries as they are; `ValueError`, `TypeError` or `KeyError` if they make no sense, or lead away."""
    for entry in entries:
        name = entry["name"]
        is_plain = name == Path(name).name and name not in ("", "..") and "\0" not in name and "\\" not in name
        if not is_plain or len(os.fsencode(name)) > MOST_NAME_BYTES:
            raise ValueError("an entry is not the name of a file in the folder")
        if not isinstance(entry["bytes"], int) or not isinstance(entry["mtime_ns"], int):
            raise TypeError("an entry has no size or time")
    return list(entries)


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry without what the file was made from."""
    return {key: value for key, value in entry.items() if key != MADE_FROM}


def _entry(path: Path, name: str) -> dict[str, Any] | None:
    """Return name, bytes and mtime_ns of a file; for a folder the sum, the latest, and a digest over all its files.

    It is None of a link, and of what is neither file nor folder.
    """
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        return {"name": name, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    if not stat.S_ISDIR(status.st_mode):
        return None
    found = sorted((str(file.relative_to(path)), file.lstat()) for file in _files_in(path))
    listing = json.dumps([[where, s.st_size, s.st_mtime_ns] for where, s in found])
    return {
        "name": name,
        "bytes": sum(s.st_size for _, s in found),
        "mtime_ns": max((s.st_mtime_ns for _, s in found), default=0),
        "files": hashlib.sha256(listing.encode()).hexdigest(),
    }


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder and the folders in it, links not followed."""
    return (Path(where) / file for where, _, names in os.walk(folder) for file in names)


def _bytes_in(folder: Path) -> int | None:
    """Return the bytes of all files in a folder; None if there are more files than an export could have written."""
    sizes = [file.lstat().st_size for file in islice(_files_in(folder), MOST_FILES + 1)]
    return sum(sizes) if len(sizes) <= MOST_FILES else None


def _read_manifest(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of the folder, '' if it has none yet, and the entries. Raises `InputError`."""
    if not os.path.lexists(path):
        return "", []
    try:
        with open_regular(path, follow=False) as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        content = plain_json.load(text)
        return str(content.get("id", "")), _checked(content["files"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError, InputError) as error:
        raise InputError(
            f"{path}, the list of exported files, cannot be read: {error}. Remove it and set export.overwrite=true, or "
            "export to another folder."
        ) from error
