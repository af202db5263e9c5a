"""What can be done to the files of a folder. Files have numbers, given at creation, whatever their names."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Create:
    """A new, empty file takes a name."""

    file: int
    name: str


@dataclass(frozen=True)
class Write:
    """Bytes are written to a file."""

    file: int
    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Resize:
    """A file is cut, or lengthened by zeros."""

    file: int
    size: int


@dataclass(frozen=True)
class Sync:
    """All that was done to a file's content is on the disk; `failed`: the system could not, and may have dropped it."""

    file: int
    failed: bool = False


@dataclass(frozen=True)
class SyncFolder:
    """All names of the folder are on the disk."""


@dataclass(frozen=True)
class Rename:
    """A file takes another name, and the file that had it none."""

    source: str
    target: str


@dataclass(frozen=True)
class Remove:
    """A name goes."""

    name: str


Op = Create | Write | Resize | Sync | SyncFolder | Rename | Remove
