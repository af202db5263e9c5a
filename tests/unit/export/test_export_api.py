"""The function `export` writes what the stage writes, says what the command says, and takes what a notebook has."""

import doctest
import inspect
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.stages.test_export_stage import exported, labelled, measured
from tomoseg.errors import InputError, TomosegWarning
from tomoseg.export.api import ExportedFiles, export
from tomoseg.export.context import AlignmentRecord
from tomoseg.export.manifest import MANIFEST
from tomoseg.export.parameters import ExportParameters

LABELS = labelled()
VOLUME = (LABELS * 2.5).astype(np.float32)


def contents(folder):
    """Return the bytes of every file but the manifest, which holds times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def as_arguments(inputs):
    """Return what the stage reads as one has it in a notebook."""
    axis = inputs["alignment_info"].attrs
    return {
        "volume": inputs["volume"].array,
        "labels": inputs["labels"].array,
        "voxel_size_nm": inputs["labels"].attrs["voxel_size_nm"],
        "class_names": inputs["labels"].attrs["class_names"],
        "tables": {
            "classes": inputs["class_table"].array,
            "particles": inputs["particle_table"].array,
            "size_distribution": inputs["size_table"].array,
        },
        "records": {"tilt_series": inputs["tilt_series_info"].attrs},
        "alignment": AlignmentRecord(
            inputs["angles_deg"].array,
            inputs["shifts_px"].array,
            axis["tilt_axis_angle_deg"],
            axis["tilt_axis_offset_px"],
            inputs["aligned"].shape[1:],
            inputs["tilt_quality"].array["is_outlier"],
        ),
    }


@pytest.mark.parametrize("options", [{"formats": "all"}, {"smoothing_iterations": 3, "target_triangles": 100}])
def test_the_function_writes_what_the_stage_writes(tmp_path, options):
    inputs = measured()
    exported(inputs, tmp_path / "stage", **options)
    export(tmp_path / "function", **as_arguments(inputs), **options)
    by_stage = contents(tmp_path / "stage")
    assert len(by_stage) >= 16
    assert contents(tmp_path / "function") == by_stage


def test_the_result_lists_what_was_written(tmp_path):
    written = export(tmp_path / "out", VOLUME, LABELS, voxel_size_nm=0.5, formats=["mrc", "zarr"])
    assert isinstance(written, ExportedFiles)
    assert written.directory == tmp_path / "out"
    assert written.files == [tmp_path / "out" / name for name in ("labels.mrc", "volume.mrc", "volume.ome.zarr")]
    assert all(path.exists() for path in written.files)
    assert [entry["name"] for entry in written.entries] == [path.name for path in written.files]
    assert sum(note.startswith("wrote ") for note in written.notes) == 3
    assert written.warnings == []


def test_options_are_refused_with_the_words_of_the_command(tmp_path):
    with pytest.raises(InputError) as expected:
        ExportParameters.of("export", {"formats": ["povray"]})
    with pytest.raises(InputError) as error:
        export(tmp_path, VOLUME, LABELS, voxel_size_nm=0.5, formats=["povray"])
    assert str(error.value) == str(expected.value)
    with pytest.raises(InputError, match=r"export\.formats: paraview refers to files of vtp; add vtp"):
        export(tmp_path, VOLUME, LABELS, voxel_size_nm=0.5, formats=["paraview"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"export\.export_dir: .*file is a file; name a folder"):
        export(tmp_path / "file", VOLUME, LABELS, voxel_size_nm=0.5)


@pytest.mark.parametrize(
    ("volume", "labels", "names", "message"),
    [
        (VOLUME[0], LABELS, None, r"volume must be a non-empty array \(z, y, x\), and has shape \(30, 40\)"),
        (VOLUME, LABELS[:0], None, "labels must be a non-empty array"),
        (VOLUME[1:], LABELS, None, "same shape, and have .19, 30, 40. and .20, 30, 40."),
        (VOLUME, LABELS * 0.5, None, "labels must be integers from 0 to 255"),
        (VOLUME, LABELS.astype(np.int16) - 1, None, "labels must be integers from 0 to 255"),
        (VOLUME, LABELS, ["a", "b"], "class_names has 2 names, but the labels hold class 2"),
    ],
)
def test_arrays_that_cannot_be_exported_are_named(tmp_path, volume, labels, names, message):
    with pytest.raises(InputError, match=message):
        export(tmp_path, volume, labels, voxel_size_nm=0.5, class_names=names)
    assert list(tmp_path.iterdir()) == []


def test_arrays_of_other_types_are_converted(tmp_path):
    names, formats = ["background", "class_1", "class_2"], ["vti", "mrc", "tiff", "vtkhdf", "zarr", "vtp"]
    export(tmp_path / "as given", VOLUME, LABELS, voxel_size_nm=0.5, class_names=names, formats=formats)
    export(
        tmp_path / "converted",
        VOLUME.astype(np.float64).tolist(),
        LABELS.astype(np.int64),
        voxel_size_nm=0.5,
        formats=formats,
    )
    assert contents(tmp_path / "as given") == contents(tmp_path / "converted")


def test_a_handle_tells_names_colours_and_voxel_size(tmp_path):
    inputs = measured()
    colors = ["#000000", "#112233", "#445566", "#778899"]
    inputs["labels"].attrs = {**inputs["labels"].attrs, "class_colors": colors}
    export(tmp_path / "handle", inputs["volume"], inputs["labels"], formats="zarr,vtp")
    given = {"voxel_size_nm": 0.5, "class_names": inputs["labels"].attrs["class_names"], "class_colors": colors}
    export(tmp_path / "array", VOLUME, LABELS, **given, formats="zarr,vtp")
    assert contents(tmp_path / "handle") == contents(tmp_path / "array")


def test_tables_may_be_data_frames(tmp_path):
    pandas = pytest.importorskip("pandas")
    tables = as_arguments(measured())["tables"]
    frames = {name: pandas.DataFrame({c: table[c] for c in table.dtype.names}) for name, table in tables.items()}
    for name, given in (("arrays", tables), ("frames", frames)):
        export(tmp_path / name, VOLUME, LABELS, voxel_size_nm=0.5, tables=given, formats="csv,json,vtp")
    assert contents(tmp_path / "arrays") == contents(tmp_path / "frames")
    assert (tmp_path / "frames" / "particles.vtp").exists()


def test_results_of_other_functions_are_taken_as_they_are(tmp_path):
    inputs = measured()
    given = as_arguments(inputs)
    record, quality = given["alignment"], np.zeros(4, [("angle_deg", "f8"), ("magnification", "f8")])
    quality["angle_deg"], quality["magnification"] = record.angles_deg, [1, 1.01, 1, 0.99]
    aligned = SimpleNamespace(
        table=quality,
        shifts_px=record.shifts_px,
        tilt_axis_angle_deg=record.tilt_axis_angle_deg,
        tilt_axis_offset_px=record.tilt_axis_offset_px,
        aligned=inputs["aligned"].array,
        outliers=record.outliers,
        angles_deg=record.angles_deg,
    )
    corrected = replace(record, image_corrections={"magnification": quality["magnification"]})
    tables = {name: inputs[name].array for name in ("class_table", "particle_table", "size_table")}
    export(tmp_path / "results", **{**given, "alignment": aligned, "tables": tables})
    export(tmp_path / "named", **{**given, "alignment": corrected})
    assert contents(tmp_path / "results") == contents(tmp_path / "named")
    assert "1.01" in (tmp_path / "results" / "shifts.csv").read_text()


def test_without_tables_and_alignment_the_rest_is_written(tmp_path):
    written = export(tmp_path, VOLUME, LABELS, voxel_size_nm=0.5)
    assert {path.name for path in written.files} == {
        "volume.vti", "labels.vti", "labels.mrc", "volume.mrc", "summary.json", "all.vtm", "paraview_view.py",
        "surface_1_class_1.vtp", "surface_2_class_2.vtp",
    }  # fmt: skip
    assert "particles" not in (tmp_path / "all.vtm").read_text()


def test_an_unknown_voxel_size_is_a_warning(tmp_path):
    with pytest.warns(TomosegWarning, match="voxel size is unknown"):
        written = export(tmp_path, VOLUME, LABELS, formats="vti")
    assert len(written.warnings) == 1


def test_the_example_runs_and_every_option_is_documented():
    (example,) = doctest.DocTestFinder(recurse=False).find(export, "export", globs={})
    assert doctest.DocTestRunner().run(example).failed == 0
    assert len(example.examples) > 5
    for name in inspect.signature(export).parameters:
        assert f"\n{name} : " in export.__doc__
