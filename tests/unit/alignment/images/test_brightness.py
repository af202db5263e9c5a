"""Brightness that changes from tilt to tilt: what is evened out, and what is the sample's."""

import numpy as np
import pytest

from tomoseg.alignment.images.brightness import even_out, vacuum_sides
from tomoseg.alignment.images.survey import survey_series
from tomoseg.runtime import Runtime

ANGLES = np.arange(-66.0, 67, 4)
N = len(ANGLES)
CHANGES = {
    "none": np.ones(N),
    "exposure": 1 / np.cos(np.deg2rad(ANGLES)),
    "drift": np.linspace(0.8, 1.2, N),
    "gain": np.where(np.arange(N) < 10, 1, 3.0),
    "one": np.where(np.arange(N) == 12, 0.4, 1),
    "flicker": np.random.default_rng(4).uniform(0.8, 1.2, N),
}


def ball(y, x, radius):
    return 2 * np.sqrt(np.maximum(radius**2 - y**2 - x**2, 0))


def sample(kind):
    """Return (n, y, x) thickness of a sample that is whole, a rod that is cut at both ends, or a film."""
    y, x = np.indices((64, 72)) - np.array([31.5, 35.5])[:, None, None]
    rng = np.random.default_rng(0)
    balls = np.column_stack([rng.uniform(-1, 1, (14, 3)), rng.uniform(2, 4, 14)])
    images = []
    for i, t in enumerate(np.deg2rad(ANGLES)):
        dy, dx = 1.5 * np.sin(i), 2 * np.cos(1.7 * i)
        if kind == "whole":
            parts = [(9 * a, 9 * b, 9 * c, r) for a, b, c, r in balls]
            image = ball(y - dy, x - dx, 12) * 0.3
        elif kind == "rod":
            parts = [(30 * a, 6 * b, 6 * c, r) for a, b, c, r in balls]
            image = 2 * np.sqrt(np.maximum(10**2 - (x - dx) ** 2, 0)) * 0.3 + 0 * y
        else:
            parts = [(40 * a, 150 * b, c, r) for a, b, c, r in np.concatenate([balls, balls[:, ::-1] * (-1, 1, 1, 1)])]
            image = np.full(y.shape, 12 / np.cos(t))
        for a, b, c, r in parts:
            image = image + ball(y - dy - a, x - dx - b * np.cos(t) - c * np.sin(t), min(r, 4))
        images.append(image)
    return np.array(images)


def surveyed(kind, change, black=500.0):
    rng = np.random.default_rng(1)
    counts = rng.poisson(100 * sample(kind) * CHANGES[change][:, None, None] + 5)
    return survey_series((black + counts).astype(np.float32), ANGLES, "auto", Runtime(workers=2))[1]


@pytest.mark.parametrize("change", CHANGES)
def test_a_whole_sample_has_the_same_total_in_all_tilts(change):
    found = even_out(surveyed("whole", change))
    assert found.how == "" if change == "none" else "whole" in found.how
    left = found.factors * CHANGES[change]
    assert np.ptp(left) < 0.02 * left.mean()  # of 10^5 electrons, on a background known to 0.1 counts


@pytest.mark.parametrize("change", CHANGES)
def test_a_rod_between_vacuum_has_the_same_brightness(change):
    series = surveyed("rod", change)
    assert vacuum_sides(series.images) == (False, True)
    found = even_out(series)
    left = found.factors * CHANGES[change]
    assert np.ptp(left) < 0.1 * left.mean()  # balls come and go at the ends of the frame
    assert found.how == "" if change == "none" else "vacuum on both sides" in found.how


@pytest.mark.parametrize("change", CHANGES)
def test_a_film_brightens_with_tilt_and_by_nothing_else(change):
    series = surveyed("film", change, black=0.0)
    found = even_out(series)
    left = found.factors * CHANGES[change]
    assert np.ptp(left) < 0.1 * left.mean()
    assert found.how == "" if change == "none" else "1 / cos(tilt)" in found.how


@pytest.mark.parametrize(("change", "spread"), [("none", 0), ("gain", 0.05), ("one", 0.05), ("flicker", 0.12)])
def test_of_a_sample_that_is_cut_jumps_and_flicker_are_taken_out(change, spread):
    thickness = sample("rod")[:, :, :42]  # vacuum at the left, and the rod beyond all other sides
    counts = np.random.default_rng(1).poisson(100 * thickness * CHANGES[change][:, None, None] + 5)
    series = survey_series((200.0 + counts).astype(np.float32), ANGLES, "auto", Runtime(workers=1))[1]
    assert vacuum_sides(series.images) == (False, False)
    found = even_out(series)
    left = found.factors * CHANGES[change]
    assert np.std(left) <= spread * left.mean()


@pytest.mark.parametrize("rolled", [(0, 10), (20, 10)])
def test_what_a_misplaced_image_shows_changes_nothing_beyond_it(rolled):
    thickness = sample("rod")[:, :, :42]
    thickness[20] = np.roll(thickness[4], rolled, (0, 1))
    counts = np.random.default_rng(1).poisson(100 * thickness + 5)
    series = survey_series((200.0 + counts).astype(np.float32), ANGLES, "auto", Runtime(workers=1))[1]
    found = even_out(series)
    assert np.ptp(np.delete(found.factors, 20)) < 0.05


def test_an_inclined_film_is_no_change_of_brightness():
    inclined = sample("film") / (1 / np.cos(np.deg2rad(ANGLES)))[:, None, None]
    inclined /= np.cos(np.deg2rad(ANGLES + 9))[:, None, None]
    counts = np.random.default_rng(1).poisson(100 * inclined)
    series = survey_series(counts.astype(np.float32), ANGLES, "none", Runtime(workers=1))[1]
    assert even_out(series).how == ""


def test_unusable_tilts_are_left_alone_and_what_is_done_is_told():
    raw = np.random.default_rng(1).poisson(100 * sample("whole") * CHANGES["gain"][:, None, None] + 5).astype(float)
    raw[7] = 5
    series = survey_series(raw, ANGLES, "auto", Runtime(workers=1))[1]
    found = even_out(series)
    assert found.factors[7] == 1
    assert found.told.startswith("brightness evened out: factors 1.00 to 3.0")
    assert even_out(surveyed("whole", "none")).told == ""
    assert even_out(surveyed("whole", "none"), forced=True).how
