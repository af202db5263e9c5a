"""Sizes in nm: impossible ones are refused where they are given, and unknown where a file holds them."""

import math

import numpy as np
import pytest

import tomoseg as ts
from tomoseg import config
from tomoseg.errors import InputError
from tomoseg.lengths import require_size, size_or_nan

IMPOSSIBLE = [0, -1.0, 1e308, 1e-300, math.inf, 10**400]


@pytest.mark.parametrize("size", [*IMPOSSIBLE, math.nan, "x", None, [1]])
def test_a_size_in_a_file_that_is_impossible_is_unknown(size):
    assert math.isnan(size_or_nan(size))
    assert size_or_nan(np.float64(0.25)) == 0.25


@pytest.mark.parametrize("size", [*IMPOSSIBLE, math.nan])
def test_a_size_that_is_given_must_be_possible(size):
    with pytest.raises(InputError, match=r"--pixel-size is .* from 1e-06 to 1e\+09 nm") as caught:
        require_size("--pixel-size", size)
    assert len(str(caught.value)) < 200
    require_size("--pixel-size", None)
    require_size("--pixel-size", 0.018)


@pytest.mark.parametrize(
    "name", ["import.pixel_size", "measure.size_bin_nm", "measure.atom_diameter_nm", "measure.pore_closing_nm"]
)
@pytest.mark.parametrize("size", [0, -1.0, 1e308, 1e-300])
def test_parameters_in_nm_have_bounds_with_their_unit(name, size):
    with pytest.raises(InputError) as caught:
        config.resolve(config.by_stage({name: size}))
    assert str(caught.value).startswith(f"{name}: must be from 1e-06 to 1e+09 nm, got {size!r} (")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("align.tilt_axis_offset", 1e300),
        ("align.background", -1e200),
        ("export.target_triangles", 10**400),
        ("measure.min_voxels", 10**16),
        ("reconstruct.x_range", [0, 10**300]),
        ("segment.thresholds", [1.0, 1e99]),
        ("segment.min_size", [10**30]),
    ],
)
def test_no_parameter_is_astronomical(name, value):
    with pytest.raises(InputError, match=rf"{name}.* from -1e\+15 to 1e\+15") as caught:
        config.resolve(config.by_stage({name: value}))
    assert len(str(caught.value)) < 1000


def test_keywords_are_checked_like_options():
    labels = np.zeros((8, 8, 8), np.uint8)
    with pytest.raises(InputError, match="voxel_size_nm is 1e"):
        ts.measure(labels, labels.astype(np.float32), voxel_size_nm=1e200)
