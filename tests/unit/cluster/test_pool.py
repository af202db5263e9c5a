"""Parts on the workers of a real Dask cluster over TCP: order, bounds, and all that can go wrong with workers."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.dask_processes import DaskProcesses, free_port
from tomoseg.cluster import DaskCluster, asked_for, pool, start
from tomoseg.errors import InputError, Interrupted, StageFailed
from tomoseg.runtime import Runtime

pytest.importorskip("distributed")
dask = pytest.importorskip("dask")


def scaled(factor, number, runtime):
    runtime.say("this is said by each worker")
    runtime.say(f"{number} on {runtime.workers} thread")
    return factor * number


def process_id(seconds, _number, _runtime):
    time.sleep(seconds)
    return os.getpid()


def ends_once(flag, number, _runtime):
    """End the process that computes number 3, the first time."""
    if number == 3:
        try:
            flag.touch(exist_ok=False)
        except FileExistsError:
            return number
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return number


def hangs_once(flag, number, _runtime):
    if number == 2 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return number


def ends_always(_shared, number, _runtime):
    if number == 1:
        os._exit(3)
    return number


def fails(_shared, number, _runtime):
    if number == 1:
        raise StageFailed("there is nothing in slab 1")
    return number


def threads_and_memory(_shared, runtime):
    return runtime.workers, runtime.max_memory, runtime.device


def numbered(n):
    return [(f"slab {k}", k) for k in range(n)]


@pytest.fixture(scope="module")
def cluster():
    made = DaskCluster(asked_for("local:2"))
    runtime = Runtime(workers=4, max_memory=1 << 30)
    made.connect(runtime)
    yield made
    made.close()


@pytest.fixture
def runtime():
    return Runtime(workers=4, max_memory=1 << 30)


def test_results_come_in_order_and_what_workers_say_is_said_once(cluster, runtime):
    assert list(cluster.each(scaled, 10, numbered(9), runtime)) == [10 * k for k in range(9)]
    assert runtime.notes.count("this is said by each worker") == 1
    assert "8 on 2 thread" in runtime.notes


def test_a_worker_has_its_share_of_threads_and_memory(cluster, runtime):
    assert cluster.n_workers(runtime) == 2
    assert cluster.everywhere(threads_and_memory, None, runtime) == [(2, 1 << 29, "auto")] * 2


def test_both_workers_compute(cluster, runtime):
    assert len(set(cluster.each(process_id, 0.2, numbered(6), runtime))) == 2


def test_few_parts_are_taken_ahead(cluster, runtime):
    taken = []

    def items():
        for name, k in numbered(20):
            taken.append(k)
            yield name, k

    for k, _ in enumerate(cluster.each(scaled, 1, items(), runtime)):
        assert len(taken) <= k + pool.AHEAD * 2
    assert len(taken) == 20


def test_the_scheduler_holds_nothing_afterwards(cluster, runtime):
    list(cluster.each(scaled, 1, numbered(10), runtime))
    held = 1
    deadline = time.monotonic() + 10
    while held and time.monotonic() < deadline:
        held = cluster._client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        time.sleep(0.05)
    assert held == 0


def test_an_error_of_a_part_is_raised_as_it_is(cluster, runtime):
    with pytest.raises(StageFailed, match="there is nothing in slab 1"):
        list(cluster.each(fails, None, numbered(4), runtime))
    assert list(cluster.each(scaled, 1, numbered(2), runtime)) == [0, 1]


def test_other_versions_are_refused(cluster, runtime, monkeypatch):
    monkeypatch.setattr(pool, "__version__", "0.0.1")
    with pytest.raises(StageFailed, match=r"and this is 0\.0\.1: install the same version"):
        list(cluster.each(scaled, 1, numbered(1), runtime))


def test_the_part_of_a_killed_worker_is_computed_again(cluster, runtime, tmp_path):
    assert list(cluster.each(ends_once, tmp_path / "ended", numbered(10), runtime)) == list(range(10))
    assert (tmp_path / "ended").exists()


def test_a_part_that_hangs_is_given_to_another_worker(cluster, runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE_S", 1.0)
    assert list(cluster.each(hangs_once, tmp_path / "hung", numbered(6), runtime)) == list(range(6))
    (warning,) = [text for text in runtime.warnings if "slab 2 did not come back" in text]
    assert "another worker computes it, too" in warning


def test_a_part_that_ends_its_workers_is_named(runtime, monkeypatch):
    monkeypatch.setitem(start.SETTINGS, "distributed.comm.timeouts.connect", "2s")
    own = DaskCluster(asked_for("local:2"))
    try:
        with pytest.raises(StageFailed, match="slab 1 ended several workers one after the other"):
            list(own.each(ends_always, None, numbered(3), runtime))
    finally:
        own.close()


def test_a_time_budget_stops_the_waiting(cluster, runtime):
    runtime.stop_at = time.monotonic() + 1
    began = time.monotonic()
    with pytest.raises(Interrupted):
        list(cluster.each(process_id, 30, numbered(1), runtime))
    assert time.monotonic() - began < 5


def test_a_scheduler_that_goes_away_is_told(runtime, tmp_path):
    with DaskProcesses(tmp_path, 1) as processes:
        found = DaskCluster(asked_for(processes.address))
        found.connect(runtime)
        results = found.each(process_id, 0.1, numbered(400), runtime)
        assert next(results) == processes.workers[0].pid
        processes.scheduler.kill()
        with pytest.raises(StageFailed, match=f"the Dask scheduler at {processes.address} is gone"):
            list(results)
        found.close()


def test_a_file_that_no_scheduler_wrote_is_refused(tmp_path, runtime):
    path = tmp_path / "scheduler.json"
    path.write_text('{"workers": {}}')
    with pytest.raises(InputError, match="it names no address"):
        DaskCluster(asked_for(str(path))).connect(runtime)


def test_where_no_scheduler_answers_is_told(monkeypatch, runtime):
    monkeypatch.setattr(start, "CONNECT_S", 1)
    with pytest.raises(InputError, match="no Dask scheduler answers there"):
        DaskCluster(asked_for(f"127.0.0.1:{free_port()}")).connect(runtime)


def test_what_dask_is_told_of_tls_counts(runtime, tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    pair = {"key": str(tmp_path / "key.pem"), "cert": str(tmp_path / "cert.pem")}
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-keyout", pair["key"], "-out", pair["cert"]], check=True, capture_output=True)
    said = {"ca-file": pair["cert"], "scheduler": pair, "worker": pair, "client": pair}
    (tmp_path / "dask.json").write_text(json.dumps({"distributed": {"comm": {"tls": said}}}))
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path))
    client = {f"distributed.comm.tls.client.{name}": path for name, path in pair.items()}
    with DaskProcesses(tmp_path, 1, "tls") as processes:
        with dask.config.set({"distributed.comm.tls.ca-file": pair["cert"], **client}):
            found = DaskCluster(asked_for(processes.address))
            assert list(found.each(scaled, 3, numbered(4), runtime)) == [0, 3, 6, 9]
            found.close()
        with pytest.raises(InputError, match="name no certificates"):
            DaskCluster(asked_for(processes.address)).connect(runtime)
