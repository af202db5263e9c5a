"""How near reconstructions come to the truth: simulated catalysts, perfectly aligned, by method, dose and tilt range.

    python benchmarks/accuracy.py --size 192
    python benchmarks/accuracy.py --plot docs/images/reconstruction_curves.png

Prints, for each series, the correlation of the volume with the true density for given numbers of iterations and for
those that held-out tilts ask for (`auto`), the best that any number would have given, and the resolution by Fourier
shell correlation. The projections are not made by tomoseg's projector but by exact integration of a spline.
With `--plot` it prints no tables, but draws for MLEM at two doses what the number of iterations and the resolution are
found from, beside the truth.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tomoseg import simulate
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.method_table import METHODS
from tomoseg.reconstruction.methods import fbp, in_blocks, mlem, osem, sirt, tv, tv_scale
from tomoseg.reconstruction.resolution import THRESHOLD, measure_resolution
from tomoseg.reconstruction.selection import RESOLUTION_SLICES, SAMPLE_SLICES, take_sample
from tomoseg.reconstruction.stopping import cross_validate
from tomoseg.runtime import available_cpus, slabs

SERIES = ((400, 68, 2), (40, 68, 2), (4000, 68, 2), (400, 50, 5), (400, 76, 1))  # dose, largest tilt, step in degrees
SHOWN = {"mlem": (10, 30, 60), "osem": (2, 5, 10), "sirt": (30, 100, 200), "tv": (30, 60, 100)}
DRAWN = (400, 40)  # doses
WORKERS = available_cpus()


def noisy(clean: np.ndarray, dose: float) -> np.ndarray:
    """Return projections with the noise of `dose` electrons in the brightest pixel."""
    scale = clean.max() / dose
    return (np.random.default_rng(0).poisson(np.maximum(clean, 0) / scale) * scale).astype(np.float32)


def correlations(geometry: ParallelGeometry, data: np.ndarray, method: Callable, numbers: list[int], truth: np.ndarray):
    """Return the correlation with the truth after each of `numbers` iterations."""
    operator, wanted = CpuOperator(geometry), set(numbers)
    sums = {n: np.zeros(3) for n in numbers}  # of v, v^2 and v*t

    def block(part: slice) -> None:
        def watch(iteration: int, volume: np.ndarray) -> None:
            if iteration in wanted:
                v = np.asarray(operator.unload(volume, part.stop - part.start), np.float64)
                sums[iteration] += (v.sum(), (v**2).sum(), (v * truth[:, part]).sum())

        method(operator, data[:, part], iterations=max(numbers), watch=watch)

    for part in slabs(data.shape[1], operator.block):
        block(part)
    n, t = truth.size, truth.astype(np.float64)
    mean, spread = t.mean(), t.std()
    return {k: (vt / n - v / n * mean) / (np.sqrt(vv / n - (v / n) ** 2) * spread) for k, (v, vv, vt) in sums.items()}


def rows(geometry: ParallelGeometry, data: np.ndarray, truth: np.ndarray) -> None:
    """Print a line per method."""
    sample = take_sample(data, geometry, SAMPLE_SLICES)
    straight = in_blocks(CpuOperator(geometry), partial(fbp, filter_name="hann"), data, WORKERS).volume
    print(f"| fbp, hann | {np.corrcoef(straight.ravel(), truth.ravel())[0, 1]:.3f} | | | |")
    weight = 0.02 * tv_scale(geometry, sample)
    for name, method in (("mlem", mlem), ("osem", osem), ("sirt", sirt), ("tv", partial(tv, weight=weight))):
        curve = cross_validate(CpuOperator, geometry, sample, method, METHODS[name].most_iterations, WORKERS)
        numbers = sorted({*SHOWN[name], *curve.iterations.tolist()})
        found = correlations(geometry, data, method, numbers, truth)
        best = max(found, key=found.__getitem__)
        larger = take_sample(data, geometry, RESOLUTION_SLICES)
        resolution = measure_resolution(CpuOperator, geometry, larger, partial(method, iterations=curve.best), WORKERS)
        given = ", ".join(f"{found[n]:.3f} ({n})" for n in SHOWN[name])
        print(
            f"| {name} | {given} | {found[curve.best]:.3f} ({curve.best}) | {found[best]:.3f} ({best}) "
            f"| {resolution.px:.2f} |",
            flush=True,
        )


def plot(phantom: simulate.Phantom, path: Path) -> None:
    """Draw stopping curves and shell correlations of MLEM, 69 tilts to 68 degrees, a colour for each dose."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    truth_axis = left.twinx()
    angles, side = simulate.tilt_angles(68, 2), phantom.density.shape[0]
    geometry = ParallelGeometry(angles, side, side, side)
    clean = simulate.project(phantom.density, angles)
    for dose, colour in zip(DRAWN, ("tab:blue", "tab:red"), strict=True):
        data = noisy(clean, dose)
        sample = take_sample(data, geometry, SAMPLE_SLICES)
        curve = cross_validate(CpuOperator, geometry, sample, mlem, METHODS["mlem"].most_iterations, WORKERS)
        chosen = curve.best
        found = correlations(geometry, data, mlem, curve.iterations.tolist(), phantom.density)
        larger = take_sample(data, geometry, RESOLUTION_SLICES)
        found_in_halves = measure_resolution(CpuOperator, geometry, larger, partial(mlem, iterations=chosen), WORKERS)
        label = f"{dose} electrons"
        left.plot(curve.iterations, curve.held_out, color=colour, label=f"{label}: residual")
        lowest = curve.held_out[curve.iterations == chosen]
        left.plot([chosen], lowest, "o", color=colour, label=f"chosen: {chosen}")
        truth_axis.plot(list(found), list(found.values()), "--", color=colour)
        truth_axis.plot([chosen], [found[chosen]], "o", color=colour)
        left.plot([], [], "--", color=colour, label="correlation with the truth")
        resolution, shells = found_in_halves.px, found_in_halves.shells
        named = f"{label}: {resolution:.2f} px"
        right.plot(shells["frequency_per_px"], shells["correlation"], color=colour, label=named)
        right.plot([1 / resolution], [THRESHOLD], "o", color=colour)
        print(f"{label}: {chosen} iterations, correlation {found[chosen]:.3f}, best {max(found.values()):.3f} ", end="")
        print(f"({max(found, key=found.__getitem__)}); resolution {resolution:.2f} px", flush=True)
    left.set(xscale="log", xlabel="iterations", ylabel="relative residual of tilts left out", ylim=(0, None))
    left.set_xticks((1, 3, 10, 30, 100), labels=("1", "3", "10", "30", "100"))
    truth_axis.set(ylabel="correlation with the truth (dashed)")
    left.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    right.axhline(THRESHOLD, color="grey", linestyle=":", label="1/7")
    right.set(xlabel="spatial frequency, periods per px", ylabel="Fourier shell correlation", xlim=(0, 0.5))
    right.legend(fontsize="small")
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--particles", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the curves of MLEM, and nothing else")
    options = parser.parse_args()
    phantom = simulate.catalyst(options.size, options.particles, seed=options.seed)
    if options.plot is not None:
        plot(phantom, options.plot)
        return
    for dose, most, step in SERIES:
        angles = simulate.tilt_angles(most, step)
        geometry = ParallelGeometry(angles, options.size, options.size, options.size)
        print(f"\n{len(angles)} tilts to {most} degrees, {dose} electrons in the brightest pixel\n")
        print("| method | correlation (iterations) | auto | best | resolution, px |\n|---|---|---|---|---|")
        rows(geometry, noisy(simulate.project(phantom.density, angles), dose), phantom.density)


if __name__ == "__main__":
    main()
