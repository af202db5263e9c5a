"""Do the stated uncertainties hold the truth? Simulated catalysts, from raw images to `measure --uncertainty`.

    python benchmarks/uncertainty.py

Each series is aligned, reconstructed, labelled and measured by the stages of the program, with default parameters but
for what is said. For every particle that is found and neither cut nor below the resolution, the stated standard
uncertainty of its diameter is compared with its error: 68 % of the errors should be smaller.
"""

import argparse
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from scipy.spatial import cKDTree
from typer.testing import CliRunner

from tomoseg import schema
from tomoseg.cli.app import app

# Size, particles, seed, electrons, largest tilt, step, and how it is labelled.
SERIES = (
    (160, 60, 11, 400, 68, 2, "auto"),
    (160, 60, 12, 100, 68, 2, "auto"),
    (160, 60, 13, 400, 60, 3, "auto"),
    (160, 60, 14, 1500, 70, 1.5, "auto"),
    (160, 60, 15, 400, 68, 2, "otsu"),
    (160, 60, 16, 60, 70, 2, "otsu"),
    (224, 100, 17, 400, 68, 2, "auto"),
)


def run(*words: object) -> None:
    """Run the program."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    if done.exit_code:
        raise SystemExit(done.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=len(SERIES), help="number of series")
    options = parser.parse_args()
    print("| voxels | electrons | tilts | labels | particles | error, px: mean, rms | stated, px | within it | s |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    inside = total = 0
    for size, particles, seed, dose, most, step, method in SERIES[: options.first]:
        with tempfile.TemporaryDirectory() as folder:
            raw, truth, project = (Path(folder) / name for name in ("raw.mrc", "truth.h5", "project.h5"))
            begun = time.monotonic()
            run(
                "simulate", "-o", raw, "--truth", truth, "--size", size, "--particles", particles, "--seed", seed,
                "--dose", dose, "--max-tilt", most, "--step", step,
            )  # fmt: skip
            run("run", raw, "-o", project, "--until", "measure", "--set", "measure.uncertainty=true",
                "--set", f"segment.method={method}")  # fmt: skip
            error, stated = errors(project, truth)
            held = np.abs(error) <= stated
            inside, total = inside + held.sum(), total + len(held)
            print(
                f"| {size}^3 | {dose} | {int(2 * most / step) + 1} to {most} | {method} | {len(error)} "
                f"| {error.mean():+.2f}, {np.sqrt((error**2).mean()):.2f} | {np.median(stated):.2f} "
                f"| {held.mean():.0%} | {time.monotonic() - begun:.0f} |",
                flush=True,
            )
    print(f"\n{inside} of {total} within the stated 68 % interval: {inside / total:.0%}")


def errors(project: Path, truth: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the error of each particle's diameter, px, and the stated uncertainty."""
    with h5py.File(project) as found, h5py.File(truth) as true:
        here, there = (file[schema.PARTICLE_TABLE.path][:] for file in (found, true))
    here = here[~here["touches_border"] & ~here["below_resolution"]]
    places, true_places = (np.stack([t[f"{a}_px"] if f"{a}_px" in t.dtype.names else t[a] for a in "zyx"], 1)
                           for t in (here, there))  # fmt: skip
    # The alignment cannot know where the object is: the offset that pairs most of them is taken out.
    true_places = true_places + np.median(places, axis=0) - np.median(true_places, axis=0)
    for _ in range(5):
        distance, partner = cKDTree(true_places).query(places)
        true_places = true_places + np.median(places - true_places[partner], axis=0)
    distance, partner = cKDTree(true_places).query(places)
    same = distance < there["diameter_px"][partner] / 2
    return (here["diameter_px"] - there["diameter_px"][partner])[same], here["diameter_uncertainty_px"][same]


if __name__ == "__main__":
    main()
