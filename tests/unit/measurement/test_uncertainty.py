"""Uncertainties: the interval, the border by intensity, and halves that differ by a known scatter."""

import warnings

import numpy as np
import pytest
from scipy import ndimage

from tests.unit.measurement.shapes import grid
from tomoseg.errors import InputError, TomosegWarning
from tomoseg.measurement.api import measure
from tomoseg.measurement.particles.intensity_size import volume_by_intensity_px3
from tomoseg.measurement.uncertainty import EACH_PX, Border, half_width, particle_uncertainties

NAMES = ["background", "Pt"]


@pytest.mark.parametrize(("offset", "scatter"), [(0, 1), (0.5, 1), (-2, 1), (0.2, 0.05), (40, 1)])
def test_the_interval_holds_68_percent(offset, scatter):
    errors = np.random.default_rng(0).normal(offset, scatter, 200_000)
    assert np.mean(np.abs(errors) <= half_width(offset, scatter)) == pytest.approx(0.68, abs=0.01)


def test_the_interval_at_its_ends():
    np.testing.assert_allclose(half_width([0, 3, 0], [2, 0, 0]), [2, 3, 0], rtol=1e-4)
    assert np.isnan(half_width(1.0, np.nan))


def ball(radius, blur, n=40, background=0.0):
    """Return intensities of a ball of brightness 1 more than what is around it, and the distance from its centre."""
    distance = np.sqrt((grid(n) ** 2).sum(axis=0))
    sharp = np.clip(radius - distance + 0.5, 0, 1)
    return background + ndimage.gaussian_filter(sharp, blur), distance


@pytest.mark.parametrize("blur", [0.5, 0.8, 1.1])
@pytest.mark.parametrize("drawn", [-0.4, 0.0, 0.4])
def test_volume_by_intensity_depends_neither_on_blur_nor_on_where_labels_end(blur, drawn):
    values, distance = ball(6.0, blur, background=3.0)
    mask = distance <= 6.0 + drawn
    found = volume_by_intensity_px3(values, mask, np.zeros_like(mask))
    # Twice 0.07 px of the diameter is what blur and the depth of its inside leave.
    assert np.cbrt(6 / np.pi * found) == pytest.approx(12.0, abs=0.15)


def test_volume_by_intensity_is_unknown_where_nothing_is_brighter():
    mask = ball(5, 0.8)[1] <= 5
    assert np.isnan(volume_by_intensity_px3(np.ones(mask.shape), mask, np.zeros_like(mask)))
    assert np.isnan(volume_by_intensity_px3(mask.astype(float), mask, ~mask))  # another particle all around


def scene(drawn=0.0, seed=0, noise=0.05, n=7):
    """Return labels and intensities of n x n balls of 8 to 13 px; labels end `drawn` px further out."""
    rng = np.random.default_rng(seed)
    shape = (24, 22 * n, 22 * n)
    z, y, x = np.indices(shape)
    labels, values = np.zeros(shape, np.uint8), np.zeros(shape)
    for i in range(n):
        for j in range(n):
            radius = 4 + 2.5 * (i * n + j) / n**2
            distance = np.sqrt((z - 11.6) ** 2 + (y - 22 * i - 10.7) ** 2 + (x - 22 * j - 11.2) ** 2)
            values += np.clip(radius - distance + 0.5, 0, 1)
            labels[distance <= radius + drawn + rng.normal(0, noise)] = 1
    return labels, (ndimage.gaussian_filter(values, 0.8) + rng.normal(0, 0.02, shape)).astype(np.float32)


def measured(labels, volume, halves, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TomosegWarning)  # kept in what is returned
        return measure(labels, volume, class_names=NAMES, voxel_size_nm=0.5, halves=halves, **options)


def test_borders_that_are_drawn_too_far_out_are_noticed():
    for drawn in (0.0, 0.4):
        labels, volume = scene(drawn)
        found = measured(labels, volume, [scene(drawn, seed) for seed in (1, 2)])
        assert found.summary["border_offset_px"] == pytest.approx(drawn, abs=0.07)
        assert (found.summary["mean_diameter_uncertainty_px"] > 0.4) == (drawn > 0)
        disagreed = [text for text in found.warnings if "two measures of the particles' mean diameter disagree" in text]
        assert len(disagreed) == (drawn > 0)


def test_every_number_has_its_uncertainty_and_the_unit_of_it():
    labels, volume = scene()
    found = measured(labels, volume, [scene(seed=1), scene(seed=2)])
    particles, classes, summary = found.particles, found.classes, found.summary
    assert (particles["in_halves"] == 2).all()
    np.testing.assert_allclose(particles["diameter_uncertainty_nm"], 0.5 * particles["diameter_uncertainty_px"])
    np.testing.assert_allclose(particles["volume_uncertainty_nm3"], 0.125 * particles["volume_uncertainty_px3"])
    assert (classes["volume_uncertainty_px3"] > 0).all()
    assert summary["n_particles_uncertainty"] == 0
    assert summary["n_particles_in_both_halves"] == 49
    for key in ("mean_diameter", "median_diameter", "d32", "d43"):
        assert summary[f"{key}_uncertainty_nm"] == pytest.approx(0.5 * summary[f"{key}_uncertainty_px"])
    assert any("49 of 49 particles were found in the reconstructions" in note for note in found.notes)


def test_particles_that_a_half_lacks_or_has_more_of():
    labels, volume = scene()
    fewer, more = labels.copy(), labels.copy()
    fewer[:, :22, :22] = 0
    more[10:14, 18:22, 18:22] = 1
    found = measured(labels, volume, [(fewer, volume), (more, volume)])
    assert sorted(found.particles["in_halves"])[:2] == [1, 2]
    assert found.summary["n_particles_uncertainty"] == pytest.approx(np.sqrt((1 + 1) / 2 / 2))
    assert found.summary["n_particles_in_no_half"] == 0


def test_the_scatter_of_the_halves_is_that_of_particles_of_their_size():
    """Diameters of halves scatter by 0.2 px below 10 px and by 0.6 px above: by half of that, over sqrt 2, the mean."""
    rng = np.random.default_rng(0)
    kind = np.dtype(
        [(name, "f8") for name in ("z_px", "y_px", "x_px", "diameter_px", "voxels")] + [("touches_border", "?")]
    )
    table = np.zeros(400, kind)
    table["z_px"] = 40 * np.arange(400)
    table["diameter_px"] = np.linspace(5, 15, 400)
    table["voxels"] = np.pi / 6 * table["diameter_px"] ** 3
    halves = [table.copy(), table.copy()]
    scatter = np.where(table["diameter_px"] < 10, 0.2, 0.6)
    for half in halves:
        half["diameter_px"] += rng.normal(0, scatter)
    sigma = particle_uncertainties(table, halves, Border(0.0), 1.0)["diameter_uncertainty_px"]
    for part, s in ((slice(0, 180), 0.2), (slice(220, 400), 0.6)):
        assert np.median(sigma[part]) == pytest.approx(np.hypot(s / np.sqrt(2), 2 * EACH_PX), rel=0.15)


def test_too_few_particles_have_no_uncertainty():
    labels, volume = scene(n=1)
    found = measured(labels, volume, [scene(seed=1, n=1), scene(seed=2, n=1)])
    assert np.isnan(found.particles["diameter_uncertainty_px"]).all()
    assert np.isnan(found.summary["border_offset_px"])


def test_uncertainty_without_halves_is_refused():
    labels, volume = scene(n=1)
    with pytest.raises(InputError, match="needs halves"):
        measure(labels, volume, class_names=NAMES, uncertainty=True)
