"""8-bit slices and float reconstructions look the same to a network."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segmentation.data.histogram import histogram
from tomoseg.segmentation.data.intensity_scaling import Scale, Scaling, find_levels, scaling_of


def volume_like(rng, n, empty, unit=1.0, offset=0.0):
    """Return values of a reconstruction of which `empty` is vacuum, in some unit."""
    n_particles, n_support = n // 500, int(n * (1 - empty))
    parts = (
        np.abs(rng.normal(0, 1, n - n_support - n_particles)),
        rng.normal(60, 10, n_support),
        rng.normal(250, 25, n_particles),
    )
    return offset + unit * np.concatenate(parts)[None, None].astype(np.float32)


def histogram_of(values):
    return histogram([values], float(values.min()), float(values.max()))


def test_scaling_is_linear_and_clipped():
    np.testing.assert_allclose(Scale(10, 60, -0.1, 4)(np.array([10, 60, 35, 0, 1000])), [0, 1, 0.5, -0.1, 4], rtol=1e-6)


@pytest.mark.parametrize("empty", [0.4, 0.7, 0.97])
def test_levels_do_not_depend_on_unit_or_on_how_much_is_empty(empty):
    rng = np.random.default_rng(0)
    for unit, offset in ((1.0, 0.0), (0.003, 0.0), (40.0, 500.0)):
        background, support = find_levels(histogram_of(volume_like(rng, 400_000, empty, unit, offset)))
        # A fifth of the noise of the support; percentiles would move by factors.
        assert (background - offset) / unit == pytest.approx(0.7, abs=2)
        assert (support - offset) / unit == pytest.approx(60, abs=2)


def test_a_float_volume_is_brought_to_the_8_bit_slices_trained_on():
    rng = np.random.default_rng(1)
    slices = np.clip(np.rint(volume_like(rng, 300_000, 0.6)), 0, 255).astype(np.uint8)
    scaling = scaling_of(histogram_of(slices), slices.dtype)
    volume = volume_like(rng, 300_000, 0.95, unit=0.01)
    scale = scaling.for_data(volume.dtype, histogram_of(volume))
    seen, trained = scale(np.array([0.6, 2.5])), scaling.trained(np.array([60, 250]))
    np.testing.assert_allclose(seen, trained, rtol=0.05)
    # Slices saturate at 255: brighter voxels look no brighter to the network than the brightest it has seen.
    assert scale(np.array([100.0]))[0] == pytest.approx(scaling.trained(np.array([255]))[0], rel=1e-3)


def test_slices_of_the_trained_kind_get_the_trained_scale():
    rng = np.random.default_rng(2)
    slices = np.clip(np.rint(volume_like(rng, 100_000, 0.6)), 0, 255).astype(np.uint8)
    scaling = scaling_of(histogram_of(slices), np.uint8)
    darker = histogram_of(slices // 2)
    assert scaling.for_data(np.uint8, darker) == scaling.trained
    assert scaling.for_data(np.uint16, darker) != scaling.trained


def test_models_from_elsewhere_get_0_to_1():
    foreign = Scaling("range", "uint8", Scale(0, 255, 0, 1))
    values = histogram_of(np.arange(10_000.0).reshape(1, 100, 100))
    assert foreign.for_data(np.uint8, values)(np.array([255]))[0] == 1
    assert foreign.for_data(np.uint16, values)(np.array([65535]))[0] == 1
    scale = foreign.for_data(np.float32, values)
    assert scale.zero == pytest.approx(10, abs=1.5)  # 0.1 and 99.9 percentiles, to a bin
    assert scale.one == pytest.approx(9990, abs=1.5)


def test_data_without_two_levels_is_refused():
    flat = np.zeros((1, 10, 10))
    flat[0, 0, 0] = 1e-30
    with pytest.raises(InputError, match="no two distinct levels"):
        scaling_of(histogram([flat], 0, 1), np.float32)


def bytes_like(empty, unit=1.0, offset=0.0):
    values = volume_like(np.random.default_rng(2), 200_000, empty, unit, offset)
    return histogram_of(np.clip(values, 0, 255).astype(np.uint8))


def test_slices_of_the_kind_trained_on_keep_its_scale_and_others_get_their_own():
    scaling = scaling_of(bytes_like(0.8), np.uint8)
    for alike in (bytes_like(0.6), bytes_like(0.97), bytes_like(0.8, 1.2, 5)):
        assert scaling.for_slices(np.uint8, alike, 5) is scaling.trained
    for unit, offset in ((2.0, 0.0), (0.5, 0.0), (0.7, 60.0)):  # brought to 8 bits in another way
        scale = scaling.for_slices(np.uint8, bytes_like(0.8, unit, offset), 5)
        assert scale.zero == pytest.approx(offset + unit, abs=2)
        assert scale.one - scale.zero == pytest.approx(60 * unit, rel=0.2)  # particles saturate
        assert scaling.for_slices(np.uint8, bytes_like(0.8, unit, offset), 2) is scaling.trained  # too few to tell
    foreign = Scaling("range", "uint8", Scale(0.0, 255.0, 0.0, 1.0))
    assert foreign.for_slices(np.uint8, bytes_like(0.8, 2.0), 5).one == 255
