"""Which backend computes, on which device."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from tomoseg.errors import InputError
from tomoseg.reconstruction.backends import gpu
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.operators import Operator

Backend = Literal["auto", "cpu", "astra", "tomopy", "tomopy-astra"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Choice:
    """A backend, the device it computes on, and why, in words for the user; `warning` where that needs care."""

    backend: Literal["cpu", "astra", "tomopy", "tomopy-astra"]
    device: Literal["cpu", "cuda"]
    reason: str
    warning: str = ""


def missing(backend: Backend) -> str:
    """Return what is wrong with asking for `backend` here, or an empty string; imports nothing heavy."""
    if backend in ("tomopy", "tomopy-astra") and find_spec("tomopy") is None:
        return (
            f"The {backend} backend was asked for, but TomoPy is not installed. Install it with `conda install -c "
            "conda-forge tomopy` (it is not on PyPI), or leave the backend at 'auto'."
        )
    if backend in ("astra", "tomopy-astra") and find_spec("astra") is None:
        return (
            f"The {backend} backend was asked for, but the ASTRA toolbox is not installed. Install it with `pip "
            "install astra-toolbox` or `conda install -c conda-forge astra-toolbox`, or leave the backend at 'auto'."
        )
    return ""


def choose(backend: Backend, device: Device) -> Choice:
    """Choose backend and device.

    'auto' is ASTRA on a GPU where there is one and it may be used, else tomoseg's own projector on the CPU, which is
    tens of times faster than the others there.

    Raises
    ------
    InputError
        The backend is not installed, or a GPU was asked for and ASTRA finds none.
    """
    problem = missing(backend)
    if problem:
        raise InputError(problem)
    if backend in ("cpu", "tomopy"):
        name: Literal["cpu", "tomopy"] = "cpu" if backend == "cpu" else "tomopy"
        return Choice(
            name, "cpu", f"the {name} backend computes on the CPU only" if device == "cuda" else "as asked for"
        )
    found = device != "cpu" and _gpu()
    if device == "cuda" and not found:
        raise InputError(
            "--device cuda was asked for, but the ASTRA toolbox finds no CUDA GPU. Check the driver with `nvidia-smi` "
            "and that ASTRA was built for CUDA (`python -c 'import astra; astra.test_CUDA()'`), or use --device auto "
            "or cpu."
        )
    through: Literal["astra", "tomopy-astra"] = "tomopy-astra" if backend == "tomopy-astra" else "astra"
    if found:
        return Choice(through, "cuda", "a CUDA GPU was found" if device == "auto" else "as asked for")
    own: Literal["cpu", "astra", "tomopy-astra"] = "cpu" if backend == "auto" else through
    if device == "cpu":
        return Choice(own, "cpu", "as asked for")
    return Choice(own, "cpu", "ASTRA finds no CUDA GPU", gpu.why_unused())


def without_gpu(choice: Choice, backend: Backend) -> Choice:
    """Return what computes instead of `choice`, whose GPU failed."""
    return Choice("astra" if backend == "astra" else "cpu", "cpu", f"{choice.backend} failed on the GPU")


def operator(choice: Choice, geometry: ParallelGeometry) -> Operator:
    """Return the operator of a backend that has one, else tomoseg's own: for TomoPy see `tomopy_backend`."""
    if choice.backend == "astra":
        from tomoseg.reconstruction.backends.astra import AstraCpuOperator, AstraCudaOperator

        return AstraCudaOperator(geometry) if choice.device == "cuda" else AstraCpuOperator(geometry)
    from tomoseg.reconstruction.backends.cpu import CpuOperator

    return CpuOperator(geometry)


def _gpu() -> bool:
    """Return whether ASTRA finds a GPU."""
    from tomoseg.reconstruction.backends.astra import cuda_available

    return cuda_available()
