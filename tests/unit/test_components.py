import numpy as np
import pytest
from scipy import ndimage

from tomoseg.components import BoxReader, Component, find_components


def rank_of(connectivity):
    return {6: 1, 18: 2, 26: 3}[connectivity]


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("slab", [1, 3, 16, 50])
@pytest.mark.parametrize("density", [0.1, 0.3, 0.6])
def test_any_slabs_give_the_components_of_the_whole(connectivity, slab, density):
    rng = np.random.default_rng(7)
    mask = rng.random((17, 14, 12)) < density
    found, n_small = find_components((mask[z : z + slab] for z in range(0, 17, slab)), connectivity)
    assert n_small == 0
    structure = ndimage.generate_binary_structure(3, rank_of(connectivity))
    labels, n = ndimage.label(mask, structure)
    assert len(found) == n
    boxes = ndimage.find_objects(labels)
    for row in found:
        k = labels[tuple(row["seed"])]
        assert row["voxels"] == np.count_nonzero(labels == k)
        assert [slice(a, b) for a, b in zip(row["start"], row["stop"], strict=True)] == list(boxes[k - 1])
        np.testing.assert_allclose(row["sum"] / row["voxels"], ndimage.center_of_mass(labels == k), atol=1e-9)
    assert len({labels[tuple(row["seed"])] for row in found}) == n
    for row in found:
        assert tuple(row["seed"]) == tuple(np.argwhere(labels == labels[tuple(row["seed"])])[0])
    seeds = [tuple(row["seed"]) for row in found]
    assert seeds == sorted(seeds)


@pytest.mark.parametrize("slab", [1, 4, 50])
def test_small_components_are_only_counted(slab):
    mask = np.random.default_rng(3).random((17, 14, 12)) < 0.25
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())[1:]
    found, n_small = find_components((mask[z : z + slab] for z in range(0, 17, slab)), 6, min_voxels=5)
    assert sorted(found["voxels"]) == sorted(sizes[sizes >= 5])
    assert n_small == np.count_nonzero(sizes < 5)


@pytest.mark.parametrize("slab", [1, 3, 50])
@pytest.mark.parametrize("density", [0.2, 0.35])
def test_leaving_out_the_small_ones_changes_no_other(slab, density):
    mask = np.random.default_rng(5).random((17, 14, 12)) < density
    everything, _ = find_components(mask[z : z + 3] for z in range(0, 17, 3))
    found, n_small = find_components((mask[z : z + slab] for z in range(0, 17, slab)), 6, min_voxels=7)
    large = everything[everything["voxels"] >= 7]
    np.testing.assert_array_equal(found, large)
    assert n_small == len(everything) - len(large)
    assert n_small > 0
    assert len(large) > 0


def test_nothing_there():
    for slabs in ([np.zeros((4, 5, 6), bool)], []):
        found, n_small = find_components(slabs)
        assert len(found) == n_small == 0


def component(mask, seed, connectivity, slab=50):
    slabs = Component(lambda: (mask[z : z + slab] for z in range(0, len(mask), slab)), seed, connectivity)
    return np.concatenate(list(slabs))


def test_component_is_what_hangs_together_with_the_seed():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 1, 1:4] = True
    mask[2, 2, 4] = True  # shares a corner only
    assert component(mask, (1, 1, 2), 6).sum() == 3
    assert component(mask, (1, 1, 2), 26).sum() == 4


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("slab", [1, 3, 50])
def test_component_in_any_slabs(connectivity, slab):
    mask = np.random.default_rng(8).random((17, 14, 12)) < 0.35
    labels, _ = ndimage.label(mask, ndimage.generate_binary_structure(3, rank_of(connectivity)))
    for k in np.unique(labels)[1::5]:
        seed = np.argwhere(labels == k)[-1]
        np.testing.assert_array_equal(component(mask, seed, connectivity, slab), labels == k)


def test_boxes_of_what_comes_slab_by_slab():
    mask = np.random.default_rng(9).random((20, 6, 7)) < 0.5
    reader = BoxReader([mask[:7], mask[7:8], mask[8:]])
    for z in (slice(0, 9), slice(5, 12), slice(18, 20), slice(3, 4)):  # forwards with overlap, a gap, back
        box = (z, slice(1, 5), slice(2, 7))
        np.testing.assert_array_equal(reader.read(box), mask[box])
