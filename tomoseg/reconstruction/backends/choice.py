"""The choice of a backend and of the device that it computes on."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from tomoseg.errors import InputError
from tomoseg.reconstruction.backends import gpu
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.method_table import BackendName
from tomoseg.reconstruction.operators import Operator
from tomoseg.runtime import Device

_PACKAGES = {  # what backends need: module, name, how to install it
    "tomopy": ("TomoPy is", "`conda install -c conda-forge tomopy` (it is not on PyPI)"),
    "astra": ("the ASTRA toolbox is", "`pip install astra-toolbox` or `conda install -c conda-forge astra-toolbox`"),
}


@dataclass(frozen=True)
class Choice:
    """A backend, the device it computes on, and why, in words for the user; `warning` where that needs care."""

    backend: Literal["cpu", "astra", "tomopy", "tomopy-astra"]
    device: Literal["cpu", "cuda"]
    reason: str
    warning: str = ""

    @property
    def is_tomopy(self) -> bool:
        """Whether TomoPy runs the iterations."""
        return self.backend.startswith("tomopy")

    def operator(self, geometry: ParallelGeometry, block: int | None = None) -> Operator:
        """Return the backend's operator; TomoPy has none, and tomoseg's own takes its place.

        `block` is the number of slices in a block of tomoseg's own projector, if it is not the smaller of its two; the
        others have sizes of their own.
        """
        if self.backend == "astra":
            from tomoseg.reconstruction.backends.astra import AstraCpuOperator, AstraCudaOperator

            return AstraCudaOperator(geometry) if self.device == "cuda" else AstraCpuOperator(geometry)
        from tomoseg.reconstruction.backends.cpu import CpuOperator

        return CpuOperator(geometry) if block is None else CpuOperator(geometry, block)

    def without_gpu(self, backend: BackendName) -> "Choice":
        """Return what computes instead, the GPU having failed, where `backend` was asked for."""
        return Choice("astra" if backend == "astra" else "cpu", "cpu", f"{self.backend} failed on the GPU")


def why_missing(backend: BackendName) -> str:
    """Return why `backend` cannot be used here, or an empty string; imports nothing heavy."""
    for module, (subject, how) in _PACKAGES.items():
        if module in backend.split("-") and find_spec(module) is None:
            return (
                f"The {backend} backend was asked for, but {subject} not installed. Install it with {how}, or leave "
                "the backend at 'auto'."
            )
    return ""


def choose(backend: BackendName, device: Device) -> Choice:
    """Choose backend and device.

    'auto' is ASTRA on a GPU where there is one and it may be used, else tomoseg's own projector on the CPU, which is
    tens of times faster than the others there.

    Raises
    ------
    InputError
        The backend is not installed, or a GPU was asked for and ASTRA finds none.
    """
    if problem := why_missing(backend):
        raise InputError(problem)
    if backend in ("cpu", "tomopy"):
        reason = f"the {backend} backend computes on the CPU only" if device == "cuda" else "as asked for"
        return Choice(backend, "cpu", reason)
    if device != "cpu" and _gpu():
        reason = "a CUDA GPU was found" if device == "auto" else "as asked for"
        return Choice("astra" if backend == "auto" else backend, "cuda", reason)
    if device == "cuda":
        raise InputError(
            "--device cuda was asked for, but the ASTRA toolbox finds no CUDA GPU. Check the driver with `nvidia-smi` "
            "and that ASTRA was built for CUDA (`python -c 'import astra; astra.test_CUDA()'`), or use --device auto "
            "or cpu."
        )
    on_cpu = "cpu" if backend == "auto" else backend
    if device == "cpu":
        return Choice(on_cpu, "cpu", "as asked for")
    return Choice(on_cpu, "cpu", "ASTRA finds no CUDA GPU", gpu.why_unused())


def _gpu() -> bool:
    """Return whether ASTRA finds a GPU."""
    from tomoseg.reconstruction.backends.astra import cuda_available

    return cuda_available()
