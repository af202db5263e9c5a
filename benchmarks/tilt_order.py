"""How often the judgement of an alignment notices that angles do not belong to the images, and how often it is wrong.

    python benchmarks/tilt_order.py --series 120
    python benchmarks/tilt_order.py --series 0 --data FOLDER

Simulated series of 64 px of the objects of `benchmarks/alignment.py` under one difficulty after the other: noise, drift
of a third of the frame, brightness that drifts, empty images, missing tilts, exposures taken twice, few tilts. Each is
judged with its true angles, which must raise no alarm, and, where there is an order to tell (no balls, 12 tilts or
more), with wrong ones. FOLDER is `tilt-series` of the test data. `prefers` is how often the import would choose right
and wrong between both lists.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from alignment import Case, acquire

import tomoseg as ts
from tomoseg import simulate
from tomoseg.alignment.judging.order import FEWEST, find_contradiction
from tomoseg.io.order import prefers, similarity, thumbnails

SIZE = 64
KINDS = ("plates", "needle", "clusters", "film", "cut", "sphere")
Series = tuple[str, np.ndarray, np.ndarray]  # name, images, angles


def wrong_orders(angles: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return wrong lists of ascending angles, by what went wrong."""
    n = len(angles)
    half, quarter = n // 2, n // 4
    outward = np.argsort(np.abs(angles), kind="stable")
    back = angles.copy()
    back[quarter : 2 * quarter] = back[quarter : 2 * quarter][::-1]
    some = angles.copy()
    moved = rng.choice(n, max(4, n // 5), replace=False)
    some[moved] = np.roll(some[moved], 1)
    return {
        "dose-symmetric angles, sorted images": angles[outward],
        "sorted angles, dose-symmetric images": angles[np.argsort(outward)],
        "halves exchanged": np.r_[angles[half:], angles[:half]],
        "one half reversed": np.r_[angles[:half], angles[half:][::-1]],
        "halves exchanged, one reversed": np.r_[angles[half:], angles[:half][::-1]],
        "a quarter reversed": back,
        "a fifth of the images in other places": some,
        "every other image first": np.r_[angles[::2], angles[1::2]],
        "shuffled": rng.permutation(angles),
    }


def difficulties() -> dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]]:
    """Return functions that make a series (images, angles) difficult, by name."""

    def keep(images, angles, rng):
        return images, angles

    def dimmed(images, angles, rng):
        factor = np.linspace(1, 0.3, len(images)) * rng.uniform(0.8, 1.2, len(images))
        return images * factor[:, None, None] + rng.uniform(0, 500, len(images))[:, None, None], angles

    def emptied(images, angles, rng):
        images = images.astype(float)
        empty = rng.choice(len(images), 2, replace=False)
        images[empty] = rng.normal(1000, 30, (2, *images.shape[1:]))
        return images, angles

    def missing(images, angles, rng):
        kept = np.sort(rng.choice(len(images), int(0.7 * len(images)), replace=False))
        kept = kept[(angles[kept] < 10) | (angles[kept] > 25)]
        return images[kept], angles[kept]

    def twice(images, angles, rng):
        noise = rng.normal(0, 30, (len(images), *images.shape[1:]))
        return np.repeat(images, 2, axis=0) + np.repeat(noise, 2, axis=0)[::-1], np.repeat(angles, 2)

    def few(images, angles, rng):
        kept = np.linspace(0, len(images) - 1, 9).astype(int)
        return images[kept], angles[kept]

    return {"": keep, "brightness": dimmed, "empty": emptied, "missing": missing, "twice": twice, "few": few}


def simulated(count: int, seed: int) -> Iterator[Series]:
    """Yield series, every kind under every difficulty in turn."""
    rng = np.random.default_rng(seed)
    made = difficulties()
    for k in range(count):
        kind, trouble = KINDS[k % len(KINDS)], list(made)[k // len(KINDS) % len(made)]
        top, step = [(68, 2), (76, 2), (60, 3), (68, 4), (50, 5), (70, 1)][rng.integers(6)]
        case = Case(
            kind, kind="plates" if kind in {"cut", "sphere"} else kind, size=SIZE, seed=int(rng.integers(10_000)),
            dose=float(rng.choice([10, 40, 400])), jitter_px=float(rng.choice([0.5, 2, 5])),
            drift_px=float(rng.choice([2, 10, 20])), max_tilt=top, step=step,
            axis_angle=float(rng.uniform(-90, 90)), offset=float(rng.uniform(-0.05, 0.05)),
        )  # fmt: skip
        if kind == "cut":
            case = replace(case, size=2 * SIZE, crop=0.5)
        if kind == "sphere":
            images, angles = sphere(case), simulate.tilt_angles(top, step)
        else:
            series = acquire(case)
            images, angles = series.raw, series.angles_deg
        images, angles = made[trouble](images, angles, rng)
        yield f"{kind}, {len(images)} tilts, dose {case.dose:g}{', ' * bool(trouble)}{trouble}", images, angles


def sphere(case: Case) -> np.ndarray:
    """Return images of a ball, which looks the same at all tilts: nothing tells their order."""
    rng = np.random.default_rng(case.seed)
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    angles = simulate.tilt_angles(case.max_tilt, case.step)
    shifts = simulate.stage_motion(len(angles), case.jitter_px, case.drift_px, case.seed)
    squares = (axis[None, :, None] + shifts[:, :1, None]) ** 2 + (axis[None, None, :] + shifts[:, 1:, None]) ** 2
    thickness = 2 * np.sqrt(np.maximum((0.25 * SIZE) ** 2 - squares, 0)) / (0.5 * SIZE)
    return 1000 + 4000 / case.dose * rng.poisson(case.dose * (thickness + 0.02))


def real(folder: Path) -> Iterator[Series]:
    """Yield the real tilt series that are in the folder."""
    series = {
        "needle/HAADF.mrc": "needle/HAADF.rawtlt",
        "needle/HAADF_Aligned.hspy": None,
        "needle-dm3/HAADF.dm3": None,
        "dust-particle/idp_haadf_16x256x256_u16.tif": "dust-particle/idp_haadf.rawtlt",
        "catalyst-simulated/Catalyst3DModel_TiltSeries180.hspy": None,
    }
    for name, beside in series.items():
        if not (folder / name).exists():
            print(f"{name} is not in {folder}")
            continue
        raw = ts.read_series(folder / name, angles=None if beside is None else folder / beside)
        yield name, np.asarray(raw.images[:], np.float32), np.asarray(raw.angles_deg)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=120, help="how many to simulate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of real tilt series")
    parser.add_argument("--verbose", action="store_true", help="a line for each series")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    false: list[str] = []
    noticed: dict[str, list[bool]] = {}
    chosen: dict[str, list[int | None]] = {}
    n, slowest = 0, 0.0
    sources = [simulated(options.series, options.seed)] + ([real(options.data)] if options.data else [])
    for name, images, angles in (one for source in sources for one in source):
        start = time.perf_counter()
        alike = similarity(thumbnails(images))
        alarm = find_contradiction(alike, angles)
        slowest, n = max(slowest, time.perf_counter() - start), n + 1
        if alarm is not None:
            false.append(f"{name}: {alarm}")
        line = []
        if not name.startswith("sphere") and len(angles) >= FEWEST:
            for what, wrong in wrong_orders(angles, rng).items():
                line.append(find_contradiction(alike, wrong) is not None)
                noticed.setdefault(what, []).append(line[-1])
                chosen.setdefault(what, []).append(prefers(alike, [wrong, angles]))
        if options.verbose:
            print(
                f"{'' if alarm is None else 'FALSE ALARM '}{name}: {' '.join('.x'[seen] for seen in line)}", flush=True
            )
    print(f"{n} series with their true angles: {len(false)} false alarms; the slowest took {slowest:.2f} s")
    print("\n".join(false))
    print("| angles | series | noticed | `prefers` right | `prefers` wrong |\n|---|---|---|---|---|")
    for what, seen in noticed.items():
        choices = chosen[what]
        print(f"| {what} | {len(seen)} | {sum(seen)} | {choices.count(1)} | {choices.count(0)} |")


if __name__ == "__main__":
    main()
