import numpy as np
import pytest

from tomoseg.measure.components import find_components
from tomoseg.measure.particles import PARTICLE, Particle, neighbour_distances, particle_table

SHAPE = (20, 24, 28)


def measured(mask, intensity, strip_bytes=1 << 20):
    found, _ = find_components([mask])
    return Particle(found[0], lambda box: mask[box]).measured(intensity, strip_bytes)


def test_a_block_is_measured_where_it_is():
    mask = np.zeros(SHAPE, bool)
    mask[4:8, 10:15, 20:26] = True
    intensity = np.where(mask, 3.0, 100.0).astype(np.float32)
    intensity[4] += 1  # one of its four planes
    row = measured(mask, intensity)
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
    assert measured(mask, np.ones(SHAPE, np.float32))["touches_border"] == touches


def test_large_particle_is_measured_in_blocks():
    # Half a ball at the border, a plate's end far from it: larger than what is meshed at once, and over several blocks.
    z, y, x = np.indices((70, 130, 140), np.float32)
    mask = (z - 0.2) ** 2 + (y - 63.3) ** 2 + (x - 69.8) ** 2 <= 55**2
    intensity = np.random.default_rng(0).random(mask.shape, np.float32)
    rows = [measured(mask, intensity, n_bytes) for n_bytes in (0, 3 << 20, 1 << 30)]
    assert rows[0] == rows[1] == rows[2]  # to the bit
    assert rows[0]["voxels"] == np.count_nonzero(mask)
    assert rows[0]["mean_intensity"] == pytest.approx(intensity[mask].mean(dtype=np.float64), rel=1e-12)
    # Archimedes: 2 pi R times the height inside, half a voxel beyond the first centres. As for all surfaces, 1%.
    assert rows[0]["surface_area_px2"] == pytest.approx(2 * np.pi * 55 * 55.7, rel=0.01)
    np.testing.assert_allclose(
        [rows[0]["z_px"], rows[0]["y_px"], rows[0]["x_px"]], np.argwhere(mask).mean(axis=0), rtol=1e-12
    )


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
