"""Common line, centre of mass and the split into shifts and offset."""

import numpy as np
from scipy import ndimage

from tomoseg.alignment.finding import consistency
from tomoseg.alignment.finding.track import Band


def test_centre_of_mass_of_known_masses():
    aligned = np.zeros((2, 5, 11))
    aligned[0, 2, 8] = 2.0
    aligned[1, 1, 2], aligned[1, 3, 4] = 1.0, 3.0
    found = consistency.centre_of_mass(aligned, np.ones(5))
    np.testing.assert_allclose(found, [3.0, (1 * -3 + 3 * -1) / 4])


def test_profiles_are_brought_into_register(ellipsoids):
    series = ellipsoids(jitter=0.0)
    rng = np.random.default_rng(0)
    slide = rng.integers(-4, 5, len(series.raw))
    slid = np.stack([np.roll(image, d, axis=0) for image, d in zip(series.raw, slide, strict=True)])
    seen = np.ones_like(slid)
    usable = np.ones(len(slid), bool)
    lines = consistency.profiles(slid, seen, series.angles_deg, whole=True)
    window, total = consistency.row_window(seen, usable), np.zeros(len(slid))
    for _ in range(4):  # each pass has a mean less blurred by the slides
        moved = np.stack([ndimage.shift(line, d) for line, d in zip(lines, total, strict=True)])
        moves, scores = consistency.register_profiles(moved, window, usable, Band(), factor=1, max_shift_px=10)
        total += moves
    # Ellipsoids sampled twice per pixel: the profile is the same in all tilts to 1 %.
    d = total + slide
    np.testing.assert_allclose(d - np.median(d), 0, atol=0.05)
    assert np.nanmin(scores) > 0.999


def test_a_sample_that_touches_the_sides_is_not_whole(ellipsoids):
    series = ellipsoids(jitter=0.0)
    seen, usable = np.ones_like(series.raw), np.ones(len(series.raw), bool)
    window = consistency.row_window(seen, usable)
    assert consistency.is_whole(series.raw, seen, window, usable)
    cut = series.raw[:, :, 24:40]
    assert not consistency.is_whole(cut, seen[:, :, 24:40], window, usable)


class TestLeastMotion:
    angles = np.arange(-70, 71, 2.0)
    usable = np.ones(71, bool)

    def split(self, moves, **more):
        return consistency.least_motion(moves, self.angles, self.usable, 200.0, **more)

    def test_an_aligned_series_stays_where_it_is(self):
        t = np.deg2rad(self.angles)
        shifts, offset = self.split(7 * np.cos(t) - 12 * np.sin(t))  # as if a centre of mass had been centred
        np.testing.assert_allclose(shifts, 0, atol=1e-3)
        assert abs(offset) < 1e-3

    def test_offset_and_sample_position_are_told_apart(self):
        t = np.deg2rad(self.angles)
        jitter = np.random.default_rng(0).normal(0, 0.2, 71)
        shifts, offset = self.split(jitter - 9.0 + 20 * np.cos(t) + 5 * np.sin(t))
        # A jitter of 0.2 px leaves 0.2 / sqrt(71) and a factor 4 from the likeness of 1 and cos(t): 0.1 px; some prior.
        assert abs(offset - 9.0) < 0.5
        np.testing.assert_allclose(shifts, jitter, atol=0.3)

    def test_moves_are_only_split_never_changed_but_by_a_translation(self):
        moves = np.cumsum(np.random.default_rng(1).normal(0, 3, 71))
        shifts, offset = self.split(moves)
        t = np.deg2rad(self.angles)
        terms = np.stack([np.cos(t), np.sin(t)], axis=1)
        rest = shifts - offset - moves
        np.testing.assert_allclose(terms @ np.linalg.lstsq(terms, rest, rcond=None)[0], rest, atol=1e-9)

    def test_the_sample_stays_in_the_frame(self):
        t = np.deg2rad(self.angles)
        moves = 30 * np.sin(t)
        shifts, offset = self.split(moves, room_px=4.0)
        assert np.abs(shifts - offset - moves).max() <= 4.0 + 1e-6
