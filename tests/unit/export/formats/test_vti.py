import numpy as np
import pytest

from tomoseg.export.formats.vti import write_vti


def read_image(path):
    """Read with VTK itself; any complaint of the reader is an error."""
    from vtkmodules.vtkIOXML import vtkXMLImageDataReader

    complaints = []
    reader = vtkXMLImageDataReader()
    reader.AddObserver("ErrorEvent", lambda *_: complaints.append("error"))
    reader.AddObserver("WarningEvent", lambda *_: complaints.append("warning"))
    reader.SetFileName(str(path))
    reader.Update()
    assert not complaints
    return reader.GetOutput()


def values_at(image, points):
    """Return the values of the image nearest to world points (X, Y, Z)."""
    scalars = image.GetPointData().GetScalars()
    return [scalars.GetTuple1(image.FindPoint(point)) for point in points]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "f4", ">f4", "i2"])
def test_every_voxel_is_where_it_belongs(tmp_path, dtype, compress):
    data = np.random.default_rng(0).integers(0, 100, (4, 5, 6)).astype(dtype)
    path = tmp_path / "v.vti"
    write_vti(path, data, 0.5, "volume", compress=compress)
    image = read_image(path)
    assert image.GetDimensions() == (6, 5, 4)
    assert image.GetSpacing() == (0.5, 0.5, 0.5)
    assert image.GetPointData().GetScalars().GetName() == "volume"
    z, y, x = np.indices(data.shape)
    points = zip((0.5 * x).ravel(), (-0.5 * y).ravel(), (-0.5 * z).ravel(), strict=True)
    assert values_at(image, points) == data.ravel().tolist()


def test_top_left_front_stays_there(tmp_path):
    # As ParaView opens a file: seen along -Z with Y up and X to the right. Displayed by us: y down, z into the screen.
    data = np.zeros((10, 20, 30), np.float32)
    data[1, 2, 3] = 1  # near the front, the top, the left
    path = tmp_path / "v.vti"
    write_vti(path, data, 2.0, "volume")
    image = read_image(path)
    bounds = image.GetBounds()
    where = image.GetPoint(int(np.argmax([image.GetPointData().GetScalars().GetTuple1(i) for i in range(6000)])))
    assert where == (6.0, -4.0, -2.0)
    left, right, bottom, top, back, front = bounds
    assert where[0] - left < right - where[0]
    assert top - where[1] < where[1] - bottom
    assert front - where[2] < where[2] - back


def test_slabs_of_one_plane_give_the_same_file(tmp_path):
    data = np.random.default_rng(0).random((7, 5, 6)).astype(np.float32)
    write_vti(tmp_path / "one.vti", data, 1.0, "volume")
    shown = []

    def track(pieces, what):
        shown.append((len(pieces), what))
        return pieces

    write_vti(tmp_path / "many.vti", data, 1.0, "volume", slab_bytes=1, track=track)
    assert shown == [(7, "writing volume")]
    assert (tmp_path / "one.vti").read_bytes() == (tmp_path / "many.vti").read_bytes()


def test_facts_in_any_script(tmp_path):
    path = tmp_path / "v.vti"
    facts = {"unit_of_length": "nm", "class_names": ["pores", "γ-Al₂O₃ & <Pt>"]}
    write_vti(path, np.zeros((2, 3, 4), np.uint8), 1.0, 'odd "name" & <tags>', facts=facts)
    image = read_image(path)
    field = image.GetFieldData()
    assert field.GetAbstractArray("unit_of_length").GetValue(0) == "nm"
    names = field.GetAbstractArray("class_names")
    assert [names.GetValue(i) for i in range(names.GetNumberOfValues())] == facts["class_names"]
    assert image.GetPointData().GetScalars().GetName() == 'odd "name" & <tags>'


def test_one_plane_and_compressed_labels_are_small(tmp_path):
    write_vti(tmp_path / "plane.vti", np.ones((1, 3, 4), np.uint8), 1.0, "labels", compress=True)
    assert read_image(tmp_path / "plane.vti").GetDimensions() == (4, 3, 1)
    write_vti(tmp_path / "labels.vti", np.ones((30, 100, 100), np.uint8), 1.0, "labels", compress=True)
    assert (tmp_path / "labels.vti").stat().st_size < 10_000
