"""What a cluster gains, what it moves, and where it saturates.

    python benchmarks/cluster.py scaling --iterations 15 --rounds 2    # ten minutes: the paper's size
    python benchmarks/cluster.py scheduler --parts 10000               # two minutes: memory and time of the scheduler
    python benchmarks/cluster.py writer                                # seconds: slabs into a project file
    python benchmarks/cluster.py model                                 # at once: 64 nodes and 4096^3, from such figures

`scaling` compares one process of N threads with N workers of one thread each, from file to file, and the bytes of a
slab. `model` follows each slab through reading, the network, a worker, the network and the writer, whose times are
those that were measured; its options change them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from memory import Catalyst
from paper_size import THICKNESS, TILTS, WIDTH, Slices, tomoseg

from tomoseg.io import mrc

BLOCK = 16  # slices that a thread computes at the same time


def prepared(folder: Path) -> Path:
    """Return a project of the paper's size, aligned."""
    raw, project = folder / "raw.mrc", folder / "p.h5"
    series = Catalyst(WIDTH, TILTS, 200)
    mrc.write_mrc(raw, Slices(series), 0.25, kind="stack", label="benchmark")
    mrc.write_angles(raw.with_suffix(".rawtlt"), series.angles_deg)
    tomoseg("run", raw, "-o", project, "--set", "align.method=none", "--until", "align")
    return project


def scaling(options: argparse.Namespace) -> None:
    """Time one process against workers."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        project = prepared(Path(name))
        method = ("--z-size", THICKNESS, "--iterations", options.iterations, "--no-resolution", "--max-memory", "2G")
        for n in options.workers:
            times: dict[str, list[float]] = {"here": [], "workers": []}
            for _ in range(options.rounds):
                for what, further in (("here", ()), ("workers", ("--cluster", f"local:{n}"))):
                    began = time.perf_counter()
                    tomoseg("reconstruct", project, *method, "--workers", n, *further)
                    times[what].append(time.perf_counter() - began)
                    tomoseg("run", project, "--set", "align.method=none", "--until", "align", "--force")  # outdates it
            here, there = (statistics.median(times[what]) for what in ("here", "workers"))
            print(f"{n} threads here: {here:.1f} s; {n} workers: {there:.1f} s; efficiency {here / there:.1%}")
            print(f"  {json.dumps(times)}", flush=True)
    sent, back = 4 * TILTS * BLOCK * WIDTH, 4 * THICKNESS * BLOCK * WIDTH
    print(f"a slab of {BLOCK} slices: {sent / 1e6:.1f} MB to a worker, {back / 1e6:.1f} MB back")


def writer(options: argparse.Namespace) -> None:
    """Measure how fast slabs go into a project file, with a checkpoint after each."""
    from tomoseg.project import Project, Record

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        record = Record("reconstruct", "0" * 32, "f", 2, {}, {}, {}, "2026-01-01T00:00:00.000+00:00")
        slab = np.random.default_rng(0).random((THICKNESS, BLOCK, WIDTH), np.float32)
        began = time.perf_counter()
        with Project.create(Path(name, "p.h5")) as project, project.transaction(record) as outputs:
            volume = outputs.create("volume", (THICKNESS, BLOCK * options.slabs, WIDTH))
            for k in range(options.slabs):
                volume[:, BLOCK * k : BLOCK * (k + 1)] = slab
                outputs.checkpoint({"slices": BLOCK * (k + 1)})
            outputs.commit(record)
        print(f"{slab.nbytes * options.slabs / 1e9 / (time.perf_counter() - began):.2f} GB/s into a project file")


def nothing(_shared: None, _item: int, _runtime: object) -> int:
    """Do nothing on a worker."""
    return 0


def scheduler(options: argparse.Namespace) -> None:
    """Measure the memory of a scheduler and the time of a part that computes nothing."""
    import socket

    import psutil

    from tomoseg.cluster import DaskCluster, asked_for
    from tomoseg.runtime import Runtime

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    program = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", f"tcp://{address}"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://{address}", "--nthreads", "1"]
    started = [subprocess.Popen(program, env=environment, **quiet)]
    started += [subprocess.Popen([*worker, "--no-dashboard"], env=environment, **quiet) for _ in range(2)]
    time.sleep(5)
    cluster, runtime = DaskCluster(asked_for(address)), Runtime()
    try:
        process = psutil.Process(started[0].pid)
        items = [(f"part {k}", k) for k in range(options.parts)]
        cluster.connect(runtime)
        began, step = time.perf_counter(), max(1, options.parts // 5)
        for k, _ in enumerate(cluster.each(nothing, None, items, runtime)):
            if k % step == 0:
                print(f"{k} parts: {process.memory_info().rss / 2**20:.1f} MiB in the scheduler", flush=True)
        seconds = time.perf_counter() - began
        print(f"{options.parts} parts: {process.memory_info().rss / 2**20:.1f} MiB in the scheduler")
        print(f"{1e3 * seconds / options.parts:.1f} ms a part")
    finally:
        cluster.close()
        for one in reversed(started):
            one.terminate()
            one.wait()


def model(options: argparse.Namespace) -> None:
    """Follow the slabs of a volume through a cluster, and say what they wait for."""
    size, tilts = options.size, options.tilts
    # From the measured time of a voxel, tilt and iteration on a thread.
    per_block = options.ns * 1e-9 * BLOCK * size * size * tilts * options.iterations
    print(f"{size}^3 voxels, {tilts} tilts, {options.iterations} iterations; a block of {BLOCK} slices takes a thread")
    print(f"{per_block / 60:.1f} min. Network {options.network:.2f} GB/s, writer {options.write:.2f} GB/s.\n")
    print("nodes  threads  blocks a slab  hours  busy threads  waits for")
    for nodes in options.nodes:
        print(_followed(nodes, per_block, options))


def _followed(nodes: int, per_block: float, options: argparse.Namespace) -> str:
    """Return a row for so many nodes; each is given as many blocks at a time as tomoseg would give it."""
    size, n_blocks = options.size, -(-options.size // BLOCK)
    together = min(options.threads, -(-n_blocks // nodes))
    n_slabs = -(-n_blocks // together)
    sent, back = 4e-9 * options.tilts * BLOCK * together * size, 4e-9 * BLOCK * together * size * size  # GB
    compute = per_block  # blocks of a slab are computed at the same time
    free_at = np.zeros(nodes)  # when each node is free
    line, writer, began = 0.0, 0.0, np.zeros(n_slabs)
    network_busy = writer_busy = 0.0
    done: list[float] = []
    for k in range(n_slabs):
        if k >= 2 * nodes:
            line = max(line, done[k - 2 * nodes])  # so many are under way at most
        line += sent / options.network + options.overhead
        network_busy += sent / options.network
        node = int(np.argmin(free_at))
        began[k] = max(line, free_at[node])
        free_at[node] = began[k] + compute
        writer = max(writer, free_at[node] + back / options.network) + back / options.write
        writer_busy += back / options.write
        network_busy += back / options.network
        done.append(writer)
    total = done[-1]
    busy = n_blocks * per_block / (total * nodes * options.threads)
    shares = {
        "the writer": writer_busy / total,
        "the network": network_busy / total,
        "workers": busy * options.threads / together,
    }
    all_at_once = n_blocks <= nodes * options.threads
    waits = "a block, then the writer" if all_at_once else max(shares, key=lambda name: shares[name])
    return f"{nodes:5d}  {options.threads:7d}  {together:13d}  {total / 3600:5.2f}  {busy:12.0%}  {waits}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("scaling")
    one.add_argument("--iterations", type=int, default=15)
    one.add_argument("--rounds", type=int, default=2)
    one.add_argument("--workers", type=int, nargs="+", default=[2, 1])
    one.add_argument("--folder", type=Path, help="where 5 GB may lie for a while")
    one.set_defaults(run=scaling)
    one = commands.add_parser("scheduler")
    one.add_argument("--parts", type=int, default=10_000)
    one.set_defaults(run=scheduler)
    one = commands.add_parser("writer")
    one.add_argument("--slabs", type=int, default=44)
    one.add_argument("--folder", type=Path)
    one.set_defaults(run=writer)
    one = commands.add_parser("model")
    one.add_argument("--size", type=int, default=4096)
    one.add_argument("--tilts", type=int, default=180)
    one.add_argument("--iterations", type=int, default=40)
    one.add_argument("--nodes", type=int, nargs="+", default=[1, 4, 16, 64])
    one.add_argument("--threads", type=int, default=32, help="of a node")
    one.add_argument("--ns", type=float, default=0.6, help="of a thread for a voxel, tilt and iteration")
    one.add_argument("--network", type=float, default=1.2, help="GB/s into and out of the writer")
    one.add_argument("--write", type=float, default=0.35, help="GB/s into the project file")
    one.add_argument("--overhead", type=float, default=0.01, help="seconds of the scheduler for a slab")
    one.set_defaults(run=model)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
