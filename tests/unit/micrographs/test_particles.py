"""Particles are found where they are, as large as they are, and nowhere else."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.errors import InputError
from tomoseg.micrographs.edges import with_true_edges
from tomoseg.micrographs.particles import find_particles
from tomoseg.micrographs.shapes import particle_table
from tomoseg.micrographs.simulated import Recipe, simulated_micrograph, support_alone


def bodies(centres, diameters, shape, *, disc, blur=1.0, noise=0.05, seed=0):
    """Return discs or spheres of height 1 in noise."""
    rows, columns = np.mgrid[: shape[0] * 3, : shape[1] * 3] / 3 - 1 / 3
    image = np.zeros(rows.shape)
    for (y, x), d in zip(centres, diameters, strict=True):
        left = 1 - ((rows - y) ** 2 + (columns - x) ** 2) / (d / 2) ** 2
        image += (left > 0) if disc else np.sqrt(np.maximum(left, 0))
    image = image.reshape(shape[0], 3, shape[1], 3).mean(axis=(1, 3))
    image = ndimage.gaussian_filter(image, blur)
    return (image + np.random.default_rng(seed).normal(0, noise, shape)).astype(np.float32)


def grid(n, step, seed=0):
    places = np.stack(np.meshgrid(*[step * (np.arange(n) + 0.5)] * 2), axis=-1).reshape(-1, 2)
    return places + np.random.default_rng(seed).uniform(-2, 2, places.shape)


@pytest.mark.parametrize("disc", [True, False], ids=["discs", "spheres"])
@pytest.mark.parametrize("diameter", [pytest.param(8, marks=pytest.mark.slow), 16, 40])
def test_sizes_are_not_biased(disc, diameter):
    n, step = 5, max(40, 2 * diameter)
    image = bodies(grid(n, step), np.full(n * n, diameter), (n * step, n * step), disc=disc)
    for sign, polarity in ((1, "bright"), (-1, "dark")):
        found = find_particles(sign * image)
        assert found.polarity == polarity
        table = particle_table(found.labels, image)
        assert n * n - 1 <= len(table) <= n * n  # the smallest spheres hardly exceed the noise
        assert np.median(table["diameter_px"]) == pytest.approx(diameter, rel=0.04)


@pytest.mark.parametrize("kind", ["noise", "counts", "texture"])
def test_nothing_is_found_where_there_is_nothing(kind):
    rng = np.random.default_rng(1)
    n_found = 0
    for _ in range(4):
        image = {
            "noise": lambda: rng.normal(100, 10, (256, 256)),
            "counts": lambda: rng.poisson(6, (256, 256)),
            "texture": lambda: 100 + 20 * ndimage.gaussian_filter(rng.normal(0, 5, (256, 256)), 2),
        }[kind]()
        n_found += find_particles(image).labels.max()
    assert n_found <= 4


@pytest.mark.parametrize(("mode", "support"), [("HAADF", "film"), ("BF", "holey"), ("HAADF", "crumpled")])
def test_little_is_found_on_a_plain_support_or_it_is_doubted(mode, support):
    image = support_alone(Recipe(mode=mode, support=support, shape=(256, 256)), 3)
    found = find_particles(image)
    # Creases of a film have compact bright knots.
    assert found.labels.max() <= 5 or any("may be that structure" in text for text in found.warnings)


def test_an_even_image_says_that_nothing_was_found():
    found = find_particles(np.full((64, 64), 7.0))
    assert found.labels.max() == 0
    assert any("No particles" in warning for warning in found.warnings)


def test_touching_particles_are_cut_unless_told_otherwise():
    centres = [(40, 40), (40, 59), (100, 50), (100, 120), (60, 120)]
    image = bodies(centres, [20] * 5, (140, 160), disc=True, noise=0.03)
    cut, left = find_particles(image), find_particles(image, split=False)
    assert (cut.labels.max(), cut.n_split) == (5, 2)
    assert (left.labels.max(), left.n_split) == (4, 0)


def test_masks_are_left_out():
    image = bodies([(30, 30), (100, 100)], [14, 14], (130, 130), disc=True)
    image[100:, :60] = 50  # a footer
    mask = np.zeros(image.shape, bool)
    mask[95:, :65] = True
    found = find_particles(image, mask=mask)
    assert found.labels.max() == 2
    assert not found.labels[mask].any()


def test_simulated_micrographs_are_counted_and_measured():
    recipe = Recipe(mode="BF", support="clouds", n_particles=60, median_px=12, crowded=0, contrast=8, least_snr=40)
    truth = simulated_micrograph(recipe, 7)
    found = find_particles(truth.image)
    assert found.polarity == "dark"
    assert found.labels.max() == pytest.approx(len(truth.particles), rel=0.08)
    table = particle_table(found.labels, truth.image)
    median = np.median(truth.particles["diameter_px"][~truth.particles["touches_border"]])
    assert np.median(table["diameter_px"][~table["touches_border"]]) == pytest.approx(median, rel=0.06)


def test_images_that_cannot_be_used_are_refused():
    with pytest.raises(InputError, match="shape"):
        find_particles(np.zeros((64, 64, 3)))
    with pytest.raises(InputError, match="32 px"):
        find_particles(np.zeros((8, 64)))
    with pytest.raises(InputError, match="no number"):
        find_particles(np.full((64, 64), np.nan))
    with pytest.raises(InputError, match="both have to be the same"):
        find_particles(np.zeros((64, 64)), mask=np.zeros((32, 32), bool))
    with pytest.raises(InputError, match="whole image"):
        find_particles(np.zeros((64, 64)), mask=np.ones((64, 64), bool))


def test_the_same_image_gives_the_same_labels():
    truth = simulated_micrograph(Recipe(n_particles=30, shape=(200, 200)), 1)
    np.testing.assert_array_equal(find_particles(truth.image).labels, find_particles(truth.image).labels)


def test_a_particle_with_nothing_beside_it_that_counts_keeps_its_outline():
    labels = np.zeros((80, 80), np.int32)
    labels[15:36, 15:36] = 1
    labels[24:27, 24:27] = 2  # all its surroundings are another particle
    rows, columns = np.ogrid[:80, :80]
    labels[(rows - 60) ** 2 + (columns - 60) ** 2 <= 64] = 3
    image = np.array([0, 3, 6, 5], np.float32)[labels] + np.random.default_rng(0).normal(0, 0.1, (80, 80))
    edged = with_true_edges(labels, image.astype(np.float32), np.zeros((80, 80), bool))
    np.testing.assert_array_equal(edged == 2, labels == 2)
