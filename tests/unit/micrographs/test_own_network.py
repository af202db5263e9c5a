"""Micrographs labelled by a network that `--model` names."""

import numpy as np
import pytest

import tomoseg as ts
from tomoseg.errors import InputError
from tomoseg.micrographs.simulated import Recipe, simulated_micrograph

NETWORK = "gamma-alumina-pt"


@pytest.fixture(scope="module")
def truth():
    recipe = Recipe(shape=(128, 128), support="clouds", n_particles=6, median_px=12.0, contrast=12.0, least_snr=90.0)
    return simulated_micrograph(recipe, 3)


@pytest.mark.filterwarnings("ignore::tomoseg.errors.TomosegWarning")
def test_particles_are_those_of_the_networks_class(truth):
    found = ts.measure_image(truth.image, model=NETWORK, particle_class="Pt")
    assert found.polarity == "bright"
    assert found.evidence == "the network's labels"
    assert len(found.table) > 0
    inside = found.labels > 0
    assert (truth.labels[inside] > 0).mean() > 0.5  # it knows slices of tomograms, and bright things in them
    assert np.array_equal(np.unique(found.labels), np.arange(len(found.table) + 1))


def test_a_class_that_it_has_not_is_refused(truth):
    with pytest.raises(InputError, match="the network has the classes background"):
        ts.measure_image(truth.image, model=NETWORK, particle_class="gold")


def test_a_network_that_is_not_there_is_refused(truth):
    with pytest.raises(InputError, match=r"gone\.keras"):
        ts.measure_image(truth.image, model="gone.keras")
