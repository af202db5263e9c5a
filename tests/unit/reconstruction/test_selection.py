"""What is read of the aligned series: tilts, rows, and pixels binned about the tilt axis."""

import numpy as np
import pytest

from tomoseg.reconstruction.selection import PIXELS_AT_ONCE, Selection, binned


def centre(row: np.ndarray) -> float:
    """Return the centre of mass from the middle of the row."""
    return float((row * (np.arange(len(row)) - (len(row) - 1) / 2)).sum() / row.sum())


def test_binning_by_a_divisor_is_the_mean_of_neighbours():
    images = np.random.default_rng(0).random((3, 12, 20), dtype=np.float32)
    expected = images.reshape(3, 3, 4, 5, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(binned(images, 4), expected, rtol=1e-5)


@pytest.mark.parametrize("nx", [60, 61, 62, 63])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_what_is_binned_stays_where_it_is_about_the_axis(nx, factor):
    x = np.arange(nx) - (nx - 1) / 2
    images = np.exp(-0.5 * ((x - 3.3) / 5) ** 2).astype(np.float32)[None, None].repeat(factor, axis=1)
    found = binned(images, factor)
    assert found.shape == (1, 1, nx // factor)
    # A mean over a pixel keeps the centre of mass of what falls to zero before the edge.
    assert factor * centre(found[0, 0]) == pytest.approx(3.3, abs=0.01)
    assert factor * found.sum() == pytest.approx(images[0, 0].sum(), rel=1e-4)


def test_constants_stay():
    np.testing.assert_allclose(binned(np.full((2, 7, 23), 5, np.float32), 3), np.full((2, 2, 7), 5), rtol=1e-6)


class Counting:
    """An array source that remembers the most rows read at once."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.most, self.shape, self.dtype = array, 0, array.shape, array.dtype

    def __getitem__(self, key):
        part = self.array[key]
        self.most = max(self.most, part.shape[1])
        return part


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_tilts_and_rows(factor):
    series = np.random.default_rng(1).random((9, 400, 30), dtype=np.float32)
    tilts = np.array([0, 2, 3, 7])
    source = Counting(series)
    selected = Selection(source, tilts, factor, first=5, n_slices=110)
    assert selected.shape == (4, 110, 30 // factor)
    whole = binned(series[tilts], factor)[:, 5:115]
    np.testing.assert_allclose(selected[:, 10:110], whole[:, 10:], rtol=1e-6)
    np.testing.assert_allclose(selected[1:3, :], whole[1:3], rtol=1e-6)
    if factor > 1:
        assert source.most <= PIXELS_AT_ONCE
