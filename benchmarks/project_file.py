"""What a project file that cannot be lost costs, in time and in space.

    python benchmarks/project_file.py --size 192 --reruns 20

A simulated catalyst of `--size` px is taken from the raw series to export, as `make demo` does. Then

- all arrays of the finished project are written again, slab by slab as the stages do: by tomoseg's transactions, with a
  checkpoint offered after every slab, and by plain h5py with the same chunks and compression, which syncs nothing. The
  difference, a median over `--repeats`, is the overhead; it is given as a share of the run's wall time;
- reconstruction, segmentation, measurement and export are run `--reruns` times with parameters that change, and the
  file's size is compared with that of its largest generation (all arrays that one stage makes).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from tomoseg import schema
from tomoseg.engine import STAGES
from tomoseg.project import Project, layout
from tomoseg.project.provenance import Record, new_run_id

Array = np.ndarray
BULK = 3  # dimensions of an array that is written slab by slab
MIB = 1 << 20
QUIET = subprocess.DEVNULL


def tomoseg(*arguments: object) -> float:
    """Run the program; return its wall time in seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=QUIET, stderr=QUIET)
    return time.perf_counter() - began


def contents(path: Path) -> list[tuple[Record, dict[str, Array]]]:
    """Return what each stage made: its provenance and its arrays by artifact name."""
    with Project.read(path) as project:
        return [
            (project.record(stage.name), {a.name: project.artifact(a)[()] for a in stage.writes if has(project, a)})
            for stage in STAGES
            if project.record(stage.name) is not None
        ]


def has(project: Project, artifact: schema.Artifact) -> bool:
    """Tell whether an array is there."""
    return not artifact.is_group and project.has(artifact)


def slabs(name: str, array: Array) -> Iterator[tuple[slice, ...]]:
    """Yield the parts in which a stage writes an array: images by tilt, volumes by slabs of y."""
    images = schema.BY_NAME[name].dims[0] == "tilt"
    axis, step = (0, 8) if images else (1, 16)
    for start in range(0, array.shape[axis], step):
        yield (slice(None),) * axis + (slice(start, start + step),)


def write_safely(path: Path, stages: list[tuple[Record, dict[str, Array]]]) -> None:
    """Write the arrays as the engine does."""
    with Project.create(path) as project:
        for record, arrays in stages:
            begun = replace(record, run_id=new_run_id(), outcome="running")
            with project.transaction(begun) as outputs:
                for name, array in arrays.items():
                    if array.ndim < BULK:
                        outputs.put(name, array)
                        continue
                    sink = outputs.create(name, array.shape, array.dtype)
                    for part in slabs(name, array):
                        sink[part] = array[part]
                        outputs.checkpoint({"done": part[-1].stop})
                outputs.commit(begun)


def write_plainly(path: Path, stages: list[tuple[Record, dict[str, Array]]]) -> None:
    """Write the same arrays with h5py alone."""
    with h5py.File(path, "w", libver="latest") as file:
        for _, arrays in stages:
            for name, array in arrays.items():
                artifact = schema.BY_NAME[name]
                if array.ndim < BULK:
                    file.create_dataset(artifact.path, data=array)
                    continue
                dataset = layout.create_array(file, artifact, array.shape, array.dtype)
                for part in slabs(name, array):
                    dataset[part] = array[part]


def seconds(write: Callable[..., None], folder: Path, stages: list[tuple[Record, dict[str, Array]]]) -> float:
    """Return how long it takes to write a new file."""
    path = folder / "written.h5"
    began = time.perf_counter()
    write(path, stages)
    took = time.perf_counter() - began
    path.unlink()
    return took


def print_overhead(folder: Path, project: Path, wall: float, repeats: int) -> None:
    stages = contents(project)
    n_bytes = sum(array.nbytes for _, arrays in stages for array in arrays.values())
    safe, plain = [], []
    for _ in range(repeats):
        safe.append(seconds(write_safely, folder, stages))
        plain.append(seconds(write_plainly, folder, stages))
    overhead = statistics.median(safe) - statistics.median(plain)
    print(f"the run from raw to export: {wall:.1f} s wall time, {n_bytes / MIB:.0f} MiB of arrays in its project")
    print(f"writing these arrays, median of {repeats}: {statistics.median(safe):.2f} s by transactions,", end=" ")
    print(f"{statistics.median(plain):.2f} s by plain h5py without any sync")
    print(f"overhead of safety: {overhead:.2f} s, {100 * overhead / wall:.1f} % of the run")


def print_growth(project: Path, reruns: int) -> None:
    largest = max(sum(array.nbytes for array in arrays.values()) for _, arrays in contents(project))
    sizes = [project.stat().st_size]
    for i in range(reruns):
        change = f"reconstruct.iterations={3 + i % 2}", "--set", f"segment.smooth=0.{3 + i % 2}"
        tomoseg("run", project, "--set", *change)
        sizes.append(project.stat().st_size)
    print(f"largest generation of a stage: {largest / MIB:.1f} MiB")
    print("file after the first run and every further one, MiB:", *(f"{size / MIB:.1f}" for size in sizes))
    print(f"growth: {(sizes[-1] - sizes[0]) / MIB:.1f} MiB, {(sizes[-1] - sizes[0]) / largest:.2f} generations")
    tomoseg("compact", project)
    print(f"after `tomoseg compact`: {project.stat().st_size / MIB:.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--reruns", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work; its file system is what is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        raw, project = folder / "raw.mrc", folder / "p.h5"
        tomoseg("simulate", "-o", raw, "--size", options.size)
        wall = tomoseg("run", raw, "-o", project)
        print_overhead(folder, project, wall, options.repeats)
        print_growth(project, options.reruns)


if __name__ == "__main__":
    main()
