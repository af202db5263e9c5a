"""Bundle adjustment: direction of the tilt axis, moves of the images and places of the markers that fit all tracks.

A marker at (Y, X, Z) from the middle of the volume is seen at tilt t, after rotation, at

    y' = Y,    x' = X cos(t) + Z sin(t)

less the move (dy', dx') of the image. Given the direction of the axis all of this is linear. So markers are eliminated
one by one, what remains is solved for the moves and a turn of the axis by Gauss-Newton steps, and the weights of the
observations follow their residuals (iteratively reweighted least squares with Cauchy's function): wrong ones lose
their say. It takes milliseconds, where a general solver with a sparse Jacobian takes seconds. What no tilt series
tells, a translation of the sample, stays about as it was.

The same is done in IMOD's tiltalign (Mastronarde; Lawrence in Electron Tomography, ed. Frank, 1992).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.images.warp import rotate_vectors
from tomoseg.arrays import FloatArray

SOFT = 2.5  # scatters, at which an observation has half of its weight
FAR = 12.0  # scatters, beyond which it has none
LEAST_SCATTER_PX = 0.005
USUAL_DEPTH = 0.2  # of the width of the frame, by which markers usually lie off their plane: of those seen a few times
LARGEST_TURN_DEG = 5.0  # in a step
DONE_PX = 1e-4
COARSE_DEG = 6.0  # between directions of the axis that are tried


@dataclass(frozen=True)
class Bundle:
    """Markers and images that fit each other.

    Attributes
    ----------
    axis_angle_deg : float
        Direction of the tilt axis; not confined to (-90, 90].
    moves_px : (n_tilt, 2) f8, (dy', dx') to add to coordinates after rotation
    markers_px : (n_marker, 3) f8, places (Y, X, Z) from the middle of the volume
    residuals_px : (n_marker, n_tilt, 2) f8
        Observed minus computed place, after rotation; NaN where a marker was not observed.
    weights : (n_marker, n_tilt) f8
        0 to 1: how far an observation is trusted.
    scatter_px : float
        Robust standard deviation of the residuals in one direction.
    cost : float
        Sum of Cauchy's function of the residuals, in squares of 1 px: comparable between directions of the axis.
    """

    axis_angle_deg: float
    moves_px: NDArray[np.float64]
    markers_px: NDArray[np.float64]
    residuals_px: NDArray[np.float64]
    weights: NDArray[np.float64]
    scatter_px: float
    cost: float

    @property
    def trusted(self) -> NDArray[np.bool_]:
        """Which observations (n_marker, n_tilt) have more than half of their weight."""
        return np.asarray(self.weights > 0.5)

    def halves(self, observed_px: FloatArray) -> list[NDArray[np.float64]]:
        """Return observations (n_marker, ...) of either half of the markers, each spread over the width."""
        order = np.argsort(self.markers_px[:, 1])
        return [np.asarray(observed_px, np.float64)[order[start::2]] for start in (0, 1)]

    def places(self, angle_deg: FloatArray | float, markers_px: FloatArray | None = None) -> NDArray[np.float64]:
        """Return where markers are seen at a tilt, (n_marker, 2) (y', x') after rotation and move."""
        markers = self.markers_px if markers_px is None else np.asarray(markers_px)
        t = np.deg2rad(angle_deg)
        return np.stack([markers[:, 0], markers[:, 1] * np.cos(t) + markers[:, 2] * np.sin(t)], axis=1)


def adjust(
    observed_px: FloatArray,
    angles_deg: FloatArray,
    axis_angle_deg: float,
    moves_px: FloatArray,
    *,
    turning: bool = True,
    steps: int = 12,
    width_px: float = 200.0,
) -> Bundle:
    """Fit direction of the axis, moves and markers to observations.

    Parameters
    ----------
    observed_px : (n_marker, n_tilt, 2) array
        Places (y, x) in the raw images, from their centres; NaN where a marker was not observed.
    angles_deg : (n_tilt,) array
    axis_angle_deg, moves_px : to begin with
    turning : bool
        False: the direction of the axis is as given.
    steps : int
        Most Gauss-Newton steps.
    width_px : float
        Of the frame: markers observed in a few tilts only are kept near the middle, by a part of it.
    """
    seen = np.isfinite(observed_px[..., 0])
    points = np.where(seen[..., None], observed_px, 0.0)
    system = _System(points, seen, np.asarray(angles_deg, float), USUAL_DEPTH * width_px)
    angle, moves = float(axis_angle_deg), np.array(moves_px, np.float64)
    weights, scatter = seen.astype(float), 2.0
    for _ in range(steps):
        residuals, _ = system.residuals(angle, moves, weights, scatter)
        scatter = _scatter(residuals, seen)
        weights = _weights(residuals, seen, scatter)
        residuals, _ = system.residuals(angle, moves, weights, scatter)
        step, turn_deg = system.step(angle, residuals, weights, scatter, turning=turning)
        moves, angle = moves + step, angle + turn_deg
        if np.abs(step).max() < DONE_PX and abs(turn_deg) < DONE_PX:
            break
    residuals, markers = system.residuals(angle, moves, weights, scatter)
    cost = float(np.log1p(np.square(residuals).sum(axis=2))[seen].sum())
    residuals[~seen] = np.nan
    return Bundle(angle, moves, markers, residuals, weights, scatter, cost)


def fit_markers(places_px: FloatArray, angles_deg: FloatArray) -> NDArray[np.float64]:
    """Return how far places (n_marker, n_tilt, 2) (y', x') lie from those of the markers that fit them best.

    Places are after rotation and move; NaN where a marker was not observed, there and in what is returned.
    """
    seen = np.isfinite(places_px[..., 0])
    angles = np.asarray(angles_deg, np.float64)
    system = _System(np.where(seen[..., None], places_px, 0.0), seen, angles, np.inf)
    residuals, _ = system.residuals(0.0, np.zeros((len(angles), 2)), seen.astype(float), 0.0)
    residuals[~seen] = np.nan
    return residuals


def search_direction(
    observed_px: FloatArray,
    angles_deg: FloatArray,
    shifts_px: FloatArray,
    *,
    near_deg: float | None = None,
    width_px: float = 200.0,
) -> Bundle:
    """Fit markers for directions of the axis over the half circle, or within 12 degrees of one, from the best of them.

    `shifts_px` (n_tilt, 2) are (dy, dx) of the raw images to begin with.
    """
    trials = np.arange(-90 + COARSE_DEG, 90 + COARSE_DEG / 2, COARSE_DEG)
    if near_deg is not None:
        trials = near_deg + np.arange(-12.0, 12.1, 3.0)
    shifts = np.asarray(shifts_px, float)

    def fit(angle: float, *, turning: bool, steps: int) -> Bundle:
        moves = rotate_vectors(shifts, angle)
        return adjust(observed_px, angles_deg, angle, moves, turning=turning, steps=steps, width_px=width_px)

    best = min((fit(float(angle), turning=False, steps=5) for angle in trials), key=lambda b: b.cost)
    return adjust(observed_px, angles_deg, best.axis_angle_deg, best.moves_px, steps=15, width_px=width_px)


class _System:
    """The equations of a bundle, in which markers are eliminated."""

    def __init__(
        self, points: NDArray[np.float64], seen: NDArray[np.bool_], angles_deg: NDArray[np.float64], depth_px: float
    ) -> None:
        self.points, self.seen, self.depth_px = points, seen, depth_px
        t = np.deg2rad(angles_deg)
        self.rays = np.stack([np.cos(t), np.sin(t)], axis=1)  # (n_tilt, 2)

    def _inverse(self, weights: NDArray[np.float64], scatter: float) -> NDArray[np.float64]:
        """Return the inverse of the normal matrix of (X, Z) of every marker, (n_marker, 2, 2)."""
        normal = np.einsum("ki,ia,ib->kab", weights, self.rays, self.rays) + 1e-9 * np.eye(2)
        normal[:, 1, 1] += (scatter / self.depth_px) ** 2
        return np.linalg.inv(normal)

    def residuals(
        self, angle_deg: float, moves: NDArray[np.float64], weights: NDArray[np.float64], scatter: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return residuals (n_marker, n_tilt, 2), 0 where nothing was observed, and the markers that fit best.

        Where no observation of a marker has a weight, it is placed by all of them.
        """
        weights = np.where(weights.sum(axis=1, keepdims=True) > 1e-6, weights, self.seen)
        places = rotate_vectors(self.points, angle_deg) + moves
        along = (weights * places[..., 0]).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
        across = np.einsum(
            "kab,ib,ki->ka", self._inverse(weights, scatter), self.rays, weights * places[..., 1], optimize=True
        )
        rest = np.stack([places[..., 0] - along[:, None], places[..., 1] - across @ self.rays.T], axis=-1)
        return np.where(self.seen[..., None], rest, 0.0), np.column_stack([along, across])

    def step(
        self,
        angle_deg: float,
        residuals: NDArray[np.float64],
        weights: NDArray[np.float64],
        scatter: float,
        *,
        turning: bool,
    ) -> tuple[NDArray[np.float64], float]:
        """Return the Gauss-Newton step of the moves (n_tilt, 2) and of the direction of the axis, in degrees."""
        n = len(self.rays)
        share = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
        weighted = weights[..., None] * self.rays  # (n_marker, n_tilt, 2)
        solved = weighted @ self._inverse(weights, scatter)

        def left_along(v: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(weights * (v - (share * v).sum(axis=1, keepdims=True)))

        def left_across(v: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(weights * (v - np.einsum("kja,kj->ka", solved, v) @ self.rays.T))

        # The derivative of (y', x') with respect to the direction of the axis is (x', -y').
        turned = rotate_vectors(self.points, angle_deg)
        slope_along, slope_across = turned[..., 1], -turned[..., 0]
        pull_along, pull_across = left_along(slope_along), left_across(slope_across)
        rest_along, rest_across = left_along(residuals[..., 0]), left_across(residuals[..., 1])
        matrix = np.zeros((2 * n + 1, 2 * n + 1))
        matrix[:n, :n] = np.diag(weights.sum(axis=0)) - weights.T @ share
        by_tilt = solved.transpose(1, 0, 2).reshape(n, -1)
        matrix[n:-1, n:-1] = np.diag(weights.sum(axis=0)) - by_tilt @ weighted.transpose(1, 0, 2).reshape(n, -1).T
        matrix[-1, :n] = matrix[:n, -1] = pull_along.sum(axis=0)
        matrix[-1, n:-1] = matrix[n:-1, -1] = pull_across.sum(axis=0)
        matrix[-1, -1] = (pull_along * slope_along).sum() + (pull_across * slope_across).sum()
        right = np.concatenate(
            [
                rest_along.sum(axis=0),
                rest_across.sum(axis=0),
                [(rest_along * slope_along).sum() + (rest_across * slope_across).sum()],
            ]
        )
        # A translation of the sample leaves all as it is: a small ridge keeps it where it was.
        ridge = np.full(2 * n + 1, 1e-6 * max(float(np.trace(matrix)) / (2 * n + 1), 1e-9))
        if not turning:
            ridge[-1] = 1e30
        step = -np.linalg.solve(matrix + np.diag(ridge), right)
        turn = float(np.clip(np.rad2deg(step[-1]), -LARGEST_TURN_DEG, LARGEST_TURN_DEG)) if turning else 0.0
        return np.stack([step[:n], step[n:-1]], axis=1), turn


def _scatter(residuals: NDArray[np.float64], seen: NDArray[np.bool_]) -> float:
    """Return the robust standard deviation in one direction: half of a Gaussian lies within 1.1774 of it."""
    sizes = np.hypot(residuals[..., 0], residuals[..., 1])[seen]
    return max(float(np.median(sizes)) / 1.1774, LEAST_SCATTER_PX) if sizes.size else LEAST_SCATTER_PX


def _weights(residuals: NDArray[np.float64], seen: NDArray[np.bool_], scatter: float) -> NDArray[np.float64]:
    size = np.hypot(residuals[..., 0], residuals[..., 1]) / scatter
    return np.where(seen & (size < FAR), 1 / (1 + (size / SOFT) ** 2), 0.0)
