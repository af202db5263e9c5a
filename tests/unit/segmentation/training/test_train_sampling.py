"""Which places of which slices an epoch takes its views from."""

import numpy as np

from tomoseg.io.slices import IGNORE
from tomoseg.segmentation.data.augmentation import Augmentation
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.segmentation.training.patches import batches, epoch_plan, rare_places
from tomoseg.segmentation.training.training_set import TrainingSet

SETTINGS = TrainParameters(batch=10, patch=32, depth=3, folds=1, patches=200)


def slices_with_a_few_particles(n=6, size=256):
    """Return slices half of support; every other one has one particle of 21 pixels."""
    rng = np.random.default_rng(0)
    labels = [np.repeat(np.uint8([0, 1]), size // 2)[None].repeat(size, axis=0) for _ in range(n)]
    y, x = np.indices((size, size))
    for label in labels[::2]:
        cy, cx = rng.integers(0, size, 2)  # may touch a border
        label[(y - cy) ** 2 + (x - cx) ** 2 < 7] = 2
    return [np.uint8(60 * label + rng.integers(0, 9, label.shape)) for label in labels], labels


def checked(settings, images, labels):
    return TrainingSet.checked(images, labels, None, None, None, settings, None)


def share_with_particles(settings, data):
    views = batches(data, settings, 0, epoch_plan(data, settings, 0), 2)
    found = np.concatenate([(y == 2).any(axis=(1, 2)) for _, y in views])
    assert len(found) == 200
    return found.mean()


def test_sampling_finds_what_chance_does_not():
    data = checked(SETTINGS, *slices_with_a_few_particles())
    # By chance: about (32 / 256)**2 of the views of every other slice, less than 2 %.
    assert share_with_particles(SETTINGS, data) < 0.06
    assert share_with_particles(SETTINGS.changed(sampling=1.0), data) == 1
    half = share_with_particles(SETTINGS.changed(sampling=0.5), data)
    assert abs(half - 0.5) < 0.14  # four standard deviations of 200 draws


def test_the_pixel_is_anywhere_in_the_middle_of_the_patch():
    settings = SETTINGS.changed(sampling=1.0, augmentation=Augmentation(zoom=0.0, shear=0.0))
    data = checked(settings, *slices_with_a_few_particles())
    centres = [
        np.argwhere(view == 2).mean(axis=0)
        for _, y in batches(data, settings, 0, epoch_plan(data, settings, 0), 2)
        for view in y
    ]
    away = np.array(centres) - 15.5
    assert np.abs(away).max() < 8 + 3  # a quarter of the patch, and the radius of a particle
    assert away.std(axis=0).min() > 3  # uniform would be 4.6; a network must not learn that particles are central


def test_rare_is_less_than_half_an_equal_share_of_what_is_annotated():
    images, labels = slices_with_a_few_particles()
    places = rare_places(checked(SETTINGS, images, labels))
    assert len(places) == 1  # neither half of the slice is rare
    assert [i for i, _ in places[0]] == [0, 2, 4]
    for i, pixels in places[0]:
        assert (labels[i].ravel()[pixels] == 2).all()
        assert len(pixels) == (labels[i] == 2).sum()
    for label in labels:
        label[:, 16:] = IGNORE  # now nearly all that is annotated is background
        label[:, 8:16] = 1
        label[2:, 8:16] = IGNORE
    ((first, *_),) = rare_places(checked(SETTINGS, images, labels))
    assert labels[first[0]].ravel()[first[1][0]] == 1


def test_slices_without_rare_classes_are_sampled_as_without_sampling():
    images, labels = slices_with_a_few_particles()
    labels = [np.minimum(label, 1) for label in labels]
    data = checked(SETTINGS, images, labels)
    wanted = SETTINGS.changed(sampling=1.0)
    plan = epoch_plan(data, SETTINGS, 0)
    for (x, y), (same_x, same_y) in zip(
        batches(data, SETTINGS, 0, plan, 1), batches(data, wanted, 0, plan, 1), strict=True
    ):
        np.testing.assert_array_equal(x, same_x)
        np.testing.assert_array_equal(y, same_y)


def test_as_many_patches_as_asked_for_from_all_slices_alike():
    data = checked(SETTINGS, *slices_with_a_few_particles(size=64))
    for patches, counts in ((100, {16, 17, 18, 19, 20}), (3, {0, 1}), (48, {8})):
        settings = SETTINGS.changed(patches=patches)
        plan = epoch_plan(data, settings, 0)
        assert len(plan) == patches
        assert set(np.bincount(plan, minlength=6)) <= counts
