"""The black level of each image: what the detector counts where there is no sample.

HAADF vacuum is the darkest part of an image, flat but for noise, and nearly the same in all tilts. The image is cut
into small tiles; tiles of vacuum have the lowest means and agree within their noise, so the lowest group of agreeing
tiles is taken as vacuum, and the level is the mean over it (an unbiased vacuum of 0 for reconstructions that need
counts >= 0: a mode or a minimum would leave a positive haze). Where no group agrees, the sample fills the frame and the
level of the other tilts is used. A flat film that fills the frame in every tilt looks like vacuum in a single image,
but brightens as 1 / cos(tilt) with the path through it, which no black level does: then only the constant part is a
level.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, FloatArray

TILES = 32  # along each side of an image, fewer where they would be smaller than 4 px
LEAST_TILES, LEAST_WHOLE = 16, 0.02  # number and part of the tiles
GLOW = 0.003  # part of the signal by which the vacuum itself may vary
MIN_VACUUM = 0.02  # least part of the tiles that must agree to be vacuum
STEADY = 0.01  # part of the signal by which levels of neighbouring tilts may differ where little vacuum is seen
# The darkest flat part of a film has this part of the mean brightness, and both change with tilt or exposure (ln).
FILM_PART, FILM_CHANGE = 0.5, 0.1
FILM_SLOPE, FILM_ALIKE = 0.5, 0.6  # of the rest of the brightness beside the level, both as logarithms
OFF_LAW, MOST_OF_TILTS = 5.0, 0.85  # robust standard deviations that a level may lie off that of a film, in so many
# A level below this part of the signal is none: it could not be told from the vacuum's own glow, and stacks whose
# background was subtracted before stay as they are.
NEGLIGIBLE = 1e-3


@dataclass(frozen=True)
class VacuumFit:
    """The darkest flat part of one image, in counts."""

    level: float  # mean of the vacuum
    noise: float  # its standard deviation per pixel
    part: float  # of the image that is vacuum, 0 where none was found
    signal: float  # 99th percentile of the tiles above `level`
    error: float  # standard error of `level`
    lowest: float  # mean of the darkest tile
    mean: float = 0.0  # of all


@dataclass(frozen=True)
class Backgrounds:
    """Levels to subtract, one per tilt, and how they were found in words."""

    levels: NDArray[np.float64]
    how: str
    certain: bool


def fit_vacuum(image: Array) -> VacuumFit:
    """Find the level of the darkest flat part of an image (y, x), in counts; NaN where unknown."""
    tiles = _known(_tiles(np.asarray(image, np.float64)))
    means, variances = tiles.mean(axis=1), tiles.var(axis=1)
    order = np.argsort(means)
    means, variances = means[order], variances[order]
    darkest = max(4, round(MIN_VACUUM * len(means)))
    start = float(np.median(means[:darkest]))
    signal = float(np.quantile(means, 0.99)) - start
    # From the darkest tiles upwards to the middle of those that agree: the darkest alone are dark by chance.
    level, variance = start, float(np.median(variances[:darkest]))
    for _ in range(20):
        # Tile means of pure noise scatter by noise / sqrt(pixels); glow and contamination add a little.
        reach = 4 * np.sqrt(variance / tiles.shape[1]) + GLOW * signal
        agreeing = np.abs(means - level) <= reach
        if not agreeing.any():
            break
        before, level = level, float(np.median(means[agreeing]))
        variance = float(variances[agreeing].mean())
        if level == before:
            break
    # Tiles on the edge of the sample may have the right mean; their spread gives them away.
    flat = agreeing & (variances <= 9 * max(variance, (0.2 * GLOW * signal) ** 2))
    part = float(flat.mean())
    if part < MIN_VACUUM:
        return VacuumFit(start, float(np.sqrt(variance)), 0.0, signal, np.inf, float(means[0]), float(means.mean()))
    level, noise = float(means[flat].mean()), float(np.sqrt(variances[flat].mean()))
    error = max(float(means[flat].std()), noise / np.sqrt(tiles.shape[1])) / np.sqrt(flat.sum())
    return VacuumFit(level, noise, part, signal + start - level, error, float(means[0]), float(means.mean()))


def _known(tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the tiles that are known completely; where that leaves too few, those known in part, and their mean."""
    known = np.isfinite(tiles)
    if known.all():
        return tiles
    whole = known.all(axis=1)
    if whole.sum() >= max(LEAST_TILES, LEAST_WHOLE * len(tiles)):
        return tiles[whole]
    known, tiles = known[known.any(axis=1)], tiles[known.any(axis=1)]
    if len(tiles) == 0:
        return np.zeros((1, known.shape[1]))
    means = np.where(known, tiles, 0).sum(axis=1) / known.sum(axis=1)
    return np.where(known, tiles, means[:, None])


def _tiles(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut an image into (n_tiles, pixels) squares, dropping what does not fill one at the right and lower border."""
    side = max(-(-min(image.shape) // TILES), 4 if min(image.shape) >= 48 else 2)
    rows, columns = image.shape[0] // side, image.shape[1] // side
    cut = image[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return np.asarray(cut.transpose(0, 2, 1, 3).reshape(rows * columns, side * side))


def combine_levels(fits: list[VacuumFit], angles_deg: FloatArray, *, is_vacuum: bool = False) -> Backgrounds:
    """Combine the fits of all tilts into consistent levels; see the module's text for the reasoning.

    `is_vacuum`: the darkest flat part lies at both sides of the sample in all tilts, so that it is vacuum however its
    level changes.
    """
    levels = np.array([f.level for f in fits])
    found = np.array([f.part > 0 for f in fits])
    signal = float(np.median([f.signal for f in fits]))
    parts = np.array([f.part for f in fits])
    if not found.any() or _inconsistent(levels[found], parts[found], signal):
        constant = 0.0 if levels.min() >= 0 else float(min(f.lowest for f in fits))
        how = f"no vacuum in view, the sample fills the frame: {constant:g} counts taken as the background of all tilts"
        return Backgrounds(np.full(len(fits), constant), how, certain=False)
    errors = np.array([f.error for f in fits])
    if np.all(np.abs(levels[found]) <= np.maximum(NEGLIGIBLE * signal, 3.5 * errors[found])):
        return Backgrounds(np.zeros(len(fits)), "the vacuum is at 0 already, nothing is subtracted", certain=True)
    if is_vacuum and found.all():
        how = f"darkest flat part of each image, {levels.min():.6g} to {levels.max():.6g} counts"
        return Backgrounds(levels, how, certain=True)
    film = _film_level(levels[found], np.asarray(angles_deg)[found], signal)
    means = np.array([f.mean for f in fits])
    if film is None and _follows(levels, means):
        how = (
            "the darkest part changes with the brightness of the whole image, so it is sample and not vacuum: 0 counts "
            "are taken as the background of all tilts"
        )
        return Backgrounds(np.zeros(len(fits)), how, certain=False)
    if film is not None:
        how = (
            f"the darkest part brightens with tilt as a film does, so it is sample and not vacuum: {film:g} counts are "
            "taken as the background of all tilts"
        )
        return Backgrounds(np.full(len(fits), film), how, certain=False)
    levels, replaced = _without_jumps_up(levels, parts, signal)
    how = f"darkest flat part of each image, {levels.min():.6g} to {levels.max():.6g} counts"
    if replaced:
        how += f"; {replaced} tilts without vacuum are given the level of their neighbours"
    return Backgrounds(levels, how, certain=True)


def _inconsistent(levels: FloatArray, parts: FloatArray, signal: float) -> bool:
    """Return whether levels come from small dark places that differ from tilt to tilt: thin parts of the sample."""
    if len(levels) < 3 or np.median(parts) > 0.1:
        return False
    return bool(np.median(np.abs(np.diff(levels))) > STEADY * signal)


def _film_level(levels: FloatArray, angles_deg: FloatArray, signal: float) -> float | None:
    """Return the constant part of levels that rise as 1 / cos(tilt), None if they do not."""
    thickness = 1 / np.maximum(np.abs(np.cos(np.deg2rad(angles_deg))), 0.1)
    if len(levels) < 5 or np.ptp(thickness) < 0.3:
        return None
    kept = np.ones(len(levels), bool)
    for _ in range(3):  # a hole or a crack may be all that is flat in a single image
        slope, constant = np.polyfit(thickness[kept], levels[kept], 1)
        rest = levels - (constant + slope * thickness)
        kept = np.abs(rest) <= OFF_LAW * max(1.4826 * float(np.median(np.abs(rest))), 1e-9)
    if kept.mean() < MOST_OF_TILTS:
        return None
    # A black level that only drifts is not an even function of the tilt: 10 % of unexplained variance rules it out.
    if slope * np.ptp(thickness) < 0.02 * signal or rest[kept].var() > 0.1 * levels[kept].var():
        return None
    # The line is extrapolated from 1 / cos = 1 to 0: a constant smaller than a quarter of the film may well be nothing.
    # Below 0 it is not even that, where no counts are negative: the film brightens by more than it thickens.
    return 0.0 if constant < 0.25 * slope and levels.min() >= 0 else float(constant)


def _follows(levels: FloatArray, means: FloatArray) -> bool:
    """Return whether levels are most of the brightness and change in proportion to all of it, as those of a film do.

    Whatever thickness and exposure do, they do it to what is above the level too; a black level that drifts does not.
    """
    above = means - levels
    if len(levels) < 5 or levels.min() <= 0 or above.min() <= 0 or np.median(levels / means) < FILM_PART:
        return False
    level, above = np.log(levels), np.log(above)
    if np.ptp(np.quantile(level, (0.1, 0.9))) < FILM_CHANGE or np.ptp(above) == 0:
        return False
    return bool(np.polyfit(level, above, 1)[0] > FILM_SLOPE and np.corrcoef(level, above)[0, 1] > FILM_ALIKE)


def _without_jumps_up(levels: FloatArray, parts: FloatArray, signal: float) -> tuple[NDArray[np.float64], int]:
    """Replace levels of tilts without vacuum, and those far above their neighbours, by what lies between neighbours."""
    index = np.arange(len(levels))
    found = parts > 0
    good = found.copy()
    for i in index[found]:
        near = index[found][np.argsort(np.abs(index[found] - i), kind="stable")[:9]]
        usual = np.median(levels[near])
        # Where no vacuum is left, the darkest flat part is sample: brighter than the vacuum beside it, never darker.
        scatter = 1.5 * np.median(np.abs(levels[near] - usual))
        leeway = 0.03 if parts[i] > 0.1 else 0.005
        good[i] = levels[i] - usual <= max(leeway * signal, 6 * scatter)
    return np.interp(index, index[good], levels[good]), int((~good).sum())
