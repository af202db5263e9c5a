"""Exceptions that carry the exit code the command ends with.

The message of each is one clear paragraph for the user: what is wrong, in which file or key, what to do. `shown` and
`printable` make text from a file fit for it.
"""

import shlex


class TomosegError(Exception):
    """Base of all errors that are shown to the user as one paragraph, without a traceback."""

    exit_code = 1
    _lines: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of the message; a line break within one of them came from a file, and is to be shown as a space."""
        return self._lines or (str(self),)


class StageFailed(TomosegError):
    """A stage could not finish its computation (exit 1)."""

    exit_code = 1


class InputError(TomosegError):
    """A usage error, a wrong pipeline, or an input that cannot be used (exit 2). Raised before computing."""

    exit_code = 2

    @property
    def problems(self) -> list[str]:
        """Each problem that was found."""
        return [line.removeprefix("  - ") for line in self._lines[1:]] if self._lines else [str(self)]

    @classmethod
    def of(cls, problems: list[str]) -> "InputError":
        """Join all problems found into one error; a single one stays a plain paragraph."""
        if len(problems) == 1:
            return cls(problems[0])
        lines = (f"{len(problems)} problems:", *(f"  - {problem}" for problem in problems))
        error = cls("\n".join(lines))
        error._lines = lines
        return error


class NotReady(TomosegError):
    """Refused because an input of the stage is missing or stale (exit 3)."""

    exit_code = 3


class ProjectLocked(TomosegError):
    """Another process is writing the project (exit 4)."""

    exit_code = 4


class Interrupted(TomosegError):
    """SIGINT, SIGTERM or SIGHUP arrived; the state was kept (exit 130)."""

    exit_code = 130


class TomosegWarning(UserWarning):
    """A result needs care: issued by functions called from Python. Commands print it, and keep it with the result."""


def printable(text: object) -> str:
    """Return text as one line without what a terminal would obey rather than show.

    Line breaks, tabs and other white space become spaces; control characters, marks that turn the direction of writing,
    and what is no character at all become '?'.
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else "?"


def is_text(name: object) -> bool:
    """Tell whether a name is text in UTF-8; file names may be any bytes, but provenance and exports hold text only."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def named(path: object) -> str:
    """Return a path from a file as a message can suggest to type it: printable, and nothing that a shell would obey."""
    return shlex.quote(printable(path))


def shown(text: object, most: int = 60) -> str:
    """Return text from a file as a message can show it: one line, printable, not endless."""
    line = printable(text)
    return line if len(line) <= most else f"{line[: most - 3]}..."
