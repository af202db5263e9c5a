"""Diagnosis of the machine: packages, CPUs, memory, disk and GPU."""

import importlib
import platform
import shutil
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Literal

from tomoseg import __version__
from tomoseg.errors import InputError
from tomoseg.io.file_system import trials
from tomoseg.io.limits import reason_of
from tomoseg.machine import available_cpus, available_memory
from tomoseg.terminal import held_back_stderr

REQUIRED = {
    "numpy": "numpy", "scipy": "scipy", "h5py": "h5py", "hdf5plugin": "hdf5plugin", "numba": "numba",
    "scikit-image": "skimage", "mrcfile": "mrcfile", "rosettasciio": "rsciio", "vtk": "vtkmodules",
    "connected-components-3d": "cc3d", "matplotlib": "matplotlib", "keras": "keras",
    "openvino": "openvino",
}  # fmt: skip
OPTIONAL = {
    "tensorflow": ("tensorflow", "required for U-Net segmentation (or KERAS_BACKEND=torch or jax with that package)"),
    "astra-toolbox": ("astra", "required for reconstruct --backend astra and for reconstruction with CUDA"),
    "tomopy": ("tomopy", "required for reconstruct --backend tomopy: conda install -c conda-forge tomopy"),
    "onnxruntime": ("onnxruntime", "required for segment --engine onnxruntime: pip install 'tomoseg[onnx]'"),
    "pyarrow": (
        "pyarrow.parquet",
        "required for export --formats parquet: pip install pyarrow, or 'pyarrow<26' with NumPy 1",
    ),
}
# Importing Keras loads a backend, which is checked by itself; importing OpenVINO sends telemetry to its makers.
NOT_IMPORTED = ("keras", "openvino")


@dataclass(frozen=True)
class Finding:
    """The result of one check: 'missing' means that tomoseg cannot work, 'absent' that an option is unavailable."""

    what: str
    verdict: Literal["ok", "absent", "missing"]
    detail: str


def findings_in(folder: Path) -> list[Finding]:
    """Try what projects need of the file system of a folder. Raises `InputError` where nothing can be written."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name the one that projects are to lie in.")
    try:
        tried = trials(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    needed = {"hard links": "absent"}  # where there are locks, no name is needed to tell who holds one
    verdicts: list[Finding] = [
        Finding(name, "ok" if works else needed.get(name, "missing"), detail)  # type: ignore[arg-type]
        for name, works, detail in tried
    ]
    return [*verdicts, Finding("disk", "ok", f"{shutil.disk_usage(folder).free / 2**30:.0f} GiB free in {folder}")]


def findings() -> list[Finding]:
    """Check everything; takes some seconds, since packages are actually imported."""
    found = [
        Finding("tomoseg", "ok", __version__),
        Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}"),
        Finding("cpus", "ok", f"{available_cpus()} available"),
        Finding("memory", "ok", f"{available_memory() / 2**30:.1f} GiB; the default of --max-memory is half of it"),
        Finding("disk", "ok", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free in {Path.cwd()}"),
    ]
    found += [_package(name, module, "missing", "") for name, module in REQUIRED.items()]
    found += [_package(name, module, "absent", why) for name, (module, why) in OPTIONAL.items()]
    return [*found, _gpu_for_reconstruction()]


def _package(name: str, module: str, verdict: Literal["absent", "missing"], why: str) -> Finding:
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        if module not in NOT_IMPORTED:
            # NumPy writes pages about modules that were built for another one, and TensorFlow about oneDNN.
            with redirect_stderr(StringIO()), held_back_stderr():
                importlib.import_module(module)
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        if module in NOT_IMPORTED:
            return Finding(name, verdict, why or "not installed")
        return Finding(name, "ok", "importable, version unknown")
    except ModuleNotFoundError as error:
        return Finding(name, verdict, why or str(error))
    except Exception as error:  # a package that was built for another NumPy raises more than ImportError
        return Finding(name, verdict, f"cannot be loaded ({reason_of(error)})" + (f"; {why}" if why else ""))


def _gpu_for_reconstruction() -> Finding:
    try:
        import astra

        if astra.use_cuda():
            return Finding("cuda (astra)", "ok", str(astra.get_gpu_info()).strip())
        built = astra.has_feature("cuda")
    except Exception:  # said above, with the package
        return Finding("cuda (astra)", "absent", "astra-toolbox is not installed, or cannot be loaded")
    why = "no CUDA device found, or its driver is too old" if built else "astra-toolbox was built without CUDA"
    return Finding("cuda (astra)", "absent", f"{why}; reconstruction runs on the CPU")
