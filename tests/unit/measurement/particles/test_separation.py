import numpy as np
import pytest
from scipy import ndimage

from tests.unit.measurement.shapes import separate
from tomoseg.measurement.common.sparse_object import SparseObject


def ball(shape, centre, radius):
    points = np.indices(shape)
    return sum((p - c) ** 2 for p, c in zip(points, centre, strict=True)) <= radius**2


def test_parts_cover_the_object_and_each_hangs_together():
    shape = (22, 30, 54)
    centres = [(10, 10, 10), (11, 12, 22), (10, 16, 34), (11, 14, 45)]
    mask = np.any([ball(shape, c, 7) for c in centres], axis=0)
    parts = separate(mask)
    np.testing.assert_array_equal(parts > 0, mask)
    assert parts.max() == 4
    assert sorted(parts[c] for c in centres) == [1, 2, 3, 4]
    for k in range(1, 5):
        assert ndimage.label(parts == k, np.ones((3, 3, 3)))[1] == 1


def test_ratio_decides():
    # Neck 0.6 of the radius.
    mask = ball((30, 30, 46), (14.5, 14.5, 14.5), 10) | ball((30, 30, 46), (14.5, 14.5, 30.5), 10)
    assert [separate(mask, ratio).max() for ratio in (0.4, 0.7, 0.9)] == [1, 2, 2]


def test_small_particle_on_a_large_one_is_cut_off():
    shape = (40, 40, 52)
    mask = ball(shape, (19.5, 19.5, 19.5), 13) | ball(shape, (19.5, 19.5, 36.5), 6)
    parts = separate(mask)
    assert parts.max() == 2
    assert parts[19, 19, 19] == 1  # the widest first
    assert np.count_nonzero(parts == 2) == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.1)  # the overlap is neither's


def test_particle_cut_by_the_border_is_one():
    assert separate(ball((10, 30, 30), (0, 14.5, 14.5), 9)).max() == 1


@pytest.mark.parametrize("fill", [True, False])
def test_all_or_nothing(fill):
    mask = np.full((3, 4, 5), fill)
    np.testing.assert_array_equal(separate(mask), mask.astype(np.int32))


def test_rough_particles_are_not_cut():
    # Roughness of 0.7 px rms on a radius of 8 px: bumps are no particles.
    rng = np.random.default_rng(2)
    z, y, x = np.indices((28, 28, 28)) - 13.4
    for _ in range(5):
        noise = ndimage.gaussian_filter(rng.standard_normal(z.shape), 1)
        mask = 8 - np.sqrt(z**2 + y**2 + x**2) + 0.7 * noise / noise.std() > 0
        labels, _ = ndimage.label(mask)
        assert separate(labels == labels[13, 13, 13]).max() == 1


def by_definition(mask, neck_ratio):
    """Cut as `separation` says, with SciPy's distances and plain loops over a dictionary of voxels."""
    radius = ndimage.distance_transform_edt(mask).astype(np.float32) - np.float32(0.5)
    voxels = sorted(map(tuple, np.argwhere(mask)), key=lambda v: -radius[v])  # equal ones as they come
    basin, parent, peak = {}, [], []

    def root(b):
        return b if parent[b] == b else root(parent[b])

    for v in voxels:
        steps = (np.indices((3, 3, 3)).reshape(3, -1).T - 1).tolist()
        around = [o for o in (tuple(np.add(v, step)) for step in steps) if o in basin]
        roots = sorted({root(basin[o]) for o in around}, key=lambda b: (-peak[b], b))
        for lower in roots[1:]:
            if radius[v] > min(np.float32(neck_ratio) * peak[lower], peak[lower] - 1):
                parent[lower] = roots[0]
        if around:
            basin[v] = basin[max(around, key=lambda o: radius[o])]  # the first of the widest
        else:
            basin[v] = len(parent)
            parent.append(len(parent))
            peak.append(radius[v])
    standing = [b for b in range(len(parent)) if parent[b] == b]
    parts = np.zeros(mask.shape, np.int32)
    for v, b in basin.items():
        parts[v] = standing.index(root(b)) + 1
    return parts


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("neck_ratio", [0.4, 0.7, 0.95])
def test_parts_are_those_of_the_definition(seed, neck_ratio):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((15, 17, 19)), rng.uniform(0.7, 2))
    mask = smooth > np.quantile(smooth, rng.uniform(0.3, 0.7))
    if seed % 2:
        mask = np.pad(mask, 1)  # else it goes on at the border of the volume
    np.testing.assert_array_equal(separate(mask, neck_ratio), by_definition(mask, neck_ratio))


@pytest.mark.parametrize("density", [0.02, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(9, 10, 11), (1, 12, 13), (12, 1, 1), (4, 30, 5)])
def test_radii_are_the_distances_of_scipy(shape, density):
    mask = np.random.default_rng(4).random(shape) < density
    mask.flat[-1] = False
    sparse = SparseObject.of([mask[:3], mask[3:]], tuple(slice(0, n) for n in shape))
    truth = np.rint(ndimage.distance_transform_edt(mask)[mask] ** 2)
    np.testing.assert_array_equal(sparse.squared_radii(), truth)
    everything = sparse.mask(sparse.box, np.ones(len(sparse.x), np.int32), 1)
    np.testing.assert_array_equal(everything, mask)


def test_extents_and_masks_of_parts():
    parts = np.random.default_rng(5).integers(0, 4, (6, 7, 8)).astype(np.int32)
    sparse = SparseObject.of([parts > 0], (slice(10, 16), slice(20, 27), slice(30, 38)))
    numbers = parts[parts > 0]
    for k, row in enumerate(sparse.extents(numbers), start=1):
        where = np.argwhere(parts == k) + np.array([10, 20, 30])
        assert row["voxels"] == len(where)
        assert row["start"].tolist() == where.min(axis=0).tolist()
        assert row["stop"].tolist() == (where.max(axis=0) + 1).tolist()
        assert row["sum"].tolist() == where.sum(axis=0).tolist()
        box = (slice(1, 5), slice(0, 6), slice(3, 8))
        np.testing.assert_array_equal(sparse.mask(box, numbers, k), parts[box] == k)
