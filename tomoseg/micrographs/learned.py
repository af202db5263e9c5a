"""Particles of a micrograph by the network that ships with tomoseg, trained on simulated micrographs (`learning`).

1. The network sees the image reduced 1, 2, 4 times, since it knows particles of some 4 to 60 px. Of a reduced image it
   sees both signs: that of the particles is the one of which it finds more.
2. Objects are where it says that a px belongs to a particle with a probability above `INSIDE`. Touching particles are
   cut along the valleys of what it says of the distance to the edge.
3. Objects of the finest image count, unless those of a coarser one explain their place better.
"""

import functools
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tomoseg.arrays import Array, BoolArray, Float32Array, FloatArray
from tomoseg.micrographs.network_input import CHANNELS, network_input
from tomoseg.micrographs.particles import Particles, Polarity, checked, separated
from tomoseg.segmentation.networks.openvino_setup import compiled, n_threads

WEIGHTS = Path(__file__).parents[1] / "models" / "nanoparticles.onnx"
TILE_PX, MARGIN_PX = 1024, 64  # of an image that the network sees at once, and around it
MULTIPLE_PX = 16  # sides of what the network sees
STEPS, SMALLEST_SIDE = (1, 2, 4), 96  # px of a reduced image
SIGNS = (1, -1)
INSIDE, CENTRE = 0.5, 0.5  # probability, and relative distance to the edge where a particle is sought
SURE = 0.8  # mean probability of a particle, at least
PLAIN = 0.925  # median probability of plain particles; of what was found on bare supports it was 0.77 to 0.92
FEWEST_PX2 = 7  # of a particle, in the image in which it is found
BETTER = 0.1  # difference of probabilities for which an object of a coarser image counts
COARSE_PX = 10.0  # diameter from which on it does, in px of that image
FAINT, MANY_FAINT, FEWEST_FAINT = 0.25, 0.25, 5  # probability; part of the particles, and number, that are told
UNCLEAR = 1.5  # times as much of one sign as of the other, at least


@dataclass(frozen=True)
class _Objects:
    """Objects (y, x), 1..n, and for 0..n their areas (px) and mean probability to be particles; both 0 for 0."""

    labels: NDArray[np.int32]
    areas: FloatArray
    certainty: FloatArray

    @classmethod
    def of(cls, labels: NDArray[np.int32], probability: Float32Array) -> "_Objects":
        there = np.flatnonzero(labels)
        numbers = labels.ravel()[there]
        areas = np.bincount(numbers, minlength=1).astype(float)
        certainty = np.bincount(numbers, probability.ravel()[there], minlength=1) / np.maximum(areas, 1)
        return cls(labels, areas, certainty)

    @property
    def diameters(self) -> FloatArray:
        return np.asarray(np.sqrt(4 * self.areas / np.pi))

    def mean(self, values: Array) -> FloatArray:
        """Return the mean of an image (y, x) over each object (n + 1,), 0 for the background."""
        there = np.flatnonzero(self.labels)
        sums = np.bincount(self.labels.ravel()[there], values.ravel()[there], minlength=len(self.areas))
        return np.asarray(sums / np.maximum(self.areas, 1))

    def without(self, which: BoolArray, probability: Float32Array) -> "_Objects":
        """Return the objects without some (n + 1,)."""
        if not which.any():
            return self
        numbers = np.cumsum(~which) - 1
        numbers[which] = 0
        return _Objects.of(numbers.astype(np.int32)[self.labels], probability)


def learned_particles(
    image: NDArray[Any], *, polarity: Polarity = "auto", split: bool = True, mask: BoolArray | None = None
) -> Particles:
    """Find the particles of a micrograph (y, x) and label them.

    The parameters and errors are those of `tomoseg.micrographs.particles.find_particles`.

    Examples
    --------
    >>> from tomoseg.micrographs.simulated import Recipe, simulated_micrograph
    >>> truth = simulated_micrograph(Recipe(shape=(128, 128), n_particles=5), seed=1)
    >>> found = learned_particles(truth.image)
    >>> found.labels.max() == len(truth.particles), found.polarity
    (True, 'bright')
    """
    values = checked(image, mask)
    left_out = np.zeros(values.shape, bool) if mask is None else np.asarray(mask, bool)
    steps = [step for step in STEPS if step == 1 or min(values.shape) >= step * SMALLEST_SIDE]
    views = _Views(values)
    sign, evidence, doubts = _sign(views, left_out, steps, polarity)
    found, probability = _merged(views, sign, steps, split=split)
    labels = np.where(left_out, 0, found.labels)
    labels, _ = separated(labels, 0.0)
    warnings = _doubts(labels, probability)
    if labels.any():
        warnings = [*doubts, *_doubts_of_all(found), *warnings]
    return Particles(labels, "bright" if sign > 0 else "dark", evidence, _n_split(labels), warnings)


# ------------------------------------------------------------------------------------------------ what the network says


@functools.cache
def _network(path: Path) -> Any:
    return compiled(path, n_threads())


def said_by_network(image: Float32Array, path: Path = WEIGHTS) -> Float32Array:
    """Return what a network says of an image (y, x) whose particles are bright: (2, y, x) f4, see `network_target`.

    Examples
    --------
    >>> said_by_network(np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)).shape
    (2, 40, 50)
    """
    network = _network(path)
    seen = np.moveaxis(network_input(image), -1, 0)
    out = np.empty((CHANNELS, *image.shape), np.float32)
    for top in range(0, image.shape[0], TILE_PX):
        for left in range(0, image.shape[1], TILE_PX):
            inner, outer = [], []
            for start, n in zip((top, left), image.shape, strict=True):
                inner.append(slice(start, min(n, start + TILE_PX)))
                outer.append(slice(max(0, start - MARGIN_PX), min(n, start + TILE_PX + MARGIN_PX)))
            tile = seen[:, outer[0], outer[1]]
            padding = [(0, -n % MULTIPLE_PX) for n in tile.shape[1:]]
            said = network(np.pad(tile, [(0, 0), *padding], "symmetric")[None])[0][0]
            part = [slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True)]
            out[:, inner[0], inner[1]] = said[:, part[0], part[1]]
    return out


class _Views:
    """What the network says of an image (y, x), with either sign and reduced so many times; asked once for each."""

    def __init__(self, image: Float32Array) -> None:
        self.image = image
        self._said: dict[tuple[int, int], Float32Array] = {}

    def said(self, sign: int, step: int) -> Float32Array:
        if (sign, step) not in self._said:
            self._said[sign, step] = said_by_network(np.float32(sign) * _reduced(self.image, step))
        return self._said[sign, step]


def _reduced(image: Float32Array, step: int) -> Float32Array:
    if step == 1:
        return image
    height, width = (n // step for n in image.shape)
    blocks = image[: height * step, : width * step].reshape(height, step, width, step)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _enlarged(said: Float32Array, step: int, shape: tuple[int, ...]) -> Float32Array:
    """Return what was said of a reduced image (2, y, x) in px of the whole one, of this shape."""
    if step == 1:
        return said
    height, width = (n * step for n in said.shape[1:])
    whole = [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR)) for one in said]
    padding = [(0, n - m) for n, m in zip(shape, (height, width), strict=True)]
    return np.stack([np.pad(one, padding, "edge") for one in whole])


# ------------------------------------------------------------------------------------------------ objects


def _objects(said: Float32Array, *, split: bool) -> _Objects:
    watershed: Any = import_module("skimage.segmentation").watershed
    inside = said[0] > INSIDE
    whole, n_whole = ndimage.label(inside)
    if not split:
        return _Objects.of(np.asarray(whole, np.int32), said[0])
    seeds, n_seeds = ndimage.label(inside & (said[1] > CENTRE))
    seeded = np.zeros(n_whole + 1, bool)
    seeded[whole[seeds > 0]] = True
    unseeded = inside & ~seeded[whole]
    seeds[unseeded] = n_seeds + whole[unseeded]
    return _Objects.of(np.asarray(watershed(-said[1], seeds, mask=inside), np.int32), said[0])


def _merged(views: _Views, sign: int, steps: list[int], *, split: bool) -> tuple[_Objects, Float32Array]:
    """Return the objects of an image, seen at all `steps`, and their probability (y, x)."""
    found, probability = None, np.zeros(0, np.float32)
    for step in steps:
        said = _enlarged(views.said(sign, step), step, views.image.shape)
        objects = _objects(said, split=split)
        objects = objects.without(_other_than_background(objects.areas < FEWEST_PX2 * step**2), said[0])
        if found is None:
            found, probability = objects, said[0]
            continue
        explained = objects.mean(found.certainty[found.labels])
        better = (objects.diameters >= COARSE_PX * step) & (objects.certainty > explained + BETTER)
        better[0] = False
        if not better.any():
            continue
        theirs = better[objects.labels]
        found = found.without(_other_than_background(found.mean(theirs) > 0.5), probability)
        added = theirs & (found.labels == 0)
        probability = np.where(added, said[0], probability)
        labels = np.where(added, objects.labels + found.labels.max(), found.labels)
        found = _Objects.of(_numbered(labels), probability)
    assert found is not None  # there is one step at least
    return found.without(_other_than_background(found.certainty < SURE), probability), probability


def _other_than_background(which: BoolArray) -> BoolArray:
    which[0] = False
    return which


def _numbered(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return labels (y, x) without gaps between the numbers."""
    used = np.bincount(labels.ravel()) > 0
    used[0] = True
    return (np.cumsum(used) - 1).astype(np.int32)[labels]


def _sign(views: _Views, left_out: BoolArray, steps: list[int], polarity: Polarity) -> tuple[int, str, list[str]]:
    """Return the sign of the particles, by what it is known, and a warning where it hardly is."""
    if polarity != "auto":
        return (1 if polarity == "bright" else -1), "as asked for", []
    step = steps[min(1, len(steps) - 1)]
    kept = _reduced((~left_out).astype(np.float32), step) > 0.5
    sums = {}
    for sign in SIGNS:
        probability = views.said(sign, step)[0]
        sums[sign] = float(probability[(probability > INSIDE) & kept].sum()) * step**2
    sign = 1 if sums[1] >= sums[-1] else -1
    words = f"the network takes {sums[1]:.0f} px for bright particles, {sums[-1]:.0f} px for dark ones"
    if sums[sign] <= UNCLEAR * sums[-sign]:
        name = "bright" if sign > 0 else "dark"
        doubt = f"Whether particles are bright or dark is not clear: {words}. {name} was taken; say which (--polarity)."
        return sign, words, [doubt]
    return sign, words, []


def _n_split(labels: NDArray[np.int32]) -> int:
    """Return how many particles touch another one."""
    whole, n_whole = ndimage.label(labels > 0)
    its_whole = np.zeros(int(labels.max(initial=0)) + 1, int)
    its_whole[labels] = whole
    together = np.bincount(its_whole[1:], minlength=n_whole + 1)
    return int(together[together > 1].sum())


def _doubts_of_all(found: _Objects) -> list[str]:
    """Return a sentence if the typical object may be none: a part of the support."""
    typical = float(np.median(found.certainty[1:]))
    if typical >= PLAIN:
        return []
    return [
        f"the network is less sure than usual of the {len(found.certainty) - 1} things that it found (median "
        f"probability {typical:.2f}, of plain particles above {PLAIN}): they may be structure of the support. "
        "Look at them"
    ]


def _doubts(labels: NDArray[np.int32], probability: Float32Array) -> list[str]:
    """Return a sentence if many things may be particles that were not taken, or if there are none."""
    n = int(labels.max(initial=0))
    if n == 0:
        return ["No particles were found: nothing looks like one to the network."]
    faint, _ = ndimage.label((probability > FAINT) & (labels == 0))
    areas = np.bincount(faint.ravel())[1:]
    beside = np.unique(faint[ndimage.binary_dilation(labels > 0)])
    apart = np.delete(areas, beside[beside > 0] - 1)
    more = int(np.count_nonzero(apart >= FEWEST_PX2))
    if more <= max(MANY_FAINT * n, FEWEST_FAINT):
        return []
    return [
        f"about {more} more spots may be particles, too faint for the network to be sure: look at the outlines; a "
        "network trained on some of your own images (--model) may do better"
    ]
