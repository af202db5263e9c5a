"""The manifest of an export folder: which files an export wrote, so that the next one replaces these and no others.

A result may be a folder of many files (OME-Zarr): it is listed, checked and replaced as one.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tomoseg import plain_json
from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path, remove_unfinished

MANIFEST = "tomoseg-export.json"
Atomic = Callable[[Path], AbstractContextManager[Path]]  # `atomic_path` or `atomic_folder`


class Manifest:
    """The list of exported files with their sizes and times of change, kept in the folder as `tomoseg-export.json`.

    A file is our own as long as it has the size and the time that it was written with, a folder as long as this holds
    for all files in it and there are no others. Parameters: `directory`, an existing folder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._entries: list[dict[str, Any]] = _read_entries(directory / MANIFEST)
        self.written: list[dict[str, Any]] = []

    def foreign(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that exist and were not written by an export, or were changed since."""
        return [name for name in names if (self.directory / name).exists() and not self._is_ours(name)]

    def left_over(self) -> list[str]:
        """Return the unchanged files of earlier exports that this one did not write again."""
        now = {entry["name"] for entry in self.written}
        names = dict.fromkeys(entry["name"] for entry in self._entries)
        return [n for n in names if n not in now and (self.directory / n).exists() and self._is_ours(n)]

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
            self._save([*self._entries, entry])
        self._entries = [e for e in self._entries if e["name"] != name] + [entry]
        self.written.append(entry)

    def finish(self) -> None:
        """Save the list without entries of files that were replaced or removed."""
        remove_unfinished(self.directory / MANIFEST)
        self._entries = [e for e in self._entries if (self.directory / e["name"]).exists()]
        self._save(self._entries)

    def _is_ours(self, name: str) -> bool:
        return _entry(self.directory / name, name) in self._entries

    def _save(self, entries: list[dict[str, Any]]) -> None:
        text = json.dumps({"written by": "tomoseg export", "files": entries}, indent=1)
        with atomic_path(self.directory / MANIFEST) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def lost_files(export_info: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each exported file that is missing or has another size.

    `export_info` are the attributes `directory` and `files` that an export left in the project.
    """
    directory = Path(str(export_info.get("directory", "")))
    problems = []
    for entry in plain_json.load(export_info.get("files", "[]")):
        path = directory / entry["name"]
        if not path.exists() or path.is_dir() != ("files" in entry):
            problems.append(f"{path} is gone")
        elif _entry(path, entry["name"])["bytes"] != entry["bytes"]:
            problems.append(f"{path} was changed")
    return problems


def _entry(path: Path, name: str) -> dict[str, Any]:
    """Return name, bytes and mtime_ns of a file; for a folder the sum, the latest, and a digest over all its files."""
    status = path.stat()
    if not path.is_dir():
        return {"name": name, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    files = [Path(where) / file for where, _, names in os.walk(path) for file in names]
    found = sorted((str(file.relative_to(path)), file.stat()) for file in files)
    listing = json.dumps([[where, s.st_size, s.st_mtime_ns] for where, s in found])
    return {
        "name": name,
        "bytes": sum(s.st_size for _, s in found),
        "mtime_ns": max((s.st_mtime_ns for _, s in found), default=0),
        "files": hashlib.sha256(listing.encode()).hexdigest(),
    }


def _read_entries(path: Path) -> list[dict[str, Any]]:
    try:
        return list(plain_json.load(path.read_text(encoding="utf-8"))["files"]) if path.exists() else []
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{path}, the list of exported files, cannot be read: {error}. Remove it and set export.overwrite=true, or "
            "export to another folder."
        ) from error
