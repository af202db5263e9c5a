"""Thousands of damaged files against every reader: `python -m tests.fuzz.campaign --count 5000 --seed 1`.

The tries run in batches, each in a process of its own, so that a crash of a C library, a hang or a memory bomb ends
only that process and is put down to its try. `--only KIND` and `--again NUMBER` repeat one try in this process.
"""

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.samples import WRITERS, write_samples
from tests.fuzz.tries import batch, damaged, one_try, warm_up

KINDS = tuple(WRITERS)
BATCH = 250
HANG_SECONDS = 30.0
START_SECONDS = 120.0  # for the imports before the first try
SHARES = {
    "keras": 0.3,
    "zspy": 0.3,
    "emi": 0.3,
    "pipeline": 0.6,
    "hdf5": 3.0,
    "tiff": 2.0,
    "dm": 1.5,
    "project": 2.0,
    "report": 0.2,
}


def main() -> int:
    arguments = _arguments()
    kinds = arguments.only or list(KINDS)
    with tempfile.TemporaryDirectory(prefix="tomoseg-fuzz-") as name:
        folder = Path(name)
        if arguments.batch:
            batch(kinds[0], *arguments.batch, sorted(arguments.samples.iterdir()), folder)
            return 0
        if arguments.again is not None:
            return _again(kinds[0], arguments.again, folder, arguments.save)
        total = sum(SHARES.get(kind, 1.0) for kind in kinds)
        counts = {kind: round(arguments.count * SHARES.get(kind, 1.0) / total) for kind in kinds}
        failures = sum(_campaign(kind, counts[kind], arguments.seed, folder) for kind in kinds)
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.campaign", description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="tries over all kinds")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other damage")
    parser.add_argument("--only", action="append", choices=KINDS, help="this kind of file only; may be repeated")
    parser.add_argument("--again", type=int, metavar="NUMBER", help="repeat one try here, with its traceback")
    parser.add_argument("--save", type=Path, metavar="FILE", help="with --again: keep the damaged file")
    parser.add_argument("--batch", type=int, nargs=2, metavar=("FIRST", "LAST"), help=argparse.SUPPRESS)
    parser.add_argument("--samples", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _again(kind: str, number: int, folder: Path, save: Path | None) -> int:
    samples = write_samples(kind, folder / "samples")
    if save is not None:
        save.write_bytes(damaged(kind, number, samples)[1])
    warm_up(kind, samples, folder)
    outcome = one_try(kind, number, samples, folder)
    print(outcome.sample, outcome.result, f"{outcome.peak_mb} MB, {outcome.seconds} s", outcome.detail, sep="\n")
    return 0 if outcome.result in {"read", "refused"} else 1


def _campaign(kind: str, count: int, seed: int, folder: Path) -> int:
    """Make all tries of one kind, print one line, and one per failure; return the number of failures."""
    samples = folder / kind
    write_samples(kind, samples)
    results: Counter[str] = Counter()
    failed: list[dict[str, Any]] = []
    peak, slowest, begin = 0.0, 0.0, time.monotonic()
    for outcome in outcomes(kind, seed * 1_000_000, count, samples):
        results[outcome["result"]] += 1
        peak, slowest = max(peak, outcome["peak_mb"]), max(slowest, outcome["seconds"])
        if outcome["result"] not in {"read", "refused"}:
            failed.append(outcome)
    print(
        f"{kind:9} {count:6} tries, {results['read']:6} read, {results['refused']:6} clear errors, {len(failed):4} "
        f"failures; at most {peak:.0f} MB and {slowest:.1f} s; {time.monotonic() - begin:.0f} s in all",
        flush=True,
    )
    for outcome in failed:
        last = outcome["detail"].strip().splitlines()[-1:] or [""]
        print(
            f"    --only {kind} --again {outcome['number']}: {outcome['sample']}: {outcome['result']}: {last[0][:300]}"
        )
    return len(failed)


def outcomes(kind: str, first: int, count: int, samples: Path) -> Iterator[dict[str, Any]]:
    """Yield the outcome of every try, in processes that are replaced when they die."""
    at, end = first, first + count
    while at < end:
        last = min(at + BATCH, end)
        for outcome in _one_batch(kind, at, last, samples):
            yield outcome
            at = outcome["number"] + 1


def _one_batch(kind: str, first: int, last: int, samples: Path) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.fuzz.campaign", "--only", kind, "--samples", str(samples)]
    child = subprocess.Popen(
        [*command, "--batch", str(first), str(last)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines: queue.Queue[str | None] = queue.Queue()
    noise: list[str] = []
    readers = [
        threading.Thread(target=lambda: ([lines.put(line) for line in child.stdout] and None) or lines.put(None)),
        threading.Thread(target=lambda: noise.extend(child.stderr)),
    ]
    for reader in readers:
        reader.start()
    running, wait = None, START_SECONDS
    try:
        while True:
            try:
                line = lines.get(timeout=wait)
            except queue.Empty:
                line = None
                child.kill()
                yield _dead(running if running is not None else first, "hang", f"no end within {wait:.0f} s")
                return
            if line is None:
                break
            message = json.loads(line)
            running, wait = message.get("start"), HANG_SECONDS
            if running is None:
                yield message
        if child.wait() != 0:
            number = running if running is not None else first
            yield _dead(number, "crash", f"exit {child.returncode}: {' '.join(noise)[-500:]}")
    finally:
        child.kill()
        child.wait()
        for reader in readers:
            reader.join()
        child.stdout.close()
        child.stderr.close()


def _dead(number: int, result: str, detail: str) -> dict[str, Any]:
    return {"number": number, "sample": "?", "result": result, "detail": detail, "peak_mb": 0.0, "seconds": 0.0}


if __name__ == "__main__":
    sys.exit(main())
