"""The only place that imports Keras: backend, log noise, device and threads are settled before anything is computed.

Importing this module takes seconds. Import it, and modules that need it (`network`, `losses`, `model_file`,
`training`), only where a network is really used.
"""

import importlib.util
import os
from typing import Any

from tomoseg.errors import InputError
from tomoseg.runtime import Runtime

# TensorFlow's C++ side tells about CPU instructions and missing GPUs on every import; errors stay visible.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "KERAS_BACKEND" not in os.environ and importlib.util.find_spec("tensorflow") is None:
    _others = [name for name in ("torch", "jax") if importlib.util.find_spec(name) is not None]
    os.environ.update({"KERAS_BACKEND": name for name in _others[:1]})

import keras  # noqa: E402

__all__ = ["keras", "prepare"]


def prepare(runtime: Runtime) -> None:
    """Apply the runtime's device and number of threads to the Keras backend.

    Raises
    ------
    InputError
        Where a GPU is asked for (`--device cuda`) and the backend sees none.
    """
    backend = keras.config.backend()
    configure = {"tensorflow": _prepare_tensorflow, "torch": _prepare_torch, "jax": _prepare_jax}[backend]
    has_gpu = configure(runtime)
    if runtime.device == "cuda" and not has_gpu:
        raise InputError(
            f"--device cuda: {backend} sees no GPU on this machine. Install its GPU build (for TensorFlow: "
            "pip install 'tensorflow[and-cuda]'), or use --device auto or cpu."
        )
    runtime.device_used = "cuda" if has_gpu and runtime.device != "cpu" else "cpu"


def _prepare_tensorflow(runtime: Runtime) -> bool:
    """Set threads, and hide the GPU or let its memory grow; return whether there is one."""
    tf = _module("tensorflow")
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
        runtime.notes.append("TensorFlow was already running: its threads and devices are as set before")
    return bool(gpus)


def _prepare_torch(runtime: Runtime) -> bool:
    """Set threads; return whether there is a GPU."""
    torch = _module("torch")
    torch.set_num_threads(runtime.workers)
    if runtime.device == "cpu":
        os.environ["KERAS_TORCH_DEVICE"] = "cpu"
    return bool(torch.cuda.is_available())


def _prepare_jax(runtime: Runtime) -> bool:
    """Choose the platform; return whether there is a GPU."""
    jax = _module("jax")
    if runtime.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    return bool(jax.default_backend() == "gpu")


def _module(name: str) -> Any:
    return importlib.import_module(name)
