"""Simulated micrographs: the same for a seed, and the truth is what is in the picture."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.micrographs.simulated import (
    ROSE,
    SUPPORTS,
    Recipe,
    random_recipe,
    simulated_micrograph,
    support_alone,
    with_changes,
)


def test_a_seed_gives_the_same_image_and_another_seed_another():
    recipe = with_changes(random_recipe(3), shape=(128, 128), n_particles=10)
    first, again, other = (simulated_micrograph(recipe, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)
    assert random_recipe(3) == random_recipe(3) != random_recipe(4)


@pytest.mark.parametrize("mode", ["HAADF", "BF"])
@pytest.mark.parametrize("support", SUPPORTS)
def test_particles_differ_from_what_is_around_them_as_the_polarity_says(mode, support):
    recipe = Recipe(mode=mode, support=support, shape=(200, 200), n_particles=8, crowded=0, least_snr=60)
    made = simulated_micrograph(recipe, 1)
    assert len(made.particles) > 0
    bare = support_alone(recipe, 1, dose=1e4)
    with_particles = made.image / np.median(made.image[made.labels == 0])
    bare = bare / np.median(bare[made.labels == 0])
    difference = (with_particles - bare)[made.labels > 0].mean()
    assert made.polarity == ("bright" if mode == "HAADF" else "dark")
    assert difference > 0 if mode == "HAADF" else difference < 0


@pytest.mark.parametrize("shape", ["round", "faceted", "elongated"])
def test_diameters_are_those_of_the_outlines(shape):
    recipe = Recipe(shape=(256, 256), particle_shape=shape, n_particles=12, median_px=20, crowded=0, least_snr=60)
    made = simulated_micrograph(recipe, 2)
    areas = np.bincount(made.labels.ravel(), minlength=len(made.particles) + 1)[1:]
    whole = ~made.particles["touches_border"]
    assert whole.sum() > 4
    np.testing.assert_allclose(np.sqrt(4 * areas / np.pi)[whole], made.particles["diameter_px"][whole], rtol=0.03)


def test_particles_that_touch_the_border_are_marked():
    recipe = Recipe(shape=(160, 160), n_particles=40, median_px=24, crowded=0, least_snr=60)
    made = simulated_micrograph(recipe, 5)
    edges = np.unique(np.concatenate([made.labels[0], made.labels[-1], made.labels[:, 0], made.labels[:, -1]]))
    at_border = set(edges[edges > 0].tolist())
    assert at_border == set((np.flatnonzero(made.particles["touches_border"]) + 1).tolist()) != set()


def test_every_particle_can_be_seen():
    recipe = Recipe(support="grains", texture=0.08, contrast=3, n_particles=60, least_snr=9, shape=(256, 256))
    assert simulated_micrograph(recipe, 1).particles["snr"].min() >= ROSE


def test_too_small_an_image_is_refused():
    with pytest.raises(InputError, match="32 px or more"):
        simulated_micrograph(Recipe(shape=(16, 64)))
