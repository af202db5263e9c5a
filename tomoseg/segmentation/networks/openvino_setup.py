"""OpenVINO, which runs networks on the CPU: imported, and ready to compute."""

import os
import sys
from importlib import import_module
from typing import Any

from tomoseg.machine import available_cpus


def openvino() -> Any:
    """Import OpenVINO without the package that reports its use over the network."""
    forbid_telemetry()
    return import_module("openvino")


def forbid_telemetry() -> None:
    """Make the package that reports the use of OpenVINO over the network look as if it were not installed."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def n_threads() -> int:
    """Return how many threads a network may use where nothing else says so: those of OpenMP, or all CPUs."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else available_cpus()


def has_bf16() -> bool:
    """Tell whether the processor computes in bfloat16 itself."""
    return "BF16" in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compiled(network: Any, workers: int, precision: str | None = None) -> Any:
    """Return a network as a function of its inputs, run on `workers` threads.

    Parameters
    ----------
    network : what `openvino().Core().read_model` returns, or the path of such a file
    precision : 'f32' or 'bf16'; OpenVINO chooses if None: bfloat16 where the CPU has it
    """
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": workers,
        "ENABLE_CPU_PINNING": False,  # threads that may not move wait for what else the machine does
    }
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    return openvino().Core().compile_model(network, "CPU", settings)
