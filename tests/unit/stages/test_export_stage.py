import csv
import json

import mrcfile
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.runtime import Runtime
from tomoseg.stages import measure
from tomoseg.stages.export import STAGE, ExportParameters, surface_name

NAMES = ["background", "γ-Al₂O₃", "Pt", "absent"]
FILES = {
    "volume.vti",
    "labels.vti",
    "labels.mrc",
    "volume.mrc",
    "all.vtm",
    "paraview_view.py",
    "summary.json",
    "classes.csv",
    "particles.csv",
    "size_distribution.csv",
    "shifts.csv",
    "alignment.xf",
    "alignment.tlt",
    "particles.vtp",
    "surface_1_Al_O.vtp",
    "surface_2_Pt.vtp",
}
SHAPE = (20, 30, 40)


def labelled():
    """Return an asymmetric volume: a slab of support at the bottom and back, a particle near top, left and front."""
    z, y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[14:, 22:, :] = 1
    labels[(z - 6) ** 2 + (y - 7) ** 2 + (x - 8) ** 2 <= 16] = 2
    labels[(z - 12) ** 2 + (y - 10) ** 2 + (x - 30) ** 2 <= 9] = 2
    return labels


RAW = np.random.default_rng(5).normal(100, 30, (4, 24, 40)).astype(np.float32)


def alignment(raw=RAW, angle=84.0, offset=1.75):
    """Return an alignment as the stage leaves it: given shifts, a steep and off-centre axis."""
    from tomoseg.align.warp import aligned_shape, warp_image

    shifts = np.array([[1.5, -2.25], [0.0, 0.5], [-3.25, 4.0], [2.0, 1.0]])
    aligned = np.stack([warp_image(image, s, angle, offset) for image, s in zip(raw, shifts, strict=True)])
    assert aligned.shape[1:] == aligned_shape(raw.shape, angle)
    quality = np.zeros(4, [("angle_deg", "f8"), ("is_outlier", "u1")])
    quality["is_outlier"][2] = 1
    axis = {"tilt_axis_angle_deg": angle, "tilt_axis_offset_px": offset}
    return {
        "angles_deg": MemoryInput(np.array([-30.0, -0.1, 29.95, 60.0])),
        "shifts_px": MemoryInput(shifts),
        "alignment_info": MemoryInput(None, axis),
        "tilt_quality": MemoryInput(quality),
        "aligned": MemoryInput(aligned),
    }


@pytest.fixture(scope="module")
def inputs():
    labels = MemoryInput(labelled(), {"class_names": NAMES, "voxel_size_nm": 0.5})
    volume = MemoryInput((labelled() * 2.5).astype(np.float32), {"voxel_size_nm": 0.5})
    outputs = MemoryOutputs()
    measure.run(
        labels=labels,
        volume=volume,
        params=measure.MeasureParameters(particle_class="Pt"),
        runtime=Runtime(),
        outputs=outputs,
    )
    tables = {name: outputs.as_input(name) for name in ("class_table", "particle_table", "size_table")}
    info = MemoryInput(None, {"pixel_size_source": "told by --pixel-size", "source": "raw.mrc"})
    return {"volume": volume, "labels": labels, "tilt_series_info": info, **tables, **alignment()}


def exported(inputs, folder, runtime=None, **parameters):
    outputs, runtime = MemoryOutputs(), runtime or Runtime()
    params = ExportParameters(export_dir=str(folder), **parameters)
    STAGE.run(**inputs, params=params, runtime=runtime, outputs=outputs)
    return outputs.attrs["export_info"], runtime


@pytest.fixture(scope="module")
def export(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("there") / "sub" / "export"
    info, runtime = exported(inputs, folder)
    return folder, info, runtime


def test_reads_what_it_is_given():
    assert {a.name for a in STAGE.reads} == {
        "volume", "labels", "class_table", "particle_table", "size_table", "tilt_series_info",
        "angles_deg", "refined_angles_deg", "shifts_px", "alignment_info", "tilt_quality", "aligned",
        "reconstruction_info", "segmentation_info", "measurement_info", "support_info",
        "facet_table", "curvature_table", "pore_table", "pore_size_table",
    }  # fmt: skip


def test_files_are_written_listed_and_said(export):
    folder, info, runtime = export
    assert {p.name for p in folder.iterdir()} == FILES | {"tomoseg-export.json"}
    assert info["directory"] == str(folder)
    listed = json.loads(info["files"])
    assert {entry["name"] for entry in listed} == FILES
    for entry in listed:
        status = (folder / entry["name"]).stat()
        assert (entry["bytes"], entry["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
        assert any(str(folder / entry["name"]) in note for note in runtime.notes)
    assert STAGE.lost(info) == []
    assert not runtime.warnings


def polydata(path):
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def image(path):
    from vtkmodules.vtkIOXML import vtkXMLImageDataReader

    reader = vtkXMLImageDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def test_volume_labels_surfaces_and_points_share_the_upright_frame(export):
    folder, _, _ = export
    labels, volume = image(folder / "labels.vti"), image(folder / "volume.vti")
    assert labels.GetBounds() == volume.GetBounds() == (0, 19.5, -14.5, 0, -9.5, 0)
    # The centre of the large particle, (z, y, x) = (6, 7, 8) px of 0.5 nm.
    centre = (4.0, -3.5, -3.0)
    assert labels.GetPointData().GetScalars().GetTuple1(labels.FindPoint(centre)) == 2
    assert volume.GetPointData().GetScalars().GetTuple1(volume.FindPoint(centre)) == 5
    points = polydata(folder / "particles.vtp")
    assert points.GetNumberOfPoints() == 2
    assert points.GetPoint(0) == pytest.approx(centre, abs=1e-5)
    assert points.GetPointData().GetArray("diameter_nm").GetValue(0) == pytest.approx(4, rel=0.03)
    surface = polydata(folder / "surface_2_Pt.vtp").GetBounds()
    voxels = np.argwhere(labelled() == 2)
    for axis, (low, high) in zip("xyz", (surface[:2], surface[2:4], surface[4:]), strict=True):
        along = voxels[:, "zyx".index(axis)] * 0.5 * (1 if axis == "x" else -1)
        # Voxel extents within half a voxel.
        assert low == pytest.approx(along.min() - 0.25, abs=0.25)
        assert high == pytest.approx(along.max() + 0.25, abs=0.25)


def test_facts_travel_with_the_files(export):
    folder, _, _ = export
    for data in (
        image(folder / "volume.vti"),
        polydata(folder / "surface_2_Pt.vtp"),
        polydata(folder / "particles.vtp"),
    ):
        field = data.GetFieldData()
        assert field.GetAbstractArray("unit_of_length").GetValue(0) == "nm"
        assert field.GetAbstractArray("class_names").GetValue(1) == NAMES[1]


def test_mrc_and_csv(export, inputs):
    folder, _, _ = export
    with mrcfile.open(folder / "labels.mrc") as mrc:
        np.testing.assert_array_equal(mrc.data, labelled())
        assert mrc.voxel_size.x == pytest.approx(5.0)  # Å
    with (folder / "particles.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["volume_nm3"]) for r in rows] == inputs["particle_table"][:]["volume_nm3"].tolist()
    with (folder / "classes.csv").open(encoding="utf-8") as file:
        assert [r["name"] for r in csv.DictReader(file)] == NAMES


def transformed(image, line, out_shape):
    """Apply a line of an .xf as IMOD's manual pages define it, on rows counted upwards as they lie in the file.

    X' = A11 (X - Xci) + A12 (Y - Yci) + DX + Xco and so on; coordinates run from 0 at the left edge of the first pixel
    to the number of pixels at the right edge of the last one, so that pixel i has its centre at i + 0.5.
    """
    a11, a12, a21, a22, dx, dy = line
    inverse = np.linalg.inv([[a11, a12], [a21, a22]])
    rows, columns = np.indices(out_shape)
    x = columns + 0.5 - out_shape[1] / 2 - dx
    y = rows + 0.5 - out_shape[0] / 2 - dy
    xi = inverse[0, 0] * x + inverse[0, 1] * y + image.shape[1] / 2 - 0.5
    yi = inverse[1, 0] * x + inverse[1, 1] * y + image.shape[0] / 2 - 0.5
    return ndimage.map_coordinates(image, [yi, xi], order=3, mode="constant")


@pytest.mark.parametrize("source", ["raw.mrc", "raw.tif"])
@pytest.mark.parametrize(("angle", "offset"), [(84.0, 1.75), (-12.5, -3.5), (90.0, 0.0), (0.0, 2.25)])
def test_imod_makes_our_aligned_frame_of_the_xf(inputs, tmp_path, source, angle, offset):
    given = alignment(angle=angle, offset=offset)
    info = MemoryInput(None, {"pixel_size_source": "told", "source": source})
    exported({**inputs, **given, "tilt_series_info": info}, tmp_path, formats=("alignment",))
    lines = np.loadtxt(tmp_path / "alignment.xf")
    # IMOD turns a TIFF upside down as it reads it, and what it shows is then upside down to us.
    turn = slice(None, None, -1 if source == "raw.tif" else 1)
    for raw, line, expected in zip(RAW, lines, given["aligned"].array, strict=True):
        found = transformed(raw[turn], line, expected.shape)[turn]
        inside = (found != 0) & (expected != 0)
        assert inside.mean() > 0.5
        np.testing.assert_allclose(found[inside], expected[inside], atol=1e-2)  # f4 of counts of 100


def test_the_alignment_goes_out_and_comes_back(inputs, tmp_path):
    from tomoseg.align.warp import warp_image
    from tomoseg.io.shifts import fitted, read_shifts

    _, runtime = exported(inputs, tmp_path, formats=("alignment",))
    assert any("newstack -xform alignment.xf -size 24,40" in note for note in runtime.notes)
    with (tmp_path / "shifts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["outlier"] for row in rows] == ["false", "false", "true", "false"]
    angles = inputs["angles_deg"].array
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "alignment.tlt"), angles)
    table = fitted(read_shifts(tmp_path / "shifts.csv"), angles, RAW.shape[1:], 1.0)
    np.testing.assert_array_equal(table.shifts_px, inputs["shifts_px"].array)
    xf = fitted(read_shifts(tmp_path / "alignment.xf"), angles, RAW.shape[1:], 1.0)
    for raw, shift, expected in zip(RAW, xf.shifts_px, inputs["aligned"].array, strict=True):
        again = warp_image(raw, shift, xf.axis_angle_deg, xf.axis_offset_px)
        np.testing.assert_allclose(again, expected, atol=1e-2)


def test_rotation_and_magnification_of_single_images_go_out(inputs, tmp_path):
    from tomoseg.align.warp import Adjustments, warp_image

    found = Adjustments(np.array([0.4, -0.6, 0.2, 0.0]), np.array([1.01, 1.0, 0.985, 1.005]), np.zeros(4))
    quality = np.zeros(4, [(name, "f8") for name in ("rotation_deg", "magnification", "tilt_error_deg", "is_outlier")])
    quality["rotation_deg"], quality["magnification"] = found.rotation_deg, found.magnification
    quality["tilt_error_deg"] = [0.1, 0, 0, -0.1]
    shifts, info = inputs["shifts_px"].array, inputs["alignment_info"].attrs
    axis = (info["tilt_axis_angle_deg"], info["tilt_axis_offset_px"])
    refined = np.array([-29.9, -0.1, 29.95, 59.9])
    given = {"tilt_quality": MemoryInput(quality), "refined_angles_deg": MemoryInput(refined)}
    exported({**inputs, **given}, tmp_path, formats=("alignment",))
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "alignment.tlt"), refined)
    lines = np.loadtxt(tmp_path / "alignment.xf")
    for raw, shift, own, line in zip(RAW, shifts, found.matrices, lines, strict=True):
        expected = warp_image(raw, shift, *axis, own=own)
        imod = transformed(raw, line, expected.shape)
        inside = (imod != 0) & (expected != 0)
        assert inside.mean() > 0.5
        np.testing.assert_allclose(imod[inside], expected[inside], atol=1e-2)  # f4 of counts of 100
    with (tmp_path / "shifts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["magnification"]) for row in rows] == found.magnification.tolist()
    assert [float(row["angle_deg"]) for row in rows] == inputs["angles_deg"].array.tolist()


def test_again_replaces_its_own_files_and_nothing_else(inputs, tmp_path):
    exported(inputs, tmp_path)
    (tmp_path / "notes.txt").write_text("the user's")
    info, _ = exported(inputs, tmp_path)
    assert STAGE.lost(info) == []
    (tmp_path / "classes.csv").write_text("edited by hand")
    with pytest.raises(InputError, match=r"classes\.csv.*overwrite"):
        exported(inputs, tmp_path)
    assert (tmp_path / "classes.csv").read_text() == "edited by hand"
    assert STAGE.lost(info) == [f"{tmp_path / 'classes.csv'} was changed"]
    info, _ = exported(inputs, tmp_path, overwrite=True)
    assert STAGE.lost(info) == []
    assert (tmp_path / "notes.txt").read_text() == "the user's"


def test_nothing_is_written_where_others_files_are(inputs, tmp_path):
    (tmp_path / "volume.vti").write_text("from another program")
    with pytest.raises(InputError, match=r"volume\.vti"):
        exported(inputs, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["volume.vti"]


def test_fewer_formats_leave_the_others_and_say_so(inputs, tmp_path):
    exported(inputs, tmp_path)
    info, runtime = exported(inputs, tmp_path, formats=("csv",))
    assert {e["name"] for e in json.loads(info["files"])} == {"classes.csv", "particles.csv", "size_distribution.csv"}
    assert any("volume.vti" in note and "earlier" in note for note in runtime.notes)
    exported(inputs, tmp_path)  # what was left is still known as ours


def test_unknown_pixel_size_is_said_in_the_files(inputs, tmp_path):
    attrs = {**inputs["labels"].attrs, "voxel_size_nm": np.nan}
    changed = {**inputs, "labels": MemoryInput(labelled(), attrs)}
    _, runtime = exported(changed, tmp_path)
    assert any("voxel size is unknown" in text for text in runtime.warnings)
    labels = image(tmp_path / "labels.vti")
    assert labels.GetSpacing() == (1, 1, 1)
    assert "unknown" in labels.GetFieldData().GetAbstractArray("unit_of_length").GetValue(0)


def test_little_memory_gives_the_same_files(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("tomoseg.measure.blocks.SIDE_PX", 8)
    exported(inputs, tmp_path / "much")
    exported(inputs, tmp_path / "little", runtime=Runtime(max_memory=4_500_000))  # one row of blocks at a time
    for name in FILES:
        assert (tmp_path / "much" / name).read_bytes() == (tmp_path / "little" / name).read_bytes()


def test_surface_that_does_not_fit_is_refused(inputs, tmp_path):
    little = Runtime(max_memory=200_000)
    with pytest.raises(StageFailed, match=r"surface of .*--max-memory.*export\.target_triangles"):
        exported(inputs, tmp_path, runtime=little, formats=("vtp",))
    exported(inputs, tmp_path / "other", runtime=little, formats=("vti", "mrc", "csv"))


def test_large_surfaces_are_made_coarser_and_it_is_said(inputs, tmp_path):
    _, runtime = exported(inputs, tmp_path, formats=("vtp",), target_triangles=100)
    assert any("cells of" in note for note in runtime.notes)
    assert polydata(tmp_path / "surface_2_Pt.vtp").GetNumberOfPolys() <= 100


def test_nothing_but_background(inputs, tmp_path):
    labels = MemoryInput(np.zeros(SHAPE, np.uint8), inputs["labels"].attrs)
    empty = {n: MemoryInput(inputs[n][:][:0]) for n in ("particle_table", "size_table")}
    info, _ = exported({**inputs, "labels": labels, **empty}, tmp_path)
    assert {e["name"] for e in json.loads(info["files"])} == {f for f in FILES if not f.startswith("surface")}


def test_folder_that_cannot_be(inputs, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "sub"):
        problems = STAGE.check(ExportParameters(export_dir=str(folder)))
        assert len(problems) == 1
        assert "is a file" in problems[0]
        with pytest.raises(InputError, match="is a file"):
            exported(inputs, folder)
    assert STAGE.check(ExportParameters(export_dir=str(tmp_path / "new" / "sub"))) == []
    assert STAGE.check(ExportParameters()) == []


def test_full_disk_is_said_before_writing(inputs, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(10, 10, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(StageFailed, match="1 kB of free space"):
        exported(inputs, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_of_surfaces():
    assert surface_name(2, "Pt") == "surface_2_Pt.vtp"
    assert surface_name(1, "../a b/c") == "surface_1_a_b_c.vtp"
    assert surface_name(3, "??") == "surface_3_class.vtp"


@pytest.mark.parametrize("bad", [{"formats": []}, {"formats": ["povray"]}, {"smoothing_iterations": -1}, {"y": 1}])
def test_bad_parameters(bad):
    with pytest.raises(ValidationError):
        ExportParameters(**bad)


def test_scattered_voxels_have_no_surface_and_it_is_said(inputs, tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:12, 5:20, 5:20] = 1
    labels[2, 3, 4] = labels[15, 25, 35] = 2
    given = {**inputs, "labels": MemoryInput(labels, {"class_names": NAMES[:3], "voxel_size_nm": 0.5})}
    info, runtime = exported(given, tmp_path / "out")
    names = {file["name"] for file in json.loads(info["files"])}
    assert surface_name(1, NAMES[1]) in names
    assert surface_name(2, "Pt") not in names
    assert any("Pt" in note and "no surface" in note for note in runtime.notes)
