"""Blended patches against Vooban's `predict_img_with_smooth_windowing`, with the same network on the same slices.

    python benchmarks/smooth_blending.py smooth_tiled_predictions.py MODEL.keras IMAGES LABELS [--slices 6]

The first file is https://github.com/Vooban/Smoothly-Blend-Image-Patches, called without its progress bar. Both predict
the slices that the network was not trained on, whole ones of 512 px and, side by side, pairs of them as one of 512 x
1024 px. Theirs averages the eight symmetric copies of each patch; ours is timed without test-time augmentation, with
four copies and with all eight. Times are medians over slices, both in the same run; the network is called once before
anything is timed.
"""

import argparse
import importlib.util
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import scipy.signal

from tomoseg.io.digest import sha256
from tomoseg.io.slices import IGNORE, find_pairs, load_pair
from tomoseg.runtime import Runtime
from tomoseg.segmentation.evaluation.model_evaluation import validation_pairs
from tomoseg.segmentation.evaluation.scores import confusion_matrix, scores

PATCH, SUBDIVISIONS = 512, 2


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("peer", type=Path)
    options.add_argument("model", type=Path)
    options.add_argument("images", type=Path)
    options.add_argument("labels", type=Path)
    options.add_argument("--slices", type=int, default=6)
    options.add_argument("--engines", nargs="+", default=["keras"])
    given = options.parse_args()

    from tomoseg.segmentation.inference.engines import engine_for
    from tomoseg.segmentation.inference.slice_prediction import SlicePredictor
    from tomoseg.segmentation.inference.test_time_augmentation import augmented
    from tomoseg.segmentation.networks.keras_setup import prepare
    from tomoseg.segmentation.networks.model_file import load_model

    runtime = Runtime()
    prepare(runtime)
    model, card = load_model(given.model)
    held_out = validation_pairs(find_pairs(given.images, given.labels), card)[: given.slices]
    slices = [load_pair(pair, len(card.class_names)) for pair in held_out]
    pairs = [
        (np.hstack([a[0], b[0]]), np.hstack([a[1], b[1]])) for a, b in zip(slices[::2], slices[1::2], strict=False)
    ]
    scale = card.scaling.trained
    theirs = peer(given.peer, model, len(card.class_names))
    methods = {"Vooban": lambda image: theirs(scale(image))}
    shapes = [(1, PATCH, PATCH)]
    for engine in given.engines:
        computed = engine_for(engine, model, sha256(given.model), shapes, runtime)
        for tta in ("none", "flips", "dihedral"):
            predictor = replace(SlicePredictor.of(model, card, scale), predict_batch=augmented(computed, tta))
            methods[f"tomoseg, {engine}, tta: {tta}"] = lambda image, p=predictor: p.probabilities(image[None])[0]
    for what, data in (("512 x 512", slices), ("512 x 1024", pairs)):
        print(f"\n{len(data)} slices of {what} px")
        baseline = 0.0
        for name, method in methods.items():
            seconds, dice = timed(method, data, len(card.class_names))
            baseline = baseline or seconds
            ratio = baseline / seconds
            print(f"{name:<36}{seconds:8.2f} s {ratio:7.1f} x   Dice {np.array2string(dice, precision=4)}")


def peer(path: Path, model: Any, n_classes: int) -> Any:
    """Return what predicts an image (h, w) to (classes, h, w) by the code in the file."""
    spec = importlib.util.spec_from_file_location("smooth_tiled_predictions", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["tqdm"] = cast(Any, SimpleNamespace(tqdm=lambda items: items))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    scipy.signal.triang = scipy.signal.windows.triang  # where it was when that code was written
    # Its own 2D window from its own 1D window: it asks NumPy for an axis that newer ones refuse to make.
    line = module._spline_window(PATCH)
    module.cached_2d_windows[f"{PATCH}_2"] = (line[:, None] * line)[..., None]

    def predict(patches: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(model.predict_on_batch(patch[None])) for patch in patches])

    def whole(image: np.ndarray) -> np.ndarray:
        found = module.predict_img_with_smooth_windowing(image[..., None], PATCH, SUBDIVISIONS, n_classes, predict)
        return np.moveaxis(found, -1, 0)

    return whole


def timed(method: Any, data: list[Any], n_classes: int) -> tuple[float, np.ndarray]:
    """Return the median seconds per slice, and the Dice of each class over all pixels."""
    method(data[0][0])
    seconds, matrix = [], np.zeros((n_classes, n_classes), np.int64)
    for image, truth in data:
        start = time.perf_counter()
        probabilities = method(image)
        seconds.append(time.perf_counter() - start)
        assert IGNORE not in truth
        matrix += confusion_matrix(truth, probabilities.argmax(axis=0), n_classes)
    return float(np.median(seconds)), scores(matrix)["dice"]


if __name__ == "__main__":
    main()
