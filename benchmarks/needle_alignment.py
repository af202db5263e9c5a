"""How well a real series is explained after alignment: tomoseg, the published alignment, and ETSpy's methods.

    python benchmarks/needle_alignment.py --data FOLDER --plot docs/images/needle_alignment.png

`--data` is a folder with HAADF.mrc, HAADF.rawtlt and HAADF_Aligned.hspy, which come with ETSpy (`pip download --no-deps
etspy==1.3.0`, folder `etspy/tests/test_data`); ETSpy itself is run where it is installed.

There is no truth here. What is measured: every eighth tilt in turn is left out, the others are reconstructed (tomoseg's
MLEM, 10, 30 and 60 iterations), and the volume is projected to the tilts left out. The figure is ||measured -
predicted|| / ||measured|| over all tilts, in one window of rows and columns about the axis and the sample that every
alignment shows at every tilt. It is given for

- each program's own images, as they are. They are resampled once by cubic spline (tomoseg) or Fourier shift and linear
  interpolation (the others), which smooths noise and so lowers the figure, as tomoseg's alignment with linear
  interpolation shows;
- each program's shifts and axis, with the raw images resampled once by tomoseg's spline: alignment alone;
- the same two after the axis was moved across by the constant that suits the second of them best ("moved"), as whoever
  looks at a reconstruction would.

The background subtracted is the same for all, what tomoseg finds. ETSpy's methods are called with their defaults, but
for COM-CL: the row to which it brings the centre of mass is the middle one, not that of the number of a tilt. For
MaxImage `also_shift` is left off, for it takes about ten minutes; `moved` stands in for it.
"""

import argparse
import contextlib
import io
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage

from tomoseg.alignment.api import align
from tomoseg.alignment.images.warp import rotation_matrix, warp_image
from tomoseg.io.angles import read_angles
from tomoseg.io.raw import open_raw
from tomoseg.reconstruction import kernels
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import in_blocks, mlem
from tomoseg.runtime import available_cpus, slabs

WORKERS = available_cpus()
FOLDS = 8
ITERATIONS = (10, 30, 60)
HALF_WIDTH = 76  # px of the window on both sides of the axis; the needle is 80 px wide
FARTHEST = 12.0  # px, how far the axis is moved at most
ACROSS = (115, 165)  # rows of tomoseg's frame of which slices are drawn: the brightest layer, and nearer to the tip
REACH = 48  # px about the sample that are drawn
ROWS_APART = 4  # slices are reconstructed by themselves: one row in so many stands for the others
ETSPY = {
    "PC": {},
    "COM": {},
    "StackReg": {},
    "COM-CL": {"com_ref_index": 128},
}
TILT_ALIGN = ("CoM", "MaxImage")


# ---------------------------------------------------------------------------------------------------------- alignments


@dataclass(frozen=True)
class Series:
    """Raw images (n_tilt, y, x) less their background, the tilt axis near x, and angles in degrees."""

    images: np.ndarray
    angles_deg: np.ndarray


@dataclass(frozen=True)
class Alignment:
    """Shifts (n_tilt, 2), direction and offset of the axis as in `tomoseg.alignment.images.warp`, and images (upright).

    `own` are as the program made them.
    """

    name: str
    shifts_px: np.ndarray
    axis_angle_deg: float
    axis_offset_px: float
    own: np.ndarray

    def moved(self, by_px: float) -> "Alignment":
        """Return the alignment with the axis at `by_px` to the right; the images by a Fourier shift, which keeps noise.

        The images are vacuum on their left and right.
        """
        phase = np.exp(2j * np.pi * np.fft.rfftfreq(self.own.shape[2]) * by_px)
        own = np.fft.irfft(np.fft.rfft(self.own) * phase, self.own.shape[2]).astype(np.float32)
        return replace(self, axis_offset_px=self.axis_offset_px + by_px, own=own)

    def resampled(self, series: Series, order: int = 3) -> np.ndarray:
        """Return the raw images, resampled once."""
        with ThreadPoolExecutor(WORKERS) as pool:
            return np.stack(list(pool.map(partial(self._resample, order=order), series.images, self.shifts_px)))

    def _resample(self, image: np.ndarray, shift_px: np.ndarray, order: int) -> np.ndarray:
        return warp_image(image, shift_px, self.axis_angle_deg, self.axis_offset_px, order)


def upright(images: np.ndarray) -> np.ndarray:
    """Return images whose axis lies along x turned by 90 degrees, as tomoseg turns them."""
    return np.ascontiguousarray(np.rot90(images, -1, axes=(1, 2)), np.float32)


def as_it_is(series: Series) -> Alignment:
    """Return the alignment that does nothing: the axis along x, through the middle."""
    n = len(series.images)
    return Alignment("none: raw images", np.zeros((n, 2)), 90.0, 0.0, upright(series.images))


def by_tomoseg(folder: Path, axis_angle_deg: float | None = None) -> tuple[Alignment, Series]:
    """Align the series with the defaults; return also the series less the background that was found."""
    with open_raw(folder / "HAADF.mrc") as found:
        raw, axis = found.read(slice(0, found.shape[0])), found.tilt_axis
    angles = read_angles(folder / "HAADF.rawtlt")
    made = align(raw, angles, tilt_axis=axis, tilt_axis_angle=axis_angle_deg, workers=WORKERS)
    levels = made.table["background"]
    name = "tomoseg" if axis_angle_deg is None else f"tomoseg, --tilt-axis-angle {axis_angle_deg:g}"
    alignment = Alignment(name, made.shifts_px, made.tilt_axis_angle_deg, made.tilt_axis_offset_px, made.aligned)
    return alignment, Series((raw - levels[:, None, None]).astype(np.float32), angles)


def of_etspy(name: str, images: np.ndarray, shifts_px: np.ndarray, turned_deg: float, down_px: float) -> Alignment:
    """Return an alignment by ETSpy: `shifts_px`, then a turn about the pixel n/2, then a move by -`down_px` in y.

    Its axis lies along x through (n - 1)/2, and at a turn of 0 our frame is its frame turned by 90 degrees.
    """
    angle = 90 + turned_deg
    to_centre = np.array([0.5, 0.5])  # from (n - 1)/2 to n/2
    turn = rotation_matrix(turned_deg)  # of (dy, dx)
    move = to_centre - turn @ to_centre - [down_px, 0]  # (dy, dx) after the turn
    return Alignment(name, shifts_px + turn.T @ move, angle, 0.0, upright(images))


def published(folder: Path, series: Series) -> Alignment:
    """Return the published alignment, its background level brought to that of the series."""
    with h5py.File(folder / "HAADF_Aligned.hspy") as file:
        root = file["Experiments/__unnamed__"]
        tomography = root["metadata/Tomography"]
        shifts = tomography["_sig_shifts/data"][...]
        found = of_etspy(
            "published", root["data"][...], shifts, tomography.attrs["tiltaxis"], tomography.attrs["yshift"]
        )
    level = np.median(found.own - found.resampled(series), axis=(1, 2), keepdims=True)
    return replace(found, own=found.own - level)


def by_etspy(series: Series) -> Iterator[Alignment]:
    """Align with each of ETSpy's methods, for shifts and then for the axis."""
    from etspy.base import TomoStack, TomoTilts

    for method, options in ETSPY.items():
        with contextlib.redirect_stderr(io.StringIO()):
            stack = TomoStack(series.images.copy(), tilts=TomoTilts(series.angles_deg[:, None].copy()))
            registered = stack.stack_register(method, **options)
        for second in TILT_ALIGN:
            name = f"ETSpy {method}, {second}"
            try:
                done = registered.tilt_align(second)
            except Exception as problem:  # whatever another program may raise is its result here
                print(f"{name} fails: {type(problem).__name__}: {problem}")
                continue
            tomography = done.metadata.Tomography
            yield of_etspy(name, done.data, registered.shifts.data, tomography.tiltaxis, tomography.yshift)


# -------------------------------------------------------------------------------------------------------------- window


@dataclass(frozen=True)
class Window:
    """Rows that every alignment shows, by alignment (they may differ in height), and columns about the axis."""

    rows: dict[str, slice]
    columns: slice

    def of(self, name: str, images: np.ndarray) -> np.ndarray:
        """Return this part of the images."""
        return np.ascontiguousarray(images[:, self.rows[name], self.columns])

    def sample(self, name: str, images: np.ndarray, apart: int = ROWS_APART) -> np.ndarray:
        """Return one row in `apart` of it, the same rows of the sample for all."""
        return self.of(name, images)[:, ::apart]


def common_window(series: Series, alignments: list[Alignment]) -> Window:
    """Return what all alignments show of the sample at every tilt."""
    whole = Series(np.ones_like(series.images), series.angles_deg)
    size = series.images.shape[1]
    columns = slice(size // 2 - HALF_WIDTH, size // 2 + HALF_WIDTH)
    first = alignments[0].resampled(series)[:, :, columns].mean(axis=(0, 2))
    everywhere, heights = np.ones(size, bool), {}
    for one in alignments:
        profile = one.resampled(series)[:, :, columns].mean(axis=(0, 2))
        misfits = {by: np.square(np.roll(profile, -by) - first).sum() for by in range(-40, 41)}
        heights[one.name] = min(misfits, key=misfits.__getitem__)
        seen = (one.resampled(whole, order=1)[:, :, columns] > 0.999).all(axis=(0, 2))
        everywhere &= np.roll(seen, -heights[one.name])
    labels, n = ndimage.label(everywhere)
    largest = max(range(1, n + 1), key=lambda i: int((labels == i).sum()))
    start, stop = (int(i) for i in np.flatnonzero(labels == largest)[[0, -1]] + (0, 1))
    return Window({name: slice(start + by, stop + by) for name, by in heights.items()}, columns)


# ------------------------------------------------------------------------------------------------------------ residual


def held_out(
    images: np.ndarray,
    angles_deg: np.ndarray,
    iterations: Iterable[int] = ITERATIONS,
    folds: Iterable[int] = range(FOLDS),
) -> np.ndarray:
    """Return the relative residual of tilts left out, for each number of iterations."""
    numbers = list(iterations)
    total, power = np.zeros(len(numbers)), 0.0
    geometry = ParallelGeometry(angles_deg, *[images.shape[2]] * 3)
    for fold in folds:
        left_out = np.arange(len(images)) % FOLDS == fold
        training = CpuOperator(geometry.of(np.flatnonzero(~left_out)))
        test = CpuOperator(geometry.of(np.flatnonzero(left_out)))

        def misfits(part: slice, left_out=left_out, training=training, test=test) -> list[float]:
            expected, found = test.load(images[left_out, part]), {}

            def watch(iteration: int, volume: np.ndarray) -> None:
                if iteration in numbers:
                    found[iteration] = kernels.difference(expected.reshape(-1), test.forward(volume).reshape(-1))

            mlem(training, images[~left_out, part], iterations=max(numbers), watch=watch)
            return [found[n] for n in numbers]

        with ThreadPoolExecutor(WORKERS) as pool:
            total += np.sum(list(pool.map(misfits, slabs(images.shape[1], training.block))), axis=0)
        power += float(np.square(images[left_out], dtype=np.float64).sum())
    return np.sqrt(total / power)


def best_move(series: Series, alignment: Alignment, window: Window) -> float:
    """Return how far across the axis is best moved, px: by 1.5 px at first, in the end by quarters."""

    def residual(by_px: float) -> float:
        images = window.sample(alignment.name, alignment.moved(by_px).resampled(series), 2 * ROWS_APART)
        return float(held_out(images, series.angles_deg, (10,), range(1, FOLDS, 2))[0])

    tried = {by: residual(by) for by in np.arange(-FARTHEST, FARTHEST + 1, 1.5)}
    for step in (0.5, 0.25):
        middle = min(tried, key=tried.__getitem__)
        tried |= {by: residual(by) for by in middle + step * np.array([-2, -1, 1, 2]) if by not in tried}
    return float(min(tried, key=tried.__getitem__))


# --------------------------------------------------------------------------------------------------------------- table


@dataclass(frozen=True)
class Row:
    """Residuals after each of `ITERATIONS`: own images, the raw ones resampled; both with the axis moved."""

    alignment: Alignment
    own: np.ndarray
    resampled: np.ndarray
    moved_px: float | None = None
    own_moved: np.ndarray | None = None
    resampled_moved: np.ndarray | None = None

    def line(self) -> str:
        """Return the line of the table."""
        parts = (self.own, self.resampled, self.own_moved, self.resampled_moved)
        figures = ["" if part is None else " / ".join(f"{100 * value:.2f}" for value in part) for part in parts]
        moved = "" if self.moved_px is None else f"{self.moved_px:+.2f}"
        cells = (self.alignment.name, f"{self.alignment.axis_angle_deg:.2f}", *figures[:2], moved, *figures[2:])
        return "| " + " | ".join(cells) + " |"


def measure(series: Series, alignment: Alignment, window: Window) -> Row:
    """Return the figures of one alignment."""

    def both(one: Alignment) -> list[np.ndarray]:
        stacks = (one.own, one.resampled(series))
        return [held_out(window.sample(one.name, images), series.angles_deg) for images in stacks]

    if not alignment.shifts_px.any():  # raw images have no common axis that could be moved
        return Row(alignment, *both(alignment))
    move = best_move(series, alignment, window)
    return Row(alignment, *both(alignment), move, *both(alignment.moved(move)))


def plot(series: Series, shown: list[Alignment], window: Window, path: Path) -> None:
    """Draw slices across and along the axis of each program's own images, in the same grey levels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(shown), 11), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(shown), squeeze=False, gridspec_kw={"height_ratios": (1, 1, 2)})
    volumes = []
    for one in shown:
        images = window.of(one.name, one.own)
        geometry = ParallelGeometry(series.angles_deg, *[images.shape[2]] * 3)
        volumes.append(in_blocks(CpuOperator(geometry), partial(mlem, iterations=30), images, WORKERS).volume)
    start = window.rows[shown[-1].name].start
    high = float(np.quantile(volumes[-1], 0.999))
    for column, (one, volume) in enumerate(zip(shown, volumes, strict=True)):
        # Where the sample lies in the frame is every program's own choice.
        z, x = (round(c) for c in ndimage.center_of_mass(volume[:, ACROSS[0] - start]))
        zs, xs = (slice(c - REACH, c + REACH) for c in (z, x))
        cuts = {f"across the axis, row {row}": volume[zs, row - start, xs] for row in ACROSS}
        cuts["along axis and beam"] = volume[zs, :, x].T
        for place, (what, cut) in zip(axes[:, column], cuts.items(), strict=True):
            place.imshow(cut, cmap="gray", vmin=0, vmax=high, interpolation="nearest")
            place.set(xticks=[], yticks=[], title=what)
        axes[0, column].set_title(f"{one.name}\n{axes[0, column].get_title()}")
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="where the series lies")
    parser.add_argument("--axis-angles", type=float, nargs="*", default=[], help="tomoseg with these given, too")
    parser.add_argument("--no-peers", action="store_true", help="without ETSpy")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="file for slices of the reconstructions")
    options = parser.parse_args()
    ours, series = by_tomoseg(options.data)
    linear = replace(ours, name="tomoseg, linear interpolation", own=ours.resampled(series, order=1))
    alignments = [ours, linear, published(options.data, series), as_it_is(series)]
    alignments += [by_tomoseg(options.data, angle)[0] for angle in options.axis_angles]
    if not options.no_peers and find_spec("etspy") is None:
        print("ETSpy is not installed and left out (pip install etspy)\n")
    elif not options.no_peers:
        logging.disable(logging.WARNING)
        alignments += by_etspy(series)
        print(f"ETSpy {version('etspy')}\n")
    window = common_window(series, alignments)
    rows = window.rows[ours.name]
    given = " / ".join(map(str, ITERATIONS))
    print(f"Every fourth row from {rows.start} to {rows.stop - 1} of tomoseg's frame, {2 * HALF_WIDTH} columns.")
    print(f"Residuals in %, after {given} iterations.\n")
    heads = ("alignment", "axis, deg", "own images", "resampled once", "moved, px", "own, moved", "resampled, moved")
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads), flush=True)
    found = []
    for one in alignments:
        found.append(measure(series, one, window))
        print(found[-1].line(), flush=True)
    if options.plot is not None:
        theirs = [row for row in found if row.alignment.name.startswith("ETSpy")]
        best = [min(theirs, key=lambda row: row.own[1]).alignment] if theirs else []
        plot(series, [alignments[3], *best, alignments[2], ours], window, options.plot)


if __name__ == "__main__":
    main()
