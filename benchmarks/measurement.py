"""How near measured numbers come to the truth: bodies with equations, simulated catalysts, and the whole pipeline.

    python benchmarks/measurement.py               the three tables; about five minutes
    python benchmarks/measurement.py --only bodies

Bodies lie at random places within a voxel and are turned at random; a voxel is inside where its centre is. Catalysts
are measured from the true labels. The whole pipeline begins with the raw series that `tomoseg simulate` makes,
misaligned, noisy and with a missing wedge, with the settings that `tomoseg run` has if nothing is said.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.integrate import dblquad
from scipy.spatial.transform import Rotation

from tomoseg import schema
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.measurement.common.surface import object_surface
from tomoseg.runtime import Runtime
from tomoseg.simulate import catalyst
from tomoseg.stages.measure import STAGE, MeasureParameters

# Semi-axes, px
BODIES = ((3, 3, 3), (5, 5, 5), (7, 7, 7), (10, 10, 10), (20, 20, 20), (8, 8, 16), (14, 14, 7), (7, 10, 14))
PLACES = 12
CATALYSTS = ((192, 60, 0), (192, 60, 1), (160, 50, 4), (256, 120, 2))  # size, particles, seed
SERIES = (0, 1, 2)  # seeds


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("bodies", "labels", "pipeline"))
    only = parser.parse_args().only
    if only in (None, "bodies"):
        bodies()
    if only in (None, "labels"):
        catalysts()
    if only in (None, "pipeline"):
        pipeline()


# ------------------------------------------------------------------------------------------------ bodies


def ellipsoid(axes: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the mask of an ellipsoid of these semi-axes."""
    n = 2 * max(axes) + 14
    centre = (n - 1) / 2 + rng.uniform(-0.5, 0.5, 3)
    points = (np.indices((n, n, n)).reshape(3, -1).T - centre) @ Rotation.random(random_state=rng).as_matrix()
    return (((points / np.array(axes)) ** 2).sum(axis=1) <= 1).reshape(n, n, n)


def ellipsoid_area(a: float, b: float, c: float) -> float:
    """Return the area of an ellipsoid by numerical integration over its parameters."""

    def density(phi: float, theta: float) -> float:
        s = np.sin(theta)
        along = (b * c * s * np.cos(phi)) ** 2 + (a * c * s * np.sin(phi)) ** 2 + (a * b * np.cos(theta)) ** 2
        return float(s * np.sqrt(along))

    return float(8 * dblquad(density, 0, np.pi / 2, 0, np.pi / 2)[0])


def bodies() -> None:
    """Print the errors of volume and area over places and directions: the mean, and the largest."""
    print(
        "| semi-axes, px | volume: mean error | largest | surface area: mean error | largest |\n|---|---|---|---|---|"
    )
    rng = np.random.default_rng(0)
    for axes in BODIES:
        volume, area = 4 / 3 * np.pi * np.prod(axes), ellipsoid_area(*axes)
        masks = [ellipsoid(axes, rng) for _ in range(PLACES)]
        errors = np.array([(m.sum() / volume - 1, object_surface(m).area_px2() / area - 1) for m in masks]) * 100
        mean, largest = errors.mean(axis=0), np.abs(errors).max(axis=0)
        name = f"{' x '.join(map(str, axes))}"
        print(f"| {name} | {mean[0]:+.2f} % | {largest[0]:.2f} % | {mean[1]:+.2f} % | {largest[1]:.2f} % |")
    print()


# -------------------------------------------------------------------------------------------- true labels


def catalysts() -> None:
    """Print what is found in simulated catalysts of which the true labels are measured."""
    print(f"| catalyst | {COLUMNS} |\n|---|---|---|---|---|---|---|")
    for size, n_particles, seed in CATALYSTS:
        phantom = catalyst(size, n_particles, seed)
        found = measured(phantom.labels, phantom.density, phantom.class_names).attrs
        info, support = found[schema.MEASUREMENT_INFO.name], found[schema.SUPPORT_INFO.name]
        truth = phantom.particles["diameter_px"]
        print(f"| {size}^3, seed {seed} | {row(info, support, truth, porosity(phantom.labels, size, seed))} |")
    print()


COLUMNS = "particles | found | mean diameter | error | porosity | found"


def row(info: Mapping[str, Any], support: Mapping[str, Any], true_px: np.ndarray, true_porosity: float) -> str:
    """Return the cells of one catalyst."""
    mean = info["mean_diameter_px"]
    return (
        f"{len(true_px)} | {info['n_particles']} | {mean:.3f} px | {100 * (mean / true_px.mean() - 1):+.2f} % | "
        f"{100 * true_porosity:.2f} % | {100 * support['porosity']:.2f} %"
    )


def porosity(labels: np.ndarray, size: int, seed: int) -> float:
    """Return what part of the plates was cut out as pores and is not filled by particles."""
    plates = catalyst(size, 0, seed, n_pores=0).labels > 0
    return float((labels[plates] == 0).mean())


def measured(labels: np.ndarray, volume: np.ndarray, class_names: list[str]) -> MemoryOutputs:
    """Return what the stage `measure` makes of labels."""
    outputs, attrs = MemoryOutputs(), {"class_names": class_names, "voxel_size_nm": 0.25}
    inputs = {"labels": MemoryInput(labels, attrs), "volume": MemoryInput(volume, attrs)}
    STAGE.run(**inputs, params=MeasureParameters(), runtime=Runtime(), outputs=outputs)
    return outputs


# ----------------------------------------------------------------------------------------- whole pipeline


def pipeline() -> None:
    """Print what `tomoseg run` finds from raw series."""
    print(f"| raw series | {COLUMNS} |\n|---|---|---|---|---|---|---|")
    for seed in SERIES:
        with tempfile.TemporaryDirectory() as folder:
            raw, truth, project = (Path(folder) / name for name in ("raw.mrc", "truth.h5", "project.h5"))
            command("simulate", "-o", raw, "--truth", truth, "--seed", seed)
            command("run", raw, "-o", project, "--until", "measure")
            with h5py.File(truth) as true, h5py.File(project) as found:
                labels = true[schema.LABELS.path][:]
                info, support = (found[a.path].attrs for a in (schema.MEASUREMENT_INFO, schema.SUPPORT_INFO))
                diameters = true[schema.PARTICLE_TABLE.path]["diameter_px"]
                print(f"| seed {seed} | {row(info, support, diameters, porosity(labels, len(labels), seed))} |")
    print()


def command(*words: object) -> None:
    """Run tomoseg, silently unless it fails."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tomoseg", *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)


if __name__ == "__main__":
    main()
