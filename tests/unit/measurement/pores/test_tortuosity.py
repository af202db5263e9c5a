import numpy as np
import pytest

from tomoseg.measurement.pores.tortuosity import tortuosity


def test_straight_channels_have_tortuosity_1():
    space = np.zeros((20, 16, 18), bool)
    space[:, 2:6, 3:9] = True
    assert tortuosity(space, 0) == pytest.approx(1, abs=1e-6)
    assert np.isnan(tortuosity(space, 1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_narrow_part_in_series(axis):
    """Channel of 8 x 1 cells for 20 cells and of 1 x 1 for 20 in a plane: the resistance lies between two bounds."""
    space = np.zeros((40, 1, 8), bool)
    space[:20] = True
    space[20:, :, 0] = True
    # Without what spreading out costs the resistance is 20 / 8 + 20 / 1, and spreading out costs some more.
    least = space.mean() * (20 / 8 + 20) / (40 / 8)
    measured = tortuosity(np.moveaxis(space, 0, axis), axis)
    assert least < measured < 1.1 * least


def test_dead_ends_and_islands_do_not_conduct():
    space = np.zeros((20, 10, 10), bool)
    space[:, 4:6, 4:6] = True
    alone = space.copy()
    space[10, 6:9, 4:6] = True  # a dead end
    space[5, 0:2, 0:2] = True  # an island
    dead_end = 6 / alone.sum()
    assert tortuosity(space, 0) == pytest.approx((1 + dead_end) * tortuosity(alone, 0), rel=0.01)


@pytest.mark.parametrize(("radius", "fraction"), [(7, 0.1), (10, 0.25)])
def test_space_around_spheres_is_that_of_maxwell(radius, fraction):
    """Maxwell (1873): D_eff / D = 2 (1 - c) / (2 + c) per open area, so tortuosity (2 + c) / 2; here for c < 0.3."""
    side = round((4 / 3 * np.pi * radius**3 / fraction) ** (1 / 3))
    q = np.indices((side,) * 3) - (side - 1) / 2
    space = (q**2).sum(axis=0) > radius**2
    c = 1 - space.mean()
    for axis in range(3):
        # Steps of voxels are rougher than a sphere: 1% of the flux at 10%, 3% at 25%.
        assert tortuosity(space, axis) == pytest.approx(1 + c / 2, rel=0.03)
