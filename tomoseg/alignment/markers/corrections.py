"""Image corrections by markers: rotation, magnification and tilt of each image that the tracks ask for.

A marker seen at p in an image that is to be turned by a, magnified m times and was taken at a tilt c larger fits the
bundle (`tomoseg.alignment.markers.bundle`) at m R(a) p and the tilt t + c. The bundle is fitted for given corrections,
and each image's corrections to what is left, in turn. What all images have in common is left out, as is a tilt error
that grows with the tilt (`tomoseg.alignment.finding.image_corrections` says why).

Three more numbers for each image always fit better. So they are fitted to either half of the markers, and are believed
if the places of the other half then agree better.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.images.warp import correction_matrices, rotate_vectors
from tomoseg.alignment.markers.bundle import Bundle, adjust, fit_markers
from tomoseg.alignment.markers.tracks import Tracks
from tomoseg.arrays import FloatArray
from tomoseg.io.shifts import ImageCorrections

CorrectionKind = Literal["rotation", "magnification", "tilt-angle"]
KINDS: tuple[CorrectionKind, ...] = ("rotation", "magnification", "tilt-angle")
USUAL = np.array([1.0, 0.01, 1.0])  # standard deviation thought likely beforehand: degrees, of 1, degrees
ROUNDS = 15
STILL = 1e-4 * USUAL  # change of a correction at which to stop
LEAST_GAIN = 0.02  # of the residual of markers that took no part
FEWEST = 4  # markers in an image, of a half, to fit its corrections to


@dataclass(frozen=True)
class CorrectedTracks:
    """Tracks that fit with `corrections`, and the part by which the other half of the markers then fits better."""

    tracks: Tracks
    corrections: ImageCorrections
    gain: float


def correct_tracks(
    tracks: Tracks, angles_deg: FloatArray, kinds: Sequence[CorrectionKind], *, turning: bool = True
) -> CorrectedTracks | None:
    """Find image corrections of some `kinds`; None if they are not needed.

    `turning` says whether the direction of the axis may change.
    """
    wanted = np.array([kind in kinds for kind in KINDS])
    which = np.flatnonzero(tracks.joined)
    observed, angles, bundle = tracks.observed_px[:, which], np.asarray(angles_deg, float)[which], tracks.bundle
    angle, moves = bundle.axis_angle_deg, bundle.moves_px[which]
    halves = bundle.halves(observed)
    if not wanted.any() or min(np.isfinite(half[..., 0]).sum(axis=0).min() for half in halves) < FEWEST:
        return None
    before, after = 0.0, 0.0
    for own, other in (halves, halves[::-1]):
        plain = adjust(own, angles, angle, moves, turning=turning)
        before += _misfit(other, angles, plain, np.zeros((len(which), 3)))
        after += _misfit(
            other, angles, *_fitted(own, angles, plain.axis_angle_deg, plain.moves_px, wanted, turning=turning)
        )
    gain = 1 - after / max(before, 1e-30)
    if gain < LEAST_GAIN:
        return None
    found, values = _fitted(observed, angles, angle, moves, wanted, turning=turning)
    n = len(tracks.joined)
    every = np.zeros((n, 3))
    every[which] = values
    return CorrectedTracks(tracks.with_bundle(found), as_corrections(every), gain)


def as_corrections(values: NDArray[np.float64]) -> ImageCorrections:
    """Return the corrections for columns of rotation (degrees), magnification less 1, and tilt error (degrees)."""
    return ImageCorrections(values[:, 0].copy(), 1 + values[:, 1], values[:, 2].copy())


def corrected_places(observed_px: FloatArray, corrections: ImageCorrections) -> NDArray[np.float64]:
    """Return places (n_marker, n_tilt, 2) (y, x) from the centres of the images, with their corrections."""
    return np.asarray(np.einsum("iab,kib->kia", correction_matrices(corrections), np.asarray(observed_px, float)))


def _fitted(
    observed: FloatArray,
    angles: NDArray[np.float64],
    axis_angle_deg: float,
    moves: NDArray[np.float64],
    wanted: NDArray[np.bool_],
    *,
    turning: bool,
) -> tuple[Bundle, NDArray[np.float64]]:
    """Return bundle and corrections (n_tilt, 3) that fit observations; direction and moves are to begin with."""
    values = np.zeros((len(angles), 3))
    for _ in range(ROUNDS):
        corrections = as_corrections(values)
        places = corrected_places(observed, corrections)
        tilts = angles + corrections.tilt_error_deg
        bundle = adjust(places, tilts, axis_angle_deg, moves, turning=turning, steps=6)
        axis_angle_deg, moves = bundle.axis_angle_deg, bundle.moves_px
        step = _steps(places, tilts, bundle, values, wanted)
        values = _centred(values + step, angles, wanted)
        if (np.abs(step) < STILL).all():
            break
    return bundle, values


def _steps(
    places: NDArray[np.float64],
    tilts_deg: NDArray[np.float64],
    bundle: Bundle,
    values: NDArray[np.float64],
    wanted: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return changes of the corrections (n_tilt, 3) of each image that undo its residuals, beside a move."""
    turned = rotate_vectors(np.nan_to_num(places), bundle.axis_angle_deg)
    seen = np.isfinite(places[..., 0])
    t = np.deg2rad(tilts_deg)
    _, x, z = bundle.markers_px.T
    faster = -x[:, None] * np.sin(t) + z[:, None] * np.cos(t)  # px per radian of tilt
    one, none = np.ones_like(faster), np.zeros_like(faster)
    degree = np.deg2rad(1.0)
    # Residuals (y', x') of each marker and image, and how they change with move, turn, magnification and tilt.
    columns = np.stack(
        [
            np.stack([one, none, degree * turned[..., 1], turned[..., 0], none], axis=-1),
            np.stack([none, one, -degree * turned[..., 0], turned[..., 1], -degree * faster], axis=-1),
        ],
        axis=2,
    )  # (n_marker, n_tilt, 2, 5)
    weights = np.where(seen, bundle.weights, 0.0)
    rest = np.nan_to_num(bundle.residuals_px)
    normal = np.einsum("kidp,ki,kidq->ipq", columns, weights, columns, optimize=True)
    right = -np.einsum("kidp,ki,kid->ip", columns, weights, rest, optimize=True)
    prior = (bundle.scatter_px / USUAL) ** 2
    normal[:, [2, 3, 4], [2, 3, 4]] += prior
    right[:, 2:] -= prior * values
    normal[:, [0, 1], [0, 1]] += 1e-9
    fixed = 2 + np.flatnonzero(~wanted)
    normal[:, fixed, fixed] += 1e30
    return np.asarray(np.linalg.solve(normal, right[..., None])[:, 2:, 0]) * wanted


def _centred(
    values: NDArray[np.float64], angles_deg: NDArray[np.float64], wanted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return corrections without what all images have in common, and without a tilt error that grows with the tilt."""
    values = values - values.mean(axis=0)
    line = np.polyfit(angles_deg, values[:, 2], 1)
    values[:, 2] -= np.polyval(line, angles_deg)
    return np.asarray(values * wanted)


def _misfit(
    observed: FloatArray, angles_deg: NDArray[np.float64], bundle: Bundle, values: NDArray[np.float64]
) -> float:
    """Return the median distance of observed markers from their places by moves and corrections found from others."""
    corrections = as_corrections(values)
    places = rotate_vectors(corrected_places(observed, corrections), bundle.axis_angle_deg) + bundle.moves_px
    rest = fit_markers(places, angles_deg + corrections.tilt_error_deg)
    return float(np.nanmedian(np.hypot(rest[..., 0], rest[..., 1])))
