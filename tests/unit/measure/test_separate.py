import numpy as np
import pytest
from scipy import ndimage

from tomoseg.measure.separate import separate


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
