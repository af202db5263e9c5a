"""Alignment by a part of the frame: a patch, followed through the tilts and treated as the whole frame."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.finding.solve import Solution
from tomoseg.alignment.finding.track import Band, track_neighbours
from tomoseg.alignment.images.correlation import taper
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.warp import correction_matrices, rotate_vectors
from tomoseg.errors import InputError
from tomoseg.io.shifts import ImageCorrections

SMALLEST_PX = 16  # of a side, in px of the reduced series: a smaller patch shows nothing to register
SOFT = 0.4  # part of the patch that is its soft edge
TRACK_PX = 128


@dataclass(frozen=True)
class Patch:
    """Rows and columns (first, one past the last) of the image at the lowest tilt, `frame` (height, width); raw px."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    frame: tuple[int, int]


@dataclass(frozen=True)
class View:
    """The patch as a tilt series of its own.

    `centres_px` (n_tilt, 2) are (y, x) of its centre from the centre of each image, in px of the reduced series.
    """

    series: ReducedSeries
    centres_px: NDArray[np.float64]

    @property
    def is_whole_frame(self) -> bool:
        """Whether the patch is all of every image."""
        return not self.centres_px.any()

    def back(self, solution: Solution, corrections: ImageCorrections | None = None) -> Solution:
        """Return moves of the whole images, given those of the patch: R M (c + q) + m = R M q + m_patch.

        M is the rotation and magnification of single images.
        """
        if self.is_whole_frame:
            return solution
        moves = solution.moves_px - self._centres(solution.axis_angle_deg, corrections)
        # Whatever it holds, the patch is not all of the sample that the frame shows.
        return replace(solution, moves_px=moves, whole=False)

    def moves(
        self, moves_px: NDArray[np.float64], axis_angle_deg: float, corrections: ImageCorrections | None = None
    ) -> NDArray[np.float64]:
        """Return moves of the patch, given those of the whole images, that keep it in the middle of its frame."""
        if self.is_whole_frame:
            return moves_px
        moves = moves_px + self._centres(axis_angle_deg, corrections)
        return np.asarray(moves - moves[self.series.usable].mean(axis=0))

    def _centres(self, axis_angle_deg: float, corrections: ImageCorrections | None) -> NDArray[np.float64]:
        """Return where the centres of the patch lie after rotation, from the centres of the images."""
        centres = self.centres_px
        if corrections is not None:
            centres = np.einsum("tij,tj->ti", correction_matrices(corrections), centres)
        return rotate_vectors(centres, axis_angle_deg)


def look_at(series: ReducedSeries, patch: Patch | None, band: Band, max_shift: float) -> View:
    """Follow a patch outward from the lowest tilt, and cut it out of every image; without one, view the whole frame.

    `max_shift` is the largest step between neighbouring tilts, as a part of the longer side of the images.

    Raises
    ------
    InputError
        The patch is too small to be followed.
    """
    if patch is None:
        return View(series, np.zeros((series.n_tilt, 2)))
    start, size = _in_reduced(series, patch)
    if size.min() < SMALLEST_PX:
        raise InputError(
            f"align.x_range and align.y_range leave a patch of {np.ptp(patch.columns)} x {np.ptp(patch.rows)} px: at "
            f"least {SMALLEST_PX * series.factor} px are needed in each direction"
        )
    small = series.reduced(TRACK_PX)
    ratio = series.factor / small.factor
    at, extent = _in_reduced(small, patch)
    frame = small.images.shape[1:]
    windows = _window(frame, at, extent), _window(frame, at - extent, 3 * extent)
    reach = max_shift * max(frame)
    shifts = track_neighbours(small, None, band, reach, windows)[0] / ratio
    # Where the patch would leave the frame it stops at the border: only the place of the cut differs.
    starts = np.clip(np.round(start - shifts), 0, np.array(series.images.shape[1:]) - size).astype(int)
    images = np.stack(
        [image[y : y + size[0], x : x + size[1]] for image, (y, x) in zip(series.images, starts, strict=True)]
    )
    centres = starts + (size - 1) / 2 - (np.array(series.images.shape[1:]) - 1) / 2
    return View(series.part(images, starts), centres)


def _in_reduced(series: ReducedSeries, patch: Patch) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return first pixel and size (y, x) of the patch in px of the reduced series."""
    shape = np.array(series.images.shape[1:])
    # Reduced images leave out some raw pixels, on both sides alike: the centre stays that of the raw images.
    from_centre = np.array([patch.rows, patch.columns]) - np.array(patch.frame)[:, None] / 2
    limits = from_centre / series.factor + shape[:, None] / 2
    edges = np.clip(np.round(limits), 0, shape[:, None]).astype(int)
    return edges[:, 0], edges[:, 1] - edges[:, 0]


def _window(shape: tuple[int, ...], start: NDArray[np.int_], size: NDArray[np.int_]) -> NDArray[np.float32]:
    """Return a weight of the frame: a soft-edged patch, which may reach out of the frame."""
    window = np.ones(shape, np.float32)
    for axis in (0, 1):
        line = np.zeros(shape[axis] + 2 * abs(int(size[axis])), np.float32)
        first = int(start[axis]) + int(size[axis])
        line[first : first + size[axis]] = taper((int(size[axis]),), SOFT)
        inside = line[int(size[axis]) : int(size[axis]) + shape[axis]]
        window *= inside[:, None] if axis == 0 else inside
    return window
