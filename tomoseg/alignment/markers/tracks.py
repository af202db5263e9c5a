"""Markers of a tilt series: found, followed, and looked for again where the model says that they must be seen."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import rotate_vectors, unrotate_vectors
from tomoseg.alignment.markers.bundle import Bundle, adjust, search_direction
from tomoseg.alignment.markers.follow import follow, located
from tomoseg.alignment.markers.spots import WIDTHS_PX, SpotSeries, find_spots, tops
from tomoseg.arrays import FloatArray

LOOKS_PX = (3.0, 2.0, 1.5)  # from where a marker is expected to where it is sought, look by look
FEWEST_TILTS = 8  # in which a marker must be seen
PART_OF_TILTS = 0.2  # and this part of them
PLAIN = 3.0  # robust standard deviations, that a maximum must stand out to be a known marker
LIKELY = 2.5  # the same, mean over the tilts, of one that is not known yet
DEPTH_STEP_PX = 0.7
ONE_PX = 3.5  # distance of two markers, below which they are one
BORDER_PX = 3
ENOUGH_MARKERS = 8  # in a usual image, and
ENOUGH_AT_LEAST = 4  # in the poorest
MOST_SCATTER_PX = 1.0


@dataclass(frozen=True)
class Tracks:
    """Markers and where they were seen, in px of the reduced series.

    `observed_px` (n_marker, n_tilt, 2) are (y, x) from the centre of the raw image, NaN where a marker was not seen;
    `joined` (n_tilt,) says which images are part of the `bundle`. Moves of the others lie between their neighbours'.
    """

    observed_px: NDArray[np.float64]
    joined: NDArray[np.bool_]
    bundle: Bundle

    def with_bundle(self, bundle: Bundle) -> "Tracks":
        """Return the tracks with another bundle of the joined images; moves of the others lie between."""
        n, tilts = len(self.joined), np.flatnonzero(self.joined)
        residuals, weights = np.full(self.observed_px.shape, np.nan), np.zeros(self.observed_px.shape[:2])
        residuals[:, tilts], weights[:, tilts] = bundle.residuals_px, bundle.weights
        moves = np.stack([np.interp(np.arange(n), tilts, bundle.moves_px[:, a]) for a in (0, 1)], axis=1)
        return replace(self, bundle=replace(bundle, moves_px=moves, residuals_px=residuals, weights=weights))

    def enough(self, usable: NDArray[np.bool_]) -> bool:
        """Return whether an alignment can rely on these markers."""
        counts = self.bundle.trusted.sum(axis=0)[usable]
        return bool(
            np.median(counts) >= ENOUGH_MARKERS
            and counts.min() >= ENOUGH_AT_LEAST
            and self.bundle.scatter_px < MOST_SCATTER_PX
        )


def find_markers(series: ReducedSeries, reach_px: float, *, axis_angle_deg: float | None = None) -> Tracks | None:
    """Find markers and the alignment that fits them; None where there are hardly any.

    `reach_px` is the largest step between neighbouring tilts; `axis_angle_deg` the direction of the axis, if known.
    """
    found = find_spots(series)
    followed = follow(found.spots, series.angles_deg, reach_px, float(max(series.images.shape[1:])))
    tilts = np.flatnonzero(followed.joined)
    often = np.isfinite(followed.observed_px[..., 0]).sum(axis=1) >= max(4, round(0.1 * len(tilts)))
    if followed.bundle is None or often.sum() < ENOUGH_MARKERS:
        return None
    looking = _Looking(series, found, tilts, reach_px, axis_angle_deg)
    looking.begin(followed.observed_px[often], followed.sizes[often], followed.shifts_px)
    for near in LOOKS_PX:
        if not looking.look(near):
            return None
    return looking.tracks()


class _Looking:
    """Markers that are looked for again and again, with a better and better model."""

    def __init__(
        self,
        series: ReducedSeries,
        found: SpotSeries,
        tilts: NDArray[np.int_],
        reach_px: float,
        given_deg: float | None,
    ) -> None:
        self.series, self.found, self.tilts, self.reach_px, self.given_deg = series, found, tilts, reach_px, given_deg
        self.width = float(max(series.images.shape[1:]))
        self.angles_deg = series.angles_deg[tilts]

    def begin(self, observed: NDArray[np.float64], sizes: NDArray[np.int_], shifts_px: NDArray[np.float64]) -> None:
        """Take over what was followed."""
        self.observed = observed[:, self.tilts]
        self.sizes = np.array([int(np.median(one[one >= 0])) for one in sizes], int)
        shifts = shifts_px[self.tilts]
        if self.given_deg is None:
            self.bundle = search_direction(self.observed, self.angles_deg, shifts, width_px=self.width)
        else:
            moves = rotate_vectors(shifts, self.given_deg)
            self.bundle = self._adjusted(self.observed, self.given_deg, moves)
        self.markers = self.bundle.markers_px

    def _adjusted(self, observed: FloatArray, angle_deg: float, moves_px: FloatArray) -> Bundle:
        turning = self.given_deg is None
        return adjust(observed, self.angles_deg, angle_deg, moves_px, turning=turning, steps=15, width_px=self.width)

    def look(self, near_px: float) -> bool:
        """Look for the markers that are known and for further ones; return whether there are enough."""
        self._add_unknown()
        self._join_left_out()
        observed = self._seen(near_px)
        kept = np.isfinite(observed[..., 0]).sum(axis=1) >= max(FEWEST_TILTS, PART_OF_TILTS * len(self.tilts))
        if kept.sum() < ENOUGH_MARKERS:
            return False
        self.observed, self.sizes = observed[kept], self.sizes[kept]
        self.bundle = self._adjusted(self.observed, self.bundle.axis_angle_deg, self.bundle.moves_px)
        self.markers = self.bundle.markers_px
        return True

    def _raw_places(self, i: int, turned: FloatArray) -> NDArray[np.float64]:
        """Return pixels (..., 2) (y, x) of the i-th joined image for places (y', x') before its move."""
        raw = unrotate_vectors(turned - self.bundle.moves_px[i], self.bundle.axis_angle_deg)
        return np.asarray(raw + self.found.centre_px)

    def _seen(self, near_px: float) -> NDArray[np.float64]:
        """Return where the markers are seen, (n_marker, n_tilt, 2): at the maximum nearby that has their size."""
        height, width = self.found.responses.shape[2:]
        observed = np.full((len(self.markers), len(self.tilts), 2), np.nan)
        reach = int(np.ceil(near_px))
        room = np.maximum(1.5 * WIDTHS_PX[self.sizes], reach + 1)
        window = np.arange(-reach - 1, reach + 2)
        for j, tilt in enumerate(self.tilts):
            places = self._raw_places(j, self.bundle.places(self.angles_deg[j], self.markers))
            inside = (places > room[:, None]).all(axis=1) & (
                places < np.array([height, width]) - 1 - room[:, None]
            ).all(axis=1)
            which = np.flatnonzero(inside)
            if not len(which):
                continue
            y, x = np.rint(places[which]).astype(int).T
            around = self.found.responses[
                tilt, self.sizes[which, None, None], (y[:, None] + window)[:, :, None], (x[:, None] + window)[:, None]
            ].astype(np.float64)
            inner = around[:, 1:-1, 1:-1].reshape(len(which), -1)
            side = 2 * reach + 1
            row, column = np.divmod(np.argmax(inner, axis=1), side)
            nine = np.stack([a[r : r + 3, c : c + 3] for a, r, c in zip(around, row, column, strict=True)])
            is_top = (nine[:, 1, 1] >= nine.max(axis=(1, 2))) & (nine[:, 1, 1] > PLAIN)
            at = np.stack([y + row - reach, x + column - reach], axis=1) + tops(nine)
            is_near = np.hypot(*(at - places[which]).T) <= near_px
            good = is_top & is_near
            observed[which[good], j] = at[good] - self.found.centre_px
        return observed

    def _add_unknown(self) -> None:
        """Replace the markers by the clearest of all that the model allows.

        A spot in one image may lie at any depth; at the right one, the other images have something there.
        """
        low, high = np.quantile(self.markers[:, 2], [0.02, 0.98])
        extra = 0.25 * float(high - low) + 5
        trial = np.arange(low - extra, high + extra, DEPTH_STEP_PX)
        rays = np.stack([np.cos(np.deg2rad(self.angles_deg)), np.sin(np.deg2rad(self.angles_deg))], axis=1)
        angle = self.bundle.axis_angle_deg
        places, sizes, scores = [self.markers], [self.sizes], [self._known_scores()]
        for j, tilt in enumerate(self.tilts):
            spots = self.found.spots[tilt]
            if not len(spots):
                continue
            turned = rotate_vectors(spots.places_px, angle) + self.bundle.moves_px[j]
            across = (turned[:, 1, None] - trial * rays[j, 1]) / rays[j, 0].clip(0.05)  # (n_spot, n_depth)
            along = np.broadcast_to(turned[:, :1], across.shape)
            total, count = self._support(along, across, np.broadcast_to(trial, across.shape), spots.sizes[:, None], j)
            mean = np.where(count >= FEWEST_TILTS, total / np.maximum(count, 1), -np.inf)
            best = np.argmax(mean, axis=1)
            rows = np.arange(len(spots))
            likely = mean[rows, best] > LIKELY
            rows, best = rows[likely], best[likely]
            places.append(np.stack([along[rows, best], across[rows, best], trial[best]], axis=1))
            sizes.append(spots.sizes[rows])
            scores.append(total[rows, best] / np.sqrt(count[rows, best]))
        self.markers, self.sizes = _distinct(np.concatenate(places), np.concatenate(sizes), np.concatenate(scores))

    def _join_left_out(self) -> None:
        """Find the moves of images that were left out, from all markers, which are known better now."""
        angle = self.bundle.axis_angle_deg
        tilts, moves = list(self.tilts), list(self.bundle.moves_px)
        for i in np.setdiff1d(np.flatnonzero(self.series.usable), self.tilts):
            nearest = int(np.argmin(np.abs(self.angles_deg - self.series.angles_deg[i])))
            expected = unrotate_vectors(self.bundle.places(self.series.angles_deg[i], self.markers), angle)
            about = unrotate_vectors(-self.bundle.moves_px[nearest], angle)
            offset = located(expected, self.found.spots[i].places_px, about, self.reach_px)[1]
            if offset is not None:
                tilts.append(i)
                moves.append(rotate_vectors(-offset, angle))
        order = np.argsort(tilts)
        self.tilts = np.array(tilts)[order]
        self.angles_deg = self.series.angles_deg[self.tilts]
        self.bundle = replace(self.bundle, moves_px=np.array(moves)[order])

    def _known_scores(self) -> NDArray[np.float64]:
        at = self.markers
        total, count = self._support(at[:, 0], at[:, 1], at[:, 2], self.sizes, None)
        return np.asarray(total / np.sqrt(np.maximum(count, 1)))

    def _support(
        self, along: FloatArray, across: FloatArray, depth: FloatArray, sizes: NDArray[np.int_], without: int | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sum of the responses where markers must be seen in the images but one, and their number."""
        height, width = self.found.responses.shape[2:]
        total, count = np.zeros(np.shape(along)), np.zeros(np.shape(along))
        for j, (tilt, t) in enumerate(zip(self.tilts, np.deg2rad(self.angles_deg), strict=True)):
            if j == without:
                continue
            turned = np.stack([along, across * np.cos(t) + depth * np.sin(t)], axis=-1)
            y, x = np.moveaxis(np.rint(self._raw_places(j, turned)).astype(int), -1, 0)
            inside = (y >= BORDER_PX) & (x >= BORDER_PX) & (y < height - BORDER_PX) & (x < width - BORDER_PX)
            value = self.found.responses[tilt, sizes, y.clip(0, height - 1), x.clip(0, width - 1)].astype(np.float32)
            total += np.where(inside, value.clip(-6, 12), 0)
            count += inside
        return total, count

    def tracks(self) -> Tracks:
        """Return the markers, with moves of all images of the series."""
        joined = np.zeros(self.series.n_tilt, bool)
        joined[self.tilts] = True
        observed = np.full((len(self.observed), len(joined), 2), np.nan)
        observed[:, self.tilts] = self.observed
        return Tracks(observed, joined, self.bundle).with_bundle(self.bundle)


def _distinct(
    places: NDArray[np.float64], sizes: NDArray[np.int_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Return places and sizes of markers that are not the same, of each the one with the best score."""
    chosen: list[int] = []
    for k in np.argsort(-scores, kind="stable"):
        apart = (places[chosen] - places[k]) * [1.0, 1.0, 0.5]
        if not chosen or np.square(apart).sum(axis=1).min() > ONE_PX**2:
            chosen.append(int(k))
    return places[chosen], sizes[chosen]
