"""Displacement of two images: windowed, zero-padded, band-passed cross-correlation with an exact subpixel peak."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from tomoseg.arrays import FloatArray

NEWTON_STEPS = 4


def taper(shape: tuple[int, ...], edge: float = 1.0) -> NDArray[np.float32]:
    """Return a separable window that falls to zero at the borders like a raised cosine.

    `edge` is the part of each axis that is tapered: 1 is the Hann window, 0.25 leaves the middle three quarters flat.
    """
    window = np.ones(shape, np.float32)
    for axis, n in enumerate(shape):
        from_border = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / n
        ramp = 0.5 - 0.5 * np.cos(np.pi * np.clip(from_border / (edge / 2), 0, 1))
        window *= ramp.reshape([-1 if a == axis else 1 for a in range(len(shape))]).astype(np.float32)
    return window


def band_pass(shape: tuple[int, ...], low: float, high: float) -> NDArray[np.float32]:
    """Return the transfer function, on the grid of `rfftn`, of a difference of Gaussians between two frequencies.

    `low` and `high` in cycles per pixel: about where the response falls to exp(-1) on either side. The mean is removed.
    """
    axes = [fft.fftfreq(n) for n in shape[:-1]] + [fft.rfftfreq(shape[-1])]
    f2 = sum(np.square(f).reshape([-1 if a == i else 1 for a in range(len(shape))]) for i, f in enumerate(axes))
    response = np.exp(-f2 / high**2) * -np.expm1(-f2 / low**2)
    return np.asarray(response, np.float32)


def register(
    reference: FloatArray, moving: FloatArray, response: FloatArray, max_shift: float | None = None
) -> tuple[NDArray[np.float64], float]:
    """Find the shift to ADD to the coordinates of `moving` to bring it into register with `reference`.

    Both are arrays of the same shape, 1D or 2D, windowed. `response` is a filter on the `rfftn` grid of the padded
    shape, see `band_pass`: its shape says how much to pad. No component is larger than `max_shift` px.

    Returns
    -------
    shift : (ndim,) array in px, in axis order
    score : normalised correlation at the peak, -1..1; 0 where an image is empty
    """
    # rfftn keeps half of the last axis; padded lengths are even by construction of `padded_shape`.
    padded = (*response.shape[:-1], 2 * (response.shape[-1] - 1))
    a, b = (fft.rfftn(i, padded) * response for i in (reference, moving))
    cross = b * np.conj(a)
    power = np.sqrt(_parseval(a) * _parseval(b))
    if not power > 0:
        return np.zeros(len(padded)), 0.0
    surface = fft.irfftn(cross, padded)
    peak = _peak(surface, max_shift)
    peak, value = _climb(cross, peak, padded)
    return -peak, float(value / power)


def register_lines(
    reference: FloatArray, moving: FloatArray, response: FloatArray, max_shift: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the shifts (m,) and scores (m,) of many lines `moving` (m, n) at once, as `register` does of one of them.

    `reference` is (n,).
    """
    padded = 2 * (response.shape[-1] - 1)
    a, b = fft.rfft(reference, padded) * response, fft.rfft(moving, padded, axis=1) * response
    cross = b * np.conj(a)
    weights = _weights(len(response))
    power = np.sqrt((np.square(np.abs(b)) @ weights) * float(np.square(np.abs(a)) @ weights))
    surface = fft.irfft(cross, padded, axis=1)
    if max_shift is not None:
        surface[:, np.abs(fft.fftfreq(padded, 1 / padded)) > max(max_shift, 1)] = -np.inf
    start = np.argmax(surface, axis=1).astype(float)
    start[start > padded // 2] -= padded
    k = 2j * np.pi * fft.rfftfreq(padded)

    def derivatives(u: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        terms = cross * np.exp(k * u[:, None]) * weights
        return [(terms * k**order).sum(axis=1).real for order in range(3)]

    u = start.copy()
    value, gradient, curvature = derivatives(u)
    climbing = power > 0
    for _ in range(NEWTON_STEPS):
        step = gradient / np.maximum(np.abs(curvature), 1e-12 * np.maximum(value, 1e-300))
        trial = start + np.clip(u + np.clip(step, -0.5, 0.5) - start, -1, 1)
        higher, gradient, curvature = derivatives(trial)
        climbing &= higher > value
        u, value = np.where(climbing, trial, u), np.where(climbing, higher, value)
        if not climbing.any():
            break
    found = power > 0
    return np.where(found, -u, 0.0), np.where(found, value / np.where(found, power, 1.0), 0.0)


def padded_shape(shape: tuple[int, ...], factor: float = 2.0) -> tuple[int, ...]:
    """Return even lengths, fast to transform, of at least `factor` times `shape`."""
    return tuple(2 * int(fft.next_fast_len(int(np.ceil(n * factor / 2)), real=True)) for n in shape)


def _weights(n_half: int) -> NDArray[np.float64]:
    """Return how often each column of an `rfft` of even length occurs in the full transform."""
    w = np.full(n_half, 2.0)
    w[0] = w[-1] = 1.0
    return w


def _parseval(spectrum: NDArray[np.complexfloating]) -> float:
    """Return the sum over the full transform of the squared magnitude."""
    power = np.square(np.abs(spectrum)).reshape(-1, spectrum.shape[-1]).sum(0, dtype=float)
    return float(power @ _weights(spectrum.shape[-1]))


def _peak(surface: FloatArray, max_shift: float | None) -> NDArray[np.float64]:
    """Return the signed position in px of the highest value, no further than `max_shift` from 0 along any axis."""
    allowed = surface
    if max_shift is not None:
        for axis, n in enumerate(surface.shape):
            far = np.abs(fft.fftfreq(n, 1 / n)) > max(max_shift, 1)
            allowed = np.where(far.reshape([-1 if a == axis else 1 for a in range(surface.ndim)]), -np.inf, allowed)
    index = np.array(np.unravel_index(int(np.argmax(allowed)), surface.shape))
    return np.array([i - n if i > n // 2 else i for i, n in zip(index, surface.shape, strict=True)], float)


def _climb(
    cross: NDArray[np.complexfloating], start: NDArray[np.float64], padded: tuple[int, ...]
) -> tuple[NDArray[np.float64], float]:
    """Climb from a whole-pixel peak to the maximum of the trigonometric interpolation of the correlation.

    C(u) = Re sum_k X_k exp(2 pi i k u) is differentiated exactly, so Newton's method needs no upsampled grid. Stays
    within a pixel of the start.
    """
    u = start
    value, gradient, hessian = _derivatives(cross, u, padded)
    for _ in range(NEWTON_STEPS):
        # Where the surface is no hill along a direction (noise), its curvature is turned round: still a way up.
        curvature, axes = np.linalg.eigh(hessian)
        step = axes @ ((axes.T @ gradient) / np.maximum(np.abs(curvature), 1e-12 * max(value, 1e-300)))
        trial = start + np.clip(u + np.clip(step, -0.5, 0.5) - start, -1, 1)
        c, gradient, hessian = _derivatives(cross, trial, padded)
        if c <= value:
            break
        u, value = trial, c
    return u, value


def _derivatives(
    cross: NDArray[np.complexfloating], u: NDArray[np.float64], padded: tuple[int, ...]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return value, gradient and Hessian of C at `u`, see `_climb`; C is the sum over the full transform."""
    ndim = len(padded)
    kx = 2j * np.pi * fft.rfftfreq(padded[-1])
    ex = np.exp(kx * u[-1]) * _weights(cross.shape[-1])
    basis = np.stack([ex, kx * ex, kx**2 * ex], axis=1)  # derivatives 0, 1, 2 along the last axis
    # Not a BLAS product: its own threads get in the way of those that register images side by side.
    along = np.einsum("...x,xk->...k", cross, basis)
    if ndim == 1:
        c, g, h = along.real
        return float(c), np.array([g]), np.array([[h]])
    ky = 2j * np.pi * fft.fftfreq(padded[0])
    ey = np.exp(ky * u[0])
    d = np.einsum(
        "jy,yk->jk", np.stack([ey, ky * ey, ky**2 * ey]), along
    ).real  # d[i, j]: derivative i along y, j along x
    return float(d[0, 0]), np.array([d[1, 0], d[0, 1]]), np.array([[d[2, 0], d[1, 1]], [d[1, 1], d[0, 2]]])
