import numpy as np
import pytest
from scipy import ndimage

from tomoseg.measure.components import component_at, find_components


def rank_of(connectivity):
    return {6: 1, 18: 2, 26: 3}[connectivity]


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("slab", [1, 3, 16, 50])
@pytest.mark.parametrize("density", [0.1, 0.3, 0.6])
def test_any_slabs_give_the_components_of_the_whole(connectivity, slab, density):
    rng = np.random.default_rng(7)
    mask = rng.random((17, 14, 12)) < density
    found = find_components((mask[z : z + slab] for z in range(0, 17, slab)), connectivity)
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
    seeds = [tuple(row["seed"]) for row in found]
    assert seeds == sorted(seeds)


def test_nothing_there():
    assert len(find_components([np.zeros((4, 5, 6), bool)])) == 0
    assert len(find_components([])) == 0


def test_component_at_is_what_hangs_together_with_the_seed():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 1, 1:4] = True
    mask[2, 2, 4] = True  # shares a corner only
    assert component_at(mask, (1, 1, 2), 6).sum() == 3
    assert component_at(mask, (1, 1, 2), 26).sum() == 4
