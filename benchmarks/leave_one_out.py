"""A small network trained on all but one of a few micrographs, and scored on that one, for each of them.

    python benchmarks/leave_one_out.py --data FOLDER
    python benchmarks/leave_one_out.py --data FOLDER --only 086_3_img --unlabelled background

FOLDER holds bright-field images and masks of 0 and 255 (`x_img.png`, `x_mask.png`), as `tomoseg train` pairs them. Each
network is the `compact` one, on a CPU, with the options in `SETTINGS`; no image has a part in the training, or in the
threshold, of the network that it is scored with. Prints a table: intersection over union of the particles (IoU), the
threshold, which is the best one on the images that the network was trained on, and the time of the training.

Masks need not show every particle. Those clipped by the frame are left out of all of them, and in some of them most
others too. For training, unlabelled pixels as dark as labelled particles are therefore taken as not annotated, and all
others as background (`--unlabelled background`: all of them are background). For scores, these hold:

- A predicted object (connected pixels) that overlaps no particle of the mask is not judged, so neither are those that
  touch the frame; `others` counts those that do not touch it, right or wrong.
- Of the remaining ones, pixels are judged up to one radius from the nearest particle of the mask (the radius of the
  circle of its area). So a prediction that spreads or joins its neighbours is penalised, but no further than that.
- Where an object of a mask is a filled rectangle, it is a selection that nobody refined: nothing in it is judged.
- Burnt-in text and scale bars, large connected regions of the darkest value, are neither judged nor trained on: they
  are darker than anything else, and as background they would teach that the darkest particles are background.

`whole` is the IoU over the whole frame of all objects but those that touch it without overlapping a particle of the
mask: an underestimate where the mask leaves particles out.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
from scipy import ndimage

from tomoseg.io.label_values import LabelMap
from tomoseg.runtime import Runtime, Stopwatch, available_cpus
from tomoseg.segmentation.data.neighbours import load_slices
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.model_file import load_model
from tomoseg.segmentation.training import train
from tomoseg.segmentation.training.threshold import ThresholdSweep
from tomoseg.segmentation.training.trainer import predictor_of

CLASSES = ["background", "particles"]
SETTINGS = {
    **{"architecture": "compact", "depth": 5, "base_filters": 8, "folds": 1, "intensity": "image"},
    **{"epochs": 10, "patches": 120, "patch": 192, "batch": 8, "sampling": 0.5},
    **{"loss": "focal+dice", "learning_rate": 5e-3, "schedule": "cosine", "ema": 0.9},
    "augmentation": {
        **{"rotation_deg": 180, "zoom": 0.15, "shear": 0.05, "scale": 1.0},  # particles of other sizes
        **{"contrast": 0.3, "brightness": 0.3, "noise": 0.3, "blur_px": 1.0, "sharpen": 0.5},
    },
}
RIM = 2  # px around burnt-in text
BURNT_IN = 100  # px: fewest connected pixels of the darkest value that are text or a bar
UNREFINED = 10  # px: shortest side of a filled rectangle that is no outline of a particle
AS_DARK = 0.4  # of the way from the background to the particles: pixels beyond it may be particles


def main() -> None:
    """Print the scores of each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of images and masks")
    parser.add_argument("--only", nargs="*", default=[], help="names of the images to leave out in turn [all]")
    parser.add_argument("--unlabelled", choices=("dark", "background"), default="dark")
    parser.add_argument("--intensity", choices=("image", "set"), default="image")
    parser.add_argument("--scale", type=float, default=1.0, help="of the random views")
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"])
    parser.add_argument("--pictures", type=Path, help="folder for pictures of outlines: mask red, prediction green")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    slices = load_slices(options.data, options.data, 1, LabelMap.parse("0=0,255=1"), Runtime(), class_names=CLASSES)
    images = dict(zip(slices.names, slices.images, strict=True))
    masks = {name: label == 1 for name, label in zip(slices.names, slices.labels, strict=True)}
    labels = {name: labels_to_train_on(images[name], masks[name], options.unlabelled) for name in images}
    views = SETTINGS["augmentation"] | {"scale": options.scale}
    changes = {"epochs": options.epochs, "intensity": options.intensity, "augmentation": views}
    print("image            IoU   whole  recall  others  threshold  training (s)")
    rows = []
    for name in options.only or list(images):
        row, prediction = left_out(name, images, masks, labels, SETTINGS | changes)
        rows.append(row)
        cells = f"{row['iou']:.3f}  {row['whole']:.3f}   {row['recall']:.3f}  {row['others']:6d}  "
        print(f"{name:<14}  {cells} {row['threshold']:.2f}       {row['seconds']:.0f}", flush=True)
        if options.pictures:
            draw(images[name], masks[name], prediction, options.pictures / f"{name}.png")
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("iou", "whole", "recall")}
    print(f"{'mean':<14}  {means['iou']:.3f}  {means['whole']:.3f}   {means['recall']:.3f}")


def left_out(name: str, images: dict, masks: dict, labels: dict, settings: dict) -> tuple[dict, np.ndarray]:
    """Train on all other images; return the scores of this one, with threshold and time, and its predicted mask."""
    others = [other for other in images if other != name]
    watch = Stopwatch()
    keras.utils.clear_session()  # of the networks before
    with tempfile.TemporaryDirectory() as folder:
        given = [images[other] for other in others], [labels[other] for other in others]
        about = {"names": others, "class_names": CLASSES, "device": "cpu", "workers": available_cpus()}
        result = train(*given, Path(folder, "net.keras"), **about, **settings)
        seconds = watch.seconds
        predicted = predictor_of(*load_model(result.model), str)
    sweep = ThresholdSweep()
    for other in others:
        sweep.add(predicted(images[other])[1], labels[other])
    threshold, _ = sweep.best()
    prediction = predicted(images[name])[1] >= threshold
    scores = scores_of(prediction, masks[name], burnt_in(images[name]))
    return scores | {"threshold": threshold, "seconds": seconds}, prediction


def burnt_in(image: np.ndarray) -> np.ndarray:
    """Return where (h, w) text or a bar was burnt in, with its blurred rim: large regions of the darkest value."""
    regions, _ = ndimage.label(image == image.min())
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return ndimage.binary_dilation((sizes >= BURNT_IN)[regions], iterations=RIM)


def unrefined(mask: np.ndarray) -> np.ndarray:
    """Return the objects of a mask (h, w) that are filled rectangles."""
    objects, _ = ndimage.label(mask)
    found = np.zeros(mask.shape, bool)
    for number, box in enumerate(ndimage.find_objects(objects), start=1):
        inside = objects[box] == number
        found[box] |= inside & (inside.all() and min(inside.shape) >= UNREFINED)
    return found


def labels_to_train_on(image: np.ndarray, mask: np.ndarray, unlabelled: str) -> np.ndarray:
    """Return labels (h, w) u1: 1 in particles, 0 in the background, 255 where the mask leaves it open.

    Open is what is as dark as the labelled particles once the image is smoothed over a third of their radius and the
    slow change of the background, over four radii, is taken off.
    """
    burnt, rectangles = burnt_in(image), unrefined(mask)
    labels = np.where(burnt | rectangles, 255, mask).astype(np.uint8)
    if unlabelled == "background":
        return labels
    radius = float(np.median(radii(mask)[1]))
    seen = (~burnt).astype(np.float32)

    def smoothed(values: np.ndarray, sigma: float) -> np.ndarray:
        weight = ndimage.gaussian_filter(seen, sigma)
        return ndimage.gaussian_filter(values * seen, sigma) / np.maximum(weight, 1e-3)

    fine = smoothed(image.astype(np.float32), max(radius / 3, 1.0))
    level = fine - smoothed(fine, 4 * radius)
    particles, background = np.median(level[mask & ~burnt]), np.percentile(level[~mask & ~burnt], 75)
    labels[(level < background + AS_DARK * (particles - background)) & ~mask] = 255
    return labels


def radii(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number (h, w) of the object at each pixel, from 1, and the radii of circles of their areas, px."""
    objects, _ = ndimage.label(mask)
    return objects, np.sqrt(np.bincount(objects.ravel())[1:] / np.pi)


def scores_of(prediction: np.ndarray, mask: np.ndarray, burnt: np.ndarray) -> dict:
    """Return the scores of a predicted mask (h, w) as described above."""
    judged = ~burnt & ~unrefined(mask)
    truth = mask & judged
    objects, radius = radii(truth)
    distance, nearest = ndimage.distance_transform_edt(~truth, return_indices=True)
    near = distance <= np.append(0, radius)[objects[tuple(nearest)]]
    found, n = ndimage.label(prediction & ~burnt)
    overlaps, clipped = np.zeros(n + 1, bool), np.zeros(n + 1, bool)
    overlaps[found[truth]] = True
    clipped[np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]])] = True
    overlaps[0] = clipped[0] = False
    inside = np.bincount(found[~judged], minlength=n + 1) > 0  # objects in rectangles that are not judged
    return {
        "iou": iou(overlaps[found] & near & judged, truth),
        "whole": iou((found > 0) & (overlaps | ~clipped)[found] & judged, truth),
        "recall": float((prediction & truth).sum() / max(truth.sum(), 1)),
        "others": int((~overlaps & ~clipped & ~inside)[1:].sum()),
    }


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Return the intersection over union of two masks."""
    return float((prediction & truth).sum() / max((prediction | truth).sum(), 1))


def draw(image: np.ndarray, mask: np.ndarray, prediction: np.ndarray, path: Path) -> None:
    """Write a picture of the image with the outlines of mask (red) and prediction (green), both yellow."""
    from PIL import Image

    rgb = np.repeat(image[..., None], 3, axis=2).astype(np.uint8)
    edges = [side & ~ndimage.binary_erosion(side) for side in (mask, prediction)]
    for channel, edge in enumerate(edges):
        rgb[edges[0] | edges[1], channel] = 255 * edge[edges[0] | edges[1]]
    rgb[edges[0] | edges[1], 2] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)


if __name__ == "__main__":
    main()
