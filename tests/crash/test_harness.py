"""The recorder and the model of a disk, on logs made by hand."""

import errno
import os
import random

import pytest

from tests.crash.operations import Create, Remove, Rename, Resize, Sync, SyncFolder, Write
from tests.crash.recorder import Faults, Recorder, interposed
from tests.crash.replay import Disk, crashes
from tomoseg.project import disk

MANY = 300  # seeds: each of the outcomes below has a probability over 5 %, so that missing one has under 1e-6


def outcomes(ops, op=None, initial=None):
    """Return all folders found after power losses, as a set of sorted (name, content)."""
    model = Disk(initial or {})
    for each in ops:
        model.apply(each)
    found = (model.powered_off(op, random.Random(seed)) for seed in range(MANY))
    return {tuple(sorted(folder.items())) for folder in found}


def work(folder):
    """Use every operation; returns the open descriptors."""
    one = disk.create(folder / "a.new")
    disk.allocate(one, 100)
    disk.write(one, b"hello", 3)
    disk.sync(one)
    disk.rename(folder / "a.new", folder / "a")
    two = disk.create(folder / "b")
    disk.write(two, memoryview(b"journal"), 0)
    disk.sync_folder(folder)
    disk.remove(folder / "b")
    disk.remove(folder / "b")
    three = disk.create(folder / "b")
    disk.write(three, b"again", 0)
    disk.truncate(one, 50)
    old = os.open(folder / "old", os.O_RDWR)
    disk.write(old, b"XY", 1)
    return [one, two, three, old]


def test_a_log_tells_every_operation_and_replays_to_the_real_folder(tmp_path):
    (tmp_path / "old").write_bytes(b"12345")
    recorder = Recorder(tmp_path)
    with interposed(recorder):
        for fd in work(tmp_path):
            os.close(fd)
    assert recorder.log.start.killed() == {"old": b"12345"}
    assert recorder.log.ops == [
        Create(1, "a.new"),
        Resize(1, 100),
        Write(1, 3, b"hello"),
        Sync(1),
        Rename("a.new", "a"),
        Create(2, "b"),
        Write(2, 0, b"journal"),
        SyncFolder(),
        Remove("b"),
        Create(3, "b"),
        Write(3, 0, b"again"),
        Resize(1, 50),
        Write(0, 1, b"XY"),
    ]
    assert recorder.log.disk().killed() == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_marks_stand_between_operations(tmp_path):
    recorder = Recorder(tmp_path)
    with interposed(recorder):
        recorder.mark("before")
        os.close(disk.create(tmp_path / "a"))
        recorder.mark("after")
    assert recorder.log.marks == [(0, "before"), (1, "after")]


def test_operations_are_themselves_again_afterwards(tmp_path):
    before = disk.write
    with interposed(Recorder(tmp_path)):
        assert disk.write is not before
    assert disk.write is before


def test_a_fault_hits_the_operation_asked_for_and_may_leave_half_a_write(tmp_path):
    recorder, faults = Recorder(tmp_path), Faults(2, errno.ENOSPC, partly=True)
    with interposed(faults), interposed(recorder):
        fd = disk.create(tmp_path / "a")
        disk.write(fd, b"1234", 0)
        with pytest.raises(OSError, match="No space left"):
            disk.write(fd, b"abcd", 4)
        disk.write(fd, b"xy", 4)
        os.close(fd)
    assert (tmp_path / "a").read_bytes() == b"1234xy"
    assert recorder.log.ops == [Create(0, "a"), Write(0, 0, b"1234"), Write(0, 4, b"ab"), Write(0, 4, b"xy")]
    assert faults.failed == "write"


def test_a_disk_that_stays_full_still_removes_and_syncs(tmp_path):
    with interposed(Faults(1, errno.ENOSPC, lasting=True)):
        fd = disk.create(tmp_path / "a")
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                disk.write(fd, b"1", 0)
        disk.sync(fd)
        os.close(fd)
        disk.remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_failed_sync_is_in_the_log(tmp_path):
    recorder = Recorder(tmp_path)
    with interposed(Faults(1, errno.EIO)), interposed(recorder):
        fd = disk.create(tmp_path / "a")
        with pytest.raises(OSError, match="Input/output"):
            disk.sync(fd)
        os.close(fd)
    assert recorder.log.ops[-1] == Sync(0, failed=True)


# --- the model


def test_what_was_synced_is_certain():
    ops = [Create(0, "a"), Write(0, 0, b"12"), Sync(0), SyncFolder()]
    assert outcomes(ops) == {(("a", b"12"),)}


def test_what_was_not_synced_may_have_happened_in_any_part():
    ops = [Create(0, "a"), Write(0, 0, b"12"), Sync(0), SyncFolder(), Write(0, 0, b"3"), Write(0, 1, b"4")]
    assert {dict(o)["a"] for o in outcomes(ops)} == {b"12", b"32", b"14", b"34"}


def test_overlapping_writes_may_arrive_in_any_order():
    ops = [Create(0, "a"), Write(0, 0, b"1"), Sync(0), SyncFolder(), Write(0, 0, b"2"), Write(0, 0, b"3")]
    assert {dict(o)["a"] for o in outcomes(ops)} == {b"1", b"2", b"3"}


def test_a_write_may_be_torn_at_any_byte_and_between_pages():
    size = 3 * 4096
    ops = [Create(0, "a"), Write(0, 0, b"0" * size), Sync(0), SyncFolder()]
    found = {dict(o)["a"] for o in outcomes(ops, Write(0, 0, b"1" * size))}
    assert any(content.count(b"1") % 4096 > 0 for content in found)
    assert b"0" * 4096 + b"1" * 4096 + b"0" * 4096 in found


def test_a_cut_may_come_before_or_after_a_write():
    ops = [Create(0, "a"), Write(0, 0, b"1234"), Sync(0), SyncFolder(), Resize(0, 2), Write(0, 3, b"x")]
    found = {dict(o)["a"] for o in outcomes(ops)}
    assert {b"1234", b"12", b"12\0x", b"123x"} <= found


def test_names_are_certain_only_after_the_folder_was_synced():
    ops = [Create(0, "a.new"), Write(0, 0, b"1"), Sync(0), Rename("a.new", "a")]
    found = outcomes(ops)
    assert found >= {(), (("a.new", b"1"),), (("a", b"1"),)}
    assert outcomes([*ops, SyncFolder()]) == {(("a", b"1"),)}


def test_a_removed_file_may_be_back_as_it_was():
    ops = [Create(0, "j"), Write(0, 0, b"1"), Sync(0), SyncFolder(), Remove("j"), Create(1, "j"), Sync(1)]
    assert outcomes(ops) == {(), (("j", b"1"),), (("j", b""),)}


def test_a_rename_replaces_at_once_or_not_at_all():
    ops = [Create(0, "a"), Write(0, 0, b"old"), Create(1, "b"), Write(1, 0, b"new"), Sync(0), Sync(1), SyncFolder()]
    assert outcomes(ops, Rename("b", "a")) == {(("a", b"old"), ("b", b"new")), (("a", b"new"),)}


def test_after_a_failed_sync_no_later_one_brings_back_what_it_dropped():
    ops = [Create(0, "a"), Sync(0), SyncFolder(), Write(0, 0, b"1"), Sync(0, failed=True), Write(0, 1, b"2"), Sync(0)]
    assert {dict(o)["a"] for o in outcomes(ops)} == {b"12", b"\0002"}
    assert {dict(o)["a"] for o in outcomes([*ops, Write(0, 0, b"3"), Sync(0)])} == {b"32"}  # written anew


def test_space_never_written_may_hold_anything():
    ops = [Create(0, "a"), Sync(0), SyncFolder(), Write(0, 100, b"1")]
    found = {dict(o)["a"] for o in outcomes(ops)}
    assert bytes(100) + b"1" in found
    assert any(len(content) == 101 and content[:100] != bytes(100) for content in found)


def test_a_process_that_is_killed_loses_nothing_it_did():
    start, ops = Disk({"a": b"1234"}), [Write(0, 0, b"56"), Create(1, "b"), Write(0, 2, b"78")]
    killed = [(point, folder) for point, kind, folder in crashes(start, ops, range(4), 0, 0) if kind == "killed"]
    assert killed == [
        (0, {"a": b"1234"}),
        (1, {"a": b"5634"}),
        (2, {"a": b"5634", "b": b""}),
        (3, {"a": b"5678", "b": b""}),
    ]


def test_the_write_at_hand_of_a_killed_process_may_have_begun():
    start, ops = Disk({"a": b"0" * 9}), [Write(0, 1, b"1234567")]
    found = [crash for seed in range(MANY) for crash in crashes(start, ops, [0], 0, seed)]
    torn = {folder["a"] for _, kind, folder in found if kind == "torn"}
    assert torn == {b"0" + b"1234567"[:n] + b"0" * (8 - n) for n in range(7)}


def test_the_same_seed_gives_the_same_crashes_at_a_point_whichever_are_asked_for():
    start, ops = Disk({}), [Create(0, "a"), *(Write(0, i, b"12") for i in range(9))]
    among_all = [crash for crash in crashes(start, ops, range(11), 4, 7) if crash[0] == 6]
    assert among_all == list(crashes(start, ops, [6], 4, 7))
    assert among_all != list(crashes(start, ops, [6], 4, 8))


def test_a_second_process_inherits_what_the_first_had_not_synced(tmp_path):
    """It sees all of it, since the system lives; but the power may fail now."""
    recorder = Recorder(tmp_path)
    with interposed(recorder):
        fd = disk.create(tmp_path / "a")
        disk.write(fd, b"1", 0)
        os.close(fd)
    dead = recorder.log.disk()
    second = Recorder(tmp_path, dead)
    with interposed(second):
        fd = os.open(tmp_path / "a", os.O_RDWR)
        disk.write(fd, b"2", 1)
        os.close(disk.create(tmp_path / "b"))
        os.close(fd)
    assert second.log.ops == [Write(0, 1, b"2"), Create(1, "b")]
    killed = [folder for _, kind, folder in crashes(dead, second.log.ops, [2], 0, 0) if kind == "killed"]
    assert killed == [{"a": b"12", "b": b""}]
    lost = [folder for seed in range(MANY) for _, kind, folder in crashes(dead, second.log.ops, [2], 1, seed)]
    assert {} in lost
    assert {"a": b"", "b": b""} in lost
