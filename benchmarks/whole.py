"""The whole pipeline, from a raw series to a report, stage by stage, against what the machine could do at most.

    python benchmarks/whole.py demo --before ../earlier        # this checkout and another, in turn
    python benchmarks/whole.py needle --data FOLDER             # the folder of HAADF.mrc and HAADF.rawtlt
    python benchmarks/whole.py paper --folder /scratch          # 69 x 702 x 1024; 10 GB, and some minutes
    python benchmarks/whole.py demo --profile profiles          # and where each stage spends its time

Every stage is a process of its own, its start included: wall time, CPU time, the largest resident memory, and the bytes
that it read and wrote. The floor of a stage is the time of what it cannot do without, alone and at the machine's limit
as it is measured at the start:

    import       the raw series written once to the disk
    align        the projections of the finest level of refinement: 12 passes, there and back
    reconstruct  the projections of the iterations that were made, there and back
    segment      the network alone, on as many batches
    measure      labels and volume copied once in memory
    export       the files written once to the disk
    report       labels, volume and both series copied once in memory

`times` is the wall time as a multiple of that.
"""

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from limits import cache, multiply_adds_per_second
from memory import Catalyst
from paper_size import THICKNESS, TILTS, WIDTH, Slices

from tomoseg import schema
from tomoseg.io import mrc
from tomoseg.project import Project
from tomoseg.runtime import Runtime

STAGES = ("import", "align", "reconstruct", "segment", "measure", "export", "report")
WORKERS = os.cpu_count() or 1
HERE = Path(__file__).parents[1]
COPIED_BYTES = 256 << 20
LEAST_PASSES = 12  # of the finest level of alignment


@dataclass(frozen=True)
class Case:
    """A raw series, and the options of `tomoseg import` and of the pipeline."""

    raw: Path
    import_options: tuple[str, ...] = ()
    pipeline: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds, seconds of all CPUs, bytes in memory at most, bytes read and written."""

    wall: float
    cpu: float
    peak: int
    read: int
    written: int


def case_of(name: str, data: Path | None, folder: Path) -> Case:
    """Make or find the raw series of a case."""
    if name == "needle":
        if data is None:
            raise SystemExit("needle: name the folder of HAADF.mrc and HAADF.rawtlt with --data")
        return Case(data.absolute() / "HAADF.mrc", ("--angles", str(data.absolute() / "HAADF.rawtlt")))
    raw = folder / f"{name}.mrc"
    if name == "demo":
        measured(HERE, folder, ["simulate", "-o", str(raw), "--seed", "1"])
        return Case(raw, (), ("--pipeline", "catalyst"))
    series = Catalyst(WIDTH, TILTS, 200)
    mrc.write_mrc(raw, Slices(series), 0.12, kind="stack", label="benchmark")
    mrc.write_angles(raw.with_suffix(".rawtlt"), series.angles_deg)
    return Case(raw, (), ("--pipeline", "catalyst", "--set", f"reconstruct.z_size={THICKNESS}"))


def measured(code: Path, folder: Path, arguments: list[str], profile: Path | None = None) -> Cost:
    """Run the program from a checkout in a folder, and return what it took."""
    how = ["-m", "tomoseg"] if profile is None else ["-m", "cProfile", "-o", str(profile), "-m", "tomoseg"]
    environment = {**os.environ, "PYTHONPATH": str(code), "PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as users have it
    began = time.perf_counter()
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, *how, *arguments], cwd=folder, env=environment, stdout=log, stderr=log
        )
        moved = {"rchar": 0, "wchar": 0}
        while True:
            with suppress(OSError, ValueError):
                lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
                moved |= {name: int(value) for name, value in (line.split(": ") for line in lines) if name in moved}
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.02)
    if status:
        raise SystemExit(f"tomoseg {' '.join(arguments)} failed; see {folder / 'log.txt'}")
    wall = time.perf_counter() - began
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, moved["rchar"], moved["wchar"])


def commands(case: Case, project: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the command of each stage."""
    yield "import", ["import", str(case.raw), "-o", project, *case.import_options]
    for stage in STAGES[1:-1]:
        yield stage, ["run", project, "--until", stage, *case.pipeline]
    yield "report", ["report", project, "-o", f"{project}.html"]


# --- floors ---


@dataclass(frozen=True)
class Limits:
    """Of the machine: multiply-adds, bytes copied in memory, and bytes written to the disk, each per second."""

    multiply_adds: float
    copied: float
    written: float

    @classmethod
    def of(cls, folder: Path) -> "Limits":
        """Measure them, the median of three or more."""
        block = np.ones(COPIED_BYTES, np.uint8)
        copies, writes = [], []
        for _ in range(3):
            began = time.perf_counter()
            block.copy()
            copies.append(COPIED_BYTES / (time.perf_counter() - began))
            began = time.perf_counter()
            with (folder / "written").open("wb") as file:
                file.write(block)
                os.fsync(file.fileno())
            writes.append(COPIED_BYTES / (time.perf_counter() - began))
        (folder / "written").unlink()
        return cls(multiply_adds_per_second(cache, WORKERS), statistics.median(copies), statistics.median(writes))


def floors(path: Path, exported: int, limits: Limits) -> dict[str, float]:
    """Return the floor of each stage in seconds, by what the project holds."""
    with Project.read(path) as project:
        arrays = {
            a.name: project.artifact(a) for a in (schema.TILT_SERIES, schema.ALIGNED, schema.VOLUME, schema.LABELS)
        }
        size = {name: math.prod(array.shape) * np.dtype(array.dtype).itemsize for name, array in arrays.items()}
        iterations = int(project.artifact(schema.RECONSTRUCTION_INFO).attrs["iterations"])
        about = dict(project.artifact(schema.SEGMENTATION_INFO).attrs)
        (n_tilt, height, width), volume = arrays["aligned"].shape, arrays["volume"].shape
    by = -(-max(height, width) // 256)  # alignment is found on images reduced to this
    rays = n_tilt * (height // by) * (width // by) ** 2
    projecting = 2 * 2 / limits.multiply_adds  # two taps, there and back
    return {
        "import": size["tilt_series"] / limits.written,
        "align": LEAST_PASSES * rays * projecting,
        "reconstruct": iterations * n_tilt * math.prod(volume) * projecting,
        "segment": network_alone(about, volume),
        "measure": (size["volume"] + size["labels"]) / limits.copied,
        "export": exported / limits.written,
        "report": sum(size.values()) / limits.copied,
    }


def network_alone(about: dict[str, Any], volume: tuple[int, ...]) -> float:
    """Return the seconds of the network on as many batches as the labels took; NaN where thresholds made them."""
    from tomoseg.segmentation.inference.blending import Tiling
    from tomoseg.segmentation.inference.network import Network
    from tomoseg.segmentation.networks.known_models import resolve_model
    from tomoseg.segmentation.parameters import SegmentParameters

    if about.get("method") != "unet":
        return math.nan
    if "looked_at" in about:  # beyond lies vacuum
        volume = tuple(int(stop - start) for start, stop in np.reshape(about["looked_at"], (3, 2)))
    name = resolve_model(str(about["model"]).removesuffix(".keras"))
    params = SegmentParameters(model=name, engine=str(about["engine"]).split()[0])
    predictor, _ = Network(Path(name), params, volume, math.nan).opened(Runtime(device="cpu", workers=WORKERS))
    zoom = float(about["zoom"])
    seen = tuple(max(1, math.floor(n * zoom + 0.5)) for n in (volume[0], volume[2]))
    patch = tuple(int(n) for n in about["patch_px"])
    places = len(Tiling.of(seen, patch, int(about["overlap"])).starts)
    batch = np.random.default_rng(0).random((1, *patch, predictor.channels), np.float32)
    took = []
    for _ in range(4):  # the first compiles
        began = time.perf_counter()
        predictor.predict_batch(batch if predictor.channels > 1 else batch[..., 0])
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:]) * places * volume[1]


# --- tables ---


def gibibytes(n: int) -> str:
    return f"{n / 2**30:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["needle", "demo", "paper"])
    parser.add_argument("--data", type=Path, help="the folder of the needle")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout, measured in turn")
    parser.add_argument("--repeats", type=int, default=1, help="the median of so many")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="profiles of the main thread of each stage")
    parser.add_argument("--folder", type=Path, help="where the files may lie for a while")
    options = parser.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        case = case_of(options.case, options.data, folder)
        codes = {"before": options.before, "now": HERE} if options.before else {"now": HERE}
        costs: dict[str, dict[str, list[Cost]]] = {code: {stage: [] for stage in STAGES} for code in codes}
        for _ in range(options.repeats):
            for label, code in codes.items():
                (folder / f"{label}.h5").unlink(missing_ok=True)
                shutil.rmtree(folder / f"{label}_export", ignore_errors=True)
                for stage, arguments in commands(case, f"{label}.h5"):
                    profile = None
                    if options.profile is not None and label == "now":
                        options.profile.mkdir(parents=True, exist_ok=True)
                        profile = options.profile.absolute() / f"{stage}.prof"
                    costs[label][stage].append(measured(Path(code).absolute(), folder, arguments, profile))
        exported = sum(file.stat().st_size for file in (folder / "now_export").rglob("*") if file.is_file())
        least = floors(folder / "now.h5", exported, Limits.of(folder))
    for label, stages in costs.items():
        print(f"\n{options.case}, {label}\n")
        print("| stage | wall, s | CPU, s | peak, GiB | read, GiB | written, GiB | floor, s | times |")
        print("|---|---|---|---|---|---|---|---|")
        for stage, found in stages.items():
            one = Cost(*(statistics.median(getattr(c, field) for c in found) for field in Cost.__dataclass_fields__))
            sizes = " | ".join(gibibytes(int(n)) for n in (one.peak, one.read, one.written))
            times = f"{least[stage]:.2f} | {one.wall / least[stage]:.1f}"
            print(f"| {stage} | {one.wall:.1f} | {one.cpu:.1f} | {sizes} | {times} |")
        total = sum(statistics.median(c.wall for c in found) for found in stages.values())
        peak = max(statistics.median(c.peak for c in found) for found in stages.values())
        print(f"| together | {total:.1f} | | {gibibytes(int(peak))} | | | {np.nansum(list(least.values())):.1f} | |")
    if options.profile is not None:
        write_tables(options.profile)


def write_tables(folder: Path) -> None:
    """Write the 40 functions that took longest, by themselves, beside each profile."""
    import pstats

    for path in sorted(folder.glob("*.prof")):
        with path.with_suffix(".txt").open("w") as file:
            pstats.Stats(str(path), stream=file).sort_stats("tottime").print_stats(40)
    print(f"\nprofiles in {folder}")


if __name__ == "__main__":
    main()
