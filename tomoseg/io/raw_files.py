"""The opening of files that hold one image or more, compressed ones among them, without reading their images."""

import bz2
import gzip
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from tomoseg.errors import InputError, shown
from tomoseg.io.companions import ANGLE_ENDINGS, COMPRESSED
from tomoseg.io.formats import FORMATS, Format, supported
from tomoseg.io.input_files import is_store
from tomoseg.io.limits import FREE_BYTES, MOST_EXPANSION, reason_of
from tomoseg.io.regular import open_regular
from tomoseg.io.sandbox import Sandbox
from tomoseg.io.series import RawSeries
from tomoseg.words import bytes_as_text

SNIFFED_BYTES = 1024
_PIECE = 4 << 20  # bytes


def open_images(path: Path, signal: str | None = None) -> RawSeries:
    """Open a file that holds one image or more; see `tomoseg.io.raw.open_raw`."""
    if is_store(path):
        kind = next(f for f in FORMATS if path.suffix.lower() in f.extensions)
        return _checked(path, lambda: kind.open(path, signal), kind.name)
    head = head_of(path)
    if head.startswith((b"\x1f\x8b", b"BZh")):
        return _open_compressed(path, head, signal)
    kind = format_of(path, head)
    return _checked(path, lambda: kind.open(path, signal), kind.name)


@contextmanager
def opener(path: Path) -> Iterator[Callable[[Path], RawSeries]]:
    """Give a function that opens one file after the other, all of the format of `path`; they end with it.

    Files of formats that need the sandbox share one.
    """
    kind = format_of(path, head_of(path))
    if not kind.libraries:
        yield lambda file: _checked(file, lambda: kind.reader(file, None), kind.name)
        return
    sandbox = Sandbox(kind.module, kind.libraries)
    try:
        yield lambda file: _checked(file, lambda: sandbox.open(file), kind.name)
    finally:
        sandbox.close()


def _checked(path: Path, opened: Callable[[], RawSeries], kind: str) -> RawSeries:
    """Return an opened series, or explain why it cannot be opened; angles that are none are dropped."""
    try:
        with np.errstate(all="ignore"):  # numbers of a damaged header: what matters is looked at
            series = opened()
    except InputError:
        raise
    except Exception as error:  # a damaged file makes the reading libraries raise anything
        raise InputError(
            f"{path} cannot be read as {kind}: {reason_of(error)}; it may be damaged, truncated or in another format"
        ) from error
    _drop_impossible_angles(series)
    return series


def head_of(path: Path) -> bytes:
    """Return the beginning of a file. Raises `InputError` if there is none, or it is no regular file."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a folder; give a file")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is a device or a pipe; give a file that holds the whole tilt series")
        if not status.st_size:  # also those of /proc, some of which never end
            raise InputError(f"{path} is empty (0 bytes)")
        with open_regular(path) as file:
            return file.read(SNIFFED_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def format_of(path: Path, head: bytes) -> Format:
    """Return the format of a file by how it begins or, where that does not tell, by its name."""
    by_content = next((f for f in FORMATS if f.recognises(head)), None)
    by_name = next((f for f in FORMATS if path.suffix.lower() in f.extensions), None)
    # DM's mark is only four bytes, which an MRC file of 3 or 4 columns in the other byte order has too.
    if by_content is None or (by_content.module in {"dm", "picture"} and by_name is not None):
        by_content = by_name
    if path.name.lower().endswith((".mdoc", *ANGLE_ENDINGS)):
        raise InputError(f"{path} says something of a tilt series, but holds no images: give the file with the images")
    if by_content is None:
        raise InputError(f"the format of {path} is not recognised; supported are {supported()}")
    return by_content


def _drop_impossible_angles(series: RawSeries) -> None:
    """Drop angles that are NaN, infinite or beyond half a turn: such metadata are not those of a tilt series."""
    angles = series.angles_deg
    if angles is not None and not (np.isfinite(angles).all() and np.abs(angles).max() <= 180):
        series.warnings.append(
            f"the tilt angles in the {shown(series.angles_source)} are not used: not all are between -180 and 180 "
            "degrees"
        )
        series.angles_deg, series.angles_source = None, ""


# --- compressed files ---


def _open_compressed(path: Path, head: bytes, signal: str | None) -> RawSeries:
    """Open a file that gzip or bzip2 has compressed, by a temporary copy that goes when the series is closed."""
    folder = tempfile.mkdtemp(prefix="tomoseg-")

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    try:
        name = path.name[: -len(path.suffix)] if path.suffix.lower() in COMPRESSED else path.name
        copy = Path(folder) / (name or "series")
        _decompress(path, gzip.open if head.startswith(b"\x1f\x8b") else bz2.open, copy)
        inner = head_of(copy)
        if inner.startswith((b"\x1f\x8b", b"BZh")):
            raise InputError(f"{path} is compressed several times over")
        try:
            series = open_images(copy, signal)
        except InputError as error:
            raise InputError(str(error).replace(str(copy), str(path))) from error
    except BaseException:
        remove()
        raise
    series.path = path
    close = series.close

    def close_and_remove() -> None:
        close()
        remove()

    series.close = close_and_remove
    return series


def _decompress(path: Path, open_packed: Any, copy: Path) -> None:
    """Write what a compressed file holds; refused where it grows beyond what images can be compressed to."""
    most = max(FREE_BYTES, MOST_EXPANSION * path.stat().st_size)
    try:
        packed: IO[bytes]
        with open_regular(path) as source, open_packed(source, "rb") as packed, copy.open("xb") as target:
            written = 0
            while piece := packed.read(_PIECE):
                written += len(piece)
                if written > most:
                    raise InputError(
                        f"{path} is damaged: it unpacks to more than {bytes_as_text(most)}, less than images can be "
                        "compressed to"
                    )
                target.write(piece)
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
        raise InputError(f"{path} is damaged or truncated: it cannot be unpacked ({reason_of(error)})") from error
    except OSError as error:
        if error.errno is None:  # bz2 says so of a damaged file
            raise InputError(f"{path} is damaged: it cannot be unpacked ({reason_of(error)})") from error
        raise InputError(
            f"{path} cannot be unpacked in {copy.parent}: {error.strerror}; unpack it yourself, or set "
            "TMPDIR to a folder with room"
        ) from error
