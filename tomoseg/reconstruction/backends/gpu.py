"""The GPUs that CUDA may use here, the memory free on them, and the number of slices that fit in it.

`nvidia-smi` tells the free memory of all GPUs of the machine, whatever CUDA was told to use. CUDA numbers them by
speed, `nvidia-smi` by bus position, unless `CUDA_DEVICE_ORDER=PCI_BUS_ID`: a number does not identify a GPU for sure.
So the least memory free on any GPU that may be meant counts, and several compute together only if of one model.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tomoseg.reconstruction.geometry import ParallelGeometry

QUERY = ("--query-gpu=uuid,name,memory.free", "--format=csv,noheader,nounits")
TIMEOUT_S = 20  # a driver that wakes up its GPUs takes some time
ASSUMED = 1 << 30  # bytes, where nothing is known; ASTRA assumes the same
SHARE = 0.5  # of the free memory; the rest is for CUDA itself (about 0.3 GB) and for other processes
MOST, LEAST = 256, 16  # slices; the volume is written 16 at a time
MOST_VALUES = 2**31 - 1  # in an array on the GPU, so that 32 bits can count them


class GpuFailed(Exception):
    """The GPU or its driver failed; whatever it left in an array must not be used."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as `nvidia-smi` lists it; `free` is in bytes, None where unknown (as for a GPU divided into instances)."""

    uuid: str
    name: str
    free: int | None


@dataclass(frozen=True)
class Usable:
    """GPUs to compute on: their CUDA numbers, the bytes free on the fullest one, and the source of that number.

    `numbers` is empty where CUDA's own choice is used.
    """

    numbers: tuple[int, ...]
    free: int
    source: str


def parse(listing: str) -> list[Gpu]:
    """Return the GPUs in the answer of `nvidia-smi` to `QUERY`: a line for each, memory in MiB."""
    found = []
    for line in listing.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and parts[0].startswith("GPU-"):
            found.append(Gpu(parts[0], parts[1], int(parts[2]) << 20 if parts[2].isdecimal() else None))
    return found


def listed() -> list[Gpu]:
    """Return the GPUs that `nvidia-smi` lists; none where it is missing or does not answer."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        answer = subprocess.run([command, *QUERY], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return []
    return parse(answer.stdout)


def visible(gpus: Sequence[Gpu], setting: str | None, by_place: bool = False) -> list[Gpu]:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` (None where it is not set) lets CUDA use.

    The list ends at its first entry that names no GPU, as it does for CUDA. Numbers are those of `nvidia-smi` only if
    CUDA numbers GPUs `by_place`. Otherwise a number may mean any of them, and is taken for a GPU with the least memory
    that any has free.
    """
    if setting is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in setting.split(",")):
        if entry.isdecimal() and int(entry) < len(gpus):
            chosen.append(gpus[int(entry)] if by_place else _least(gpus))
            continue
        meant = [gpu for gpu in gpus if entry.startswith("GPU-") and gpu.uuid.startswith(entry)]
        if len(meant) != 1:
            break
        chosen.append(meant[0])
    return chosen


def _least(gpus: Sequence[Gpu]) -> Gpu:
    """Return what holds for each of `gpus`: the least memory free, and the name if they share one."""
    free = [gpu.free for gpu in gpus]
    known = [bytes_free for bytes_free in free if bytes_free is not None]
    names = {gpu.name for gpu in gpus}
    return Gpu("", names.pop() if len(names) == 1 else "", min(known) if len(known) == len(free) else None)


def hidden() -> bool:
    """Return whether CUDA was told to use no GPU at all."""
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    return setting is not None and setting.strip() in ("", "-1", "NoDevFiles")


@lru_cache(maxsize=1)
def usable() -> Usable:
    """Return the GPUs to compute on and the memory free on them at the first call.

    These are the GPUs that `ASTRA_GPU_INDEX` names, where it is set; else all that CUDA may use if they are of one
    model, or the one that CUDA takes first.
    """
    by_place = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    gpus = visible(listed(), os.environ.get("CUDA_VISIBLE_DEVICES"), by_place)
    alike = len(gpus) > 1 and len({gpu.name for gpu in gpus}) == 1 and gpus[0].name != ""
    numbers = _asked_of_astra() or (tuple(range(len(gpus))) if alike else ())
    free = _least(gpus).free if gpus else None
    if free is not None:
        return Usable(numbers, free, "nvidia-smi")
    total = _total(_told_by_astra())
    if total is not None:
        return Usable(numbers, total // 2, "the GPU's size, half of which is assumed to be free")
    return Usable(numbers, ASSUMED, "nothing: 1 GiB is assumed to be free")


def _asked_of_astra() -> tuple[int, ...]:
    """Return the GPUs that `ASTRA_GPU_INDEX` names; ASTRA itself obeys it when it is imported."""
    setting = os.environ.get("ASTRA_GPU_INDEX", "")
    parts = [part.strip() for part in setting.split(",")]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _told_by_astra() -> str:
    """Return ASTRA's description of the GPU in use, such as ``GPU #0: NAME, with 8119MB``."""
    try:
        import astra

        return str(astra.get_gpu_info())
    except Exception:  # without CUDA, each version fails in its own way
        return ""


def _total(description: str) -> int | None:
    """Return the bytes in ASTRA's description of a GPU."""
    size = re.search(r"with (\d+)MB", description)
    return int(size[1]) << 20 if size else None


def bytes_per_slice(geometry: ParallelGeometry) -> int:
    """Return the memory that a slice takes on the GPU while it is computed.

    A projection needs the volume, its copy as a texture, and the projections; a back projection the projections, their
    copy as a texture, and the volume; MLEM on the GPU three copies of the volume, two of the projections, and a texture
    of one slice.
    """
    return 4 * 3 * (geometry.nz * geometry.nx + geometry.n_tilt * geometry.n_detector)


def slab(geometry: ParallelGeometry, free: int) -> int:
    """Return how many slices to compute together in `free` bytes: 16 times a power of two, which can be halved.

    Never fewer than 16: ASTRA divides what does not fit. Never more than 256: that fills any GPU, and an interruption
    costs no more than a slab.
    """
    values = max(geometry.nz * geometry.nx, geometry.n_tilt * geometry.n_detector)
    fits = min(SHARE * free / bytes_per_slice(geometry), MOST_VALUES / values)
    slices = MOST
    while slices > max(fits, LEAST):
        slices //= 2
    return slices


def why_unused() -> str:
    """Return, in words for the user, why ASTRA cannot use a GPU that is present; empty if there is none to use."""
    gpus = [] if hidden() else listed()
    if not gpus:
        return ""
    what = f"the reconstruction cannot use the GPU ({', '.join(sorted({gpu.name for gpu in gpus}))}): "
    try:
        import astra
    except Exception as error:  # one that was built for another NumPy raises more than ImportError
        return f"{what}the ASTRA toolbox cannot be loaded ({error}); install it with `pip install astra-toolbox`"
    if not astra.has_feature("cuda"):
        return (
            f"{what}the ASTRA toolbox installed here was built without CUDA; install a build with CUDA, such as that "
            "of `pip install astra-toolbox` on Linux or Windows"
        )
    return (
        f"{what}the ASTRA toolbox finds no GPU that CUDA can start on. The usual reason is a driver older than the "
        "CUDA that ASTRA was built for (`nvidia-smi` shows which it supports): update the driver, or install an ASTRA "
        "built for an older CUDA. CUDA_VISIBLE_DEVICES may also name a GPU that is not there"
    )
