"""How well the stated alignment error agrees with the true one, and whether a bad alignment ever goes without warning.

    python benchmarks/stated_error.py --series 200 --seed 1

Simulated series of the objects of `benchmarks/alignment.py`, 96 px, with doses, ranges, steps, directions of the axis,
jitter, drift, contrast and damage drawn at random. The true error is the rms over both directions and the tilts that
were not left out, less a translation of the sample and the constant that may be moved between shifts and axis offset.
An alignment is silent if that is above 1 px, is stated below 0.5 px, and no warning says that the alignment is
unreliable or uncertain, or leaves images out.
"""

import argparse
import multiprocessing
import os
import warnings
from dataclasses import replace

import numpy as np
from alignment import Case, acquire, axis_near, errors

from tomoseg.alignment.api import align
from tomoseg.errors import TomosegError, TomosegWarning

KINDS = ("plates", "needle", "clusters", "film", "carbon", "bare", "cut")
SIZE = 96
DOUBTS = ("unreliable", "uncertain", "do not agree", "disagree", "are lost", "hardly better", "too noisy")


def drawn(k: int, rng: np.random.Generator) -> Case:
    """Return one of all kinds of series."""
    kind = KINDS[k % len(KINDS)]
    top, step = [(60, 3), (68, 2), (70, 5), (50, 2.5), (60, 2)][rng.integers(5)]
    case = Case(
        kind, kind="plates" if kind == "cut" else kind, size=SIZE, seed=int(rng.integers(10_000)),
        dose=float(rng.choice([15, 60, 400])), jitter_px=float(rng.choice([0.5, 2.5, 6])),
        drift_px=float(rng.choice([2, 10])), max_tilt=top, step=step, axis_angle=float(rng.uniform(-90, 90)),
        offset=float(rng.uniform(-0.04, 0.04)), damage=str(rng.choice(["none", "none", "none", "blank", "corrupted"])),
    )  # fmt: skip
    if kind in {"carbon", "bare"}:
        contrast = str(rng.choice(["dark field", "exposure", "bright field"]))
        damage = case.damage if contrast == "dark field" else "none"
        case = replace(case, contrast=contrast, damage=damage, max_tilt=60)
    return replace(case, size=2 * SIZE, crop=0.5) if kind == "cut" else case


def judged(numbered: tuple[int, Case]) -> tuple[int, tuple[float, float, bool] | None]:
    """Align one series; return its number, and true and stated error and whether it is silent, None if refused."""
    k, case = numbered
    series = acquire(case)
    try:
        with warnings.catch_warnings():  # they are looked at below
            warnings.simplefilter("ignore", TomosegWarning)
            aligned = align(series.raw, series.angles_deg, workers=1)
    except TomosegError as problem:
        print(f"{k}: {case.name}: {problem}", flush=True)
        return k, None
    angle, offset = axis_near(series.axis_angle_deg, aligned.tilt_axis_angle_deg, aligned.tilt_axis_offset_px)
    kept = replace(series, usable=series.usable & ~aligned.outliers)  # those left out are told
    true, said = errors(kept, aligned.shifts_px, angle, offset, free_offset=True).rms, aligned.estimated_error_px
    doubted = any(word in text for text in aligned.warnings for word in DOUBTS)
    is_silent = true > 1 and (said < 0.5 or not np.isfinite(said)) and not doubted
    print(
        f"{k}: {case.name}, {case.contrast}, dose {case.dose:g}, {case.damage}, {len(series.raw)} tilts, axis "
        f"{case.axis_angle:.0f}: true {true:.3f} px, {angle - series.axis_angle_deg:+.2f} deg; stated {said:.3f} "
        f"px{', doubted' if doubted else ''}{', SILENT' if is_silent else ''}; {aligned.method}",
        flush=True,
    )
    return k, (true, said, is_silent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    cases = [(k, drawn(k, rng)) for k in range(options.series)]
    found: dict[str, list[tuple[float, float, bool]]] = {kind: [] for kind in KINDS}
    silent, refused = [], 0
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for k, outcome in pool.imap_unordered(judged, cases):
            case = cases[k][1]
            if outcome is None:
                refused += 1
                continue
            found[case.name].append(outcome)
            silent += [f"{k}: {case}: true {outcome[0]:.2f}, stated {outcome[1]:.2f}"] if outcome[2] else []
    columns = ("kind", "series", "within a factor of two", "below half", "above twice", "true, median px", "silent")
    print(f"\n| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|")
    everything = [one for rows in found.values() for one in rows]
    for kind, rows in [*found.items(), ("all", everything)]:
        if rows:
            true, stated = np.array([(t, s) for t, s, _ in rows]).T
            ratio = stated / true
            within, low, high = ((ratio >= 0.5) & (ratio <= 2)).sum(), (ratio < 0.5).sum(), (ratio > 2).sum()
            bad = sum(is_silent for _, _, is_silent in rows)
            print(f"| {kind} | {len(rows)} | {within} | {low} | {high} | {np.median(true):.3f} | {bad} |")
    print(f"\nrefused: {refused}; silent: {len(silent)}")
    print("\n".join(silent))


if __name__ == "__main__":
    main()
