"""Peak memory of every stage, for volumes many times larger than `--max-memory`.

    python benchmarks/memory.py --max-memory 256M --sizes 288,480,720

For each size, a tilt series of a catalyst with hundreds of particles is written image by image (its projections
are known in closed form, so that no volume is ever held), and `tomoseg run` is called per stage in a process of its
own. The peak is the largest resident memory of that process; the fixed cost of the libraries is the peak of the same
stage on a series of 48 px; what is left is data, which must stay below the limit. With `--against 16G` everything is
computed again with that limit, and shifts, tables, labels and surfaces must be the same to the bit.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# NumPy and tomoseg are imported by the processes that need them: a large parent would count as its children's peak.

STAGES = ("import", "align", "reconstruct", "segment", "measure", "export")
TINY = 48
MIB = 1 << 20


# --- the series


class Catalyst:
    """A raw tilt series (n_tilt, y, x) of flat ellipsoids with spheres on them, computed as it is sliced."""

    def __init__(self, size: int, n_tilt: int, n_particles: int, seed: int = 0) -> None:
        import numpy as np

        self.shape, self.dtype = (n_tilt, size, size), np.dtype(np.uint16)
        self.angles_deg = np.linspace(-68, 68, n_tilt)
        rng = np.random.default_rng(seed)
        self._seed = seed
        self._shifts = rng.normal(0, 0.006 * size, (n_tilt, 2))  # (dy, dx)
        self._axis_deg, self._offset_px = 3.0, 0.01 * size
        plates = [self._plate(rng, size) for _ in range(10)]
        self._bodies = plates + [self._particle(rng, size, plates[i % len(plates)]) for i in range(n_particles)]

    def __getitem__(self, key):
        import numpy as np

        return np.stack([self._image(i) for i in range(*key.indices(self.shape[0]))])

    @staticmethod
    def _plate(rng, size):
        """Return centre (x, y, z) px, the matrix of the quadratic form, the longest semi-axis and the density."""
        import numpy as np

        semi_axes = size * np.array([*rng.uniform(0.11, 0.17, 2), rng.uniform(0.03, 0.05)])
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        direction = rng.standard_normal(3)
        centre = size * rng.uniform(0.05, 0.27) * direction / np.linalg.norm(direction)
        return centre, rotation.T @ np.diag(semi_axes**-2.0) @ rotation, semi_axes.max(), 1.0

    @staticmethod
    def _particle(rng, size, plate):
        import numpy as np

        centre, form, _, _ = plate
        radius = 0.5 * max(0.03 * size, 6.0) * np.exp(np.clip(rng.standard_normal(), -2, 2) * 0.2)
        direction = rng.standard_normal(3)
        surface = centre + direction / np.sqrt(direction @ form @ direction)
        return surface, np.eye(3) / radius**2, radius, 5.0

    def _image(self, i):
        """Return what the microscope saw at one tilt: chords through the bodies, electrons counted, black level."""
        import numpy as np

        size = self.shape[1]
        t, phi = np.deg2rad(self.angles_deg[i]), np.deg2rad(self._axis_deg)
        total = np.zeros((size, size), np.float32)
        middle = (size - 1) / 2
        for centre, form, reach, density in self._bodies:
            s, along = centre[0] * np.cos(t) + centre[2] * np.sin(t) + self._offset_px, centre[1]
            y = -np.sin(phi) * s + np.cos(phi) * along - self._shifts[i, 0] + middle
            x = np.cos(phi) * s + np.sin(phi) * along - self._shifts[i, 1] + middle
            rows, columns = (np.arange(max(0, int(c - reach)), min(size, int(c + reach) + 2)) for c in (y, x))
            ys = rows[:, None] - middle + self._shifts[i, 0]
            xs = columns - middle + self._shifts[i, 1]
            s = np.cos(phi) * xs - np.sin(phi) * ys - self._offset_px
            point = np.stack([s * np.cos(t), np.sin(phi) * xs + np.cos(phi) * ys, s * np.sin(t)], axis=-1) - centre
            ray = np.array([-np.sin(t), 0.0, np.cos(t)])
            a, b = ray @ form @ ray, point @ form @ ray
            c = np.einsum("...i,ij,...j", point, form, point) - 1
            total[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += density * (
                2 * np.sqrt(np.maximum(b**2 - a * c, 0)) / a
            )
        rng = np.random.default_rng((self._seed, i))
        electrons = rng.poisson(400 * (total / (0.1 * size) + 0.02))
        return np.minimum(1000 + 4 * electrons, 65535).astype(np.uint16)


def write_series(path: Path, size: int, n_tilt: int, n_particles: int) -> None:
    """Write a series and its angles, one image in memory at a time."""
    from tomoseg.io import mrc

    series = Catalyst(size, n_tilt, n_particles)
    mrc.SLAB_BYTES = 8 * size * size
    mrc.write_mrc(path, series, 0.25, kind="stack", label="benchmark")
    mrc.write_angles(path.with_suffix(".rawtlt"), series.angles_deg)


# --- running


def peak_of(command: Sequence[str], log: Path) -> tuple[int, float]:
    """Run a command; return its peak resident memory in bytes and its wall time in seconds.

    tomoseg resets the high-water mark when a stage begins, so the mark is read again and again and the largest is kept.
    """
    start, peak = time.monotonic(), 0
    with log.open("a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            peak = max(peak, high_water_mark(process.pid))
            time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return max(peak, usage.ru_maxrss * 1024), time.monotonic() - start


def high_water_mark(pid: int) -> int:
    """Return VmHWM of a process in bytes, 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def run_stages(folder: Path, size: int, limit: str, options: argparse.Namespace) -> dict[str, tuple[int, float]]:
    """Run the stages one by one on the series of a size; return peak memory and time of each."""
    raw, project = folder / f"{size}.mrc", folder / f"{size}_{limit}.h5"
    if not raw.exists():
        made = [sys.executable, __file__, "--write", str(raw), "--sizes", str(size)]
        made += ["--tilts", str(options.tilts), "--particles", str(options.particles if size > TINY else 12)]
        subprocess.run(made, check=True)
    found = {}
    for stage in STAGES[: STAGES.index(options.stages[-1]) + 1]:
        source = [str(raw), "-o", str(project)] if stage == "import" else [str(project)]
        command = [sys.executable, "-m", "tomoseg", "run", *source, "--until", stage, "--max-memory", limit]
        command += ["--progress", "plain", "--set", f"reconstruct.iterations={options.iterations}"]
        if stage in options.stages:
            command += ["--from", stage, "--force"]
        for setting in options.sets:
            command += ["--set", setting]
        found[stage] = peak_of(command, folder / f"{size}_{limit}.log")
    return found


# --- comparing


def results(project: Path) -> dict[str, str]:
    """Return a digest of each result: shifts, tables, labels, exported surfaces."""
    import h5py

    from tomoseg.schema import ARTIFACTS

    found = {}
    with h5py.File(project) as file:
        for artifact in ARTIFACTS:
            node = file.get(artifact.path)
            if isinstance(node, h5py.Dataset):
                digest = hashlib.sha256()
                for start in range(0, len(node), 16):
                    digest.update(node[start : start + 16].tobytes())
                found[artifact.name] = digest.hexdigest()
    for path in sorted(project.with_name(f"{project.stem}_export").iterdir()):
        if path.suffix in (".vtp", ".csv", ".mrc", ".vti"):
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(folder: Path, size: int, limits: Sequence[str]) -> list[str]:
    """Return the names of the results that differ between two limits; compared in another process."""
    found = []
    for limit in limits:
        command = [sys.executable, __file__, "--digest", str(folder / f"{size}_{limit}.h5")]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return sorted(name for name in found[0].keys() | found[1].keys() if found[0].get(name) != found[1].get(name))


def parse_bytes(text: str) -> int:
    """Turn '256M' or '8G' into bytes."""
    return int(float(text[:-1]) * 1024 ** " KMGT".index(text[-1].upper()))


def report(folder: Path, options: argparse.Namespace) -> bool:
    """Run everything and print the table; say whether all stages stayed below the limit."""
    limit, kept = parse_bytes(options.max_memory), True
    run_stages(folder, TINY, options.max_memory, options)  # compiles what numba has not compiled yet
    fixed = run_stages(folder, TINY, options.max_memory, options)
    print(f"--max-memory {options.max_memory}, {options.tilts} tilts; MiB")
    print(" size  volume stage         peak  fixed   data  limit          time, s")
    for size in options.sizes:
        found = run_stages(folder, size, options.max_memory, options)
        for stage in options.stages:
            (peak, seconds), cost = found[stage], fixed[stage][0]
            good = peak - cost <= limit
            kept &= good
            row = "".join(f"{n / MIB:>7.0f}" for n in (peak, cost, peak - cost, limit))
            verdict = "ok" if good else "OVER"
            print(f"{size:>5} {4 * size**3 / MIB:>7.0f} {stage:<11}{row}  {verdict:<5}{seconds:>8.1f}", flush=True)
        if options.against:
            run_stages(folder, size, options.against, options)
            differ = differences(folder, size, (options.max_memory, options.against))
            kept &= not differ
            print(
                f"{size:>5} with {options.against}: " + (f"DIFFER: {', '.join(differ)}" if differ else "same results")
            )
        if not options.keep:
            for path in folder.glob(f"{size}_*.h5"):
                path.unlink()
    return kept


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-memory", default="256M")
    parser.add_argument("--sizes", type=lambda t: [int(n) for n in t.split(",")], default=[288, 480, 720])
    parser.add_argument("--stages", type=lambda t: t.split(","), default=list(STAGES), help="those measured; of ")
    parser.add_argument("--tilts", type=int, default=40)
    parser.add_argument("--particles", type=int, default=300)
    parser.add_argument("--iterations", type=int, default=3, help="of the reconstruction")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="STAGE.PARAM=VALUE")
    parser.add_argument("--against", metavar="LIMIT", help="a larger limit, for which the results must be the same")
    parser.add_argument("--folder", type=Path, help="where the files go; default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the projects")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--digest", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_series(options.write, options.sizes[0], options.tilts, options.particles)
    elif options.digest:
        print(json.dumps(results(options.digest)))
    elif options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        sys.exit(not report(options.folder, options))
    else:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(not report(Path(folder), options))


if __name__ == "__main__":
    main()
