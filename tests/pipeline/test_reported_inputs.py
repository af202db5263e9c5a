"""Inputs as people report them, with what is right for each, through the commands."""

import gzip

import h5py
import numpy as np
import pytest
import tifffile

from tests.conftest import tomoseg
from tests.unit.io.conftest import mrc_bytes
from tomoseg.project import Project
from tomoseg.simulate import simulate_series

AXIS = 4.0
NOMINAL = 94.0  # of metadata that say the axis lies along x


@pytest.fixture(scope="module")
def simulated():
    return simulate_series(
        80, 12, tilt_step_deg=4, jitter_px=1.5, drift_px=4, tilt_axis_angle_deg=AXIS, seed=11, pixel_size_nm=0.4
    )


def aligned(raw, *options):
    """Import and align; return direction of the axis, table of tilts, notes and warnings, and stored images."""
    project = raw.parent / "p.h5"
    tomoseg("run", raw, "-o", project, "--until", "align", "--progress", "none", *options)
    with Project.read(project) as opened, h5py.File(project) as file:
        records = [opened.record(name) for name in ("import", "align")]
        return (
            float(file["alignment"].attrs["tilt_axis_angle_deg"]),
            file["alignment/quality"][:],
            [note for record in records for note in record.notes],
            [warning for record in records for warning in record.warnings],
            file["tilt_series/data"][:],
        )


def write(folder, images, angles, name="raw.mrc", head="", **options):
    path = folder / name
    path.write_bytes(mrc_bytes(images, cell_angstrom=(*(4.0 * n for n in images.shape[:0:-1]), 4.0), **options))
    if head:
        sections = "".join(f"[ZValue = {i}]\nTiltAngle = {a:.3f}\n\n" for i, a in enumerate(angles))
        path.with_name(f"{name}.mdoc").write_text(f"PixelSpacing = 4\n\n{head}\n\n{sections}")
    else:
        path.with_suffix(".rawtlt").write_text("".join(f"{a:.3f}\n" for a in angles))
    return path


@pytest.mark.slow
def test_a_nominal_axis_that_is_90_degrees_off(simulated, tmp_path):
    head = f"[T =     Tilt axis angle = {NOMINAL - 180:.1f}, binning = 1]"
    axis, table, _, warnings, _ = aligned(write(tmp_path, simulated.raw, simulated.angles_deg, head=head))
    assert axis == pytest.approx(AXIS, abs=0.3)
    assert not table["is_outlier"].any()
    assert any("the metadata say that the tilt axis lies along x" in text for text in warnings)


@pytest.mark.slow
def test_exposure_that_grows_with_tilt(simulated, tmp_path):
    growing = simulated.raw / np.cos(np.deg2rad(simulated.angles_deg))[:, None, None]
    axis, table, notes, _, stored = aligned(write(tmp_path, growing.round().astype(np.uint16), simulated.angles_deg))
    assert axis == pytest.approx(AXIS, abs=0.15)
    assert not table["is_outlier"].any()
    assert any("brightness evened out" in note for note in notes)
    np.testing.assert_allclose(table["scale"] / table["scale"].max(), np.cos(np.deg2rad(table["angle_deg"])), atol=0.05)
    assert stored.max() > simulated.raw.max()  # as acquired


def test_spikes_and_hot_pixels(simulated, tmp_path):
    rng = np.random.default_rng(2)
    spiked = simulated.raw.astype(np.int64)
    for image in spiked:
        image[rng.integers(0, 80, 3), rng.integers(0, 80, 3)] += rng.integers(9000, 30000, 3)
    spiked[:, 33, 51] += 15000
    axis, table, notes, _, stored = aligned(
        write(tmp_path, np.clip(spiked, 0, 65535).astype(np.uint16), simulated.angles_deg)
    )
    assert axis == pytest.approx(AXIS, abs=0.15)
    assert (table["n_replaced"] >= 3).all()
    assert (table["n_replaced"] < 20).all()
    assert any("spikes" in note and "defective pixel" in note for note in notes)
    assert stored.max() == np.clip(spiked, 0, 65535).max()


def test_bytes_whose_header_tells_no_sign(simulated, tmp_path):
    low, high = int(simulated.raw.min()), int(simulated.raw.max())
    values = ((simulated.raw - low) * (255 / (high - low))).astype(np.uint8)
    path = write(tmp_path, values.view(np.int8), simulated.angles_deg, extra={76: bytes(12)})
    axis, _, _, _, stored = aligned(path)
    assert axis == pytest.approx(AXIS, abs=0.3)
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(np.sort(stored, axis=None), np.sort(values, axis=None))


@pytest.mark.slow
def test_bright_field(simulated, tmp_path):
    dark_field = simulated.raw.astype(float) - np.quantile(simulated.raw, 0.05)
    bright = np.random.default_rng(3).poisson(400 * np.exp(-1.2 * dark_field / dark_field.max())).astype(np.uint16)
    axis, table, notes, _, _ = aligned(write(tmp_path, bright, simulated.angles_deg))
    assert axis == pytest.approx(AXIS, abs=0.4)
    assert any("bright field" in note for note in notes)
    assert not table["is_outlier"].any()


@pytest.mark.slow
def test_a_folder_of_files_with_zero_filled_borders(simulated, tmp_path):
    folder = tmp_path / "tilts"
    folder.mkdir()
    for angle, image in zip(simulated.angles_deg, simulated.raw, strict=True):
        framed = np.zeros((100, 100), image.dtype)
        framed[6:86, 11:91] = image
        tifffile.imwrite(folder / f"scan[{angle:.1f}].tif", framed)
    axis, table, notes, _, _ = aligned(folder, "--pixel-size", "0.4")
    assert axis == pytest.approx(AXIS, abs=0.3)
    assert len(table) == len(simulated.angles_deg)
    assert any("border of one value" in note for note in notes)


def test_scrambled_angles_are_not_judged_calmly(simulated, tmp_path):
    shuffled = np.random.default_rng(5).permutation(simulated.angles_deg)
    raw = write(tmp_path, simulated.raw, shuffled)
    project = tmp_path / "p.h5"
    done = tomoseg("run", raw, "-o", project, "--until", "import", "--progress", "none")
    assert done.returncode == 0
    ran = tomoseg_any("align", project, "--progress", "none")
    text = " ".join((ran.stdout + ran.stderr).split())
    assert "the angles do not seem to belong to the images" in text or ran.returncode == 1


def tomoseg_any(*arguments):
    """Run a command that may fail."""
    try:
        return tomoseg(*arguments)
    except AssertionError:
        return tomoseg(*arguments, code=1)


def test_sorted_angles_in_one_file_and_the_order_of_acquisition_in_another(simulated, tmp_path):
    raw = write(tmp_path, simulated.raw, simulated.angles_deg)
    packed = raw.with_name("raw.mrc.gz")
    packed.write_bytes(gzip.compress(raw.read_bytes()))
    raw.unlink()
    by_size = simulated.angles_deg[np.argsort(np.abs(simulated.angles_deg), kind="stable")]
    sections = "".join(f"[ZValue = {i}]\nTiltAngle = {a:.3f}\n\n" for i, a in enumerate(by_size))
    (tmp_path / "raw.mrc.mdoc").write_text(f"PixelSpacing = 4\n\n{sections}")
    axis, table, _, warnings, _ = aligned(packed)
    assert axis == pytest.approx(AXIS, abs=0.15)
    np.testing.assert_allclose(table["angle_deg"], np.sort(simulated.angles_deg), atol=1e-3)
    assert any("raw.rawtlt is used, because the images agree with it" in text for text in warnings)
