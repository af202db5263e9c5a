import numpy as np
import pytest

from tests.unit.measurement.shapes import grid
from tomoseg.measurement.common.coarse_grid import cell_side, coarse_grid
from tomoseg.measurement.pores.pore_space import PoreSpace, euler_number
from tomoseg.measurement.pores.pore_table import pore_size_table, pore_table
from tomoseg.measurement.pores.porosimetry import FreeSpace, squared_thickness

FACET = np.array([[1.0, 0, 0]])


def block_in_vacuum(n=64, margin=12):
    kinds = np.zeros((n, n, n), np.uint8)
    inner = slice(margin, n - margin)
    kinds[inner, inner, inner] = 1
    return kinds


def ball_at(shape, centre, radius):
    return sum((g - c) ** 2 for g, c in zip(np.indices(shape), centre, strict=True)) <= radius**2


def pores_of(kinds, ball_cells=None):
    return PoreSpace.of(kinds, 1, ball_cells)


def table_of(space):
    return pore_table(space, np.zeros(len(space.closed)), FACET, 0.5)


def test_closed_and_open_pores_of_a_block():
    kinds = block_in_vacuum()
    closed, cavity = ball_at(kinds.shape, (26, 26, 26), 5), ball_at(kinds.shape, (40, 36, 36), 7)
    kinds[closed | cavity] = 0
    kinds[40:, 35:38, 35:38] = 0  # a neck of 3 px out of the cavity
    table = table_of(pores_of(kinds))
    assert list(table["closed"]) == [False, True]
    assert table["volume_px3"][1] == closed.sum()
    # The cavity whole; the neck, as wide at its mouth as inside, is none, but for its first voxels.
    assert cavity.sum() <= table["volume_px3"][0] <= cavity.sum() + 40
    assert table["inscribed_diameter_px"] == pytest.approx([14, 10], abs=1)
    assert [table[f"{a}_px"][1] for a in "zyx"] == pytest.approx([26, 26, 26])
    assert table["z_nm"][1] == pytest.approx(13)
    assert not table["touches_border"].any()


def test_corners_grooves_and_gaps_that_widen_are_no_pores():
    z, y, x = grid(96)
    # Two plates of 8 px that cross at 35 degrees.
    a = np.radians(35)
    first, second = np.abs(z) <= 4, np.abs(np.cos(a) * z + np.sin(a) * y) <= 4
    kinds = ((first | second) & (np.sqrt(z**2 + y**2 + x**2) < 35)).astype(np.uint8)
    space = pores_of(kinds)
    assert space.pores.sum() < 0.002 * kinds.sum()
    rolled = pores_of(kinds, 8)
    assert rolled.pores.sum() > 0.1 * kinds.sum()  # what a ball of one radius makes of them


def test_a_radius_counts_straight_channels():
    kinds = block_in_vacuum()
    kinds[:, 30:34, 30:34] = 0
    channel = 40 * 16
    assert pores_of(kinds).pores.sum() < 0.1 * channel
    assert pores_of(kinds, 8).pores.sum() == pytest.approx(channel, rel=0.1)


def test_a_volume_full_of_support_has_no_outside():
    kinds = np.ones((48, 48, 48), np.uint8)
    kinds[:, 10:16, 10:16] = 0  # a channel cut by the border at both ends
    kinds[30:34, 30:34, 30:34] = 0
    space = pores_of(kinds)
    table = table_of(space)
    assert list(table["voxels"]) == [48 * 36, 64]
    assert list(table["closed"]) == [False, True]
    assert list(table["touches_border"]) == [True, False]


def test_a_sponge_that_the_border_cuts_is_all_pores():
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((80, 80, 80)), 2)
    kinds = (noise > np.quantile(noise, 0.5)).astype(np.uint8)
    space = pores_of(kinds)
    assert space.pores.sum() == (kinds == 0).sum()


def test_a_particle_shuts_a_pore_but_is_no_wall_on_the_way_in():
    kinds = block_in_vacuum()
    kinds[ball_at(kinds.shape, (45, 32, 32), 8)] = 0  # its mouth is at z = 52, 3.9 px wide to each side
    open_ = pores_of(kinds)
    kinds[ball_at(kinds.shape, (51, 32, 32), 6) & (kinds == 0)] = 2
    shut = pores_of(kinds)
    assert list(open_.closed) == [False]
    assert list(shut.closed) == [True]
    assert np.array_equal(open_.inside, shut.inside)


def test_width_of_the_way_in_is_that_of_its_throat():
    body = np.zeros((60, 40, 40), bool)
    body[30:, :, :] = True
    body[ball_at(body.shape, (45, 20, 20), 8)] = False
    body[28:45, 18:23, 18:23] = False  # 5 px wide: the centre is 3 px from the wall's voxels
    padded = np.pad(body, ((12, 0), (0, 0), (0, 0)))
    free = FreeSpace.around(padded, 10, tuple(slice(0, n) for n in padded.shape))
    assert free.squared_throat[12 + 45, 20, 20] == 9
    assert free.squared_distance[12 + 45, 20, 20] > 64


def test_spheres_cover_as_by_brute_force():
    rng = np.random.default_rng(0)
    squared = np.where(rng.random((14, 15, 16)) < 0.05, rng.integers(1, 30, (14, 15, 16)), 0).astype(np.uint16)
    expected = np.zeros(squared.shape, int)
    places = np.indices(squared.shape)
    for centre in np.argwhere(squared):
        s = int(squared[tuple(centre)])
        near = ((places - centre[:, None, None, None]) ** 2).sum(axis=0) < s
        expected[near] = np.maximum(expected[near], s)
    assert np.array_equal(squared_thickness(squared), expected)


def test_pore_sizes_agree_with_porespy():
    filters = pytest.importorskip("porespy").filters
    rng = np.random.default_rng(1)
    kinds = np.ones((60, 60, 60), np.uint8)
    for _ in range(25):
        kinds[ball_at(kinds.shape, rng.uniform(10, 50, 3), rng.uniform(3, 8))] = 0
    sizes = pore_size_table(pores_of(kinds), np.nan)
    mean = np.average((sizes["from_px"] + sizes["to_px"]) / 2, weights=sizes["volume_px3"])
    theirs = filters.local_thickness(kinds == 0)
    assert sizes["volume_px3"].sum() == (kinds == 0).sum()
    assert np.isnan(sizes["from_nm"]).all()
    # Theirs are radii to the next centre that is no pore, rounded down to whole numbers; a diameter is 2 r - 1.
    assert mean == pytest.approx(float(2 * (theirs[kinds == 0] + 0.5).mean()) - 1, rel=0.03)


def test_elongation_and_angle_to_a_facet():
    kinds = np.ones((60, 60, 60), np.uint8)
    q = grid(60)
    a = np.radians(30)
    along, across = np.cos(a) * q[0] + np.sin(a) * q[2], -np.sin(a) * q[0] + np.cos(a) * q[2]
    kinds[(along / 16) ** 2 + (across / 8) ** 2 + (q[1] / 4) ** 2 <= 1] = 0
    (pore,) = table_of(pores_of(kinds))
    assert pore["elongation"] == pytest.approx(2, rel=0.03)
    assert pore["flatness"] == pytest.approx(2, rel=0.03)
    assert [pore["axis_z"], pore["axis_y"], pore["axis_x"]] == pytest.approx([np.cos(a), 0, np.sin(a)], abs=0.02)
    assert pore["axis_to_facet_deg"] == pytest.approx(30, abs=1)
    assert pore["flat_to_facet_deg"] == pytest.approx(90, abs=1)


def test_euler_number_of_a_ring_and_a_ball():
    kinds = np.ones((50, 50, 50), np.uint8)
    z, y, x = grid(50)
    kinds[(np.sqrt(y**2 + x**2) - 14) ** 2 + z**2 <= 16] = 0
    assert euler_number(pores_of(kinds)) == 0
    kinds[ball_at(kinds.shape, (8, 8, 8), 4)] = 0
    assert euler_number(pores_of(kinds)) == 1


def test_cells_are_of_their_commonest_kind_and_as_small_as_fits():
    assert cell_side((192, 192, 192), 4e9) == 1
    assert cell_side((702, 1024, 512), 4e9) == 2
    assert cell_side((702, 1024, 512), 4e8) > cell_side((702, 1024, 512), 4e9)
    labels = np.zeros((5, 4, 4), np.uint8)
    labels[:2, :2, :2] = [[[3, 3], [3, 1]], [[3, 3], [0, 0]]]
    labels[4] = 1
    kinds = coarse_grid(labels, np.array([0, 2, 0, 1], np.uint8), 2, 100)
    assert kinds.shape == (3, 2, 2)
    assert kinds[0, 0, 0] == 1
    assert (kinds[2] == 2).all()
    assert kinds[0, 1, 1] == 0
