import hashlib
import json
import math
import shutil

import numpy as np
import pytest

from tomoseg.arrays import MemoryOutputs
from tomoseg.errors import InputError, Interrupted
from tomoseg.io.mrc import write_angles, write_mrc
from tomoseg.runtime import Runtime
from tomoseg.stages.import_ import METADATA_CHARACTERS, STAGE, ImportParameters, metadata_json

RNG = np.random.default_rng(7)
STACK = RNG.integers(-30000, 30000, (7, 8, 9)).astype(np.int16)
ANGLES = np.array([20.0, 0.0, -20.0, 40.0, -40.0, 60.0, -60.0])


def _series(folder, stack=STACK, angles=ANGLES, pixel_size_nm=3.36, name="raw"):
    write_mrc(folder / f"{name}.mrc", stack, pixel_size_nm, kind="stack")
    write_angles(folder / f"{name}_angles.rawtlt", angles)
    return {"raw": folder / f"{name}.mrc", "angles": folder / f"{name}_angles.rawtlt"}


def _run(runtime=None, **params):
    outputs, runtime = MemoryOutputs(), runtime or Runtime()
    STAGE.run(params=ImportParameters(**params), runtime=runtime, outputs=outputs)
    return outputs, runtime


def test_sorted_by_angle_with_everything_known_stored(tmp_path):
    files = _series(tmp_path)
    assert STAGE.check(ImportParameters(**files)) == []
    outputs, runtime = _run(**files)
    order = np.argsort(ANGLES)
    np.testing.assert_array_equal(outputs.arrays["tilt_series"], STACK[order])
    assert outputs.arrays["tilt_series"].dtype == np.int16
    np.testing.assert_array_equal(outputs.arrays["angles_deg"], np.sort(ANGLES))
    info = outputs.attrs["tilt_series_info"]
    assert info["pixel_size_nm"] == pytest.approx(3.36)
    assert info["pixel_size_source"] == "MRC header"
    assert info["angles_source"] == "raw_angles.rawtlt"
    assert info["tilt_axis"] == "unknown"
    assert info["source"] == str(files["raw"])
    assert info["source_sha256"] == hashlib.sha256(files["raw"].read_bytes()).hexdigest()
    assert json.loads(info["metadata"])["format"] == "MRC"
    assert "7 tilts from -60 to 60 deg, from raw_angles.rawtlt" in runtime.notes
    assert "pixel size 3.36 nm, from MRC header" in runtime.notes
    assert runtime.warnings == []


@pytest.mark.parametrize("max_memory", [1, 2 * 3 * 8 * 9 * 5, 1 << 30])
def test_the_same_in_slabs_of_any_size(tmp_path, max_memory):
    outputs, _ = _run(Runtime(max_memory=max_memory), **_series(tmp_path))
    np.testing.assert_array_equal(outputs.arrays["tilt_series"], STACK[np.argsort(ANGLES)])


def test_memory_is_bounded_by_slabs(tmp_path, monkeypatch):
    files = _series(tmp_path)
    sizes = []
    from tomoseg.io.series import RawSeries

    plain = RawSeries.read
    monkeypatch.setattr(RawSeries, "read", lambda self, images: (sizes.append(len(images)), plain(self, images))[1])
    _run(Runtime(max_memory=2 * 2 * 8 * 9 * 5), **files)  # half of it for two images of 2 + 2 + 1 bytes per pixel
    assert sizes == [2, 2, 2, 1]


def test_repeated_angles_keep_their_order_and_are_reported(tmp_path):
    angles = np.array([0.0, 90, -90, 0, 30, 0, 30])
    outputs, runtime = _run(**_series(tmp_path, angles=angles))
    np.testing.assert_array_equal(outputs.arrays["tilt_series"], STACK[[2, 0, 3, 5, 4, 6, 1]])
    assert "repeated angles, all images kept: 0 (3 times), 30 (2 times) deg" in runtime.notes
    assert "the same direction from both sides, all images kept: -90 and 90 deg" in runtime.notes


@pytest.mark.parametrize("dtype", ["i1", "u2", "f2", "f4"])
def test_types_are_kept(tmp_path, dtype):
    stack = np.abs(STACK // 300).astype(dtype)
    outputs, _ = _run(**_series(tmp_path, stack=stack))
    assert outputs.arrays["tilt_series"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(outputs.arrays["tilt_series"], stack[np.argsort(ANGLES)])


def test_unknown_pixel_size_is_warned_of_and_stored_as_unknown(tmp_path):
    for pixel_size_nm in (None, 0.1):  # 0.1 nm = 1 Å, the placeholder
        outputs, runtime = _run(**_series(tmp_path, pixel_size_nm=pixel_size_nm))
        info = outputs.attrs["tilt_series_info"]
        assert math.isnan(info["pixel_size_nm"])
        assert info["pixel_size_source"] == "unknown"
        assert "the pixel size is unknown" in runtime.warnings[0]
        assert "--pixel-size" in runtime.warnings[0]


def test_a_given_pixel_size_is_used_and_a_contradiction_said(tmp_path):
    outputs, runtime = _run(**_series(tmp_path), pixel_size=2.0)
    assert outputs.attrs["tilt_series_info"]["pixel_size_nm"] == 2.0
    assert outputs.attrs["tilt_series_info"]["pixel_size_source"] == "given"
    assert runtime.warnings == ["the given pixel size of 2 nm is used; the MRC header has 3.36 nm"]
    _, runtime = _run(**_series(tmp_path, pixel_size_nm=None), pixel_size=2.0)
    assert runtime.warnings == []


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf")])
def test_a_pixel_size_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="pixel_size"):
        ImportParameters(pixel_size=bad)


def test_angles_beside_the_raw_file_are_found_and_said(tmp_path):
    files = _series(tmp_path)
    for suffix in (".tlt", ".rawtlt"):
        shutil.copy(files["angles"], tmp_path / f"raw{suffix}")
        outputs, runtime = _run(raw=files["raw"])
        np.testing.assert_array_equal(outputs.arrays["angles_deg"], np.sort(ANGLES))
        assert outputs.attrs["tilt_series_info"]["angles_source"] == f"raw{suffix}"
        assert f"7 tilts from -60 to 60 deg, from raw{suffix}" in runtime.notes


def test_no_angles_anywhere_names_the_option(tmp_path):
    (problem,) = STAGE.check(ImportParameters(raw=_series(tmp_path)["raw"]))
    assert "no tilt angles are known" in problem
    assert "--angles" in problem


def test_a_given_angle_file_overrides_the_metadata_and_a_contradiction_is_said(tmp_path):
    files = _series(tmp_path)
    (tmp_path / "raw.mdoc").write_text("\n".join(f"[ZValue = {i}]\nTiltAngle = {a}" for i, a in enumerate(ANGLES)))
    outputs, runtime = _run(raw=files["raw"])
    assert outputs.attrs["tilt_series_info"]["angles_source"] == "raw.mdoc"
    _, runtime = _run(**files)
    assert runtime.warnings == []
    write_angles(files["angles"], ANGLES + 2.5)
    outputs, runtime = _run(**files)
    np.testing.assert_array_equal(outputs.arrays["angles_deg"], np.sort(ANGLES) + 2.5)
    assert "differ by up to 2.5 deg" in runtime.warnings[0]


def test_angles_that_look_like_radians_are_warned_of(tmp_path):
    _, runtime = _run(**_series(tmp_path, angles=np.radians(ANGLES)))
    assert "radians" in runtime.warnings[0]


def test_tilt_axis_from_metadata_or_as_given(tmp_path):
    files = _series(tmp_path)
    outputs, _ = _run(**files, tilt_axis="y")
    assert outputs.attrs["tilt_series_info"]["tilt_axis"] == "y"
    text = "[T = Tilt axis angle = -88.0]\n" + "\n".join(
        f"[ZValue = {i}]\nTiltAngle = {a}" for i, a in enumerate(ANGLES)
    )
    (tmp_path / "raw.mdoc").write_text(text)
    outputs, runtime = _run(**files)
    assert outputs.attrs["tilt_series_info"]["tilt_axis"] == "x"
    assert "tilt axis along x, from the metadata" in runtime.notes
    outputs, runtime = _run(**files, tilt_axis="y")
    assert outputs.attrs["tilt_series_info"]["tilt_axis"] == "y"
    assert "the metadata say x" in runtime.warnings[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("max_memory", [1, 1 << 30])
def test_pixels_that_are_no_numbers_are_kept_and_counted(tmp_path, value, max_memory):
    stack = STACK.astype(np.float32)
    stack[3, 4, 5] = stack[3, 4, 6] = value
    outputs, runtime = _run(Runtime(max_memory=max_memory), **_series(tmp_path, stack=stack))
    np.testing.assert_array_equal(outputs.arrays["tilt_series"], stack[np.argsort(ANGLES, kind="stable")])
    assert any(note.startswith("2 pixels in 1 of 7 images are NaN or infinite") for note in runtime.notes)


def _problems(**params):
    return STAGE.check(ImportParameters(**params))


def test_every_problem_is_reported_at_once(tmp_path):
    (tmp_path / "bad.tlt").write_text("0\nabc\n")
    problems = _problems(raw=tmp_path / "none.mrc", angles=tmp_path / "bad.tlt")
    assert len(problems) == 2
    assert "bad.tlt, line 2: 'abc' is not a number" in problems[0]
    assert "none.mrc does not exist" in problems[1]
    with pytest.raises(InputError, match="2 problems"):
        _run(raw=tmp_path / "none.mrc", angles=tmp_path / "bad.tlt")


def test_problems_of_files_are_found_without_reading_images(tmp_path, monkeypatch):
    from tomoseg.io.series import RawSeries

    def no_reading(*_args):
        raise AssertionError("images were read")

    monkeypatch.setattr(RawSeries, "read", no_reading)
    files = _series(tmp_path)
    write_angles(tmp_path / "six.tlt", ANGLES[:6])
    (problem,) = _problems(raw=files["raw"], angles=tmp_path / "six.tlt")
    assert "has 7 images" in problem
    assert "six.tlt has 6 tilt angles" in problem
    (tmp_path / "empty.tlt").write_text("")
    assert "holds no number" in _problems(raw=files["raw"], angles=tmp_path / "empty.tlt")[0]
    (tmp_path / "nan.tlt").write_text("0\nnan\n")
    assert "nan.tlt, line 2" in _problems(raw=files["raw"], angles=tmp_path / "nan.tlt")[0]
    write_angles(tmp_path / "same.tlt", [5.0] * 7)
    assert "all 7 images" in _problems(raw=files["raw"], angles=tmp_path / "same.tlt")[0]

    content = files["raw"].read_bytes()
    files["raw"].write_bytes(content[:-3])
    assert "truncated" in _problems(**files)[0]
    files["raw"].write_bytes(b"")
    assert "is empty" in _problems(**files)[0]
    files["raw"].write_bytes(b"not an image")
    assert "truncated" in _problems(**files)[0]
    (tmp_path / "raw.doc").write_bytes(b"not an image")
    assert "supported are" in _problems(raw=tmp_path / "raw.doc", angles=files["angles"])[0]
    write_mrc(files["raw"], STACK[:1], 1.0, kind="stack")
    assert "single 2D image" in _problems(**files)[0]


def test_without_a_raw_file_there_is_nothing_to_check_and_nothing_to_run():
    assert _problems() == []
    with pytest.raises(InputError, match="no raw tilt series"):
        _run()


def test_an_angle_file_alone_is_checked(tmp_path):
    (tmp_path / "bad.tlt").write_text("x")
    assert len(_problems(angles=tmp_path / "bad.tlt")) == 1


def test_metadata_always_fit_an_attribute():
    text = metadata_json("MRC", {"long": "x" * 100_000, "short": 1, "also": "y" * 50_000})
    assert len(text) <= METADATA_CHARACTERS
    assert json.loads(text) == {"format": "MRC", "short": 1, "also": "y" * 50_000, "left_out": ["long"]}


def test_an_interruption_stops_between_slabs(tmp_path, monkeypatch):
    from tomoseg import runtime as runtime_module

    runtime = Runtime(max_memory=1)
    seen = []

    class Watching:
        start = finish = message = lambda *_: None

        def advance(self, done):
            seen.append(done)
            if done == 3:
                runtime_module._signals.append(2)

    runtime.progress = Watching()
    monkeypatch.setattr(runtime_module, "_signals", [])
    with pytest.raises(Interrupted):
        _run(runtime, **_series(tmp_path))
    assert seen == [1, 2, 3]


def test_the_real_needle(real_data):
    folder = real_data / "tilt-series/needle"
    outputs, runtime = _run(raw=folder / "HAADF.mrc", angles=folder / "HAADF.rawtlt")
    assert outputs.arrays["tilt_series"].shape == (77, 256, 256)
    assert outputs.arrays["tilt_series"].dtype == np.int16
    assert outputs.arrays["tilt_series"].min() == -31908
    np.testing.assert_array_equal(outputs.arrays["angles_deg"], np.arange(-76, 77, 2))
    assert runtime.notes == [
        "77 tilts from -76 to 76 deg, from HAADF.rawtlt",
        "pixel size 3.36 nm, from FEI extended header",
    ]
    assert runtime.warnings == []


@pytest.mark.parametrize(
    ("name", "n", "nm", "notes"),
    [
        ("needle-dm3/HAADF.dm3", 91, 17.9949, ["both sides, all images kept: -90 and 90 deg"]),
        ("catalyst-simulated/Catalyst3DModel_TiltSeries180.hspy", 90, 1.0, ["90 tilts from 0 to 178 deg"]),
    ],
)
def test_real_series_that_bring_their_own_angles(real_data, name, n, nm, notes):
    outputs, runtime = _run(raw=real_data / f"tilt-series/{name}")
    assert outputs.arrays["tilt_series"].shape[0] == n
    assert outputs.attrs["tilt_series_info"]["pixel_size_nm"] == pytest.approx(nm, rel=1e-5)
    for note in notes:
        assert any(note in said for said in runtime.notes)
    assert runtime.warnings == []


def test_real_dust_needs_its_angle_file(real_data):
    folder = real_data / "tilt-series/dust-particle"
    raw = folder / "idp_haadf_16x256x256_u16.tif"
    assert "--angles" in _problems(raw=raw)[0]
    outputs, _ = _run(raw=raw, angles=folder / "idp_haadf.rawtlt")
    assert outputs.attrs["tilt_series_info"]["pixel_size_nm"] == pytest.approx(13.0814, rel=1e-5)
    np.testing.assert_array_equal(outputs.arrays["angles_deg"], np.arange(-40, 36, 5))


def test_real_frames_of_one_tilt_are_no_series(real_data):
    (problem,) = _problems(raw=real_data / "tilt-series/serialem/test_000.mrc")
    assert "all 2 images" in problem
    assert "-0.000488 degrees" in problem
    assert "give the folder" in problem


def test_real_frames_with_angles_given_are_imported(real_data, tmp_path):
    write_angles(tmp_path / "a.tlt", [5.0, -5.0])
    outputs, runtime = _run(raw=real_data / "tilt-series/serialem/test_000.mrc", angles=tmp_path / "a.tlt")
    assert outputs.attrs["tilt_series_info"]["tilt_axis"] == "x"
    assert outputs.attrs["tilt_series_info"]["pixel_size_nm"] == pytest.approx(0.788)
    assert "differ" in runtime.warnings[0]
