"""The network of micrographs that ships with tomoseg, on images that it never saw."""

import numpy as np
import pytest

from tomoseg.micrographs.distribution import weighted_sizes
from tomoseg.micrographs.learned import learned_particles
from tomoseg.micrographs.shapes import inside_weights, particle_table
from tomoseg.micrographs.simulated import Recipe, random_recipe, simulated_micrograph, support_alone


def test_sizes_and_counts_of_simulated_micrographs():
    errors = []
    for seed in range(7000, 7008):
        truth = simulated_micrograph(random_recipe(seed, "HAADF" if seed % 2 else "BF", (384, 384)), seed)
        found = learned_particles(truth.image)
        assert found.polarity == truth.polarity
        table = particle_table(found.labels, truth.image)
        inside = table[~table["touches_border"]]
        true = truth.particles[~truth.particles["touches_border"]]["diameter_px"]
        weights = inside_weights(true, true, np.zeros(truth.image.shape, bool))
        d50 = weighted_sizes(inside["diameter_px"], inside["weight"])["d50"] / weighted_sizes(true, weights)["d50"] - 1
        errors.append((d50, len(table) / len(truth.particles) - 1))
    of_d50, of_count = np.abs(errors).T
    assert np.median(of_d50) < 0.06
    assert np.median(of_count) < 0.15


@pytest.mark.parametrize("support", ["film", "clouds", "crumpled", "plates", "grains"])
def test_what_is_taken_for_particles_on_a_bare_support_is_little_and_doubted(support):
    for seed in (1, 2):
        found = learned_particles(support_alone(Recipe(support=support, texture=0.04), seed, dose=30.0))
        assert found.labels.max() <= 10
        assert found.warnings  # of nothing found as well


def test_plain_particles_are_not_doubted():
    truth = simulated_micrograph(Recipe(n_particles=60, median_px=16), 5)
    assert not learned_particles(truth.image).warnings


def test_particles_that_touch_are_told_apart():
    y, x = np.indices((256, 256))
    image = np.random.default_rng(1).normal(100, 5, y.shape)
    for row in range(4):
        for column in (-1, 1):
            cy, cx = 32 + 64 * row, 128 + 11 * column
            inside = np.clip(1 - ((y - cy) ** 2 + (x - cx) ** 2) / 12**2, 0, 1)
            image += 80 * np.sqrt(inside)
    assert learned_particles(image).labels.max() == 8
    assert learned_particles(image, split=False).labels.max() == 4
