"""Spots followed from image to image, outward from the lowest tilt, by what a growing model predicts.

The model is a bundle (`tomoseg.alignment.markers.bundle`) of all that has been followed so far. It says where each
marker is to be seen in the next image, but for the move of that image: the one for which most spots have a marker.
Before the tilts range far enough to tell the axis, markers are expected as they were in the last image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

from tomoseg.alignment.images.warp import rotate_vectors, unrotate_vectors
from tomoseg.alignment.markers.bundle import Bundle, adjust, search_direction
from tomoseg.alignment.markers.spots import Spots
from tomoseg.arrays import FloatArray

TELLING_DEG = 12.0  # range of tilts from which a direction of the axis begins to show
SURE_DEG = 50.0  # range of tilts up to which it is sought anew, now and then
SOUGHT_EVERY = 6  # images
RECENT = 4  # images, in one of which a marker must have been seen to be expected
BLUR_PX, CANDIDATES = 2.0, 4  # of the vote on the move of an image, and how many moves are tried
NEAR_PX, CLOSE_PX = 3.0, 2.0  # between a marker's place and its spot, at first and finally
FEWEST = 5  # spots with a marker, without which an image is left out
AFFINE_FROM = 8  # spots with a marker, from which on the image may also be stretched a little
STIFFNESS = 200.0  # of that stretch, in squares of px
LEAST_SEEN = 3  # times: a marker in the bundle
WRONG, WRONG_PX = 5.0, 1.5  # scatters, and px: an observation further off is dropped


@dataclass(frozen=True)
class Followed:
    """Spots that belong together: `observed_px` (n_track, n_tilt, 2) (y, x), NaN where there is none.

    `sizes` (n_track, n_tilt) are those of the spots, -1 where there is none; `joined` (n_tilt,) says which images are
    part of it; `shifts_px` (n_tilt, 2) are (dy, dx) of the raw images.
    """

    observed_px: NDArray[np.float64]
    sizes: NDArray[np.int_]
    joined: NDArray[np.bool_]
    shifts_px: NDArray[np.float64]
    bundle: Bundle | None


def follow(spots: list[Spots], angles_deg: FloatArray, reach_px: float, width_px: float) -> Followed:
    """Follow spots through all images.

    Parameters
    ----------
    spots : of every image; none of those that are not to be used
    angles_deg : (n_tilt,) array, ascending
    reach_px : largest step between neighbouring tilts
    width_px : of the frame
    """
    return _Following(spots, np.asarray(angles_deg, float), reach_px, width_px).all()


class _Following:
    """Tracks, and the bundle as it grows."""

    def __init__(self, spots: list[Spots], angles_deg: NDArray[np.float64], reach_px: float, width_px: float) -> None:
        self.spots, self.angles_deg, self.reach_px, self.width_px = spots, angles_deg, reach_px, width_px
        n = len(spots)
        self.observed = np.zeros((0, n, 2))
        self.sizes = np.zeros((0, n), int)
        self.joined = np.zeros(n, bool)
        self.shifts = np.zeros((n, 2))
        self.bundle: Bundle | None = None
        self.markers = np.zeros((0, 3))  # of all tracks, also of those that are not in the bundle

    def all(self) -> Followed:
        """Follow to both ends."""
        known = np.array([len(s) > 0 for s in self.spots])
        if known.any():
            tilts = np.flatnonzero(known)
            first = tilts[np.argmin(np.abs(self.angles_deg[tilts]))]
            order = tilts[np.argsort(np.abs(self.angles_deg[tilts] - self.angles_deg[first]), kind="stable")]
            self._begin(int(first), np.arange(len(self.spots[first])))
            self.joined[first] = True
            for number, i in enumerate(order[1:], 2):
                if self._join(int(i)):
                    self._improve(number)
        return Followed(self.observed, self.sizes, self.joined, self.shifts, self.bundle)

    def _begin(self, i: int, which: NDArray[np.int_]) -> None:
        """Begin a track with each of these spots of an image."""
        new = np.full((len(which), len(self.spots), 2), np.nan)
        new[:, i] = self.spots[i].places_px[which]
        sizes = np.full(new.shape[:2], -1)
        sizes[:, i] = self.spots[i].sizes[which]
        self.observed, self.sizes = np.concatenate([self.observed, new]), np.concatenate([self.sizes, sizes])
        self.markers = np.concatenate([self.markers, np.zeros((len(which), 3))])

    def _join(self, i: int) -> bool:
        """Find the move of an image, and the tracks that go on in it; return whether there are enough."""
        joined = np.flatnonzero(self.joined)
        recent = joined[np.argsort(np.abs(self.angles_deg[joined] - self.angles_deg[i]), kind="stable")]
        nearest = int(recent[0])
        if self.bundle is None:
            tracks = np.flatnonzero(np.isfinite(self.observed[:, nearest, 0]))
            expected = self.observed[tracks, nearest] + self.shifts[nearest]
        else:
            tracks = np.flatnonzero(np.isfinite(self.observed[:, recent[:RECENT], 0]).any(axis=1))
            turned = self.bundle.places(self.angles_deg[i], self.markers[tracks])
            expected = unrotate_vectors(turned, self.bundle.axis_angle_deg)
        found = self.spots[i].places_px
        best, offset = located(expected, found, -self.shifts[nearest], self.reach_px)
        if offset is None:
            self.shifts[i] = self.shifts[nearest]
            return False
        self.joined[i], self.shifts[i] = True, -offset
        self.observed[tracks[best[:, 0]], i] = found[best[:, 1]]
        self.sizes[tracks[best[:, 0]], i] = self.spots[i].sizes[best[:, 1]]
        self._begin(i, np.setdiff1d(np.arange(len(found)), best[:, 1]))
        return True

    def _improve(self, number: int) -> None:
        """Adjust the bundle of what has been followed so far; drop what does not fit."""
        tilts = np.flatnonzero(self.joined)
        span = float(np.ptp(self.angles_deg[tilts]))
        if span < TELLING_DEG:
            return
        several = np.flatnonzero(np.isfinite(self.observed[:, tilts, 0]).sum(axis=1) >= LEAST_SEEN)
        if len(several) < FEWEST:
            return
        observed, angles = self.observed[np.ix_(several, tilts)], self.angles_deg[tilts]
        if self.bundle is None or (span < SURE_DEG and number % SOUGHT_EVERY == 0):
            bundle = search_direction(observed, angles, self.shifts[tilts], width_px=self.width_px)
        else:
            moves = rotate_vectors(self.shifts[tilts], self.bundle.axis_angle_deg)
            bundle = adjust(observed, angles, self.bundle.axis_angle_deg, moves, steps=4, width_px=self.width_px)
        self.bundle = bundle
        self.shifts[tilts] = unrotate_vectors(bundle.moves_px, bundle.axis_angle_deg)
        off = np.nan_to_num(np.hypot(bundle.residuals_px[..., 0], bundle.residuals_px[..., 1]))
        k, i = np.nonzero(off > max(WRONG * bundle.scatter_px, WRONG_PX))
        self.observed[several[k], tilts[i]] = np.nan
        self.sizes[several[k], tilts[i]] = -1
        self._place(several, bundle)

    def _place(self, several: NDArray[np.int_], bundle: Bundle) -> None:
        """Place all markers: those seen a few times at the depth that is usual."""
        depth = float(np.median(bundle.markers_px[:, 2]))
        turned = rotate_vectors(self.observed + self.shifts, bundle.axis_angle_deg)
        t = np.deg2rad(self.angles_deg)
        across = (turned[..., 1] - depth * np.sin(t)) / np.cos(t).clip(0.05)
        seen = np.isfinite(across)
        count = np.maximum(seen.sum(axis=1), 1)
        self.markers = np.stack(
            [
                np.where(seen, turned[..., 0], 0).sum(axis=1) / count,
                np.where(seen, across, 0).sum(axis=1) / count,
                np.full(len(seen), depth),
            ],
            axis=1,
        )
        self.markers[several] = bundle.markers_px


def located(
    expected: FloatArray, found: FloatArray, about: FloatArray, reach_px: float
) -> tuple[NDArray[np.int_], NDArray[np.float64] | None]:
    """Find the offset (dy, dx) of an image for which most places expected are among those found.

    It lies within `reach_px` of `about`. Returns pairs of indices (n, 2) (expected, found), and the offset; None if
    there are too few.
    """
    best, offset = np.zeros((0, 2), int), None
    for trial in _votes(expected, found, about, reach_px):
        pairs, fitted = _fitted(expected, found, trial)
        if len(pairs) >= FEWEST and len(pairs) > len(best):
            best, offset = pairs, fitted
    return best, offset


def _votes(expected: FloatArray, found: FloatArray, about: FloatArray, reach_px: float) -> list[NDArray[np.float64]]:
    """Return offsets (dy, dx) that bring many expected places to places found, the most promising first."""
    steps = (found[None] - expected[:, None]).reshape(-1, 2) - about
    steps = steps[(np.abs(steps) < reach_px).all(axis=1)]
    if not len(steps):
        return []
    n = int(2 * reach_px) + 1
    votes = np.histogram2d(steps[:, 0], steps[:, 1], bins=n, range=((-n / 2, n / 2), (-n / 2, n / 2)))[0]
    votes = ndimage.gaussian_filter(votes, BLUR_PX, mode="constant")
    y, x = np.ogrid[:n, :n]
    chosen: list[NDArray[np.float64]] = []
    for _ in range(CANDIDATES):
        top = np.unravel_index(int(np.argmax(votes)), votes.shape)
        if votes[top] <= 0:
            break
        chosen.append(np.asarray(about + np.array(top) - (n - 1) / 2, np.float64))
        votes = np.where((y - top[0]) ** 2 + (x - top[1]) ** 2 < (4 * BLUR_PX) ** 2, 0, votes)
    return chosen


def _fitted(
    expected: FloatArray, found: FloatArray, offset: NDArray[np.float64]
) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """Return pairs (expected, found) and the offset that suits them, when the image may be stretched a little."""
    stretch: NDArray[np.float64] = np.eye(2)
    near = NEAR_PX
    pairs = np.zeros((0, 2), int)
    for _ in range(6):
        pairs = matched(expected @ stretch + offset, found, near)
        if len(pairs) < FEWEST:
            break
        a, b = expected[pairs[:, 0]], found[pairs[:, 1]]
        if len(pairs) >= AFFINE_FROM:
            terms = np.column_stack([a, np.ones(len(a))])
            stiff = STIFFNESS * np.diag([1.0, 1.0, 0.0])
            fit = np.linalg.solve(terms.T @ terms + stiff, terms.T @ b + stiff @ np.eye(3, 2))
            stretch, offset = np.asarray(fit[:2]), np.asarray(fit[2])
        else:
            offset = offset + np.median(b - (a @ stretch + offset), axis=0)
        near = max(CLOSE_PX, 0.9 * near)
    return pairs, offset


def matched(a: FloatArray, b: FloatArray, near_px: float) -> NDArray[np.int_]:
    """Return pairs of indices (n, 2) of points that are each other's nearest, and nearer than that."""
    if not len(a) or not len(b):
        return np.zeros((0, 2), int)
    distance, to_b = spatial.cKDTree(b).query(a)
    _, to_a = spatial.cKDTree(a).query(b)
    one = np.flatnonzero((distance < near_px) & (to_a[to_b] == np.arange(len(a))))
    return np.stack([one, to_b[one]], axis=1)
