"""The random patches that each epoch draws from a training set."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from tomoseg.segmentation.data.augmentation import sample_patch, vary_intensity
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.segmentation.training.training_set import TrainingSet, label_counts


def epoch_plan(data: TrainingSet, params: TrainParameters, epoch: int) -> list[int]:
    """Return the slice that each patch of an epoch is drawn from: `patches` in all, or as many as cover the slices."""
    every = [i for i in data.split.training for _ in range(_views_of(data.images[i].shape, params.patch))]
    wanted = params.patches or len(every)
    rng = np.random.default_rng((params.seed, epoch))
    rounds = [rng.permutation(every) for _ in range(-(-wanted // len(every)))]
    return [int(i) for i in np.concatenate(rounds)[:wanted]]


def _views_of(shape: tuple[int, ...], patch: int) -> int:
    """Return the number of patches that cover a slice."""
    return max(1, -(-shape[0] // patch)) * max(1, -(-shape[1] // patch))


def rare_places(data: TrainingSet) -> list[list[tuple[int, NDArray[np.int64]]]]:
    """Return, for each rare class, the training slices that show it as (slice, flat indices of its pixels).

    A class is rare if it has less than half an equal share of the annotated pixels.
    """
    n_classes = len(data.class_names)
    counts = label_counts([data.labels[i] for i in data.split.training])[:n_classes]
    rare = [c for c in range(n_classes) if 0 < counts[c] < counts.sum() / (2 * n_classes)]
    found = [[(i, np.flatnonzero(data.labels[i] == c)) for i in data.split.training] for c in rare]
    return [[(i, pixels) for i, pixels in places if len(pixels)] for places in found]


def batches(
    data: TrainingSet, params: TrainParameters, epoch: int, plan: Sequence[int], workers: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Yield scaled images (batch, patch, patch, channels) and labels (batch, patch, patch), prepared in threads."""
    rare = rare_places(data) if params.sampling else []

    def view(k: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        rng = np.random.default_rng((params.seed, epoch, k))
        i, around = plan[k % len(plan)], None
        if rare and rng.random() < params.sampling:
            i, around = _random_place(rare, data, rng)
        image, labels = sample_patch(data.images[i], data.labels[i], params.patch, params.augmentation, rng, around)
        return vary_intensity(data.scales[i](image), params.augmentation, rng), labels

    size = params.batch
    # The last batch is filled up from the start of the plan, with new views: graphs are compiled per shape.
    starts = list(range(0, len(plan), size))
    with ThreadPoolExecutor(max(1, min(workers, 4))) as pool:

        def submit(start: int) -> list[Future[tuple[NDArray[np.float32], NDArray[np.uint8]]]]:
            return [pool.submit(view, k) for k in range(start, start + size)]

        waiting = [submit(start) for start in starts[:2]]
        for n in range(len(starts)):
            views = [future.result() for future in waiting.pop(0)]
            if n + 2 < len(starts):
                waiting.append(submit(starts[n + 2]))
            x = np.stack([v[0] for v in views])
            yield x.reshape(*x.shape[:3], params.channels), np.stack([v[1] for v in views])


def _random_place(
    rare: Sequence[Sequence[tuple[int, NDArray[np.int64]]]], data: TrainingSet, rng: np.random.Generator
) -> tuple[int, tuple[int, int]]:
    """Draw a rare class, a slice that has it and a pixel (y, x) of it there."""
    places = rare[int(rng.integers(len(rare)))]
    i, pixels = places[int(rng.integers(len(places)))]
    y, x = divmod(int(rng.choice(pixels)), data.labels[i].shape[1])
    return i, (y, x)
