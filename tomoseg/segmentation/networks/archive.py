"""The zip archive of a `.keras` file, checked before anything in it is used."""

import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tomoseg.errors import InputError, shown
from tomoseg.io.limits import reason_of, require_plausible

CARD_ENTRY, CONFIG_ENTRY, WEIGHTS_ENTRY = "tomoseg.json", "config.json", "model.weights.h5"
# Allowed entries and their largest sizes: a hundred layers take some 60 kB. Keras also knows assets, which it unpacks
# to the disk, and other kinds of weights; no segmentation network needs them.
_LARGEST = {"metadata.json": 1 << 20, CONFIG_ENTRY: 4 << 20, CARD_ENTRY: 4 << 20, WEIGHTS_ENTRY: 64 << 30}


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a `.keras` file whose entries are known, unique, and no larger than their stored bytes allow.

    Raises `InputError`: the file is missing, damaged or not a Keras model, or holds entries that a segmentation network
    does not need. Errors while the archive is used become `InputError`, too.
    """
    try:
        is_file = path.is_file()
    except OSError:  # a name that no file can have
        is_file = False
    if not is_file:
        raise InputError(
            f"the model {shown(path, 300)} does not exist: give the .keras file that `tomoseg train` wrote"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, archive.infolist())
            yield archive
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:
        raise InputError(
            f"{path} is not a .keras file ({reason_of(error)}): give the file that `tomoseg train` wrote. If it is "
            "that file, it is damaged; copy it again."
        ) from error


def _check(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    names = [entry.filename for entry in entries]
    if not {CONFIG_ENTRY, WEIGHTS_ENTRY} <= set(names):
        raise InputError(f"{path} is a zip archive but no Keras model: give the .keras file of a trained network")
    strange = next((name for name in names if name not in _LARGEST or names.count(name) > 1), None)
    if strange is not None:
        raise InputError(
            f"the model {path} holds '{shown(strange)}', which a segmentation network does not need, or holds it "
            "twice; for safety it is not loaded"
        )
    size = path.stat().st_size
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise InputError(f"'{entry.filename}' in {path} is encrypted, or compressed in a way that Keras never uses")
        if entry.file_size > _LARGEST[entry.filename]:
            raise InputError(f"'{entry.filename}' in {path} is implausible: it claims {entry.file_size} bytes")
        require_plausible(path, entry.file_size, min(entry.compress_size, size), f"'{entry.filename}'")


def extract(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    """Extract an entry to a file, piece by piece."""
    with archive.open(name) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
