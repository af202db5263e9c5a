"""Peak memory of every stage, for volumes up to many times larger than `--max-memory`.

    python benchmarks/memory.py --max-memory 256M --sizes 256,480,740

For each size, a tilt series of a catalyst with hundreds of particles is written image by image (its projections are
known in closed form, so that no volume is ever held) and `tomoseg run` makes everything of it; then `tomoseg segment`
labels the volume again with a small network, which `tomoseg train` has trained. The peak of a stage is the one in its
provenance (`tomoseg status --json`): the largest resident memory while it ran. The same on a series of 48 px is what
the libraries take; the rest is data, which must stay below the limit. With `--against 16G` everything is computed again
with that limit, and shifts, volume, tables, labels and exported files must be the same to the bit.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

TINY = 48
MIB = 1 << 20


# --- the series


class Catalyst:
    """A raw tilt series (n_tilt, y, x) of flat ellipsoids with spheres on them, computed as it is sliced."""

    def __init__(self, size: int, n_tilt: int, n_particles: int, seed: int = 0) -> None:
        self.shape, self.dtype = (n_tilt, size, size), np.dtype(np.uint16)
        self.angles_deg = np.linspace(-68, 68, n_tilt)
        rng = np.random.default_rng(seed)
        self._seed = seed
        self._shifts = rng.normal(0, 0.006 * size, (n_tilt, 2))  # (dy, dx)
        self._axis_deg, self._offset_px = 3.0, 0.01 * size
        plates = [self._plate(rng, size) for _ in range(10)]
        self._bodies = plates + [self._particle(rng, size, plates[i % len(plates)]) for i in range(n_particles)]

    def __getitem__(self, key):
        tilts, *inside = key if isinstance(key, tuple) else (key,)
        images = np.stack([self._image(i) for i in range(*tilts.indices(self.shape[0]))])
        return images[:, *inside]

    @staticmethod
    def _plate(rng, size):
        """Return centre (x, y, z) px, the matrix of the quadratic form, the longest semi-axis and the density."""
        semi_axes = size * np.array([*rng.uniform(0.11, 0.17, 2), rng.uniform(0.03, 0.05)])
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        direction = rng.standard_normal(3)
        centre = size * rng.uniform(0.05, 0.27) * direction / np.linalg.norm(direction)
        return centre, rotation.T @ np.diag(semi_axes**-2.0) @ rotation, semi_axes.max(), 1.0

    @staticmethod
    def _particle(rng, size, plate):
        centre, form, _, _ = plate
        radius = 0.5 * max(0.03 * size, 6.0) * np.exp(np.clip(rng.standard_normal(), -2, 2) * 0.2)
        direction = rng.standard_normal(3)
        surface = centre + direction / np.sqrt(direction @ form @ direction)
        return surface, np.eye(3) / radius**2, radius, 5.0

    def _image(self, i):
        """Return what the microscope saw at one tilt: chords through the bodies, electrons counted, black level."""
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


def tomoseg(*arguments: object) -> str:
    """Run the command in a process of its own; return what it prints."""
    command = [sys.executable, "-W", "ignore", "-m", "tomoseg", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def trained_network(folder: Path) -> Path:
    """Train a small network on noisy discs on a plate; how well it labels is of no matter here."""
    from skimage.io import imsave

    rng = np.random.default_rng(0)
    y, x = np.indices((128, 128))
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for i in range(4):
        labels = (y > rng.uniform(30, 60)).astype(np.uint8)
        for cy, cx in rng.uniform(10, 118, (5, 2)):
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 30] = 2
        image = np.array([20, 80, 200])[labels] + rng.normal(0, 9, labels.shape)
        imsave(folder / "images" / f"{i}.png", np.clip(image, 0, 255).astype(np.uint8), check_contrast=False)
        imsave(folder / "labels" / f"{i}.png", labels, check_contrast=False)
    network = folder / "small.keras"
    small = ("--epochs", 1, "--depth", 3, "--base-filters", 8, "--patch", 128, "--folds", 1, "--pixel-size", 0.25)
    tomoseg("train", folder / "images", folder / "labels", "-o", network, *small, "--force", "--progress", "none")
    return network


def stages_of(project: Path) -> dict[str, tuple[int, float]]:
    """Return peak memory, bytes, and wall time, s, of each stage that a project has."""
    stages = json.loads(tomoseg("status", project, "--json"))["stages"]
    runs = {stage["name"]: stage["run"] for stage in stages if stage["run"]}
    return {name: (run["peak_memory_bytes"], run["wall_seconds"]) for name, run in runs.items()}


def measured(folder: Path, size: int, limit: str, network: Path | None, options: argparse.Namespace) -> dict:
    """Run everything on the series of a size; return peak memory, bytes, and time, s, of each stage."""
    raw, project = folder / f"{size}.mrc", folder / f"{size}_{limit}.h5"
    if not raw.exists():
        write_series(raw, size, options.tilts, options.particles if size > TINY else 12)
    project.unlink(missing_ok=True)
    settings = [word for setting in options.sets for word in ("--set", setting)]
    settings += ["--set", f"reconstruct.iterations={options.iterations}"]
    tomoseg("run", raw, "-o", project, "--max-memory", limit, "--progress", "none", *settings)
    found = stages_of(project)
    if network:
        how = ("--model", network, "--overlap", 1, "--engine", options.engine)
        tomoseg("segment", project, *how, "--max-memory", limit, "--progress", "none")
        found["segment, network"] = stages_of(project)["segment"]
    return found


# --- comparing


def results(project: Path) -> dict[str, str]:
    """Return a digest of each result: shifts, volume, tables, labels, exported files."""
    import h5py

    from tomoseg.schema import ARTIFACTS

    found = {}
    with h5py.File(project) as file:
        for artifact in ARTIFACTS:
            node = file.get(artifact.path)
            if isinstance(node, h5py.Dataset):
                digest = hashlib.sha256()
                for start in range(0, len(node), 64):
                    digest.update(node[start : start + 64].tobytes())
                found[artifact.name] = digest.hexdigest()
    for path in sorted(project.with_name(f"{project.stem}_export").iterdir()):
        if path.suffix in (".vtp", ".csv", ".mrc", ".vti"):
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(projects: Sequence[Path]) -> list[str]:
    """Return the names of the results that differ between two projects."""
    one, other = (results(project) for project in projects)
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def parse_bytes(text: str) -> int:
    """Turn '256M' or '8G' into bytes."""
    return int(float(text[:-1]) * 1024 ** " KMGT".index(text[-1].upper()))


def table(fixed: dict, found: dict[int, dict], limit: int) -> list[str]:
    """Return the lines of a Markdown table, MiB: a row per stage, a column per size."""
    sizes = [f"{n} px: volume of {4 * n**3 / MIB:.0f}, {4 * n**3 / limit:.1f} x the limit" for n in found]
    lines = [" | ".join(["| stage", f"libraries ({TINY} px)", *sizes, "time of the largest, s |"])]
    lines.append("|---" + "|---:" * (len(sizes) + 2) + "|")
    for stage, (least, _) in fixed.items():
        peaks = [found[n][stage][0] for n in found]
        cells = [f"{p / MIB:.0f} = libraries + {max(0, p - least) / MIB:.0f}" for p in peaks]
        lines.append(" | ".join([f"| {stage}", f"{least / MIB:.0f}", *cells, f"{found[max(found)][stage][1]:.0f} |"]))
    return lines


def report(folder: Path, options: argparse.Namespace) -> bool:
    """Run everything and print the table; say whether all data stayed below the limit and all results are the same."""
    limit, begun, same = parse_bytes(options.max_memory), time.monotonic(), True
    network = trained_network(folder / "network")
    measured(folder, TINY, options.max_memory, network, options)  # compiles what numba has not compiled yet
    fixed, found = measured(folder, TINY, options.max_memory, network, options), {}
    for size in options.sizes:
        found[size] = measured(folder, size, options.max_memory, None if options.against else network, options)
        projects = [folder / f"{size}_{limit}.h5" for limit in (options.max_memory, options.against) if limit]
        if options.against:
            measured(folder, size, options.against, None, options)
            differ = differences(projects)
            same &= not differ
            said = f"DIFFER: {', '.join(differ)}" if differ else "all results are the same to the bit"
            print(f"{size} px, {options.max_memory} and {options.against}: {said}", flush=True)
        if not options.keep:
            for project in projects:
                project.unlink()
                shutil.rmtree(project.with_name(f"{project.stem}_export"))
    fixed = {stage: fixed[stage] for stage in found[options.sizes[0]]}
    print("\n".join(table(fixed, found, limit)))
    most = max(runs[stage][0] - fixed[stage][0] for runs in found.values() for stage in runs)
    verdict = "within" if most <= limit else "OVER"
    print(f"\nLargest share of data: {most / MIB:.0f} MiB, {verdict} the limit of {limit / MIB:.0f} MiB; ", end="")
    print(f"{(time.monotonic() - begun) / 60:.0f} min in all.")
    return same and most <= limit


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-memory", default="256M")
    parser.add_argument(
        "--sizes", type=lambda t: [int(n) for n in t.split(",")], default=[256, 480, 740], metavar="PX,.."
    )
    parser.add_argument("--tilts", type=int, default=20)
    parser.add_argument("--particles", type=int, default=300)
    parser.add_argument("--iterations", type=int, default=2, help="of the reconstruction")
    parser.add_argument("--engine", default="openvino" if find_spec("openvino") else "keras", help="of the network")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="STAGE.PARAM=VALUE")
    parser.add_argument("--against", default="", metavar="LIMIT", help="a larger limit, with the same results")
    parser.add_argument("--folder", type=Path, help="where the files go; default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the projects")
    options = parser.parse_args()
    if options.folder:
        sys.exit(not report(options.folder, options))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not report(Path(folder), options))


if __name__ == "__main__":
    main()
