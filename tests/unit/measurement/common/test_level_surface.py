import numpy as np
import pytest

from tomoseg.measurement.common.surface import (
    RADIUS_PX,
    block_of,
    count_values,
    enclosed_px3,
    kernel,
    level_of,
    level_surface,
    object_surface,
    smooth,
)
from tomoseg.runtime import slabs

ALL_SIDES = ((True, True),) * 3


def test_kernel_keeps_means_and_does_not_shift_curved_surfaces():
    taps = kernel().astype(np.float64)
    x = np.arange(-RADIUS_PX, RADIUS_PX + 1)
    assert taps.sum() == pytest.approx(1, abs=1e-6)  # float32
    assert (taps * x**2).sum() == pytest.approx(0, abs=1e-5)
    np.testing.assert_array_equal(taps, taps[::-1])


def test_smoothing_leaves_its_input_and_what_is_uniform():
    mask = np.zeros((20, 20, 20), bool)
    mask[:10] = True
    before = mask.copy()
    field = smooth(mask)
    np.testing.assert_array_equal(mask, before)
    np.testing.assert_allclose(field[:, 3, 4], field[:, 19, 0], atol=1e-6)
    np.testing.assert_allclose(field[[0, -1], 0, 0], [1, 0], atol=1e-6)  # goes on unchanged beyond the ends


def test_triangles_are_counter_clockwise_from_outside():
    z, y, x = np.indices((24, 24, 24)) - 11.3
    mesh = level_surface((8 - np.sqrt(z**2 + y**2 + x**2)).astype(np.float32), 0.0)
    centres = mesh.vertices[mesh.faces].mean(axis=1) - 11.3
    outward = (centres * mesh.area_vectors()).sum(axis=1)
    assert (outward > 0).all()
    # Inscribed triangles of 1 px side lose about 1 px^2 / (6 R^2) of the area.
    assert mesh.area_px2() == pytest.approx(4 * np.pi * 64, rel=0.006)
    assert enclosed_px3(mesh, (24, 24, 24)) == pytest.approx(4 / 3 * np.pi * 512, rel=0.01)


def test_winding_is_that_of_x_y_z():
    # One face of a cube: looked at from +x, (y, z) turn counter-clockwise, so the normal of (x, y, z) triples is +x.
    field = np.zeros((6, 6, 6), np.float32)
    field[:, :, :3] = 1
    mesh = level_surface(field, 0.5)
    a, b, c = (mesh.vertices[mesh.faces[:, i]][:, ::-1] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 0] > 0).all()


def test_plane_counts_up_to_the_borders_of_the_volume():
    field = np.zeros((7, 9, 11), np.float32)
    field[:3] = 1
    assert level_surface(field, 0.5, ALL_SIDES).area_px2() == pytest.approx(9 * 11, rel=1e-6)
    assert level_surface(field, 0.5).area_px2() == pytest.approx(8 * 10, rel=1e-6)


@pytest.mark.parametrize("field", [np.zeros((5, 5, 5)), np.ones((5, 5, 5)), np.zeros((1, 5, 5))])
def test_nothing_to_mesh(field):
    mesh = level_surface(field.astype(np.float32), 0.5, ALL_SIDES)
    assert len(mesh.faces) == 0
    assert mesh.area_px2() == 0


def test_one_voxel_has_a_surface_of_its_volume():
    mask = np.zeros((13, 13, 13), bool)
    mask[6, 6, 6] = True
    mesh = object_surface(mask)
    assert enclosed_px3(mesh, mask.shape) == pytest.approx(1, rel=0.003)
    # Between the sphere (4.84 px^2) and the cube (6 px^2) of that volume.
    assert 4.6 < mesh.area_px2() < 6


def test_rod_through_the_whole_volume_is_open_at_both_ends():
    y, x = np.indices((30, 30)) - 14.4
    mask = np.broadcast_to(y**2 + x**2 <= 64, (12, 30, 30))
    border = ((True, True), (False, False), (False, False))
    mesh = object_surface(mask, border)
    assert mesh.area_px2() == pytest.approx(2 * np.pi * 8 * 12, rel=0.02)  # no lids
    assert enclosed_px3(mesh, mask.shape, border) == pytest.approx(mask.sum(), rel=0.003)


def test_level_is_where_the_count_is_right():
    values = np.concatenate([np.full(100, 0.9), np.full(50, 0.6), np.full(70, 0.1)]).astype(np.float32)
    histogram = count_values(values)
    # Any level between 0.1 and 0.6 leaves 150 above: the middle, to the width of a bin.
    assert level_of(histogram, 150) == pytest.approx(0.35, abs=0.004)
    assert level_of(histogram, 100) == pytest.approx(0.7, abs=1e-9)  # 0.75 is beyond the limit
    assert level_of(histogram, 0) == pytest.approx(0.7, abs=1e-9)
    assert level_of(histogram, 220) == pytest.approx(0.3, abs=1e-9)


def test_slabs_meet_and_only_the_ends_are_borders():
    plane = slice(0, 8)
    first, middle, last = (block_of((z, plane, plane), (30, 8, 8)) for z in slabs(30, 10))
    assert (first.read[0], middle.read[0], last.read[0]) == (slice(0, 16), slice(5, 26), slice(15, 30))
    assert (middle.own[0], middle.meshed[0]) == (slice(5, 15), slice(5, 16))
    assert last.meshed[0] == slice(5, 15)
    assert [s.border[0] for s in (first, middle, last)] == [(True, False), (False, False), (False, True)]
