"""Surfaces and points as VTK poly data. VTK is imported when it is used."""

import errno
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import StageFailed, printable
from tomoseg.export.frame import WORLD_SIGNS, to_world
from tomoseg.export.tables import as_text

if TYPE_CHECKING:
    from tomoseg.measurement.common.surface import Mesh

# Pass band of the windowed-sinc filter: removes what the meshing left of voxel steps, keeps shapes of a few voxels.
PASS_BAND = 0.1


def surface_polydata(
    mesh: "Mesh",
    shape: tuple[int, ...],
    voxel_size: float,
    smoothing_iterations: int = 20,
    target_triangles: int = 0,
) -> Any:
    """Turn a closed surface into vtkPolyData, upright in ParaView, with outward normals.

    Parameters
    ----------
    mesh : vertices (z, y, x) in px
    shape
        Shape of the labels (z, y, x). Triangles of the caps at the border of this volume get 1 in the cell array
        `on_border`.
    voxel_size : in the unit of the file
    smoothing_iterations
        Of the windowed-sinc filter, which does not shrink surfaces (Taubin, Zhang & Golub, ECCV 1996); 0: none.
    target_triangles
        A surface of more triangles is reduced to this number by quadric error (Garland & Heckbert, 1997), which keeps
        flat parts flat and the volume enclosed; 0: no reduction.
    """
    from vtkmodules.vtkFiltersCore import vtkPolyDataNormals, vtkQuadricDecimation

    from tomoseg.export.surfaces import on_cap

    data = _triangles(mesh.vertices[:, ::-1], mesh.faces)
    if smoothing_iterations:
        data = _smoothed(data, smoothing_iterations)
        points = _numpy_of(data.GetPoints().GetData())
        _flatten_caps(points, mesh.vertices[:, ::-1], shape[::-1])
    n_triangles = data.GetNumberOfPolys()
    if 0 < target_triangles < n_triangles:
        quadric = vtkQuadricDecimation()
        quadric.SetTargetReduction(1 - target_triangles / n_triangles)
        quadric.VolumePreservationOn()
        data = _applied(quadric, data)
    points = _numpy_of(data.GetPoints().GetData())
    faces = _numpy_of(data.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    flat = on_cap(points[:, ::-1], faces, shape)
    points[:] = to_world(points[:, ::-1], voxel_size)  # in place: a surface fills much of the memory allowed
    data.GetPoints().Modified()
    _add_array(data.GetCellData(), "on_border", flat.astype(np.uint8))
    normals = vtkPolyDataNormals()
    normals.SplittingOff()
    normals.ConsistencyOff()  # marching cubes has turned all triangles outwards
    return _applied(normals, data)


def points_polydata(points_px: Array, voxel_size: float, columns: Mapping[str, Array]) -> Any:
    """Turn points (n, 3), (z, y, x) in px, into vtkPolyData with one point array per column (n,) or (n, m).

    Numbers and truth values (0 or 1) become arrays of numbers of m components, texts arrays of strings. Directions
    `NAME_z`, `NAME_y`, `NAME_x` are also written as a vector `NAME` along the axes of the file; positions `z_UNIT`, ...
    are not directions.
    """
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    data, points, vertices = vtkPolyData(), vtkPoints(), vtkCellArray()
    points.SetData(_vtk_array(to_world(points_px, voxel_size)))
    vertices.SetData(1, _vtk_array(np.arange(len(points_px), dtype=np.int64)))
    data.SetPoints(points)
    data.SetVerts(vertices)
    for name, column in columns.items():
        _add_array(data.GetPointData(), name, column)
    for name, directions in _directions(columns).items():
        _add_array(data.GetPointData(), name, (directions[:, ::-1] * WORLD_SIGNS).astype(np.float32))
    return data


def _directions(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Return the vectors (n, 3), (z, y, x), whose three components are columns."""
    found = {}
    for name in columns:
        stem = name.removesuffix("_z")
        parts = [columns.get(f"{stem}_{axis}") for axis in "zyx"]
        if stem != name and stem not in columns and all(part is not None and part.dtype.kind == "f" for part in parts):
            found[stem] = np.stack([part for part in parts if part is not None], axis=1)
    return found


def surface_arrays(polydata: Any) -> tuple[Array, Array, Array]:
    """Return points (n, 3), outward normals (n, 3) and triangles (m, 3) of a surface, as views where VTK allows."""
    points = _numpy_of(polydata.GetPoints().GetData())
    normals = _numpy_of(polydata.GetPointData().GetNormals())
    return points, normals, _numpy_of(polydata.GetPolys().GetConnectivityArray()).reshape(-1, 3)


def write_by_vtk(writer: Any, path: Path, polydata: Any) -> None:
    """Write poly data by one of VTK's writers; raise OSError if the disk is full, else StageFailed if it fails."""
    from vtkmodules.vtkCommonCore import vtkObject
    from vtkmodules.vtkCommonMisc import vtkErrorCode

    writer.SetFileName(str(path))
    writer.SetInputData(polydata)
    vtkObject.GlobalWarningDisplayOff()  # its messages say less than the error code
    try:
        done = writer.Write()
    finally:
        vtkObject.GlobalWarningDisplayOn()
    code = writer.GetErrorCode()
    if code in (vtkErrorCode.OutOfDiskSpaceError, errno.ENOSPC):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if not done or code:
        raise StageFailed(f"VTK could not write {path.name}: {vtkErrorCode.GetStringFromErrorCode(code)}.")


def _smoothed(data: Any, iterations: int) -> Any:
    from vtkmodules.vtkFiltersCore import vtkWindowedSincPolyDataFilter

    sinc = vtkWindowedSincPolyDataFilter()
    sinc.SetNumberOfIterations(iterations)
    sinc.SetPassBand(PASS_BAND)
    sinc.NormalizeCoordinatesOn()
    sinc.FeatureEdgeSmoothingOff()
    sinc.NonManifoldSmoothingOn()
    return _applied(sinc, data)


def _flatten_caps(points: Array, before: Array, shape: tuple[int, ...]) -> None:
    """Move points (n, 3) that lay on a cap back onto the border of the volume, and the others inside; in place."""
    for axis, n in enumerate(shape):
        for border in (-0.5, n - 0.5):
            points[np.abs(before[:, axis] - border) < 1e-3, axis] = border
        np.clip(points[:, axis], -0.5, n - 0.5, out=points[:, axis])


def _triangles(points: NDArray[Any], faces: Array) -> Any:
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    data, vtk_points, cells = vtkPolyData(), vtkPoints(), vtkCellArray()
    vtk_points.SetData(_vtk_array(points.astype(np.float32)))
    cells.SetData(3, _vtk_array(faces.astype(np.int64).ravel()))
    data.SetPoints(vtk_points)
    data.SetPolys(cells)
    return data


def _vtk_array(values: Array) -> Any:
    """Copy values (n,) or (n, 3) into a VTK array."""
    from vtkmodules.util import numpy_support

    to_vtk: Any = numpy_support.numpy_to_vtk  # untyped
    return to_vtk(np.ascontiguousarray(values), deep=True)


def _numpy_of(array: Any) -> Array:
    """Return a view of a VTK array."""
    from vtkmodules.util import numpy_support

    to_numpy: Any = numpy_support.vtk_to_numpy  # untyped
    return np.asarray(to_numpy(array))


def _applied(filter_: Any, data: Any) -> Any:
    filter_.SetInputData(data)
    filter_.Update()
    return filter_.GetOutput()


def _add_array(attributes: Any, name: str, values: Array) -> None:
    if values.dtype.kind in "OSU":
        attributes.AddArray(vtk_texts([as_text(value) for value in values], name))
        return
    # VTK has neither truth values nor half floats.
    if values.dtype.char in "?e":
        values = values.astype(np.uint8 if values.dtype == bool else np.float32)
    array = _vtk_array(values.astype(values.dtype.newbyteorder("="), copy=False))
    array.SetName(_name(name))
    attributes.AddArray(array)


def _name(name: str) -> str:
    """Return the name of an array as XML can hold it: VTK escapes nothing in it."""
    return re.sub('[<>&"]', "?", printable(name))


def vtk_texts(texts: Iterable[str], name: str) -> Any:
    """Return texts as a VTK array."""
    from vtkmodules.vtkCommonCore import vtkStringArray

    array = vtkStringArray()
    array.SetName(_name(name))
    for text in texts:
        array.InsertNextValue(printable(text))
    return array
