import numpy as np
import pytest
from pydantic import ValidationError

from tests.unit.measurement.shapes import SPHERES, labelled
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.runtime import Runtime
from tomoseg.stages.measure import STAGE, MeasureParameters

NAMES = ["background", "support", "Pt"]


def measured(labels, names=NAMES, voxel_size_nm=0.5, runtime=None, volume=None, reads=None, **parameters):
    outputs, runtime = MemoryOutputs(), runtime or Runtime()
    STAGE.run(
        **(reads or {}),
        labels=MemoryInput(labels, {"class_names": names, "voxel_size_nm": voxel_size_nm}),
        volume=MemoryInput((10.0 + labels).astype(np.float32) if volume is None else volume),
        params=MeasureParameters(**parameters),
        runtime=runtime,
        outputs=outputs,
    )
    assert {"class_table", "particle_table", "size_table"} <= set(outputs.arrays)
    return outputs, runtime


def test_everything_is_measured():
    labels = labelled()
    outputs, runtime = measured(labels)
    info, table = outputs.attrs["measurement_info"], outputs.arrays["particle_table"]
    assert info["particle_class"] == "Pt"
    assert (info["n_particles"], info["n_touching_border"], info["n_in_size_statistics"]) == (6, 1, 5)
    assert info["n_excluded_small"] == 1
    by_size = sorted(SPHERES[:5], key=lambda s: -s[1])
    whole = table[~table["touches_border"]]
    for row, (centre, radius) in zip(whole, by_size, strict=True):
        # A digital sphere of 4.5 px or more scatters by 1% in volume, its centroid by 0.05 px.
        assert row["diameter_nm"] == pytest.approx(2 * radius * 0.5, rel=0.01)
        assert [row["z_nm"], row["y_nm"], row["x_nm"]] == pytest.approx([0.5 * c for c in centre], abs=0.05)
        assert row["surface_area_nm2"] == pytest.approx(4 * np.pi * (0.5 * radius) ** 2, rel=0.03)
    assert table["mean_intensity"] == pytest.approx(12)
    np.testing.assert_allclose(table["integrated_intensity"], 12 * table["voxels"])
    assert info["mean_diameter_nm"] == pytest.approx(whole["diameter_nm"].mean())
    d = whole["diameter_nm"]
    assert info["d32_nm"] == pytest.approx((d**3).sum() / (d**2).sum())
    assert d.min() <= info["mean_diameter_ci95_low_nm"] < info["mean_diameter_nm"]
    assert info["mean_diameter_nm"] < info["mean_diameter_ci95_high_nm"] <= d.max()
    # Half a voxel of 0.5 nm on either side.
    assert info["mean_diameter_half_voxel_nm"] == pytest.approx(0.5, rel=0.03)
    larger = whole["diameter_px"] + 1
    change = (larger**3).sum() / (larger**2).sum() - info["d32_px"]
    assert info["d32_half_voxel_px"] == pytest.approx(change, rel=0.03)
    # The one of 8 px lies in the plate, whose faces at 19.5 and 27.5 are 4.5 and 3.5 px from its centre: 8 of 16 px.
    largest = whole[0]
    assert largest["contact_fraction"] == pytest.approx(0.5, abs=0.03)
    assert largest["contact_area_nm2"] == pytest.approx(largest["contact_fraction"] * largest["surface_area_nm2"])
    assert table["contact_fraction"].min() < 0.05
    places = np.stack([table[f"{a}_px"] for a in "zyx"], axis=1)
    apart = np.linalg.norm(places[:, None] - places, axis=2)
    apart -= (table["diameter_px"][:, None] + table["diameter_px"]) / 2
    np.fill_diagonal(apart, np.inf)
    inner = ~table["touches_border"]
    np.testing.assert_allclose(table["neighbour_gap_px"][inner], apart.min(axis=1)[inner], atol=0.6)
    assert not table["elongated_along_beam"].any()
    assert np.isnan(info["missing_wedge_deg"])
    assert outputs.arrays["size_table"]["count"].sum() == 5
    classes = outputs.arrays["class_table"]
    assert classes["voxels"].tolist() == np.bincount(labels.ravel()).tolist()
    assert classes["volume_fraction"].sum() == pytest.approx(1)
    assert any("not counted: 1 object of fewer than 27 voxels" in note for note in runtime.notes)
    assert any("left out of the size statistics" in note for note in runtime.notes)
    assert not runtime.warnings


def test_object_that_cannot_be_cut_in_the_memory_is_refused():
    little = Runtime(
        max_memory=80_000
    )  # 24 bytes for each of the 2000 voxels of the largest are 50 kB, and as much again
    with pytest.raises(StageFailed, match=r"--max-memory.*separate_touching=false"):
        measured(labelled(), runtime=little)
    whole, _ = measured(labelled(), runtime=little, separate_touching=False)
    assert len(whole.arrays["particle_table"]) == 6


def test_touching_particles():
    z, y, x = np.indices((30, 30, 50))
    labels = np.zeros((30, 30, 50), np.uint8)
    for cx in (15, 31):  # 1.6 radii apart
        labels[(z - 15) ** 2 + (y - 15) ** 2 + (x - cx) ** 2 <= 100] = 1
    outputs, runtime = measured(labels, ["background", "Pt"])
    assert outputs.attrs["measurement_info"]["n_particles"] == 2
    assert outputs.attrs["measurement_info"]["n_objects_cut"] == 1
    assert any("cut into touching particles" in note for note in runtime.notes)
    one, _ = measured(labels, ["background", "Pt"], separate_touching=False)
    assert one.attrs["measurement_info"]["n_particles"] == 1


def test_connectivity_joins_at_corners():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[4:8, 4:8, 4:8] = labels[8:12, 8:12, 8:12] = 1
    counts = [
        measured(labels, ["a", "b"], connectivity=c, separate_touching=False)[0].attrs["measurement_info"][
            "n_particles"
        ]
        for c in (6, 18, 26)
    ]
    assert counts == [2, 2, 1]


def test_particle_class_by_name():
    outputs, _ = measured(labelled(), particle_class="support", separate_touching=False)
    assert outputs.attrs["measurement_info"]["particle_class"] == "support"
    assert outputs.arrays["particle_table"]["voxels"][0] == np.count_nonzero(labelled() == 1)
    with pytest.raises(InputError, match=r"'Au'.*'support'"):
        measured(labelled(), particle_class="Au")


@pytest.mark.parametrize("names", [["background"], ["background", "support", "Pt"]])
def test_no_particles_at_all(names):
    outputs, _ = measured(np.zeros((9, 10, 11), np.uint8), names)
    info = outputs.attrs["measurement_info"]
    assert info["n_particles"] == 0
    assert np.isnan(info["mean_diameter_nm"])
    assert len(outputs.arrays["particle_table"]) == len(outputs.arrays["size_table"]) == 0
    assert outputs.arrays["class_table"]["volume_fraction"].tolist() == [1.0] + [0.0] * (len(names) - 1)
    assert outputs.arrays["class_table"]["surface_area_nm2"].tolist() == [0.0] * len(names)


def test_one_body_that_fills_the_volume_is_doubted():
    outputs, runtime = measured(np.ones((9, 10, 11), np.uint8), ["background", "Pt"])
    assert outputs.arrays["particle_table"]["voxels"].tolist() == [990]
    assert any("fills 100% of the volume" in text for text in runtime.warnings)
    assert any("there are no size statistics" in text for text in runtime.warnings)


def test_unknown_voxel_size_is_said():
    outputs, runtime = measured(labelled(), voxel_size_nm=np.nan)
    assert np.isnan(outputs.arrays["particle_table"]["diameter_nm"]).all()
    assert outputs.arrays["particle_table"]["diameter_px"].max() == pytest.approx(16, rel=0.01)
    assert outputs.attrs["measurement_info"]["mean_diameter_px"] > 0
    assert outputs.attrs["measurement_info"]["mean_diameter_half_voxel_px"] > 0
    assert np.isnan(outputs.attrs["measurement_info"]["dispersion"])
    assert any("voxel size is unknown" in text for text in runtime.warnings)
    assert any("px" in note for note in runtime.notes)


def test_labels_that_do_not_fit():
    with pytest.raises(InputError, match="differ in shape"):
        measured(labelled(), volume=np.zeros((3, 4, 5), np.float32))
    with pytest.raises(InputError, match="only 2 classes have names"):
        measured(labelled(), ["background", "support"])
    with pytest.raises(InputError, match="class_names"):
        measured(labelled(), [])


@pytest.mark.parametrize(
    "bad",
    [
        {"neck_ratio": 1.0},
        {"saddle_ratio": 0},
        {"separate_by": "colour"},
        {"atom_diameter_nm": 0},
        {"min_voxels": 0},
        {"connectivity": 8},
        {"size_bin_nm": 0},
        {"x": 1},
    ],
)
def test_bad_parameters(bad):
    with pytest.raises(ValidationError):
        MeasureParameters(**bad)


def test_elongation_along_the_missing_wedge_is_said():
    z, y, x = np.indices((60, 80, 80))
    labels = np.zeros(z.shape, np.uint8)
    for cy in (12, 30, 48, 66):
        for cx in (12, 30, 48, 66):
            labels[((z - 30) / 8) ** 2 + ((y - cy) / 5) ** 2 + ((x - cx) / 5) ** 2 <= 1] = 1
    angles = MemoryInput(np.arange(-70.0, 71, 2))
    outputs, runtime = measured(labels, ["background", "Pt"], reads={"angles_deg": angles})
    info = outputs.attrs["measurement_info"]
    assert (info["n_elongated_along_beam"], info["missing_wedge_deg"]) == (16, pytest.approx(40))
    assert any("16 of 16 particles are elongated" in text for text in runtime.warnings)
    # By angles of the alignment, across that direction.
    refined = {"angles_deg": angles, "refined_angles_deg": MemoryInput(np.arange(20.0, 161, 2))}
    outputs, runtime = measured(labels, ["background", "Pt"], reads=refined)
    assert outputs.attrs["measurement_info"]["n_elongated_along_beam"] == 0
    assert not runtime.warnings


def test_what_is_below_the_resolution_is_counted_apart():
    """Of spheres of about 9, 10.4, 11.2, 12 and 16 px, and one that the border cuts."""
    for px, below in ((3.4, 0), (10.8, 2)):
        reads = {"reconstruction_info": MemoryInput(attrs={"resolution_nm": 0.5 * px, "resolution_px": px})}
        outputs, runtime = measured(labelled(), reads=reads)
        info, table = outputs.attrs["measurement_info"], outputs.arrays["particle_table"]
        assert info["n_below_resolution"] == (table["below_resolution"] & ~table["touches_border"]).sum() == below
        assert info["n_in_size_statistics"] == 5 - below
        assert any(f"1 cut by the border of the volume, {below} below the resolution" in n for n in runtime.notes)
    assert np.isnan(info["mean_diameter_nm"])
    assert np.isnan(info["d32_ci95_low_nm"])
    assert len(outputs.arrays["size_table"]) == 0
    assert any("no size statistics: 3 particles with a known size, and 5 are needed" in n for n in runtime.notes)


def test_dispersion_and_resolution():
    reads = {"reconstruction_info": MemoryInput(attrs={"resolution_nm": 1.7, "resolution_px": 3.4})}
    outputs, runtime = measured(labelled(), voxel_size_nm=0.4, reads=reads)
    info = outputs.attrs["measurement_info"]
    assert info["atom_diameter_nm"] == 0.277
    assert info["dispersion"] == pytest.approx((3.32 * 0.277 / info["d32_nm"]) ** (1 / 1.23))
    assert info["dispersion_ci95_low"] < info["dispersion"] < info["dispersion_ci95_high"]
    assert (info["resolution_nm"], info["resolution_px"]) == (1.7, 3.4)
    assert any("shell correlation is 1.7 nm" in note for note in runtime.notes)
    assert any("dispersion 0.2" in note for note in runtime.notes)
    for names, given, atom in ((["a", "b", "c"], None, np.nan), (["a", "b", "c"], 0.25, 0.25)):
        info = measured(labelled(), names, atom_diameter_nm=given)[0].attrs["measurement_info"]
        np.testing.assert_equal(info["atom_diameter_nm"], atom)
        assert np.isfinite(info["dispersion"]) == (given is not None)
        assert np.isnan(info["resolution_nm"])


def test_particles_a_voxel_thick():
    labels = np.zeros((12, 20, 24), np.uint8)
    labels[5, 4:12, 4:16] = 1
    labels[8, 15, 3:20] = 1
    labels[2, 2, 2] = 1
    outputs, _ = measured(labels, ["background", "Pt"], min_voxels=1)
    table = outputs.arrays["particle_table"]
    assert table["voxels"].tolist() == [96, 17, 1]
    for name in table.dtype.names:
        assert np.isfinite(table[name]).all(), name
    # Half a voxel is all there is of them on either side.
    np.testing.assert_allclose(table["minor_axis_px"], 2 * np.sqrt(5 / 12))
    assert table["neighbour_gap_px"].max() < 5
