import numpy as np
import pytest

from tomoseg.measurement.particles.dispersion import atom_diameter_of, dispersion

# Atoms of closed-shell cuboctahedra with k shells: (10 k^3 + 15 k^2 + 11 k + 3) / 3 for k + 1 atoms along an edge, of
# which 10 k^2 + 2 lie at the surface.
VOLUME_PER_ATOM = 1 / np.sqrt(2)  # of a face-centred cubic metal, in cubes of the nearest-neighbour distance


# The relation is a mean over shapes, fitted in two pieces: it is furthest from this shape where they meet.
@pytest.mark.parametrize(("k", "tolerance"), [(k, 0.03) for k in range(3, 13)] + [(14, 0.06), (15, 0.09), (60, 0.03)])
def test_cuboctahedra(k, tolerance):
    n = (10 * k**3 + 15 * k**2 + 11 * k + 3) / 3
    diameter = 0.277 * np.cbrt(6 / np.pi * n * VOLUME_PER_ATOM)
    assert dispersion(diameter, 0.277) == pytest.approx((10 * k**2 + 2) / n, rel=tolerance)


def test_both_branches():
    assert dispersion(50 * 0.277, 0.277) == pytest.approx(5.01 / 50)
    # d_rel = 3.32 / D^1.23
    for d in (0.2, 0.5, 0.9):
        assert dispersion(3.32 / d**1.23, 1.0) == pytest.approx(d)
    # Where they meet, neither jumps up.
    sizes = np.linspace(3.7, 60, 2000)
    assert (np.diff([dispersion(s, 1.0) for s in sizes]) <= 0).all()


@pytest.mark.parametrize(("size", "atom"), [(2.0, 1.0), (np.nan, 0.277), (3.0, np.nan)])
def test_not_a_number_where_nothing_is_known(size, atom):
    assert np.isnan(dispersion(size, atom))


def test_atoms_by_the_name_of_the_class():
    assert atom_diameter_of("Pt") == 0.277
    assert np.isnan(atom_diameter_of("particles"))
