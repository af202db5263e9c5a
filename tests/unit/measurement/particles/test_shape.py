import numpy as np
import pytest

from tomoseg.measurement.particles.shape import covariance, moments, principal_axes, sphericity


def test_moments_of_parts_add_up():
    mask = np.random.default_rng(0).random((7, 8, 9)) < 0.4
    whole = moments(mask, (3, -2, 100))
    parts = moments(mask[:3], (3, -2, 100)) + moments(mask[3:], (6, -2, 100))
    np.testing.assert_array_equal(parts, whole)
    places = np.argwhere(mask) + np.array([3, -2, 100])
    assert whole[:3].tolist() == places.sum(axis=0).tolist()
    np.testing.assert_allclose(
        covariance(whole, len(places)), np.cov(places.T, ddof=0) + np.eye(3) / 12, rtol=1e-9, atol=1e-9
    )


def test_one_voxel_is_a_cube():
    # Variance 1/12 along each axis: as an ellipsoid, 2 sqrt(5/12) px long.
    lengths, _ = principal_axes(covariance(moments(np.ones((1, 1, 1), bool)), 1)[None])
    np.testing.assert_allclose(lengths, 2 * np.sqrt(5 / 12))


def test_axes_are_sorted_and_their_direction_has_one_sign():
    turn = np.array([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0], [0.0, 0.8, -0.6]])
    lengths, major = principal_axes((turn.T @ np.diag([1.0, 9.0, 4.0]) @ turn)[None])
    np.testing.assert_allclose(lengths[0], 2 * np.sqrt(5 * np.array([9, 4, 1])))
    np.testing.assert_allclose(major[0], turn[1], atol=1e-12)
    for axis in range(3):
        _, major = principal_axes(np.diag(np.where(np.arange(3) == axis, 4.0, 1.0))[None])
        np.testing.assert_allclose(major[0], np.eye(3)[axis], atol=1e-12)


def test_no_particles():
    lengths, major = principal_axes(np.zeros((0, 3, 3)))
    assert lengths.shape == major.shape == (0, 3)


def test_sphericity_of_known_bodies():
    # Wadell (1935): the cube's is (pi / 6)^(1/3).
    assert sphericity(8.0, 24.0) == pytest.approx((np.pi / 6) ** (1 / 3))
    assert sphericity(4 / 3 * np.pi * 27, 4 * np.pi * 9) == pytest.approx(1)
    assert np.isnan(sphericity(5.0, 0.0))
