import numpy as np

from tomoseg.export.frame import to_world, world_origin


def test_rotation_by_half_a_turn_about_x():
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])  # (z, y, x)
    np.testing.assert_array_equal(to_world(points, 2.0), [[0, 0, 0], [0, 0, -2], [0, -2, 0], [2, 0, 0]])


def test_handedness_is_kept():
    x, y, z = to_world(np.eye(3)[::-1], 1.0)  # unit vectors along x, y, z
    assert np.linalg.det(np.stack([x, y, z])) == 1


def test_origin_is_the_last_row_of_the_last_plane():
    shape = (5, 6, 7)
    np.testing.assert_array_equal(world_origin(shape, 0.5), to_world(np.array([[4, 5, 0]]), 0.5)[0])
