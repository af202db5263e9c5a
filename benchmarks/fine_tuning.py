"""What three labelled slices of a new sample gain, by fine-tuning the network that ships.

    python benchmarks/fine_tuning.py --worlds 910034 910025 910011

Each simulated world (`benchmarks/worlds.py`) is labelled by `particles-on-support`, then by what `tomoseg train` makes
of that with its usual parameters for the painted slices of a project, from three slices with their true labels. Dice is
that of the other slices.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from worlds import PARTICLES, SHAPE, SUPPORT, dice, labels_by

from tomoseg.runtime import Runtime, Stopwatch
from tomoseg.segmentation.data.neighbours import with_neighbours
from tomoseg.segmentation.parameters import DEFAULT_MODEL
from tomoseg.segmentation.training import api, preset
from tomoseg.worlds import read_world, write_worlds
from tomoseg.worlds.slices import CLASS_NAMES

PAINTED = (12, 24, 36)


def scored(model: str, volume: NDArray[np.float32], truth: NDArray[np.uint8]) -> list[float]:
    """Return the Dice of support and particles in all slices but the painted ones."""
    others = np.setdiff1d(np.arange(truth.shape[1]), PAINTED)
    labels = labels_by(model, volume).labels
    return [dice(truth[:, others] == k, labels[:, others] == k) for k in (SUPPORT, PARTICLES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=[910034, 910025, 910011], metavar="SEED")
    parser.add_argument("--augment", default="", help="as of tomoseg train")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    views = {key: float(value) for key, value in (one.split("=") for one in options.augment.split(",") if one)}
    print("world          support: before, after   particles: before, after   seconds of training")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for seed in options.worlds:
            (path,) = write_worlds(folder, range(seed, seed + 1), SHAPE, Runtime())
            volume, truth, _, _ = read_world(path)
            volume = volume.astype(np.float32)
            before = scored(DEFAULT_MODEL, volume, truth)
            params = preset("fine", SHAPE[0], **({"augmentation": views} if views else {}))
            names = [f"xz_{y:04d}" for y in range(truth.shape[1])]
            images = with_neighbours(names, [volume[:, y] for y in range(truth.shape[1])], params.channels)
            watch = Stopwatch()
            net = api.train(
                [images[y] for y in PAINTED], [truth[:, y] for y in PAINTED], folder / f"{seed}.keras",
                names=[names[y] for y in PAINTED], class_names=CLASS_NAMES,
                augmentation=params.augmentation.model_dump(), **params.model_dump(exclude={"augmentation"}),
            )  # fmt: skip
            seconds = watch.seconds
            after = scored(str(net.model), volume, truth)
            support, particles = ("{:.3f}, {:.3f}".format(*pair) for pair in zip(before, after, strict=True))
            print(f"{path.stem}   {support:20}     {particles:22}     {seconds:.0f}", flush=True)


if __name__ == "__main__":
    main()
