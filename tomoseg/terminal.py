"""The door to the terminal: all text for standard output and standard error goes through here.

Names, classes and metadata come from files of strangers. A terminal obeys control characters in them, and a line break
could forge a message. What is shown is printable and has the lines that tomoseg gave it. A terminal that is gone, or
was never there, is no reason to fail.
"""

import contextlib
import errno
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any, cast

from tomoseg.errors import printable


def show(*lines: object) -> None:
    """Print lines of a result to standard output; without any, nothing.

    Raises `OSError` where they cannot be written, as on a full disk or to a program that has ended.
    """
    _write(sys.stdout, _lines(lines), required=True)


def show_document(text: str) -> None:
    """Print JSON or YAML to standard output; as it escapes what is not printable, it is the same afterwards."""
    show(*text.removesuffix("\n").split("\n"))


def tell(*lines: object) -> None:
    """Print lines of a message to standard error, if it is there."""
    _write(sys.stderr, _lines(lines), required=False)


def can_show(text: str) -> bool:
    """Tell whether standard output has all characters of a text."""
    try:
        text.encode(_encoding(sys.stdout))
    except UnicodeEncodeError:
        return False
    return True


def is_terminal() -> bool:
    """Tell whether standard error is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False


def canvas() -> IO[str]:
    """Return standard error for a program that draws, whose control characters are its own."""
    below = sys.stderr.below if isinstance(sys.stderr, Stream) else sys.stderr
    return cast(IO[str], Stream(below, required=False, draws=True))


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Lead through the door what others write to Python's streams: warnings, tracebacks, usage errors, libraries."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Stream(before[0], required=True), Stream(before[1], required=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class Stream(io.TextIOBase):
    """A text stream over another one, `below`, which may be None or closed; see `guarded` and `canvas`."""

    def __init__(self, below: Any, *, required: bool, draws: bool = False) -> None:
        self.below, self._required, self._draws = below, required, draws

    def write(self, text: str) -> int:
        """Write text."""
        shown = text if self._draws else "\n".join(map(printable, text.split("\n")))
        _write(self.below, shown, required=self._required)
        return len(text)

    def flush(self) -> None:
        """Do nothing: all is flushed when it is written."""

    def isatty(self) -> bool:
        """Tell whether this is a terminal."""
        with contextlib.suppress(ValueError):
            return self.below is not None and self.below.isatty()
        return False

    def fileno(self) -> int:
        """Return the number of the file; OSError if there is none."""
        if self.below is None:
            raise io.UnsupportedOperation("fileno")
        return int(self.below.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream below."""
        return _encoding(self.below)

    @property
    def errors(self) -> str:  # type: ignore[override]
        """How characters are written that the encoding lacks: as '?'."""
        return "replace"


def _lines(lines: tuple[object, ...]) -> str:
    return "".join(f"{printable(line)}\n" for line in lines)


def _encoding(stream: Any) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _write(stream: Any, text: str, *, required: bool) -> None:
    """Write text at once; where the terminal is gone, or nothing is required, an error is no reason to fail."""
    if stream is None or getattr(stream, "closed", False):
        return
    encoding = _encoding(stream)
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except OSError as error:
        _give_up(stream)
        if required and error.errno != errno.EIO:  # a terminal that was closed
            error.filename = "standard output"
            raise


def _give_up(stream: Any) -> None:
    """Drop what a stream still holds and is given from now on: Python would fail over it when it exits."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


@contextlib.contextmanager
def held_back_stderr() -> Iterator[None]:
    """Hold back what native libraries write to standard error, and show it only if the block fails.

    TensorFlow's C++ code reports oneDNN and missing GPUs on every import, whatever its log level.
    """
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
