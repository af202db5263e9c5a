"""Films that the frame cuts on all sides, simulated with known shifts and axis: by particles, and by texture alone."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg import simulate
from tomoseg.alignment.api import align
from tomoseg.alignment.finding.film import plane_of, upright
from tomoseg.errors import StageFailed, TomosegWarning

SIZE, ANGLES = 96, np.arange(-57, 58, 3.0)


def textured(particles, seed=0, thickness=0.12):
    """Return projections (n_tilt, y, x) of a film that is wider than the frame at any tilt."""
    rng = np.random.default_rng(seed)
    shape = (SIZE // 3, 3 * SIZE // 2, 3 * SIZE)
    z, y, x = (np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in shape)
    density = np.clip(0.5 + SIZE * thickness / 2 - np.abs(z), 0, 1)[:, None, None] * np.ones(shape, np.float32)
    texture = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), 1.3)
    density *= np.clip(1 + 0.35 * texture / texture.std(), 0.05, None)
    for _ in range(particles):
        centre = rng.uniform(-0.5, 0.5, 3) * [SIZE * thickness, shape[1], shape[2]]
        radius = 2.0 * np.exp(0.25 * rng.standard_normal())
        low = np.maximum(np.floor(centre + (np.array(shape) - 1) / 2 - radius - 1).astype(int), 0)
        box = tuple(slice(a, a + int(2 * radius) + 4) for a in low)
        distance = np.sqrt(
            (z[box[0], None, None] - centre[0]) ** 2 + (y[box[1], None] - centre[1]) ** 2 + (x[box[2]] - centre[2]) ** 2
        )
        density[box] += 4 * np.clip(0.5 + radius - distance, 0, 1)
    images = simulate.project(density, ANGLES, 2)
    margin = (images.shape[2] - shape[1]) // 2
    return images[:, :, margin : margin + shape[1]]


def recorded(images, axis=7.0, dose=400.0, exposure=1.0, seed=1):
    """Return raw images and shifts."""
    shifts = simulate.stage_motion(len(ANGLES), 2.5, 8.0, seed)
    axes = np.broadcast_to(axis, len(ANGLES))
    moved = [simulate._misalign(image, shift, phi, 1.5) for image, shift, phi in zip(images, shifts, axes, strict=True)]
    margin = (np.array(images.shape[1:]) - SIZE) // 2
    moved = np.array(moved)[:, margin[0] : margin[0] + SIZE, margin[1] : margin[1] + SIZE]
    expected = dose * moved / moved.mean() * np.broadcast_to(exposure, len(ANGLES))[:, None, None]
    counts = np.random.default_rng(seed + 1).poisson(np.maximum(expected, 0) + 0.02 * dose)
    return (1000 + 4 * counts).astype(np.uint16), shifts


def error_of(found, shifts, axis):
    """Return the error of the shifts, rms per direction less a translation and the offset, and of the direction."""
    phi = np.deg2rad(axis)
    dy, dx = (found.shifts_px - shifts).T
    turn = (found.tilt_axis_angle_deg - axis + 90) % 180 - 90
    along, across = np.sin(phi) * dx + np.cos(phi) * dy, np.cos(phi) * dx - np.sin(phi) * dy
    t = np.deg2rad(ANGLES)
    terms = np.stack([np.cos(t), np.sin(t), np.ones(len(t))], axis=1)
    across = across - terms @ np.linalg.lstsq(terms, across, rcond=None)[0]
    return float(np.sqrt((np.square(across).mean() + np.square(along - along.mean()).mean()) / 2)), turn


def aligned(raw, angles=ANGLES, **options):
    return align(raw, angles, background=1000, workers=2, **options)


@pytest.fixture(scope="module")
def with_particles():
    return textured(150)


@pytest.fixture(scope="module")
def plain(with_particles):
    """Return a series, its shifts, and its alignment."""
    raw, shifts = recorded(with_particles)
    return raw, shifts, aligned(raw)


def check_markers(found, shifts, axis):
    assert found.method == "markers, then a film compared with its images"
    error, turn = error_of(found, shifts, axis)
    assert error < 0.06
    assert abs(turn) < 0.25
    assert 0.4 * error < found.estimated_error_px < 0.15
    assert found.markers.n_seen.min() >= 8
    assert not found.outliers.any()
    assert not any("disagree" in warning for warning in found.warnings)


def test_particles_in_a_film_are_markers(plain):
    _, shifts, found = plain
    check_markers(found, shifts, 7.0)
    sizes = np.hypot(*np.moveaxis(found.markers.residuals_px, -1, 0))
    assert np.nanmean(sizes) == pytest.approx(found.figures["marker_residual_px"])
    assert np.nanmean(sizes) < 0.5
    assert any("markers: " in note for note in found.notes)


def test_few_electrons_and_an_axis_along_x(with_particles):
    raw, shifts = recorded(with_particles, -75.0, dose=40.0)
    check_markers(aligned(raw), shifts, -75.0)


def test_an_exposure_that_grows_with_the_tilt(with_particles):
    raw, shifts = recorded(with_particles, exposure=1 / np.cos(np.deg2rad(ANGLES)))
    check_markers(aligned(raw), shifts, 7.0)


def test_markers_go_with_images_in_any_order(plain):
    raw, _, found = plain
    order = np.random.default_rng(0).permutation(len(ANGLES))
    mixed = aligned(raw[order], ANGLES[order])
    np.testing.assert_array_equal(mixed.markers.places_px, found.markers.places_px[:, order])
    np.testing.assert_array_equal(mixed.shifts_px, found.shifts_px[order])


def test_a_film_without_any_particle():
    raw, shifts = recorded(textured(0, seed=3), axis=-20.0)
    found = aligned(raw)
    assert found.method == "xcorr of stretched images, then a film compared with its images"
    assert found.markers is None
    error, turn = error_of(found, shifts, -20.0)
    assert error < 0.15
    assert abs(turn) < 0.5
    with pytest.raises(StageFailed, match="too few particles"):
        aligned(raw, method="markers")


def test_a_film_lies_level_with_the_axis(plain):
    """The middle of the film is in the middle of the volume, whatever shifts the stage had."""
    found = plain[2]
    y, x = np.moveaxis(found.markers.places_px - (SIZE - 1) / 2 + found.shifts_px, -1, 0)
    phi = np.deg2rad(found.tilt_axis_angle_deg)
    across = np.cos(phi) * x - np.sin(phi) * y - found.tilt_axis_offset_px
    t = np.deg2rad(ANGLES)
    depths = []
    for line in across:
        seen = np.isfinite(line)
        if seen.sum() >= 15:
            depths.append(np.linalg.lstsq(np.stack([np.cos(t), np.sin(t)], axis=1)[seen], line[seen], rcond=None)[0][1])
    assert abs(np.mean(depths)) < 1.5
    assert np.ptp(depths) < 0.25 * SIZE


def test_the_plane_of_markers():
    rng = np.random.default_rng(0)
    markers = rng.uniform(-50, 50, (80, 3))
    markers[:, 2] = 0.1 * markers[:, 1] - 0.02 * markers[:, 0] + 4 + rng.normal(0, 0.5, 80)
    markers[:5, 2] += 60
    slope, depth = plane_of(markers)
    assert slope == pytest.approx(0.1, abs=0.01)
    assert depth == pytest.approx(4, abs=0.3)


def test_the_same_axis_from_its_other_end():
    moves = np.array([[1.0, 2.0]])
    angle, turned = upright(190.0, moves)
    assert angle == pytest.approx(10)
    np.testing.assert_array_equal(turned, -moves)
    assert upright(-30.0, moves)[0] == -30


def test_an_inclined_film_comes_out_level(plain):
    """Angles that are 6 degrees too large say that the film is inclined by as much."""
    raw, _, found = plain
    tilted = aligned(raw, ANGLES + 6.0)
    assert tilted.has_refined_angles
    assert np.ptp(tilted.angles_deg - ANGLES) < 1e-9  # all are changed alike
    assert tilted.angles_deg[0] == pytest.approx(found.angles_deg[0], abs=0.5)
    assert tilted.figures["film_inclination_deg"] == pytest.approx(found.figures["film_inclination_deg"] + 6, abs=0.5)
    assert any("lies level in the volume" in note for note in tilted.notes)
    as_recorded = aligned(raw, ANGLES + 6.0, level="off")
    assert not as_recorded.has_refined_angles
    np.testing.assert_array_equal(as_recorded.angles_deg, ANGLES + 6.0)
    np.testing.assert_allclose(as_recorded.shifts_px, tilted.shifts_px)


def test_the_thickness_is_that_of_the_film_with_its_particles(plain):
    found = plain[2]
    assert 0.12 * SIZE < found.film_thickness_px < 0.12 * SIZE + 2 * 4.0  # particles reach up to 4 px out of it


@pytest.mark.slow
def test_a_thicker_film_is_thicker(plain):
    raw, _ = recorded(textured(100, seed=5, thickness=0.2))
    assert 0.2 * SIZE < aligned(raw).film_thickness_px < 0.2 * SIZE + 2 * 4.0


def test_beyond_its_frame_an_image_of_a_film_goes_on(plain):
    assert plain[2].aligned.min() > 0


@pytest.mark.slow
def test_images_that_turned_are_turned_back_by_their_markers(with_particles):
    turns = np.random.default_rng(8).normal(0, 0.6, len(ANGLES))
    turns -= turns.mean()
    raw, shifts = recorded(with_particles, axis=7.0 + turns)
    found = aligned(raw, refine=("rotation",))
    assert np.sqrt(np.mean((found.quality["rotation_deg"] - turns) ** 2)) < 0.15
    a = np.deg2rad(turns)
    dy, dx = shifts.T  # of an image that is turned first, and moved then
    turned = np.stack([np.cos(a) * dy + np.sin(a) * dx, np.cos(a) * dx - np.sin(a) * dy], axis=1)
    error, turn = error_of(found, turned, 7.0)
    assert error < 0.1
    assert abs(turn) < 0.25
    with pytest.warns(TomosegWarning, match="if images were turned and magnified: try refine"):
        plain = aligned(raw)
    assert plain.figures["marker_residual_px"] > 1.15 * found.figures["marker_residual_px"]


@pytest.mark.slow
def test_bad_images_do_not_break_the_chain_of_a_film_without_particles():
    """One image shows something else, and those beyond it are found beside those before it."""
    raw, shifts = recorded(textured(0, seed=6), axis=20.0)
    damaged = raw.copy()
    damaged[26] = np.roll(raw[20][::-1], (30, 22), axis=(0, 1))
    damaged[9] = np.random.default_rng(0).permutation(raw[9].ravel()).reshape(raw[9].shape)
    with pytest.warns(TomosegWarning, match="do not agree"):
        found = aligned(damaged)
    kept = np.setdiff1d(np.arange(len(ANGLES)), [9, 26])
    apart = (found.shifts_px - shifts)[kept]
    assert np.ptp(apart, axis=0).max() < 4.0  # a broken chain is off by tens
    assert not found.outliers[kept].any()
