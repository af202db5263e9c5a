"""Surfaces of the classes as triangles for the page: few enough to rotate smoothly in a browser, packed in few bytes.

They are contours of the class fractions (`tomoseg.report.sampling.fractions`). Where a cell is a single voxel, the
field is smoothed as for the measured surface area (`tomoseg.measurement.common.surface`); otherwise a narrow Gaussian
is enough, since fractions are smooth already. The level is the one that encloses the volume of the class. Where a class
extends beyond the border of the volume, a flat cap closes its surface.
"""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array
from tomoseg.measurement.common.surface import count_values, level_of, smooth
from tomoseg.report.sampling.fractions import Fractions, block_means

SOLID_TRIANGLES, GLASS_TRIANGLES = 70_000, 130_000
# Quadric decimation takes time and memory for every triangle it removes: cells are made larger first.
THINNING = 3.0
NARROW_SIGMA = 0.5  # cells
QUANTA = 65_535  # of a coordinate along the longest side of the volume


@dataclass(frozen=True)
class Triangles:
    """A surface: `points` (n, 3) are (x, y, z) in px from the centre of the first voxel, `faces` (m, 3) index them."""

    points: NDArray[np.float32]
    faces: NDArray[np.int64]


def surface(fractions: Fractions, index: int, target: int) -> Triangles:
    """Return the surface of a class with about `target` triangles or fewer, turned outwards."""
    field = _field(fractions, index)
    level = level_of(count_values(field), round(float(fractions.of[index - 1].sum(dtype=np.float64)) / fractions.full))
    size = fractions.factor
    found = _contour(_capped(field, level), level)
    while len(found.faces) > THINNING * target and min(field.shape) > 4:
        times = max(2, int(np.sqrt(len(found.faces) / (THINNING * target)) + 0.5))
        field, size = block_means(field, times, "edge"), size * times
        found = _contour(_capped(field, level), level)
    if len(found.faces) > target:
        found = _thinned(found, target)
    # The capped field has one cell more at each end; the centre of a cell of n voxels is at (n - 1) / 2.
    return Triangles(((found.points - 1) * size + (size - 1) / 2).astype(np.float32), found.faces)


def _field(fractions: Fractions, index: int) -> NDArray[np.float32]:
    part = fractions.of[index - 1]
    if fractions.factor == 1:
        return smooth(part)
    field: NDArray[np.float32] = part.astype(np.float32) / np.float32(fractions.full)
    ndimage.gaussian_filter(field, NARROW_SIGMA, mode="nearest", output=field)
    return field


def _capped(field: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """Add a cell at each end, mirrored at the level: a surface that meets the border is closed half a cell outside."""
    padded = np.pad(field, 1, mode="edge")
    for axis in range(3):
        for end in (0, -1):
            face = np.moveaxis(padded, axis, 0)[end]
            face[:] = np.float32(level) - np.abs(face - np.float32(level))
    return padded


def _contour(field: NDArray[np.float32], level: float) -> Triangles:
    """Return the level surface of a field (z, y, x), in cells."""
    from vtkmodules.util import numpy_support
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

    to_vtk: Any = numpy_support.numpy_to_vtk  # untyped
    image = vtkImageData()
    image.SetDimensions(*field.shape[::-1])
    image.GetPointData().SetScalars(to_vtk(np.ascontiguousarray(field).ravel()))
    edges = vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, level)
    edges.ComputeNormalsOff()
    edges.ComputeScalarsOff()
    edges.Update()
    return _triangles_of(edges.GetOutput())


def _thinned(found: Triangles, target: int) -> Triangles:
    """Remove triangles by quadric error (Garland & Heckbert, 1997)."""
    from vtkmodules.util import numpy_support
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
    from vtkmodules.vtkFiltersCore import vtkQuadricDecimation

    to_vtk: Any = numpy_support.numpy_to_vtk  # untyped
    data, points, cells = vtkPolyData(), vtkPoints(), vtkCellArray()
    points.SetData(to_vtk(found.points, deep=True))
    cells.SetData(3, to_vtk(found.faces.ravel(), deep=True))
    data.SetPoints(points)
    data.SetPolys(cells)
    quadric = vtkQuadricDecimation()
    quadric.SetInputData(data)
    quadric.SetTargetReduction(1 - target / len(found.faces))
    quadric.VolumePreservationOn()
    quadric.Update()
    return _triangles_of(quadric.GetOutput())


def _triangles_of(data: Any) -> Triangles:
    from vtkmodules.util import numpy_support

    to_numpy: Any = numpy_support.vtk_to_numpy  # untyped
    if not data.GetNumberOfPolys():
        return Triangles(np.empty((0, 3), np.float32), np.empty((0, 3), np.int64))
    points = np.array(to_numpy(data.GetPoints().GetData()), np.float32)
    faces = np.array(to_numpy(data.GetPolys().GetConnectivityArray()), np.int64).reshape(-1, 3)
    return Triangles(points, faces)


def encoded(found: Triangles, shape: Sequence[int]) -> dict[str, Any]:
    """Return a surface in few bytes, for the script of the page.

    Points are whole numbers: `step` px apart from -0.5 px on. They are in the order of their first use, each as its
    difference to the one before; a face names a point by how many points lie between it and the next that is new
    (0: it is that one). Both compress well. `data` is base64 of gzip of three coordinates of two bytes, low bytes
    first, all x before all y before all z, then faces of three bytes, likewise.
    """
    step = max(shape) / QUANTA
    used, order = np.unique(found.faces.ravel(), return_index=True)
    rank = np.empty(len(found.points), np.int64)
    rank[used[np.argsort(order, kind="stable")]] = np.arange(len(used))
    points = np.empty((len(used), 3), np.float32)
    points[rank[used]] = found.points[used]
    whole = np.clip(np.rint((points + 0.5) / step), 0, QUANTA).astype(np.int64)
    steps = np.diff(whole, axis=0, prepend=np.zeros((1, 3), np.int64))
    # A difference of more than half the range wraps around, which undoes itself when it is added modulo 65536; small
    # ones of either sign become small whole numbers.
    wrapped = (steps + 32_768) % 65_536 - 32_768
    folded = np.where(wrapped < 0, -2 * wrapped - 1, 2 * wrapped)
    corners = rank[found.faces].ravel()
    behind = np.maximum.accumulate(np.concatenate([[-1], corners]))[:-1] + 1 - corners if len(corners) else corners
    packed = _bytes(folded.T.ravel(), 2) + _bytes(behind, 3)
    return {
        "step": step,
        "points": len(points),
        "faces": len(found.faces),
        "data": base64.b64encode(gzip.compress(packed, 9, mtime=0)).decode(),
    }


def _bytes(values: Array, n: int) -> bytes:
    """Return the lowest bytes of all values, then the next."""
    return b"".join(((values >> (8 * k)) & 255).astype(np.uint8).tobytes() for k in range(n))
