"""Signs and centres of the aligned frame, by hand-made images; exact copies; one resampling against closed forms."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.alignment.images import warp
from tomoseg.io.shifts import ImageCorrections


def _dot(shape, y, x):
    image = np.zeros(shape, np.float32)
    image[y, x] = 1
    return image


def _where(image):
    return tuple(int(i) for i in np.unravel_index(np.argmax(image), image.shape))


def test_a_shift_is_added_to_the_coordinates_of_the_raw_image():
    aligned = warp.warp_image(_dot((11, 15), 5, 7), (2, 3), 0.0, 0.0)
    assert _where(aligned) == (7, 10)
    assert aligned.sum() == 1


def test_an_axis_right_of_the_centre_has_a_positive_offset_and_comes_to_the_middle():
    # The axis lies at x = 7 + 2 of 15 pixels, centre 7.
    aligned = warp.warp_image(_dot((11, 15), 4, 9), (0, 0), 0.0, 2.0)
    assert _where(aligned) == (4, 7)


def test_shift_comes_before_rotation_and_offset_after_it():
    # Raw centre (5, 7). p = (x, y) = (1, -2); shift (dx, dy) = (3, 1): p_s = (4, -1); phi 90: x' = 1, y' = 4;
    # offset 2: x'' = -1.
    aligned = warp.warp_image(_dot((11, 15), 3, 8), (1, 3), 90.0, 2.0)
    assert aligned.shape == (15, 11)
    assert _where(aligned) == (7 + 4, 5 - 1)


def test_single_images_are_turned_and_magnified_about_their_centre_before_all_else():
    # Raw centre (20, 24), a spot at p = (x, y) = (8, -5); turned by 3 - 1.5 degrees in all, 1.04 times as large.
    y, x = np.mgrid[:41, :49] - np.array([20.0, 24.0])[:, None, None]
    spot = np.exp(-((x - 8) ** 2 + (y + 5) ** 2) / 8)
    correction = warp.correction_matrices(ImageCorrections(np.array([-1.5]), np.array([1.04]), np.zeros(1)))[0]
    aligned = warp.warp_image(spot, (1.25, -2.5), 3.0, 0.75, correction=correction).astype(float)
    phi, both = np.deg2rad(3.0), np.deg2rad(1.5)
    across = 1.04 * (8 * np.cos(both) + 5 * np.sin(both)) - 2.5 * np.cos(phi) - 1.25 * np.sin(phi) - 0.75
    along = 1.04 * (8 * np.sin(both) - 5 * np.cos(both)) - 2.5 * np.sin(phi) + 1.25 * np.cos(phi)
    found = ndimage.center_of_mass(aligned)
    np.testing.assert_allclose(found, (20 + along, 24 + across), atol=0.01)
    assert aligned.sum() == pytest.approx(1.04**2 * spot.sum(), rel=0.01)


def test_images_that_need_nothing_are_copied_bit_for_bit():
    image = np.random.default_rng(0).normal(-3e4, 1e4, (12, 17)).astype(np.float32)
    nothing = warp.correction_matrices(ImageCorrections.none(3))
    for correction in (None, nothing[1]):
        np.testing.assert_array_equal(
            warp.warp_image(image, (2, -3), 0.0, 0.0, correction=correction)[2:, :-3], image[:-2, 3:]
        )
    # A larger entry of 1 alone is no whole move.
    turned = warp.correction_matrices(ImageCorrections(np.array([10.0]), 1 / np.cos(np.deg2rad([10.0])), np.zeros(1)))[
        0
    ]
    assert np.unique(warp.warp_image(image, (0, 0), 0.0, 0.0, correction=turned)).size > 100


def test_a_positive_angle_is_counter_clockwise_as_displayed():
    # An axis leaning to the left at the top (y is down), 20 degrees from the vertical.
    y, x = np.mgrid[:41, :41] - 20.0
    distance = x * np.cos(np.deg2rad(20)) - y * np.sin(np.deg2rad(20))
    leaning = np.exp(-(distance**2) / 2)
    assert leaning[4].argmax() < 20 < leaning[36].argmax()
    upright = warp.warp_image(leaning, (0, 0), 20.0, 0.0)
    assert set(upright[6:35].argmax(axis=1)) == {20}


@pytest.mark.parametrize("angle", [0.0, 90.0])
@pytest.mark.parametrize("shape", [(12, 17), (13, 13)])
def test_whole_moves_copy_pixels_bit_for_bit(angle, shape):
    image = np.random.default_rng(0).normal(-3e4, 1e4, shape).astype(np.float32)
    turned = image if angle == 0 else np.rot90(image, -1)  # clockwise: the axis along x comes upright
    np.testing.assert_array_equal(warp.warp_image(image, (0, 0), angle, 0.0), turned)
    moved = warp.warp_image(image, (0, 0), angle, 3.0)
    np.testing.assert_array_equal(moved[:, :-3], turned[:, 3:])
    assert (moved[:, -3:] == 0).all()


@pytest.mark.parametrize("angle", [-71.0, -12.5, 0.0, 33.0, 45.0, 90.0])
def test_one_resampling_agrees_with_a_closed_form(angle):
    shape, shift, offset, width = (70, 61), (3.3, -2.7), 4.4, 4.0
    spots = np.array([[5.0, -9.0], [-11.0, 4.0], [0.5, 13.0]])  # (y, x) in the aligned frame

    def blobs(y, x):
        return sum(np.exp(-((y - sy) ** 2 + (x - sx) ** 2) / (2 * width**2)) for sy, sx in spots)

    phi = np.deg2rad(angle)
    y = np.arange(shape[0])[:, None] - 34.5 + shift[0]
    x = np.arange(shape[1]) - 30.0 + shift[1]
    raw = blobs(np.sin(phi) * x + np.cos(phi) * y, np.cos(phi) * x - np.sin(phi) * y - offset)
    aligned = warp.warp_image(raw, shift, angle, offset)
    assert aligned.shape == ((61, 70) if abs(angle) > 45 else (70, 61))
    y, x = (np.arange(n) - (n - 1) / 2 for n in aligned.shape)
    # A cubic spline follows Gaussians of 4 px to a few 1e-5; ten times as much would be a shift of 0.001 px.
    inside = np.s_[15:-15, 15:-15]
    np.testing.assert_allclose(aligned[inside], blobs(y[:, None], x)[inside], atol=2e-4)


def test_outside_the_raw_frame_is_background():
    aligned = warp.warp_image(np.ones((20, 20)), (5.5, 0), 0.0, 0.0)
    assert (aligned[:5] == 0).all()
    assert np.abs(aligned[6:] - 1).max() < 1e-5


def test_vectors_there_and_back():
    vectors = np.random.default_rng(1).normal(size=(5, 2))
    there = warp.rotate_vectors(vectors, 37.0)
    np.testing.assert_allclose(warp.unrotate_vectors(there, 37.0), vectors, atol=1e-12)
    np.testing.assert_array_equal(warp.rotate_vectors(np.array([[0.0, 1.0]]), 90.0), [[1.0, 0.0]])  # x becomes y'


@pytest.mark.parametrize(("angle", "wrapped"), [(90, 90), (-90, 90), (91, -89), (-95, 85), (0, 0), (180, 0), (270, 90)])
def test_angles_name_a_line(angle, wrapped):
    assert warp.wrap_axis_angle(angle) == wrapped
