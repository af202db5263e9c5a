"""Particles of a micrograph without a model: blobs of all sizes, their outlines, and where touching ones are cut.

1. Blobs are maxima of differences of Gaussians over place and scale (`scale_space`), in both signs.
2. Each gets the outline at which the image falls most steeply (`outlines`).
3. A blob is a particle where its response exceeds the scatter of the support at its scale `LEAST_Z` times, and where it
   stands out on all sides: edges of a support stand out on one side only. The scatter is that of what lies beside the
   particles, so that these are left out of it in turns.
4. Of outlines that overlap the one with the stronger edge counts.
5. Objects are cut at narrow necks (`tomoseg.measurement.particles.separation`).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, BoolArray, Float32Array, FloatArray
from tomoseg.errors import InputError
from tomoseg.micrographs import scale_space
from tomoseg.micrographs.edges import with_true_edges
from tomoseg.micrographs.outlines import OUTLINE, outlines, paint
from tomoseg.micrographs.scale_space import Octave

Polarity = Literal["auto", "bright", "dark"]
LEAST_NOISE_Z = 3.0  # of a blob over the noise of the px
# Where the noise of the reference response is below the first part of the step between grey values, rounding hides it:
# there a blob is measured against the second part, at all scales.
ROUNDED, STEP_OF_GREY = 0.1, 0.25
FALSE_ALARMS = 0.02  # blobs expected in an image of noise alone over the significance that is always enough
LEAST_Z, FALSE_SHARE = 2.8, 0.02  # less is enough while this part of those taken, at most, is expected to be false
LEAST_SIDES = 0.4  # the lower quarter of the sides stand out by this part of the mean at least
MANY_FAINT = 0.25  # of the particles: so many more that may be some are told
LEAST_COMPACT = 0.25  # 4 pi area / perimeter^2; of a chain of five discs 0.3, of level sets of noise 0.1
FEWEST_PX, LEAST_CONTRAST = 8.0, 4.0  # of blobs in the images in which their outlines are found
SIGNS = (1, -1)  # bright and dark
PLAIN, FEWEST_PLAIN = 1.5, 5  # times as significant as is always enough; from fewer no steepness is taken
STEEP_ENOUGH = 0.55  # of that steepness
# As significant as one scatter of the support are so many of the noise, for what stands out by that much on all sides:
# the scatter of the support is not known where particles are crowded.
CROWDED, FREE_SIDES, ROUND_ENOUGH, STEEP_FREE = 8.0, 0.7, 0.6, 0.75
ROUNDS = 3  # in which the scatter is taken beside the particles known by then
FINER, LARGE_PX2 = 3, 4000  # grid on which objects are cut, unless they are large
SMALLEST_SIDE = 32  # px of an image


@dataclass(frozen=True)
class Particles:
    """The particles of a micrograph.

    Attributes
    ----------
    labels : (y, x) i4, 1..n, 0 where there is no particle
    polarity : whether they are brighter or darker than what is around them
    evidence : by what this is known, in words
    n_split : how many of them were cut from objects of several
    warnings : what to look at before the numbers are used
    """

    labels: NDArray[np.int32]
    polarity: Literal["bright", "dark"]
    evidence: str
    n_split: int = 0
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """Blobs (n,) of one sign, their outlines (n,) in px of their octave, and their significance (n,)."""

    blobs: NDArray[np.void]
    outlines: NDArray[np.void]
    z: FloatArray
    noise_z: FloatArray  # and that over the noise of the px
    image_of: NDArray[np.int64]  # the octave in whose image the outline lies
    known: BoolArray  # outlines that were looked for
    shapely: BoolArray  # those that stand out on all sides
    taken: BoolArray  # and are significant

    def steepness(self) -> FloatArray:
        """Return the mean drop across the outlines (n,), per px of the whole image."""
        return np.asarray(self.outlines["drop"] / 2.0**self.image_of)

    def score(self, steepness: float) -> FloatArray:
        """Return the significance (n,), less where the edge is less steep than `STEEP_ENOUGH` of this."""
        if steepness == 0:
            return self.z
        steep = self.steepness() / steepness
        part = np.minimum(steep / STEEP_ENOUGH, 1)
        return np.asarray(np.where(steep > STEEP_FREE, self.best_z(), self.z) * part**2)

    def best_z(self) -> FloatArray:
        """Return the significance (n,), of what is round and stands out on all sides also from that over the noise."""
        rows = self.outlines
        free = (rows["weakest"] > FREE_SIDES * rows["depth"]) & (rows["compact"] > ROUND_ENOUGH)
        return np.asarray(np.where(free, np.maximum(self.z, self.noise_z / CROWDED), self.z))

    def circles(self) -> FloatArray:
        """Return centre y, x and radius (n, 3) of circles as large as the outlines, px of the whole image."""
        step = 2.0**self.image_of
        rows = self.outlines
        return np.stack([rows["y"] * step, rows["x"] * step, np.sqrt(rows["area"] / np.pi) * step], axis=1)

    def of_taken(self) -> "_Found":
        """Return what was taken alone."""
        return _Found(**{f.name: getattr(self, f.name)[self.taken] for f in fields(self)})


def find_particles(
    image: Array,
    *,
    polarity: Polarity = "auto",
    split: bool = True,
    mask: BoolArray | None = None,
    largest_px: float = 200.0,
    neck_ratio: float = 0.92,
) -> Particles:
    """Find the particles of a micrograph (y, x) and label them.

    Parameters
    ----------
    polarity : whether particles are brighter or darker than the support; "auto" finds it
    split : cut objects at narrow necks, see `tomoseg.measurement.particles.separation`
    mask : (y, x), true where the image is to be left out: scale bar, footer
    largest_px : diameters up to which particles are sought
    neck_ratio : the narrower a neck has to be, the smaller

    Raises
    ------
    InputError
        The image is not one channel of finite numbers, too small, or all left out; the mask has another shape.
    """
    values = checked(image, mask)
    left_out = np.zeros(values.shape, bool) if mask is None else np.asarray(mask, bool)
    quantum = _quantum(values)
    pyramid = scale_space.octaves(values, min(largest_px, 0.8 * min(values.shape)))
    every = _found(pyramid, left_out, quantum, image.dtype == np.uint8)
    found = {sign: one.of_taken() for sign, one in every.items()}
    sign, evidence, warnings = _polarity(found, polarity)
    warnings += _doubt(every[sign], every[-sign])
    labels = _painted(found[sign], pyramid, sign, values.shape)
    labels[left_out] = 0
    labels, n_split = separated(labels, neck_ratio if split else 0.0)
    labels = with_true_edges(labels, values if sign > 0 else -values, left_out)
    labels[left_out] = 0
    least = PLAIN * _sure_z(labels.size)
    plain = int(np.count_nonzero(found[sign].best_z() > least))
    if labels.max(initial=0) > 0 and plain < FEWEST_PLAIN:
        warnings.append(
            f"Only {plain} of {labels.max()} particles stand out plainly from the structure of the support (by more "
            f"than {least:.1f} times its scatter); what was found may be that structure. Look "
            "at it."
        )
    if labels.max(initial=0) == 0:
        warnings.append("No particles were found: nothing stands out from the scatter of what is around it.")
    return Particles(labels, "bright" if sign > 0 else "dark", evidence, n_split, warnings)


def _doubt(targets: _Found, decoys: _Found) -> list[str]:
    """Return a sentence if many blobs may be particles that were not taken: more than there are of the other sign."""
    faint = [int(np.count_nonzero(one.shapely & ~one.taken & (one.z > LEAST_Z))) for one in (targets, decoys)]
    n_taken, more = int(np.count_nonzero(targets.taken)), faint[0] - faint[1]
    if more <= max(MANY_FAINT * n_taken, FEWEST_PLAIN):
        return []
    return [
        f"about {more} more blobs may be particles, too faint or too crowded to be told from what they lie on: look at "
        "the outlines; a trained network (--model) may do better"
    ]


def checked(image: Array, mask: BoolArray | None) -> Float32Array:
    """Return the image as f4; what is left out is filled from around it, so that it has no edge."""
    if image.ndim != 2 or min(image.shape) < SMALLEST_SIDE:
        raise InputError(
            f"Particles are sought in an image (y, x) of {SMALLEST_SIDE} px or more on each side; this has the shape "
            f"{tuple(image.shape)}. Choose one channel, or a larger part of the image."
        )
    values = np.array(image, np.float32)
    unknown = ~np.isfinite(values)
    if mask is not None and mask.shape != image.shape:
        raise InputError(f"The mask has the shape {mask.shape}, the image {image.shape}; both have to be the same.")
    if (unknown if mask is None else unknown & ~mask).any():
        raise InputError(f"The image holds {int(unknown.sum())} px that are no number; replace them, or mask them.")
    if mask is not None and mask.any():
        if mask.all():
            raise InputError("The mask leaves out the whole image, so nothing is left to look at.")
        values = _filled(values, mask)
    return values


def _filled(values: Float32Array, mask: BoolArray) -> Float32Array:
    """Fill what is masked by the nearest px that are not, smoothed along."""
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    smooth_weight = ndimage.gaussian_filter((~mask).astype(np.float32), 4.0)
    smooth = ndimage.gaussian_filter(np.where(mask, np.float32(0), values), 4.0) / np.maximum(smooth_weight, 1e-3)
    return np.asarray(np.where(mask, smooth[tuple(nearest)], values), np.float32)


def _quantum(values: Float32Array) -> float:
    """Return the step between grey values, from a part of the px."""
    some = np.unique(values.ravel()[:: max(1, values.size // (1 << 16))])
    return float(np.diff(some).min()) if len(some) > 1 else 1.0


def _found(pyramid: list[Octave], left_out: BoolArray, quantum: float, picture: bool) -> dict[int, _Found]:
    """Return the blobs of both signs that are particles, by turns with the scatter of what is beside them.

    In a picture of 256 grey values, blobs of less than one of these do not count. At first all blobs of about the size
    of a scale are left out of its scatter, then those that are taken.
    """
    noise = scale_space.scatter(pyramid[0].responses[scale_space.REFERENCE], left_out)
    floor = np.where(noise < ROUNDED * quantum, STEP_OF_GREY * quantum, 1e-9 * quantum)
    sure = _sure_z(left_out.size)
    least = quantum if picture else 0.0
    out = {sign: _candidates(pyramid, np.maximum(noise, ROUNDED * quantum), sign, least) for sign in SIGNS}
    for turn in range(ROUNDS):
        with ThreadPoolExecutor(len(SIGNS)) as pool:
            work = {s: pool.submit(_looked_at, out[s], pyramid, left_out, floor, s, turn == 0) for s in SIGNS}
            out = {sign: one.result() for sign, one in work.items()}
        for sign, (limit, steepness) in {sign: _limits(out[sign], out[-sign], sure) for sign in SIGNS}.items():
            one = out[sign]
            out[sign] = replace(one, taken=one.shapely & (one.score(steepness) > limit))
    return out


def _candidates(pyramid: list[Octave], noise: FloatArray, sign: int, least: float) -> _Found:
    """Return the blobs that exceed the noise of the px; nothing is known of their outlines yet."""
    found = scale_space.blobs(pyramid, noise, LEAST_NOISE_Z, sign)
    found = found[found["response"] > least]
    image_of = _images_of(found, noise, len(pyramid))
    n = len(found)
    nothing = np.zeros(n, bool)
    row, column = ((found[k] / scale_space.BLOCK).astype(int) for k in ("y", "x"))
    white = noise[row, column] * np.array(scale_space.WHITE)[found["scale"]] / 2.0 ** found["octave"]
    noise_z = found["response"] / white
    return _Found(found, np.zeros(n, OUTLINE), np.zeros(n), noise_z, image_of, nothing, nothing, nothing)


def _images_of(found: Array, noise: FloatArray, n_octaves: int) -> NDArray[np.int64]:
    """Return the octave in whose image the outline of each blob is found: one of little noise, if there is one.

    The finest one where the radius is less than 2 `FEWEST_PX`, or else one with `LEAST_CONTRAST` to noise; down to
    where the radius is a third of `FEWEST_PX`.
    """
    row, column = ((found[k] / scale_space.BLOCK).astype(int) for k in ("y", "x"))
    of_px = noise[row, column] * scale_space.SMOOTHED
    quiet = np.ceil(np.log2(np.maximum(LEAST_CONTRAST * of_px / found["response"], 1e-6)))
    finest, coarsest = (np.floor(np.log2(found["radius"] / k)) for k in (FEWEST_PX, FEWEST_PX / 3))
    chosen = np.clip(np.minimum(np.maximum(finest, quiet), coarsest), 0, n_octaves - 1)
    return np.asarray(chosen, np.int64)


def _looked_at(
    found: _Found, pyramid: list[Octave], left_out: BoolArray, floor: FloatArray, sign: int, first: bool
) -> _Found:
    """Return the blobs with their significance beside particles, and with outlines where that is worth while."""
    z = _significance(found, pyramid, left_out, floor, first)
    rows, worth = found.outlines.copy(), ((z > 0.8 * LEAST_Z) | (found.noise_z / CROWDED > LEAST_Z)) & ~found.known
    _outline(found.blobs, found.image_of, pyramid, sign, worth, rows)
    sides = rows["weakest"] > LEAST_SIDES * np.maximum(rows["depth"], 1e-12)
    shapely = (rows["area"] > 0) & sides & (rows["compact"] > LEAST_COMPACT)
    return replace(found, outlines=rows, z=z, known=found.known | worth, shapely=shapely)


def _sure_z(n_px: int) -> float:
    """Return the significance that noise alone exceeds `FALSE_ALARMS` times in an image.

    A scale holds as many independent places as areas of 2 pi sigma^2; all scales together 1 / (1 - 2^(-2 / 3)) times
    those of the finest.
    """
    from scipy.special import ndtri

    finest = n_px / (2 * np.pi * scale_space.radius_at(1, 1) ** 2 / 2)
    return float(-ndtri(FALSE_ALARMS / (finest * 2.7)))


def _limits(targets: _Found, decoys: _Found, sure: float) -> tuple[float, float]:
    """Return the least score of particles of one sign, and the steepness that the score refers to.

    Edges of particles of one kind are about as steep as each other, so what is counted is the significance times the
    steepness over that of the plain ones. The structure of a support and noise have blobs of both signs alike, so that
    those of the other sign, away from particles, tell how many are false above any limit: the lowest score counts at
    which that is `FALSE_SHARE` of all, and at most `sure`.
    """
    steepness = _steepness(targets, PLAIN * sure)
    if steepness == 0:
        return sure, 0.0
    away = decoys.shapely & ~_beside(decoys, targets)
    score, false = np.sort(targets.score(steepness)[targets.shapely]), np.sort(decoys.score(steepness)[away])
    limits = score[(score >= LEAST_Z) & (score < sure)]
    n_false = len(false) - np.searchsorted(false, limits)
    n = len(score) - np.searchsorted(score, limits)
    # One more than was seen, as of few none may be seen by chance.
    enough = n_false + 1 <= FALSE_SHARE * n
    return (float(limits[enough].min()) - 1e-9 if enough.any() else sure), steepness


def _steepness(found: _Found, least_z: float) -> float:
    """Return the median steepness of blobs that are plain, each counted by its radius; 0 where there are few."""
    plain = found.shapely & (found.z > least_z)
    if np.count_nonzero(plain) < FEWEST_PLAIN:  # as where large particles are crowded
        plain = found.shapely & (found.best_z() > least_z)
    if np.count_nonzero(plain) < FEWEST_PLAIN:
        return 0.0
    values, weights = found.steepness()[plain], found.circles()[plain, 2]
    order = np.argsort(values, kind="stable")
    summed = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(summed, summed[-1] / 2)])


def _beside(decoys: _Found, targets: _Found) -> BoolArray:
    """Return which decoys (n,) lie beside a particle that is taken, so that they may be made by it."""
    from scipy.spatial import cKDTree

    if not targets.taken.any() or len(decoys.z) == 0:
        return np.zeros(len(decoys.z), bool)
    theirs = targets.circles()[targets.taken]
    mine = decoys.circles()
    nearest = min(8, len(theirs))
    distances, rows = (a.reshape(len(mine), nearest) for a in cKDTree(theirs[:, :2]).query(mine[:, :2], nearest))
    return np.asarray((distances < 1.3 * theirs[rows, 2] + mine[:, 2:]).any(axis=1))


def _significance(
    found: _Found, pyramid: list[Octave], left_out: BoolArray, floor: FloatArray, first: bool
) -> FloatArray:
    """Return the response of each blob (n,) over the scatter beside particles, at its place and scale.

    `floor` is the least scatter in blocks of the whole image: of grey values that noise does not spread.
    """
    blobs = found.blobs
    discs = np.stack([blobs["y"], blobs["x"], 1.2 * blobs["radius"]], axis=1)
    if not first:
        beside = _with_discs(left_out, found.circles()[found.taken] * [1, 1, 1.5] + [0, 0, 2])
    z = np.zeros(len(blobs))
    for octave, one in enumerate(pyramid):
        for scale in scale_space.INNER:
            mine = np.flatnonzero((blobs["octave"] == octave) & (blobs["scale"] == scale))
            if len(mine) == 0:
                continue
            if first:
                ratio = blobs["radius"] / scale_space.radius_at(scale, one.step)
                beside = _with_discs(left_out, discs[(ratio > 0.6) & (ratio < 1.7)])
            local = scale_space.scatter(one.responses[scale], beside[:: one.step, :: one.step])
            places = [(blobs[k][mine] / scale_space.BLOCK).astype(int) for k in ("y", "x")]
            row, column = (p // one.step for p in places)
            z[mine] = blobs["response"][mine] / np.maximum(local[row, column], floor[places[0], places[1]])
    return z


def _outline(
    candidates: Array, image_of: NDArray[np.int64], pyramid: list[Octave], sign: int, wanted: BoolArray, rows: Array
) -> None:
    """Fill the rows of the blobs that are wanted."""
    for octave, one in enumerate(pyramid):
        mine = np.flatnonzero(wanted & (image_of == octave))
        if len(mine):
            places = [candidates[k][mine] / one.step for k in ("y", "x")]
            y, x = (np.minimum(np.round(p), n - 1).astype(int) for p, n in zip(places, one.image.shape, strict=True))
            out = np.zeros(len(mine), OUTLINE)
            outlines(one.image * np.float32(sign), y, x, candidates["radius"][mine] / one.step, out)
            rows[mine] = out


def _with_discs(mask: BoolArray, discs: FloatArray) -> BoolArray:
    """Return a mask (y, x) with discs added: centres and radii (n, 3), px."""
    out = mask.copy()
    _add_discs(out, np.ascontiguousarray(discs, np.float64))
    return out


@numba.njit(nogil=True, cache=True)
def _add_discs(mask: Array, discs: Array) -> None:
    for k in range(len(discs)):
        y, x, reach = discs[k]
        for row in range(max(0, int(y - reach)), min(mask.shape[0], int(y + reach) + 1)):
            half = reach * reach - (row - y) ** 2
            if half > 0:
                half = np.sqrt(half)
                mask[row, max(0, int(np.ceil(x - half))) : min(mask.shape[1], int(x + half) + 1)] = True


def _polarity(found: dict[int, _Found], asked: Polarity) -> tuple[int, str, list[str]]:
    """Return the sign of the particles, by what it is known, and a warning where it hardly is."""
    if asked != "auto":
        return (1 if asked == "bright" else -1), "as asked for", []
    steepness = max((_steepness(one, 0) for one in found.values() if len(one.z)), default=0.0)
    strength = {sign: float(one.score(steepness).sum()) for sign, one in found.items()}
    sign = 1 if strength[1] >= strength[-1] else -1
    words = (
        f"{len(found[1].z)} bright blobs stand out from their surroundings with a summed significance of "
        f"{strength[1]:.0f}, {len(found[-1].z)} dark ones with {strength[-1]:.0f}"
    )
    if strength[sign] < 1.5 * strength[-sign]:
        name = "bright" if sign > 0 else "dark"
        return (
            sign,
            words,
            [f"Whether particles are bright or dark is not clear: {words}. {name} was taken; say which."],
        )
    return sign, words, []


def _painted(found: _Found, pyramid: list[Octave], sign: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the objects (y, x) of the outlines; where some overlap, the one with the stronger edge comes first."""
    rows, step = found.outlines, 2.0**found.image_of
    strength = rows["drop"] / step * np.sqrt(np.sqrt(rows["area"]) * step)
    labels = np.zeros(shape, np.int32)
    drops, areas = np.zeros(len(found.z) + 1), np.zeros(len(found.z) + 1)
    label = 0
    images = [one.image * np.float32(sign) for one in pyramid]
    for k in np.argsort(-strength, kind="stable"):
        octave = int(found.image_of[k])
        label += paint(
            images[octave],
            rows[k],
            found.blobs["radius"][k] / step[k],
            int(step[k]),
            labels,
            label + 1,
            drops,
            areas,
            float(rows["drop"][k] / step[k]),
        )
    return labels


def separated(labels: NDArray[np.int32], neck_ratio: float) -> tuple[NDArray[np.int32], int]:
    """Return the labels 1..n of objects whose holes are filled, cut at necks narrower than `neck_ratio`, if above 0.

    Also how many particles come from objects of several.
    """
    from scipy import ndimage

    out = np.zeros(labels.shape, np.int32)
    n, n_split = 0, 0
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        part = ndimage.binary_fill_holes(labels[box] == label)
        parts = _parts(part, neck_ratio) if neck_ratio > 0 else part.astype(np.int32)
        inner = np.where(parts > 0, parts + n, 0)
        window = out[box]
        window[(inner > 0) & ((labels[box] == label) | (labels[box] == 0))] = inner[
            (inner > 0) & ((labels[box] == label) | (labels[box] == 0))
        ]
        count = int(parts.max(initial=0))
        n, n_split = n + count, n_split + (count if count > 1 else 0)
    return out, n_split


def _parts(mask: BoolArray, neck_ratio: float) -> NDArray[np.int32]:
    """Return the parts (y, x), 1..n, of an object, on a grid `FINER` times as fine, where its outline is smooth."""
    from scipy import ndimage

    from tomoseg.measurement.common.sparse_object import SparseObject
    from tomoseg.measurement.particles.separation import separate_by_distance

    fine = FINER if mask.sum() < LARGE_PX2 else 1
    smooth = ndimage.gaussian_filter(np.pad(mask, 2).astype(np.float32), 0.7)
    smooth = ndimage.zoom(smooth, fine, order=1, grid_mode=True, mode="nearest") if fine > 1 else smooth
    solid = smooth > 0.5
    sparse = SparseObject.of([solid[None]], (slice(0, 1), slice(0, solid.shape[0]), slice(0, solid.shape[1])))
    fine_parts = np.zeros(solid.shape, np.int32)
    fine_parts[solid] = separate_by_distance(sparse, neck_ratio)
    if fine_parts.max(initial=0) < 2:
        return mask.astype(np.int32)
    nearest = ndimage.distance_transform_edt(fine_parts == 0, return_distances=False, return_indices=True)
    grown = fine_parts[tuple(nearest)][fine // 2 :: fine, fine // 2 :: fine][2:-2, 2:-2]
    return np.asarray(np.where(mask, grown, 0), np.int32)
