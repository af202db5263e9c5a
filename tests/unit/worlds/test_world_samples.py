"""Random samples: bodies of known volume, labels that fit the density, particles where they are said to be."""

from dataclasses import replace
from typing import get_args

import cc3d
import numpy as np
import pytest

from tomoseg.worlds import samples
from tomoseg.worlds.samples import SampleRecipe, random_sample_recipe, sample

SHAPE = (56, 24, 56)
PLAIN = SampleRecipe(shape=SHAPE, seen=56, reach=18.0, pores=0, texture=0.0, n_particles=0)


def made(recipe, seed=0):
    return sample(recipe, np.random.default_rng(seed))


def test_bodies_have_their_volumes():
    outside = np.full((60, 60, 60), samples.FAR, np.float32)
    samples._ball(outside, np.array([1.3, -2.0, 0.4]), 12.0)
    assert samples.coverage(outside).sum() == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.003)
    outside[:] = samples.FAR
    samples._convex(outside, np.zeros(3), samples.CUBE, np.full(6, 10.0))
    assert samples.coverage(outside).sum() == pytest.approx(20**3, rel=0.005)
    outside[:] = samples.FAR
    samples._capsule(outside, np.zeros(3), np.array([0.0, 9.0, 0.0]), 6.0)
    assert samples.coverage(outside).sum() == pytest.approx(np.pi * 36 * 18 + 4 / 3 * np.pi * 216, rel=0.005)


@pytest.mark.parametrize("kind", get_args(samples.SupportKind))
def test_every_support_is_there_and_no_two_are_alike(kind):
    one, same, other = (made(replace(PLAIN, support=kind), seed) for seed in (1, 1, 2))
    assert (one.labels == 1).sum() > 200
    assert np.array_equal(one.density, same.density)
    assert not np.array_equal(one.labels, other.labels)
    assert set(np.unique(one.labels)) <= {0, 1}
    assert np.array_equal(one.labels == 1, one.density >= 0.5)


def test_pores_are_cut_and_count_as_background():
    whole, porous = (made(replace(PLAIN, support="spheres", pores=n, pore_px=4.0), 3) for n in (0, 12))
    assert (porous.labels == 1).sum() < 0.95 * (whole.labels == 1).sum()


@pytest.mark.parametrize("shape", get_args(samples.ParticleShape))
def test_particles_are_where_they_are_said_to_be(shape):
    recipe = replace(PLAIN, support="spheres", particle_shape=shape, n_particles=8, diameter_px=8.0, spread=0.0)
    one = made(replace(recipe, contrast=5.0), 4)
    assert len(one.particles) >= 4
    inside = [p for p in one.particles if all(4 < c < n - 5 for c, n in zip(p[:3], SHAPE, strict=True))]
    assert all(one.labels[tuple(np.round(p[:3]).astype(int))] == 2 for p in inside)
    assert one.density[one.labels == 2].mean() > 2.0
    volumes = np.bincount(cc3d.connected_components(one.labels == 2, connectivity=6).ravel())[1:]
    assert np.median(volumes) == pytest.approx(np.pi / 6 * 8**3, rel=0.35)  # about a ball of that diameter


def test_particles_keep_apart_unless_they_may_overlap():
    recipe = replace(PLAIN, support="faceted", n_particles=30, diameter_px=6.0, spread=0.2)
    one = made(recipe, 5)
    distance = np.linalg.norm(one.particles[:, None, :3] - one.particles[None, :, :3], axis=2)
    gap = distance - (one.particles[:, None, 3] + one.particles[None, :, 3]) / 2
    assert gap[~np.eye(len(gap), dtype=bool)].min() >= 1.5


def test_films_and_faint_bodies_are_seen_but_are_background():
    plain, faint = (made(replace(PLAIN, support="spheres", carbon=c, dim=d), 6) for c, d in ((0, 0), (0.2, 0.3)))
    assert (faint.labels == plain.labels).all()
    assert ((faint.density > 0.1) & (faint.labels == 0)).sum() > 500


def test_recipes_cover_the_world():
    recipes = [random_sample_recipe(np.random.default_rng(seed), SHAPE, 56) for seed in range(300)]
    assert {recipe.support for recipe in recipes} == set(get_args(samples.SupportKind))
    assert min(r.contrast for r in recipes) < 1.5
    assert max(r.contrast for r in recipes) > 8
    assert any(r.n_particles == 0 for r in recipes)
    assert {r.shape[2] for r in recipes} == {56, 84, 112}  # films and neighbours go on beyond the frame
