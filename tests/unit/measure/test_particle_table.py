import numpy as np
import pytest

from tomoseg.measure.components import find_components
from tomoseg.measure.particles import (
    PARTICLE,
    Piece,
    grown_box,
    neighbour_distances,
    particle_row,
    particle_table,
    unresolved_row,
)

SHAPE = (20, 24, 28)


def cut_out(mask, start, stop, intensity=None):
    box = grown_box(start, stop, mask.shape)
    return Piece(mask[box], box, mask.shape, None if intensity is None else intensity[box])


def test_a_block_is_measured_where_it_is():
    mask = np.zeros(SHAPE, bool)
    mask[4:8, 10:15, 20:26] = True
    intensity = np.where(mask, 3.0, 100.0).astype(np.float32)
    intensity[4] += 1  # one of its four planes
    row = particle_row(cut_out(mask, (4, 10, 20), (8, 15, 26), intensity))
    assert row["voxels"] == 4 * 5 * 6
    assert (row["z_px"], row["y_px"], row["x_px"]) == (5.5, 12.0, 22.5)
    assert row["mean_intensity"] == pytest.approx(3.25)
    assert not row["touches_border"]
    # A smoothed block of 148 px^2 loses its edges; the sphere of its volume has 118 px^2.
    assert 118 < row["surface_area_px2"] < 148


@pytest.mark.parametrize(
    ("box", "touches"),
    [
        ((slice(0, 4), slice(5, 9), slice(5, 9)), True),
        ((slice(16, 20), slice(5, 9), slice(5, 9)), True),
        ((slice(5, 9), slice(5, 9), slice(24, 28)), True),
        ((slice(1, 4), slice(1, 9), slice(1, 27)), False),  # near, but one voxel away
    ],
)
def test_border(box, touches):
    mask = np.zeros(SHAPE, bool)
    mask[box] = True
    row = particle_row(cut_out(mask, [s.start for s in box], [s.stop for s in box]))
    assert row["touches_border"] == touches
    assert np.isnan(row["mean_intensity"])
    component = find_components([mask])[0]
    rough = unresolved_row(component, SHAPE)
    for name in ("voxels", "z_px", "y_px", "x_px", "touches_border"):
        assert rough[name] == pytest.approx(row[name])


def test_table_is_largest_first_and_in_nm():
    row = {"surface_area_px2": 10.0, "touches_border": False, "mean_intensity": 1.0, "y_px": 0.0, "x_px": 0.0}
    table = particle_table([{**row, "voxels": 30, "z_px": 2.0}, {**row, "voxels": 300, "z_px": 12.0}], 0.5)
    assert table["voxels"].tolist() == [300, 30]
    assert table["id"].tolist() == [1, 2]
    assert table["volume_nm3"].tolist() == [37.5, 3.75]
    assert table["surface_area_nm2"].tolist() == [2.5, 2.5]
    assert table["z_nm"].tolist() == [6.0, 1.0]
    assert table["neighbour_distance_nm"].tolist() == [5.0, 5.0]
    # pi / 6 d^3 = V
    np.testing.assert_allclose(np.pi / 6 * table["diameter_nm"] ** 3, table["volume_nm3"])


def test_unknown_voxel_size_leaves_pixels():
    row = {"voxels": 30, "z_px": 2.0, "y_px": 3.0, "x_px": 4.0, "surface_area_px2": 10.0, "touches_border": True}
    table = particle_table([{**row, "mean_intensity": 1.0}], np.nan)
    for name in table.dtype.names:
        if name.endswith(("_nm", "_nm2", "_nm3")):
            assert np.isnan(table[name]).all(), name
    assert table["diameter_px"][0] == pytest.approx((180 / np.pi) ** (1 / 3))
    assert np.isnan(table["neighbour_distance_px"][0])  # alone


def test_no_particles():
    table = particle_table([], 1.0)
    assert table.dtype == PARTICLE
    assert len(table) == 0
    assert len(neighbour_distances(np.empty((0, 3)))) == 0


def test_neighbours_against_all_pairs():
    points = np.random.default_rng(0).random((40, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(40, np.inf))
    np.testing.assert_allclose(neighbour_distances(points), distances.min(axis=1))
