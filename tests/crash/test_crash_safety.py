"""A project survives whatever happens while it is written: a quick part of `tests.crash.campaign`.

Every operation of one small commit is tried in all ways, of the whole scenario a sample, and the real command is killed
twice. That the tests would find a loss is tested by leaving out what prevents it.
"""

import errno
import random
import signal
from itertools import pairwise
from unittest import mock

import pytest

from tests.crash.check import NOTHING, Checker, Lost, after, record
from tests.crash.faults import Raising, disk_fault, stage_fault
from tests.crash.kills import finished, strike
from tests.crash.operations import Create, Remove, Rename, Sync, SyncFolder, Write
from tests.crash.recorder import Faults, interposed, without_waiting
from tests.crash.replay import crashes
from tests.crash.scenario import COMMANDS, small_steps, write_series
from tomoseg.project import opened
from tomoseg.project.probe import survives

SEED = 1


@pytest.fixture(scope="module")
def checker(tmp_path_factory):
    """Return a checker with the undisturbed run; steps stay small as long as the tests of this module run."""
    folder = tmp_path_factory.mktemp("scenario")
    raw = write_series(folder)
    with small_steps():
        (folder / "recorded").mkdir()
        with interposed(without_waiting):
            history = record(folder / "recorded", raw)
        yield Checker(history, raw, folder / "crashed")


def commits_of(history, command):
    """Return [(first operation, operation after the last)] of every commit of a command, but that of a new project."""
    first, last = history.ends[command].ops, history.ends[command + 1].ops
    ends = [0, *(n for n in history.commits.ops if n)]
    return [(a, b) for a, b in pairwise(ends) if first <= a and b <= last]


def journals(history):
    """Return the operation at which each journal is created."""
    files = [i for i, op in enumerate(history.ops) if isinstance(op, Create) and op.name.endswith(".journal.tomoseg")]
    assert len(files) > 20
    return files


def try_points(checker, points, variants, *, look_only=False, ops=None):
    """Crash at each; return the losses found."""
    history, losses = checker.history, []
    for point, kind, folder in crashes(history.log.start, ops or history.ops, points, variants, SEED):
        possible = history.commits.possible(point)
        try:
            if look_only:
                checker.glance(folder, possible)
            else:
                checker.check(folder, possible, history.command(point))
        except Lost as lost:
            losses.append(f"{kind} at operation {point}: {lost}")
    return losses


# --- the scenario does what it is there for


@pytest.mark.slow
def test_the_scenario_walks_through_every_way_of_writing(checker):
    history = checker.history
    kinds = {type(op) for op in history.ops}
    assert kinds >= {Create, Write, Sync, SyncFolder, Rename, Remove}
    partial = [name for state in history.commits.states for name in state.partial]
    assert {name: partial.count(name) > 5 for name in ("reconstruct", "segment")} == {"reconstruct": 1, "segment": 1}
    sizes = [len(end.folder["p.h5"]) for end in history.ends[1:]]
    assert sizes[-1] < 2.5 * sizes[0]  # the space of replaced results is used again, but where somebody looked
    assert len({repr(sorted(end.results.items())) for end in history.ends}) == len(COMMANDS) + 1


def test_the_log_accounts_for_every_byte_of_the_project(checker):
    assert checker.history.log.disk().killed() == checker.history.ends[-1].folder


# --- crashes


@pytest.mark.slow
def test_every_operation_of_one_commit(checker):
    """A checkpoint of the second run, whose journal changes the middle of the file."""
    first, last = next(
        (a, b)
        for a, b in commits_of(checker.history, 1)
        if checker.history.commits.possible(a)[0].partial and b - a < 60
    )
    assert try_points(checker, range(first, last + 1), 8, look_only=True) == []


@pytest.mark.slow
def test_points_of_the_whole_scenario(checker):
    points = sorted(random.Random(SEED).sample(range(len(checker.history.ops) + 1), 8))
    assert try_points(checker, points, 1) == []


@pytest.mark.parametrize("stage", ["reconstruct", "segment"])
def test_a_checkpoint_is_gone_on_from(checker, stage):
    commits, before = checker.history.commits, checker.resumed
    point = next(op for op, state in zip(commits.ops, commits.states, strict=True) if stage in state.partial)
    assert try_points(checker, [point], 1) == []
    assert checker.resumed > before


def test_the_birth_of_a_project(checker):
    """Before the import is committed there is no project, and afterwards there always is."""
    renamed = next(i for i, op in enumerate(checker.history.ops) if isinstance(op, Rename))
    assert checker.history.commits.possible(renamed)[0] is NOTHING
    assert try_points(checker, range(renamed - 4, renamed + 4), 6, look_only=True) == []


@pytest.mark.slow
def test_a_second_crash_while_the_first_is_recovered_from(checker):
    """What the killed process had not synced is seen by the next one, and may vanish all the same."""
    history = checker.history
    for created in journals(history)[5:7]:
        for number in (created + 2, created + 5):  # the journal is written, not synced; it is being applied
            command, possible = history.command(number), history.commits.possible(number)
            dead = history.log.disk(number)
            checker.lay(dead.killed())
            with interposed(without_waiting):
                log, commits = after(dead, checker, command, possible)
                for at, kind, folder in crashes(dead, log.ops, range(12), 3, SEED):
                    checker.lay(folder)
                    assert checker.recovered(commits.possible(at)) is not NOTHING, (number, at, kind)


# --- failures


@pytest.mark.parametrize(("error", "lasting"), [(errno.ENOSPC, True), (errno.ENOSPC, False), (errno.EIO, False)])
def test_a_failing_write_or_allocation_ends_in_a_clear_error(checker, error, lasting):
    n = checker.history.ends[2].ops - checker.history.ends[1].ops
    at = random.Random(f"{SEED} {error} {lasting}").randrange(n // 4, n // 2)
    assert disk_fault(checker, 1, Faults(at, error, lasting=lasting, partly=True)) == "failed"


@pytest.mark.parametrize("error", [ValueError("a stage went wrong"), MemoryError(), KeyboardInterrupt()])
def test_an_exception_inside_a_stage(checker, error):
    assert stage_fault(checker, 2, Raising(error, 1)) == "failed"


# --- the real command


def test_the_real_command_killed_twice(small_run, tmp_path):
    expected = [finished(small_run.project, 6.0)]
    tally = strike(small_run.raw, expected, tmp_path / "p", 2, SEED, signal.SIGKILL, phases=[()])
    assert tally.problems == []
    assert tally.blows == 2


# --- these tests would find a loss


def without(history, is_left_out):
    """Return the operations, some of them not having been performed; their numbers stay as they are."""
    return [SyncFolder() if is_left_out(op) else op for op in history.ops]


def test_a_loss_is_found_where_the_journal_is_not_synced(checker):
    """Names are certain here from the start, so that it is the content alone that is missing."""
    made = {op.file for op in checker.history.ops if isinstance(op, Create) and op.name.endswith(".journal.tomoseg")}
    ops = without(checker.history, lambda op: isinstance(op, Sync) and op.file in made)
    assert losses_around_journals(checker, ops)


def test_a_loss_is_found_where_data_are_not_synced_before_the_journal(checker):
    history = checker.history
    before = {max(i for i, op in enumerate(history.ops[:j]) if isinstance(op, Sync)) for j in journals(history)}
    ops = [SyncFolder() if i in before else op for i, op in enumerate(history.ops)]
    assert losses_around_journals(checker, ops)


def test_a_loss_is_found_where_the_journal_is_applied_before_it_is_written(checker):
    """The writes of the journal come after those to the project: a crash between them leaves half a commit."""
    ops = list(checker.history.ops)
    for j in journals(checker.history):
        end = next(i for i in range(j, len(ops)) if isinstance(ops[i], Remove))
        ours = [op for op in ops[j:end] if isinstance(op, Create | Rename) or getattr(op, "file", 0) != 0]
        ops[j:end] = [op for op in ops[j:end] if op not in ours] + ours
    assert losses_around_journals(checker, ops)


def test_a_loss_is_found_where_no_file_is_ever_synced(checker):
    ops = without(checker.history, lambda op: isinstance(op, Sync))
    assert losses_around_journals(checker, ops)


def losses_around_journals(checker, ops):
    """Return what is lost in the midst of a few commits; a damaged file is first read in a process of its own."""
    with mock.patch.object(opened, "survives", survives):
        for point in (j + i for j in journals(checker.history)[8:14] for i in range(1, 12)):
            if losses := try_points(checker, [point], 4, look_only=True, ops=ops):
                return losses
    return []
