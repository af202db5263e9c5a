import numpy as np
import pytest
from pydantic import ValidationError

from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.runtime import Runtime
from tomoseg.stages.measure import STAGE, MeasureParameters

NAMES = ["background", "support", "Pt"]
SHAPE = (48, 60, 72)
# Centre (z, y, x) and radius, px, of particles that do not touch; the last one is cut by the border.
SPHERES = [((12.2, 14.0, 15.3), 6.0), ((30.0, 40.4, 20.0), 4.5), ((24.0, 20.0, 50.0), 8.0), ((24.0, 40.0, 71.0), 6.0)]


def labelled():
    """Return labels: a plate of support, spheres, and one speck."""
    z, y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[20:28] = 1
    for (cz, cy, cx), radius in SPHERES:
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = 2
    labels[40:42, 5:7, 60:62] = 2
    return labels


def measured(labels, names=NAMES, voxel_size_nm=0.5, runtime=None, volume=None, **parameters):
    outputs, runtime = MemoryOutputs(), runtime or Runtime()
    STAGE.run(
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
    assert (info["n_particles"], info["n_touching_border"], info["n_in_size_statistics"]) == (4, 1, 3)
    assert info["n_excluded_small"] == 1
    by_size = sorted(SPHERES[:3], key=lambda s: -s[1])
    whole = table[~table["touches_border"]]
    for row, (centre, radius) in zip(whole, by_size, strict=True):
        # A digital sphere of 4.5 px or more scatters by 1% in volume, its centroid by 0.05 px.
        assert row["diameter_nm"] == pytest.approx(2 * radius * 0.5, rel=0.01)
        assert [row["z_nm"], row["y_nm"], row["x_nm"]] == pytest.approx([0.5 * c for c in centre], abs=0.05)
        assert row["surface_area_nm2"] == pytest.approx(4 * np.pi * (0.5 * radius) ** 2, rel=0.03)
    assert table["mean_intensity"] == pytest.approx(12)
    assert info["mean_diameter_nm"] == pytest.approx(whole["diameter_nm"].mean())
    assert outputs.arrays["size_table"]["count"].sum() == 3
    classes = outputs.arrays["class_table"]
    assert classes["voxels"].tolist() == np.bincount(labels.ravel()).tolist()
    assert classes["volume_fraction"].sum() == pytest.approx(1)
    assert any("1 objects of fewer than 27 voxels" in note for note in runtime.notes)
    assert any("left out of the size statistics" in note for note in runtime.notes)
    assert not runtime.warnings


def crowded():
    """Return labels of more than a block along each axis: balls, many of which touch, plates and specks."""
    rng = np.random.default_rng(6)
    z, y, x = np.indices((80, 130, 140), np.float32)
    labels = np.zeros(z.shape, np.uint8)
    labels[:, :, 60:75] = 1
    for cz, cy, cx, r in zip(*(rng.uniform(0, n, 60) for n in z.shape), rng.uniform(3, 9, 60), strict=True):
        box = tuple(slice(max(0, int(c - r)), int(c + r) + 2) for c in (cz, cy, cx))
        labels[box][(z[box] - cz) ** 2 + (y[box] - cy) ** 2 + (x[box] - cx) ** 2 <= r * r] = 2
    labels[20:40, 5:125, 5:135] = 2
    labels[rng.random(z.shape) < 1e-3] = 2
    return labels


@pytest.mark.parametrize("separate_touching", [True, False])
def test_memory_allowed_does_not_change_a_bit(separate_touching, monkeypatch):
    monkeypatch.setattr("tomoseg.measure.particles.LARGE_VOXELS", 30**3)  # larger ones, also cut out, go by blocks
    labels = crowded()
    volume = np.random.default_rng(0).random(labels.shape, np.float32)
    choice = {"separate_touching": separate_touching, "measure_support": False}  # its cells follow the memory
    results = [
        measured(labels, volume=volume, runtime=Runtime(max_memory=n), **choice)[0]
        # All at once, and slabs and strips as thin as they get: 20 MB is what the cluster of balls needs to be cut.
        for n in (1 << 34, 100 << 20, 20 << 20)
    ]
    assert results[0].attrs["measurement_info"]["n_objects_cut"] > 0 or not separate_touching
    for other in results[1:]:
        assert other.attrs == results[0].attrs
        for name, table in results[0].arrays.items():
            assert other.arrays[name].tobytes() == table.tobytes()


def test_object_that_cannot_be_cut_in_the_memory_is_refused():
    little = Runtime(
        max_memory=80_000
    )  # 24 bytes for each of the 2000 voxels of the largest are 50 kB, and as much again
    with pytest.raises(StageFailed, match=r"--max-memory.*separate_touching=false"):
        measured(labelled(), runtime=little)
    whole, _ = measured(labelled(), runtime=little, separate_touching=False)
    assert len(whole.arrays["particle_table"]) == 4


def test_body_that_is_no_cluster_is_not_cut_and_it_is_said(monkeypatch):
    monkeypatch.setattr("tomoseg.stages.measure.MOST_CUT_VOXELS", 1000)
    z, y, x = np.indices((30, 30, 50))
    labels = np.zeros((30, 30, 50), np.uint8)
    for cx in (15, 31):  # would be cut, see below
        labels[(z - 15) ** 2 + (y - 15) ** 2 + (x - cx) ** 2 <= 100] = 1
    outputs, runtime = measured(labels, ["background", "Pt"])
    assert outputs.arrays["particle_table"]["voxels"].tolist() == [np.count_nonzero(labels)]
    assert any("1 objects of more than 1.5% of the volume were not cut" in text for text in runtime.warnings)


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
    "bad", [{"neck_ratio": 1.0}, {"min_voxels": 0}, {"connectivity": 8}, {"size_bin_nm": 0}, {"x": 1}]
)
def test_bad_parameters(bad):
    with pytest.raises(ValidationError):
        MeasureParameters(**bad)
