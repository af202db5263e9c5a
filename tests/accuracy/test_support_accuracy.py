"""What is measured of support and pores against the simulated catalyst's own truth."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.runtime import Runtime
from tomoseg.simulate import _plates, catalyst
from tomoseg.stages.measure import MeasureParameters
from tomoseg.stages.measure import run as measure

SIZE, PLATES = 160, 6


def measured(labels, names=("background", "support", "particles"), nm=0.5, memory=4 << 30, **params):
    runtime, outputs = Runtime(workers=1, max_memory=memory), MemoryOutputs()
    measure(
        labels=MemoryInput(labels, {"class_names": list(names), "voxel_size_nm": nm}),
        volume=MemoryInput(labels.astype(np.float32)),
        params=MeasureParameters(**params),
        runtime=runtime,
        outputs=outputs,
    )
    return outputs, runtime


@pytest.fixture(scope="module", params=[0, 1, 2])
def case(request):
    """The plates before pores are cut, the phantom, and what is measured of its labels."""
    solid = _plates(SIZE, PLATES, np.random.default_rng(request.param)) >= 0.5
    phantom = catalyst(SIZE, 40, request.param)
    return solid, phantom, measured(phantom.labels)[0]


@pytest.mark.slow
def test_porosity_is_right_within_a_point(case):
    solid, phantom, outputs = case
    info = outputs.attrs["support_info"]
    truth = float((solid & (phantom.labels == 0)).sum() / solid.sum())
    assert info["porosity"] == pytest.approx(truth, abs=0.01)
    assert info["closed_porosity"] + info["open_porosity"] == pytest.approx(info["porosity"])
    assert info["porosity_half_voxel_out"] < info["porosity"] < info["porosity_half_voxel_in"]


def test_particles_in_pores_are_told_from_those_outside(case):
    solid, phantom, outputs = case
    table, truth = outputs.arrays["particle_table"], phantom.particles
    centres = np.stack([truth[a] for a in "zyx"], axis=1)
    _, place = cKDTree(np.stack([table[f"{a}_px"] for a in "zyx"], axis=1)).query(centres)
    free = phantom.labels == 0
    grid = np.indices(free.shape)
    inside = []
    for centre, diameter in zip(centres, truth["diameter_px"], strict=True):
        box = tuple(slice(max(int(c - 12), 0), int(c + 13)) for c in centre)
        distance = np.sqrt(sum((g[box] - c) ** 2 for g, c in zip(grid, centre, strict=True)))
        near = (distance < diameter / 2 + 2) & free[box]
        inside.append(bool(solid[box][near].mean() > 0.5) if near.any() else True)
    right = table["in_pore"][place] == np.array(inside)
    # Those at the mouth of a pore may be either: of 40, up to 5 here.
    assert right.mean() >= 0.85
    assert sum(inside) >= 5


def test_depth_of_particles_outside_is_that_under_the_plates(case):
    solid, phantom, outputs = case
    table, truth = outputs.arrays["particle_table"], phantom.particles
    centres = np.stack([truth[a] for a in "zyx"], axis=1)
    _, place = cKDTree(np.stack([table[f"{a}_px"] for a in "zyx"], axis=1)).query(centres)
    signed = ndimage.distance_transform_edt(solid) - ndimage.distance_transform_edt(~solid)
    expected = signed[tuple(np.rint(centres).astype(int).T)]
    outer = ~table["in_pore"][place]
    error = table["depth_px"][place][outer] - expected[outer]
    # The ball bridges corners and gaps between plates, where particles then lie deeper: not half of them.
    assert np.median(np.abs(error)) < 2
    assert np.percentile(error, 10) > -2


def test_areas_are_those_of_the_class_table_and_add_up(case):
    _, phantom, outputs = case
    info, classes = outputs.attrs["support_info"], outputs.arrays["class_table"]
    assert info["support_area_px2"] == pytest.approx(classes["surface_area_px2"][1], rel=1e-4)
    assert info["support_volume_px3"] == (phantom.labels == 1).sum()
    parts = info["outer_area_px2"] + info["pore_wall_area_px2"] + info["covered_area_px2"]
    assert parts == pytest.approx(info["support_area_px2"])
    facets = outputs.arrays["facet_table"]
    assert facets["area_px2"].sum() == pytest.approx(info["exposed_area_px2"], rel=1e-4)
    assert facets["expected_share"].sum() == pytest.approx(1)
    assert facets["n_particles"].sum() == len(outputs.arrays["particle_table"])
    curvature = outputs.arrays["curvature_table"]
    assert curvature["area_share"].sum() == pytest.approx(1)
    assert curvature["particles_share"].sum() == pytest.approx(1)


def test_plates_in_many_directions_are_no_crystal(case):
    outputs = case[2]
    assert outputs.attrs["support_info"]["crystal"] == "none found"
    assert (outputs.arrays["facet_table"]["kind"] == "facet").all()


def test_half_a_voxel_on_a_ball():
    """A ball of radius 30 grown by half a voxel."""
    z, y, x = np.indices((80, 80, 80)) - 39.3
    ball = (z**2 + y**2 + x**2 <= 900).astype(np.uint8)
    info = measured(ball)[0].attrs["support_info"]
    assert info["support_volume_half_voxel_out_px3"] == pytest.approx(4 / 3 * np.pi * 30.5**3, rel=0.005)
    assert info["support_volume_half_voxel_in_px3"] == pytest.approx(4 / 3 * np.pi * 29.5**3, rel=0.005)
    assert info["support_area_half_voxel_out_px2"] == pytest.approx(4 * np.pi * 30.5**2, rel=0.01)


def test_specific_surface_area_of_a_ball():
    z, y, x = np.indices((60, 60, 60)) - 29.5
    ball = (z**2 + y**2 + x**2 <= 400).astype(np.uint8)
    info = measured(ball, support_density_g_cm3="gamma-alumina")[0].attrs["support_info"]
    # 6 / (rho d): d = 40 px * 0.5 nm
    assert info["specific_area_m2_g"] == pytest.approx(6 / (3.65e6 * 20e-9), rel=0.01)


def test_particles_where_facets_meet_are_found():
    """A cube with spheres on the middles of its edges, and the same with spheres on the middles of its faces."""
    kinds = np.zeros((90, 90, 90), np.uint8)
    kinds[20:70, 20:70, 20:70] = 1
    q = np.indices(kinds.shape)
    ends, middle = (19.5, 69.5), 44.5
    on_edges = [(a, b, middle) for a in ends for b in ends] + [(middle, a, b) for a in ends for b in ends]
    on_faces = [tuple(end if axis == k else middle for axis in range(3)) for k in range(3) for end in ends]
    for places, share, name in ((on_edges, 1.0, None), (on_faces, 0.0, "{100}")):
        labels = kinds.copy()
        for place in places:
            labels[sum((g - c) ** 2 for g, c in zip(q, place, strict=True)) <= 36] = 2
        outputs, _ = measured(labels, crystal_along_z=(0, 0, 1), crystal_along_x=(1, 0, 0))
        info, table = outputs.attrs["support_info"], outputs.arrays["particle_table"]
        assert info["n_facets"] == 6
        assert info["particles_where_planes_meet_share"] == share
        assert info["area_where_planes_meet_share"] < 0.5
        assert set(table["n_facets"]) == {2 if share else 1}
        if name:
            assert set(table["facet"]) == {name}
            assert np.abs(table["support_curvature_per_px"]).max() < 0.02
        else:
            assert table["support_curvature_per_px"].min() > 0.02
            assert info["particles_curvature_per_px"] > info["mean_curvature_per_px"]


def test_larger_cells_give_the_same_within_their_size():
    z, y, x = np.indices((96, 96, 96))
    labels = np.zeros(z.shape, np.uint8)
    labels[16:80, 16:80, 16:80] = 1
    labels[(z - 48) ** 2 + (y - 48) ** 2 + (x - 48) ** 2 <= 18**2] = 0
    fine = measured(labels)[0].attrs["support_info"]
    coarse, runtime = measured(labels, memory=12 << 20)
    info = coarse.attrs["support_info"]
    assert fine["cell_px"] == 1
    assert info["cell_px"] == 2
    assert any("cells of 2 voxels" in note for note in runtime.notes)
    assert info["porosity"] == pytest.approx(fine["porosity"], rel=0.03)
    assert info["support_area_px2"] == pytest.approx(fine["support_area_px2"], rel=1e-3)
    assert coarse.arrays["pore_table"]["inscribed_diameter_px"] == pytest.approx([36], abs=4)  # 2 cells


@pytest.mark.parametrize("names", [("background",), ("background", "particles")])
def test_labels_without_a_support_have_none(names):
    labels = np.zeros((40, 40, 40), np.uint8)
    if len(names) > 1:
        labels[10:20, 10:20, 10:20] = 1
    outputs, runtime = measured(labels, names)
    assert "support_info" not in outputs.attrs
    assert "pore_table" not in outputs.arrays
    assert any(note.startswith("no support") for note in runtime.notes)


def test_support_of_two_classes_is_one_body():
    names = ("background", "alumina", "ceria", "particles")
    labels = np.zeros((50, 50, 50), np.uint8)
    labels[10:25, 10:40, 10:40] = 1
    labels[25:40, 10:40, 10:40] = 2
    one = measured(np.minimum(labels, 1), ("background", "support", "particles"))[0].attrs["support_info"]
    two = measured(labels, names)[0].attrs["support_info"]
    assert two["support_classes"] == ["alumina", "ceria"]
    assert two["support_area_px2"] == pytest.approx(one["support_area_px2"], rel=1e-6)


def test_nothing_is_measured_where_it_is_switched_off():
    labels = np.ones((20, 20, 20), np.uint8)
    outputs, _ = measured(labels, measure_support=False)
    assert "support_info" not in outputs.attrs


@pytest.mark.parametrize(
    "wrong",
    [
        {"crystal_along_z": (0, 0, 1)},
        {"crystal_along_z": (0, 0, 1), "crystal_along_x": (1, 0, 1)},
        {"crystal_along_z": (0, 0, 0), "crystal_along_x": (1, 0, 0)},
        {"support_density_g_cm3": "unobtainium"},
        {"support_density_g_cm3": -1},
        {"pore_closing_nm": 0},
    ],
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MeasureParameters(**wrong)
