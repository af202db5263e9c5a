"""How well particles of single micrographs are found and measured, with one setting for all.

    python benchmarks/micrographs.py                          simulated micrographs, and the time for 2048 x 2048
    python benchmarks/micrographs.py --data FOLDER            and real ones
    python benchmarks/micrographs.py --data FOLDER --show OUT and pictures of what was found in these
    python benchmarks/micrographs.py --model none             without the network that ships

Simulated: half HAADF, half bright field, drawn with `random_recipe`. The median diameter d50 is that of the particles
the frame does not cut, with the weights of `inside_weights`, of what was found and of the truth; the count is of all.
`FOLDER/images-2d` holds images with boxes around particles (`class x y width height`, relative, in a text file of
the same name), and in `scalebar_bf` images `*_img.png` with masks `*_mask.png` that leave cut particles out, so that
nothing is judged that touches the border. A box is found where that of a particle has an IoU of 0.5 or more.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from tomoseg.micrographs.distribution import weighted_sizes
from tomoseg.micrographs.learned import learned_particles
from tomoseg.micrographs.particles import Particles, find_particles
from tomoseg.micrographs.shapes import inside_weights, particle_table
from tomoseg.micrographs.simulated import SimulatedMicrograph, random_recipe, simulated_micrograph, with_changes

Finder = Callable[..., Particles]
FINDERS: dict[str, Finder] = {"auto": learned_particles, "none": find_particles}
LEAST_IOU = 0.5
PICTURE_PX = 1400
LETTER_PX2 = 150


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=int, default=200, help="how many simulated micrographs")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of real data")
    parser.add_argument("--model", choices=FINDERS, default="auto", help="the network that ships, or none")
    parser.add_argument("--first", type=int, default=0, help="seed of the first simulated micrograph")
    parser.add_argument("--show", type=Path, metavar="FOLDER", help="where to write pictures")
    options = parser.parse_args()
    find = FINDERS[options.model]
    print("| what | score |\n|---|---|")
    if options.simulated:
        simulated(find, options.first, options.simulated)
    if options.data:
        boxed(find, options.data / "images-2d", options.show)
        masked(find, options.data / "images-2d" / "scalebar_bf", options.show)
    speed(find)


# ------------------------------------------------------------------------------------------------ simulated


def simulated(find: Finder, first: int, n: int) -> None:
    """Print errors of d50 and count over simulated micrographs, for each mode and for all."""
    modes, rows = [], []
    for seed in range(first, first + n):
        truth = simulated_micrograph(random_recipe(seed, "HAADF" if seed % 2 == 0 else "BF"), seed)
        modes.append(truth.recipe.mode)
        rows.append(errors(find, truth))
    scores = np.array(rows)
    for name in ("HAADF", "BF", "all"):
        d50, count, polarity = scores[np.array([name in (mode, "all") for mode in modes])].T
        print(
            f"| simulated, {name}, {len(d50)} images: error of d50 | median {np.nanmedian(np.abs(d50)):.1%}, bias "
            f"{np.nanmedian(d50):+.1%}, 9 of 10 below {np.nanquantile(np.abs(d50), 0.9):.1%} |\n"
            f"| simulated, {name}: error of the count | median {np.median(np.abs(count)):.1%}, bias "
            f"{np.median(count):+.1%}, 9 of 10 below {np.quantile(np.abs(count), 0.9):.1%} |\n"
            f"| simulated, {name}: polarity right | {polarity.mean():.1%} |"
        )


def errors(find: Finder, truth: SimulatedMicrograph) -> tuple[float, float, float]:
    """Return the relative errors of d50 and of the count, and whether the polarity was found."""
    found = find(truth.image)
    table = particle_table(found.labels, truth.image)
    kept = table[~table["touches_border"]]
    d50 = weighted_sizes(kept["diameter_px"], kept["weight"])["d50"]
    true = truth.particles[~truth.particles["touches_border"]]["diameter_px"]
    weights = inside_weights(true, true, np.zeros(truth.image.shape, bool))
    return (
        d50 / weighted_sizes(true, weights)["d50"] - 1,
        len(table) / len(truth.particles) - 1,
        float(found.polarity == truth.polarity),
    )


# ------------------------------------------------------------------------------------------------ real


def boxed(find: Finder, folder: Path, show: Path | None) -> None:
    """Print what was found of the boxes of each image, and the mean F1."""
    scores = []
    for path in sorted(folder.glob("*.jpg")):
        image = np.asarray(Image.open(path).convert("L"))
        relative = np.loadtxt(path.with_suffix(".txt"), ndmin=2)[:, 1:] * np.tile(image.shape[::-1], 2)
        boxes = np.concatenate([relative[:, :2] - relative[:, 2:] / 2, relative[:, :2] + relative[:, 2:] / 2], axis=1)
        result = find(image)
        slices = ndimage.find_objects(result.labels)
        found = np.array([(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in slices], float).reshape(-1, 4)
        rows, columns = matched(boxes, found)
        scores.append(2 * len(rows) / (len(boxes) + len(found)))
        print(
            f"| {path.stem}: {result.polarity}, {len(boxes)} boxes | {len(rows)} found, {len(found) - len(rows)} "
            f"invented, F1 {scores[-1]:.2f} |"
        )
        if show:
            missed = np.delete(boxes, rows, axis=0)
            picture(show / f"{path.stem}.png", image, result.labels, set(columns.tolist()), missed)
    print(f"| boxed images: mean F1 | {np.mean(scores):.2f} |")


def matched(boxes: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of boxes (x0, y0, x1, y1) whose IoU is enough, one to one."""
    size = np.minimum(boxes[:, None, 2:], found[None, :, 2:]) - np.maximum(boxes[:, None, :2], found[None, :, :2])
    shared = np.clip(size, 0, None).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, found)]
    iou = shared / (areas[0][:, None] + areas[1][None] - shared)
    rows, columns = linear_sum_assignment(np.where(iou >= LEAST_IOU, -iou, 0))
    good = iou[rows, columns] >= LEAST_IOU
    return rows[good], columns[good]


def masked(find: Finder, folder: Path, show: Path | None) -> None:
    """Print the IoU of what was found with masks made by hand, away from the border of the image."""
    scores = []
    for path in sorted(folder.glob("*_img.png")):
        image = np.asarray(Image.open(path).convert("L"))
        truth = np.asarray(Image.open(path.with_name(path.name.replace("_img", "_mask"))).convert("L")) > 127
        burnt_in = without_specks(image == 0)
        labels = find(image, mask=burnt_in).labels
        judged = ~(burnt_in | at_border(truth) | at_border(labels > 0))
        found = (labels > 0) & judged
        scores.append((found & truth).sum() / max(((found | truth) & judged).sum(), 1))
        print(f"| {path.stem}: IoU with the mask | {scores[-1]:.2f} |")
        if show:
            picture(show / f"{path.stem}.png", image, labels, set(range(int(labels.max()))), np.zeros((0, 4)))
    print(f"| images with masks: mean IoU | {np.mean(scores):.2f} |")


def without_specks(black: np.ndarray) -> np.ndarray:
    """Return the large parts of a mask, widened by what compression blurred: letters and scale bars."""
    labels, n = ndimage.label(black)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    return ndimage.binary_dilation((sizes[labels] >= LETTER_PX2) & black, iterations=3)


def at_border(mask: np.ndarray) -> np.ndarray:
    """Return the parts of a mask that touch the border of the image."""
    labels, _ = ndimage.label(mask)
    edges = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.isin(labels, edges[edges > 0])


def picture(path: Path, image: np.ndarray, labels: np.ndarray, good: set[int], missed: np.ndarray) -> None:
    """Write an image with outlines: found green, invented red, boxes that were missed blue."""
    from PIL import ImageDraw
    from skimage.measure import find_contours

    path.parent.mkdir(parents=True, exist_ok=True)
    scale = PICTURE_PX / image.shape[1]
    shown = Image.fromarray(image).resize((PICTURE_PX, round(image.shape[0] * scale))).convert("RGB")
    draw = ImageDraw.Draw(shown)
    for k, box in enumerate(ndimage.find_objects(labels)):
        for contour in find_contours(np.pad(labels[box] == k + 1, 1).astype(float), 0.5):
            points = (contour - 0.5 + [s.start for s in box]) * scale
            draw.line([(x, y) for y, x in points], fill=(0, 255, 0) if k in good else (255, 60, 60))
    for corners in missed * scale:
        draw.rectangle(corners.tolist(), outline=(80, 160, 255))
    shown.save(path)


# ------------------------------------------------------------------------------------------------ time


def speed(find: Finder) -> None:
    """Print the time that finding and measuring take in an image of 2048 x 2048 px, the second time."""
    recipe = with_changes(random_recipe(9, "BF", (2048, 2048)), n_particles=600)
    image = simulated_micrograph(recipe, 9).image
    particle_table(find(image[:512, :512]).labels, image[:512, :512])  # compiles
    start, busy = time.perf_counter(), time.process_time()
    labels = find(image).labels
    middle = time.perf_counter()
    particle_table(labels, image)
    end = time.perf_counter()
    print(
        f"| 2048 x 2048, {labels.max()} particles: find + measure | {middle - start:.1f} + {end - middle:.1f} s, "
        f"{time.process_time() - busy:.1f} s of processor time |"
    )


if __name__ == "__main__":
    main()
