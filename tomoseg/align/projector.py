"""A small, quick projector for alignment only: whole stacks of slices at once, y running fastest.

Volumes are (z, x, y) and projections (tilt, s, y), so that the inner loop over y is one contiguous run. Pixels and
rays follow s = x cos(t) + z sin(t) from the centres. Reconstruction has its own projectors: this one is for finding
where images belong, on reduced copies, and never makes a result that a user sees.
"""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from tomoseg.arrays import FloatArray


def ramp_filter(projections: FloatArray, angles_deg: FloatArray) -> NDArray[np.float32]:
    """Filter (tilt, s, y) projections for `back_project`: a ramp along s, weighted by the angle each tilt stands for.

    The Shepp-Logan window tames noise. Angles need not be equally spaced; a wedge that was not seen stays empty. Done
    tilt by tilt, because the padded spectra are several times as large.
    """
    n = projections.shape[1]
    length = int(fft.next_fast_len(2 * n, real=True))
    f = fft.rfftfreq(length)
    # The ramp's exact band-limited kernel: sampled |f| would put the mean of each projection wrong (Kak & Slaney,
    # Principles of Computerized Tomographic Imaging, ch. 3).
    k = np.arange(length)
    k = np.minimum(k, length - k)
    kernel = np.where(k % 2 == 1, -1 / (np.pi * np.maximum(k, 1)) ** 2, 0.0)
    kernel[0] = 0.25
    response = (fft.rfft(kernel).real * np.sinc(f)).astype(np.float32)
    weights = angular_weights(angles_deg).astype(np.float32)
    filtered = np.empty(projections.shape, np.float32)
    for i, lines in enumerate(projections):
        spectrum = fft.rfft(np.asarray(lines, np.float32), length, axis=0) * response[:, None]
        filtered[i] = fft.irfft(spectrum, length, axis=0)[:n] * weights[i]
    return filtered


def angular_weights(angles_deg: FloatArray) -> NDArray[np.float64]:
    """Return the angle in radians that each tilt stands for: half the way to either neighbour on the half circle.

    Across the missing wedge, a gap far wider than the rest, the ends stand for as much as on their other side.
    """
    angles = np.asarray(angles_deg, float) % 180
    order = np.argsort(angles, kind="stable")
    gaps = np.diff(angles[order], append=angles[order][0] + 180)
    if not np.any(gaps > 0):
        return np.full(len(angles), np.pi / len(angles))
    wedge = gaps > 3 * np.median(gaps[gaps > 0])
    after = np.where(wedge, np.roll(gaps, 1), gaps)
    before = np.where(np.roll(wedge, 1), gaps, np.roll(gaps, 1))
    weights = np.empty(len(angles))
    weights[order] = np.minimum((after + before) / 2, 180 / len(angles) * 3)
    return np.deg2rad(weights)


def back_project(
    filtered: NDArray[np.float32], angles_deg: FloatArray, n_z: int, workers: int = 1
) -> NDArray[np.float32]:
    """Smear (tilt, s, y) projections back into a (z, x, y) volume with as many x as there are s."""
    n_x, n_y = filtered.shape[1:]
    volume = np.zeros((n_z, n_x, n_y), np.float32)
    cos, sin = np.cos(np.deg2rad(angles_deg)), np.sin(np.deg2rad(angles_deg))

    def part(planes: NDArray[np.int_]) -> None:
        _back(filtered, cos, sin, volume, int(planes[0]), int(planes[-1]) + 1)

    _in_threads(part, n_z, workers)
    return volume


def project(volume: NDArray[np.float32], angles_deg: FloatArray, workers: int = 1) -> NDArray[np.float32]:
    """Sum a (z, x, y) volume along the rays of each tilt: (tilt, s, y). Joseph's method, linear between pixels."""
    projections = np.zeros((len(angles_deg), *volume.shape[1:]), np.float32)
    cos, sin = np.cos(np.deg2rad(angles_deg)), np.sin(np.deg2rad(angles_deg))

    def part(tilts: NDArray[np.int_]) -> None:
        for i in tilts:
            _forward(volume, cos[i], sin[i], projections[i])

    _in_threads(part, len(angles_deg), workers)
    return projections


def _in_threads(part, n: int, workers: int) -> None:  # type: ignore[no-untyped-def]
    """Run `part` on consecutive runs of `range(n)`."""
    chunks = [c for c in np.array_split(np.arange(n), max(1, min(workers, n)) * 2) if len(c)]
    if workers <= 1:
        for chunk in chunks:
            part(chunk)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(part, chunks))


def _back_planes(filtered, cos, sin, volume, first, last):  # type: ignore[no-untyped-def]
    n_z, n_x, n_y = volume.shape
    n_t = filtered.shape[0]
    for z in range(first, last):
        for x in range(n_x):
            column = volume[z, x]
            for t in range(n_t):
                s = (x - (n_x - 1) / 2) * cos[t] + (z - (n_z - 1) / 2) * sin[t] + (n_x - 1) / 2
                k = int(np.floor(s))
                if k < 0 or k > n_x - 2:
                    continue
                w = np.float32(s - k)
                v = np.float32(1.0) - w
                a, b = filtered[t, k], filtered[t, k + 1]
                for y in range(n_y):
                    column[y] += v * a[y] + w * b[y]


def _forward_tilt(volume, cos, sin, image):  # type: ignore[no-untyped-def]
    n_z, n_x, n_y = volume.shape
    steep = abs(sin) > abs(cos)  # rays nearer to x than to z
    n_step, n_other = (n_x, n_z) if steep else (n_z, n_x)
    length = np.float32(1 / max(abs(sin), abs(cos)))
    for j in range(image.shape[0]):
        s = j - (n_x - 1) / 2
        row = image[j]
        for i in range(n_step):
            at = i - (n_step - 1) / 2
            other = (s - at * cos) / sin if steep else (s - at * sin) / cos
            other += (n_other - 1) / 2
            k = int(np.floor(other))
            if k < 0 or k > n_other - 2:
                continue
            w = np.float32(other - k) * length
            v = length - w
            if steep:
                a, b = volume[k, i], volume[k + 1, i]
            else:
                a, b = volume[i, k], volume[i, k + 1]
            for y in range(n_y):
                row[y] += v * a[y] + w * b[y]


_back = numba.njit(nogil=True, cache=True, fastmath=True)(_back_planes)
_forward = numba.njit(nogil=True, cache=True, fastmath=True)(_forward_tilt)
