"""Training on labelled slices, and cross-validation."""

from typing import Any

from tomoseg.segmentation.training.parameters import TrainParameters, preset

__all__ = ["TrainParameters", "cross_validate", "preset", "train"]


def __getattr__(name: str) -> Any:
    """Load the functions that train when they are used: they need SciPy."""
    if name not in ("cross_validate", "train"):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from tomoseg.segmentation.training import api

    return getattr(api, name)
