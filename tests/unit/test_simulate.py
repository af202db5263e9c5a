"""The simulator's truth is true: geometry, mass, chord lengths, signs of the misalignment, noise."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist, squareform

from tomoseg import simulate
from tomoseg.errors import InputError


@pytest.fixture(scope="module")
def phantom():
    return simulate.catalyst(96, n_particles=20, seed=3)


def spot(shape, centre, sigma=1.5):
    """A Gaussian spot, wide enough for its centre of mass not to depend on the sampling."""
    distance = sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True))
    return np.exp(-distance / (2 * sigma**2)).astype(np.float32)


def supersampled_ball(size, radius, factor=4):
    """A ball whose border voxels hold the mean of factor**3 points: independent of the simulator's own rendering."""
    c = (np.arange(size * factor) - (size * factor - 1) / 2) / factor
    inside = c[:, None, None] ** 2 + c[None, :, None] ** 2 + c[None, None, :] ** 2 < radius**2
    return inside.reshape(size, factor, size, factor, size, factor).mean(axis=(1, 3, 5), dtype=np.float32)


# --- projection ---


@pytest.mark.parametrize("angle", [-68.0, -33.0, 0.0, 10.0, 45.0, 90.0, 170.0])
def test_a_point_is_seen_at_x_cos_plus_z_sin(angle):
    shape, (z, y, x) = (40, 30, 48), (26.0, 11.0, 15.5)  # away from the centre by (6.5, -3.5, -8)
    image = simulate.project(spot(shape, (z, y, x)), [angle])[0]
    t = np.deg2rad(angle)
    seen = 23.5 + (x - 23.5) * np.cos(t) + (z - 19.5) * np.sin(t)
    # A Gaussian of 1.5 px is band-limited to 1e-5, so only float32 sums (1e-6 of some 50 px) can be off.
    assert ndimage.center_of_mass(image.astype(float)) == pytest.approx((y, seen), abs=1e-3)


@pytest.mark.parametrize("angle", [-60.0, -27.5, 0.0, 45.0, 90.0])
def test_mass_is_kept(phantom, angle):
    image = simulate.project(phantom.density, [angle])[0]
    # A cubic spline of a sharp-edged object sums to its mass within 1e-5; float32 sums add 1e-6.
    assert image.sum(dtype=float) == pytest.approx(phantom.density.sum(dtype=float), rel=2e-5)


@pytest.mark.parametrize("angle", [0.0, 23.0, -45.0, 68.0])
def test_a_ball_projects_to_its_chords(angle):
    size, radius = 64, 20.0
    image = simulate.project(supersampled_ball(size, radius), [angle])[0]
    c = np.arange(size) - (size - 1) / 2
    r = np.hypot(c[:, None], c)
    chord = 2 * np.sqrt(np.clip(radius**2 - r**2, 0, None))
    # Away from the rim, where a chord changes by its own length within a voxel. A border voxel knows how much of it is
    # covered but not where: at 45 degrees the pattern of the voxels shows with some 0.15 px, 0.4 % of the diameter.
    error = (image - chord)[r < 0.9 * radius]
    assert np.sqrt((error**2).mean()) < 0.2
    assert np.abs(error).max() < 0.4
    assert abs(error.mean()) < 0.03  # the rim's curvature within a voxel
    assert np.abs(image[r > radius + 3]).max() < 0.02  # overshoot of the spline next to the edge


@pytest.mark.parametrize("angle", [0.0, 23.0, -45.0, 68.0])
def test_a_smooth_object_projects_exactly(angle):
    image = simulate.project(spot((40, 41, 40), (19.5, 20, 19.5), sigma=2.0), [angle])[0]
    y, u = np.arange(41) - 20, np.arange(40) - 19.5
    truth = 2 * np.sqrt(2 * np.pi) * np.exp(-(y[:, None] ** 2 + u**2) / 8)
    # The cubic spline through a Gaussian of 2 px is within 2.2e-4 of it; linear interpolation would be off by 3 %.
    assert image == pytest.approx(truth, abs=3e-4 * truth.max())


def test_an_object_that_fills_the_volume_ends_at_its_edge():
    volume = np.ones((20, 4, 32), np.float32)
    straight, tilted = simulate.project(volume, [0.0, 30.0])
    assert straight == pytest.approx(np.full((4, 32), 20.0), rel=1e-5)
    assert tilted[:, 15:17] == pytest.approx(np.full((4, 2), 20 / np.cos(np.pi / 6)), rel=1e-3)


def test_projection_does_not_depend_on_the_threads(phantom):
    few = phantom.density[40:56]
    one, two = (simulate.project(few, [-10.0, 0.0, 40.0], workers) for workers in (1, 2))
    assert np.array_equal(one, two)


def test_only_volumes_are_projected():
    with pytest.raises(InputError, match="shape"):
        simulate.project(np.zeros((4, 4)), [0.0])


# --- phantom ---


def test_particles_are_as_many_as_asked_and_apart(phantom):
    p = phantom.particles
    centres = np.stack([p["z"], p["y"], p["x"]], axis=1)
    gaps = pdist(centres) - squareform(np.add.outer(p["diameter_px"], p["diameter_px"]) / 2, checks=False)
    assert len(p) == 20
    assert gaps.min() >= 3.0
    assert ndimage.label(phantom.labels == simulate.PARTICLE, np.ones((3, 3, 3)))[1] == 20


def test_particles_sit_on_the_support_and_in_its_pores():
    phantom = simulate.catalyst(128, n_particles=30, seed=1)
    support = ndimage.binary_dilation(phantom.labels == simulate.SUPPORT, iterations=2)
    found = ndimage.label(phantom.labels == simulate.PARTICLE)[0]
    touching = np.unique(found[support])
    assert len(touching[touching > 0]) == 30


def test_labels_and_density_agree(phantom):
    for label, density in enumerate((0.0, 1.0, 4.5)):
        inside = ndimage.binary_erosion(phantom.labels == label, np.ones((3, 3, 3)))
        assert inside.any()
        error = np.abs(phantom.density[inside] - density)
        # All but the odd voxel between two faces, or in a sliver, of which less than half is covered.
        assert (error > 1e-5).mean() < 1e-3
        assert error.max() < 0.5
    volume = np.pi / 6 * (phantom.particles["diameter_px"] ** 3).sum()
    # Voxel counts of 20 digital spheres of some 40 voxels scatter by 3 % each, so by 1 % together.
    assert (phantom.labels == simulate.PARTICLE).sum() == pytest.approx(volume, rel=0.03)


def test_support_has_pores(phantom):
    support = phantom.labels > 0
    whole = simulate.catalyst(96, n_particles=20, seed=3, n_pores=0).labels > 0
    assert 0.02 < 1 - support.sum() / whole.sum() < 0.4


@pytest.mark.parametrize("seed", range(3))
def test_object_stays_in_view_at_any_tilt_and_rotation(seed):
    phantom = simulate.catalyst(64, n_particles=8, seed=seed)
    c = np.arange(64) - 31.5
    r = np.sqrt(c[:, None, None] ** 2 + c[None, :, None] ** 2 + c[None, None, :] ** 2)
    assert phantom.density[r > 0.42 * 64 + 1].max() == 0


def test_diameters_follow_the_distribution_asked_for():
    d = simulate.catalyst(192, n_particles=60, seed=0).particles["diameter_px"]
    # Median of 60 log-normal diameters of 20 %: standard error 1.25 * 0.2 / sqrt(60) = 3.2 %, three of them.
    assert np.median(d) == pytest.approx(8.5, rel=0.1)
    assert d.min() >= 8.5 * np.exp(-0.4) - 1e-9
    assert d.max() <= 8.5 * np.exp(0.4) + 1e-9


def test_too_many_particles_are_refused():
    with pytest.raises(InputError, match="particles"):
        simulate.catalyst(48, n_particles=60, mean_diameter_px=10)


def test_no_particles_is_a_bare_support():
    phantom = simulate.catalyst(48, n_particles=0)
    assert len(phantom.particles) == 0
    assert phantom.density.max() == 1


# --- acquisition ---


@pytest.mark.parametrize(
    ("shift", "angle", "offset"),
    [((3.0, -2.0), 0.0, 0.0), ((0.0, 0.0), 90.0, 0.0), ((0.0, 0.0), 0.0, 5.0), ((1.5, -4.25), -37.0, 2.75)],
)
def test_alignment_formula_takes_a_raw_point_back_to_its_place(shift, angle, offset):
    shape, (y, x) = (81, 90), (47.0, 36.5)  # a point of the aligned image
    raw = simulate.acquire(
        spot((1, *shape), (0, y, x), 2.0),
        shifts_px=np.array([shift]),
        tilt_axis_angle_deg=angle,
        tilt_axis_offset_px=offset,
        dose=None,
        black_level=0,
        dtype=np.float64,
    )
    row, column = ndimage.center_of_mass(raw[0])
    # Complex numbers x + i y: rotated = exp(i phi) * registered, as in the design's formula.
    registered = (column - 44.5 + shift[1]) + 1j * (row - 40 + shift[0])
    rotated = np.exp(1j * np.deg2rad(angle)) * registered
    # Cubic interpolation of a Gaussian of 2 px is exact to 1e-3 of a px.
    assert (rotated.imag + 40, rotated.real - offset + 44.5) == pytest.approx((y, x), abs=5e-3)


def test_positive_axis_angle_turns_the_axis_counter_clockwise_as_displayed():
    rod = np.zeros((1, 61, 61), np.float32)
    rod[0, 10:51, 29:32] = 1  # along the axis
    raw = simulate.acquire(rod, tilt_axis_angle_deg=30.0, dose=None, dtype=np.float32, black_level=0)[0]
    top = ndimage.center_of_mass(raw[:25])  # rows above the centre, displayed with y down
    assert np.rad2deg(np.arctan2(30 - top[1], 30 - top[0])) == pytest.approx(30, abs=1)  # to the left


def test_positive_offset_moves_the_axis_towards_plus_x():
    raw = simulate.acquire(
        spot((1, 31, 31), (0, 15, 15)), tilt_axis_offset_px=4.0, dose=None, dtype=np.float32, black_level=0
    )
    assert ndimage.center_of_mass(raw[0])[1] == pytest.approx(19, abs=0.01)


def test_shift_to_add_moves_the_raw_image_the_other_way():
    raw = simulate.acquire(
        spot((1, 31, 31), (0, 15, 15)), shifts_px=np.array([[3.0, 0.0]]), dose=None, dtype=np.float32, black_level=0
    )
    assert ndimage.center_of_mass(raw[0])[0] == pytest.approx(12, abs=0.01)


def test_perfect_acquisition_changes_nothing(phantom):
    perfect = simulate.project(phantom.density, [0.0, 20.0])
    raw = simulate.acquire(perfect, dose=None, dtype=np.float32, black_level=7)
    assert raw - 7 == pytest.approx(perfect, abs=1e-3)  # float32 of some 100 counts


def test_dose_is_the_mean_over_the_shadow_and_noise_is_poisson(phantom):
    perfect = np.repeat(simulate.project(phantom.density, [0.0]), 40, axis=0)
    raw = simulate.acquire(perfect, dose=50.0, counts_per_electron=3.0, black_level=100, dtype=np.int32)
    electrons = (raw - 100) / 3.0
    shadow = perfect[0] > 0.05 * perfect.max()
    mean, variance = electrons.mean(axis=0), electrons.var(axis=0, ddof=1)
    # Every pixel of vacuum and shadow has the 2 % of vacuum electrons on top. 40 images of 2000 pixels at 50 electrons:
    # the mean is known to 0.05 %, the variance to sqrt(2 / 40 / 2000) = 0.5 %.
    assert mean[shadow].mean() == pytest.approx(51, rel=0.005)
    assert variance[shadow].sum() / mean[shadow].sum() == pytest.approx(1, abs=0.02)
    assert mean[:5].mean() == pytest.approx(1, rel=0.05)  # vacuum


@pytest.mark.parametrize(("dtype", "dose"), [("u1", 40), ("i2", 400), ("u2", 4000), ("u2", 400_000)])
def test_integer_counts_use_their_range_and_do_not_saturate(phantom, dtype, dose):
    raw = simulate.acquire(simulate.project(phantom.density, [0.0]), dose=dose, black_level=20, dtype=dtype)
    assert raw.dtype == np.dtype(dtype)
    assert 0.1 * np.iinfo(dtype).max < raw.max() < np.iinfo(dtype).max


def test_nothing_to_see_and_wrong_shapes_are_refused():
    with pytest.raises(InputError, match="dose"):
        simulate.acquire(np.zeros((2, 8, 8)), dose=400)
    with pytest.raises(InputError, match="shifts"):
        simulate.acquire(np.ones((2, 8, 8)), shifts_px=np.zeros((3, 2)))


# --- whole series ---


def test_same_seed_same_series_other_seed_another():
    a, b, c = (simulate.simulate_series(48, 4, tilt_step_deg=17, seed=seed) for seed in (1, 1, 2))
    assert a.raw.shape == (9, 48, 48)
    assert np.array_equal(a.raw, b.raw)
    assert np.array_equal(a.truth.shifts_px, b.truth.shifts_px)
    assert not np.array_equal(a.raw, c.raw)


def test_conditions_do_not_change_the_object():
    low, high = (
        simulate.simulate_series(48, 4, tilt_step_deg=34, dose=dose, jitter_px=dose / 100) for dose in (40, 400)
    )
    assert np.array_equal(low.truth.phantom.density, high.truth.phantom.density)


def test_angles_are_symmetric_and_end_within_the_range():
    assert simulate.tilt_angles(68, 2) == pytest.approx(np.arange(-68, 69, 2))
    assert simulate.tilt_angles(60, 7).max() == pytest.approx(59.5)
    with pytest.raises(InputError):
        simulate.tilt_angles(60, 0)


def test_motion_has_the_drift_and_jitter_asked_for():
    shifts = simulate.stage_motion(2001, jitter_px=2.0, drift_px=30.0)
    assert shifts.mean(axis=0) == pytest.approx(0, abs=1e-9)
    steps = np.diff(shifts, axis=0)
    # Differences of neighbours have sqrt(2) times the jitter; 4000 of them give it to 2 %.
    assert steps.std() == pytest.approx(2 * np.sqrt(2), rel=0.05)
    ends = shifts[-50:].mean(axis=0) - shifts[:50].mean(axis=0)
    assert np.hypot(*ends) == pytest.approx(30, rel=0.05)  # the means stand 2.5 % of the way from the ends
