"""What is known of a network for one kind of volume, kept beside its converted copies: with both, Keras is not needed.

Importing TensorFlow and building a network takes longer than labelling a small volume. A plan is a few numbers that
only the network itself tells, in the user's cache folder under a name made of all that they depend on.
"""

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tomoseg import plain_json
from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path
from tomoseg.io.folders import cache_folder
from tomoseg.runtime import Runtime
from tomoseg.segmentation.inference.slice_prediction import SlicePredictor

VERSION = 1  # of what a plan holds
NUMBERS = (
    "n_classes",
    "patch",
    "multiple",
    "overlap",
    "bytes_per_pixel",
    "zoom",
    "channels",
    "batch_bytes",
    "threshold",
)
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

    def read(self, blank: SlicePredictor) -> SlicePredictor | None:
        """Return `blank` with the numbers kept; None where there are none, or they make no sense."""
        try:
            kept = plain_json.load(self.path.read_bytes())
            numbers = {name: type(getattr(blank, name))(kept[name]) for name in NUMBERS}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return (
            replace(blank, **numbers) if min(numbers["n_classes"], numbers["multiple"], numbers["zoom"]) > 0 else None
        )

    def write(self, predictor: SlicePredictor) -> None:
        """Keep the numbers of a predictor; where that fails, the network is asked again the next time."""
        content = json.dumps({name: getattr(predictor, name) for name in NUMBERS})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path) as part:
                part.write_text(content, encoding="utf-8")
        except (InputError, OSError):
            return


def computes_on_cpu(runtime: Runtime) -> bool:
    """Tell, without asking Keras, that a network is to run on the CPU; False where only Keras knows."""
    if runtime.device != "auto":
        return runtime.device == "cpu"
    return sys.platform == "linux" and not any(Path(device).exists() for device in GPU_DEVICES)
