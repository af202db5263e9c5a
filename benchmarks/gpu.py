"""Tests marked `gpu`, then what an NVIDIA GPU gains over the processor, as a table and as JSON: `make gpu`.

    python benchmarks/gpu.py --json gpu.json

Needs ASTRA with CUDA for the reconstruction, and Keras with torch or TensorFlow for the networks; what is missing is
named and left out. Every number is a median over repeats. With --device cpu the same is measured without a GPU, to try
the program.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from reconstruction import gpu_found, median_ms, projections, time_gpu

from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import in_blocks, mlem
from tomoseg.runtime import Runtime, available_cpus

Row = dict[str, Any]


def tests() -> Row:
    """Run the tests marked `gpu`; return how they ended."""
    if find_spec("pytest") is None:
        print("the tests are left out: pip install pytest")
        return {"ran": False}
    folder = Path(__file__).parents[1]
    options = ["-p", "no:cacheprovider", "-o", "addopts=", "-m", "gpu", "tests/gpu", "-q", "-rs"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options], cwd=folder, check=False, text=True,
                          capture_output=True)  # fmt: skip
    print(done.stdout.strip() or done.stderr.strip())
    return {"ran": True, "passed": done.returncode == 0, "summary": (done.stdout.strip().splitlines() or [""])[-1]}


def reconstruction(width: int, tilts: int, iterations: int, device: str, repeats: int) -> Row:
    """Compare MLEM on the GPU with the processor's: times per slice and iteration, and how far volumes agree."""
    geometry = ParallelGeometry(np.linspace(-68, 68, tilts), width, width, width)
    workers = available_cpus()
    data = projections(geometry, workers * CpuOperator.block)
    method = partial(mlem, iterations=iterations)
    n = data.shape[1] * iterations
    cpu_ms = median_ms(lambda: in_blocks(CpuOperator(geometry), method, data, workers), n, repeats)
    row: Row = {"width": width, "tilts": tilts, "iterations": iterations, "cpu_workers": workers, "cpu_ms": cpu_ms}
    if device == "cpu":
        return row
    from tomoseg.reconstruction.backends.astra import AstraCudaOperator

    operator, weights = AstraCudaOperator(geometry), np.ones((tilts, width), np.float32)
    names = ("slices_in_a_slab", "gpu_ms", "gpu_3d_kernels_ms", "gpu_sirt_ms")
    row |= {"em_cuda": bool(operator.keeps_mlem)}
    row |= dict(zip(names, time_gpu(operator, data, iterations, repeats), strict=True))
    few = data[:, : min(8, data.shape[1])]
    ours = in_blocks(CpuOperator(geometry), method, few, workers)
    for name, options in (("em_cuda", {}), ("3d_kernels", {"weights": weights})):
        theirs = in_blocks(operator, partial(mlem, iterations=iterations, **options), few, 1)
        row[f"rms_difference_{name}"] = float(np.sqrt(np.mean((theirs - ours) ** 2)) / np.sqrt(np.mean(ours**2)))
    operator.close()
    return row


def steps_per_second(step: Callable[[], object], seconds: float) -> float:
    """Return how often a step is done per second, after three to warm up; the median over five parts."""
    for _ in range(3):
        step()
    rates = []
    for _ in range(5):
        began, n = time.perf_counter(), 0
        while time.perf_counter() - began < seconds / 5 or n == 0:
            step()
            n += 1
        rates.append(n / (time.perf_counter() - began))
    return statistics.median(rates)


def networks(device: str, seconds: float) -> list[Row]:
    """Return training steps per second, and time and error of predictions in half precision."""
    if find_spec("keras") is None:
        print("networks are left out: pip install keras, and torch or tensorflow")
        return []
    from tomoseg.segmentation.networks.builders import build
    from tomoseg.segmentation.networks.keras_setup import keras, policy, policy_for, prepare
    from tomoseg.segmentation.networks.losses import make_loss
    from tomoseg.segmentation.training.parameters import preset
    from tomoseg.segmentation.training.trainer import make_optimizer

    runtime = Runtime(device="cpu" if device == "cpu" else "auto")
    prepare(runtime)
    rng, rows = np.random.default_rng(0), []
    for name, depth, filters, batch, patch in (("unet", 6, 32, 2, 512), ("compact", 5, 16, 8, 128)):
        row: Row = {"network": name, "depth": depth, "filters": filters, "batch": batch, "patch": patch}
        row |= {"backend": keras.config.backend(), "device": runtime.device_used}
        images = rng.normal(1, 1, (batch, patch, patch, 1)).astype(np.float32)
        labels = rng.integers(0, 3, (batch, patch, patch)).astype(np.uint8)
        weights: Any = None
        for precision in ("float32", "mixed"):
            kind = policy_for(precision, runtime.device_used)
            with policy(kind):
                model = build(name, 3, 1, depth, filters, seed=0)
            if weights is not None:
                model.set_weights(weights)
            model.compile(make_optimizer(preset("paper"), kind), make_loss("focal", (0.2, 0.3, 0.5)), jit_compile=False)
            weights = model.get_weights()
            predict = partial(model.predict_on_batch, images)
            row[f"probabilities_{precision}"] = np.asarray(predict())
            row[f"predictions_per_second_{precision}"] = batch * steps_per_second(predict, seconds)
            row[f"steps_per_second_{precision}"] = steps_per_second(
                partial(model.train_on_batch, images, labels), seconds
            )
        one, other = (row.pop(f"probabilities_{precision}") for precision in ("float32", "mixed"))
        row["largest_difference_of_probabilities"] = float(np.abs(one - other).max())
        rows.append(row)
    return rows


def show(rows: list[Row]) -> None:
    """Print rows as a table: a line for each fact, a column for each row."""
    for key in dict.fromkeys(key for row in rows for key in row):
        values = (row.get(key, "") for row in rows)
        print(f"  {key:38}" + "".join(f"{v:>16.4g}" if isinstance(v, float) else f"{v!s:>16}" for v in values))


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--width", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--tilts", type=int, default=69)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each speed of a network")
    options = parser.parse_args()
    if options.device == "cuda" and not gpu_found():
        sys.exit("there is no GPU that ASTRA can use; --device cpu tries the program without one")
    found: Row = {"tests": tests(), "reconstruction": [], "networks": []}
    for width in options.width:
        row = reconstruction(width, options.tilts, options.iterations, options.device, 3)
        found["reconstruction"].append(row)
    print("MLEM, ms per slice and iteration")
    show(found["reconstruction"])
    found["networks"] = networks(options.device, options.seconds)
    print("networks")
    show(found["networks"])
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(options.json)


if __name__ == "__main__":
    main()
