"""Total variation of slices: the proximal map that `methods.tv` needs, compiled.

Arrays are (nz, nx, n): n slices, each on its own. The dual field of a slice has a component down, between voxels (z, x)
and (z + 1, x), and one to the right, between (z, x) and (z, x + 1); across the border of the slice there is none.
"""

import numpy as np
from numpy.typing import NDArray

from tomoseg.reconstruction.kernels import Floats, compiled

INNER = 8  # dual steps per proximal map; each map continues from the dual field of the previous one


class Proximal:
    """The map of u to the v >= 0 that minimises ``|v - u|^2 / 2 + weight * TV(v)``, for slices of one `shape`.

    v is 0 where `allowed` (nz, nx) is false.
    """

    def __init__(self, shape: tuple[int, ...], weight: float, allowed: NDArray[np.bool_] | None = None) -> None:
        self._weight = np.float32(weight)
        self._allowed = np.ones(shape[:2], np.bool_) if allowed is None else allowed
        self._down, self._right = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def __call__(self, point: Floats, out: Floats) -> None:
        """Write an approximate map of `point` to `out`, which improves with every call if points change little."""
        if self._weight > 0:
            length = np.float32(1 / (8 * self._weight))  # a slice's gradient has a squared norm of 8 at most
            for _ in range(INNER):
                _primal(point, self._down, self._right, self._weight, self._allowed, out)
                _ascend(out, self._down, self._right, length)
        _primal(point, self._down, self._right, self._weight, self._allowed, out)


def _primal_map(
    point: Floats, down: Floats, right: Floats, weight: float, allowed: NDArray[np.bool_], out: Floats
) -> None:
    """Write max(0, u - weight * D'q), with q the dual field and D' the adjoint of the gradient, where allowed."""
    nz, nx, n = point.shape
    for z in range(nz):
        for x in range(nx):
            for s in range(n):
                pull = -down[z, x, s] - right[z, x, s]
                if z > 0:
                    pull += down[z - 1, x, s]
                if x > 0:
                    pull += right[z, x - 1, s]
                value = max(np.float32(0), point[z, x, s] - weight * pull)
                out[z, x, s] = value if allowed[z, x] else np.float32(0)


def _dual_step(volume: Floats, down: Floats, right: Floats, length: float) -> None:
    """Take a step in the dual field along the gradient of the volume; shorten its vectors to length 1 at most."""
    nz, nx, n = volume.shape
    for z in range(nz):
        for x in range(nx):
            for s in range(n):
                a, b = down[z, x, s], right[z, x, s]
                if z < nz - 1:
                    a += length * (volume[z + 1, x, s] - volume[z, x, s])
                if x < nx - 1:
                    b += length * (volume[z, x + 1, s] - volume[z, x, s])
                shrink = np.float32(1) / max(np.float32(1), np.sqrt(a * a + b * b))
                down[z, x, s], right[z, x, s] = a * shrink, b * shrink


_primal, _ascend = compiled()(_primal_map), compiled()(_dual_step)
