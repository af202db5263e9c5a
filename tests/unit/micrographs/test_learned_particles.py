"""What the network of micrographs sees, and what is made of what it says."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.errors import InputError
from tomoseg.micrographs import learned
from tomoseg.micrographs.learned import learned_particles, said_by_network
from tomoseg.micrographs.network_input import network_input, network_target
from tomoseg.micrographs.simulated import Recipe, simulated_micrograph


@pytest.fixture(scope="module")
def truth():
    return simulated_micrograph(Recipe(shape=(300, 260), n_particles=30, median_px=16, crowded=0), seed=8)


@pytest.fixture(scope="module")
def found(truth):
    return learned_particles(truth.image)


def test_grey_values_and_offsets_do_not_matter(truth):
    seen = network_input(truth.image)
    np.testing.assert_allclose(network_input(7.5 * truth.image - 300), seen, atol=2e-3)
    assert seen.dtype == np.float32


def test_the_distance_is_relative_to_each_particle():
    labels = np.zeros((40, 60), np.int32)
    y, x = np.indices(labels.shape)
    labels[(y - 20) ** 2 + (x - 14) ** 2 < 11**2] = 1
    labels[(y - 20) ** 2 + (x - 42) ** 2 < 4**2] = 2
    inside, distance = np.moveaxis(network_target(labels), -1, 0)
    assert np.array_equal(inside > 0, labels > 0)
    assert distance[20, 14] == distance[20, 42] == 1
    assert 0 < distance[20, 4] < 0.15


def test_it_finds_them_where_they_are(truth, found):
    assert found.polarity == "bright"
    assert abs(int(found.labels.max()) - len(truth.particles)) <= 2
    inside, true = found.labels > 0, truth.labels > 0
    assert (inside & true).sum() / (inside | true).sum() > 0.75


def test_an_inverted_image_has_the_same_particles(truth, found):
    inverted = learned_particles(truth.image.max() - truth.image)
    assert inverted.polarity == "dark"
    assert np.array_equal(inverted.labels > 0, found.labels > 0)
    assert learned_particles(truth.image, polarity="dark").labels.max() < 0.3 * found.labels.max()


def test_tiles_say_what_the_whole_image_says(truth, monkeypatch):
    wide = np.tile(truth.image, (2, 3))
    whole = said_by_network(wide)
    monkeypatch.setattr(learned, "TILE_PX", 256)
    tiles = said_by_network(wide)
    assert np.quantile(np.abs(tiles - whole), 0.999) < 0.05
    assert ((tiles[0] > 0.5) != (whole[0] > 0.5)).mean() < 1e-3


def test_what_is_left_out_holds_nothing(truth, found):
    mask = np.zeros(truth.image.shape, bool)
    mask[:, :130] = True
    part = learned_particles(truth.image, mask=mask)
    assert not part.labels[mask].any()
    assert part.labels[:, 140:].any()
    with pytest.raises(InputError, match="no number"):
        learned_particles(np.where(mask, np.nan, truth.image))


def test_large_particles_are_found_once():
    y, x = np.indices((700, 700))
    image = np.random.default_rng(0).normal(100, 12, y.shape)
    for cy, cx in ((170, 170), (180, 520), (520, 200), (500, 540)):
        image += 90 * np.sqrt(np.clip(1 - ((y - cy) ** 2 + (x - cx) ** 2) / 75**2, 0, 1))
    found = learned_particles(image)
    areas = np.bincount(found.labels.ravel())[1:]
    assert np.count_nonzero(areas > 0.5 * np.pi * 75**2) == 4
    assert len(areas) <= 6


def _said_of_two(gap_px):
    """What a perfect network says of two discs of 20 px: they touch where the gap is 0."""
    y, x = np.indices((60, 80))
    centres = 40 + np.array([-1, 1]) * (10 + gap_px / 2)
    discs = [(y - 30) ** 2 + (x - c) ** 2 < 100 for c in centres]
    labels = np.zeros(y.shape, np.int32)
    labels[discs[0] & (x < 40)], labels[discs[1] & (x >= 40)] = 1, 2
    said = np.moveaxis(network_target(labels), -1, 0)
    return np.stack([ndimage.gaussian_filter(one, 0.7) for one in said])


def test_touching_particles_are_cut_along_the_valley():
    said = _said_of_two(-3)
    apart = learned._objects(said, split=True).labels
    assert apart.max() == 2
    assert len(np.unique(apart[20:40, 25:38][apart[20:40, 25:38] > 0])) == 1
    assert learned._objects(said, split=False).labels.max() == 1


def test_particles_that_touch_are_counted():
    labels = np.zeros((20, 40), np.int32)
    labels[5:15, 5:10], labels[5:15, 10:15], labels[5:15, 25:30] = 1, 2, 3
    assert learned._n_split(labels) == 2
    assert learned._n_split(np.zeros((4, 4), np.int32)) == 0


def test_spots_it_is_not_sure_of_are_told():
    probability = np.zeros((100, 100), np.float32)
    probability[10:90:10, 10:90:10] = 0.4
    probability = ndimage.maximum_filter(probability, 4)
    labels = np.zeros(probability.shape, np.int32)
    labels[2:6, 2:6] = 1
    (sentence,) = learned._doubts(labels, probability)
    assert "about 64 more spots" in sentence
    assert not learned._doubts(labels, np.where(labels > 0, 0.9, 0.01).astype(np.float32))
    (nothing,) = learned._doubts(np.zeros_like(labels), probability)
    assert nothing.startswith("No particles were found")
