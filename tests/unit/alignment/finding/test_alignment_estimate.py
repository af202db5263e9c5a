"""The whole estimate on ellipsoids in closed form: nothing of the estimator takes part in making them."""

from dataclasses import replace

import numpy as np
import pytest

from tomoseg.alignment.finding.consistency import intensity_scales
from tomoseg.alignment.finding.estimate import estimate_alignment
from tomoseg.alignment.finding.solve import solve
from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.judging.agreement import measure_agreement


def _reduced(series, usable=None, raw=None):
    raw = series.raw if raw is None else raw
    usable = np.ones(len(raw), bool) if usable is None else usable
    return ReducedSeries(np.asarray(raw, np.float32), series.angles_deg, usable, 1, 2)


@pytest.fixture(scope="module")
def leaning(ellipsoids):
    return ellipsoids(phi=-33.0, offset=3.0, jitter=2.0, noise=0.01)


@pytest.fixture(scope="module")
def found_and_placed(leaning):
    return estimate_alignment(_reduced(leaning))


@pytest.fixture(scope="module")
def found(found_and_placed):
    return found_and_placed[0]


def test_axis_and_shifts_are_found_without_any_hint(leaning, found, less_translation):
    # A tenth of a degree moves the ends of a 64 px frame by 0.06 px.
    assert abs(found.axis_angle_deg - -33.0) < 0.2
    d = less_translation(found.moves_px, leaning.moves_px, leaning.angles_deg)
    # Bodies of 3 to 9 px sampled 2 x 2 per pixel with 1 % noise: centre of mass and common line to a few hundredths.
    assert np.sqrt((d**2).mean(axis=0)).max() < 0.08
    assert found.whole


def test_neighbours_agree_better_than_before(found_and_placed):
    found, placed = found_and_placed
    before = measure_agreement(placed.raw, placed.raw_moves_px, found.axis_angle_deg)
    after = measure_agreement(placed.aligned, placed.aligned_moves_px, found.axis_angle_deg)
    assert after.median > before.median + 0.05
    assert after.common_line > before.common_line
    assert not found.warnings


def test_shifts_and_offset_add_up_to_the_moves(found):
    phi = np.deg2rad(found.axis_angle_deg)
    dy, dx = found.shifts_px.T
    np.testing.assert_allclose(
        found.moves_px[:, 1], np.cos(phi) * dx - np.sin(phi) * dy - found.axis_offset_px, atol=1e-9
    )
    assert abs(found.shifts_px.mean(axis=0)).max() < 2.0  # least motion


def test_the_axis_along_x(ellipsoids, less_translation):
    series = ellipsoids(shape=(64, 72), phi=90.0, offset=-2.0, seed=4)
    found, _ = estimate_alignment(_reduced(series), axis_near_deg=90.0)
    assert min(abs(found.axis_angle_deg - 90), abs(found.axis_angle_deg + 90)) < 0.2
    if found.axis_angle_deg > 0:  # -89.9 is as good, but turns the frame by 180 degrees
        d = less_translation(found.moves_px, series.moves_px, series.angles_deg)
        assert np.sqrt((d**2).mean(axis=0)).max() < 0.08


def test_an_explicit_axis_is_used_as_it_is_zero_included(ellipsoids):
    series = ellipsoids(phi=4.0, seed=5)
    found, _ = estimate_alignment(_reduced(series), axis_angle_deg=0.0, axis_offset_px=1.5)
    assert found.axis_angle_deg == 0.0
    assert found.axis_offset_px == 1.5


def test_blank_tilts_lie_between_their_neighbours(leaning, less_translation):
    usable = np.ones(len(leaning.raw), bool)
    usable[[6, 17]] = False
    raw = np.where(usable[:, None, None], leaning.raw, 0)
    found, placed = estimate_alignment(_reduced(leaning, usable, raw), axis_angle_deg=-33.0)
    d = less_translation(found.moves_px[usable], leaning.moves_px[usable], leaning.angles_deg[usable])
    assert np.sqrt((d**2).mean(axis=0)).max() < 0.08
    assert np.isfinite(found.shifts_px).all()
    after = measure_agreement(placed.aligned, placed.aligned_moves_px, -33.0)
    assert np.isnan(after.neighbours[~usable]).all()


def test_an_image_partly_out_of_view_is_placed_by_the_others(leaning, less_translation):
    raw, moves, shifts = leaning.raw.copy(), leaning.moves_px, leaning.shifts_px.copy()
    far = 24  # px to the left: part of the sample is lost, and the centre of mass several pixels wrong
    raw[8] = 0
    raw[8, :, :-far] = leaning.raw[8, :, far:]
    shifts[8, 1] += far
    moves[8] += far * np.array([np.sin(np.deg2rad(-33)), np.cos(np.deg2rad(-33))])
    solution = solve(_reduced(leaning, raw=raw), shifts + 0.5, -33.0, Band())
    assert solution.whole
    d = less_translation(solution.moves_px, moves, leaning.angles_deg)
    assert np.abs(d[8]).max() < 1.0
    assert np.sqrt((np.delete(d, 8, axis=0) ** 2).mean()) < 0.1


def test_a_sample_cut_by_the_frame_is_aligned_by_reprojection(ellipsoids, less_translation):
    series = ellipsoids(shape=(96, 96), angles_deg=np.arange(-66, 67, 3.0), jitter=1.5, seed=2, spread=0.35)
    cut = series.raw[:, 18:-18, 18:-18]
    reduced = ReducedSeries(np.ascontiguousarray(cut), series.angles_deg, np.ones(len(cut), bool), 1, 2)
    found, _ = estimate_alignment(reduced, axis_angle_deg=0.0)
    assert not found.whole
    d = less_translation(found.moves_px, series.moves_px, series.angles_deg)
    before = less_translation(0 * found.moves_px, series.moves_px, series.angles_deg)
    # Far less is known than of a whole sample: half a pixel is what a dozen bodies, most of them cut, allow.
    assert np.sqrt((d**2).mean(axis=0)).max() < 0.5
    assert np.sqrt((before**2).mean(axis=0)).min() > 1.0


def test_too_few_tilts_are_aligned_by_their_neighbours_only(leaning):
    pair = slice(12, 14)
    reduced = ReducedSeries(leaning.raw[pair], leaning.angles_deg[pair], np.ones(2, bool), 1, 1)
    found, _ = estimate_alignment(reduced, axis_near_deg=90.0)
    assert found.axis_angle_deg == 90.0
    assert found.axis_offset_px == 0.0
    assert len(found.warnings) == 1
    step = np.diff(found.shifts_px, axis=0) - np.diff(leaning.shifts_px[pair], axis=0)
    assert np.abs(step).max() < 1.0


def test_a_stop_is_passed_on(leaning):
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    with pytest.raises(Stop):
        estimate_alignment(replace(_reduced(leaning), checkpoint=stop))


def test_scales_even_out_the_beam(leaning):
    flicker = np.random.default_rng(0).uniform(0.7, 1.3, len(leaning.raw))
    reduced = _reduced(leaning, raw=leaning.raw * flicker[:, None, None])
    scales = intensity_scales(reduced, leaning.moves_px, -33.0, whole=True)
    np.testing.assert_allclose(scales * flicker, np.median(scales * flicker), rtol=0.01)
