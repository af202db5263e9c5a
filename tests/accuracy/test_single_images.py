"""Rotation, magnification and tilt of single images, on simulated series of known truth."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from tests.accuracy.test_alignment_accuracy import _align, _rms_error
from tomoseg.alignment.finding import image_corrections
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.runtime import Runtime
from tomoseg.simulate import Phantom, SeriesTruth, catalyst, project, stage_motion, tilt_angles
from tomoseg.stages import reconstruct

SIZE, AXIS_DEG, OFFSET_PX = 96, 5.0, 1.5
ALL = ("rotation", "magnification", "tilt-angle")


@dataclass(frozen=True)
class Series:
    """A raw series and what a perfect analysis would find of it."""

    raw: np.ndarray
    angles_deg: np.ndarray
    truth: SeriesTruth
    rotation_deg: np.ndarray
    magnification: np.ndarray
    tilt_error_deg: np.ndarray


def _recorded(phantom: Phantom, rotation_sd, magnification_sd, tilt_sd, seed=0):
    """Record a phantom with images that are turned, magnified and tilted a little by themselves.

    Written out from the contract: a raw pixel p = (x, y) from the centre, turned by phi + a and made m times as large,
    and then moved by the shift turned by phi, less the offset, is the place of the perfect image that it shows.
    """
    angles, rng = tilt_angles(68, 4), np.random.default_rng(seed)
    n = len(angles)
    rotation, magnification, tilt = (sd * rng.standard_normal(n) for sd in (rotation_sd, magnification_sd, tilt_sd))
    rotation, tilt, magnification = rotation - rotation.mean(), tilt - tilt.mean(), 1 + magnification
    magnification /= magnification.mean()
    perfect = project(phantom.density, angles + tilt, workers=2)
    shifts, phi, c = stage_motion(n, 2, 6, seed + 1), np.deg2rad(AXIS_DEG), (SIZE - 1) / 2
    y, x = np.indices((SIZE, SIZE)) - c
    raw = np.empty_like(perfect)
    for i, (dy, dx) in enumerate(shifts):
        turn, m = phi + np.deg2rad(rotation[i]), magnification[i]
        across = m * (np.cos(turn) * x - np.sin(turn) * y) + np.cos(phi) * dx - np.sin(phi) * dy - OFFSET_PX
        along = m * (np.sin(turn) * x + np.cos(turn) * y) + np.sin(phi) * dx + np.cos(phi) * dy
        raw[i] = ndimage.map_coordinates(perfect[i], [along + c, across + c], order=3)
    electrons = 400 * (raw / raw[raw > 0.05 * raw.max()].mean() + 0.02)
    raw = 1000 + 10 * rng.poisson(np.maximum(electrons, 0)).astype(np.float32)
    truth = SeriesTruth(phantom, shifts, AXIS_DEG, OFFSET_PX)
    return Series(raw, angles, truth, rotation, magnification, tilt)


@pytest.fixture(scope="module")
def phantom():
    return catalyst(SIZE, 12, 2)


@pytest.fixture(scope="module")
def shaken(phantom):
    return _recorded(phantom, 0.5, 0.005, 0.5)


@pytest.fixture(scope="module")
def steady(phantom):
    return _recorded(phantom, 0, 0, 0)


@pytest.fixture(scope="module")
def usual(shaken):
    return _align(shaken.raw, shaken.angles_deg, tilt_axis_angle=AXIS_DEG)


@pytest.fixture(scope="module")
def refined(shaken):
    return _align(shaken.raw, shaken.angles_deg, tilt_axis_angle=AXIS_DEG, refine=ALL)


def _rms(values):
    return float(np.sqrt(np.square(values).mean()))


def _errors(outputs, series):
    """Return rms errors of rotation (degrees), magnification and tilt (degrees), less what no series tells."""
    table, tilts = outputs.arrays["tilt_quality"], series.angles_deg
    missed = table["tilt_error_deg"] - series.tilt_error_deg
    return (
        _rms(table["rotation_deg"] - series.rotation_deg),
        _rms(table["magnification"] - series.magnification),
        _rms(missed - np.polyval(np.polyfit(tilts, missed, 1), tilts)),
    )


def _volume(outputs, series):
    """Reconstruct as the stage does, from the refined angles where there are some."""
    made = MemoryOutputs()
    optional = {name: outputs.as_input(name) for name in ("refined_angles_deg",) if name in outputs.arrays}
    reconstruct.run(
        aligned=outputs.as_input("aligned"),
        angles_deg=MemoryInput(series.angles_deg),
        tilt_quality=outputs.as_input("tilt_quality"),
        tilt_series_info=MemoryInput(None, {"pixel_size_nm": 1.0}),
        params=reconstruct.ReconstructParameters(iterations=30, backend="cpu", resolution=False),
        runtime=Runtime(device="cpu", workers=2),
        outputs=made,
        **optional,
    )
    return made.arrays["volume"]


def _difference(volume, density):
    """Return the relative rms difference from the truth, where the sample is placed like it and as bright."""
    moved = ndimage.shift(volume, phase_cross_correlation(density, volume, upsample_factor=20)[0], order=3)
    scale = float((moved * density).sum() / (moved * moved).sum())
    return _rms(scale * moved - density) / _rms(density)


def test_what_each_image_needs_is_found(shaken, refined):
    outputs, runtime = refined
    rotation, magnification, tilt = _errors(outputs, shaken)
    assert rotation < _rms(shaken.rotation_deg) / 3
    assert magnification < _rms(shaken.magnification - 1) / 3
    assert tilt < _rms(shaken.tilt_error_deg) / 3
    table = outputs.arrays["tilt_quality"]
    assert abs(table["rotation_deg"].mean()) < 1e-9
    assert table["magnification"].mean() == pytest.approx(1, abs=1e-9)
    assert abs(table["tilt_error_deg"].mean()) < 1e-9
    np.testing.assert_allclose(
        outputs.arrays["refined_angles_deg"], shaken.angles_deg + table["tilt_error_deg"], atol=1e-12
    )
    assert any("image corrections: rotation" in note for note in runtime.notes)
    assert not runtime.warnings


def test_shifts_and_figures_are_better(shaken, usual, refined):
    before, after = (_rms_error(outputs, shaken.truth, shaken.angles_deg) for outputs, _ in (usual, refined))
    assert after.max() < 0.5 * before.max()
    assert after.max() < 0.04
    info = [outputs.attrs["alignment_info"] for outputs, _ in (usual, refined)]
    for name in ("residual_after", "estimated_error_px"):
        assert info[1][name] < 0.9 * info[0][name], name
    assert info[1]["correlation_after"] > info[0]["correlation_after"]
    assert info[1]["residual_before"] == info[0]["residual_before"]


def test_the_reconstruction_is_better(shaken, steady, usual, refined):
    """Tilts that are missing do most of the harm; of what single images did, most is undone (measured: 86 %)."""
    density = shaken.truth.phantom.density
    best = _align(steady.raw, steady.angles_deg, tilt_axis_angle=AXIS_DEG)
    before, after, least = (_difference(_volume(o, shaken), density) for o, _ in (usual, refined, best))
    assert before > 1.01 * least
    assert after - least < 0.4 * (before - least)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_only_what_is_asked_for(phantom, kind):
    wanted = [kind == k for k in ALL]
    series = _recorded(phantom, *np.multiply(wanted, (0.5, 0.005, 0.5)), seed=3)
    outputs, _ = _align(series.raw, series.angles_deg, tilt_axis_angle=AXIS_DEG, refine=(kind,))
    put_in = [_rms(v) for v in (series.rotation_deg, series.magnification - 1, series.tilt_error_deg)]
    for error, size, asked in zip(_errors(outputs, series), put_in, wanted, strict=True):
        assert error < size / 3 if asked else error == 0
    assert ("refined_angles_deg" in outputs.arrays) == (kind == "tilt-angle")


def test_nothing_is_kept_where_images_need_nothing(steady):
    plain, _ = _align(steady.raw, steady.angles_deg, tilt_axis_angle=AXIS_DEG)
    asked, runtime = _align(steady.raw, steady.angles_deg, tilt_axis_angle=AXIS_DEG, refine=ALL)
    assert any("hardly improve the agreement of the tilts" in note for note in runtime.notes)
    assert plain.arrays.keys() == asked.arrays.keys()
    for name, array in plain.arrays.items():
        assert array.tobytes() == asked.arrays[name].tobytes(), name


@pytest.mark.slow
def test_what_noise_would_make_of_it_is_small(steady, monkeypatch):
    monkeypatch.setattr(image_corrections, "LEAST_GAIN", -1.0)  # whatever is found is taken
    plain, _ = _align(steady.raw, steady.angles_deg, tilt_axis_angle=AXIS_DEG)
    asked, _ = _align(steady.raw, steady.angles_deg, tilt_axis_angle=AXIS_DEG, refine=ALL)
    table = asked.arrays["tilt_quality"]
    assert 0 < _rms(table["rotation_deg"]) < 0.1
    assert 0 < _rms(table["magnification"] - 1) < 0.001
    assert 0 < _rms(table["tilt_error_deg"]) < 0.15
    before, after = (_rms_error(outputs, steady.truth, steady.angles_deg) for outputs in (plain, asked))
    assert (after < before + 0.05).all()


@pytest.mark.slow
def test_a_patch_tells_what_the_whole_images_need(shaken):
    """Images turn about their own centre, wherever the patch lies."""
    limits = {"x_range": (10, 80), "y_range": (20, 92)}
    outputs, _ = _align(shaken.raw, shaken.angles_deg, tilt_axis_angle=AXIS_DEG, refine=ALL[:2], **limits)
    rotation, magnification, _ = _errors(outputs, shaken)
    assert rotation < _rms(shaken.rotation_deg) / 2
    assert magnification < _rms(shaken.magnification - 1) / 2
    without, _ = _align(shaken.raw, shaken.angles_deg, tilt_axis_angle=AXIS_DEG, **limits)
    before, after = (_rms_error(o, shaken.truth, shaken.angles_deg) for o in (without, outputs))
    assert after.max() < before.max()


def test_two_tilts_tell_nothing_of_single_images(steady):
    outputs, runtime = _align(steady.raw[16:18], steady.angles_deg[16:18], tilt_axis_angle=AXIS_DEG, refine=ALL)
    assert any("too few tilts to find image corrections" in warning for warning in runtime.warnings)
    assert (outputs.arrays["tilt_quality"]["magnification"] == 1).all()
