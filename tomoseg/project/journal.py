"""The bytes of a project file: what was committed stays on the disk, byte for byte, until the next commit is certain.

HDF5 reads and writes through a `JournaledFile` (h5py's file-object driver). Between two commits

- a write below the end of the committed file is kept in memory and laid over what is read;
- a write past that end, or into space lent by `lend` (arrays that the committed file reserves for a running stage, and
  whose content nobody relies on yet), goes to the file at once, so that memory stays bounded.

A commit brings the kept writes into the file in an order that survives a crash at any instant:

1. the file is synced: appended space and array data are on the disk before anything refers to them;
2. the journal PROJECT.h5.journal (where, old bytes, new bytes, checksum) is written under another name and synced,
   takes its name, and that is synced;
3. its new bytes are written to the file, and the file is synced;
4. the journal is removed, and that is synced too.

Before the journal has its name, the file is the old state. After that, the file together with the journal is the new
state: readers lay the journal over the file, and the next writer repeats step 3. A journal whose bytes do not fit the
file (a copy put back from a backup) is not applied.

Steps 3 and 4 wait as long as anybody has the file open (`tomoseg.project.looking`), so that what a reader sees stays as
it was. Until then the next commits leave the file alone too, but for space past all that any reader may know of, and
each puts a journal of all changes in place of the last one.
"""

import errno
import hashlib
import io
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.project import disk, looking, names

PAGE = 4096
MAGIC = b"tomoseg journal 1\n"
FOREVER = 1 << 62
Extent = tuple[int, int]  # first byte, byte after the last


@dataclass(frozen=True)
class Journal:
    """The changes of one commit: at `starts[i]` the file held `old[i]` and is to hold `new[i]`; it ends at `size`."""

    size: int
    starts: list[int]
    old: list[bytes]
    new: list[bytes]

    def encoded(self) -> bytes:
        """Return the journal file's content."""
        head = json.dumps(
            {"size": self.size, "runs": [[s, len(n)] for s, n in zip(self.starts, self.new, strict=True)]}
        )
        payload = b"".join([head.encode(), b"\n", *self.old, *self.new])
        return MAGIC + hashlib.sha256(payload).digest() + payload

    @classmethod
    def decoded(cls, content: bytes) -> "Journal | None":
        """Return the journal, or None where its writing had not been completed."""
        payload = content[len(MAGIC) + 32 :]
        if content[: len(MAGIC)] != MAGIC or hashlib.sha256(payload).digest() != content[len(MAGIC) :][:32]:
            return None
        line, _, data = payload.partition(b"\n")
        try:  # the sum finds what a crash left, but anybody can add one up
            head = json.loads(line)
            size, runs = head["size"], [(start, length) for start, length in head["runs"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if not all(isinstance(n, int) and 0 <= n <= FOREVER for n in (size, *chain.from_iterable(runs))):
            return None
        bounds = list(pairwise(accumulate((length for _, length in runs), initial=0)))
        half = len(data) // 2
        old, new = ([part[a:b] for a, b in bounds] for part in (data[:half], data[half:]))
        return cls(size, [start for start, _ in runs], old, new)

    def fits(self, fd: int) -> bool:
        """Tell whether this journal belongs to the state of a file.

        Every byte where it writes is what it was before or what it is to be, and the space that it refers to is there:
        a commit that failed is taken back, and its removed journal may come back after a power loss.
        """
        if os.fstat(fd).st_size < self.size:
            return False
        for start, old, new in zip(self.starts, self.old, self.new, strict=True):
            now = os.pread(fd, len(new), start)
            if now not in (old, new):
                if len(now) != len(new):
                    return False
                held, before, after = (np.frombuffer(b, np.uint8) for b in (now, old, new))
                if not ((held == before) | (held == after)).all():
                    return False
        return True

    def apply(self, fd: int) -> None:
        """Write the new bytes to the file; may be repeated."""
        for start, new in zip(self.starts, self.new, strict=True):
            disk.write(fd, new, start)
        if os.fstat(fd).st_size > self.size:
            disk.truncate(fd, self.size)
        disk.sync(fd)


def read_journal(project: Path, fd: int) -> Journal | None:
    """Return the complete journal of a project, if there is one that fits the file, which is open as `fd`."""
    content = names.read_beside(names.journal_of(project))
    journal = None if content is None else Journal.decoded(content)
    return journal if journal is not None and journal.fits(fd) else None


def recover(project: Path) -> str:
    """Bring a project to the state of its last commit after a crash; return what was done, '' if nothing.

    A commit stays in the journal as long as anybody has the file open. Only for the holder of the project's lock.
    """
    remove_beside(names.unborn_path(project))  # of a compacting cut short, or a name that the power failure kept
    path = names.journal_of(project)
    content = names.read_beside(path)
    if content is None:
        names.forget_journal(project)
    remove_beside(names.unborn_path(path))
    if content is None:
        return ""
    fd = disk.open_file(project, os.O_RDWR)
    try:
        looking.share(fd, project)
        return _recovered(project, fd, path, content)
    finally:
        os.close(fd)


def _recovered(project: Path, fd: int, path: Path, content: bytes) -> str:
    journal = Journal.decoded(content)
    if journal is not None and journal.fits(fd):
        with looking.alone(fd, project) as is_alone:
            if not is_alone:
                return ""
            _make_certain(path, content)
            _bring_in(project, fd, path, journal)
        return "completed the last commit, which had not yet been brought into the file"
    if journal is None and MAGIC.startswith(content[: len(MAGIC)]):  # of an older version, which a crash cut short
        _retire(project, path)
        return "discarded an incomplete commit; the project is as it was before"
    done = _put_aside(path)
    names.forget_journal(project)
    return done


def make_way(project: Path) -> str:
    """Put aside what lies where a new project's journal is to be; return what was done, '' if nothing."""
    path = names.journal_path(project)
    remove_beside(names.unborn_path(path))
    return _put_aside(path) if names.is_there(path) else ""


def _put_aside(journal: Path) -> str:
    aside = next(p for n in count() if not os.path.lexists(p := journal.with_name(f"{journal.name}.foreign{n or ''}")))
    disk.rename(journal, aside)
    disk.sync_folder(journal.parent)
    return f"{journal.name} belongs to another state of the file and was moved to {aside.name}"


def _bring_in(project: Path, fd: int, path: Path, journal: Journal) -> None:
    """Write a journal's changes to the file, and remove it; nobody else may have the file open."""
    journal.apply(fd)
    _retire(project, path)


def _retire(project: Path, path: Path) -> None:
    """Remove a journal that is not needed any more.

    Of a file with several names it first takes the name of an incomplete one: beside one name it must not outlive the
    note by which the other names know of it, and be taken there for newer than what is committed by another name.
    """
    if names.is_noted(project):
        aside = names.unborn_path(path)
        disk.rename(path, aside)
        disk.sync_folder(path.parent)
        names.forget_journal(project)
        path = aside
    disk.remove(path)
    disk.sync_folder(path.parent)


def remove_beside(path: Path) -> None:
    """Remove a file that an earlier process left beside a project."""
    if names.is_there(path):
        disk.remove(path)


def _make_certain(path: Path, content: bytes) -> None:
    """Bring a journal to the disk, before it is needed there.

    The process that wrote it may have been killed before its sync, or in spite of a failed one, after which only bytes
    that are written anew are written at all.
    """
    fd = names.open_beside(path, os.O_RDWR)
    if fd is not None:
        _write_synced(fd, content)
        disk.sync_folder(path.parent)


def _write_synced(fd: int, content: bytes) -> None:
    """Write an opened file and close it; return when its content is on the disk."""
    try:
        disk.write(fd, content, 0)
        disk.sync(fd)
    finally:
        os.close(fd)


class _Overlay:
    """Bytes written but not committed, by page."""

    def __init__(self) -> None:
        self.pages: dict[int, tuple[NDArray[np.uint8], NDArray[np.bool_]]] = {}

    @property
    def n_bytes(self) -> int:
        """Memory taken."""
        return 2 * PAGE * len(self.pages)

    def write(self, start: int, data: NDArray[np.uint8]) -> None:
        for page, inside, part in _by_page(start, len(data)):
            held, written = self.pages.setdefault(page, (np.empty(PAGE, np.uint8), np.zeros(PAGE, bool)))
            held[inside], written[inside] = data[part], True

    def read(self, start: int, into: NDArray[np.uint8]) -> None:
        """Lay what was written over `into`, which holds the file's bytes from `start`."""
        first, last = start // PAGE, (start + len(into) - 1) // PAGE
        if len(self.pages) < last - first:
            for page in self.pages:
                if first <= page <= last:
                    self._lay(page, start, into)
        else:
            for page in range(first, last + 1):
                if page in self.pages:
                    self._lay(page, start, into)

    def _lay(self, page: int, start: int, into: NDArray[np.uint8]) -> None:
        held, written = self.pages[page]
        low, high = max(page * PAGE, start), min((page + 1) * PAGE, start + len(into))
        inside = slice(low - page * PAGE, high - page * PAGE)
        np.copyto(into[low - start : high - start], held[inside], where=written[inside])

    def copy(self) -> "_Overlay":
        """Return an overlay of the same bytes, which is changed independently."""
        other = _Overlay()
        other.pages = {page: (held.copy(), written.copy()) for page, (held, written) in self.pages.items()}
        return other

    def forget(self, start: int, stop: int) -> None:
        """Lay nothing over bytes [start, stop)."""
        for page in [p for p in self.pages if start // PAGE <= p <= (stop - 1) // PAGE]:
            self.pages[page][1][max(0, start - page * PAGE) : stop - page * PAGE] = False

    def runs(self, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield (start, bytes) of everything written below `end`, in order."""
        for page in sorted(self.pages):
            held, written = self.pages[page]
            bounds = np.flatnonzero(np.diff(np.concatenate([[0], written.view(np.int8), [0]]))).tolist()
            for low, high in zip(bounds[::2], bounds[1::2], strict=True):
                start = page * PAGE + low
                if start < end:
                    yield start, held[low : min(high, end - page * PAGE)].tobytes()


def _by_page(start: int, length: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield (page, place in the page, place in the data) of bytes [start, start + length)."""
    done = 0
    while done < length:
        page, offset = divmod(start + done, PAGE)
        n = min(PAGE - offset, length - done)
        yield page, slice(offset, offset + n), slice(done, done + n)
        done += n


class JournaledFile(io.RawIOBase):
    """A project file as h5py's file-object driver sees it; see the module for what happens to writes.

    An error of the disk is kept in `error` rather than raised in the middle of HDF5, which could not undo what it was
    doing; from then on nothing more is written, and `commit` raises it.
    """

    def __init__(self, path: Path, fd: int, committed: int, *, unborn: bool = False) -> None:
        super().__init__()
        self.path = path
        self.error: OSError | None = None
        self.is_view = False  # where nothing may ever be committed
        self._fd = fd
        self._unborn = unborn
        self._position = 0
        self._overlay = _Overlay()
        self._kept: _Overlay | None = None  # what is committed but only in the journal
        self._has_changed = False  # since the last commit
        self._is_stuck = False  # nothing more may be written: the disk failed with a complete journal on it
        self._size = self._committed = committed
        self._still = committed  # bytes below are not changed in the file before all is brought into it
        self.lend([])

    @classmethod
    def create(cls, path: Path) -> "JournaledFile":
        """Begin a new project file; it appears under its name at its first commit."""
        new = names.unborn_path(path)
        remove_beside(new)
        fd = disk.create(new)
        looking.share(fd, new)
        return cls(path, fd, 0, unborn=True)

    @classmethod
    def open(cls, path: Path) -> "JournaledFile":
        """Open a recovered project file for writing.

        Raises `ProjectLocked` where another program has it open for writing.
        """
        disk.sync_folder(path.parent)  # a removed journal must not come back once space is used anew
        fd = disk.open_file(path, os.O_RDWR)
        looking.share(fd, path)
        journal = read_journal(path, fd)
        file = cls(path, fd, _end_of_file(fd) if journal is None else journal.size)
        if journal is not None:
            file._lay(journal)
            file._kept = file._overlay.copy()
            # Readers may know of any state since, none of which was larger than the file has become.
            file._still = max(file._committed, os.fstat(fd).st_size)
            file.lend([])
        return file

    @classmethod
    def look(cls, path: Path, fd: int, journal: Journal | None) -> "JournaledFile":
        """Read through `fd`, with a journal laid over the file; what HDF5 writes stays in memory."""
        file = cls(path, os.dup(fd), _end_of_file(fd) if journal is None else journal.size)
        file.is_view, file._starts, file._stops = True, [], []
        if journal is not None:
            file._lay(journal)
        return file

    def _lay(self, journal: Journal) -> None:
        for start, new in zip(journal.starts, journal.new, strict=True):
            self._overlay.write(start, np.frombuffer(new, np.uint8))

    @property
    def fd(self) -> int:
        """The open file."""
        return self._fd

    @property
    def is_new(self) -> bool:
        """True before the first commit of a new project."""
        return self._unborn

    @property
    def is_put_off(self) -> bool:
        """True where commits are in the journal only, because others have the file open."""
        return self._kept is not None

    @property
    def pending_bytes(self) -> int:
        """Memory taken by writes that are not committed."""
        return self._overlay.n_bytes - (0 if self._kept is None else self._kept.n_bytes)

    @property
    def still_bytes(self) -> int:
        """Below this byte, nothing changes in the file before all is brought into it but space that is lent."""
        return self._still

    def lend(self, extents: Sequence[Extent]) -> None:
        """Let writes to these bytes of the committed file go to the disk at once, until the next commit."""
        direct = [*sorted(extents), (self._still, FOREVER)]
        self._starts, self._stops = [a for a, _ in direct], [b for _, b in direct]

    # --- what HDF5 asks for ---

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        """Return the present byte."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; what was never written reads as zero."""
        into = np.frombuffer(buffer, np.uint8)
        if not len(into):
            return 0
        done = 0
        while done < len(into):
            n = os.preadv(self._fd, [into[done:].data], self._position + done)
            if n == 0:
                into[done:] = 0
                break
            done += n
        if self._overlay.pages:
            self._overlay.read(self._position, into)
        self._position += len(into)
        return len(into)

    def write(self, buffer: Any) -> int:
        """Keep or write `buffer`, as the state of its bytes demands."""
        data = np.frombuffer(buffer, np.uint8)
        start, stop = self._position, self._position + len(data)
        while start < stop:
            i = bisect_right(self._starts, start) - 1
            direct = i >= 0 and start < self._stops[i]
            bound = self._stops[i] if direct else (self._starts[i + 1] if i + 1 < len(self._starts) else FOREVER)
            part = data[start - self._position :][: bound - start]
            if direct:
                self._write_now(start, part)
            else:
                self._overlay.write(start, part)
                self._has_changed = True
            start += len(part)
        self._position = stop
        self._has_changed |= stop > self._size
        self._size = max(self._size, stop)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length that the file will have after the commit."""
        size = self._position if size is None else size
        self._has_changed |= size != self._size
        self._size = size
        if not self.is_view and self._size > self._committed:
            self._attempt(disk.allocate, self._fd, self._size)
        return self._size

    def flush(self) -> None:
        """Do nothing: HDF5 flushes when it likes, and only a commit means something."""

    def close(self) -> None:
        """Close the file; what was not committed is forgotten."""
        if not self.closed:
            os.close(self._fd)
        super().close()

    def _write_now(self, start: int, data: NDArray[np.uint8]) -> None:
        self._attempt(disk.write, self._fd, data.data, start)

    def _attempt(self, operation: Any, *arguments: Any) -> None:
        if self.error is None:
            try:
                operation(*arguments)
            except OSError as error:
                self.error = error

    # --- what the project asks for; HDF5 must have been closed, so that all it knows has been written ---

    def commit(self, reserved: Sequence[Extent] = ()) -> None:
        """Make all that was written the committed state, but for the content of `reserved` space, to be lent next.

        Raises
        ------
        OSError
            The disk failed, now or in a write before. The old state stands; only where the disk fails while a complete
            journal is applied, or later, the new state does, and the next opening completes it.
        """
        if self.is_view:
            raise RuntimeError(f"{self.path} is only looked at")
        if self.error is not None:
            raise self.error
        disk.sync(self._fd)
        if self._unborn:
            self._be_born()
        elif self._has_changed:
            for start, stop in reserved:
                self._overlay.forget(start, stop)
            self._bring_in(self._write_journal())
        else:
            self.lend([])
            self.finish()

    def finish(self, patience: float = 0.0) -> bool:
        """Bring into the file what was put off, waiting some seconds for readers; return whether all is in it.

        Raises `OSError` as `commit` does.
        """
        if self.is_view or self.error is not None or self._kept is None:
            return True
        self._overlay, self._size = self._kept.copy(), self._committed
        self._bring_in(self._journal(self._overlay, self._size), patience)
        return self._kept is None

    def _be_born(self) -> None:
        new = names.unborn_path(self.path)
        if os.path.lexists(self.path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path))
        disk.rename(new, self.path)
        self._unborn = False
        self._begin_anew()
        disk.sync_folder(self.path.parent)

    def _begin_anew(self) -> None:
        """Take the file as it is for the committed state, whatever may still fail."""
        self._committed = self._still = self._size
        self._overlay, self._kept, self._has_changed = _Overlay(), None, False
        self.lend([])

    def _journal(self, overlay: _Overlay, size: int) -> Journal:
        runs = list(overlay.runs(min(self._still, size)))
        old = [os.pread(self._fd, len(new), start) for start, new in runs]
        return Journal(size, [start for start, _ in runs], old, [new for _, new in runs])

    def _write_journal(self) -> Journal:
        """Make the new state certain, beside the old one."""
        journal = self._journal(self._overlay, self._size)
        path = names.journal_of(self.path)
        aside = names.unborn_path(path)
        try:
            _write_synced(disk.create(aside, self.path), journal.encoded())
            names.note_journal(self.path)
            disk.rename(aside, path)
        except OSError as error:
            self.error = error
            if self._kept is None:
                names.forget_journal(self.path)
            disk.remove(aside)
            raise
        try:
            disk.sync_folder(path.parent)
        except OSError as error:
            self.error = error
            self._is_stuck = self._kept is not None  # the journal that this one replaced does not come back
            if not self._is_stuck:
                _retire(self.path, path)
            raise
        return journal

    def _bring_in(self, journal: Journal, patience: float = 0.0) -> None:
        """Bring the new state into the file, or put that off where others have it open."""
        try:
            with looking.alone(self._fd, self.path, patience) as is_alone:
                if is_alone:
                    _bring_in(self.path, self._fd, names.journal_of(self.path), journal)
        except OSError as error:
            self.error, self._is_stuck = error, True
            raise
        if is_alone:
            self._begin_anew()
            return
        self._kept, self._has_changed, self._committed = self._overlay.copy(), False, self._size
        self._still = max(self._still, self._size)
        self.lend([])

    def roll_back(self) -> None:
        """Forget all that was written since the last commit."""
        self._overlay = _Overlay() if self._kept is None else self._kept.copy()
        self._size, self._has_changed = self._committed, False
        self.lend([])
        if not self._is_stuck:
            self.error = None
            self._attempt(disk.sync_folder, self.path.parent)  # as when opening
            self._attempt(disk.truncate, self._fd, self._still)


def _end_of_file(fd: int) -> int:
    """Return the length of the file by its HDF5 superblock (version 2 or 3), past which nothing was committed.

    HDF5 File Format Specification, level 0A: signature, version, two sizes, flags, base and extension address, end.
    """
    head = os.pread(fd, 36, 0)
    if len(head) < 36 or head[8] not in (2, 3) or head[9] != 8:
        return os.fstat(fd).st_size
    return int.from_bytes(head[28:36], "little")
