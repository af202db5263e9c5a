"""Random views: labels stay labels, image and labels stay together, and the identity is the slice itself."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segmentation.data.augmentation import (
    Augmentation,
    _bend,
    random_view,
    sample_patch,
    vary_intensity,
)

NO_AUGMENTATION = Augmentation(rotation_deg=0.0, flip=False, zoom=0.0, shear=0.0, shift=0.0)

EARLIER = (
    [[-0.913003684827792, -0.48161051145070105], [0.40508279669284825, -0.9271292929824309]],
    [-0.01830535891600027, -0.09094496121951097],
)


def disc(shape=(96, 96), centre=(40.0, 55.0), radius=18.0):
    y, x = np.indices(shape)
    return ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2).astype(np.uint8)


def test_without_augmentation_it_is_the_slice():
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 255, (32, 32), np.uint8), rng.integers(0, 5, (32, 32), np.uint8)
    seen, classes = sample_patch(image, labels, 32, NO_AUGMENTATION, rng)
    np.testing.assert_array_equal(seen, image)
    np.testing.assert_array_equal(classes, labels)


def test_patches_of_a_larger_slice_lie_in_it_and_reach_its_edges():
    image = np.arange(40 * 50, dtype=np.float32).reshape(40, 50)
    starts = set()
    for seed in range(300):
        seen, _ = sample_patch(image, image > 0, 24, NO_AUGMENTATION, np.random.default_rng(seed))
        y, x = divmod(int(seen[0, 0]), 50)
        np.testing.assert_array_equal(seen, image[y : y + 24, x : x + 24])
        starts.add((y, x))
    assert {y for y, _ in starts} == set(range(17))  # 300 draws of 17 and 27 places: none missed
    assert {x for _, x in starts} == set(range(27))


def test_small_slices_are_mirrored():
    image = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    seen, _ = sample_patch(image, image > 0, 6, NO_AUGMENTATION, np.random.default_rng(0))
    np.testing.assert_array_equal(seen, np.pad(image, ((2, 2), (1, 2)), mode="symmetric"))


def test_no_class_is_invented_at_borders():
    # Classes 0 and 4 only: a linear interpolation would make 1, 2 and 3 along their border.
    labels = 4 * disc()
    for seed in range(50):
        _, classes = sample_patch(labels, labels, 64, Augmentation(), np.random.default_rng(seed))
        assert set(np.unique(classes)) <= {0, 4}
        assert classes.dtype == np.uint8


def test_image_and_labels_go_through_the_same_map():
    labels = disc()
    disagree = []
    for seed in range(40):
        seen, classes = sample_patch(labels.astype(float), labels, 96, Augmentation(), np.random.default_rng(seed))
        # A linearly interpolated mask crosses one half where the nearest-neighbour one changes, but for pixels that
        # straddle the border: none of 9216 differs by more than rounding of half a pixel along a rim of about 113 px.
        disagree.append(np.mean((seen > 0.5) != (classes > 0)))
    assert max(disagree) < 0.01


def test_views_have_the_range_asked_for():
    wide = Augmentation(rotation_deg=45, zoom=0.1, shear=0.1, shift=0.1)
    rng = np.random.default_rng(1)
    views = [random_view(wide, rng) for _ in range(500)]
    scale = np.array([abs(np.linalg.det(m)) for m, _ in views])
    # The determinant is the product of the two zooms, each between 1/1.1 and 1/0.9.
    assert scale.min() > 1 / 1.1**2 - 1e-9
    assert scale.max() < 1 / 0.9**2 + 1e-9
    shifts = np.array([s for _, s in views])
    assert np.abs(shifts).max() <= 0.1
    mirrored = np.mean([np.linalg.det(m) < 0 for m, _ in views])
    assert 0.4 < mirrored < 0.6  # one of the two flips: half of 500 draws, 4.5 standard deviations


def test_both_axes_change_scale_alike():
    alike = Augmentation(rotation_deg=0, flip=False, zoom=0, shear=0, scale=1.0)
    rng = np.random.default_rng(1)
    matrices = np.array([random_view(alike, rng)[0] for _ in range(500)])
    factors = matrices[:, 0, 0]
    np.testing.assert_allclose(matrices, factors[:, None, None] * np.eye(2))
    assert 0.5 <= factors.min() < 0.52 < 1.9 < factors.max() <= 2
    # As often larger as smaller: half of 500 draws, 4.5 standard deviations.
    assert 0.4 < np.mean(factors > 1) < 0.6


def test_what_is_new_leaves_earlier_views_as_they_were():
    """The numbers of views drawn by versions without `scale`."""
    matrix, shift = random_view(Augmentation(), np.random.default_rng(5))
    np.testing.assert_allclose(matrix, EARLIER[0], rtol=1e-12)
    np.testing.assert_allclose(shift, EARLIER[1], rtol=1e-12)


def test_rotation_turns_by_the_angle_drawn():
    turn_only = Augmentation(rotation_deg=30, flip=False, zoom=0, shear=0, shift=0)
    matrix, shift = random_view(turn_only, np.random.default_rng(3))
    assert np.linalg.det(matrix) == pytest.approx(1)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-12)
    assert abs(np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0]))) <= 30
    assert not shift.any()


def test_same_seed_same_view():
    image = np.random.default_rng(0).random((50, 60))
    views = [sample_patch(image, image > 0.5, 32, Augmentation(), np.random.default_rng(7)) for _ in range(2)]
    np.testing.assert_array_equal(views[0][0], views[1][0])
    np.testing.assert_array_equal(views[0][1], views[1][1])


def test_cutting_down_a_large_slice_changes_nothing():
    # The same view of a slice embedded in a larger one, where all it sees lies inside both.
    rng = np.random.default_rng(5)
    image = rng.random((400, 400))
    labels = (image > 0.5).astype(np.uint8)
    from scipy import ndimage

    seen, classes = sample_patch(image, labels, 32, Augmentation(), np.random.default_rng(11))
    again = np.random.default_rng(11)
    matrix, shift = random_view(Augmentation(), again)
    start = again.integers(0, np.array([369, 369]))
    centre = start + 15.5 + shift * 32
    offset = centre - matrix @ np.full(2, 15.5)
    whole = ndimage.affine_transform(image.astype(np.float32), matrix, offset, (32, 32), order=1, mode="reflect")
    np.testing.assert_allclose(seen, whole, atol=1e-5)  # float32 interpolation
    nearest = ndimage.affine_transform(labels, matrix, offset, (32, 32), order=0, mode="reflect")
    np.testing.assert_array_equal(classes, nearest)


def test_a_pixel_asked_for_is_in_the_middle_half():
    labels = np.zeros((80, 90), np.uint8)
    labels[3, 85] = 1  # near a corner: beyond the border lies the mirror image
    places = []
    for seed in range(200):
        _, classes = sample_patch(labels, labels, 32, NO_AUGMENTATION, np.random.default_rng(seed), (3, 85))
        places += [place for place in np.argwhere(classes) if (np.abs(place - 15.5) <= 8.5).all()]
    assert len(places) >= 200
    assert np.std(places, axis=0).min() > 3.5  # uniform over 16 px: 4.6


def test_bending_keeps_image_and_labels_together_and_is_smooth():
    x = np.indices((128, 128))[1]
    columns = (x // 8 % 2).astype(np.uint8)
    bent = Augmentation(rotation_deg=0, flip=False, zoom=0, shear=0, shift=0, elastic_px=2.0)
    for seed in range(10):
        seen, classes = sample_patch(columns.astype(float), columns, 96, bent, np.random.default_rng(seed))
        assert np.mean((seen > 0.5) != (classes > 0)) < 0.01
    place, _ = sample_patch(x.astype(float), columns, 96, bent, np.random.default_rng(0))
    steps = np.diff(place, axis=1)
    # A ramp bent by shifts of 2 px per quarter (24 px) stays a ramp: it rises by 1 per px, give or take a few tenths.
    assert steps.std() > 0.01
    assert np.abs(steps - 1).max() < 0.8


def test_bent_views_see_the_same_of_a_larger_slice():
    rng = np.random.default_rng(2)
    image = rng.random((200, 200)).astype(np.float32)
    bent = Augmentation(rotation_deg=20, elastic_px=3.0)
    near, _ = sample_patch(image, image > 0.5, 32, bent, np.random.default_rng(4), (100, 100))
    far, _ = sample_patch(np.pad(image, 300), image > 0.5, 32, bent, np.random.default_rng(4), (400, 400))
    np.testing.assert_allclose(near, far, atol=1e-5)


def test_intensities_vary_as_asked():
    rng = np.random.default_rng(0)
    view = np.linspace(-0.5, 3, 4096, dtype=np.float32).reshape(64, 64)
    same = vary_intensity(view, Augmentation(), rng)
    np.testing.assert_array_equal(same, view)
    for _ in range(20):
        line = vary_intensity(view, Augmentation(contrast=0.3, brightness=0.2), rng)
        slope, at_zero = np.polyfit(view.ravel(), line.ravel(), 1)
        assert 0.7 <= slope <= 1.3
        assert -0.2 <= at_zero <= 0.2
        np.testing.assert_allclose(line, slope * view + at_zero, atol=1e-5)
        bowed = vary_intensity(view, Augmentation(gamma=0.5), rng)
        assert (np.diff(bowed.ravel()) > 0).all()
        assert (np.sign(bowed) == np.sign(view)).all()
        power = np.log(bowed[-1, -1]) / np.log(view[-1, -1])
        assert np.exp(-0.5) <= power <= np.exp(0.5)
    noisy = [vary_intensity(view, Augmentation(noise=0.1), rng) - view for _ in range(50)]
    assert max(n.std() for n in noisy) < 0.105
    assert np.mean([n.std() for n in noisy]) == pytest.approx(0.05, abs=0.02)
    point = np.zeros((31, 31), np.float32)
    point[15, 15] = 1
    for _ in range(10):
        blurred = vary_intensity(point, Augmentation(blur_px=2.0), rng)
        assert blurred.sum() == pytest.approx(1, abs=1e-4)
        assert blurred[15, 15] >= 1 / (2 * np.pi * 2.0**2) * 0.9
        assert blurred.dtype == np.float32


@pytest.mark.parametrize("change", [{"noise": -0.1}, {"zoom": 1.0}, {"contrast": 1.5}, {"blur_px": float("nan")}])
def test_impossible_augmentation_is_refused(change):
    with pytest.raises(InputError) as error:
        Augmentation.of("augmentation", change)
    (problem,) = str(error.value).splitlines()
    assert next(iter(change)) in problem


def test_straight_views_hold_the_very_pixels():
    rng = np.random.default_rng(5)
    image, labels = rng.random((40, 50)), rng.integers(0, 3, (40, 50)).astype(np.uint8)
    seen = set(image.astype(np.float32).ravel().tolist())
    augmentation = Augmentation(straight=1.0, elastic_px=2.0)
    for _ in range(20):
        view, its_labels = sample_patch(image, labels, 16, augmentation, rng)
        assert set(view.ravel().tolist()) <= seen
        where = {float(v): label for v, label in zip(image.astype(np.float32).ravel(), labels.ravel(), strict=True)}
        assert all(where[float(v)] == label for v, label in zip(view.ravel(), its_labels.ravel(), strict=True))


def test_grid_distortion_bends_in_straight_pieces():
    shifts = _bend(81, Augmentation(grid_px=3.0), np.random.default_rng(0))
    bends = np.abs(np.diff(shifts, 2, axis=2)).max(axis=(0, 1))
    corners = np.arange(10, 80, 10) - 1  # second differences are centred on the nodes
    assert bends[np.setdiff1d(np.arange(79), corners)].max() < 1e-9
    assert bends[corners].min() > 0.01


def test_sharpening_raises_edges_only():
    step = np.where(np.arange(32) < 16, 0.0, 1.0) * np.ones((32, 1))
    view = vary_intensity(step.astype(np.float32), Augmentation(sharpen=2.0), np.random.default_rng(1))
    assert view.max() > 1.05
    assert np.allclose(view[:, :8], 0)
    assert np.allclose(view[:, 24:], 1)
