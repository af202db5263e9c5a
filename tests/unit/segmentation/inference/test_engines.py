"""Engines other than Keras: the same probabilities, and copies that are kept."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from tomoseg.errors import InputError, StageFailed
from tomoseg.runtime import Runtime
from tomoseg.segmentation.inference import engines
from tomoseg.segmentation.inference.engines import cache_folder, engine_for, problem_with
from tomoseg.segmentation.networks.openvino_setup import has_bf16
from tomoseg.segmentation.parameters import SegmentParameters
from tomoseg.stages.segment import STAGE

# Converters and TensorFlow's exporter use what NumPy and Python deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
# What auto takes on a CPU: half precision where the processor computes in it.
BEST = "openvino-bf16" if problem_with("openvino") is None and has_bf16() else "openvino"
SHAPE = (2, 32, 64)
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(problem_with(name) is not None, reason=str(problem_with(name))))
    for name in ("openvino", "onnxruntime")
]


@pytest.fixture(scope="module", params=["compact", "attention-res-unet"])
def network(request):
    """A tiny network whose weights and normalisation are nothing special."""
    from tomoseg.segmentation.networks.builders import build

    net = build(request.param, 3, depth=3, base_filters=4, seed=1)
    rng = np.random.default_rng(0)
    net.set_weights([w + 0.1 * np.abs(rng.normal(size=w.shape)) for w in net.get_weights()])
    return net


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    return tmp_path / "tomoseg"


def changed(monkeypatch, name, **changes):
    """Change how an engine in the table converts networks."""
    entry = engines.ENGINES[name]
    monkeypatch.setitem(engines.ENGINES, name, replace(entry, conversion=replace(entry.conversion, **changes)))


def patches():
    return np.random.default_rng(1).normal(0.5, 1, SHAPE).astype(np.float32)


@pytest.mark.parametrize("name", OTHERS)
def test_engines_agree_with_keras(network, name, folder):
    runtime = Runtime(device="cpu", workers=1)
    expected = engine_for("keras", network, "a", [SHAPE], runtime)(patches())
    assert expected.std() > 0.05  # something to agree on
    engine = engine_for(name, network, "a", [SHAPE], runtime)
    assert (engine.name, engine.device) == (name, "cpu")
    np.testing.assert_allclose(engine(patches()), expected, atol=1e-5)
    np.testing.assert_allclose(engine(patches()[:1]), expected[:1], atol=1e-5)  # a shape nobody spoke of
    assert len(list(folder.iterdir())) == 2


def test_keras_takes_patches_of_any_number_of_shapes(network):
    """A single graph for all shapes, which TensorFlow makes from the second on, cannot enlarge images."""
    engine = engine_for("keras", network, "a", [SHAPE], Runtime(device="cpu", workers=1))
    sizes = ((32, 64), (64, 64), (48, 32), (32, 64))
    views = [np.random.default_rng(n).normal(0.5, 1, (1, *size)).astype(np.float32) for n, size in enumerate(sizes)]
    for view in views:
        assert engine(view).shape == (*view.shape, 3)
        np.testing.assert_allclose(engine(view), np.asarray(network(view[..., None], training=False)), atol=1e-5)


@pytest.fixture
def compact_network():
    from tomoseg.segmentation.networks.builders import build

    return build("compact", 2, depth=2, base_filters=2, seed=1)


@pytest.mark.parametrize("name", OTHERS)
def test_converted_copies_are_kept_and_remade_where_damaged(compact_network, name, folder, monkeypatch):
    runtime, converted = Runtime(device="cpu", workers=1), []
    real = engines.ConvertedEngine._converted
    monkeypatch.setattr(engines.ConvertedEngine, "_converted", lambda self, s: converted.append(s) or real(self, s))
    first = engine_for(name, compact_network, "b", [SHAPE], runtime)(patches())
    (path,) = folder.iterdir()
    again = engine_for(name, compact_network, "b", [SHAPE], runtime)(patches())
    np.testing.assert_array_equal(first, again)
    assert converted == [SHAPE]
    sound = path.read_bytes()
    for damaged in (b"", sound[: len(sound) // 2], sound[:200] + bytes([sound[200] ^ 255]) + sound[201:]):
        path.write_bytes(damaged)
        converted.clear()
        np.testing.assert_array_equal(engine_for(name, compact_network, "b", [SHAPE], runtime)(patches()), first)
        assert converted == [SHAPE]
    engine_for(name, compact_network, "another", [SHAPE], runtime)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("name", OTHERS[:1])
def test_a_sound_file_with_nonsense_in_it_is_remade(compact_network, name, folder):
    import zipfile

    runtime = Runtime(device="cpu", workers=1)
    expected = engine_for(name, compact_network, "b", [SHAPE], runtime)(patches())
    (path,) = folder.iterdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xml", "<nothing/>")
    np.testing.assert_array_equal(engine_for(name, compact_network, "b", [SHAPE], runtime)(patches()), expected)
    assert any("is damaged" in note for note in runtime.notes)


@pytest.mark.parametrize("name", OTHERS[:1])
def test_a_cache_folder_that_cannot_be_written_stops_nothing(compact_network, name, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "file"))
    runtime = Runtime(device="cpu", workers=1)
    assert engine_for(name, compact_network, "b", [SHAPE], runtime)(patches()).shape == (*SHAPE, 2)
    assert any("could not be saved" in note for note in runtime.notes)


def test_an_engine_that_is_not_installed_is_refused_before_computing(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    assert problem_with("keras") is None
    assert "pip install openvino" in problem_with("openvino")
    (problem,) = [p for p in STAGE.check(SegmentParameters(model="x.keras", engine="onnxruntime")) if "engine" in p]
    assert "onnxruntime and tf2onnx, not installed here: pip install 'tomoseg[onnx]'" in problem
    with pytest.raises(InputError, match="not installed"):
        engine_for("openvino", None, "", [], Runtime(device="cpu"))


def test_auto_is_keras_on_a_gpu_and_without_openvino(compact_network, monkeypatch):
    on_gpu = SimpleNamespace(device="auto", device_used="cuda")
    engine = engine_for("auto", compact_network, "", [SHAPE], on_gpu)
    assert (engine.name, engine.device) == ("keras", "cuda")
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    engine = engine_for("auto", compact_network, "", [SHAPE], Runtime(device="cpu"))
    assert (engine.name, engine.device) == ("keras", "cpu")


@pytest.mark.skipif(problem_with("openvino") is not None, reason="openvino is not installed")
def test_auto_converts_only_what_is_worth_it(compact_network, folder):
    runtime = Runtime(device="cpu", workers=1)
    for n_pixels, expected in ((engines.WORTH_CONVERTING - 1, "keras"), (engines.WORTH_CONVERTING, BEST)):
        assert engine_for("auto", compact_network, "w", [SHAPE], runtime, n_pixels).name == expected
    assert engine_for("openvino", compact_network, "w", [SHAPE], runtime, 1).name == "openvino"  # asked for by name


def test_the_parameter_offers_the_engines_in_the_table_and_tells_of_each():
    field = SegmentParameters.model_fields["engine"]
    assert get_args(field.annotation) == ("auto", *engines.ENGINES)
    for name, entry in engines.ENGINES.items():
        assert f"'{name}': {entry.description}" in field.description
        assert (entry.conversion is None) == (name == "keras")
    with pytest.raises(ValidationError, match="'openvino-bf16' or 'onnxruntime'"):
        SegmentParameters(engine="tensorrt")


@pytest.mark.skipif(problem_with("openvino") is not None, reason="openvino is not installed")
def test_auto_on_a_cpu_is_openvino_where_it_takes_the_network(compact_network, folder, monkeypatch):
    runtime = Runtime(device="cpu", workers=1)
    assert engine_for("auto", compact_network, "e", [SHAPE], runtime).name == BEST

    def fails(model, shape):
        raise RuntimeError("no such layer")

    changed(monkeypatch, "openvino", convert=fails)
    changed(monkeypatch, "openvino-bf16", convert=fails)
    assert engine_for("auto", compact_network, "other", [SHAPE], runtime).name == "keras"
    assert f"{BEST} cannot run this network (RuntimeError): Keras runs it instead" in runtime.notes
    with pytest.raises(StageFailed, match=r"cannot run this network \(RuntimeError\): choose the engine keras"):
        engine_for("openvino", compact_network, "other", [SHAPE], runtime)


@pytest.mark.parametrize("name", OTHERS[:1])
def test_half_precision_is_close_and_shares_the_copy(compact_network, name, folder):
    runtime = Runtime(device="cpu", workers=1)
    whole = engine_for(name, compact_network, "b", [SHAPE], runtime)(patches())
    half = engine_for(f"{name}-bf16", compact_network, "b", [SHAPE], runtime)(patches())
    np.testing.assert_allclose(half, whole, atol=0.05)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("name", OTHERS[:1])
def test_a_network_that_is_another_after_conversion_is_refused(compact_network, name, folder, monkeypatch):
    changed(monkeypatch, name, largest_difference=-1.0)
    with pytest.raises(StageFailed, match="probabilities that differ by up to"):
        engine_for(name, compact_network, "c", [SHAPE], Runtime(device="cpu", workers=1))
    assert not folder.exists()


@pytest.mark.parametrize("name", OTHERS)
def test_a_gpu_is_refused_where_only_the_cpu_computes(compact_network, name):
    with pytest.raises(InputError, match="--device cuda"):
        engine_for(name, compact_network, "c", [SHAPE], Runtime(device="cuda"))


@pytest.mark.parametrize("name", OTHERS[:1])
def test_nothing_reports_its_use_over_the_net(compact_network, name, folder):
    engine_for(name, compact_network, "d", [SHAPE], Runtime(device="cpu"))
    assert sys.modules.get("openvino_telemetry") is None


@pytest.mark.parametrize(
    ("platform", "expected"), [("linux", "here/tomoseg"), ("darwin", "here/tomoseg"), ("win32", "there/tomoseg")]
)
def test_the_cache_folder_is_the_users(platform, expected, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("LOCALAPPDATA", "there")
    assert cache_folder() == Path(expected)
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable)
    assert cache_folder().is_relative_to(Path.home())
