"""The reconstruct stage: slabs, threads and memory change nothing; bad input is refused in words."""

import sys

import numpy as np
import pytest
from pydantic import ValidationError

from tests.unit.reconstruction.backends.tomopy_standins import Dividing, ThroughAstra
from tests.unit.stages.interruptions import Fatal, Killed, killed_again_and_again
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError, Interrupted, StageFailed
from tomoseg.reconstruction.backends import choice as backends
from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.methods import mlem
from tomoseg.reconstruction.selection import RESOLUTION_SLICES, SAMPLE_SLICES
from tomoseg.runtime import Runtime
from tomoseg.stages.reconstruct import STAGE, ReconstructParameters, check, run

ANGLES = np.linspace(-64, 64, 17)
N_Y, N_X = 37, 24


@pytest.fixture(scope="module")
def aligned() -> np.ndarray:
    """Return projections of an asymmetric object in a few slices, (n_tilt, y, x)."""
    geometry = ParallelGeometry(ANGLES, N_X, N_X, N_X)
    volume = np.zeros((N_X, N_Y, N_X), np.float32)
    volume[5:9, 10:25, 12:20] = 1
    volume[14, 3:30, 4:7] = 3
    operator, parts = CpuOperator(geometry), []
    for start in range(0, N_Y, operator.block):
        block = volume[:, start : start + operator.block]
        parts.append(
            np.array(operator.unload_projections(operator.forward(operator.load_volume(block)), block.shape[1]))
        )
    return np.concatenate(parts, axis=1)


class Watched:
    """An input that remembers how much was read at once."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.most, self.attrs = array, 0, {}
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key):
        part = self.array[key]
        if len(part) > 1:  # one image is always read whole
            self.most = max(self.most, part.shape[1])
        return part


def quality(n_tilt, outliers=()):
    table = np.zeros(n_tilt, [("angle_deg", "f8"), ("is_outlier", "u1")])
    table["is_outlier"][list(outliers)] = 1
    return MemoryInput(table)


def reconstruct(aligned, *, angles=ANGLES, info=None, runtime=None, outliers=(), outputs=None, **params):
    outputs = outputs or MemoryOutputs()
    runtime = runtime or Runtime(device="cpu", workers=2)
    run(
        aligned=aligned if isinstance(aligned, Watched) else MemoryInput(aligned),
        angles_deg=MemoryInput(np.asarray(angles, float)),
        tilt_quality=quality(len(angles), outliers),
        tilt_series_info=MemoryInput(attrs={"pixel_size_nm": 0.5} if info is None else info),
        params=ReconstructParameters(**{"iterations": 4, **params}),
        runtime=runtime,
        outputs=outputs,
    )
    return outputs, runtime


def test_declared_outputs_are_written(aligned):
    outputs, runtime = reconstruct(aligned)
    assert {a.name for a in STAGE.writes} == set(outputs.arrays) | {
        "reconstruction_info",
        "stopping",
        "signal_volumes",
    }
    volume = outputs.arrays["volume"]
    assert volume.shape == (N_X, N_Y, N_X)
    assert volume.dtype == np.float32
    assert np.isfinite(volume).all()  # MemoryOutputs fills with NaN what is never written
    assert outputs.attrs["volume"]["voxel_size_nm"] == 0.5
    info = outputs.attrs["reconstruction_info"]
    assert (info["method"], info["backend"], info["device"], info["iterations"]) == ("mlem", "cpu", "cpu", 4)
    assert info["resolution_nm"] == 0.5 * info["resolution_px"]
    residuals = outputs.arrays["residuals"]
    assert residuals.shape == (5,)
    assert np.all(np.diff(residuals) < 0)
    assert not runtime.warnings


def test_volume_and_residuals_are_those_of_the_method(aligned):
    outputs, _ = reconstruct(aligned)
    operator = CpuOperator(ParallelGeometry(ANGLES, N_X, N_X, N_X))
    parts = [mlem(operator, aligned[:, i : i + 1], iterations=4) for i in range(N_Y)]
    expected = np.concatenate([p.volume for p in parts], axis=1)
    np.testing.assert_array_equal(outputs.arrays["volume"], expected)
    misfit, power = sum(p.misfit for p in parts), sum(p.power for p in parts)
    np.testing.assert_allclose(outputs.arrays["residuals"], np.sqrt(misfit / power), rtol=1e-6)


@pytest.mark.parametrize("method", ["mlem", "osem", "sirt", "tv", "fbp"])
def test_workers_and_memory_do_not_change_the_result(aligned, method):
    one, _ = reconstruct(aligned, method=method, runtime=Runtime(device="cpu", workers=1))
    many, _ = reconstruct(aligned, method=method, runtime=Runtime(device="cpu", workers=4))
    little, _ = reconstruct(aligned, method=method, runtime=Runtime(device="cpu", workers=4, max_memory=1))
    for other in (many, little):
        np.testing.assert_array_equal(one.arrays["volume"], other.arrays["volume"])
        np.testing.assert_array_equal(one.arrays["residuals"], other.arrays["residuals"])


def test_no_more_than_fits_is_read_at_once(aligned):
    source = Watched(aligned)
    reconstruct(source, runtime=Runtime(device="cpu", workers=4, max_memory=1))
    assert source.most == min(len(aligned[0]), RESOLUTION_SLICES)  # of which it is measured, whatever the memory
    source = Watched(aligned)
    reconstruct(source, resolution=False, runtime=Runtime(device="cpu", workers=4, max_memory=1))
    assert source.most == SAMPLE_SLICES
    source = Watched(aligned)
    reconstruct(source, resolution=False, runtime=Runtime(device="cpu", workers=1, max_memory=1 << 30))
    assert source.most > SAMPLE_SLICES


def test_an_unknown_pixel_size_stays_unknown(aligned):
    outputs, _ = reconstruct(aligned[:, 10:12], info={})
    assert np.isnan(outputs.attrs["volume"]["voxel_size_nm"])


def test_z_size_is_the_thickness(aligned):
    full, _ = reconstruct(aligned[:, :18], iterations=20)
    thick, _ = reconstruct(aligned[:, :18], iterations=20, z_size=32)
    assert thick.arrays["volume"].shape == (32, 18, N_X)
    # The object keeps its place relative to the centre of the volume.
    assert np.corrcoef(thick.arrays["volume"][4:28].ravel(), full.arrays["volume"].ravel())[0, 1] > 0.98


def test_ranges_are_parts_of_the_whole_volume(aligned):
    whole, _ = reconstruct(aligned, z_size=20)
    part, _ = reconstruct(aligned, z_size=20, z_range=(3, 15), y_range=(5, 30), x_range=(10, 24))
    np.testing.assert_array_equal(part.arrays["volume"], whole.arrays["volume"][3:15, 5:30, 10:24])


def test_binned_volume_is_that_of_the_binned_object(aligned):
    outputs, _ = reconstruct(aligned, binning=2, iterations=40)
    fine = reconstruct(aligned, iterations=40)[0].arrays["volume"]
    coarse = outputs.arrays["volume"]
    assert coarse.shape == (12, 18, 12)
    assert outputs.attrs["volume"]["voxel_size_nm"] == 1.0
    # Density per voxel length: twice as much in voxels twice as long.
    expected = 2 * fine[:, :36].reshape(12, 2, 18, 2, 12, 2).mean(axis=(1, 3, 5))

    def agreement(other: np.ndarray) -> float:
        return float(np.corrcoef(coarse.ravel(), other.ravel())[0, 1])

    assert agreement(expected) > 0.96
    assert max(agreement(np.roll(expected, by, axis)) for by in (-1, 1) for axis in range(3)) < 0.9
    assert coarse.sum() == pytest.approx(expected.sum(), rel=0.01)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"y_range": (0, 38)}, "y_range is 0,38"),
        ({"x_range": (20, 25)}, "x_range is 20,25"),
        ({"z_size": 8, "z_range": (0, 9)}, "z_range is 0,9"),
        ({"binning": 40}, "cannot be binned by 40"),
    ],
)
def test_ranges_that_leave_the_volume_are_refused(aligned, params, said):
    with pytest.raises(InputError, match=said):
        reconstruct(aligned, **params)


def test_ranges_may_be_written_as_text():
    assert ReconstructParameters(y_range="3, 9").y_range == (3, 9)
    for bad in ("9,3", "3", "3,9,12", "a,b", (-1, 4), (4, 4)):
        with pytest.raises(ValidationError):
            ReconstructParameters(y_range=bad)


def test_the_support_parameter(aligned):
    outputs, _ = reconstruct(aligned[:, 10:12], support="cylinder")
    assert outputs.arrays["volume"][0, :, 0].max() == 0
    outputs, _ = reconstruct(aligned[:, 10:12] + 0.1, support="all")
    assert outputs.arrays["volume"][0, :, 0].min() > 0


def test_fbp_stores_one_residual_and_sirt_may_go_negative(aligned):
    outputs, _ = reconstruct(aligned, method="fbp", filter="ramp")
    assert outputs.arrays["residuals"].shape == (1,)
    outputs, _ = reconstruct(aligned, method="sirt", non_negative=False)
    assert outputs.arrays["volume"].min() < 0
    outputs, _ = reconstruct(aligned, method="sirt")
    assert outputs.arrays["volume"].min() == 0


@pytest.mark.parametrize("method", ["mlem", "osem", "sirt", "tv"])
def test_backends_give_the_same_volume(aligned, method):
    ours, _ = reconstruct(aligned[:, :20], method=method, iterations=10)
    theirs, _ = reconstruct(aligned[:, :20], method=method, iterations=10, backend="astra")
    assert theirs.attrs["reconstruction_info"]["backend"] == "astra"
    limit = 1e-3 * ours.arrays["volume"].max()  # stated tolerance; measured 1e-5
    np.testing.assert_allclose(theirs.arrays["volume"], ours.arrays["volume"], atol=limit, rtol=0)
    np.testing.assert_allclose(theirs.arrays["residuals"], ours.arrays["residuals"], rtol=1e-3)


def test_backends_agree_on_fbp(aligned):
    ours, _ = reconstruct(aligned[:, 10:14], method="fbp")
    theirs, _ = reconstruct(aligned[:, 10:14], method="fbp", backend="astra")
    # ASTRA's CPU projector has only the adjoint, whose weights do not add up to 1 between the directions of the pixels.
    assert np.corrcoef(theirs.arrays["volume"].ravel(), ours.arrays["volume"].ravel())[0, 1] > 0.98


def test_all_zero_slices_and_series(aligned):
    data = aligned.copy()
    data[:, 4:20] = 0
    outputs, _ = reconstruct(data)
    assert np.all(outputs.arrays["volume"][:, 4:20] == 0)
    assert outputs.arrays["volume"][:, 20:].max() > 0
    for method in ("mlem", "sirt", "fbp"):
        with pytest.raises(StageFailed, match=r"^The aligned images are blank: each of the 1224 pixels"):
            reconstruct(np.zeros((17, 3, N_X), np.float32), method=method)
        with pytest.raises(StageFailed, match=r"^The aligned images are blank: .* reconstruct.y_range"):
            reconstruct(data, method=method, y_range=(4, 20))


def test_negative_pixels_are_reported(aligned):
    data = aligned.copy()
    data[:, :, 0] = -0.01
    _, runtime = reconstruct(data)
    assert any("4.2% of the aligned pixels are negative" in note for note in runtime.notes)
    assert not runtime.warnings
    data[:, :, 0] = -5
    _, runtime = reconstruct(data)
    assert "background" in runtime.warnings[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_names_the_image(aligned, value):
    data = aligned.copy()
    data[8, 30, 3] = value
    with pytest.raises(StageFailed, match="image number 9 at 0 degrees"):
        reconstruct(data)


def test_one_image_is_not_enough(aligned):
    with pytest.raises(InputError, match="only one usable image"):
        reconstruct(aligned[:1], angles=[0.0])


def test_angles_must_match_the_images(aligned):
    with pytest.raises(InputError, match="17 images but there are 16"):
        reconstruct(aligned, angles=ANGLES[1:])


def test_more_than_half_a_turn_is_said(aligned):
    outputs, runtime = reconstruct(aligned[:, 10:12], angles=np.linspace(-100, 100, 17))
    assert any("span 200.0 degrees" in note for note in runtime.notes)
    assert np.isfinite(outputs.arrays["volume"]).all()


def test_a_gpu_that_is_not_there_is_refused_before_computing(aligned, monkeypatch):
    monkeypatch.setattr(backends, "_gpu", lambda: False)
    with pytest.raises(InputError, match="--device"):
        reconstruct(aligned, runtime=Runtime(device="cuda"))
    outputs, _ = reconstruct(aligned[:, 10:12], runtime=Runtime(device="auto"))
    assert outputs.attrs["reconstruction_info"]["backend"] == "cpu"


def test_check_says_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert check(ReconstructParameters()) == []
    (problem,) = check(ReconstructParameters(backend="tomopy"))
    assert problem.startswith("reconstruct.backend")
    assert "conda install -c conda-forge tomopy" in problem


def test_tomopy_is_called_through_its_adapter(aligned, monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "tomopy", Dividing())
    outputs, runtime = reconstruct(aligned, backend="tomopy", runtime=Runtime(device="cuda", workers=2))
    info = outputs.attrs["reconstruction_info"]
    assert (info["method"], info["backend"], info["device"]) == ("mlem", "tomopy", "cpu")
    ours = reconstruct(aligned)[0].arrays["volume"]
    np.testing.assert_allclose(outputs.arrays["volume"], ours, atol=1e-3 * ours.max())
    assert outputs.arrays["residuals"].shape == (5,)
    assert any("CPU only" in note for note in runtime.notes)


def test_an_interrupt_is_obeyed_between_groups(aligned, monkeypatch):
    runtime = Runtime(device="cpu", workers=1)
    seen = []

    def stop(_seconds: float = 0) -> None:
        seen.append(1)
        if len(seen) == 2:
            raise Interrupted("stopped by SIGINT")

    monkeypatch.setattr(runtime, "check", stop)
    with pytest.raises(Interrupted):
        reconstruct(aligned, runtime=runtime)


# Threads and memory for the runs before and after an interruption: slabs of 16, of 48 and of 32 slices.
CHOICES = ((1, 1), (3, 1 << 30), (2, 1 << 30))


@pytest.mark.parametrize(("every", "order"), [(1, (0,)), (1, (1, 0, 2)), (2, (0, 1)), (3, (1, 2)), (5, (2, 1, 0))])
@pytest.mark.parametrize(
    ("method", "backend"),
    [("mlem", "cpu"), ("osem", "cpu"), ("sirt", "cpu"), ("tv", "cpu"), ("fbp", "cpu"), ("mlem", "astra")],
)
def test_a_killed_run_continues_to_the_very_same_result(aligned, method, backend, every, order):
    data = np.tile(aligned, (1, 3, 1))[:, :101] * np.linspace(1, 3, 101, dtype=np.float32)[:, None]
    data -= np.float32(0.02)  # negative values are counted
    params = {"method": method, "backend": backend, "iterations": 2}
    whole, undisturbed = reconstruct(data, runtime=Runtime(device="cpu", workers=2), **params)
    runtimes = []

    def run(outputs, choice):
        workers, max_memory = CHOICES[choice]
        runtimes.append(Runtime(device="cpu", workers=workers, max_memory=max_memory))
        reconstruct(data, outputs=outputs, runtime=runtimes[-1], **params)

    resumed = killed_again_and_again(run, every, order)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], array, strict=True)
    assert resumed.attrs == whole.attrs
    said = runtimes[-1].notes
    done = 101 if every == 1 else 16 * every * (7 // every)  # of 101 slices, 16 at a time
    assert f"continuing after {done} of 101 slices" in said
    assert [note for note in said if "continuing" not in note] == undisturbed.notes


def test_nothing_is_computed_twice(aligned):
    first = Fatal(1)
    runtime = Runtime(device="cpu", workers=1, max_memory=1)
    with pytest.raises(Killed):
        reconstruct(aligned, outputs=first, runtime=runtime)
    state, arrays = first.kept
    assert state["slices"] == 16
    arrays["volume"][:, :16] = 7
    resumed, _ = reconstruct(aligned, outputs=MemoryOutputs(state, arrays))
    assert np.all(resumed.arrays["volume"][:, :16] == 7)
    assert np.isfinite(resumed.arrays["volume"]).all()


def test_another_device_starts_anew(aligned):
    # Half a volume of the one and half of the other would be what neither gives.
    first = Fatal(1)
    with pytest.raises(Killed):
        reconstruct(aligned, outputs=first, runtime=Runtime(device="cpu", max_memory=1))
    state, arrays = first.kept
    whole, _ = reconstruct(aligned)
    arrays["volume"][:, :16] = 7
    resumed, _ = reconstruct(aligned, outputs=MemoryOutputs({**state, "device": "cuda"}, arrays))
    np.testing.assert_array_equal(resumed.arrays["volume"], whole.arrays["volume"])
    np.testing.assert_array_equal(resumed.arrays["residuals"], whole.arrays["residuals"])


def test_slabs_are_written_as_the_file_is_chunked(aligned):
    written = []

    class Chunked(MemoryOutputs):
        def create(self, *args, **options):
            array = super().create(*args, **options)

            class Sink:
                shape = array.shape

                def __setitem__(self, key, value):
                    written.append(key[1])
                    array[key] = value

            return Sink()

    reconstruct(aligned, outputs=Chunked(), runtime=Runtime(device="cpu", workers=3), backend="astra", iterations=1)
    assert [(part.start, part.stop) for part in written] == [(0, 16), (16, 32), (32, 37)]


@pytest.mark.parametrize(
    "bad",
    [{"method": "art"}, {"iterations": 0}, {"z_size": 0}, {"filter": "none"}, {"backend": "gpu"}, {"thickness": 3}],
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        ReconstructParameters(**bad)


def test_inputs_are_not_modified(aligned):
    before = aligned.copy()
    reconstruct(aligned)
    np.testing.assert_array_equal(aligned, before)


def test_outliers_are_left_out(aligned):
    """An empty image would dim every voxel; left out, the result is that of the other tilts alone."""
    spoilt = aligned.copy()
    spoilt[5] = 0
    kept = np.arange(len(ANGLES)) != 5
    outputs, runtime = reconstruct(spoilt, outliers=[5])
    expected, _ = reconstruct(aligned[kept], angles=ANGLES[kept])
    np.testing.assert_array_equal(outputs.arrays["volume"], expected.arrays["volume"])
    assert any("1 outlier image " in note and f"{ANGLES[5]:g}" in note for note in runtime.notes)
    dimmed, _ = reconstruct(spoilt, outliers=[5], exclude_outliers=False)
    # MLEM averages over the tilts: one empty image of 17 takes about a 17th of the density.
    ratio = dimmed.arrays["volume"].sum() / expected.arrays["volume"].sum()
    assert ratio == pytest.approx(16 / 17, abs=0.02)


@pytest.fixture(scope="module")
def noisy(aligned):
    """Return the series with the noise of some hundred counts, in many slices."""
    scale = aligned.max() / 200
    return (np.random.default_rng(0).poisson(aligned / scale) * scale).astype(np.float32)


@pytest.mark.parametrize("method", ["mlem", "osem", "sirt", "tv"])
def test_iterations_are_chosen_from_the_data(noisy, method):
    outputs, runtime = reconstruct(noisy, method=method, iterations="auto")
    curve, n = outputs.arrays["stopping"], outputs.attrs["reconstruction_info"]["iterations"]
    assert n in curve["iterations"]
    assert curve["held_out"][curve["iterations"] == n] <= 1.02 * curve["held_out"].min()
    assert len(outputs.arrays["residuals"]) == n + 1
    assert any(note.startswith(f"{n} iterations: ") for note in runtime.notes)
    given, _ = reconstruct(noisy, method=method, iterations=int(n))
    np.testing.assert_array_equal(given.arrays["volume"], outputs.arrays["volume"])
    assert "stopping" not in given.arrays


def test_with_few_tilts_the_usual_number_is_taken(aligned):
    outputs, runtime = reconstruct(aligned[::2], angles=ANGLES[::2], iterations="auto")
    assert outputs.attrs["reconstruction_info"]["iterations"] == 30
    assert any("9 tilts are too few" in note for note in runtime.notes)


def test_an_empty_series_fails_before_the_resolution_is_measured(aligned):
    runtime = Runtime(device="cpu")
    with pytest.raises(StageFailed, match="images are blank"):
        reconstruct(np.zeros_like(aligned), iterations="auto", runtime=runtime)
    assert any("the sample is empty" in note for note in runtime.notes)
    assert not any("resolution" in note for note in runtime.notes)


def test_the_resolution_is_stored_and_told(noisy):
    outputs, runtime = reconstruct(noisy)
    shells = outputs.arrays["shells"]
    assert np.all(np.diff(shells["frequency_per_px"]) > 0)
    assert shells["correlation"][0] > 0.9
    px = outputs.attrs["reconstruction_info"]["resolution_px"]
    assert any("resolution" in note and f"{0.5 * px:.2f} nm ({px:.2f} px)" in note for note in runtime.notes)
    worse, _ = reconstruct(noisy + np.random.default_rng(1).normal(0, 6, noisy.shape).astype(np.float32))
    assert worse.attrs["reconstruction_info"]["resolution_px"] > 1.3 * px
    without, _ = reconstruct(noisy, resolution=False)
    assert "shells" not in without.arrays


def test_tv_is_not_asked_of_tomopy():
    problems = check(ReconstructParameters(method="tv", backend="tomopy"))
    assert any("tv" in problem for problem in problems)


@pytest.mark.parametrize("backend", ["auto", "cpu", "astra", "tomopy-astra"])
def test_gridrec_is_of_tomopy_only(monkeypatch, backend):
    monkeypatch.setattr(backends, "find_spec", lambda name: True)
    (problem,) = check(ReconstructParameters(method="gridrec", backend=backend))
    assert problem.startswith(f"reconstruct.method: backend {backend} does not compute gridrec. Use backend tomopy, or")
    assert check(ReconstructParameters(method="gridrec", backend="tomopy")) == []


@pytest.mark.parametrize("method", ["osem", "tv"])
def test_what_astra_does_not_do_through_tomopy(monkeypatch, method):
    monkeypatch.setattr(backends, "find_spec", lambda name: True)
    (problem,) = check(ReconstructParameters(method=method, backend="tomopy-astra"))
    assert problem.startswith(f"reconstruct.method: backend tomopy-astra does not compute {method}. Use backend")
    assert check(ReconstructParameters(method="sirt", backend="tomopy-astra")) == []


def test_mlem_of_astra_through_tomopy_needs_a_gpu(aligned, monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: True)
    with pytest.raises(InputError, match="on a GPU only"):
        reconstruct(aligned, backend="tomopy-astra", method="mlem")


@pytest.mark.parametrize(("method", "backend"), [("gridrec", "tomopy"), ("fbp", "tomopy-astra")])
def test_tomopys_direct_methods_are_stored_with_the_resolution(aligned, monkeypatch, method, backend):
    monkeypatch.setattr(backends, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "tomopy", ThroughAstra() if backend == "tomopy-astra" else Dividing())
    outputs, _ = reconstruct(aligned, backend=backend, method=method)
    info = outputs.attrs["reconstruction_info"]
    assert (info["method"], info["backend"], info["iterations"]) == (method, backend, 0)
    assert np.isfinite(info["resolution_px"])
    assert outputs.arrays["residuals"].shape == (1,)
    assert "stopping" not in outputs.arrays


@pytest.mark.parametrize("value", ["many", 0, 20_000, 2.5, True, None])
def test_numbers_of_iterations_that_are_none(value):
    with pytest.raises(ValidationError, match="auto, or a whole number"):
        ReconstructParameters(iterations=value)


def test_a_part_tells_where_it_lies_in_the_whole(aligned):
    whole, _ = reconstruct(aligned, z_size=20)
    assert list(whole.attrs["volume"]["offset_px"]) == [0, 0, 0]
    part, _ = reconstruct(aligned, z_size=20, z_range=(3, 15), y_range=(5, 30), x_range=(10, 24))
    z, y, x = part.attrs["volume"]["offset_px"]
    shape = part.arrays["volume"].shape
    cut = tuple(slice(first, first + n) for first, n in zip((z, y, x), shape, strict=True))
    np.testing.assert_array_equal(part.arrays["volume"], whole.arrays["volume"][cut])
