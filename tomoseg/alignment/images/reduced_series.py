"""The reduced tilt series that an alignment is found from, and resampling it into the aligned frame."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.alignment.extent import reduction_factor
from tomoseg.alignment.images.warp import aligned_shape, correction_matrices, sampling, unrotate_vectors
from tomoseg.arrays import Array, FloatArray
from tomoseg.io.shifts import ImageCorrections

S = TypeVar("S")
T = TypeVar("T")
_EVERYTHING = np.zeros((0, 0), bool)  # of the frame is known
ALL_SEEN = 0.99  # part of a pixel
ENOUGH = 0.3  # least weight of known pixels under a Gaussian whose mean is used to fill gaps


def reduce(images: Array, factor: int) -> NDArray[np.float32]:
    """Average `factor` x `factor` pixels of (..., y, x) images; the image centre stays the centre.

    Up to `factor` border pixels are dropped. Where no crop is centred (even factor, odd length), the two crops beside
    the centre are averaged.
    """
    out = np.asarray(images, np.float32)
    for axis in (-2, -1):
        out = _reduce_axis(np.moveaxis(out, axis, -1), factor)
        out = np.moveaxis(out, -1, axis)
    return np.ascontiguousarray(out)


def _reduce_axis(data: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    if factor == 1:
        return data
    n = data.shape[-1]
    m = n // factor
    if (n - m * factor) % 2 and factor % 2:
        m -= 1
    spare = n - m * factor
    starts = {spare // 2, spare - spare // 2}
    parts = [data[..., s : s + m * factor].reshape(*data.shape[:-1], m, factor).mean(axis=-1) for s in starts]
    return np.asarray(sum(parts) / len(parts), np.float32)


def reduce_with_gaps(image: FloatArray, factor: int) -> NDArray[np.float32]:
    """Average `factor` x `factor` pixels of an image (y, x) that is NaN where pixels are missing, and fill the gaps.

    A hole, dark or bright, has an edge that stands still while the sample moves: filled smoothly, it holds nothing to
    register. Each gap gets the mean of the known pixels around it under the narrowest Gaussian that reaches it.
    """
    known = np.isfinite(image)
    weight = reduce(known, factor)
    total = reduce(np.where(known, image, 0), factor)
    out = total / np.maximum(weight, 1e-6)
    missing = weight < 0.5
    sigma = 1.0
    while missing.any() and not missing.all() and sigma < max(image.shape):
        part = ndimage.gaussian_filter(weight, sigma, mode="nearest")
        mean = ndimage.gaussian_filter(total, sigma, mode="nearest") / np.maximum(part, 1e-6)
        reached = missing & (part >= ENOUGH)
        out[reached] = mean[reached]
        missing &= ~reached
        sigma *= 1.5
    if known.any():
        out[missing] = np.median(image[known])
    return np.asarray(out, np.float32)


@dataclass(frozen=True)
class ReducedSeries:
    """A reduced tilt series, ready to be resampled again and again.

    Attributes
    ----------
    images : (n_tilt, y, x) f4, background 0, one common scale
    usable : (n_tilt,) bool, False for blank or corrupt tilts
    factor : raw pixels per pixel
    workers : threads
    checkpoint : called by all threads that work on the images, at least every few seconds; may raise to stop
    correction_matrices : (n_tilt, 2, 2) f8 rotation and magnification of each image; None where there is no correction
    seen : (n_tilt, y, x) bool, False in borders without data, which `images` fill smoothly; None for none
    """

    images: NDArray[np.float32]
    angles_deg: NDArray[np.float64]
    usable: NDArray[np.bool_]
    factor: int
    workers: int = 1
    checkpoint: Callable[[], None] = lambda: None
    correction_matrices: NDArray[np.float64] | None = None
    seen: NDArray[np.bool_] | None = None

    def corrected(self, corrections: ImageCorrections | None) -> "ReducedSeries":
        """Return the series with image corrections applied: true tilt angles, and images turned and magnified."""
        if corrections is None:
            return self
        corrected = replace(
            self,
            angles_deg=self.angles_deg + corrections.tilt_error_deg,
            correction_matrices=correction_matrices(corrections),
        )
        corrected.__dict__["splines"] = self.splines
        return corrected

    def reduced(self, longest_px: int) -> "ReducedSeries":
        """Return the series reduced further, to images of at most `longest_px` on a side."""
        k = reduction_factor(self.images.shape, longest_px)
        if k == 1:
            return self
        if k not in self._smaller:
            images = np.stack(self.each(lambda i: reduce(self.images[i], k)))
            seen = None if self.seen is None else np.stack([reduce(one, k) > ALL_SEEN for one in self.seen])
            self._smaller[k] = replace(self, images=images, seen=seen, factor=self.factor * k)
        return self._smaller[k]

    @cached_property
    def _smaller(self) -> dict[int, "ReducedSeries"]:
        """The series reduced further, by the factor."""
        return {}

    def shared_out(self, function: Callable[["ReducedSeries", S], T], items: Iterable[S]) -> list[T]:
        """Call `function` with this series, as one for a single thread, and each item, on all threads."""
        if self.workers == 1:
            return [function(self, item) for item in items]
        alone = replace(self, workers=1)
        alone.__dict__["splines"] = self.splines
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(lambda item: function(alone, item), items))

    def part(self, images: NDArray[np.float32], starts_px: NDArray[np.int_]) -> "ReducedSeries":
        """Return the series of `images` (n_tilt, y, x), cut out of its own from (n_tilt, 2) `starts_px` (y, x) on."""
        seen = self.seen
        if seen is not None:
            height, width = images.shape[1:]
            seen = np.stack([s[y : y + height, x : x + width] for s, (y, x) in zip(seen, starts_px, strict=True)])
        return replace(self, images=images, seen=seen)

    @property
    def outward(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Usable tilts from the lowest one on, in either direction; there must be one."""
        usable = np.flatnonzero(self.usable)
        first = int(np.argmin(np.abs(self.angles_deg[usable])))
        return usable[first:], usable[first::-1]

    @property
    def n_tilt(self) -> int:
        """Number of tilts."""
        return len(self.images)

    def each(self, function: Callable[[int], T]) -> list[T]:
        """Call `function` with the index of every tilt, on all threads."""

        def one(i: int) -> T:
            self.checkpoint()
            return function(i)

        if self.workers == 1:
            return [one(i) for i in range(self.n_tilt)]

        def some(indices: NDArray[np.int_]) -> list[T]:
            return [one(int(i)) for i in indices]

        # Few large parts: small images take less time than handing over a task.
        parts = np.array_split(np.arange(self.n_tilt), self.workers)
        with ThreadPoolExecutor(self.workers) as pool:
            return [result for part in pool.map(some, parts) for result in part]

    def warped(
        self, moves_px: FloatArray, axis_angle_deg: float, *, extend: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Bring all images into the aligned frame.

        Parameters
        ----------
        moves_px : (n_tilt, 2) array
            (dy', dx') to add to coordinates AFTER rotation, in pixels of this series: shifts and axis offset together.
        axis_angle_deg : float
        extend : bool
            Repeat border pixels outwards rather than fill with 0, for samples that go on outside the frame.

        Returns
        -------
        aligned : (n_tilt, y', x') f4
        seen : (n_tilt, y', x') bool, whether the pixel lies inside the raw frame
        """
        shape = aligned_shape(self.images.shape, axis_angle_deg)
        shifts = unrotate_vectors(moves_px, axis_angle_deg)
        aligned = np.zeros((self.n_tilt, *shape), np.float32)
        seen = np.zeros(aligned.shape, bool)

        def one(i: int) -> None:
            self.resample(i, shifts[i], axis_angle_deg, aligned[i], seen[i], extend=extend)

        self.each(one)
        return aligned, seen

    def resample(
        self,
        i: int,
        shift_px: FloatArray,
        axis_angle_deg: float,
        image: NDArray[np.float32],
        seen: NDArray[np.bool_],
        *,
        margin_px: float = 0.0,
        extend: bool = False,
    ) -> None:
        """Fill `image` and `seen`, (y', x'), with image `i` in the aligned frame; see `warped`.

        `shift_px` is (dy, dx) in the raw frame. What lies within `margin_px` of the frame's border is not seen.
        """
        correction = None if self.correction_matrices is None else self.correction_matrices[i]
        matrix, start = sampling(self.images.shape, image.shape, shift_px, axis_angle_deg, 0.0, correction)
        known = _EVERYTHING if self.seen is None else self.seen[i]
        resample_cubic(self.splines[i], matrix, start, image, seen, known, margin_px, extend)

    @cached_property
    def splines(self) -> NDArray[np.float32]:
        """Coefficients of the cubic splines through the images, (n_tilt, y, x)."""
        splines = np.empty_like(self.images)

        def one(i: int) -> None:
            splines[i] = ndimage.spline_filter(self.images[i], 3, np.float32, mode="nearest")

        self.each(one)
        return splines


def _resample_cubic(spline, matrix, start, image, seen, known, margin, extend):  # type: ignore[no-untyped-def]
    """Evaluate a cubic spline at matrix @ (row, column) + start; 0 outside the frame unless it is to extend.

    What is not `known` of the frame, where that is not empty, is not seen.
    """
    height, width = spline.shape
    partly = known.shape[0] > 0
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            y = matrix[0, 0] * row + matrix[0, 1] * column + start[0]
            x = matrix[1, 0] * row + matrix[1, 1] * column + start[1]
            inside = abs(y - (height - 1) / 2) <= height / 2 - margin and abs(x - (width - 1) / 2) <= width / 2 - margin
            seen[row, column] = inside
            if not (inside or extend):
                image[row, column] = 0
                continue
            y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
            if partly and not known[int(y + 0.5), int(x + 0.5)]:
                seen[row, column] = False
            k, m = int(y), int(x)
            v, h = _weights(np.float32(y - k)), _weights(np.float32(x - m))
            total = np.float32(0)
            if 1 <= k < height - 2 and 1 <= m < width - 2:
                for i in range(4):
                    line = spline[k - 1 + i]
                    total += v[i] * (h[0] * line[m - 1] + h[1] * line[m] + h[2] * line[m + 1] + h[3] * line[m + 2])
            else:
                for i in range(4):
                    line = spline[min(max(k - 1 + i, 0), height - 1)]
                    for j in range(4):
                        total += v[i] * h[j] * line[min(max(m - 1 + j, 0), width - 1)]
            image[row, column] = total


def _cubic_weights(t):  # type: ignore[no-untyped-def]
    """Return weights of the cubic B-spline for the four coefficients around a point `t` past the second."""
    one, sixth = np.float32(1), np.float32(1 / 6)
    s = one - t
    return (
        s * s * s * sixth,
        np.float32(2 / 3) - t * t * (one - t * np.float32(0.5)),
        np.float32(2 / 3) - s * s * (one - s * np.float32(0.5)),
        t * t * t * sixth,
    )


_weights = numba.njit(nogil=True, cache=True, inline="always")(_cubic_weights)
resample_cubic: Callable[..., None] = numba.njit(nogil=True, cache=True, fastmath=True)(_resample_cubic)
