"""Alignment by markers, of samples that extend beyond the frame; the last digits come from comparing all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tomoseg.alignment.finding.film import as_film, plane_of, upright
from tomoseg.alignment.finding.joint import Film
from tomoseg.alignment.finding.refine import refine_moves
from tomoseg.alignment.finding.solve import Solution, fill_between
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.markers.corrections import KINDS, CorrectionKind, correct_tracks
from tomoseg.alignment.markers.tracks import Tracks, find_markers
from tomoseg.arrays import FloatArray
from tomoseg.io.shifts import ImageCorrections

ROUNDS = 4  # of comparing a film with its images: markers tell slow errors better than they
LEAST_DEPTH, MOST_DEPTH = 0.08, 0.5  # of a film, as parts of the width
SPREAD, ROOM = 2.0, 0.05  # standard deviations of the markers' depths in half of a film, and more of the width


@dataclass(frozen=True)
class Marked:
    """An alignment by markers, with the image corrections that it needs: None where there are none.

    `wanted` is the part by which markers would fit better with corrections that were not asked for.
    """

    solution: Solution
    corrections: ImageCorrections | None
    wanted: float


def by_markers(
    series: ReducedSeries,
    reach_px: float,
    *,
    axis_angle_deg: float | None = None,
    correct: Sequence[CorrectionKind] = (),
) -> Marked | None:
    """Align by markers; None where there are too few.

    `reach_px` is the largest step between neighbouring tilts, `axis_angle_deg` the direction of the axis if known, and
    `correct` are the image corrections to find.
    """
    tracks = find_markers(series, reach_px, axis_angle_deg=axis_angle_deg)
    if tracks is None or not tracks.enough(series.usable):
        return None
    turning = axis_angle_deg is None
    corrected = correct_tracks(tracks, series.angles_deg, correct or KINDS, turning=turning)
    corrections, wanted = None, 0.0
    if corrected is not None and correct:
        tracks, corrections = corrected.tracks, corrected.corrections
        series = series.corrected(corrections)
    elif corrected is not None:
        wanted = corrected.gain
    return Marked(_solved(series, tracks, turning=turning), corrections, wanted)


def _solved(series: ReducedSeries, tracks: Tracks, *, turning: bool) -> Solution:
    """Return the alignment of a series that the markers tell, compared with its images."""
    markers = tracks.bundle.markers_px
    slope, depth_px = plane_of(markers)
    t = np.deg2rad(series.angles_deg)
    centred = tracks.bundle.moves_px - depth_px * np.stack([np.zeros_like(t), np.sin(t)], axis=1)
    angle, moves = upright(tracks.bundle.axis_angle_deg, centred)
    solution = Solution(angle, fill_between(moves, series.usable), False, tracks=tracks)
    film = Film(float(np.rad2deg(np.arctan(slope))), _depth(markers, slope, depth_px, series))
    fitted = as_film(series, solution, film, turning=turning, rounds=ROUNDS)
    return refine_moves(series, solution) if fitted is None else fitted


def _depth(markers_px: FloatArray, slope: float, depth_px: float, series: ReducedSeries) -> float:
    """Return the depth of a film that holds the markers, as a part of the width of the frame."""
    off = np.asarray(markers_px)[:, 2] - depth_px - slope * np.asarray(markers_px)[:, 1]
    spread = 1.4826 * float(np.median(np.abs(off - np.median(off))))
    width = max(series.images.shape[1:])
    return float(np.clip(2 * SPREAD * spread / width + ROOM, LEAST_DEPTH, MOST_DEPTH))
