"""Pixels that no sample explains: X-ray and cosmic-ray spikes, hot and dead pixels, defective columns and rows.

The optics and the detector blur everything, noise apart, over a pixel or more, and the sample shows the same things in
neighbouring tilts, moved a little. A spike does neither. Pixels are found in three steps.

1. A peak stands above (or a hole below) all but one of the 16 pixels two pixels away. How far such peaks stand out by
   chance, or because the sample is fine-grained, is taken from the image itself: only peaks three times as high as
   what one pixel in 500 reaches are candidates. A lattice, or a sample full of small particles, raises that level.
2. A candidate must be sharper than any image of a point that is sampled properly: its four nearest neighbours have
   less than a third of its height on average. Groups of up to nine pixels are wider; they must exceed the range of
   brightness of the image.
3. What recurs near the expected place in neighbouring tilts is sample and stays. What recurs at the very same pixel
   in half of the tilts is a defective pixel.

Height is measured against the ring, not in units of an assumed noise, so that images of few counts, in which most
pixels are 0 and some are 1 or 2, have no spikes at 2.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, FloatArray

USUAL = 0.002  # part of the pixels that may stand out more than usual
CANDIDATE = 3.0  # times what stands out usually
LEAST = 0.03  # of the range of brightness: lower spikes do no harm
NOISE = 6.0  # times the noise around it, at least: bright parts of an image are noisier than the rest
SHARP = 1 / 3  # mean height of the four neighbours; a Gaussian of a width of 1.8 px at half its height has 0.4 or more
LARGEST_GROUP = 9  # pixels
RECURS = 0.3  # height of a peak in a neighbouring tilt beside that of the candidate
TOGETHER, FEWEST_TOGETHER = 0.5, 3  # part and number of candidates that move by the same vector
MOST_PAIRS = 20000
ROUNDS = 2
FIXED, FEWEST_FIXED = 0.5, 5  # part and number of the tilts that show a defective pixel or line
BLOCKS = 8  # of a column or row, in which it is compared with its neighbours
# A defective line differs from its neighbours by this many times what half of the lines, and one in ten, differ by.
LINE_SCATTERS, LINE_CLEAR = 8.0, 2.0
PEAK_DTYPE = np.dtype(
    [
        ("y", "i4"),
        ("x", "i4"),
        ("height", "f4"),
        ("excess", "f4"),
        ("size", "i4"),
        ("is_sharp", "?"),
        ("is_beyond", "?"),
    ]
)


@dataclass(frozen=True)
class Peaks:
    """Peaks and holes of one image, and which may be spikes.

    In the table (`PEAK_DTYPE`), `height` is that above the ring and `excess` that above the surroundings, negative for
    holes; `size` pixels belong to a peak; `is_sharp` and `is_beyond` say whether no image of a point is as sharp, and
    whether it exceeds the range of brightness.
    """

    table: NDArray[np.void]
    candidate: NDArray[np.bool_]


@dataclass(frozen=True)
class Lines:
    """Columns and rows of one image that differ from both their neighbours all along, by index."""

    columns: NDArray[np.int_]
    rows: NDArray[np.int_]


def find_peaks(image: NDArray[np.float32], span: float) -> Peaks:
    """Find the peaks and holes of an image (y, x), NaN where unknown, whose brightness has the range `span`."""
    heights = np.zeros(image.shape, np.float32)
    _stand_out(image, heights)
    size = np.abs(heights)
    sample = size.ravel()[:: max(1, size.size // 65536)]
    usual = float(np.quantile(sample, 1 - USUAL)) if sample.size else 0.0
    usual = max(usual, LEAST * span / CANDIDATE)
    y, x = np.nonzero(size > usual) if usual > 0 else (np.zeros(0, np.int64), np.zeros(0, np.int64))
    table = np.zeros(len(y), PEAK_DTYPE)
    table["y"], table["x"], table["height"] = y, x, heights[y, x]
    near, excess, noise, count = *np.zeros((3, len(y))), np.zeros(len(y), np.int64)
    _measure(image, table["y"], table["x"], near, excess, noise, count)
    table["excess"], table["size"] = excess, count
    table["is_sharp"], table["is_beyond"] = near < SHARP, np.abs(excess) > span
    shaped = (count <= LARGEST_GROUP) & (table["is_sharp"] | table["is_beyond"])
    clear = (np.abs(table["height"]) > CANDIDATE * usual) & (np.abs(excess) > NOISE * noise)
    return Peaks(table, shaped & clear)


def find_lines(image: NDArray[np.float32]) -> Lines:
    """Find columns and rows that are brighter or darker than both neighbours from one end to the other."""
    return Lines(_odd_columns(image), _odd_columns(image.T))


def _odd_columns(image: NDArray[np.float32]) -> NDArray[np.int_]:
    height, width = image.shape
    if height < 2 * BLOCKS or width < 5:
        return np.zeros(0, np.int_)
    edges = np.linspace(0, height, BLOCKS + 1).astype(int)[:-1]
    known = np.isfinite(image)
    means = np.add.reduceat(np.where(known, image, 0), edges, axis=0)  # (BLOCKS, width)
    if known.all():
        means /= np.diff([*edges, height])[:, None]
    else:
        n_known = np.add.reduceat(known, edges, axis=0, dtype=np.int64)
        means = np.where(n_known > 0, means / np.maximum(n_known, 1), np.nan)
    differs = np.nan_to_num(means[:, 1:-1] - 0.5 * (means[:, :-2] + means[:, 2:]))
    # Block by block, and by what one line in ten has: the sample scatters more than the vacuum around it.
    size = np.abs(differs)
    usual = np.maximum(LINE_SCATTERS * np.median(size, axis=1), LINE_CLEAR * np.quantile(size, 0.9, axis=1))
    clear = size > np.maximum(usual, 1e-6 * np.nanmax(np.abs(means), initial=0))[:, None]
    mean = differs.mean(axis=0)
    same = (clear & (np.sign(differs) == np.sign(mean))).sum(axis=0) >= BLOCKS - 1
    # The neighbours of a bright line look dark beside it, by half as much.
    beside = np.maximum(np.abs(np.roll(mean, 1)), np.abs(np.roll(mean, -1)))
    return np.flatnonzero(same & (np.abs(mean) > 0.75 * beside)) + 1


def fixed_pixels(peaks: list[Peaks], shape: tuple[int, ...]) -> NDArray[np.int_]:
    """Return the flat indices of pixels (y, x) that stand out sharply, in one sense, in half of the tilts or more."""
    if len(peaks) < FEWEST_FIXED:
        return np.zeros(0, np.int_)
    found = []
    for sign in (1, -1):
        tables = [p.table[p.table["is_sharp"] & (np.sign(p.table["height"]) == sign)] for p in peaks]
        at = np.concatenate([np.ravel_multi_index((t["y"], t["x"]), shape[-2:]) for t in tables])
        index, times = np.unique(at, return_counts=True)
        found.append(index[times >= max(FEWEST_FIXED, FIXED * len(peaks))])
    return np.unique(np.concatenate(found)).astype(np.int_)


def fixed_lines(found: list[NDArray[np.int_]]) -> NDArray[np.int_]:
    """Return the lines that are among those `found` in half of the tilts or more."""
    if len(found) < FEWEST_FIXED:
        return np.zeros(0, np.int_)
    index, times = np.unique(np.concatenate(found), return_counts=True)
    return index[times >= max(FEWEST_FIXED, FIXED * len(found))].astype(np.int_)


def without(peaks: Peaks, bad: NDArray[np.bool_]) -> Peaks:
    """Return the peaks that do not lie on, or beside, pixels known to be `bad` (y, x)."""
    y, x = peaks.table["y"], peaks.table["x"]
    height, width = bad.shape
    free = np.ones(len(y), bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            free &= ~bad[np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)]
    return Peaks(peaks.table[free], peaks.candidate[free])


@dataclass(frozen=True)
class Neighbourhood:
    """Where things that an image shows are in its neighbours.

    places_px : (n_tilt, 2) (dy, dx) to add to coordinates to bring the images roughly into register
    sure : (n_tilt,) whether the place of an image beside the one before it is known
    error_px : of a place beside that of the next image
    depths_px : (n_tilt - 1,) how far things may move from an image to the next because of their depth
    """

    places_px: NDArray[np.float64]
    sure: NDArray[np.bool_]
    error_px: float
    depths_px: NDArray[np.float64]

    def beside(self, i: int) -> list[int]:
        """Return the four nearest images, fewer at the ends."""
        return [j for j in (i - 2, i - 1, i + 1, i + 2) if 0 <= j < len(self.sure)]

    def is_known(self, i: int) -> bool:
        """Return whether the images beside an image are in register with it."""
        return bool(self.sure[max(0, i) : i + 2].all())

    def shift(self, i: int, j: int) -> NDArray[np.float64]:
        """Return (dy, dx) from where something is in image i to where it is in image j."""
        return np.asarray(self.places_px[i] - self.places_px[j])

    def reach(self, i: int, j: int) -> float:
        """Return how far from there it may be in image j, px."""
        return self.error_px + float(self.depths_px[min(i, j) : max(i, j)].sum())


def transient(peaks: list[Peaks], near: Neighbourhood) -> list[NDArray[np.void]]:
    """Return for each image the candidates that are not among the peaks of its neighbours.

    Where neighbours are not in register nothing is known, and all stay. What was found is no witness for other spikes
    any more, so that those that met one by chance are found in a second round.
    """
    spike = [np.zeros(len(one.table), bool) for one in peaks]
    for _ in range(ROUNDS):
        others = [one.table[~gone] for one, gone in zip(peaks, spike, strict=True)]
        spike = [_is_transient(one, i, others, peaks, near) for i, one in enumerate(peaks)]
    return [one.table[found] for one, found in zip(peaks, spike, strict=True)]


def _is_transient(
    own: Peaks, i: int, others: list[NDArray[np.void]], peaks: list[Peaks], near: Neighbourhood
) -> NDArray[np.bool_]:
    """Return which peaks of image i are candidates without a counterpart in the `others`."""
    found = np.zeros(len(own.table), bool)
    beside = near.beside(i)
    if not own.candidate.any() or not near.is_known(i):
        return found
    candidates = own.table[own.candidate]
    if any(_move_together(candidates, peaks[j].table[peaks[j].candidate], near.reach(i, j)) for j in beside):
        return found
    times = sum(_recurs(candidates, others[j], near.shift(i, j), near.reach(i, j)) for j in beside)
    found[own.candidate] = times < needed(beside)
    return found


def needed(beside: list[int]) -> int:
    """Return how many neighbours must show something that is no spike: by chance, a spike meets another one."""
    return 2 if len(beside) > 2 else 1


def _recurs(
    candidates: NDArray[np.void], others: NDArray[np.void], shift: FloatArray, reach: float
) -> NDArray[np.bool_]:
    """Return which candidates have a peak of another image within `reach` of where it should be, of like height."""
    here = np.zeros(len(candidates), bool)
    for k, one in enumerate(candidates):
        close = np.abs(others["y"] - one["y"] - shift[0]) <= reach
        close &= np.abs(others["x"] - one["x"] - shift[1]) <= reach
        here[k] = bool((close & _alike(others, one)).any())
    return here


def _alike(others: NDArray[np.void], one: np.void) -> NDArray[np.bool_]:
    """Return which peaks are about as high as one peak, above their ring or above their surroundings."""
    alike = np.zeros(len(others), bool)
    for name in ("height", "excess"):
        ratio = others[name] / one[name]
        alike |= (ratio >= RECURS) & (ratio <= 1 / RECURS)
    return alike


def _move_together(candidates: NDArray[np.void], others: NDArray[np.void], reach: float) -> bool:
    """Return whether most candidates recur in another image moved by the same vector, whatever it is.

    Small particles may be all there is to see, and be lost in the images that were registered roughly.
    """
    if len(candidates) < FEWEST_TOGETHER or len(others) == 0 or len(candidates) * len(others) > MOST_PAIRS:
        return False
    steps = np.concatenate(
        [np.stack([o["y"] - c["y"], o["x"] - c["x"]], axis=1) for c in candidates for o in [others[_alike(others, c)]]]
    )
    owner = np.concatenate([np.full(int(_alike(others, c).sum()), k) for k, c in enumerate(candidates)])
    for step in np.unique(steps, axis=0):
        close = (np.abs(steps - step) <= reach / 2).all(axis=1)
        if len(np.unique(owner[close])) >= max(FEWEST_TOGETHER, TOGETHER * len(candidates)):
            return True
    return False


def shown_by(
    image: NDArray[np.float32], candidates: NDArray[np.void], shift: FloatArray, reach: float
) -> NDArray[np.bool_]:
    """Return which candidates another image shows within `reach` of where they should be, as bright by half."""
    shown = np.zeros(len(candidates), bool)
    _look_for(image, candidates["y"] + shift[0], candidates["x"] + shift[1], candidates["excess"], int(reach), shown)
    return shown


def spread(image: NDArray[np.float32], peaks: NDArray[np.void], bad: NDArray[np.bool_]) -> None:
    """Mark peaks of an image, and the pixels that belong to them, in `bad` (y, x)."""
    _spread(image, peaks["y"].astype(np.int64), peaks["x"].astype(np.int64), peaks["height"], bad)


def mend(image: Array, bad: NDArray[np.bool_]) -> int:
    """Replace `bad` pixels of an image (y, x) in place by the median of good ones around them; return how many.

    A pixel with few good ones within 3 px lies in a hole, and stays as it is.
    """
    y, x = np.nonzero(bad)
    values = np.empty(len(y), image.dtype)
    known = np.zeros(len(y), bool)
    _medians(image, bad, y, x, values, known)
    image[y[known], x[known]] = values[known]
    return int(known.sum())


def _stand_out_of_ring(image, heights):  # type: ignore[no-untyped-def]
    """Fill `heights` with how far a pixel is above all but one pixel of its ring, or below (negative); else 0."""
    rows, columns = image.shape
    ring = np.empty((16, 2), np.int64)
    k = 0
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            if abs(dy) == 2 or abs(dx) == 2:
                ring[k, 0], ring[k, 1] = dy, dx
                k += 1
    above, below = np.empty(columns, np.int32), np.empty(columns, np.int32)
    for y in range(rows):
        above[:] = 0
        below[:] = 0
        if 2 <= y < rows - 2:
            # Counted for a whole row at once, which is fast; most pixels are neither peak nor hole.
            for i in range(16):
                dy, dx = ring[i]
                here, there = image[y, 2 : columns - 2], image[y + dy, 2 + dx : columns - 2 + dx]
                for x in range(columns - 4):
                    above[x + 2] += there[x] > here[x]
                    below[x + 2] += there[x] < here[x]
        for x in range(columns):
            if above[x] < 2 or below[x] < 2:
                heights[y, x] = _height(image, ring, y, x)


def _height_above_ring(image, ring, y, x):  # type: ignore[no-untyped-def]
    """Return how far a pixel is above all but one pixel of its ring, or below (negative); else 0."""
    rows, columns = image.shape
    value = image[y, x]
    if not np.isfinite(value):
        return np.float32(0)
    top, second, bottom, last = -np.inf, -np.inf, np.inf, np.inf
    n = 0
    for i in range(16):
        yy, xx = y + ring[i, 0], x + ring[i, 1]
        if yy < 0 or yy >= rows or xx < 0 or xx >= columns:
            continue
        v = image[yy, xx]
        if not np.isfinite(v):
            continue
        n += 1
        if v > top:
            top, second = v, top
        elif v > second:
            second = v
        if v < bottom:
            bottom, last = v, bottom
        elif v < last:
            last = v
    if n < 5:
        return np.float32(0)
    if value > second:
        return np.float32(value - second)
    return np.float32(value - last) if value < last else np.float32(0)


def _noise_of_ring(image, y, x):  # type: ignore[no-untyped-def]
    """Return the noise of the pixels 3 px from a peak, from the differences of neighbours among them."""
    rows, columns = image.shape
    differences = np.empty(24, np.float32)
    n = 0
    for side in (-3, 3):
        for k in range(-3, 3):
            for across in range(2):
                y0, x0 = (y + side, x + k) if across else (y + k, x + side)
                y1, x1 = (y + side, x + k + 1) if across else (y + k + 1, x + side)
                if min(y0, y1, x0, x1) >= 0 and max(y0, y1) < rows and max(x0, x1) < columns:
                    step = abs(image[y1, x1] - image[y0, x0])
                    if np.isfinite(step):
                        differences[n] = step
                        n += 1
    return np.float32(1.05) * np.median(differences[:n]) if n else np.float32(0)  # 1.4826 / sqrt(2)


def _measure_peaks(image, ys, xs, near, excess, noise, count):  # type: ignore[no-untyped-def]
    """Fill in for each peak.

    Mean height of the four neighbours, height above the surroundings, noise there, and number of pixels.
    """
    rows, columns = image.shape
    ring = np.empty(24, np.float32)
    group = np.empty((7, 7), np.bool_)
    for k in range(len(ys)):
        y, x = ys[k], xs[k]
        n = _ring(image, y, x, ring)
        base = np.median(ring[:n]) if n else np.float32(0)
        above = image[y, x] - base
        if above == 0 or n == 0:
            near[k], count[k] = 1, 49
            continue
        excess[k] = above
        noise[k] = _noise(image, y, x)
        total, faces = 0.0, 0
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            yy, xx = y + dy, x + dx
            if 0 <= yy < rows and 0 <= xx < columns and np.isfinite(image[yy, xx]):
                total += (image[yy, xx] - base) / above
                faces += 1
        near[k] = total / max(faces, 1)
        count[k] = _grow(image, y, x, base, above, group)


def _look_for_peaks(image, ys, xs, excess, reach, shown):  # type: ignore[no-untyped-def]
    """Fill `shown`: whether within `reach` of a place a pixel is half of `excess` above the pixels 3 px around it."""
    rows, columns = image.shape
    ring = np.empty(24, np.float32)
    for k in range(len(ys)):
        y0, x0 = int(np.rint(ys[k])), int(np.rint(xs[k]))
        for y in range(max(y0 - reach, 0), min(y0 + reach + 1, rows)):
            for x in range(max(x0 - reach, 0), min(x0 + reach + 1, columns)):
                n = 0
                for dy in range(-3, 4):
                    for dx in range(-3, 4):
                        yy, xx = y + dy, x + dx
                        outer = max(abs(dy), abs(dx)) == 3
                        if outer and 0 <= yy < rows and 0 <= xx < columns and np.isfinite(image[yy, xx]):
                            ring[n] = image[yy, xx]
                            n += 1
                if n and (image[y, x] - np.median(ring[:n])) / excess[k] > 0.5:
                    shown[k] = True


def _pixels_of_ring(image, y, x, ring):  # type: ignore[no-untyped-def]
    """Fill `ring` with the known pixels three away from a pixel; return how many."""
    rows, columns = image.shape
    n = 0
    for dy in range(-3, 4):
        for dx in range(-3, 4):
            yy, xx = y + dy, x + dx
            if max(abs(dy), abs(dx)) == 3 and 0 <= yy < rows and 0 <= xx < columns and np.isfinite(image[yy, xx]):
                ring[n] = image[yy, xx]
                n += 1
    return n


def _group_of_pixels(image, y, x, base, above, group):  # type: ignore[no-untyped-def]
    """Fill `group`, 7 x 7 about a peak, with the connected pixels of a quarter of its height; return how many."""
    rows, columns = image.shape
    group[:] = False
    group[3, 3] = True
    size, grown = 1, True
    while grown:
        grown = False
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                yy, xx = y + dy, x + dx
                if group[dy + 3, dx + 3] or not (0 <= yy < rows and 0 <= xx < columns):
                    continue
                if not (image[yy, xx] - base) / above > 0.25:
                    continue
                for ey in range(max(dy - 1, -3), min(dy + 2, 4)):
                    for ex in range(max(dx - 1, -3), min(dx + 2, 4)):
                        if group[ey + 3, ex + 3] and not group[dy + 3, dx + 3]:
                            group[dy + 3, dx + 3] = True
                            size += 1
                            grown = True
    return size


def _spread_peaks(image, ys, xs, heights, bad):  # type: ignore[no-untyped-def]
    """Mark the group of pixels of each peak as bad."""
    ring = np.empty(24, np.float32)
    group = np.empty((7, 7), np.bool_)
    for k in range(len(ys)):
        y, x = ys[k], xs[k]
        n = _ring(image, y, x, ring)
        bad[y, x] = True
        if n == 0 or image[y, x] == np.median(ring[:n]):
            continue
        base = np.median(ring[:n])
        _grow(image, y, x, base, image[y, x] - base, group)
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                if group[dy + 3, dx + 3]:
                    bad[y + dy, x + dx] = True


def _medians_of_good(image, bad, ys, xs, values, known):  # type: ignore[no-untyped-def]
    """Fill the median of the good pixels around each pixel, within 1, 2 or 3 px as soon as there are enough."""
    rows, columns = image.shape
    good = np.empty(49, np.float64)
    for k in range(len(ys)):
        y, x = ys[k], xs[k]
        for reach, enough in ((1, 5), (2, 10), (3, 24)):
            n = 0
            for yy in range(max(y - reach, 0), min(y + reach + 1, rows)):
                for xx in range(max(x - reach, 0), min(x + reach + 1, columns)):
                    if not bad[yy, xx] and np.isfinite(image[yy, xx]):
                        good[n] = image[yy, xx]
                        n += 1
            # At the border of the frame, half of what lies around a pixel is outside.
            inside = (min(y + reach + 1, rows) - max(y - reach, 0)) * (min(x + reach + 1, columns) - max(x - reach, 0))
            if n >= enough * inside / (2 * reach + 1) ** 2:
                values[k], known[k] = np.median(good[:n]), True
                break


_height = numba.njit(nogil=True, cache=True)(_height_above_ring)
_stand_out = numba.njit(nogil=True, cache=True)(_stand_out_of_ring)
_ring = numba.njit(nogil=True, cache=True)(_pixels_of_ring)
_grow = numba.njit(nogil=True, cache=True)(_group_of_pixels)
_noise = numba.njit(nogil=True, cache=True)(_noise_of_ring)
_measure = numba.njit(nogil=True, cache=True)(_measure_peaks)
_look_for = numba.njit(nogil=True, cache=True)(_look_for_peaks)
_spread = numba.njit(nogil=True, cache=True)(_spread_peaks)
_medians = numba.njit(nogil=True, cache=True)(_medians_of_good)
