"""Import and set-up of Keras: backend, log messages, device and threads. No other module imports Keras.

Importing this module takes seconds. Import it, and the modules that need it (`builders`, `losses`, `model_file`,
`feature_maps`), only where a network is used.
"""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tomoseg.errors import InputError
from tomoseg.runtime import Runtime
from tomoseg.terminal import held_back_stderr


def _import_keras() -> Any:
    """Import Keras with TensorFlow, or with torch or jax if only these are installed, or one is asked for."""
    if "KERAS_BACKEND" not in os.environ and importlib.util.find_spec("tensorflow") is None:
        for name in ("jax", "torch"):
            if importlib.util.find_spec(name) is not None:
                os.environ["KERAS_BACKEND"] = name
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3":  # the user wants TensorFlow's messages
        return importlib.import_module("keras")
    with held_back_stderr():
        return importlib.import_module("keras")


keras: Any = _import_keras()


def prepare(runtime: Runtime) -> None:
    """Apply the runtime's device and number of threads to the Keras backend.

    Raises `InputError`: a GPU is asked for (`--device cuda`), and the backend sees none.
    """
    backend = keras.config.backend()
    configure = {"tensorflow": _prepare_tensorflow, "torch": _prepare_torch, "jax": _prepare_jax}.get(backend)
    has_gpu = configure(runtime) if configure else False
    if runtime.device == "cuda" and not has_gpu:
        raise InputError(
            f"--device cuda: {backend} sees no GPU on this machine. Install its GPU build (for TensorFlow: "
            "pip install 'tensorflow[and-cuda]'), or use --device auto or cpu."
        )
    runtime.device_used = "cuda" if has_gpu and runtime.device != "cpu" else "cpu"


def policy_for(precision: str, device_used: str) -> str:
    """Return the name of Keras' policy for a precision ('float32', 'mixed' or 'auto') on 'cpu' or 'cuda'.

    The kind of 16-bit numbers is the one that the hardware is fast with; float16 needs loss scaling, which Keras does.
    """
    backend = keras.config.backend()
    if precision == "float32" or (precision == "auto" and (device_used != "cuda" or backend == "jax")):
        return "float32"
    return "mixed_float16" if device_used == "cuda" and backend != "jax" else "mixed_bfloat16"


@contextmanager
def policy(name: str) -> Iterator[None]:
    """Give layers and models that are made inside this block a policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _prepare_tensorflow(runtime: Runtime) -> bool:
    """Set the threads, and hide the GPU or let its memory grow; return whether there is one."""
    tf = importlib.import_module("tensorflow")
    gpus = tf.config.list_physical_devices("GPU")
    try:
        tf.config.threading.set_intra_op_parallelism_threads(runtime.workers)
        tf.config.threading.set_inter_op_parallelism_threads(min(2, runtime.workers))
        if runtime.device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        for gpu in gpus if runtime.device != "cpu" else []:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        # TensorFlow computed before in this process; it keeps the threads and devices it started with.
        runtime.notes.append("TensorFlow was already running: its threads and devices stay as set before")
    return bool(gpus)


def _prepare_torch(runtime: Runtime) -> bool:
    """Set threads; return whether there is a GPU."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(runtime.workers)
    if runtime.device == "cpu":
        os.environ["KERAS_TORCH_DEVICE"] = "cpu"
    return bool(torch.cuda.is_available())


def _prepare_jax(runtime: Runtime) -> bool:
    """Choose the platform; return whether there is a GPU."""
    jax = importlib.import_module("jax")
    if runtime.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    return bool(jax.default_backend() == "gpu")


def graph_of(model: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return a network as a function of TensorFlow for batches of `shape` (n, h, w), and its signature."""
    tf = importlib.import_module("tensorflow")
    signature = [tf.TensorSpec((*shape, model.input_shape[-1]), tf.float32, name="image")]
    return tf.function(lambda image: model(image, training=False), input_signature=signature), signature


def save_graph(model: Any, shape: tuple[int, ...], folder: str) -> None:
    """Write a network for batches of `shape` (n, h, w) in TensorFlow's own format, for converters to read."""
    tf = importlib.import_module("tensorflow")
    module = tf.Module()
    module.kept = [variable.value for variable in model.variables]  # what is not found here is not saved
    module.predict, _ = graph_of(model, shape)
    tf.saved_model.save(module, folder, signatures=module.predict)
