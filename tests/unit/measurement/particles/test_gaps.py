import numpy as np
import pytest

from tomoseg.measurement.particles import gaps
from tomoseg.measurement.particles.gaps import Compact, SurfaceStore, distance_between, surface_gaps, thinned


def clouds(n, seed=0):
    """Return sets of points around random centres, some of them spread ten times as far."""
    rng = np.random.default_rng(seed)
    spread = np.where(rng.random(n) < 0.1, 20.0, 2.0)
    return [(rng.uniform(0, 60, 3) + s * rng.normal(size=(rng.integers(1, 60), 3))).astype(np.float32) for s in spread]


def extent_of(sets):
    return np.array([s.min(axis=0) for s in sets], float), np.array([s.max(axis=0) for s in sets], float)


def smallest(a, b):
    return np.linalg.norm(a[:, None].astype(float) - b, axis=2).min()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most_pairs", [1 << 20, 50])  # one by one, and by a tree
def test_gaps_are_those_of_all_pairs(seed, most_pairs, monkeypatch):
    monkeypatch.setattr(gaps, "MOST_PAIRS", most_pairs)
    sets = clouds(30, seed)
    truth = [min(smallest(a, b) for b in sets if b is not a) for a in sets]
    np.testing.assert_allclose(surface_gaps(*extent_of(sets), sets.__getitem__), truth, rtol=1e-6, atol=1e-9)


def test_distance_is_at_most_the_bound():
    a, b = np.zeros((1, 3), np.float32), np.full((1, 3), 3, np.float32)
    assert distance_between(a, b) == pytest.approx(np.sqrt(27))
    assert distance_between(a, b, bound=2.0) == 2.0


def test_few_particles():
    one = clouds(1)
    assert np.isnan(surface_gaps(*extent_of(one), one.__getitem__)).tolist() == [True]
    assert len(surface_gaps(np.zeros((0, 3)), np.zeros((0, 3)), one.__getitem__)) == 0
    same = [one[0], one[0].copy()]
    assert surface_gaps(*extent_of(same), same.__getitem__).tolist() == [0, 0]


def test_store_drops_what_was_not_used_and_makes_it_again():
    sets, made = clouds(6, 1), []

    def make(number):
        made.append(number)
        first = number // 2 * 2  # two come together
        return {k: Compact.of(sets[k]) for k in (first, first + 1)}

    store = SurfaceStore((sets[4].nbytes + sets[5].nbytes) / 2, make)
    for k, points in enumerate(sets):
        store.add(k, Compact.of(points))
    np.testing.assert_allclose(store[5], sets[5], atol=1e-3)
    assert made == []
    np.testing.assert_allclose(store[0], sets[0], atol=1e-3)
    np.testing.assert_array_equal(store[0], Compact.of(sets[0]).points())
    assert made == [0]
    extent = extent_of([Compact.of(points).points() for points in sets])
    results = [surface_gaps(*extent, SurfaceStore(n, make).__getitem__) for n in (0, 1 << 20)]
    assert results[0].tobytes() == results[1].tobytes()


def test_compact_points_are_rounded_by_next_to_nothing():
    points = (np.random.default_rng(3).random((50, 3)) * [30, 500, 2]).astype(np.float32)
    compact = Compact.of(points)
    np.testing.assert_allclose(compact.points(), points, atol=500 / 65535)
    assert compact.corners()[1].tolist() == compact.points().max(axis=0).tolist()
    one = Compact.of(points[:1])
    np.testing.assert_array_equal(one.points(), points[:1])


def test_thinning_keeps_points_near_all_others():
    points = (np.random.default_rng(2).random((3000, 3)) * 20).astype(np.float32)
    few = thinned(points, 500)
    assert 0 < len(few) <= 500
    assert max(smallest(p[None], few) for p in points[:200]) <= np.sqrt(3) * 4  # within a cube of 4 px
    assert thinned(points, 3000) is points
