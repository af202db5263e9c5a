"""The projector used for alignment only: closed forms, and the simulator's independent one."""

import numpy as np
import pytest

from tomoseg.align.projector import angular_weights, back_project, project, ramp_filter
from tomoseg.simulate import project as exact_project


def _blobs(n=48):
    z, y, x = np.indices((n, n, n)) - (n - 1) / 2
    spots = [(-8, 3, 5, 3.0), (6, -5, -9, 4.0), (2, 9, 10, 2.5)]  # z, y, x, sigma
    return sum(np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / (2 * s**2)) for a, b, c, s in spots).astype("f4")


def test_it_sees_a_point_where_the_convention_says():
    volume = np.zeros((21, 21, 1), np.float32)  # z, x, y
    volume[10 + 3, 10 + 5] = 1
    angles = np.array([0.0, 90.0, -90.0, 30.0])
    lines = project(volume, angles)[:, :, 0]
    s = (lines * (np.arange(21) - 10)).sum(1) / lines.sum(1)
    t = np.deg2rad(angles)
    np.testing.assert_allclose(s, 5 * np.cos(t) + 3 * np.sin(t), atol=0.25)  # linear interpolation of one voxel


@pytest.mark.parametrize("workers", [1, 2])
def test_it_agrees_with_an_exact_projector(workers):
    volume, angles = _blobs(), np.array([-75.0, -45.0, 0.0, 20.0, 60.0])
    expected = exact_project(volume, angles).transpose(0, 2, 1)
    found = project(np.ascontiguousarray(volume.transpose(0, 2, 1)), angles, workers)
    # Joseph's linear interpolation blurs blobs of sigma 2.5 px by 1 / (12 sigma**2) = 1 %.
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.02


def test_filtered_back_projection_gives_the_density_back():
    volume, angles = _blobs(), np.arange(0, 180, 2.0)
    lines = np.ascontiguousarray(exact_project(volume, angles).transpose(0, 2, 1))
    found = back_project(ramp_filter(lines, angles), angles, 48, 2).transpose(0, 2, 1)
    # The Shepp-Logan window and linear interpolation smooth: a few per cent, in scale too.
    assert np.linalg.norm(found - volume) / np.linalg.norm(volume) < 0.08


def test_angular_weights_share_out_the_half_circle():
    np.testing.assert_allclose(angular_weights(np.arange(0, 180, 2.0)), np.deg2rad(2))
    uneven = angular_weights(np.array([-10.0, -8, -4, 0, 4, 8, 10]))
    assert uneven[0] < uneven[3]
    assert uneven.sum() < np.deg2rad(40)  # the missing wedge belongs to nobody
