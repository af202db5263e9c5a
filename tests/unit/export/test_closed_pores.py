import numpy as np
import pytest

from tomoseg.export.meshing import box_voxels, closed_pores, pore_surface, together
from tomoseg.measurement.common.surface import enclosed_px3

SHAPE = (40, 44, 48)


def solid():
    """Return a block with two spherical holes in it, a channel to the outside, and a speck of background."""
    z, y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:36, 4:40, 4:44] = 1
    labels[(z - 14) ** 2 + (y - 14) ** 2 + (x - 14) ** 2 <= 36] = 0
    labels[(z - 26) ** 2 + (y - 30) ** 2 + (x - 20) ** 2 <= 25] = 2  # filled by another class: no pore
    labels[(z - 26) ** 2 + (y - 30) ** 2 + (x - 34) ** 2 <= 16] = 0
    labels[20, 20, 20:44] = 0
    labels[30, 10, 40] = 0
    return labels


@pytest.mark.parametrize("size", [1, 7, 40])
def test_only_closed_pores_are_found_whatever_the_slabs(size):
    labels = solid()
    pores = closed_pores((labels[i : i + size] == 0 for i in range(0, 40, size)), SHAPE)
    assert len(pores) == 2
    np.testing.assert_allclose(pores["sum"] / pores["voxels"][:, None], [[14, 14, 14], [26, 30, 34]])
    assert (box_voxels(pores) == np.array([23**3, 19**3])).all()


def test_surfaces_enclose_the_pores_where_they_are():
    labels = solid()
    pores = closed_pores([labels == 0], SHAPE)
    meshes = [pore_surface(labels, pore) for pore in pores]
    for mesh, pore, radius in zip(meshes, pores, (6, 4), strict=True):
        assert enclosed_px3(mesh, SHAPE) == pytest.approx(pore["voxels"], rel=0.002)
        distance = np.linalg.norm(mesh.vertices - pore["sum"] / pore["voxels"], axis=1)
        np.testing.assert_allclose(distance, radius + 0.1, atol=0.5)
    both = together(meshes)
    assert enclosed_px3(both, SHAPE) == pytest.approx(pores["voxels"].sum(), rel=0.002)
    assert len(both.faces) == sum(len(mesh.faces) for mesh in meshes)


def test_a_pore_beside_another_in_its_box_is_not_taken_in():
    labels = np.ones((20, 20, 20), np.uint8)
    labels[4:14, 4:14, 4] = labels[4, 4:14, 4:14] = 0  # an angle, and a small pore in the box around it
    labels[9:12, 9:12, 9:12] = 0
    pores = closed_pores([labels == 0], labels.shape)
    assert sorted(pores["voxels"].tolist()) == [27, 190]
    for pore in pores:
        assert enclosed_px3(pore_surface(labels, pore), labels.shape) == pytest.approx(pore["voxels"], rel=0.01)


def test_nothing_is_closed_where_there_is_nothing():
    assert len(closed_pores([np.ones((5, 6, 7), bool)], (5, 6, 7))) == 0
    assert len(together([]).faces) == 0
