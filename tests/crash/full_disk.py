"""The real command on a file system that really is full: a tmpfs of too few bytes, enlarged afterwards."""

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.crash.kills import PHASES, Experiment, Tally, Undisturbed, Wrong

ENOUGH = 1 << 30
CLONE_NEWNS = 0x00020000  # unshare(2)


def mounts_privately() -> bool:
    """Let this thread and its children mount file systems that nobody else sees, and that vanish with them.

    Returns whether that is permitted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True).returncode == 0


def fill(raw: Path, expected: Sequence[Undisturbed], folder: Path, sizes: int) -> Tally:
    """Run each phase on disks of `sizes` sizes, from almost nothing to just enough; continue when there is space."""
    tally = Tally()
    for phase in range(len(PHASES)):
        most = _space_for(raw, expected, folder, phase)
        for i in range(sizes):
            left = int(most * (i + 0.5) / sizes)
            try:
                _fill_once(raw, expected, folder, phase, left, tally)
            except Wrong as problem:
                tally.problems.append(f"phase {phase} with {left} bytes left: {problem}")
    return tally


def _space_for(raw: Path, expected: Sequence[Undisturbed], folder: Path, phase: int) -> int:
    """Return the bytes that a phase adds to what earlier ones took, and a tenth more: a peak may be higher."""
    with _tmpfs(folder, ENOUGH):
        used = [0]
        for number in range(phase + 1):
            experiment = Experiment(raw, folder / "p.h5", PHASES[number])
            experiment.complete(expected[number])
            used.append(_used(folder))
        return int(1.1 * (used[-1] - used[-2]))


def _fill_once(raw: Path, expected: Sequence[Undisturbed], folder: Path, phase: int, left: int, tally: Tally) -> None:
    with _tmpfs(folder, ENOUGH):
        for number in range(phase):
            Experiment(raw, folder / "p.h5", PHASES[number]).complete(expected[number])
        _resize(folder, _used(folder) + left)
        experiment = Experiment(raw, folder / "p.h5", PHASES[phase])
        experiment.begin()
        code, said = experiment.run()
        experiment.look(said)
        tally.blows += code != 0
        tally.finished += code == 0
        if code != 0:
            _must_be_clear(code, said)
        _resize(folder, ENOUGH)
        experiment.complete(expected[phase])


def _must_be_clear(code: int, said: str) -> None:
    """See that the last that was said is one paragraph which names the cause."""
    last = [line for line in said.splitlines() if line.strip()][-1]
    causes = ("No space left", "free space", "cannot be written to")
    if code not in (1, 2) or "Traceback" in said or not any(cause in last for cause in causes):
        raise Wrong(f"exit {code}, and said {said[-600:]!r}")


def _used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@contextmanager
def _tmpfs(folder: Path, size: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def _resize(folder: Path, size: int) -> None:
    _mount("-o", f"remount,size={size}", folder)


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)
