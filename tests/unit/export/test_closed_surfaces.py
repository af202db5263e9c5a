import numpy as np
import pytest

from tomoseg.export.surfaces import (
    CoarseLabels,
    LevelFinder,
    boundary_faces,
    coarsening,
    joined,
    on_cap,
    slab_mesh,
)
from tomoseg.measure.surface import enclosed_px3


def ball(radius_px, centre, shape):
    points = np.indices(shape)
    return (sum((p - c) ** 2 for p, c in zip(points, centre, strict=True)) <= radius_px**2).astype(np.uint8)


def class_mesh(labels, k=1, slab=1000, factor=1):
    coarse = CoarseLabels(labels, factor)
    pieces, finder = coarse.slabs(slab), LevelFinder(coarse, k)
    for piece in pieces:
        finder.add(piece)
    level = finder.level()
    return joined(slab_mesh(coarse, k, level, piece) for piece in pieces)


def open_edges(faces):
    """Return how many edges are not run through once in each direction."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forward, counts = np.unique(edges, axis=0, return_counts=True)
    backward = np.unique(edges[:, ::-1], axis=0)
    return int((counts != 1).sum()) + len(np.setxor1d(forward.view("i4,i4"), backward.view("i4,i4")))


def noise(shape, seed=0):
    from scipy.ndimage import gaussian_filter

    return (gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2) > 0).astype(np.uint8)


@pytest.mark.parametrize("slab", [1, 4, 9, 30])
@pytest.mark.parametrize("factor", [1, 2])
def test_slabs_join_without_a_seam(slab, factor):
    labels = noise((30, 26, 22))
    mesh = class_mesh(labels, slab=slab, factor=factor)
    assert open_edges(mesh.faces) == 0
    whole = class_mesh(labels, factor=factor)
    assert len(mesh.faces) == len(whole.faces)
    assert len(mesh.vertices) == len(whole.vertices)
    assert mesh.area_px2() == pytest.approx(whole.area_px2(), rel=1e-5)


@pytest.mark.parametrize(("factor", "tolerance"), [(1, 0.01), (2, 0.02)])
def test_sphere(factor, tolerance):
    labels = ball(12, (20.3, 19.8, 20.1), (41, 40, 43))
    mesh = class_mesh(labels, slab=7, factor=factor)
    # Within 1% at full resolution, as measured areas are; of blocks of 2 it is a sphere of radius 6, which scatters.
    assert mesh.area_px2() == pytest.approx(4 * np.pi * 144, rel=tolerance)
    assert enclosed_px3(mesh, labels.shape) == pytest.approx(labels.sum(), rel=tolerance)
    # The surface is half a voxel around the outermost centres, less what smoothing takes off a digital pole (0.4 px).
    extent = mesh.vertices.max(axis=0) - mesh.vertices.min(axis=0)
    assert extent == pytest.approx([24, 24, 24], abs=1)


def test_caps_half_a_voxel_outside_and_marked():
    labels = np.zeros((12, 20, 20), np.uint8)
    labels[:, 6:14, 6:14] = 1  # a bar from border to border
    mesh = class_mesh(labels, slab=5)
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
    mesh = class_mesh(np.ones((8, 9, 10), np.uint8), slab=3)
    np.testing.assert_allclose(mesh.vertices.min(axis=0), [-0.5] * 3, atol=1e-5)
    np.testing.assert_allclose(mesh.vertices.max(axis=0), [7.5, 8.5, 9.5], atol=1e-5)
    assert on_cap(mesh.vertices, mesh.faces, (8, 9, 10)).mean() > 0.7  # the rest are bevelled edges


def test_absent_class_has_no_surface():
    assert len(class_mesh(np.zeros((8, 9, 10), np.uint8)).faces) == 0


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_blocks_hold_the_part_of_the_class(factor):
    labels = noise((10, 11, 12))
    coarse = CoarseLabels(labels, factor)
    assert coarse.shape == tuple(int(np.ceil(n / factor)) for n in labels.shape)
    fraction = coarse.fraction(coarse.read(slice(1, 3)), 1)
    for z in (0, 1):
        part = labels[(1 + z) * factor : (2 + z) * factor, factor : 2 * factor, :factor]
        assert fraction[z, 1, 0] == pytest.approx(part.mean(), abs=1e-6)


@pytest.mark.parametrize("slab", [1, 3, 10])
def test_boundary_faces_against_counting_by_axis(slab):
    labels = np.random.default_rng(0).integers(0, 3, (10, 7, 8)).astype(np.uint8)
    found = boundary_faces((labels[z : z + slab] for z in range(0, 10, slab)), 3)
    for k in range(3):
        mask = (labels == k).astype(int)
        assert found[k] == sum(np.abs(np.diff(mask, axis=axis)).sum() for axis in range(3))


def test_coarsening_follows_target_and_memory():
    much = 1 << 40
    assert coarsening(1000, 0, much) == 1
    assert coarsening(10_000_000, 0, much) == 1
    assert coarsening(10_000_000, 500_000, much) == 4  # 20 million triangles, / 16 = 1.25 million = 2.5 x the target
    assert coarsening(10_000_000, 0, 1 << 30) > 1
    assert coarsening(0, 500_000, much) == 1
