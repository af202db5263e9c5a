"""More than one signal of one series: elemental maps beside a HAADF series, from import to export."""

import h5py
import mrcfile
import numpy as np
import pytest

from tests.conftest import tomoseg
from tomoseg.api import open_project
from tomoseg.simulate import simulate_series

SIZE = 48


@pytest.fixture(scope="module")
def spectra(tmp_path_factory):
    """Write an NCEM EMD with a HAADF series and two maps: counts of particles, and of all that is there."""
    folder = tmp_path_factory.mktemp("maps")
    simulated = simulate_series(SIZE, 6, tilt_step_deg=6, jitter_px=1, seed=4, pixel_size_nm=0.5)
    haadf, angles = simulated.raw, simulated.angles_deg
    signal = np.clip(haadf - np.quantile(haadf, 0.1), 0, None).astype(float)
    bright = np.clip(signal - np.quantile(signal, 0.95), 0, None)
    rng = np.random.default_rng(1)
    maps = {
        "Pt": rng.poisson(5 * bright / bright.max()).astype(np.uint8),
        "Al": rng.poisson(2 * signal / signal.max()).astype(np.uint16),
    }
    path = folder / "si.emd"
    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = np.uint32(0), np.uint32(2)
        for name, data in {**maps, "HAADF": haadf, "survey": haadf[:1]}.items():
            group = file.create_group(f"data/{name}")
            group.attrs["emd_group_type"] = np.uint32(1)
            group["data"] = data
            axes = ((angles[: len(data)], "angle", "deg"), *(((np.arange(SIZE) * 0.5), n, "n_m") for n in "yx"))
            for i, (values, label, unit) in enumerate(axes, 1):
                group[f"dim{i}"] = np.asarray(values, np.float32)
                group[f"dim{i}"].attrs["name"], group[f"dim{i}"].attrs["units"] = np.bytes_(label), np.bytes_(unit)
    return path, maps, haadf


@pytest.fixture(scope="module")
def project(spectra):
    path, *_ = spectra
    project = path.with_suffix(".h5")
    tomoseg("import", path, "-o", project, "--further-signals", "Pt,Al", "--progress", "none")
    tomoseg("run", project, "--set", "reconstruct.signals=all", "--set", "reconstruct.iterations=10")
    return project


def test_signals_are_kept_as_acquired(spectra, project):
    _, maps, haadf = spectra
    with h5py.File(project) as file:
        kept = file["tilt_series/further_signals"]
        assert kept.attrs["names"].tolist() == ["Pt", "Al"]
        np.testing.assert_array_equal(kept[:, 0], maps["Pt"])
        np.testing.assert_array_equal(kept[:, 1], maps["Al"])
        np.testing.assert_array_equal(file["tilt_series/data"][:], haadf)


def test_they_get_the_alignment_of_the_main_one_and_no_other_treatment(project):
    with open_project(project) as opened:
        aligned, signals = opened.aligned, opened.aligned_signals
        assert signals.attrs["names"] == ["Pt", "Al"]
        raw = h5py.File(project)["tilt_series/further_signals"]
        assert signals[:].min() >= 0
        # Linear interpolation keeps the counts, but for those that leave the frame.
        np.testing.assert_allclose(signals[:].sum(axis=(2, 3)), raw[:].sum(axis=(2, 3)), rtol=0.1, atol=40)
        main = aligned[:]
        for k in range(2):
            own, other = signals[:, k].mean(axis=0).ravel(), main.mean(axis=0).ravel()
            assert np.corrcoef(own, other)[0, 1] > 0.7


def test_their_volumes_lie_beside_the_main_one(project):
    with open_project(project) as opened:
        volumes, volume = opened.signal_volumes, opened.volume
        assert volumes.shape == (2, *volume.shape)
        assert volumes.attrs["voxel_size_nm"] == 0.5
        dense, particles = volume[:].ravel(), volumes[0].ravel()
        assert np.corrcoef(dense, particles)[0, 1] > 0.5
        found = np.average(np.indices(volume.shape).reshape(3, -1), axis=1, weights=particles**2)
        truth = np.average(np.indices(volume.shape).reshape(3, -1), axis=1, weights=(dense > np.quantile(dense, 0.99)))
        np.testing.assert_allclose(found, truth, atol=3)


def test_they_are_exported(project):
    folder = project.with_name("si_export")
    with open_project(project) as opened, mrcfile.open(folder / "signal_1_Pt.mrc") as file:
        np.testing.assert_array_equal(file.data, opened.signal_volumes[0])
    assert (folder / "signal_2_Al.vti").is_file()


def test_what_cannot_be_kept_or_reconstructed_is_refused(spectra, project, tmp_path):
    path, *_ = spectra
    for wanted, words in (("survey", "1 x 48 x 48"), ("Fe", "no signal 'Fe'"), ("HAADF", "the tilt series itself")):
        failed = tomoseg("import", path, "-o", tmp_path / "p.h5", "--further-signals", wanted, code=2)
        assert words in failed.stderr
    assert not (tmp_path / "p.h5").exists()
    assert "no further signal Fe" in tomoseg("reconstruct", project, "--signal", "Fe", code=2).stderr
    with open_project(project) as opened:
        assert opened.signal_volumes is not None  # what was there is kept
