"""Tortuosity of a space from steady diffusion through it.

Laplace's equation on the voxels of the space, concentration 1 before one side of the box and 0 behind the other, no
flow through walls. With the flux J, the effective diffusivity is D_eff / D = J L / (A (c1 - c0)), and

    tortuosity = porosity / (D_eff / D)

with the porosity of what joins the two sides (Epstein, Chem. Eng. Sci. 44, 1989, calls it the tortuosity factor):
1 in straight channels, more the farther and the narrower the way.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, BoolArray
from tomoseg.components import looked_up

MOST_CELLS = 300_000  # of the space; a larger one is solved on a part of it
TOLERANCE, MOST_STEPS = 1e-4, 2000  # of the residual; the flux is better by far, see `tortuosity`


def tortuosity(space: BoolArray, axis: int) -> float:
    """Return the tortuosity of a space (z, y, x) along an axis.

    NaN where nothing joins the two sides, or by ways so long and narrow that no solution is found.

    The flux is the energy of the solution, sum of g (dc)^2, which errs by the square of what the solution does.
    """
    import cc3d
    from scipy.sparse.linalg import LinearOperator, cg

    space = np.ascontiguousarray(np.moveaxis(space, axis, 0))
    labels = cc3d.connected_components(space, connectivity=6)
    through = np.intersect1d(np.unique(labels[0]), np.unique(labels[-1]))
    through = through[through > 0]
    if not len(through):
        return float("nan")
    chosen = np.zeros(int(labels.max()) + 1, bool)
    chosen[through] = True
    joined = looked_up(chosen, labels)
    del labels
    n = int(joined.sum())
    if n > MOST_CELLS:
        # The middle part across, as wide as can be solved.
        side = int(np.sqrt(MOST_CELLS / n * joined.shape[1] * joined.shape[2]))
        if side < min(joined.shape[1:]):
            a, b = ((m - side) // 2 for m in joined.shape[1:])
            return tortuosity(joined[:, a : a + side, b : b + side], 0)
        return tortuosity(joined[: joined.shape[0] // 2], 0)
    number = np.full(joined.shape, -1, np.int32)
    number[joined] = np.arange(n, dtype=np.int32)
    first, second = _neighbours(number)
    inlet, outlet = number[0][joined[0]], number[-1][joined[-1]]
    diagonal = (np.bincount(first, minlength=n) + np.bincount(second, minlength=n)).astype(np.float64)
    np.add.at(diagonal, inlet, 2.0)  # half a voxel to the side
    np.add.at(diagonal, outlet, 2.0)
    source = np.zeros(n)
    source[inlet] = 2.0
    matrix = _laplacian(first, second, diagonal)
    jacobi = LinearOperator((n, n), matvec=lambda r: r / diagonal)
    start = 1 - (np.nonzero(joined)[0] + 0.5) / len(joined)
    c, unfinished = cg(matrix, source, x0=start, rtol=TOLERANCE, maxiter=MOST_STEPS, M=jacobi)
    if unfinished:
        return float("nan")
    energy = float(((c[first] - c[second]) ** 2).sum() + 2 * ((1 - c[inlet]) ** 2).sum() + 2 * (c[outlet] ** 2).sum())
    length, across = len(joined), joined.shape[1] * joined.shape[2]
    return float(joined.mean() / (energy * length / across))


def _neighbours(number: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    first, second = [], []
    for axis in range(3):
        here = np.moveaxis(number, axis, 0)
        both = (here[:-1] >= 0) & (here[1:] >= 0)
        first.append(here[:-1][both])
        second.append(here[1:][both])
    return np.concatenate(first), np.concatenate(second)


def _laplacian(first: NDArray[np.int32], second: NDArray[np.int32], diagonal: Array) -> Any:
    from scipy.sparse import coo_matrix

    n = len(diagonal)
    rows = np.concatenate([first, second, np.arange(n, dtype=np.int32)])
    columns = np.concatenate([second, first, np.arange(n, dtype=np.int32)])
    values = np.concatenate([np.full(2 * len(first), -1.0), diagonal])
    return coo_matrix((values, (rows, columns)), shape=(n, n)).tocsr()
