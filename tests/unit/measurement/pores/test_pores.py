import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from skimage import measure as skimage_measure

from tests.unit.measurement.shapes import grid
from tomoseg.measurement.common.coarse_grid import cell_side, coarse_grid
from tomoseg.measurement.pores import pore_space
from tomoseg.measurement.pores.pore_space import PoreSpace, connected_sides, euler_number, find_pores
from tomoseg.measurement.pores.pore_summary import pore_summary
from tomoseg.measurement.pores.pore_table import pore_size_table, pore_table
from tomoseg.measurement.pores.porosimetry import FreeSpace, squared_distances, squared_thickness
from tomoseg.runtime import Runtime

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
    return pore_table(space, np.zeros(len(space.closed)), FACET, 0.5, 2)


def every_size(space, voxel_size_nm):
    return pore_size_table(space, np.unique(space.numbers[space.numbers != 0]), voxel_size_nm)


def test_narrow_pores_are_below_the_resolution_and_in_no_size_distribution():
    kinds = block_in_vacuum()
    middle = [n // 2 for n in kinds.shape]
    kinds[tuple(slice(m - 4, m + 4) for m in middle)] = 0  # 8 voxels wide
    kinds[middle[0] - 8, middle[1] - 5 : middle[1] + 5, middle[2] - 5 : middle[2] + 5] = 0  # a slit of one voxel
    space = pores_of(kinds)
    table = pore_table(space, np.zeros(len(space.closed)), FACET, 0.5, resolved_px=2.0)
    assert table["below_resolution"].tolist() == [False, True]
    sizes = pore_size_table(space, table["id"][~table["below_resolution"]], 0.5)
    assert sizes["volume_px3"].sum() == 8**3
    summary = pore_summary(space, table, sizes, 0.5, None)
    assert (summary["n_pores"], summary["n_closed_pores"], summary["n_pores_below_resolution"]) == (2, 1, 1)
    assert summary["unresolved_porosity"] == pytest.approx(summary["porosity"] * 100 / 612)
    assert summary["mean_pore_diameter_px"] > 5


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
    sizes = every_size(pores_of(kinds), np.nan)
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


def sponge(n=72, width=3.0, seed=0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((n, n, n)), width)
    return (noise > 0).astype(np.uint8)


@pytest.mark.parametrize("density", [0.02, 0.3, 0.7])
def test_euler_number_is_that_of_all_cells_at_once(density):
    space = pores_of(block_in_vacuum(30, 4))
    space.numbers[:] = np.random.default_rng(1).random(space.numbers.shape) < density
    assert euler_number(space) == skimage_measure.euler_number(np.pad(space.pores, 1), connectivity=1)


def test_tables_are_to_the_bit_what_all_cells_at_once_give():
    kinds = sponge()
    kinds[:, :, 60:] = 0  # the box ends within the volume
    space = PoreSpace.of(kinds, 3)
    n = len(space.closed)
    assert n > 3
    cells = np.argwhere(space.numbers > 0)
    number = space.numbers[tuple(cells.T)] - 1
    count = np.bincount(number)
    position = (cells + space.start) * 3 + 1.0
    centre = np.stack([np.bincount(number, position[:, i]) / count for i in range(3)], axis=1)
    offset = position - centre[number]
    moments = np.zeros((n, 3, 3))
    for i in range(3):
        for j in range(3):
            moments[:, i, j] = np.bincount(number, offset[:, i] * offset[:, j]) / count
        moments[:, i, i] += 9 / 12
    values, _ = np.linalg.eigh(moments)
    table = pore_table(space, np.zeros(n), FACET, 0.5, 2)
    np.testing.assert_array_equal(table["voxels"], count * 27)
    np.testing.assert_array_equal(np.stack([table[f"{a}_px"] for a in "zyx"], axis=1), centre)
    np.testing.assert_array_equal(table["elongation"], np.sqrt(values[:, 2] / values[:, 1]))
    volume = cells + space.start
    at_border = ((volume == 0) | (volume == np.array(kinds.shape) - 1)).any(axis=1)
    np.testing.assert_array_equal(table["touches_border"], np.bincount(number[at_border], minlength=n) > 0)
    sizes = every_size(space, 0.5)
    radii = np.sqrt(squared_thickness(squared_distances(space.pores))[space.pores].astype(float))
    place = np.searchsorted(sizes["to_px"], (2 * radii - 1) * 3 - 1e-9)
    np.testing.assert_array_equal(sizes["volume_px3"], 27.0 * np.bincount(place, minlength=len(sizes)))


def test_numbers_of_pores_anywhere_in_the_volume():
    kinds = np.zeros((50, 40, 40), np.uint8)
    kinds[20:50, 5:35, 5:35] = sponge(30)  # pores against one end of the volume; the box goes beyond it
    space = pores_of(kinds)
    padded = np.zeros([n + 120 for n in kinds.shape], np.int32)
    padded[tuple(slice(60 + s, 60 + s + n) for s, n in zip(space.start, space.numbers.shape, strict=True))] = (
        space.numbers
    )
    whole = padded[60:-60, 60:-60, 60:-60]
    assert len(np.unique(whole)) > 2
    cells = np.random.default_rng(0).integers(-3, 55, (4000, 3))
    inside = np.clip(cells, 0, np.array(kinds.shape) - 1)
    np.testing.assert_array_equal(space.numbers_at(cells), whole[tuple(inside.T)])
    ends = [(np.unique(whole.take(0, axis=a)), np.unique(whole.take(-1, axis=a))) for a in range(3)]
    assert connected_sides(space) == tuple((np.intersect1d(a, b) > 0).any() for a, b in ends)


def test_memory_per_cell_is_what_the_side_of_cells_is_chosen_by(monkeypatch):
    """A sponge is what takes most: half of all cells are those of pores."""
    monkeypatch.setattr("tomoseg.measurement.pores.pore_summary.tortuosity", lambda *_: 1.0)  # whatever the volume

    def measured(kinds):
        space = pores_of(kinds)
        table, sizes = table_of(space), every_size(space, 0.5)
        pore_summary(space, table, sizes, 0.5, None)
        return space

    measured(sponge(24))  # compiles what has not been compiled
    tracemalloc.start()
    try:
        space = measured(sponge(96))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < pore_space.BYTES_PER_BOX_CELL * space.kinds.size


def test_a_box_around_the_support_far_larger_than_the_volume_has_larger_cells():
    labels = np.zeros((96, 96, 96), np.uint8)
    labels[15:81, 15:81, 15:81] = 1
    labels[40:50, 40:50, 40:50] = 0
    kind_of_class = np.arange(256).astype(np.uint8)
    runtime = Runtime(max_memory=64 << 20)
    assert find_pores(labels, kind_of_class, 1.0, None, runtime).side == 1
    space = find_pores(labels, kind_of_class, 1.0, 44.0, runtime)  # a ball that asks for a margin of 46 px
    assert space.side == 2
    assert 18 * space.kinds.size < 0.6 * runtime.max_memory
    assert find_pores(labels, kind_of_class, 1.0, 44.0, Runtime(max_memory=1 << 30)).side == 1


def test_cells_are_as_small_as_the_box_around_the_support_allows():
    """A volume that is mostly vacuum has the pores of its support, whatever memory is allowed."""
    labels = np.zeros((40, 400, 400), np.uint8)
    labels[8:32, 100:150, 300:360] = 1
    labels[18:22, 110:140, 310:314] = 0  # a closed slit of four voxels
    kind_of_class = np.arange(256).astype(np.uint8)
    found = [find_pores(labels, kind_of_class, 1.0, None, Runtime(max_memory=m << 20)) for m in (64, 4096)]
    assert [space.side for space in found] == [1, 1]
    assert [int((space.numbers == 1).sum()) for space in found] == [4 * 30 * 4] * 2
    assert find_pores(np.zeros_like(labels), kind_of_class, 1.0, None, Runtime()) is None
    find_pores(labels, kind_of_class, 1.0, None, Runtime(max_memory=1000))  # ends, although no cells are large enough


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
