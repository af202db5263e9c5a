import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.reconstruction.geometry import ParallelGeometry


def test_centre_of_n_pixels_is_half_of_n_minus_one():
    geometry = ParallelGeometry(np.array([0.0, 30.0]), n_detector=6, nx=5, nz=4)
    assert geometry.x.tolist() == [-2, -1, 0, 1, 2]
    assert geometry.z.tolist() == [-1.5, -0.5, 0.5, 1.5]
    assert geometry.detector.tolist() == [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]


def test_the_angles_are_a_frozen_copy():
    angles = np.array([0.0, 30.0])
    geometry = ParallelGeometry(angles, 4, 4, 4)
    angles[1] = 60
    assert geometry.angles_deg[1] == 30
    with pytest.raises(ValueError, match="read-only"):
        geometry.angles_deg[0] = 1


@pytest.mark.parametrize("angles", [[], [0.0, np.nan], [np.inf], [[0.0, 1.0]]])
def test_angles_that_are_no_angles_are_refused(angles):
    with pytest.raises(InputError, match="finite"):
        ParallelGeometry(np.array(angles), 4, 4, 4)


def test_an_empty_slice_is_refused():
    with pytest.raises(InputError, match="0 x 4"):
        ParallelGeometry(np.array([0.0]), 4, 4, 0)


def test_the_cylinder_is_what_every_tilt_sees():
    geometry = ParallelGeometry(np.array([0.0]), n_detector=20, nx=24, nz=30)
    # Seen at every tilt: |x cos t + z sin t| stays within the detector's outer edges, for a fine fan of directions.
    t = np.linspace(0, np.pi, 721)[:, None, None]
    farthest = np.abs(geometry.x * np.cos(t) + geometry.z[:, None] * np.sin(t)).max(axis=0)
    np.testing.assert_array_equal(geometry.cylinder(), farthest <= 10)
