import numpy as np
import pytest

from tomoseg.components import find_components
from tomoseg.measurement.particles.objects import LIMITS
from tomoseg.measurement.particles.particle_table import (
    MEASURED,
    PARTICLE,
    Particle,
    Scene,
    neighbour_distances,
    particle_table,
    with_columns,
)
from tomoseg.missing_wedge import MissingWedge

SHAPE = (20, 24, 28)


def measured(mask, intensity, strip_bytes=1 << 20, support=None, large_voxels=LIMITS.large_voxels):
    labels = np.where(mask, 2, 0 if support is None else support).astype(np.uint8)
    found, _ = find_components([mask])
    return Particle(found[0], lambda box: mask[box]).measured(Scene(intensity, labels, 2), large_voxels, strip_bytes)


def rows_of(*rows):
    table = np.zeros(len(rows), MEASURED)
    for i, row in enumerate(rows):
        for name, value in row.items():
            table[name][i] = value
        table["covariance_px2"][i] = np.diag([4.0, 1.0, 1.0])
    return table


def test_a_block_is_measured_where_it_is():
    mask = np.zeros(SHAPE, bool)
    mask[4:8, 10:15, 20:26] = True
    intensity = np.where(mask, 3.0, 100.0).astype(np.float32)
    intensity[4] += 1  # one of its four planes
    row, surface = measured(mask, intensity)
    assert row["voxels"] == 4 * 5 * 6
    assert (row["z_px"], row["y_px"], row["x_px"]) == (5.5, 12.0, 22.5)
    assert row["mean_intensity"] == pytest.approx(3.25)
    assert row["integrated_intensity"] == pytest.approx(3.25 * 120)
    # A homogeneous box of lengths a has the variances a^2 / 12.
    np.testing.assert_allclose(row["covariance_px2"], np.diag([16, 25, 36]) / 12, atol=1e-12)
    # Half a voxel beyond the outermost centres; the volume that the rounded edges lose, the faces gain.
    np.testing.assert_allclose(surface.min(axis=0), [3.5, 9.5, 19.5], atol=0.4)
    np.testing.assert_allclose(surface.max(axis=0), [7.5, 14.5, 25.5], atol=0.4)
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
    assert measured(mask, np.ones(SHAPE, np.float32))[0]["touches_border"] == touches


def test_large_particle_is_measured_in_blocks():
    # Half a ball at the border, a plate's end far from it: larger than what is meshed at once, and over several blocks.
    z, y, x = np.indices((70, 130, 140), np.float32)
    mask = (z - 0.2) ** 2 + (y - 63.3) ** 2 + (x - 69.8) ** 2 <= 55**2
    intensity = np.random.default_rng(0).random(mask.shape, np.float32)
    support = np.broadcast_to(y > 63.3, mask.shape)
    results = [measured(mask, intensity, n_bytes, support) for n_bytes in (0, 3 << 20, 1 << 30)]
    rows = [row for row, _ in results]
    assert rows[0].tobytes() == rows[1].tobytes() == rows[2].tobytes()
    assert results[0][1].tobytes() == results[1][1].tobytes() == results[2][1].tobytes()
    assert rows[0]["voxels"] == np.count_nonzero(mask)
    assert rows[0]["mean_intensity"] == pytest.approx(intensity[mask].mean(dtype=np.float64), rel=1e-12)
    # Archimedes: 2 pi R times the height inside, half a voxel beyond the first centres. As for all surfaces, 1%.
    assert rows[0]["surface_area_px2"] == pytest.approx(2 * np.pi * 55 * 55.7, rel=0.01)
    assert rows[0]["contact_area_px2"] == pytest.approx(rows[0]["surface_area_px2"] / 2, rel=0.01)
    assert rows[0]["integrated_intensity"] == pytest.approx(intensity[mask].sum(dtype=np.float64), rel=1e-12)
    np.testing.assert_allclose(
        rows[0]["covariance_px2"], np.cov(np.argwhere(mask).T, ddof=0) + np.eye(3) / 12, atol=1e-6
    )
    # Points in the volume: on the sphere, or within the plane at the border's half voxel.
    distance = np.linalg.norm(results[0][1] - [0.2, 63.3, 69.8], axis=1)
    np.testing.assert_allclose(distance, 55, atol=0.7)
    np.testing.assert_allclose(
        [rows[0]["z_px"], rows[0]["y_px"], rows[0]["x_px"]], np.argwhere(mask).mean(axis=0), rtol=1e-12
    )


def test_table_is_largest_first_and_in_nm():
    row = {"surface_area_px2": 10.0, "contact_area_px2": 4.0}
    rows = rows_of({**row, "voxels": 30, "z_px": 2.0}, {**row, "voxels": 300, "z_px": 12.0})
    table = particle_table(rows, [1.0, 6.0], 0.5, class_index=3)
    assert table["voxels"].tolist() == [300, 30]
    assert table["id"].tolist() == [1, 2]
    assert table["volume_nm3"].tolist() == [37.5, 3.75]
    assert table["surface_area_nm2"].tolist() == [2.5, 2.5]
    assert table["z_nm"].tolist() == [6.0, 1.0]
    assert table["neighbour_distance_nm"].tolist() == [5.0, 5.0]
    # pi / 6 d^3 = V
    np.testing.assert_allclose(np.pi / 6 * table["diameter_nm"] ** 3, table["volume_nm3"])
    assert table["class_index"].tolist() == [3, 3]
    assert table["neighbour_gap_nm"].tolist() == [3.0, 0.5]  # each with its particle
    assert table["contact_area_nm2"].tolist() == [1.0, 1.0]
    assert table["contact_fraction"].tolist() == [0.4, 0.4]
    assert table["volume_half_voxel_px3"].tolist() == [5.0, 5.0]
    np.testing.assert_allclose(table["major_axis_px"], 2 * np.sqrt(20))
    np.testing.assert_allclose(table["elongation"], 2)
    np.testing.assert_allclose([table["major_z"], table["major_y"]], [[1, 1], [0, 0]])
    assert not table["elongated_along_beam"].any()


def test_half_a_voxel_on_a_sphere_is_a_voxel_of_its_diameter():
    z, y, x = np.indices((34, 34, 34)) - 16.3
    mask = z**2 + y**2 + x**2 <= 10**2
    row, _ = measured(mask, np.ones(mask.shape, np.float32))
    table = particle_table([row], [np.nan], 0.5)
    # 1 / sphericity, to first order in half a voxel over the radius.
    assert table["diameter_half_voxel_nm"][0] == pytest.approx(0.5, rel=0.01)
    larger = 4 / 3 * np.pi * 10.5**3 - 4 / 3 * np.pi * 10**3
    assert table["volume_half_voxel_px3"][0] == pytest.approx(larger, rel=0.06)  # 1 + h / R
    assert table["sphericity"][0] == pytest.approx(1, abs=0.01)


def test_elongation_is_suspected_along_the_wedge_only_and_not_at_the_border():
    row = {"voxels": 30, "surface_area_px2": 10.0}
    rows = rows_of(row, {**row, "touches_border": True})  # elongated by 2 along z
    for angles, expected in ((np.arange(-70, 71, 2), [True, False]), (np.arange(20, 161, 2), [False, False])):
        table = particle_table(rows, [np.nan] * 2, 1.0, missing_wedge=MissingWedge.of(angles))
        assert sorted(table["elongated_along_beam"].tolist(), reverse=True) == expected
    assert np.isnan(table["sphericity"][table["touches_border"]]).all()


def test_columns_can_be_added():
    table = particle_table(rows_of({"voxels": 30}, {"voxels": 40}), [1.0, 2.0], 0.5)
    more = with_columns(table, {"depth_px": np.array([4.0, 6.0]), "in_pore": np.array([True, False])})
    assert more.dtype.names == (*PARTICLE.names, "depth_px", "in_pore")
    assert more["depth_px"].tolist() == [4.0, 6.0]
    assert more["in_pore"].dtype == bool
    assert more["voxels"].tolist() == [40, 30]
    with_none = with_columns(table[:0], {"depth_px": np.zeros(0)})
    assert len(with_none) == 0


def test_unknown_voxel_size_leaves_pixels():
    table = particle_table(rows_of({"voxels": 30, "surface_area_px2": 10.0}), [np.nan], np.nan)
    for name in table.dtype.names:
        if name.endswith(("_nm", "_nm2", "_nm3")):
            assert np.isnan(table[name]).all(), name
    assert table["diameter_px"][0] == pytest.approx((180 / np.pi) ** (1 / 3))
    assert np.isnan(table["neighbour_distance_px"][0])  # alone


def test_no_particles():
    table = particle_table([], [], 1.0, missing_wedge=MissingWedge.of([0.0, 10.0]))
    assert table.dtype == PARTICLE
    assert len(table) == 0
    assert len(neighbour_distances(np.empty((0, 3)))) == 0


def test_neighbours_against_all_pairs():
    points = np.random.default_rng(0).random((40, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(40, np.inf))
    np.testing.assert_allclose(neighbour_distances(points), distances.min(axis=1))
