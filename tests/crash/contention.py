"""Many processes want one lock, and some are killed while they hold it: it is never held by two at once."""

import mmap
import multiprocessing
import os
import random
import signal
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tomoseg.errors import ProjectLocked
from tomoseg.project import lock

KILLED = 0.03  # of those who hold it
HELD_SECONDS = 2e-4


@dataclass
class Tally:
    """What happened; `at_once` counts those who met another holder."""

    acquired: int = 0
    refused: int = 0
    at_once: int = 0
    killed: int = 0


class _Board:
    """Shared memory: who holds the lock, and what each process has counted."""

    def __init__(self, processes: int) -> None:
        self.memory = mmap.mmap(-1, 8 * (1 + 3 * processes))

    def get(self, place: int) -> int:
        return int(struct.unpack_from("q", self.memory, 8 * place)[0])

    def put(self, place: int, value: int) -> None:
        struct.pack_into("q", self.memory, 8 * place, value)

    def add(self, place: int) -> None:
        self.put(place, self.get(place) + 1)


def contend(folder: Path, *, way: str, acquisitions: int, processes: int, seed: int) -> Tally:
    """Have processes take and leave a lock, until they had it so many times; killed ones are replaced.

    `way` is 'kernel', or 'names' as on a file system without locks.
    """
    board, tally, running = _Board(processes), Tally(), dict[int, multiprocessing.process.BaseProcess]()
    fork, begun = multiprocessing.get_context("fork"), 0
    while sum(board.get(1 + 3 * i) for i in range(processes)) < acquisitions:
        for i in range(processes):
            if i in running and running[i].is_alive():
                continue
            tally.killed += i in running
            begun += 1
            running[i] = fork.Process(target=_want, args=(folder / "p.h5", way, board, i, f"{seed} {begun}"))
            running[i].start()
        time.sleep(0.01)
    for process in running.values():
        process.terminate()
        process.join()
    counts = [[board.get(1 + 3 * i + k) for i in range(processes)] for k in range(3)]
    tally.acquired, tally.refused, tally.at_once = map(sum, counts)
    return tally


def _want(path: Path, way: str, board: _Board, number: int, seed: str) -> None:
    """Take the lock and leave it, for ever."""
    rng, me = random.Random(seed), os.getpid()
    acquired, refused, at_once = (1 + 3 * number + k for k in range(3))
    with mock.patch.object(lock, "_has_locks", return_value=way == "kernel"):
        while True:
            try:
                held = lock.take(path, str, break_lock=False)
            except ProjectLocked:
                board.add(refused)
                time.sleep(rng.random() * HELD_SECONDS)
                continue
            board.put(0, me)
            if rng.random() < KILLED:
                os.kill(me, signal.SIGKILL)
            time.sleep(rng.random() * HELD_SECONDS)
            if board.get(0) != me:
                board.add(at_once)
            board.add(acquired)
            held.release()
