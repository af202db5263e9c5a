"""The first reading in a child process: what becomes of crashes, of errors, and of memory."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.project.probe import MEMORY_BYTES, TOO_LARGE, survives


def raising(error):
    def read():
        raise error

    return read


def test_what_ends_survives_and_changes_nothing_here():
    found = []
    assert survives(lambda: found.append(1))
    assert found == []


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(3)])
def test_what_crashes_does_not_survive(end):
    assert not survives(end)


def test_more_memory_than_metadata_take_is_an_error_that_is_not_met_again_here():
    used = []

    def read():
        used.append(np.ones(MEMORY_BYTES // 4))

    with pytest.raises(OSError, match=TOO_LARGE):
        survives(read)
    assert used == []
    assert survives(lambda: np.ones(MEMORY_BYTES // 16))


@pytest.mark.parametrize("words", ["memory allocation failed for VL data", "Unable to allocate 5 GiB"])
def test_what_hdf5_says_of_memory_is_said_in_other_words(words):
    with pytest.raises(OSError, match=TOO_LARGE):
        survives(raising(OSError(f"Can't read data ({words})")))


def test_errors_come_back_with_their_words():
    with pytest.raises(InputError, match=r"^no \u00b5 of sense$"):
        survives(raising(InputError("no \u00b5 of sense")))
    with pytest.raises(OSError, match=r"^'no such name'$"):
        survives(raising(KeyError("no such name")))
    with pytest.raises(InputError, match=r"^\u00b5{2000}$"):
        survives(raising(InputError("\u00b5" * 100_000)))


def test_no_descriptor_is_left_open():
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        survives(lambda: None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
