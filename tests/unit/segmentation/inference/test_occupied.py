"""The part of a volume that a network looks at."""

import numpy as np
import pytest

from tomoseg.errors import StageFailed
from tomoseg.runtime import Runtime
from tomoseg.segmentation.data.histogram import sampled_histogram
from tomoseg.segmentation.inference.occupied import MARGIN_PX, STEP_PX, Window, occupied

SHAPE = (96, 128, 112)


def seen(volume):
    return occupied(volume, sampled_histogram(volume), Runtime())


def ball(centre, radius, value=60.0, shape=SHAPE):
    z, y, x = np.indices(shape, sparse=True)
    inside = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2
    return np.where(inside, np.float32(value), np.float32(0))


def is_whole(window):
    return window.shape == tuple(window.volume.shape)


def test_the_sample_is_in_the_window_with_a_margin():
    sample = ball((40, 90, 30), 17)
    window = seen(sample)
    assert not is_whole(window)
    for place, side, n in zip(np.nonzero(sample), window.box, SHAPE, strict=True):
        assert side.start == 0 or side.start <= place.min() - MARGIN_PX
        assert side.stop == n or side.stop >= place.max() + 1 + MARGIN_PX
        assert (side.stop - side.start) % STEP_PX == 0
    assert window.n_outside == sample.size - window[:].size


def test_a_small_and_a_dim_thing_far_from_the_sample_are_seen():
    sample = ball((40, 90, 30), 17) + ball((80, 30, 90), 3) + ball((20, 20, 90), 6, 5.0)
    window = seen(sample)
    assert np.count_nonzero(window[:]) == np.count_nonzero(sample)


def test_a_support_far_dimmer_than_its_particles_is_seen():
    support = ball((48, 64, 56), 30, 1.0)
    sample = np.maximum(support, ball((48, 64, 56), 6, 80.0))
    assert np.count_nonzero(seen(sample)[:]) == np.count_nonzero(support)


@pytest.mark.parametrize("noise", [-1, 1])
def test_noise_in_vacuum_is_looked_at_unless_it_is_faint(noise):
    rng, sample = np.random.default_rng(0), np.maximum(ball((40, 90, 30), 17), ball((40, 100, 30), 6, 400.0))
    assert is_whole(seen(sample + noise * np.float32(8) * np.abs(rng.normal(size=SHAPE)).astype(np.float32)))
    faint = seen(sample + noise * np.float32(0.3) * rng.random(SHAPE, np.float32))
    assert not is_whole(faint)
    assert faint.box == seen(sample).box


def test_what_fills_most_of_a_volume_is_looked_at_whole():
    film = np.zeros(SHAPE, np.float32)
    film[8:88] = 50
    assert is_whole(seen(film))


def test_where_nothing_stands_out_all_is_looked_at():
    assert is_whole(seen(np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)))


def test_nan_in_vacuum_is_refused():
    sample = ball((40, 90, 30), 17)
    sample[1, 2, 3] = np.nan
    with pytest.raises(StageFailed, match="NaN"):
        occupied(sample, sampled_histogram(ball((40, 90, 30), 17)), Runtime())


def test_a_window_is_read_as_a_volume_of_its_own():
    volume = np.arange(10 * 12 * 14).reshape(10, 12, 14)
    box = (slice(2, 9), slice(0, 12), slice(5, 11))
    window, own = Window(volume, box), volume[box]
    assert window.shape == own.shape
    for key in (0, -1, slice(None), slice(3, 100), (slice(1, 3), 2), (slice(None), slice(4, 6), slice(None, None, 2))):
        np.testing.assert_array_equal(window[key], own[key])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_of_a_window_and_those_beyond_make_the_whole_volume(axis):
    values = np.random.default_rng(0).integers(1, 200, (10, 12, 14)).astype(np.uint8)
    box = (slice(2, 9), slice(3, 12), slice(5, 11))
    window, found, times = Window(values, box), np.zeros_like(values), np.zeros_like(values)
    for place in window.beyond(axis, 2):
        assert place[axis].stop - place[axis].start <= 2
        times[place] += 1
    for start in range(0, window.shape[axis], 3):
        part = slice(start, min(start + 3, window.shape[axis]))
        places = [slice(None)] * 3
        places[axis] = part
        place, planes = window.around(window[tuple(places)], axis, part, 0)
        found[place] = planes
        times[place] += 1
    expected = np.zeros_like(values)
    expected[box] = values[box]
    np.testing.assert_array_equal(found, expected)
    assert (times == 1).all()
