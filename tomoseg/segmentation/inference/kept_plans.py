"""What is known of a network for one kind of volume, kept beside its converted copies: with both, Keras is not needed.

Importing TensorFlow and building a network takes longer than labelling a small volume. A plan is what only the network
itself tells, the memory it needs per pixel, in the user's cache folder under a name made of all that this depends on.
"""

import hashlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomoseg import plain_json
from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path
from tomoseg.io.folders import cache_folder
from tomoseg.runtime import Runtime

VERSION = 2  # of what a plan holds
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, AMD, and of either under Windows


@dataclass(frozen=True)
class KeptPlan:
    """Where the plan of a network (by its `digest`) is kept for what else it depends on, such as the volume's shape."""

    digest: str
    depends_on: tuple[Any, ...]

    @property
    def path(self) -> Path:
        """The file."""
        text = json.dumps([VERSION, *self.depends_on], default=str)
        return cache_folder() / f"{self.digest}-plan-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def read(self) -> float | None:
        """Return the bytes per pixel kept; None where there are none, or they make no sense."""
        try:
            n_bytes = float(plain_json.load(self.path.read_bytes())["bytes_per_pixel"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return n_bytes if 0 < n_bytes < math.inf else None

    def write(self, bytes_per_pixel: float) -> None:
        """Keep the bytes per pixel; where that fails, the network is asked again the next time."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path) as part:
                part.write_text(json.dumps({"bytes_per_pixel": bytes_per_pixel}), encoding="utf-8")
        except (InputError, OSError):
            return


def computes_on_cpu(runtime: Runtime) -> bool:
    """Tell, without asking Keras, that a network is to run on the CPU; False where only Keras knows."""
    if runtime.device != "auto":
        return runtime.device == "cpu"
    return sys.platform == "linux" and not any(Path(device).exists() for device in GPU_DEVICES)
