"""What computes a network: Keras itself, or OpenVINO or ONNX Runtime from a converted copy of it.

OpenVINO and ONNX Runtime are optional. What they need is converted once for each shape of batches and kept in the
user's cache folder; a copy that is damaged, or was made by another version, is made anew.
"""

import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError, StageFailed
from tomoseg.io.atomic import atomic_path
from tomoseg.io.folders import cache_folder
from tomoseg.runtime import Runtime

EngineName = Literal["auto", "keras", "openvino", "openvino-bf16", "onnxruntime"]
# The packages that each engine needs besides Keras, the one that computes first, and the extra of tomoseg that brings
# them.
NEEDED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "openvino": (("openvino",), "fast"),
    "openvino-bf16": (("openvino",), "fast"),
    "onnxruntime": (("onnxruntime", "tf2onnx"), "onnx"),
}
# Of a probability, between a converted network and Keras: 2e-6 was measured, and 0.06 in half precision.
LARGEST_DIFFERENCE = {"openvino": 1e-3, "openvino-bf16": 0.25, "onnxruntime": 1e-3}
OPSET = 17
Shape = tuple[int, int, int]  # of a batch: patches, height, width
Convert = Callable[[Any, Shape], dict[str, bytes]]
Load = Callable[[Mapping[str, bytes], int], Callable[[Array], Array]]


class Engine(Protocol):
    """A network ready to compute.

    `name` and `version` say with what, `device` is where ('cpu' or 'cuda').
    """

    name: str
    version: str
    device: str

    def prepare(self, shape: Shape) -> None:
        """Get ready for batches of `shape`; raises `StageFailed` where it cannot."""

    def __call__(self, patches: NDArray[np.float32]) -> Array:
        """Return (n, h, w, classes) probabilities of scaled patches (n, h, w) or (n, h, w, channels)."""


def problem_with(name: str) -> str | None:
    """Say what is missing for an engine, without importing it."""
    packages, extra = NEEDED.get(name, ((), ""))
    missing = [package for package in packages if find_spec(package) is None]
    if not missing:
        return None
    return f"{name} needs {' and '.join(missing)}, not installed here: pip install 'tomoseg[{extra}]'"


def engine_for(wanted: EngineName, model: Any, digest: str, shapes: list[Shape], runtime: Runtime) -> Engine:
    """Return the engine asked for, ready for batches of `shapes`.

    'auto' is Keras on a GPU; on a CPU it is OpenVINO in single precision where that is installed and takes this
    network, else Keras.

    Parameters
    ----------
    model : a Keras network, after `tomoseg.segmentation.networks.keras_setup.prepare`
    digest : SHA-256 of its file, by which converted copies are known

    Raises
    ------
    InputError
        The engine is not installed, or cannot do what `--device` asks for.
    StageFailed
        The network cannot be converted, or is not the same afterwards.
    """
    keras_only = runtime.device_used != "cpu" or problem_with("openvino") is not None
    if wanted == "keras" or (wanted == "auto" and keras_only):
        return KerasEngine(model, runtime.device_used)
    if problem := problem_with(wanted):
        raise InputError(f"segment.engine: {problem}, or take engine keras")
    if runtime.device == "cuda":
        raise InputError(f"segment.engine is {wanted}, which computes on the CPU: leave out --device cuda, or it")
    engine = Converted("openvino" if wanted == "auto" else wanted, model, digest, runtime)
    try:
        for shape in shapes:
            engine.prepare(shape)
    except StageFailed as error:
        if wanted != "auto":
            raise
        runtime.say(f"{error}; Keras computes instead")
        return KerasEngine(model, runtime.device_used)
    return engine


class KerasEngine:
    """Keras with its backend; a graph is compiled for each shape of batches."""

    name = "keras"

    def __init__(self, model: Any, device: str = "cpu") -> None:
        from tomoseg.segmentation.networks.keras_setup import keras

        self.device = device
        self.version = f"{keras.__version__} ({keras.config.backend()})"
        self._model = model

    def prepare(self, shape: Shape) -> None:
        """Do nothing: it is ready."""

    def __call__(self, patches: NDArray[np.float32]) -> Array:
        """Return probabilities; see `Engine`."""
        return np.asarray(self._model.predict_on_batch(_with_channels(patches)))


class Converted:
    """OpenVINO or ONNX Runtime, on the CPU."""

    device = "cpu"

    def __init__(self, name: str, model: Any, digest: str, runtime: Runtime) -> None:
        self._package = NEEDED[name][0][0]
        self.name, self.version = name, version(self._package)
        known: dict[str, tuple[Convert, Load]] = {
            "openvino": (_to_openvino, partial(_load_openvino, "f32")),
            "openvino-bf16": (_to_openvino, partial(_load_openvino, "bf16")),
            "onnxruntime": (_to_onnx, _load_onnx),
        }
        self._convert, self._load = known[name]
        self._model, self._digest, self._runtime = model, digest, runtime
        self._ready: dict[Shape, Callable[[Array], Array]] = {}

    def prepare(self, shape: Shape) -> None:
        """Load the network for batches of `shape`, converted now or before."""
        path = cache_folder() / f"{self._digest}-{self._package}-{self.version}-{'x'.join(map(str, shape))}.zip"
        kept = _read_parts(path)
        try:
            if kept is not None:
                self._ready[shape] = self._load(kept, self._runtime.workers)
                return
        except Exception as error:
            self._runtime.notes.append(f"{path.name} was damaged and is made anew: {type(error).__name__}")
        parts = self._made(shape)
        if not _keep_parts(path, parts):
            self._runtime.notes.append(f"the converted network could not be kept in {path.parent}")

    def _made(self, shape: Shape) -> dict[str, bytes]:
        """Convert, load and try out; return what can be kept."""
        from tomoseg.segmentation.networks.keras_setup import keras

        if keras.config.backend() != "tensorflow":  # the converters know its graphs
            raise StageFailed(f"{self.name} needs Keras with TensorFlow to convert a network: take engine keras")
        self._runtime.progress.message(f"converting the network for {self.name}")
        try:
            parts = self._convert(self._model, shape)
            compute = self._load(parts, self._runtime.workers)
            trial = np.random.default_rng(0).normal(0.5, 1, (*shape, self._model.input_shape[-1])).astype(np.float32)
            difference = float(np.abs(compute(trial) - np.asarray(self._model.predict_on_batch(trial))).max())
        except Exception as error:  # these libraries raise nearly anything
            raise StageFailed(
                f"{self.name} cannot take this network ({type(error).__name__}): take engine keras"
            ) from error
        if not difference <= LARGEST_DIFFERENCE[self.name]:
            raise StageFailed(
                f"{self.name} gives other probabilities than Keras, by up to {difference:.2g}: take engine keras"
            )
        self._ready[shape] = compute
        return parts

    def __call__(self, patches: NDArray[np.float32]) -> Array:
        """Return probabilities; see `Engine`."""
        n, height, width = patches.shape[:3]
        shape = (n, height, width)
        if shape not in self._ready:
            self.prepare(shape)
        return self._ready[shape](_with_channels(patches))


def _with_channels(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    return patches[..., None] if patches.ndim == 3 else patches


# --- conversion and loading ---


def _openvino() -> Any:
    """Import OpenVINO without the package with which it reports its use over the net."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if not installed
    return import_module("openvino")


def _to_openvino(model: Any, shape: Shape) -> dict[str, bytes]:
    from tomoseg.segmentation.networks.keras_setup import save_graph

    openvino = _openvino()
    with tempfile.TemporaryDirectory(prefix="tomoseg-") as folder:
        save_graph(model, shape, folder)
        path = Path(folder, "network.xml")
        openvino.save_model(openvino.Core().read_model(folder), path, compress_to_fp16=False)
        return {"xml": path.read_bytes(), "bin": path.with_suffix(".bin").read_bytes()}


def _load_openvino(precision: str, parts: Mapping[str, bytes], workers: int) -> Callable[[Array], Array]:
    openvino = _openvino()
    core = openvino.Core()
    network = core.read_model(parts["xml"], openvino.Tensor(np.frombuffer(parts["bin"], np.uint8)))
    settings = {
        "INFERENCE_PRECISION_HINT": precision,  # or it takes bfloat16 where the CPU has it
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": workers,
        "ENABLE_CPU_PINNING": False,  # threads that may not move wait for what else the machine does
    }
    compiled = core.compile_model(network, "CPU", settings)
    return lambda patches: np.asarray(compiled([np.ascontiguousarray(patches)])[0])


def _to_onnx(model: Any, shape: Shape) -> dict[str, bytes]:
    from tomoseg.segmentation.networks.keras_setup import graph_of

    function, signature = graph_of(model, shape)
    network, _ = import_module("tf2onnx").convert.from_function(function, input_signature=signature, opset=OPSET)
    return {"onnx": network.SerializeToString()}


def _load_onnx(parts: Mapping[str, bytes], workers: int) -> Callable[[Array], Array]:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = workers, 1
    session = onnxruntime.InferenceSession(parts["onnx"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda patches: np.asarray(session.run(None, {name: np.ascontiguousarray(patches)})[0])


# --- converted copies ---


def _read_parts(path: Path) -> dict[str, bytes] | None:
    """Return what was kept, or None where there is nothing sound."""
    try:
        with zipfile.ZipFile(path) as archive:  # which checks its sums
            return {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError):
        return None


def _keep_parts(path: Path, parts: Mapping[str, bytes]) -> bool:
    """Put a converted network into the cache folder; return whether that could be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part, zipfile.ZipFile(part, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
    except (InputError, OSError):
        return False
    return True
