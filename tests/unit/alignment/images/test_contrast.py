"""Dark field or bright field, and bright field made into mass thickness."""

import numpy as np
import pytest

from tomoseg.alignment.images.conditioning import ConditionedSeries, condition
from tomoseg.alignment.images.contrast import Signs
from tomoseg.runtime import Runtime

ANGLES = np.arange(-60.0, 61, 6)


def whole(grains, seed=0):
    """A blob with grains, and vacuum around it: thickness up to about 1."""
    return grains(n=21, step_deg=6.0, blob=9.0, width_px=2.5, seed=seed)[0] / 400


def film(seed=0):
    """A film with pores or particles that fills the frame and becomes thicker with tilt: thickness about 0.3."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((80, 80)) - 39.5
    places, images = rng.uniform(-1, 1, (120, 2)) * (45, 140), []
    for t in np.deg2rad(ANGLES):
        image = np.full((80, 80), 0.3 / np.cos(t))
        for py, px in places:
            image += 0.4 * np.exp(-((y - py) ** 2 + (x - px * np.cos(t)) ** 2) / 8)
        images.append(image)
    return np.array(images)


def bright_field(thickness, dose, seed=1):
    return np.random.default_rng(seed).poisson(dose * np.exp(-thickness)).astype(np.uint16)


def dark_field(thickness, dose, seed=1):
    return (1000 + 10 * np.random.default_rng(seed).poisson(dose * (thickness + 0.01))).astype(np.uint16)


def conditioned(raw, **options):
    return condition(raw, ANGLES, runtime=Runtime(workers=2), **options)


@pytest.mark.parametrize("dose", [20, 200, 1000])
@pytest.mark.parametrize("kind", ["whole", "film"])
def test_bright_field_is_recognised_and_becomes_mass_thickness(dose, kind, grains):
    thickness = whole(grains) if kind == "whole" else film()
    raw = bright_field(thickness, dose)
    done = conditioned(raw)
    assert done.bright_field is not None
    assert "contrast: bright field (" in done.notes[-1]
    found = ConditionedSeries(raw, done)[:]
    assert found.dtype == np.float32
    error = found - thickness
    # Of a log of a Poisson count about half its relative variance is left, of I0 about its own error.
    assert abs(error.mean()) < 0.02 + 0.3 / dose
    thick = thickness > 0.8
    assert abs(error[thick].mean()) < 0.03 + 1.5 / dose


@pytest.mark.parametrize("dose", [5, 200])
@pytest.mark.parametrize("kind", ["whole", "film"])
def test_dark_field_stays(dose, kind, grains):
    thickness = whole(grains) if kind == "whole" else film()
    done = conditioned(dark_field(thickness, dose))
    assert done.bright_field is None
    assert not done.warnings
    assert done.changes_nothing


def test_a_porous_film_is_no_bright_field():
    holes = 0.9 - film(2) / film(2).max() * 0.8  # dark pores that look like particles in bright field
    holes /= np.cos(np.deg2rad(ANGLES))[:, None, None]
    assert conditioned(dark_field(holes, 200)).bright_field is None
    # Saturated, it looks like particles in bright field, and the warning says so.
    done = conditioned(np.minimum(dark_field(holes, 200), 2500))
    assert any("--contrast dark-field" in warning for warning in done.warnings)


def test_without_a_clear_sign_dark_field_is_assumed_with_a_warning():
    rng = np.random.default_rng(0)
    raw = rng.poisson(50 + 10 * rng.normal(0, 1, (1, 80, 80)).clip(-3, 3) + np.zeros((21, 1, 1))).astype(np.uint16)
    done = conditioned(raw)
    assert done.bright_field is None
    assert "--contrast" in done.warnings[0]
    assert not conditioned(raw, contrast="dark-field").warnings


def test_what_is_asked_for_is_done_whatever_the_images_say(grains):
    thickness = whole(grains)
    assert conditioned(bright_field(thickness, 200), contrast="dark-field").bright_field is None
    done = conditioned(dark_field(thickness, 200), contrast="bright-field")
    assert done.bright_field is not None
    assert "as given" in done.notes[-1]


def test_the_beam_is_found_tilt_by_tilt(grains):
    thickness = whole(grains)
    beam = np.linspace(150, 400, 21)
    raw = np.random.default_rng(0).poisson(beam[:, None, None] * np.exp(-thickness)).astype(np.uint16)
    done = conditioned(raw, contrast="bright-field")
    np.testing.assert_allclose(done.bright_field.beam, beam, rtol=0.01)


def test_counts_without_a_beam_are_taken_off(grains):
    thickness = whole(grains)
    raw = bright_field(thickness, 500).astype(np.int32) * 4 + 3000
    done = conditioned(raw, background=3000.0)
    found = ConditionedSeries(raw, done)[:]
    assert abs((found - thickness)[thickness > 0.8].mean()) < 0.02
    offset = (bright_field(thickness, 500).astype(np.int32) * 4 - 30000).astype(np.int16)
    done = conditioned(offset)
    assert "--background" in done.warnings[0]
    assert np.isfinite(ConditionedSeries(offset, done)[:]).all()


def test_images_without_a_beam_are_empty(grains):
    raw = bright_field(whole(grains), 300)
    raw[5] = 0
    done = conditioned(raw, contrast="bright-field")
    read = ConditionedSeries(raw, done)[4:7]
    assert np.isfinite(read).all()
    assert np.abs(read[1]).max() < 1e-3 or done.bright_field.beam[5] > 0


def test_signs_that_contradict_each_other_decide_nothing():
    assert Signs(2, 0, 0, 1).is_bright_field
    assert Signs(2, 0, 2, 1).is_bright_field
    assert not Signs(2, 3, -2, 1).is_bright_field
    assert Signs(2, 3, -2, 1).is_doubtful
    assert not Signs(-2, 3, 2, 1).is_bright_field
    assert not Signs(-2, -2, 0, -1).is_doubtful
