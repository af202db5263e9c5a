"""A sample of the crash campaign (`python -m tests.crash.campaign`), the same every time."""

import random

import pytest

from tests.crash.campaign import Figures, spread, try_faults
from tests.crash.check import Checker, record
from tests.crash.replay import Disk, crashes
from tests.crash.scenario import small_steps, write_series


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return the undisturbed run, and what looks at crashes of it."""
    folder = tmp_path_factory.mktemp("crash")
    with small_steps():
        raw = write_series(folder)
        (folder / "undisturbed").mkdir()
        history = record(folder / "undisturbed", raw)
        yield history, Checker(history, raw, folder / "crashed")


def test_a_stopped_run_loses_nothing_and_goes_on_to_the_same_bits(recorded):
    history, checker = recorded
    points = [p + random.Random(p).randrange(9) for p in spread(len(history.ops) - 9, 4)]
    for point, _kind, found in crashes(Disk({}), history.ops, points, 1, 1):
        checker.check(found, history.commits.possible(point), history.command(point))
    assert checker.looked > 10
    assert checker.resumed > 0  # some went on from a checkpoint


def test_a_disk_that_fails_is_told_and_loses_nothing(recorded):
    history, checker = recorded
    found = Figures()
    try_faults(history, checker, 3, 2, found)
    assert found.losses == []
