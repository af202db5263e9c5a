"""How good an alignment is, judged by what the tilts say of each other.

Some rows across the tilt axis are reconstructed without every eighth tilt, and those are predicted from the volume; so
for each of the eight groups, until every tilt has been predicted by others. What a tilt shows and the others do not
foresee is its residual: noise, errors of the model (too few tilts, a sample that goes on outside) and misalignment.
Misalignment alone looks like the slope of the image, which is how it is told apart.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.align.copies import Copies
from tomoseg.arrays import FloatArray

LONGEST_PX = 128
ROWS = 32  # neighbouring ones: two blocks of the projector
FOLDS = 8
ITERATIONS = 20
# A sample that goes on outside the frame needs room there, or it is pressed into the frame (as in `reproject`).
WIDER = 1.5
MIN_TILTS = 5  # below, leaving some out leaves too few to predict from
LEAST_SEEN = 0.1  # of a tilt's pixels in the rows; with fewer nothing is said of it


@dataclass(frozen=True)
class Assessment:
    residual: NDArray[np.float64]
    step_px: NDArray[np.float64]
    deviation_px: NDArray[np.float64]

    @property
    def error_px(self):
        return np.sqrt((self.step_px**2 + self.deviation_px**2).mean(axis=1))


def assess(copies, moves_px, axis_angle_deg, *, whole, rows=None, mode="gg", iterations=ITERATIONS, folds=FOLDS):
    small = copies.reduced(LONGEST_PX)
    moves = np.asarray(moves_px) * copies.factor / small.factor
    aligned, seen = small.warped(moves, axis_angle_deg, extend=not whole)
    if rows is None:
        rows = brightest_rows(aligned, seen, small.usable)
    measured, seen = aligned[:, rows], seen[:, rows]
    predicted = _predicted(small, measured, seen, whole, iterations, folds)
    n = small.n_tilt
    residual, steps, deviation = np.full(n, np.nan), np.full((n, 2), np.nan), np.full((n, 2), np.nan)
    for i in np.flatnonzero(small.usable):
        s = seen[i]
        if s.mean() < LEAST_SEEN:
            continue
        d = measured[i] - predicted[i]
        residual[i] = np.linalg.norm(d[s]) / max(np.linalg.norm(measured[i][s]), 1e-30)
        steps[i], deviation[i] = _step(measured[i], predicted[i], s, mode)
    return Assessment(residual, steps * small.factor, deviation * small.factor)


def brightest_rows(aligned, seen, usable):
    shown = seen.any(axis=2)[usable].mean(axis=0) >= 0.9
    n = min(ROWS, aligned.shape[1])
    signal = np.maximum(aligned[usable], 0).sum(axis=(0, 2), dtype=float)
    total = np.convolve(np.where(shown, signal, 0), np.ones(n), "valid")
    start = int(np.argmax(total))
    return slice(start, start + n)


def _predicted(small, measured, seen, whole, iterations, folds):
    from functools import partial
    from tomoseg.reconstruct.cpu_backend import CpuOperator
    from tomoseg.reconstruct.geometry import ParallelGeometry
    from tomoseg.reconstruct.methods import mlem, in_blocks

    width = measured.shape[2]
    nx = width if whole else round(WIDER * width)
    geometry = ParallelGeometry(small.angles_deg, width, nx, width)
    rays = (seen.mean(axis=1) > 0.5).astype(np.float32)
    used = np.flatnonzero(small.usable)
    out = np.zeros_like(measured)
    k = min(folds, len(used))

    def fold(j):
        small.checkpoint()
        test = used[j::k]
        train = np.setdiff1d(used, test)
        op, look = CpuOperator(geometry.of(train)), CpuOperator(geometry.of(test))
        method = partial(mlem, iterations=iterations, weights=rays[train])
        for start in range(0, measured.shape[1], op.block):
            part = slice(start, start + op.block)
            vol = method(op, np.ascontiguousarray(measured[train, part])).volume
            out[test, part] = look.unload_projections(look.forward(look.load_volume(vol)), vol.shape[1])

    with ThreadPoolExecutor(small.workers) as pool:
        list(pool.map(fold, range(k)))
    return out


def _step(m, p, s, mode):
    inner = s.copy()
    from scipy import ndimage
    inner = ndimage.binary_erosion(s, border_value=1)
    gp = np.stack([*np.gradient(p), p]) * inner
    gm = np.stack([*np.gradient(m), m]) * inner
    d = (m - p) * inner
    if mode == "gg":
        left = gp
    elif mode == "gm":
        left = gm
    elif mode == "sym":
        left = (gp + gm) / 2
    a = gp.reshape(3, -1)
    b = (gm if mode == "iv" else left).reshape(3, -1)
    if mode == "iv":  # normal matrix from both images: the prediction is blurred, the measured image noisy
        matrix = a @ b.T
        matrix = (matrix + matrix.T) / 2
    else:
        a = b
        matrix = b @ b.T
    rhs = a @ d.ravel()
    try:
        inv = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return np.full(2, np.nan), np.full(2, np.nan)
    x = inv @ rhs
    # image m(x) = p(x - e): the move to ADD to coordinates to bring it into register is -e; d = -e g
    basis = (gm if mode == "iv" else (gp if mode == "gg" else left))
    r = (d - np.tensordot(x, basis, 1)) * inner
    # variance of a'r for a residual with its own spectrum
    from scipy import fft
    pad = [2 * n for n in r.shape]
    R = np.abs(fft.rfft2(r, pad)) ** 2
    G = fft.rfft2(a.reshape(3, *r.shape), pad)
    w = np.full(R.shape, 2.0); w[:, 0] = 1; w[:, -1] = 1
    cov = np.einsum("ayx,byx,yx->ab", G, G.conj(), R * w).real / np.prod(pad) / inner.sum()
    c = inv @ cov @ inv.T
    return x[:2], np.sqrt(np.maximum(np.diag(c)[:2], 0))
