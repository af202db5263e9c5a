from pathlib import Path

import numpy as np
import pytest

from tomoseg.errors import StageFailed
from tomoseg.export.formats.vtp import write_vtp
from tomoseg.export.polydata import points_polydata, surface_polydata
from tomoseg.export.surfaces import CoarseLabels, block_surface, joined
from tomoseg.measurement.common.surface import LevelFinder


def class_mesh(labels, k=1):
    coarse, finder = CoarseLabels(labels), LevelFinder()
    parts = [part for strip in coarse.strips(1e9) for part in strip.parts(coarse.fraction(strip.read, k))]
    for block, fraction in parts:
        finder.add(fraction, block)
    patches = (block_surface(fraction, finder.level(), block) for block, fraction in parts)
    return joined([patch for patch in patches if patch], coarse)


def read_polydata(path):
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    complaints = []
    reader = vtkXMLPolyDataReader()
    reader.AddObserver("ErrorEvent", lambda *_: complaints.append("error"))
    reader.SetFileName(str(path))
    reader.Update()
    assert not complaints
    return reader.GetOutput()


def arrays(attributes):
    from vtkmodules.util.numpy_support import vtk_to_numpy

    return {
        attributes.GetArrayName(i): vtk_to_numpy(attributes.GetArray(i)) for i in range(attributes.GetNumberOfArrays())
    }


def points_of(data):
    from vtkmodules.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(data.GetPoints().GetData())


def mass(data):
    from vtkmodules.vtkFiltersCore import vtkMassProperties

    properties = vtkMassProperties()
    properties.SetInputData(data)
    properties.Update()
    return properties.GetVolume(), properties.GetSurfaceArea()


def ball(radius_px, centre, shape):
    points = np.indices(shape)
    return (sum((p - c) ** 2 for p, c in zip(points, centre, strict=True)) <= radius_px**2).astype(np.uint8)


@pytest.mark.parametrize("iterations", [0, 20, 100])
@pytest.mark.parametrize("target", [0, 2000])
def test_sphere_keeps_volume_and_area(iterations, target):
    labels = ball(12, (19.7, 20.2, 19.9), (40, 40, 40))
    data = surface_polydata(
        class_mesh(labels), labels.shape, 0.5, smoothing_iterations=iterations, target_triangles=target
    )
    volume, area = mass(data)
    # 1% is what may be lost to the eye's comfort; the facets of 2000 triangles alone take 0.3% of the volume.
    assert volume == pytest.approx(labels.sum() * 0.125, rel=0.01)
    assert area == pytest.approx(4 * np.pi * 36, rel=0.01)
    if target:
        assert data.GetNumberOfPolys() <= target


def test_surface_lies_around_its_voxels_and_normals_point_outwards():
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[3:10, 4:12, 5:30] = 1
    data = surface_polydata(class_mesh(labels), labels.shape, 0.5)
    left, right, bottom, top, back, front = data.GetBounds()
    # Voxel extents in the world: X = x h, Y = -y h, Z = -z h, half a voxel beyond the centres.
    extents = [4.5, 29.5, -11.5, -3.5, -9.5, -2.5]
    assert [left, right, bottom, top, back, front] == pytest.approx([0.5 * e for e in extents], abs=0.25)
    points, normals = points_of(data), arrays(data.GetPointData())["Normals"]
    centre = points.mean(axis=0)
    assert ((points - centre) * normals).sum(axis=1).min() > 0


def test_caps_are_flat_marked_and_inside_the_volume():
    labels = ball(9, (0, 15, 15), (20, 30, 30))
    data = surface_polydata(class_mesh(labels), labels.shape, 1.0)
    assert data.GetBounds()[5] == pytest.approx(0.5, abs=1e-5)  # the front of the volume: z = -0.5 px
    flat = arrays(data.GetCellData())["on_border"].astype(bool)
    from vtkmodules.util.numpy_support import vtk_to_numpy

    faces = vtk_to_numpy(data.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    points = points_of(data)
    a, b, c = (points[faces[:, i]] for i in range(3))
    areas = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    # A disk of radius 9; its rim is rounded over about half a voxel.
    assert areas[flat].sum() == pytest.approx(np.pi * 81, rel=0.15)
    assert areas[~flat].sum() == pytest.approx(2 * np.pi * 9 * 9.5, rel=0.1)


def test_file_reads_back_with_its_facts(tmp_path):
    labels = ball(5, (8, 8, 8), (17, 17, 17))
    data = surface_polydata(class_mesh(labels), labels.shape, 1.0)
    n = data.GetNumberOfPolys()
    write_vtp(tmp_path / "s.vtp", data, {"unit_of_length": "nm", "class_names": ["a", "γ"]})
    back = read_polydata(tmp_path / "s.vtp")
    assert back.GetNumberOfPolys() == n
    np.testing.assert_array_equal(points_of(back), points_of(data))
    names = back.GetFieldData().GetAbstractArray("class_names")
    assert [names.GetValue(i) for i in range(2)] == ["a", "γ"]


@pytest.mark.parametrize("n", [0, 1, 7])
def test_points_carry_their_columns(tmp_path, n):
    rng = np.random.default_rng(0)
    places = rng.random((n, 3)) * 50
    columns = {"id": np.arange(n, dtype=np.int32), "diameter_nm": rng.random(n), "touches_border": rng.random(n) > 0.5}
    write_vtp(tmp_path / "p.vtp", points_polydata(places, 0.5, columns))
    back = read_polydata(tmp_path / "p.vtp")
    assert back.GetNumberOfPoints() == back.GetNumberOfVerts() == n
    if n:
        np.testing.assert_allclose(points_of(back), places[:, ::-1] * [0.5, -0.5, -0.5], rtol=1e-6)
        found = arrays(back.GetPointData())
        for name, column in columns.items():
            np.testing.assert_array_equal(found[name], column)


def test_folder_that_is_not_there(tmp_path, capfd):
    with pytest.raises(StageFailed, match=r"s\.vtp"):
        write_vtp(tmp_path / "nowhere" / "s.vtp", points_polydata(np.zeros((1, 3)), 1.0, {}))
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="a Linux device that is always full")
def test_a_full_disk_is_told_as_such(tmp_path, capfd):
    full = tmp_path / "full.vtp"
    full.symlink_to("/dev/full")  # VTK removes what it could not write: the link, and not the device
    with pytest.raises(OSError, match="No space left"):
        write_vtp(full, points_polydata(np.zeros((1000, 3)), 1.0, {}))
    assert capfd.readouterr().err == ""


def test_points_carry_whatever_columns_there_are(tmp_path):
    points_px = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    columns = {
        "id": np.array([1, 2], "i4"),
        "inside_pore": np.array([True, False]),
        "facet": np.array(["{111}", "γ"]),
        "code": np.array([b"a", b"b"]),
        "half": np.array([0.5, 0.25], "f2"),
        "swapped": np.array([1.5, 2.5], ">f8"),
        "z_nm": np.array([0.0, 1.0]),
        "y_nm": np.array([0.0, 1.0]),
        "x_nm": np.array([0.0, 1.0]),
        "major_z": np.array([0.0, 0.6]),
        "major_y": np.array([0.0, 0.8]),
        "major_x": np.array([1.0, 0.0]),
    }
    write_vtp(tmp_path / "p.vtp", points_polydata(points_px, 0.5, columns))
    found = read_polydata(tmp_path / "p.vtp").GetPointData()
    assert found.GetNumberOfArrays() == len(columns) + 1
    assert [found.GetAbstractArray("facet").GetValue(i) for i in range(2)] == ["{111}", "γ"]
    assert [found.GetAbstractArray("code").GetValue(i) for i in range(2)] == ["a", "b"]
    assert [found.GetArray("inside_pore").GetValue(i) for i in range(2)] == [1, 0]
    assert [found.GetArray("half").GetValue(i) for i in range(2)] == [0.5, 0.25]
    assert [found.GetArray("swapped").GetValue(i) for i in range(2)] == [1.5, 2.5]
    # Along the axes of the file: X = x, Y = -y, Z = -z.
    assert found.GetArray("major").GetTuple3(0) == pytest.approx((1, 0, 0))
    assert found.GetArray("major").GetTuple3(1) == pytest.approx((0, -0.8, -0.6))


def test_directions_turn_as_points_do():
    # A vector from one point to another must point from the one to the other in the file too.
    points_px = np.array([[1.0, 2.0, 3.0], [4.0, 7.0, 5.0]])
    step = points_px[1] - points_px[0]
    columns = {f"major_{axis}": np.full(2, value) for axis, value in zip("zyx", step, strict=True)}
    data = points_polydata(points_px, 1.0, columns)
    moved = np.subtract(data.GetPoint(1), data.GetPoint(0))
    assert data.GetPointData().GetArray("major").GetTuple3(0) == pytest.approx(moved)
