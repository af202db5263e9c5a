"""`measure` as a function: what the stage writes, as pandas DataFrames."""

import doctest

import numpy as np
import pytest

from tests.unit.measurement.shapes import labelled
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError, TomosegWarning
from tomoseg.measurement import api
from tomoseg.measurement.api import measure
from tomoseg.runtime import Runtime
from tomoseg.stages.measure import STAGE

NAMES = ["background", "support", "Pt"]
ANGLES_DEG = np.arange(-60.0, 61, 2)
TABLES = {
    "class_table": "classes",
    "particle_table": "particles",
    "size_table": "size_distribution",
    "facet_table": "facets",
    "curvature_table": "curvature",
    "pore_table": "pores",
    "pore_size_table": "pore_sizes",
}


def volume_of(labels):
    return 5 * labels + np.random.default_rng(0).random(labels.shape, np.float32)


@pytest.fixture(scope="module")
def found():
    labels = labelled()
    labels[22:26, 5:12, 5:12] = 0  # a closed pore
    given = {"voxel_size_nm": 0.5, "class_names": NAMES, "angles_deg": ANGLES_DEG, "resolution_px": 2.5}
    return labels, measure(labels, volume_of(labels), **given, support_density_g_cm3="gamma-alumina")


def test_the_stage_writes_the_same_bits(found):
    labels, measured = found
    outputs, runtime = MemoryOutputs(), Runtime()
    STAGE.run(
        labels=MemoryInput(labels, {"class_names": NAMES, "voxel_size_nm": 0.5}),
        volume=MemoryInput(volume_of(labels)),
        angles_deg=MemoryInput(ANGLES_DEG),
        reconstruction_info=MemoryInput(attrs={"resolution_px": 2.5, "resolution_nm": 1.25}),
        params=STAGE.parameters(support_density_g_cm3="gamma-alumina"),
        runtime=runtime,
        outputs=outputs,
    )
    assert set(outputs.arrays) == {*TABLES, "orientation_map"}
    for name in TABLES:
        assert outputs.arrays[name].dtype == measured.tables[name].dtype
        assert outputs.arrays[name].tobytes() == measured.tables[name].tobytes(), name
    assert outputs.arrays["orientation_map"].tobytes() == measured.orientation_map.tobytes()
    np.testing.assert_equal(outputs.attrs["measurement_info"], measured.summary)  # where NaN is NaN
    np.testing.assert_equal(outputs.attrs["support_info"], measured.support)
    assert measured.notes == runtime.notes
    assert measured.warnings == runtime.warnings == []


def test_tables_are_data_frames_with_the_columns_stored(found):
    _, measured = found
    for name, attribute in TABLES.items():
        frame = getattr(measured, attribute)
        assert list(frame.columns) == list(measured.tables[name].dtype.names)
        assert len(frame) == len(measured.tables[name]) > 0
    assert measured.classes["name"].tolist() == NAMES
    assert measured.particles["diameter_nm"].is_monotonic_decreasing
    assert measured.particles["in_pore"].dtype == bool
    assert measured.pores["closed"].tolist() == [True]
    assert measured.orientation_map.shape == (2, 129, 129)
    assert measured.summary["missing_wedge_deg"] == 60
    assert measured.support["specific_area_m2_g"] > 0


def test_without_a_support_its_tables_are_empty():
    labels = (labelled() == 2).astype(np.uint8)
    measured = measure(labels, labels, voxel_size_nm=0.5)
    assert measured.classes["name"].tolist() == ["background", "object"]
    assert len(measured.pores) == len(measured.facets) == len(measured.curvature) == len(measured.pore_sizes) == 0
    assert "wall_area_nm2" in measured.pores
    assert measured.support == {}
    assert measured.orientation_map is None


def test_labels_of_any_whole_type_give_the_same():
    labels = labelled()
    volume = volume_of(labels)
    how = {"voxel_size_nm": 0.5, "measure_support": False}
    expected = measure(labels, volume, **how).tables["particle_table"].tobytes()
    for given in (labels.astype(np.int64), labels.tolist(), MemoryInput(labels), MemoryInput(labels.astype(">i2"))):
        assert measure(given, volume, **how).tables["particle_table"].tobytes() == expected


def test_default_names_are_those_of_the_segmentation():
    assert measure(labelled(), labelled(), voxel_size_nm=1.0, measure_support=False).classes["name"].tolist() == [
        "background", "support", "particles"
    ]  # fmt: skip


def test_what_needs_care_is_a_python_warning():
    with pytest.warns(TomosegWarning, match="the voxel size is unknown"):
        measured = measure(labelled(), labelled(), measure_support=False)
    assert measured.particles["diameter_nm"].isna().all()
    assert measured.particles["diameter_px"].notna().all()
    assert any("voxel size is unknown" in text for text in measured.warnings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"neck_ratio": 2}, "measure.neck_ratio: input should be less than 1, got 2"),
        ({"neck": 2}, "measure.neck: there is no such parameter"),
        ({"particle_class": "Au"}, "measure.particle_class: there is no class 'Au'"),
        ({"crystal_along_z": (0, 0, 1)}, "measure: crystal_along_z and crystal_along_x are given together"),
        ({"pore_closing_nm": 1e5}, r"measure.pore_closing_nm is 100000 nm: in this volume it can be at most 18 nm"),
    ],
)
def test_wrong_options_are_told_as_by_the_command(given, message):
    with pytest.raises(InputError, match=message):
        measure(labelled(), labelled(), voxel_size_nm=0.5, **given)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 4)), np.full((4, 4, 4), 255), np.full((4, 4, 4), -1)])
def test_labels_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match="whole numbers from 0 to 254"):
        measure(wrong, wrong)


def test_the_example_runs():
    (example,) = doctest.DocTestFinder(recurse=False).find(api.measure, "measure", globs={})
    assert doctest.DocTestRunner().run(example) == (0, 8)


def test_a_particle_that_is_a_large_part_of_the_sample_is_doubted():
    labels = np.zeros((40, 60, 40), np.uint8)
    labels[12:28, 5:45, 12:28] = 1
    labels[14:26, 46:56, 14:26] = 2  # a cap of heavier material, 12 % of the sample: an API warning would be an error
    measure(labels, labels, class_names=["vacuum", "support", "particles"], voxel_size_nm=1.0)
    labels[12:28, 30:45, 12:28] = 2  # and 3840 of 11,680 voxels
    with pytest.warns(TomosegWarning, match="makes up 33% of the sample"):
        measure(labels, labels, class_names=["vacuum", "support", "particles"], voxel_size_nm=1.0)
    alone = (labels == 2).astype(np.uint8)  # of particles alone, one may be the sample
    measure(alone, alone, class_names=["vacuum", "Pt"], voxel_size_nm=1.0)
