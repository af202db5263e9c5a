"""How near alignment comes to the truth: simulated series under one disturbance each, ours beside ETSpy's four methods.

    python benchmarks/alignment.py --csv alignment.csv
    python benchmarks/alignment.py --quick --cases nominal needle --no-peers

Errors are in px of the raw image, over the usable tilts, less what no alignment can know: a translation of the object
(a constant along the axis, x0 cos(t) + z0 sin(t) across it). `rms` is over both directions, sqrt((across^2 +
along^2) / 2), the same for all. tomoseg is told nothing but the angles. ETSpy's methods find shifts only and take the
axis to lie along the rows: they are given images less the true background, turned by 90 degrees where that brings the
axis nearer to the rows, and judged with the true axis angle and the offset that suits them best. Their times are for
the shifts alone, ours for axis and resampling too.

`offset` is the error of the axis offset, in px: the constant in the error across the axis beside x0 cos(t) + z0 sin(t).
Shifts and offset are not known apart, only their sum is (a constant may be moved from one to the other), and nothing
but their sum enters the aligned series.
"""

import argparse
import contextlib
import csv
import io
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy import ndimage

from tomoseg import simulate
from tomoseg.alignment.api import align
from tomoseg.alignment.images.warp import rotate_vectors
from tomoseg.errors import TomosegError, TomosegWarning

WORKERS = 2
PEERS = {
    "PC": "PhaseCorrelationAligner",
    "COM": "CoMAligner",
    "StackReg": "StackRegAligner",
    "COM-CL": "CommonLineAligner",
}
# Counts of black, and of the mean of the object's shadow above it, whatever the dose; the vacuum is a part of that.
BLACK, SHADOW, VACUUM = 1000.0, 4000.0, 0.02
LEVEL = BLACK + VACUUM * SHADOW


@dataclass(frozen=True)
class Case:
    """A series to align: the object, how it is seen, and what disturbs it.

    `offset` is that of the axis as a part of the frame's width; `crop` the part of each side of the images that is
    kept, about the middle; `damage` none, "blank" (two tilts of vacuum) or "corrupted" (one of noise, one of another
    tilt in the wrong place); `contrast` dark field, its "exposure" growing as 1 / cos(tilt), or "bright field", of
    which `dose` is the beam.
    """

    name: str
    kind: str = "plates"
    size: int = 192
    seed: int = 0
    dose: float = 400.0
    jitter_px: float = 5.0
    drift_px: float = 20.0
    max_tilt: float = 68.0
    step: float = 2.0
    axis_angle: float = 3.0
    offset: float = 2.5 / 192
    crop: float = 1.0
    damage: str = "none"
    contrast: str = "dark field"
    stretch: float = 1.0  # of the images, which are then half as wide again as they are high

    def quick(self) -> "Case":
        """Return the same at 96 px, with the stage's motion in proportion."""
        factor = 96 / self.size
        return replace(self, size=96, jitter_px=self.jitter_px * factor, drift_px=self.drift_px * factor)


FILMED = {"max_tilt": 60.0, "step": 3.0}
CASES = (
    *(Case("nominal", seed=seed) for seed in range(3)),
    Case("dose 40", dose=40),
    Case("dose 4000", dose=4000),
    Case("jitter 1 px", jitter_px=1),
    Case("jitter 15 px", jitter_px=15),
    Case("hard: +-50 by 5, jitter 15 px", max_tilt=50, step=5, jitter_px=15),
    Case("+-76 by 1", max_tilt=76, step=1),
    Case("+-68 by 5", max_tilt=68, step=5),
    *(Case(f"axis {angle} deg", axis_angle=angle) for angle in (-10, 10, 85, 90, -40)),
    *(Case(f"offset {part} %", offset=part / 100) for part in (5, 10)),
    Case("blank tilts", damage="blank"),
    Case("corrupted tilts", damage="corrupted"),
    Case("needle", kind="needle"),
    Case("clusters", kind="clusters"),
    Case("cut", crop=0.5),
    Case("film", kind="film"),
    *(Case("carbon, dose 400", kind="carbon", axis_angle=4, seed=seed, **FILMED) for seed in range(3)),
    *(Case("carbon, dose 25", kind="carbon", axis_angle=-8, dose=25, seed=seed, **FILMED) for seed in range(3)),
    *(
        Case("carbon, 1/cos", kind="carbon", axis_angle=12, contrast="exposure", seed=seed, **FILMED)
        for seed in range(3)
    ),
    *(
        Case(
            "carbon, bright field", kind="carbon", axis_angle=30, dose=60, contrast="bright field", seed=seed, **FILMED
        )
        for seed in range(3)
    ),
    *(Case("large, oversampled", size=270, stretch=2.6, jitter_px=6.5, drift_px=26, seed=seed) for seed in range(2)),
    *(Case("carbon without particles", kind="bare", axis_angle=-5, seed=seed, **FILMED) for seed in range(3)),
    Case("check: tilts to 4 deg, dose 4000", dose=4000, max_tilt=4, step=0.5),
)


# ------------------------------------------------------------------------------------------------------------- objects


def plates(size: int, seed: int) -> np.ndarray:
    """Return a supported catalyst in a cube of `size` voxels, as all objects (z, y, x) in density per px."""
    return simulate.catalyst(size, 60 if size >= 192 else 20, seed).density


def clusters(size: int, seed: int) -> np.ndarray:
    """Return a handful of balls of different sizes and densities that do not touch."""
    rng = np.random.default_rng(seed)
    density = np.zeros((size, size, size), np.float32)
    placed: list[tuple[np.ndarray, float]] = []
    for radius in size * np.array([0.11, 0.09, 0.075, 0.06, 0.05, 0.035, 0.025]):
        while True:
            centre = rng.uniform(-0.4, 0.4, 3) * size
            inside = np.linalg.norm(centre) + radius < 0.4 * size
            if inside and all(np.linalg.norm(centre - c) > 1.15 * (radius + r) for c, r in placed):
                break
        placed.append((centre, radius))
        _add_ball(density, centre, radius, rng.uniform(0.5, 3))
    return density


def needle(size: int, seed: int) -> np.ndarray:
    """Return a layered, tapered rod along y with a few particles, longer than the frame: one end is outside."""
    rng = np.random.default_rng(seed)
    z, y, x = _axes((size, 3 * size // 2, size))
    tip = -0.35 * size
    radius = size * 0.07 + 0.16 * (y - tip)
    distance = np.hypot(z + 0.04 * size, x - 0.05 * size) - radius
    rod = np.clip(0.5 - np.maximum(distance, tip - y), 0, 1)
    edges = np.cumsum(rng.uniform(0.04, 0.16, 40)) * size - 0.8 * size
    layer = np.searchsorted(edges, y.ravel())
    density = np.float32(rod * rng.uniform(0.6, 1.6, 41)[layer][:, None])
    for _ in range(25):
        along, turn = rng.uniform(tip, 0.7 * size), rng.uniform(0, 2 * np.pi)
        reach = rng.uniform(0.3, 1) * (0.07 * size + 0.16 * (along - tip))
        centre = np.array([reach * np.sin(turn) - 0.04 * size, along, reach * np.cos(turn) + 0.05 * size])
        _add_ball(density, centre, size * rng.uniform(0.012, 0.03), 2.5)
    return density


def film(size: int, seed: int) -> np.ndarray:
    """Return a slab of uneven thickness with particles on both faces, wider than the frame at a tilt of 70 degrees."""
    rng = np.random.default_rng(seed)
    shape = (size // 3, 3 * size // 2, 4 * size)
    z, y, x = _axes(shape)
    waves = rng.uniform(-1, 1, (12, 2)) * 2 * np.pi * 4 / size
    ripple = sum(np.sin(ky * y + kx * x + phase) for (ky, kx), phase in zip(waves, rng.uniform(0, 6, 12), strict=True))
    half = size * 0.05 * (1 + 0.06 * ripple)
    density = np.float32(np.clip(0.5 + half - np.abs(z), 0, 1))
    for _ in range(360):
        centre = rng.uniform(-0.5, 0.5, 3) * shape
        centre[0] = rng.choice([-1, 1]) * size * 0.055
        _add_ball(density, centre, size * 0.022 * np.exp(0.25 * rng.standard_normal()), 3.5)
    return density


def carbon(size: int, seed: int) -> np.ndarray:
    """Return a textured film of uneven thickness with particles in and on it, wider than the frame at any tilt."""
    return _textured(size, seed, 220)


def bare(size: int, seed: int) -> np.ndarray:
    """Return such a film without particles."""
    return _textured(size, seed, 0)


def _textured(size: int, seed: int, n_particles: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (size // 3, 3 * size // 2, 2 * (17 * size // 10))
    z, y, x = _axes(shape)
    waves = rng.uniform(-1, 1, (12, 2)) * 2 * np.pi * 4 / size
    ripple = sum(np.sin(ky * y + kx * x + phase) for (ky, kx), phase in zip(waves, rng.uniform(0, 6, 12), strict=True))
    density = np.float32(np.clip(0.5 + size * 0.05 * (1 + 0.06 * ripple) - np.abs(z), 0, 1))
    texture = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), size * 0.012)
    density *= np.clip(1 + 0.35 * texture / texture.std(), 0.05, None)
    for _ in range(n_particles):
        centre = rng.uniform(-0.5, 0.5, 3) * [0.11 * size, shape[1], shape[2]]
        _add_ball(density, centre, size * 0.018 * np.exp(0.3 * rng.standard_normal()), 3.5)
    return density


def _axes(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return broadcastable z, y, x from the centre, in px."""
    z, y, x = (np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in shape)
    return z[:, None, None], y[None, :, None], x[None, None, :]


def _add_ball(density: np.ndarray, centre: np.ndarray, radius: float, value: float) -> None:
    """Add a ball, its centre from that of the volume in px, with a surface one px wide."""
    at = centre + (np.array(density.shape) - 1) / 2
    low = np.maximum(np.floor(at - radius - 1), 0).astype(int)
    high = np.maximum(np.ceil(at + radius + 2), 0).astype(int)
    z, y, x = np.ogrid[tuple(slice(a, min(b, n)) for a, b, n in zip(low, high, density.shape, strict=True))]
    distance = np.sqrt((z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2) - radius
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    density[box] += np.float32(value) * np.clip(0.5 - distance, 0, 1).astype(np.float32)


OBJECTS: dict[str, Callable[[int, int], np.ndarray]] = {
    "plates": plates,
    "needle": needle,
    "clusters": clusters,
    "film": film,
    "carbon": carbon,
    "bare": bare,
}


# -------------------------------------------------------------------------------------------------------------- series


@dataclass(frozen=True)
class Series:
    """Raw images (n_tilt, y, x), angles in degrees, true shifts (dy, dx) and offset in px, and which tilts count."""

    raw: np.ndarray
    angles_deg: np.ndarray
    shifts_px: np.ndarray
    axis_angle_deg: float
    axis_offset_px: float
    usable: np.ndarray


def acquire(case: Case) -> Series:
    """Return the series of a case; objects larger than the frame are recorded whole, and the images then cut."""
    angles = simulate.tilt_angles(case.max_tilt, case.step)
    perfect = simulate.project(OBJECTS[case.kind](case.size, case.seed), angles, WORKERS)
    # What leaves this margin of a quarter on each side is never seen; a film is much wider than that.
    perfect = _middle(perfect, perfect.shape[1], min(perfect.shape[2], 3 * case.size // 2))
    perfect = _stretched(perfect, case.stretch) if case.stretch > 1 else perfect
    shifts = simulate.stage_motion(len(angles), case.jitter_px, case.drift_px, case.seed + 1)
    frame = round(case.crop * case.size)
    offset = case.offset * frame
    if case.contrast != "dark field":
        return _filmed(case, angles, perfect, shifts)
    raw = simulate.acquire(
        perfect, shifts_px=shifts, tilt_axis_angle_deg=case.axis_angle, tilt_axis_offset_px=offset, dose=case.dose,
        vacuum=VACUUM, counts_per_electron=SHADOW / case.dose, black_level=BLACK, seed=case.seed + 2,
    )  # fmt: skip
    raw = raw if case.stretch > 1 else np.ascontiguousarray(_middle(raw, frame, frame))
    usable = damage(raw, case)
    return Series(raw, angles, shifts, case.axis_angle, offset, usable)


def _filmed(case: Case, angles: np.ndarray, perfect: np.ndarray, shifts: np.ndarray) -> Series:
    """Return the series of a film in another contrast; thickness 0.5 at zero tilt in bright field."""
    offset = case.offset * case.size
    exact = simulate.acquire(
        perfect, shifts_px=shifts, tilt_axis_angle_deg=case.axis_angle, tilt_axis_offset_px=offset, dose=None,
        black_level=0.0, dtype=np.float32,
    )  # fmt: skip
    exact = _middle(np.maximum(exact, 0), case.size, case.size)
    usual = float(np.median(exact[len(exact) // 2]))
    if case.contrast == "bright field":
        electrons, black = case.dose * np.exp(-0.5 * exact / usual), 0.0
    else:
        electrons = case.dose * (exact / usual / np.cos(np.deg2rad(angles))[:, None, None] + VACUUM)
        black = BLACK
    counts = black + SHADOW / case.dose * np.random.default_rng(case.seed + 2).poisson(electrons)
    raw = np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
    return Series(raw, angles, shifts, case.axis_angle, offset, np.ones(len(raw), bool))


def _stretched(images: np.ndarray, factor: float) -> np.ndarray:
    """Return images with room on both sides, in which everything is `factor` times as wide."""
    room = round(0.23 * images.shape[2])
    return np.stack([ndimage.zoom(np.pad(image, ((0, 0), (room, room))), factor, order=3) for image in images]).clip(0)


def _middle(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the middle of each image; the differences in size are even, so that the centre stays where it is."""
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def damage(raw: np.ndarray, case: Case) -> np.ndarray:
    """Spoil two tilts in place as the case asks; return which are usable."""
    usable = np.ones(len(raw), bool)
    if case.damage == "none":
        return usable
    rng = np.random.default_rng(case.seed + 3)
    first, second = len(raw) // 4, 2 * len(raw) // 3
    usable[[first, second]] = False
    gain, shape = SHADOW / case.dose, raw.shape[1:]
    if case.damage == "blank":
        raw[[first, second]] = BLACK + gain * rng.poisson(VACUUM * case.dose, (2, *shape))
    else:
        raw[first] = BLACK + gain * rng.poisson(case.dose, shape)
        raw[second] = np.roll(raw[len(raw) // 2], (shape[0] // 3, shape[1] // 3), axis=(0, 1))
    return usable


# -------------------------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True)
class Errors:
    """Errors in px: shifts, rms across and along the axis; the worst tilt in any direction; the axis offset."""

    across: float
    along: float
    worst: float
    offset: float

    @property
    def rms(self) -> float:
        """Return the rms over both directions."""
        return float(np.hypot(self.across, self.along) / np.sqrt(2))


def errors(
    series: Series, shifts_px: np.ndarray, angle_deg: float, offset_px: float, *, free_offset: bool = False
) -> Errors:
    """Return the errors of `shifts_px` (n_tilt, 2), less a translation and, where it is free, the best offset."""
    error = rotate_vectors(shifts_px, angle_deg) - [0.0, offset_px]
    error -= rotate_vectors(series.shifts_px, series.axis_angle_deg) - [0.0, series.axis_offset_px]
    error, tilts = error[series.usable], np.deg2rad(series.angles_deg[series.usable])
    along = error[:, 0] - error[:, 0].mean()
    terms = np.stack([np.cos(tilts), np.sin(tilts), np.ones(len(tilts))], axis=1)
    constant = np.linalg.lstsq(terms, error[:, 1], rcond=None)[0][2]
    unknowable = terms if free_offset else terms[:, :2]
    across = error[:, 1] - unknowable @ np.linalg.lstsq(unknowable, error[:, 1], rcond=None)[0]
    rms = [float(np.sqrt(np.mean(np.square(part)))) for part in (across, along)]
    return Errors(*rms, float(np.hypot(across, along).max()), float(constant))


def axis_near(true_deg: float, angle_deg: float, offset_px: float) -> tuple[float, float]:
    """Return direction and offset of an axis, from that of its ends which is nearer to the true direction."""
    if abs(angle_deg - true_deg) > 90:
        return angle_deg + np.copysign(180, true_deg - angle_deg), -offset_px
    return angle_deg, offset_px


# ------------------------------------------------------------------------------------------------------------- methods


def run_ours(series: Series) -> dict[str, float | str]:
    """Align with the defaults; return the figures, or the reason why it failed."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():  # they are counted below
            warnings.simplefilter("ignore", TomosegWarning)
            aligned = align(series.raw, series.angles_deg, workers=WORKERS)
    except TomosegError as problem:
        return {"failure": str(problem)}
    seconds = time.perf_counter() - start
    angle, offset = axis_near(series.axis_angle_deg, aligned.tilt_axis_angle_deg, aligned.tilt_axis_offset_px)
    found = errors(series, aligned.shifts_px, angle, offset)
    return {
        "rms_px": found.rms, "across_px": found.across, "along_px": found.along, "worst_px": found.worst,
        "axis_error_deg": angle - series.axis_angle_deg, "offset_error_px": found.offset,
        "seconds": seconds, "warnings": len(aligned.warnings),
    }  # fmt: skip


def run_peer(method: str, series: Series) -> dict[str, float | str]:
    """Find shifts with one of ETSpy's methods and its defaults; return its figures, or the reason why it failed."""
    from etspy import align as etspy_align
    from etspy.base import TomoStack, TomoTilts

    images = series.raw.astype(np.float32) - np.float32(LEVEL)
    # Its axis lies along the last dimension; its shifts, like ours, are what is added to an image's coordinates.
    upright = abs(series.axis_angle_deg) <= 45
    if upright:
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    start = time.perf_counter()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            stack = TomoStack(images, tilts=TomoTilts(series.angles_deg[:, None]))
            shifts = getattr(etspy_align, PEERS[method])(stack, start=None, show_progressbar=False).calculate_shifts()
    except Exception as problem:  # whatever another program may raise is its result here
        return {"failure": f"{type(problem).__name__}: {problem}"}
    seconds = time.perf_counter() - start
    if not np.isfinite(shifts).all():
        return {"failure": "shifts that are no numbers"}
    shifts = shifts[:, ::-1] if upright else shifts
    found = errors(series, shifts, series.axis_angle_deg, 0.0, free_offset=True)
    return {"rms_px": found.rms, "across_px": found.across, "along_px": found.along, "seconds": seconds}


# --------------------------------------------------------------------------------------------------------------- table

COLUMNS = ("rms", "across", "along", "worst", "axis, deg", "offset", "s")
OURS = ("rms_px", "across_px", "along_px", "worst_px", "axis_error_deg", "offset_error_px", "seconds", "warnings")
THEIRS = ("rms_px", "across_px", "along_px", "seconds")


class Report:
    """Prints a line per case as it is done, keeps the figures in a CSV file, and the reasons of failures for last."""

    def __init__(self, peers: Sequence[str], csv_path: Path | None) -> None:
        self.peers, self.csv_path = tuple(peers), csv_path
        self.rows: list[dict[str, object]] = []
        self.reasons: list[str] = []
        # Where there is no peer the columns still say so.
        heads = ("case", "seed", *COLUMNS, *(f"ETSpy {p}" for p in PEERS), "best of ETSpy")
        print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads), flush=True)

    def add(self, case: Case, ours: dict[str, float | str], peers: dict[str, dict[str, float | str]]) -> None:
        """Print and store one case."""
        row: dict[str, object] = asdict(case)
        row |= {key: ours.get(key, "") for key in (*OURS, "failure")}
        for name in PEERS:
            row |= {f"etspy_{name}_{key}": peers.get(name, {}).get(key, "") for key in (*THEIRS, "failure")}
        done = {name: float(found["rms_px"]) for name, found in peers.items() if "rms_px" in found}
        best = min(done, key=done.__getitem__) if done else ""
        row |= {"etspy_best": best, "etspy_best_rms_px": done.get(best, "")}
        self.rows.append(row)
        cells = [case.name, str(case.seed), *self._ours(ours), *(self._peer(peers, name) for name in PEERS)]
        cells.append(f"{best} {done[best]:.3f}" if best else "none")
        print("| " + " | ".join(cells) + " |", flush=True)
        self._write_csv()

    def _ours(self, found: dict[str, float | str]) -> list[str]:
        if "failure" in found:
            return [self._fails("tomoseg", found), *[""] * (len(COLUMNS) - 1)]
        formats = ("{:.3f}", "{:.3f}", "{:.3f}", "{:.2f}", "{:+.3f}", "{:+.2f}", "{:.1f}")
        return [form.format(found[key]) for form, key in zip(formats, OURS, strict=False)]

    def _peer(self, peers: dict[str, dict[str, float | str]], name: str) -> str:
        if name not in peers:
            return "not run"
        return self._fails(f"ETSpy {name}", peers[name]) if "failure" in peers[name] else f"{peers[name]['rms_px']:.2f}"

    def _fails(self, who: str, found: dict[str, float | str]) -> str:
        reason = f"{who}: {found['failure']}"
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"fails [{self.reasons.index(reason) + 1}]"

    def _write_csv(self) -> None:
        if self.csv_path is not None:
            with self.csv_path.open("w", newline="") as file:
                writer = csv.DictWriter(file, self.rows[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.rows)

    def close(self) -> None:
        """Print the footnotes."""
        print()
        for number, reason in enumerate(self.reasons, 1):
            print(f"[{number}] {reason}")


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Draw the error of every case, ours and the best of ETSpy's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in rows if not str(row["name"]).startswith("check")]
    figure, axes = plt.subplots(figsize=(7, 0.28 * len(rows) + 1), layout="constrained")
    for key, label, marker in (("rms_px", "tomoseg", "o"), ("etspy_best_rms_px", "best of ETSpy's four", "x")):
        known = [(float(str(row[key])), i) for i, row in enumerate(rows) if row[key] != ""]
        if known:
            axes.plot(*zip(*known, strict=True), marker, label=label)
    axes.set(xscale="log", xlabel="rms error of the shifts, px", yticks=range(len(rows)))
    axes.set_yticklabels([f"{row['name']} ({row['seed']})" for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def chosen(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the options ask for."""
    cases = [c for c in CASES if options.cases is None or any(part in c.name for part in options.cases)]
    if options.seeds is not None:
        names = dict.fromkeys(replace(c, seed=0) for c in cases)
        cases = [replace(c, seed=seed) for c in names for seed in options.seeds]
    return [c.quick() for c in cases] if options.quick else cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only cases with one of these in their name")
    parser.add_argument("--seeds", type=int, nargs="+", help="every case with each of these seeds")
    parser.add_argument("--quick", action="store_true", help="at 96 px, with the stage's motion in proportion")
    parser.add_argument("--no-peers", action="store_true", help="without ETSpy")
    parser.add_argument("--csv", type=Path, help="file for the figures, rewritten after every case")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="file for a plot of the errors")
    options = parser.parse_args()
    cases = chosen(options)
    if not cases:
        parser.error("no case has such a name: " + ", ".join(dict.fromkeys(c.name for c in CASES)))
    peers: Sequence[str] = () if options.no_peers else tuple(PEERS)
    if peers and find_spec("etspy") is None:
        print("ETSpy is not installed and left out (pip install etspy)\n")
        peers = ()
    elif peers:
        with contextlib.redirect_stderr(io.StringIO()):
            import etspy.base  # noqa: F401 - its import takes long and writes
        logging.disable(logging.WARNING)
        print(f"ETSpy {version('etspy')}\n")
    report = Report(peers, options.csv)
    for case in cases:
        series = acquire(case)
        report.add(case, run_ours(series), {name: run_peer(name, series) for name in peers})
    report.close()
    if options.plot is not None:
        plot(report.rows, options.plot)


if __name__ == "__main__":
    main()
