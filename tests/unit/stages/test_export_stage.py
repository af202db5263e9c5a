import csv
import json
import sys

import mrcfile
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.export.context import surface_stem
from tomoseg.export.parameters import ALL_FORMATS, ExportParameters
from tomoseg.runtime import Runtime
from tomoseg.stages import measure
from tomoseg.stages.export import STAGE

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
    from tomoseg.alignment.images.warp import aligned_shape, warp_image

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


def measured():
    """Return what the stage reads, by name."""
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


@pytest.fixture(scope="module")
def inputs():
    return measured()


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
        "volume", "signal_volumes", "labels", "class_table", "particle_table", "size_table", "tilt_series_info",
        "angles_deg", "refined_angles_deg", "shifts_px", "alignment_info", "tilt_quality", "layer_table", "aligned",
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
    from tomoseg.alignment.images.warp import warp_image
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
    from tomoseg.alignment.images.warp import correction_matrices, warp_image
    from tomoseg.io.shifts import ImageCorrections

    found = ImageCorrections(np.array([0.4, -0.6, 0.2, 0.0]), np.array([1.01, 1.0, 0.985, 1.005]), np.zeros(4))
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
    for raw, shift, matrix, line in zip(RAW, shifts, correction_matrices(found), lines, strict=True):
        expected = warp_image(raw, shift, *axis, correction=matrix)
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
    monkeypatch.setattr("tomoseg.measurement.common.blocks.SIDE_PX", 8)
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
    assert surface_stem(2, "Pt") == "surface_2_Pt"
    assert surface_stem(1, "../a b/c") == "surface_1_a_b_c"
    assert surface_stem(3, "??") == "surface_3_class"


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
    assert "surface_1_Al_O.vtp" in names
    assert "surface_2_Pt.vtp" not in names
    assert any("Pt" in note and "no surface" in note for note in runtime.notes)


def test_all_is_every_format():
    assert ExportParameters(formats="all").formats == ALL_FORMATS
    assert ExportParameters(formats=["csv", "all"]).formats == ALL_FORMATS
    assert "zarr" not in ExportParameters().formats


@pytest.mark.parametrize(("formats", "missing"), [("multiblock,csv", "vti"), ("paraview,stl", "vtp")])
def test_what_refers_to_other_files_needs_them(inputs, tmp_path, formats, missing):
    (problem,) = STAGE.check(ExportParameters(formats=formats))
    assert problem.startswith("export.formats")
    assert problem.endswith((f"add {missing}", "add one of them"))
    with pytest.raises(InputError, match=missing):
        exported(inputs, tmp_path, formats=formats)
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_said_before_anything_is_written(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("tomoseg.export.api.BIG_FILE_BYTES", 1)
    _, runtime = exported(inputs, tmp_path, formats="all")
    first_written = next(i for i, note in enumerate(runtime.notes) if note.startswith("wrote"))
    said = runtime.notes[:first_written]
    for name in ("volume.vti", "volume.vtkhdf", "volume.mrc", "volume.ome.tif", "volume.ome.zarr", "surfaces.glb"):
        assert sum(note.startswith(f"{name} will take about ") for note in said) == 1
    assert "volume.mrc will take about 96 kB" in said  # 20 x 30 x 40 x 4 bytes
    assert any("in all; " in note and "are free" in note for note in said)


def test_what_is_said_is_near_what_is_written(inputs, tmp_path, monkeypatch):
    # A volume that shrinks by compression as reconstructions do, and labels.
    rng = np.random.default_rng(2)
    z, y, x = np.indices((64, 128, 192))
    labels = ((z - 30) ** 2 + (y - 60) ** 2 + (x - 90) ** 2 < 25**2).astype(np.uint8)
    volume = (labels * 100 + rng.normal(0, 5, labels.shape)).astype(np.float32)
    attrs = {"class_names": NAMES[:2], "voxel_size_nm": 0.5}
    given = {**inputs, "labels": MemoryInput(labels, attrs), "volume": MemoryInput(volume)}
    monkeypatch.setattr("tomoseg.export.api.BIG_FILE_BYTES", 1)
    info, runtime = exported(given, tmp_path, formats="all")
    written = {file["name"]: file["bytes"] for file in json.loads(info["files"])}
    said = [note.split(" will take about ") for note in runtime.notes if " will take about " in note]
    units = {"bytes": 1, "kB": 1e3, "MB": 1e6}
    expected = {name: float(size.split()[0]) * units[size.split()[1]] for name, size in said if name in written}
    assert len(expected) == 13  # volume and labels in four formats and both in OME-Zarr, a surface in four
    for name, size in expected.items():
        if written[name] > 100_000:
            # Never much less than it takes; a surface has half the triangles that its voxel faces could give.
            assert 0.9 * written[name] < size < 3.5 * written[name], (name, size, written[name])


def test_each_format_counts_for_the_space_on_the_disk(inputs, tmp_path, monkeypatch):
    from collections import namedtuple

    def free(n_bytes):
        monkeypatch.setattr("shutil.disk_usage", lambda _: namedtuple("usage", "total used free")(0, 0, n_bytes))

    raw = 20 * 30 * 40 * 5
    free(raw + 1)
    exported(inputs, tmp_path / "enough", formats="mrc")
    for formats in ("mrc,vti", "mrc,vtkhdf", "mrc,tiff", "mrc,zarr", "mrc,stl"):
        with pytest.raises(StageFailed, match=r"of free space, and the files need .*fewer formats"):
            exported(inputs, tmp_path / "little", formats=formats)
    assert list((tmp_path / "little").iterdir()) == []


WRITERS = {
    "vtkhdf": ("tomoseg.export.formats.vtkhdf.write_vtkhdf", "volume.vtkhdf"),
    "tiff": ("tomoseg.export.formats.tiff.write_ome_tiff", "volume.ome.tif"),
    "zarr": ("tomoseg.export.formats.zarr.write_ome_zarr", "volume.ome.zarr"),
    "stl": ("tomoseg.export.formats.stl.write_stl", "surface_1_Al_O.stl"),
    "ply": ("tomoseg.export.formats.ply.write_ply", "surface_1_Al_O.ply"),
    "gltf": ("tomoseg.export.formats.gltf.Scene.write", "surfaces.glb"),
    "parquet": ("tomoseg.export.formats.parquet.write_parquet", "classes.parquet"),
    "json": ("tomoseg.export.formats.json.write_json", "summary.json"),
}


@pytest.mark.parametrize("format_", WRITERS)
def test_a_writer_that_fails_leaves_no_file_of_its_own(inputs, tmp_path, monkeypatch, format_):
    import errno

    where, name = WRITERS[format_]

    def full(*arguments, **_):
        path = arguments[1] if format_ == "gltf" else arguments[0]
        (path / "half" if path.is_dir() else path).write_text("half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(StageFailed, match=r"No space left on device.*run export again"):
            exported(inputs, tmp_path, formats=format_)
    assert not (tmp_path / name).exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []
    exported(inputs, tmp_path, formats=format_)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("format_", ["vtkhdf", "tiff"])
def test_a_writer_interrupted_midway_leaves_no_file(inputs, tmp_path, format_):
    class Breaks(MemoryInput):
        def __getitem__(self, key):
            if isinstance(key, tuple) or key.start > 0:
                raise KeyboardInterrupt
            return super().__getitem__(key)

    given = {**inputs, "volume": Breaks(inputs["volume"][:])}
    with pytest.raises(KeyboardInterrupt):
        exported(given, tmp_path, runtime=Runtime(max_memory=40_000), formats=format_)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_else_is_not_replaced(inputs, tmp_path):
    (tmp_path / "volume.ome.zarr").mkdir()
    (tmp_path / "volume.ome.zarr" / "notes").write_text("the user's")
    with pytest.raises(InputError, match=r"volume\.ome\.zarr.*overwrite"):
        exported(inputs, tmp_path, formats="zarr")
    assert (tmp_path / "volume.ome.zarr" / "notes").read_text() == "the user's"
    info, _ = exported(inputs, tmp_path, formats="zarr", overwrite=True)
    assert STAGE.lost(info) == []
    info, _ = exported(inputs, tmp_path, formats="zarr")  # our own may be replaced
    (tmp_path / "volume.ome.zarr" / "0" / "zarr.json").write_text("{}")
    assert len(STAGE.lost(info)) == 1
    with pytest.raises(InputError, match=r"volume\.ome\.zarr"):
        exported(inputs, tmp_path, formats="zarr")


def test_again_gives_the_same_files_to_the_bit(inputs, tmp_path):
    for folder in ("one", "two"):
        exported(inputs, tmp_path / folder, formats="all")
    first = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(first) > 30
    for name in first:
        if name.name != "tomoseg-export.json":  # it holds the times
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_every_table_there_is_goes_out(inputs, tmp_path):
    tables = {"facet_table": "facets", "curvature_table": "curvature", "pore_table": "pores"}
    tables["pore_size_table"] = "pore_sizes"
    given = {key: MemoryInput(np.array([(i, 0.5)], [("id", "i4"), ("a_nm", "f8")])) for i, key in enumerate(tables)}
    support = MemoryInput(None, {"area_nm2": 12.5, "density_g_per_cm3": np.nan})
    info, _ = exported({**inputs, **given, "support_info": support}, tmp_path, formats="csv,parquet,json")
    names = {file["name"] for file in json.loads(info["files"])}
    assert names == {
        *(
            f"{t}.{e}"
            for t in (*tables.values(), "classes", "particles", "size_distribution")
            for e in ("csv", "parquet")
        ),
        "summary.json",
    }
    for i, name in enumerate(tables.values()):
        assert (tmp_path / f"{name}.csv").read_text() == f"id,a_nm\n{i},0.5\n"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["support"] == {"area_nm2": 12.5, "density_g_per_cm3": None}
    assert set(summary["tables"]) == {"classes", "size_distribution", "facets", "curvature", "pore_sizes"}


# What a pyarrow may do when it is imported, by the reason that is told.
BROKEN = {
    "No module named 'pyarrow'": "raise ModuleNotFoundError(\"No module named 'pyarrow'\")",
    "numpy.core.multiarray failed to import": "raise ImportError('numpy.core.multiarray failed to import\\nand more')",
    "_ARRAY_API not found": "import sys; sys.stderr.write('pages'); raise AttributeError('_ARRAY_API not found')",
    "numpy.dtype size changed": "raise ValueError('numpy.dtype size changed')",
    "RuntimeError": "raise RuntimeError",
}


@pytest.fixture(params=BROKEN)
def without_pyarrow(request, monkeypatch, tmp_path_factory):
    """Put a pyarrow first that cannot be loaded; returns the reason to be told."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "pyarrow").mkdir()
    (folder / "pyarrow" / "__init__.py").write_text(BROKEN[request.param])
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    return request.param


@pytest.mark.parametrize(("numpy", "package"), [("1.26.4", "'pyarrow<26'"), ("2.4.6", "--upgrade pyarrow")])
def test_without_pyarrow_the_other_formats_are_written(
    inputs, tmp_path, monkeypatch, capsys, without_pyarrow, numpy, package
):
    monkeypatch.setattr(np, "__version__", numpy)
    info, runtime = exported(inputs, tmp_path, formats="csv,parquet,json")
    names = {file["name"] for file in json.loads(info["files"])}
    assert names == {"classes.csv", "particles.csv", "size_distribution.csv", "summary.json"}
    assert runtime.warnings == [
        f"parquet needs pyarrow, which cannot be loaded ({without_pyarrow}): pip install {package}, and export again; "
        "the other formats are written"
    ]
    assert "pages" not in capsys.readouterr().err


def test_without_pyarrow_parquet_alone_is_refused_before_anything_is_done(inputs, tmp_path, without_pyarrow):
    params = ExportParameters(export_dir=str(tmp_path / "new"), formats="parquet")
    (problem,) = STAGE.check(params)
    assert problem.startswith(f"export.formats: parquet needs pyarrow, which cannot be loaded ({without_pyarrow})")
    assert problem.endswith(", or choose other formats")
    with pytest.raises(InputError, match=r"parquet needs pyarrow"):
        exported(inputs, tmp_path / "new", formats="parquet")
    assert not (tmp_path / "new").exists()
    assert STAGE.check(ExportParameters(formats="csv,parquet")) == []


def test_pyarrow_is_asked_for_parquet_only(inputs, tmp_path, without_pyarrow):
    _, runtime = exported(inputs, tmp_path, formats="csv,json")
    assert runtime.warnings == []
    assert STAGE.check(ExportParameters()) == []


def test_the_class_that_was_counted_is_solid(inputs, tmp_path):
    given = {**inputs, "measurement_info": MemoryInput(None, {"particle_class": NAMES[1]})}
    exported(given, tmp_path, formats="vtp,paraview")
    lines = (tmp_path / "paraview_view.py").read_text().split("SURFACES = ")[1].split("POINTS")[0]
    colors = {surface["file"]: (surface["color"], surface["opacity"]) for surface in json.loads(lines)}
    assert colors["surface_1_Al_O.vtp"] == ("#9a9a9a", 1.0)  # the colour of its class, as everywhere
    assert colors["surface_2_Pt.vtp"][1] < 0.5


def with_a_pore():
    labels = labelled()
    labels[15:19, 24:28, 10:20] = 0  # in the slab of support
    return MemoryInput(labels, {"class_names": NAMES, "voxel_size_nm": 0.5})


def test_closed_pores_are_a_surface(inputs, tmp_path):
    info, _ = exported({**inputs, "labels": with_a_pore()}, tmp_path, formats="vtp,paraview,multiblock")
    assert "surface_pores.vtp" in {file["name"] for file in json.loads(info["files"])}
    left, right, bottom, top, back, front = polydata(tmp_path / "surface_pores.vtp").GetBounds()
    # Voxels 10 to 19 along x, 24 to 27 along y, 15 to 18 along z, of 0.5 nm; edges are rounded.
    assert (left, right) == pytest.approx((9.5 * 0.5, 19.5 * 0.5), abs=0.2)
    assert (bottom, top) == pytest.approx((-27.5 * 0.5, -23.5 * 0.5), abs=0.2)
    assert (back, front) == pytest.approx((-18.5 * 0.5, -14.5 * 0.5), abs=0.2)
    assert "surface_pores.vtp" in (tmp_path / "all.vtm").read_text()
    assert "surface_pores.vtp" in (tmp_path / "paraview_view.py").read_text()


def test_pores_that_do_not_fit_are_left_out_and_it_is_said(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("tomoseg.export.meshing.PORE_BYTES_PER_VOXEL", 10**9)
    info, runtime = exported({**inputs, "labels": with_a_pore()}, tmp_path, formats="vtp")
    names = {file["name"] for file in json.loads(info["files"])}
    assert "surface_pores.vtp" not in names
    assert "surface_2_Pt.vtp" in names
    assert any("closed pores: it does not fit" in note for note in runtime.notes)
