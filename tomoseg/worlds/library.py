"""Worlds on disk: written once by several processes, read many times."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import InputError, StageFailed, TomosegWarning
from tomoseg.io.atomic import atomic_path
from tomoseg.runtime import Runtime, be_a_helper
from tomoseg.worlds.samples import Shape
from tomoseg.worlds.views import world

ENDING = ".npz"


def world_path(folder: Path, seed: int) -> Path:
    """Return the file of the world of a seed."""
    return folder / f"world-{seed:06d}{ENDING}"


def write_worlds(folder: Path, seeds: range, shape: Shape, runtime: Runtime) -> list[Path]:
    """Write the worlds of seeds that a folder lacks; return the files of all that could be made.

    Several processes share the work. A world in which nothing can be reconstructed is left out, and told.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not world_path(folder, seed).exists()]
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(runtime.workers, context, be_a_helper)
    try:
        made = pool.map(partial(_write, folder, shape), missing)
        for _, problem in zip(runtime.track(missing, "worlds"), made, strict=True):
            if problem:
                runtime.say(problem)
    finally:
        pool.shutdown(cancel_futures=True)
    return [path for seed in seeds if (path := world_path(folder, seed)).exists()]


def _write(folder: Path, shape: Shape, seed: int) -> str:
    """Write the world of a seed; return why that was impossible."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TomosegWarning)  # of negative pixels and the like, which are wanted here
        try:
            one = world(seed, shape)
        except (StageFailed, InputError) as error:
            return f"world {seed} is left out: {error}"
    content = {
        "volume": one.volume.astype(np.float16),
        "labels": one.labels,
        "particles": one.particles,
        "described": np.array(json.dumps(one.described())),
    }
    with atomic_path(world_path(folder, seed)) as part, part.open("wb") as file:
        np.savez(file, **content)  # type: ignore[arg-type]
    return ""


def read_world(path: Path) -> tuple[NDArray[np.float16], NDArray[np.uint8], NDArray[np.float64], dict[str, Any]]:
    """Return volume (z, y, x), labels (z, y, x), particles (n, 4) and how a world was made. Raises `InputError`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            described = json.loads(str(file["described"]))
            return file["volume"], file["labels"], file["particles"], described
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} holds no simulated world ({type(error).__name__}).") from error
