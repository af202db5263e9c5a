"""A reconstruction as large as the paper's: 702 slices of 1024 x 512 voxels from 69 tilts, from file to file.

    python benchmarks/paper_size.py --iterations 30

Writes a raw series of ellipsoids with spheres on them, imports it as an aligned one, and times `tomoseg reconstruct` as
a process of its own: start of the program, reading and writing included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from memory import Catalyst

from tomoseg.io import mrc

TILTS, SLICES, WIDTH, THICKNESS = 69, 702, 1024, 512


class Slices:
    """The middle rows of a series."""

    def __init__(self, series: Catalyst) -> None:
        self._series, self._first = series, (WIDTH - SLICES) // 2
        self.shape, self.dtype = (TILTS, SLICES, WIDTH), series.dtype

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
        tilts, *inside = key
        return self._series[tilts][:, self._first : self._first + SLICES][:, *inside]


def tomoseg(*arguments: object) -> str:
    """Run the program; return what it prints."""
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", default="30", help="a number, or auto")
    parser.add_argument("--max-memory", default="1G")
    parser.add_argument("--folder", type=Path, help="where 5 GB may lie for a while")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        raw, project = Path(name, "raw.mrc"), Path(name, "p.h5")
        series = Catalyst(WIDTH, TILTS, 200)
        mrc.write_mrc(raw, Slices(series), 0.25, kind="stack", label="benchmark")
        mrc.write_angles(raw.with_suffix(".rawtlt"), series.angles_deg)
        tomoseg("run", raw, "-o", project, "--set", "align.method=none", "--until", "align")
        limit = ("--max-memory", options.max_memory)
        began = time.perf_counter()
        tomoseg("reconstruct", project, "--z-size", THICKNESS, "--iterations", options.iterations, *limit)
        took = time.perf_counter() - began
        stages = json.loads(tomoseg("status", project, "--json"))["stages"]
        run = next(stage["run"] for stage in stages if stage["name"] == "reconstruct")
        what = f"{SLICES} slices of {WIDTH} x {THICKNESS} from {TILTS} tilts, MLEM, {options.iterations} iterations"
        print(f"{what}: {took:.0f} s")
        print(f"peak memory {run['peak_memory_bytes'] / 2**30:.2f} GiB with --max-memory {options.max_memory}")
        print(*run["notes"], sep="\n")


if __name__ == "__main__":
    main()
