"""Speed of a network by each engine: ms per patch as a ratio to Keras in the same run, and slices per second.

    python benchmarks/segmentation_speed.py                        a compact network of 2.1 million weights, 512 px
    python benchmarks/segmentation_speed.py --model MODEL.keras --engines keras openvino --slices 702

Patches are timed engine by engine in turns, so that what else the machine does falls on all of them; the median of each
is given, and the processor time, which hardly depends on other work. Slices of 1024 x 512 are then segmented by the
stage as a whole, from a volume in memory, each engine in a process of its own; fewer than the paper's 702 are
extrapolated, and that is said.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.classes import default_colors, default_names
from tomoseg.io.digest import sha256
from tomoseg.runtime import Runtime, Stopwatch, available_cpus
from tomoseg.segmentation.data.intensity_scaling import Scale, Scaling
from tomoseg.segmentation.inference.engines import engine_for, problem_with
from tomoseg.segmentation.networks.card import ModelCard

PAPER_SLICES, HEIGHT, WIDTH = 702, 512, 1024
LEVELS = (0.0, 55.0, 250.0)


def make_model(path: Path, architecture: str, depth: int, base_filters: int) -> None:
    """Save an untrained network: its speed is that of a trained one."""
    from tomoseg.segmentation.networks.builders import build
    from tomoseg.segmentation.networks.model_file import save_model

    scaling = Scaling("levels", "uint8", Scale(LEVELS[0], LEVELS[1], -0.1, 4.6))
    card = ModelCard(default_names(3), default_colors(3), scaling, 512, 2 ** (depth - 1))
    save_model(build(architecture, 3, 1, depth, base_filters, seed=0), path, card)


def busy_seconds() -> float:
    """Return the processor time that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def time_patches(path: Path, engines: list[str], patch: int, workers: int, repeats: int) -> None:
    """Print the time of a patch by each engine."""
    from tomoseg.segmentation.networks.keras_setup import prepare
    from tomoseg.segmentation.networks.model_file import load_model

    runtime, shape = Runtime(device="cpu", workers=workers), (1, patch, patch)
    prepare(runtime)
    model, card = load_model(path)
    image = np.random.default_rng(0).normal(1, 1, (*shape, card.channels)).astype(np.float32)
    ready = {name: engine_for(name, model, sha256(path), [shape], runtime) for name in engines}
    expected = ready[engines[0]](image)
    wall: dict[str, list[float]] = {name: [] for name in engines}
    busy: dict[str, list[float]] = {name: [] for name in engines}
    for name, engine in ready.items():
        print(f"{name} {engine.version}: differs from {engines[0]} by {np.abs(engine(image) - expected).max():.1e}")
    for _ in range(repeats):
        for name, engine in ready.items():
            watch, before = Stopwatch(), busy_seconds()
            engine(image)
            wall[name].append(1e3 * watch.seconds)
            busy[name].append(1e3 * (busy_seconds() - before))
    for name in engines:
        ratio, of_busy = (statistics.median(t[name]) / statistics.median(t[engines[0]]) for t in (wall, busy))
        print(
            f"{name}: {statistics.median(wall[name]):.0f} ms per patch of {patch} px on {workers} threads "
            f"({ratio:.2f} x {engines[0]}), {statistics.median(busy[name]):.0f} ms of processor time ({of_busy:.2f} x)"
        )


def time_slices(path: Path, engine: str, slices: int, workers: int) -> None:
    """Segment slices with the stage; print time and peak memory as JSON."""
    from tomoseg.segmentation.parameters import SegmentParameters
    from tomoseg.stages.segment import STAGE

    rng = np.random.default_rng(0)
    volume = np.empty((HEIGHT, slices, WIDTH), np.float32)
    z, x = np.indices((HEIGHT, WIDTH))
    body = np.where(np.hypot((z - HEIGHT / 2) / 0.35 / HEIGHT, (x - WIDTH / 2) / 0.4 / WIDTH) < 1, LEVELS[1], LEVELS[0])
    body[np.hypot(z - HEIGHT / 2, x - WIDTH / 2) < 20] = LEVELS[2]
    for y in range(slices):
        volume[:, y] = body + rng.normal(0, 6, body.shape)
    outputs, watch, before = MemoryOutputs(), Stopwatch(), busy_seconds()
    parameters = SegmentParameters(model=path, engine=engine)
    runtime = Runtime(device="cpu", workers=workers, max_memory=3 << 30)
    STAGE.run(volume=MemoryInput(volume), params=parameters, runtime=runtime, outputs=outputs)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    arrays = volume.nbytes + sum(a.nbytes for a in outputs.arrays.values())
    busy = busy_seconds() - before
    print(json.dumps({"seconds": watch.seconds, "busy": busy, "peak": peak, "arrays": arrays}))


def report_slices(path: Path, engine: str, slices: int, workers: int) -> None:
    """Print how fast slices are segmented by a process of its own; starting up is in both of two runs, and told."""
    few = max(4, slices // 8)

    def measured(n: int) -> dict[str, float]:
        command = [sys.executable, "-W", "ignore", __file__, "--model", path, "--engines", engine, "--only-slices", n]
        done = subprocess.run(
            [*map(str, command), "--workers", str(workers)], check=True, stdout=subprocess.PIPE, text=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    first, second = measured(few), measured(slices)
    each, busy = ((second[key] - first[key]) / (slices - few) for key in ("seconds", "busy"))
    whole = "measured whole" if slices == PAPER_SLICES else f"extrapolated from {slices} slices"
    total = second["seconds"] + each * (PAPER_SLICES - slices)
    beside = (second["peak"] - second["arrays"]) / 2**30
    print(
        f"{engine}: {1 / each:.2f} slices of {WIDTH} x {HEIGHT} per second, {busy:.2f} s of processor time each; "
        f"{PAPER_SLICES} of them in {total / 60:.1f} min ({whole}); peak memory {beside:.2f} GiB beside the volume and "
        "the labels"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a trained network; one of random weights by default")
    parser.add_argument("--architecture", default="compact")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--base-filters", type=int, default=16)
    parser.add_argument("--engines", nargs="+", default=["keras", "openvino", "openvino-bf16", "onnxruntime"])
    parser.add_argument("--patch", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--slices", type=int, default=48, help=f"0: none; {PAPER_SLICES}: nothing is extrapolated")
    parser.add_argument("--workers", type=int, default=available_cpus())
    parser.add_argument("--only-slices", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_slices:
        time_slices(options.model, options.engines[0], options.only_slices, options.workers)
        return
    engines = [name for name in options.engines if not problem_with(name)]
    for name in set(options.engines) - set(engines):
        print(f"left out: {problem_with(name)}")
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or Path(folder, "network.keras")
        if options.model is None:
            make_model(path, options.architecture, options.depth, options.base_filters)
        print(time.strftime("%Y-%m-%d"), f"{path.stat().st_size / 4e6:.1f} million weights, {options.workers} threads")
        time_patches(path, engines, options.patch, options.workers, options.repeats)
        for name in engines if options.slices else []:
            report_slices(path, name, options.slices, options.workers)


if __name__ == "__main__":
    main()
