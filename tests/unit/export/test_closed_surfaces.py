import numpy as np
import pytest

from tomoseg.export.surfaces import (
    CoarseLabels,
    block_surface,
    boundary_faces,
    coarsening,
    joined,
    on_cap,
)
from tomoseg.measurement.common.surface import LevelFinder, enclosed_px3


def ball(radius_px, centre, shape):
    points = np.indices(shape)
    return (sum((p - c) ** 2 for p, c in zip(points, centre, strict=True)) <= radius_px**2).astype(np.uint8)


def class_mesh(labels, k=1, factor=1, n_bytes=1e9):
    coarse, finder = CoarseLabels(labels, factor), LevelFinder()
    parts = [part for strip in coarse.strips(n_bytes) for part in strip.parts(coarse.fraction(strip.read, k))]
    for block, fraction in parts:
        finder.add(fraction, block)
    patches = (block_surface(fraction, finder.level(), block) for block, fraction in parts)
    return joined([patch for patch in patches if patch], coarse)


def open_edges(faces):
    """Return how many edges are not run through once in each direction."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forward, counts = np.unique(edges, axis=0, return_counts=True)
    backward = np.unique(edges[:, ::-1], axis=0)
    return int((counts != 1).sum()) + len(np.setxor1d(forward.view("i4,i4"), backward.view("i4,i4")))


def noise(shape, seed=0):
    from scipy.ndimage import gaussian_filter

    return (gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2) > 0).astype(np.uint8)


@pytest.mark.parametrize("side", [3, 8, 30])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_blocks_join_without_a_seam(side, factor, monkeypatch):
    labels = noise((30, 26, 22))
    whole = class_mesh(labels, factor=factor)
    monkeypatch.setattr("tomoseg.measurement.common.blocks.SIDE_PX", side)
    mesh = class_mesh(labels, factor=factor)
    assert open_edges(mesh.faces) == 0
    assert len(mesh.faces) == len(whole.faces)
    assert len(mesh.vertices) == len(whole.vertices)
    assert mesh.area_px2() == pytest.approx(whole.area_px2(), rel=1e-5)
    little = class_mesh(labels, factor=factor, n_bytes=0)
    np.testing.assert_array_equal(little.vertices, mesh.vertices)  # to the bit
    np.testing.assert_array_equal(little.faces, mesh.faces)


@pytest.mark.parametrize(("factor", "tolerance"), [(1, 0.01), (2, 0.02)])
def test_sphere(factor, tolerance, monkeypatch):
    monkeypatch.setattr("tomoseg.measurement.common.blocks.SIDE_PX", 7)
    labels = ball(12, (20.3, 19.8, 20.1), (41, 40, 43))
    mesh = class_mesh(labels, factor=factor)
    # Within 1% at full resolution, as measured areas are; of blocks of 2 it is a sphere of radius 6, which scatters.
    assert mesh.area_px2() == pytest.approx(4 * np.pi * 144, rel=tolerance)
    assert enclosed_px3(mesh, labels.shape) == pytest.approx(labels.sum(), rel=tolerance)
    # The surface is half a voxel around the outermost centres, less what smoothing takes off a digital pole (0.4 px).
    extent = mesh.vertices.max(axis=0) - mesh.vertices.min(axis=0)
    assert extent == pytest.approx([24, 24, 24], abs=1)


def test_caps_half_a_voxel_outside_and_marked(monkeypatch):
    monkeypatch.setattr("tomoseg.measurement.common.blocks.SIDE_PX", 5)
    labels = np.zeros((12, 20, 20), np.uint8)
    labels[:, 6:14, 6:14] = 1  # a bar from border to border
    mesh = class_mesh(labels)
    assert open_edges(mesh.faces) == 0
    assert mesh.vertices[:, 0].min() == pytest.approx(-0.5, abs=1e-5)
    assert mesh.vertices[:, 0].max() == pytest.approx(11.5, abs=1e-5)
    flat = on_cap(mesh.vertices, mesh.faces, labels.shape)
    areas = np.linalg.norm(mesh.area_vectors(), axis=1)
    assert areas[flat].sum() == pytest.approx(2 * 7**2, rel=1e-5)  # the outer half voxel is a bevel to the sides
    normals = mesh.area_vectors()[flat]
    assert np.abs(normals[:, 1:]).max() < 1e-3
    z = mesh.vertices[mesh.faces[flat], 0].mean(axis=1)
    assert (np.sign(normals[:, 0]) == np.where(z < 5, -1, 1)).all()  # outwards


def test_all_of_a_volume_is_a_box():
    mesh = class_mesh(np.ones((8, 9, 10), np.uint8))
    np.testing.assert_allclose(mesh.vertices.min(axis=0), [-0.5] * 3, atol=1e-5)
    np.testing.assert_allclose(mesh.vertices.max(axis=0), [7.5, 8.5, 9.5], atol=1e-5)
    assert on_cap(mesh.vertices, mesh.faces, (8, 9, 10)).mean() > 0.7  # the rest are bevelled edges


def test_absent_class_has_no_surface():
    assert len(class_mesh(np.zeros((8, 9, 10), np.uint8)).faces) == 0


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_cells_hold_the_part_of_the_class(factor):
    labels = noise((10, 11, 12))
    coarse = CoarseLabels(labels, factor)
    assert coarse.shape == tuple(int(np.ceil(n / factor)) for n in labels.shape)
    fraction = coarse.fraction((slice(1, 3), slice(1, 3), slice(0, coarse.shape[2])), 1)
    for z in (0, 1):
        part = labels[(1 + z) * factor : (2 + z) * factor, factor : 2 * factor, :factor]
        assert fraction[z, 0, 0] == pytest.approx(part.mean(), abs=1e-6)


@pytest.mark.parametrize("slab", [1, 3, 10])
def test_boundary_faces_against_counting_by_axis(slab):
    labels = np.random.default_rng(0).integers(0, 3, (10, 7, 8)).astype(np.uint8)
    found = boundary_faces((labels[z : z + slab] for z in range(0, 10, slab)), 3)
    for k in range(3):
        mask = (labels == k).astype(int)
        assert found[k] == sum(np.abs(np.diff(mask, axis=axis)).sum() for axis in range(3))


def test_coarsening_follows_the_target_only():
    assert coarsening(1000, 0) == coarsening(1_000_000_000, 0) == coarsening(0, 500_000) == 1
    assert coarsening(10_000_000, 500_000) == 7  # 20 million triangles, / 49 = 408 000
    assert coarsening(80_000, 30_000) == 2  # 160 000, / 4 = 40 000, which can be thinned out
    assert coarsening(100_000, 200_000) == 1
