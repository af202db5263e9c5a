"""What runs a network: Keras itself, or OpenVINO or ONNX Runtime from a converted copy of it.

`ENGINES` is the table of all of them: to add one, add an entry. ONNX Runtime is optional. Both convert a
network once for each shape of batches and keep the copy in the user's cache folder; a copy that is damaged, or was made
by another version, is made again.
"""

import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError, StageFailed
from tomoseg.io.atomic import atomic_path
from tomoseg.io.folders import cache_folder
from tomoseg.runtime import Runtime
from tomoseg.segmentation.networks.openvino_setup import compiled, has_bf16, openvino

OPSET = 17
# Pixels for a network to see from which on it is worth to convert it for a faster engine, which takes some 7 s once.
WORTH_CONVERTING = 1_000_000
Shape = tuple[int, int, int]  # of a batch: patches, height, width
Convert = Callable[[Any, Shape], dict[str, bytes]]
Load = Callable[[Mapping[str, bytes], int], Callable[[Array], Array]]


class Engine(Protocol):
    """A network ready to compute.

    `name` and `version` say what computes, `device` says where ('cpu' or 'cuda').
    """

    name: str
    version: str
    device: str

    def prepare(self, shape: Shape) -> None:
        """Get ready for batches of `shape`; raises `StageFailed` where that is impossible."""

    def __call__(self, patches: NDArray[np.float32]) -> Array:
        """Return (n, h, w, classes) probabilities of scaled patches (n, h, w) or (n, h, w, channels)."""


class KerasEngine:
    """Keras with its backend; a graph is compiled for each shape of batches.

    Left to itself, TensorFlow makes one graph for all shapes from the second on, in which Keras cannot enlarge images.
    """

    name = "keras"

    def __init__(self, model: Any, device: str = "cpu") -> None:
        from tomoseg.segmentation.networks.keras_setup import keras

        self.device = device
        self.version = f"{keras.__version__} ({keras.config.backend()})"
        self._model = model
        self._graphs: dict[tuple[int, ...], Any] = {}  # by the shape of batches

    def prepare(self, shape: Shape) -> None:
        """Do nothing: Keras compiles at the first batch."""

    def __call__(self, patches: NDArray[np.float32]) -> Array:
        """Return probabilities; see `Engine`."""
        patches, model = _with_channels(patches), self._model
        model.predict_function = self._graphs.get(patches.shape)
        predicted = np.asarray(model.predict_on_batch(patches))
        self._graphs[patches.shape] = model.predict_function
        return predicted


@dataclass(frozen=True)
class Conversion:
    """How a library gets a network from Keras and runs it on the CPU."""

    packages: tuple[str, ...]  # what is needed besides Keras, first the one that computes
    install: str  # what pip is asked for where one is missing
    convert: Convert  # from a Keras network and the shape of batches to the named parts of a converted copy
    load: Load  # from such parts and a number of threads to a function from patches to probabilities
    largest_difference: float  # of a probability from that of Keras; a copy that differs by more is refused


class ConvertedEngine:
    """A library that runs a converted copy of the network on the CPU."""

    device = "cpu"

    def __init__(self, name: str, conversion: Conversion, model: Any, digest: str, runtime: Runtime) -> None:
        self._package = conversion.packages[0]
        self.name, self.version = name, version(self._package)
        self._conversion = conversion
        self._model, self._digest, self._runtime = model, digest, runtime
        self._ready: dict[Shape, Callable[[Array], Array]] = {}

    def load_kept(self, shape: Shape) -> bool:
        """Load the network for batches of `shape` from a kept copy; return whether there is a good one."""
        path = self._path(shape)
        kept = _read_parts(path)
        try:
            if kept is not None:
                self._ready[shape] = self._conversion.load(kept, self._runtime.workers)
        except Exception as error:
            self._runtime.notes.append(f"{path.name} is damaged ({type(error).__name__}): converting the network again")
        return shape in self._ready

    def _path(self, shape: Shape) -> Path:
        return cache_folder() / f"{self._digest}-{self._package}-{self.version}-{'x'.join(map(str, shape))}.zip"

    def prepare(self, shape: Shape) -> None:
        """Load the network for batches of `shape`, from a kept copy or converted now."""
        if self.load_kept(shape):
            return
        path = self._path(shape)
        parts = self._converted(shape)
        if not _keep_parts(path, parts):
            self._runtime.notes.append(f"the converted network could not be saved in {path.parent}")

    def _converted(self, shape: Shape) -> dict[str, bytes]:
        """Convert the network, load it and compare it with Keras; return the parts to keep."""
        from tomoseg.segmentation.networks.keras_setup import keras

        if keras.config.backend() != "tensorflow":  # the converters know its graphs
            raise StageFailed(f"{self.name} can convert a network only where Keras runs on TensorFlow")
        self._runtime.progress.message(f"converting the network for {self.name}")
        try:
            parts = self._conversion.convert(self._model, shape)
            compute = self._conversion.load(parts, self._runtime.workers)
            trial = np.random.default_rng(0).normal(0.5, 1, (*shape, self._model.input_shape[-1])).astype(np.float32)
            difference = float(np.abs(compute(trial) - np.asarray(self._model.predict_on_batch(trial))).max())
        except Exception as error:  # these libraries raise nearly anything
            raise StageFailed(f"{self.name} cannot run this network ({type(error).__name__})") from error
        if not difference <= self._conversion.largest_difference:
            raise StageFailed(f"{self.name} and Keras give probabilities that differ by up to {difference:.2g}")
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


def _to_openvino(model: Any, shape: Shape) -> dict[str, bytes]:
    from tomoseg.segmentation.networks.keras_setup import save_graph

    with tempfile.TemporaryDirectory(prefix="tomoseg-") as folder:
        save_graph(model, shape, folder)
        path = Path(folder, "network.xml")
        openvino().save_model(openvino().Core().read_model(folder), path, compress_to_fp16=False)
        return {"xml": path.read_bytes(), "bin": path.with_suffix(".bin").read_bytes()}


def _load_openvino(precision: str, parts: Mapping[str, bytes], workers: int) -> Callable[[Array], Array]:
    network = openvino().Core().read_model(parts["xml"], openvino().Tensor(np.frombuffer(parts["bin"], np.uint8)))
    compute = compiled(network, workers, precision)
    return lambda patches: np.asarray(compute([np.ascontiguousarray(patches)])[0])


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
    """Return a kept copy, or None where there is none or it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:  # which checks its sums
            return {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError):
        return None


def _keep_parts(path: Path, parts: Mapping[str, bytes]) -> bool:
    """Save a converted network in the cache folder; return whether that succeeded."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part, zipfile.ZipFile(part, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
    except (InputError, OSError):
        return False
    return True


# --- the table, and the choice ---


@dataclass(frozen=True)
class EngineEntry:
    """An engine that can be asked for: a clause of the help on the parameter, and its conversion.

    Keras itself needs none, and is the only one that also runs on a GPU.
    """

    description: str
    conversion: Conversion | None = None


# Differences of a probability from Keras: 2e-6 was measured, and 0.06 in half precision.
ENGINES: dict[str, EngineEntry] = {
    "keras": EngineEntry("Keras itself, on a GPU or CPU"),
    "openvino": EngineEntry(
        "on the CPU, from a copy of the network that is converted once and kept in the user's cache folder, "
        "with the same probabilities to 1e-4",
        Conversion(("openvino",), "openvino", _to_openvino, partial(_load_openvino, "f32"), 1e-3),
    ),
    "openvino-bf16": EngineEntry(
        "likewise in half precision (bfloat16), in less than half the time on a CPU that computes in it, with another "
        "class for about one voxel in 10 000",
        Conversion(("openvino",), "openvino", _to_openvino, partial(_load_openvino, "bf16"), 0.25),
    ),
    "onnxruntime": EngineEntry(
        "as openvino, with ONNX Runtime (pip install 'tomoseg[onnx]')",
        Conversion(("onnxruntime", "tf2onnx"), "'tomoseg[onnx]'", _to_onnx, _load_onnx, 1e-3),
    ),
}
if TYPE_CHECKING:
    EngineName = str
else:  # for pydantic and the command line, which offer and check the names
    EngineName = Literal[("auto", *ENGINES)]


def described_engines() -> str:
    """Return the descriptions of all engines, for the help on the parameter."""
    return "; ".join(f"'{name}': {entry.description}" for name, entry in ENGINES.items())


def problem_with(name: str) -> str | None:
    """Return what is missing for an engine ('auto' misses nothing), without importing it."""
    conversion = ENGINES[name].conversion if name in ENGINES else None
    missing = [package for package in conversion.packages if find_spec(package) is None] if conversion else []
    if conversion is None or not missing:
        return None
    return f"{name} needs {' and '.join(missing)}, not installed here: pip install {conversion.install}"


def engine_for(
    wanted: EngineName, model: Any, digest: str, shapes: list[Shape], runtime: Runtime, n_pixels: float | None = None
) -> Engine:
    """Return the engine asked for, ready for batches of `shapes`.

    'auto' is Keras on a GPU; on a CPU it is OpenVINO where that is installed, takes this network, and the work is worth
    the conversion, in half precision where the processor computes in it; otherwise Keras.

    Raises `InputError`: the engine is not installed, or does not run on the device asked for. Raises `StageFailed`: the
    network cannot be converted, or gives other probabilities afterwards.

    Parameters
    ----------
    model : a Keras network, after `tomoseg.segmentation.networks.keras_setup.prepare`
    digest : SHA-256 of its file, by which converted copies are known
    n_pixels : that the network is to see, if known; 'auto' converts nothing for fewer than `WORTH_CONVERTING`
    """
    name = _chosen(wanted, runtime.device_used, n_pixels)
    conversion = ENGINES[name].conversion
    if conversion is None:
        return KerasEngine(model, runtime.device_used)
    if problem := problem_with(name):
        raise InputError(f"segment.engine: {problem}, or choose keras")
    if runtime.device == "cuda":
        raise InputError(f"segment.engine is {name}, which runs on the CPU only: leave out --device cuda or the engine")
    engine = ConvertedEngine(name, conversion, model, digest, runtime)
    try:
        for shape in shapes:
            engine.prepare(shape)
    except StageFailed as error:
        if wanted != "auto":
            raise StageFailed(f"{error}: choose the engine keras") from error
        runtime.say(f"{error}: Keras runs it instead")
        return KerasEngine(model, runtime.device_used)
    return engine


def kept_engine(
    wanted: EngineName, digest: str, shapes: list[Shape], runtime: Runtime, n_pixels: float
) -> ConvertedEngine | None:
    """Return the engine that `engine_for` would, on a CPU and from kept copies alone; None where that cannot be."""
    name = _chosen(wanted, "cpu", n_pixels)
    conversion = ENGINES[name].conversion
    if conversion is None or problem_with(name):
        return None
    engine = ConvertedEngine(name, conversion, None, digest, runtime)
    return engine if all(engine.load_kept(shape) for shape in shapes) else None


def _chosen(wanted: EngineName, device: str, n_pixels: float | None) -> str:
    """Return the name of the engine for what was asked: 'auto' depends on the machine and the work, as `engine_for`."""
    if wanted != "auto":
        return wanted
    small = n_pixels is not None and n_pixels < WORTH_CONVERTING
    if small or device != "cpu" or problem_with("openvino"):
        return "keras"
    return "openvino-bf16" if has_bf16() else "openvino"
