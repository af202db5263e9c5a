"""What an export has written into a directory, so that it replaces its own files and nobody else's."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path, remove_unfinished

MANIFEST = "tomoseg-export.json"


class Manifest:
    """The list of files, with size and time of change, that is kept in the directory as `tomoseg-export.json`.

    A file is our own as long as it has the size and the time it had when it was written. Parameters: `directory`, an
    existing folder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._entries: list[dict[str, Any]] = _read_entries(directory / MANIFEST)
        self.written: list[dict[str, Any]] = []

    def foreign(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that exist and are not as we left them."""
        return [name for name in names if (self.directory / name).exists() and not self._is_ours(name)]

    def left_over(self) -> list[str]:
        """Return the files of earlier exports that are still there unchanged and were not written now."""
        now = {entry["name"] for entry in self.written}
        names = dict.fromkeys(entry["name"] for entry in self._entries)
        return [n for n in names if n not in now and (self.directory / n).exists() and self._is_ours(n)]

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path; when all went well the file takes its name, and is listed."""
        path = self.directory / name
        remove_unfinished(path)
        with atomic_path(path) as temporary:
            yield temporary
            # Listed before it takes its name, beside the entry of the file it replaces: a process killed in between
            # leaves a file that is still known, whichever of the two it is. Renaming keeps size and time.
            entry = _entry(temporary, name)
            self._save([*self._entries, entry])
        self._entries = [e for e in self._entries if e["name"] != name] + [entry]
        self.written.append(entry)

    def finish(self) -> None:
        """Save the list without what has been replaced or is gone."""
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
    """Say which exported files are gone or have another size, given the attributes `directory` and `files`."""
    directory = Path(str(export_info.get("directory", "")))
    problems = []
    for entry in json.loads(export_info.get("files", "[]")):
        path = directory / entry["name"]
        if not path.is_file():
            problems.append(f"{path} is gone")
        elif path.stat().st_size != entry["bytes"]:
            problems.append(f"{path} was changed")
    return problems


def _entry(path: Path, name: str) -> dict[str, Any]:
    status = path.stat()
    return {"name": name, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read_entries(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["files"]) if path.exists() else []
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{path} should list what earlier exports wrote, but cannot be read ({error}); remove it, and export with "
            "overwrite or into another directory."
        ) from error
