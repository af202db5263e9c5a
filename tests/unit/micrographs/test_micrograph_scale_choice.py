"""Which scale counts, and what is said when two disagree."""

import numpy as np
import pytest

from tomoseg.micrographs.calibration import calibrated


@pytest.mark.parametrize(
    ("given", "metadata", "bar", "expected", "source", "n_warnings"),
    [
        (None, None, np.nan, np.nan, "none", 1),
        (None, None, 0.5, 0.5, "scale bar", 0),
        (None, 0.5, np.nan, 0.5, "metadata", 0),
        (None, 0.5, 0.505, 0.5, "metadata", 0),
        (None, 0.5, 0.6, 0.5, "metadata", 1),
        (0.4, 0.5, 0.6, 0.4, "given", 2),
        (0.4, None, 0.4, 0.4, "given", 0),
    ],
)
def test_what_is_given_counts_before_metadata_and_bar(given, metadata, bar, expected, source, n_warnings):
    found = calibrated(given, metadata, bar, 0.9, "50 nm")
    np.testing.assert_equal(found.pixel_size_nm, expected)
    assert found.source == source
    assert len(found.warnings) == n_warnings


def test_a_bar_that_was_read_badly_contradicts_nothing():
    assert calibrated(None, 0.5, 5.0, 0.2, "500 nm").warnings == []
