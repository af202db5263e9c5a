"""Which angles the images support: blobs in closed form, seen at known tilts and anywhere in the frame."""

import numpy as np
import pytest

from tomoseg.io.order import clearly_better, comparable, order_score, prefers, similarity, thumbnails

ANGLES = np.arange(-63, 64, 3.0)  # 43 tilts


def _blobs(angles_deg, *, depth=1.0, n=25, side=48, jitter=3.0, noise=0.02, seed=0):
    """Images of Gaussian blobs at random places of a box `depth` times as deep as wide, moved at random."""
    rng = np.random.default_rng(seed)
    x, z, y = rng.uniform(-0.3, 0.3, (3, n)) * side
    z *= depth
    size, weight = rng.uniform(1.2, 3, n), rng.uniform(0.5, 2, n)
    at = np.arange(side) - (side - 1) / 2
    images = []
    for t in np.deg2rad(angles_deg):
        dy, dx = rng.normal(0, jitter, 2)
        u = x * np.cos(t) + z * np.sin(t)
        rows = np.exp(-0.5 * ((at[:, None] - y - dy) / size) ** 2)
        columns = np.exp(-0.5 * ((at[:, None] - u - dx) / size) ** 2)
        images.append(np.einsum("yb,xb,b->yx", rows, columns, weight))
    images = np.array(images)
    return images + noise * images.max() * rng.standard_normal(images.shape)


@pytest.fixture(scope="module")
def alike():
    return similarity(_blobs(ANGLES))


def _wrong_orders():
    n, half = len(ANGLES), len(ANGLES) // 2
    dose_symmetric = ANGLES[np.argsort(np.abs(ANGLES), kind="stable")]
    return {
        "dose-symmetric angles of a sorted stack": dose_symmetric,
        "sorted angles of a dose-symmetric stack": ANGLES[np.argsort(np.argsort(np.abs(ANGLES), kind="stable"))],
        "halves swapped": np.roll(ANGLES, half),
        "one half reversed": np.r_[ANGLES[:half], ANGLES[half:][::-1]],
        "shuffled": np.random.default_rng(4).permutation(ANGLES),
        "every other": np.r_[ANGLES[::2], ANGLES[1::2]][:n],
    }


def test_similarity_is_a_correlation_of_pairs_wherever_they_lie(alike):
    np.testing.assert_allclose(alike, alike.T)
    np.testing.assert_array_equal(np.diag(alike), 1)
    assert alike.min() >= -1
    assert alike.max() <= 1 + 1e-6
    assert np.diagonal(alike, 1).min() > np.diagonal(alike, 20).max()


def test_brightness_background_and_spikes_do_not_count(alike):
    rng = np.random.default_rng(1)
    images = _blobs(ANGLES)
    images = images * rng.uniform(0.3, 3, len(ANGLES))[:, None, None] + rng.uniform(-50, 50, len(ANGLES))[:, None, None]
    images[np.arange(len(ANGLES)), rng.integers(0, 48, len(ANGLES)), rng.integers(0, 48, len(ANGLES))] += 1e4
    assert np.abs(similarity(images) - alike).max() < 0.06


@pytest.mark.parametrize("name", _wrong_orders())
@pytest.mark.parametrize("depth", [1.0, 0.15])
def test_the_true_angles_are_preferred_to_wrong_ones(name, depth):
    # A flat sample looks alike at tilts of either sign, which must not speak for an order by the size of the tilt.
    found = similarity(_blobs(ANGLES, depth=depth, seed=2))
    wrong = _wrong_orders()[name]
    assert order_score(found, wrong) < order_score(found, ANGLES)
    assert prefers(found, [wrong, ANGLES]) == 1
    assert prefers(found, [ANGLES, wrong]) == 0


def test_what_cannot_be_told_is_not(alike):
    assert order_score(alike, ANGLES) == pytest.approx(order_score(alike, -ANGLES))
    assert prefers(alike, [ANGLES, -ANGLES]) is None
    assert prefers(alike, [ANGLES, ANGLES + 0.5]) is None
    assert prefers(alike, [ANGLES]) is None
    few = alike[:4, :4]
    assert np.isnan(order_score(few, ANGLES[:4]))
    assert prefers(few, [ANGLES[:4], ANGLES[[2, 0, 3, 1]]]) is None


def test_noise_alone_supports_no_order():
    rng = np.random.default_rng(3)
    found = similarity(rng.standard_normal((30, 32, 32)))
    angles = np.linspace(-60, 60, 30)
    assert order_score(found, angles) < 0.1
    assert all(prefers(found, [angles, rng.permutation(angles)]) is None for _ in range(20))


def test_empty_and_foreign_images_are_left_out(alike):
    images = _blobs(ANGLES)
    images[7] = 5.0
    images[30] = np.random.default_rng(5).standard_normal(images[30].shape)
    found = similarity(images)
    np.testing.assert_array_equal(np.flatnonzero(~comparable(found)), [7, 30])
    assert order_score(found, ANGLES) == pytest.approx(order_score(alike, ANGLES), abs=0.05)


def test_repeated_exposures_and_a_full_turn_are_no_contradiction():
    angles = np.repeat(np.arange(-60, 61, 6.0), 2)
    assert order_score(similarity(_blobs(angles)), angles) > 0.7
    angles = np.arange(0, 180, 6.0)
    found = similarity(_blobs(angles))
    assert prefers(found, [np.roll(angles, 11), np.random.default_rng(6).permutation(angles)]) == 0


def test_thumbnails_average_and_fill_gaps():
    images = np.arange(2 * 130 * 200, dtype=np.uint16).reshape(2, 130, 200)
    small = thumbnails(images)
    assert small.shape == (2, 32, 50)
    assert small[1, 0, 0] == images[1, :4, :4].mean()
    gaps = np.ones((1, 4, 4))
    gaps[0, 1] = np.nan
    np.testing.assert_array_equal(thumbnails(gaps), np.ones((1, 4, 4)))
    np.testing.assert_array_equal(thumbnails(np.full((1, 4, 4), np.inf)), np.zeros((1, 4, 4)))


def test_a_small_rest_is_clearly_better_even_if_the_scores_are_close():
    assert clearly_better(0.93, 0.87)
    assert not clearly_better(0.55, 0.49)
    assert clearly_better(0.31, 0.2)
