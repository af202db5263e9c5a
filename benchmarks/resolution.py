"""Is the stated resolution right? Simulated series, reconstructed, against the resolution to which they show the truth.

    python benchmarks/resolution.py
    python benchmarks/resolution.py --plot docs/images/resolution.png

For each object and series, prints the resolution as `tomoseg reconstruct` states it (even and odd tilts, 1/7), and the
period at which the Fourier shell correlation of the volume with the true density falls below 1/2, in the directions
between the outermost tilts: what 1/7 of halves stands for. That correlation is computed here, by other code, of whole
shells, and read where the falling curve next to it crosses. The projections are exact integrals of a spline. With
`--plot`, the curves of some series are drawn, too.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from accuracy import noisy
from scipy import ndimage
from scipy.optimize import isotonic_regression

import tomoseg as ts
from tomoseg import simulate
from tomoseg.worlds.samples import random_sample_recipe, sample

SERIES = (
    (400, 68, 2),
    (40, 68, 2),
    (4000, 68, 2),
    (400, 50, 5),
    (400, 76, 1),
    (100, 70, 3),
)  # dose, largest tilt, step
WORLDS = (11, 12, 13, 21, 22)


def objects(size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and densities (z, y, x), the largest 1."""
    yield "catalyst", simulate.catalyst(size, 40, seed=3).density
    yield "needle", _needle(size)
    for seed in WORLDS:
        rng = np.random.default_rng(seed)
        yield f"world {seed}", sample(random_sample_recipe(rng, (size,) * 3, size), rng).density


def _needle(size: int) -> np.ndarray:
    """Return a needle along the tilt axis, cut by the frame, of layers with grains."""
    rng = np.random.default_rng(5)
    z, y, x = np.meshgrid(*[np.arange(size) - (size - 1) / 2] * 3, indexing="ij")
    inside = np.clip(0.25 * size - np.hypot(z, x) + 0.5, 0, 1)
    grains = ndimage.gaussian_filter(rng.normal(0, 1, (size,) * 3), 1.5)
    layers = np.select([np.abs(y) < 3, np.abs(y + 20) < 8], [2.0, 0.6], 1.0)
    return (inside * layers * (1 + 0.15 * grains / grains.std()).clip(0)).astype(np.float32)


def correlation_with(
    truth: np.ndarray, volume: np.ndarray, most_deg: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return frequencies (cycles per px), the correlation and the number of coefficients of each shell."""
    window = np.ones(1)
    for n in truth.shape:
        window = np.multiply.outer(window, ndimage.gaussian_filter1d(_box(n), n / 12, mode="constant"))
    p, q = (np.fft.rfftn((v - v.mean()) * window[0]) for v in (truth.astype(float), volume.astype(float)))
    fz, fy, fx = np.meshgrid(*map(np.fft.fftfreq, truth.shape[:2]), np.fft.rfftfreq(truth.shape[2]), indexing="ij")
    radius = np.sqrt(fz**2 + fy**2 + fx**2)
    seen = (radius < 0.5) & (np.abs(fz) <= np.tan(np.deg2rad(most_deg)) * np.abs(fx) + 1e-12)
    n = min(truth.shape) // 2
    shell = np.where(seen, (radius * 2 * n).astype(int), n)
    cross, first, second = (
        ndimage.sum_labels(values, shell, np.arange(1, n)) for values in ((p * q.conj()).real, abs(p) ** 2, abs(q) ** 2)
    )
    return (np.arange(1, n) + 0.5) / (2 * n), cross / np.sqrt(first * second), np.bincount(shell.ravel())[1:n]


def _box(n: int) -> np.ndarray:
    box = np.zeros(n)
    box[n // 6 : n - n // 6] = 1
    return box


def period_at(frequency: np.ndarray, correlation: np.ndarray, weights: np.ndarray, threshold: float) -> float:
    """Return where the falling curve next to `correlation` crosses the threshold, px; 2 where it does not."""
    falling = isotonic_regression(correlation, weights=weights, increasing=False).x
    return 2.0 if falling[-1] >= threshold else float(1 / np.interp(-threshold, -falling, frequency))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--methods", nargs="+", default=["mlem", "sirt", "tv"])
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the curves of the catalyst by the first method")
    options = parser.parse_args()
    print("| object | electrons | tilts | method, iterations | stated, px | by the truth, px | ratio | Crowther, px |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    ratios, curves = [], []
    for name, density in objects(options.size):
        for dose, most, step in SERIES:
            angles = simulate.tilt_angles(most, step)
            images = noisy(simulate.project(density, angles), dose)
            for method in options.methods if name == "catalyst" else options.methods[:1]:
                found = ts.reconstruct(images, angles, method=method, z_size=density.shape[0], device="cpu")
                frequency, correlation, count = correlation_with(density, found.volume, most)
                true_px = period_at(frequency, correlation, count, 0.5)
                ratios.append(found.resolution_px / true_px)
                if name == "catalyst" and method == options.methods[0]:
                    curves.append((f"{dose} electrons, {len(angles)} tilts", found.shells, frequency, correlation))
                print(
                    f"| {name} | {dose} | {len(angles)} to {most} | {method}, {found.iterations} "
                    f"| {found.resolution_px:.2f} | {true_px:.2f} | {ratios[-1]:.2f} "
                    f"| {found.resolution.crowther_px:.2f} |",
                    flush=True,
                )
    near = [abs(np.log(ratio)) <= np.log(1.15) for ratio in ratios]
    print(
        f"\n{sum(near)} of {len(ratios)} within 15 %; ratio {min(ratios):.2f} to {max(ratios):.2f}, "
        f"median {np.median(ratios):.2f}"
    )
    if options.plot is not None:
        plot(curves, options.plot)


def plot(curves: list[tuple], path: Path) -> None:
    """Draw the correlation of halves, and that with the truth, of each series."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (label, shells, frequency, correlation) in zip(figure.subplots(2, 3).ravel(), curves, strict=True):
        axes.plot(shells["frequency_per_px"], shells["correlation"], color="tab:blue", label="even against odd tilts")
        axes.plot(frequency, correlation, color="tab:red", label="with the truth")
        axes.axhline(1 / 7, color="tab:blue", ls=":")
        axes.axhline(1 / 2, color="tab:red", ls=":")
        axes.set(title=label, xlim=(0, 0.5), ylim=(0, 1.02), xlabel="frequency (1/px)")
    figure.axes[0].legend(fontsize="small", loc="lower left")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
