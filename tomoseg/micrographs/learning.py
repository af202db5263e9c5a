"""Train the network of micrographs that ships with tomoseg, on simulated micrographs alone.

    python -m tomoseg.micrographs.learning FOLDER --images 3000 2400 0 0 --steps 2500 3500 3000 2000 --seed 1

At first batches are normalised, which lets a network learn fast; then normalisation is made part of the weights, and
these learn on: pictures differ so much that the mean and scatter of eight of them are not those of a single one. The
second phase has more pictures, whose particles are fainter and less sharp; those that the third adds are hidden among
structures that look like them; later ones go on with all of them.
Pictures and the state of the training are kept in FOLDER, so that it continues where it was stopped.
"""

import argparse
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array, Float32Array
from tomoseg.micrographs.network_input import CHANNELS, network_input, network_target
from tomoseg.micrographs.simulated import SHAPES, Mode, Recipe, simulated_micrograph, with_changes
from tomoseg.micrographs.supports import Support

LOG = logging.getLogger(__name__)
PICTURE_PX, PATCH_PX, BATCH = 384, 256, 8
WIDTHS = (8, 16, 48, 64, 96)  # channels of each level
RATES = 3e-3, 1e-3, 1e-3, 1e-3  # highest of each phase
NEVER_DONE = 2.4  # phases that the first one is long, by its rate: it ends while that is high
WRONG_SIGN, BARE = 0.15, 0.06  # parts of the pictures that are shown inverted, and that hold no particle
PACKED = 0.35  # part of the hidden particles that lie in packed layers
KEPT_EVERY = 500  # steps
LAYERED: tuple[Support, ...] = ("clouds", "plates", "grains", "rods", "aggregates")  # where faint particles hide
SHARES: dict[Support, float] = {
    "film": 0.1,
    "clouds": 0.2,
    "plates": 0.1,
    "grains": 0.18,
    "crumpled": 0.08,
    "holey": 0.06,
    "rods": 0.12,
    "aggregates": 0.16,
}


def training_recipe(seed: int) -> Recipe:
    """Draw a recipe from a wider range than `random_recipe`: crowded, faint, out of focus, on supports of any size.

    Examples
    --------
    >>> training_recipe(3) == training_recipe(3)
    True
    """
    rng = np.random.default_rng([seed, 11])
    mode: Mode = "HAADF" if rng.random() < 0.55 else "BF"
    median = float(np.exp(rng.uniform(np.log(4.5), np.log(48))))
    area = PICTURE_PX**2 / (np.pi / 4 * median**2)
    n = int(np.clip(np.exp(rng.uniform(np.log(0.01), np.log(0.3))) * area, 3, 500))
    kind: Support = rng.choice(list(SHARES), p=list(SHARES.values()))
    return Recipe(
        mode=mode,
        shape=(PICTURE_PX, PICTURE_PX),
        support=kind,
        particle_shape=SHAPES[rng.integers(len(SHAPES))],
        n_particles=0 if rng.random() < BARE else n,
        median_px=median,
        spread=float(rng.uniform(0.08, 0.55)),
        crowded=float(rng.uniform(0, 0.6)),
        overlap=float(rng.uniform(0.65, 1.05)),
        contrast=float(np.exp(rng.uniform(np.log(1.5), np.log(18)))),
        step=float(rng.uniform(0, 0.8)),
        texture=float(rng.uniform(0.005, 0.09)),
        least_snr=float(np.exp(rng.uniform(np.log(7), np.log(300)))),
        blur_px=float(rng.uniform(0.5, 1.8)),
        fringe=float(rng.uniform(0, 0.8)),
        diffraction=float(rng.uniform(0, 0.45)),
        uneven=float(rng.uniform(0, 0.4)),
        support_scale=float(np.clip(median / 14 * np.exp(rng.uniform(np.log(0.5), np.log(3))), 0.3, 5)),
        depth_blur=float(rng.choice([0, rng.uniform(0, 0.12)])),
        fainter=float(rng.uniform(0, 0.5)),
        grain=float(rng.choice([0, rng.uniform(0, 0.12)])),
    )


def faint_recipe(seed: int) -> Recipe:
    """Draw a recipe of particles that are faint or out of focus, most of them in HAADF on supports of several layers.

    Examples
    --------
    >>> faint_recipe(3).n_particles == training_recipe(3).n_particles
    True
    """
    rng = np.random.default_rng([seed, 14])
    recipe = training_recipe(seed)
    mode: Mode = "HAADF" if rng.random() < 0.7 else "BF"
    return with_changes(
        recipe,
        mode=mode,
        support=LAYERED[rng.integers(len(LAYERED))],
        blur_px=float(np.clip(recipe.median_px * rng.uniform(0.05, 0.22), 0.5, 4)),
        fainter=float(rng.uniform(0.2, 1.3)),
        contrast=float(np.exp(rng.uniform(np.log(0.8), np.log(10)))),
        least_snr=float(np.exp(rng.uniform(np.log(6), np.log(300)))),
        depth_blur=float(rng.uniform(0, 0.15)),
    )


def hidden_recipe(seed: int) -> Recipe:
    """Draw a recipe of particles among structures of the support that look like them, or of packed layers in grain.

    Examples
    --------
    >>> hidden_recipe(3) == hidden_recipe(3)
    True
    """
    rng = np.random.default_rng([seed, 15])
    recipe = training_recipe(seed)
    if rng.random() < PACKED:
        contrast, median = (float(np.exp(rng.uniform(*np.log(ends)))) for ends in ((2, 12), (8, 40)))
        return with_changes(
            recipe,
            mode="BF",
            support="film" if rng.random() < 0.7 else "clouds",
            support_scale=1.0,
            median_px=median,
            spread=float(rng.uniform(0.03, 0.15)),
            pitch=float(rng.uniform(1.02, 1.6)),
            contrast=contrast,
            step=float(rng.uniform(0.2, 0.8)),
            diffraction=float(rng.uniform(0, 0.5)),
            grain=0.05 * contrast * float(rng.uniform(0, 0.7)),
            grain_px=float(rng.uniform(0.08, 0.25)) * median,
        )
    median = float(np.exp(rng.uniform(np.log(4.5), np.log(20))))
    n = np.exp(rng.uniform(np.log(0.004), np.log(0.08))) * PICTURE_PX**2 / (np.pi / 4 * median**2)
    return with_changes(
        recipe,
        mode="HAADF" if rng.random() < 0.8 else "BF",
        support=LAYERED[rng.integers(len(LAYERED))],
        support_scale=float(np.clip(median * rng.uniform(1.5, 7) / 80, 0.25, 2)),
        n_particles=0 if rng.random() < 2 * BARE else int(np.clip(n, 3, 300)),
        median_px=median,
        spread=float(rng.uniform(0.1, 0.5)),
        contrast=float(np.exp(rng.uniform(np.log(0.8), np.log(9)))),
        fainter=float(rng.uniform(0.1, 1)),
        blur_px=float(rng.uniform(0.5, 2)),
        least_snr=float(np.exp(rng.uniform(np.log(5), np.log(150)))),
        faintest=4.5,
    )


RECIPES = training_recipe, faint_recipe, hidden_recipe  # of the pictures that a phase adds


def training_picture(seed: int, phase: int = 0) -> tuple[Array, Array]:
    """Return what the network sees of a simulated micrograph (y, x, 2) f2, and what it is to say (y, x, 2) u1 of 255.

    Examples
    --------
    >>> seen, said = training_picture(2)
    >>> seen.shape == said.shape == (384, 384, 2)
    True
    """
    rng = np.random.default_rng([seed, 12])
    truth = simulated_micrograph(RECIPES[phase](seed), seed)
    image = as_stored(truth.image, rng) if rng.random() < 0.6 else truth.image
    sign = 1 if truth.polarity == "bright" else -1
    labels = truth.labels
    if rng.random() < WRONG_SIGN:
        sign, labels = -sign, np.zeros_like(labels)
    target = network_target(labels)
    return network_input(sign * image).astype(np.float16), np.round(255 * target).astype(np.uint8)


def as_stored(image: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Return an image as pictures are stored: contrast stretched, saturated, 8 bit, some of them as JPEG.

    Examples
    --------
    >>> ramp = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    >>> out = as_stored(ramp, np.random.default_rng(0))
    >>> float(out.min()), float(out.max())
    (0.0, 255.0)
    """
    from PIL import Image

    low, high = np.percentile(image, [rng.uniform(0, 1), 100 - rng.choice([0, rng.uniform(0, 1)])])
    stretched = np.clip((image - low) / max(high - low, 1e-12), 0, 1) ** np.exp(rng.uniform(-0.5, 0.5))
    grey = np.round(255 * stretched).astype(np.uint8)
    if rng.random() < 0.4:
        file = BytesIO()
        Image.fromarray(grey).save(file, "JPEG", quality=int(rng.integers(70, 97)))
        grey = np.asarray(Image.open(file))
    return np.asarray(grey, np.float32)


def pictures(folder: Path, n: int, seed: int, phase: int, workers: int) -> tuple[Array, Array]:
    """Return pictures and targets (n, y, x, 2) mapped from files in `folder`, rendered now if they are not there."""
    paths = [folder / f"{name}-{phase}.npy" for name in ("seen", "said")]
    shape = (n, PICTURE_PX, PICTURE_PX, CHANNELS)
    if not all(path.exists() for path in paths):
        parts = [path.with_suffix(".part") for path in paths]
        seen, said = (
            np.lib.format.open_memmap(part, "w+", dtype, shape)
            for part, dtype in zip(parts, (np.float16, np.uint8), strict=True)
        )
        first = (10 * seed + phase) * 100_000
        with ProcessPoolExecutor(workers) as pool:
            work = pool.map(partial(training_picture, phase=phase), range(first, first + n), chunksize=8)
            for k, (seen[k], said[k]) in enumerate(work):
                if k % 100 == 0:
                    LOG.info("%d of %d pictures", k, n)
        for part, path in zip(parts, paths, strict=True):
            part.rename(path)
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r")


def network(*, normalised: bool) -> Any:
    """Return the untrained Keras network: a U-Net of five levels, narrow where the image is large."""
    from tomoseg.segmentation.networks.keras_setup import keras

    layers = keras.layers

    def convolved(x: Any, channels: int, stride: int = 1) -> Any:
        x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=not normalised)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.97)(x) if normalised else x)

    inputs = layers.Input((None, None, CHANNELS))
    x = convolved(inputs, WIDTHS[0])
    skipped = []
    for level, channels in enumerate(WIDTHS[1:]):
        skipped.append(x)
        x = convolved(x, channels, stride=2)
        for _ in range(1 if level < 2 else 2):
            x = convolved(x, channels)
    for skip, channels in zip(skipped[::-1], WIDTHS[-2::-1], strict=True):
        x = layers.Conv2D(channels, 1, use_bias=False)(x)
        x = layers.Concatenate()([layers.UpSampling2D(interpolation="bilinear")(x), skip])
        x = convolved(x, channels)
        if channels > WIDTHS[0]:
            x = convolved(x, channels)
    outputs = layers.Conv2D(CHANNELS, 1, activation="sigmoid")(x)
    return keras.Model(inputs, outputs)


def without_normalisation(model: Any) -> Any:
    """Return the same network with what normalisation does in use as part of the weights."""
    from tomoseg.segmentation.networks.keras_setup import keras

    out = network(normalised=False)
    theirs, ours = convolutions(model), convolutions(out)
    norms = iter(_in_order(model, keras.layers.BatchNormalization))
    for layer, mine in zip(theirs, ours, strict=True):
        weights = layer.get_weights()
        if layer.kernel_size[0] == 3:
            norm = next(norms)
            gamma, beta, mean, variance = norm.get_weights()
            factor = gamma / np.sqrt(variance + norm.epsilon)
            weights = [weights[0] * factor, beta - mean * factor]
        mine.set_weights(weights)
    return out


def convolutions(model: Any) -> list[Any]:
    """Return the convolutions of a network in the order in which `network` makes them."""
    from tomoseg.segmentation.networks.keras_setup import keras

    return _in_order(model, keras.layers.Conv2D)


def _in_order(model: Any, kind: type) -> list[Any]:
    def number(layer: Any) -> int:  # of names such as conv2d, conv2d_1
        last = layer.name.rsplit("_", 1)[-1]
        return int(last) if last.isdigit() else 0

    return sorted((layer for layer in model.layers if isinstance(layer, kind)), key=number)


def loss(truth: Any, said: Any) -> Any:
    """Return cross-entropy and 1 - IoU of the first channel, and the squared error of the second."""
    from tomoseg.segmentation.networks.keras_setup import keras

    ops = keras.ops
    inside, p = truth[..., 0], ops.clip(said[..., 0], 1e-6, 1 - 1e-6)
    entropy = -ops.mean(inside * ops.log(p) + (1 - inside) * ops.log(1 - p))
    both, either = ops.sum(inside * p, axis=(1, 2)), ops.sum(inside + p - inside * p, axis=(1, 2))
    overlap = 1 - ops.mean((both + 30) / (either + 30))
    distance = ops.mean((0.2 + inside) * ops.square(truth[..., 1] - said[..., 1]))
    return entropy + 0.3 * overlap + 3 * distance


def batch(sets: Sequence[tuple[Array, Array]], step: int, seed: int) -> tuple[Float32Array, Float32Array]:
    """Return patches and targets (n, y, x, 2) f4 of a step, drawn from all sets of pictures alike, turned, mirrored."""
    rng = np.random.default_rng([seed, 13, step])
    patches = []
    for k in range(BATCH):
        seen, said = sets[k % len(sets)]
        one = rng.integers(len(seen))
        y, x = rng.integers(PICTURE_PX - PATCH_PX + 1, size=2)
        window = (slice(y, y + PATCH_PX), slice(x, x + PATCH_PX))
        pair = np.concatenate([seen[one][window].astype(np.float32), said[one][window] / np.float32(255)], axis=-1)
        pair = np.rot90(pair, int(rng.integers(4)))
        patches.append(pair[:, ::-1] if rng.random() < 0.5 else pair)
    both = np.stack(patches)
    return both[..., :CHANNELS], both[..., CHANNELS:]


def rate(step: int, steps: int, phase: int) -> float:
    """Return the learning rate of a step of a phase: it rises at first, then falls as a cosine."""
    part = step / steps / (NEVER_DONE if phase == 0 else 1)
    return float(RATES[phase] * min(1.0, (step + 1) / 200) * (0.5 + 0.5 * np.cos(np.pi * part)) + 1e-5)


def train(
    folder: Path, images: Sequence[int], steps: Sequence[int], seed: int, workers: int, start: Path | None = None
) -> Any:
    """Train in phases, or go on training, and return the Keras network.

    `start` is a network that was trained before; phases of no steps are then left out.
    """
    from tomoseg.segmentation.networks.keras_setup import keras

    keras.utils.set_random_seed(seed)
    model, sets = (from_onnx(start) if start else None), []
    for phase, of_phase in enumerate(steps):
        if images[phase]:
            sets.append(pictures(folder, images[phase], seed, phase, workers))
        if not of_phase:
            continue
        state = folder / f"state-{phase}.keras"
        if state.exists():
            model = keras.models.load_model(state, custom_objects={"loss": loss})
        else:
            if model is None:
                model = network(normalised=True)
            elif phase == 1 and not start:
                model = without_normalisation(model)
            model.compile(keras.optimizers.Adam(), loss=loss)
        recent = []
        for step in range(int(model.optimizer.iterations.numpy()), of_phase):
            model.optimizer.learning_rate.assign(rate(step, of_phase, phase))
            patches = batch(sets, step + sum(steps[:phase]), seed)
            recent.append(float(model.train_on_batch(*patches)))
            if (step + 1) % 50 == 0:
                LOG.info("phase %d, step %d: loss %.4f", phase, step + 1, np.mean(recent[-200:]))
            if (step + 1) % KEPT_EVERY == 0 or step + 1 == of_phase:
                model.save(folder / "part.keras")
                (folder / "part.keras").rename(state)
    return model


def to_onnx(model: Any, path: Path) -> None:
    """Write a network without normalisation as ONNX, for images (1, 2, y, x) whose sides are multiples of 16.

    Needs the package `onnx`.
    """
    onnx = import_module("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    layers = iter(convolutions(model))
    nodes: list[Any] = []
    weights: list[Any] = [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")]

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{kind}{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def convolved(x: str) -> str:
        layer = next(layers)
        kernel, *offset = (np.asarray(w, np.float32) for w in layer.get_weights())
        names = [f"{kind}{len(nodes)}" for kind in ("kernel", "offset")[: 1 + len(offset)]]
        for name, values in zip(names, (kernel.transpose(3, 2, 0, 1), *offset), strict=True):
            weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        reach = kernel.shape[0] // 2
        before = 0 if layer.strides[0] == 2 else reach  # Keras pads even images at the far side only
        out = add("Conv", [x, *names], strides=layer.strides, pads=[before, before, reach, reach])
        return add("Relu", [out]) if reach else out

    x = convolved("image")
    skipped = []
    for level in range(len(WIDTHS) - 1):
        skipped.append(x)
        for _ in range(2 if level < 2 else 3):
            x = convolved(x)
    for skip in skipped[::-1]:
        x = add("Resize", [convolved(x), "", "twice"], mode="linear")
        x = convolved(add("Concat", [x, skip], axis=1))
        if skip is not skipped[0]:
            x = convolved(x)
    nodes.append(helper.make_node("Sigmoid", [convolved(x)], ["said"]))
    image, said = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, CHANNELS, "y", "x"])
        for name in ("image", "said")
    )
    graph = helper.make_graph(nodes, "nanoparticles", [image], [said], weights)
    converted = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(converted)
    path.write_bytes(converted.SerializeToString())


def from_onnx(path: Path) -> Any:
    """Return the Keras network of a file that `to_onnx` wrote. Needs the package `onnx`."""
    onnx = import_module("onnx")
    graph = onnx.load(path).graph
    weights = {part.name: onnx.numpy_helper.to_array(part) for part in graph.initializer}
    model = network(normalised=False)
    nodes = (node for node in graph.node if node.op_type == "Conv")
    for layer, node in zip(convolutions(model), nodes, strict=True):
        kernel, *offset = (weights[name] for name in node.input[1:])
        layer.set_weights([kernel.transpose(2, 3, 1, 0), *offset])
    return model


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--from", dest="start", type=Path, metavar="ONNX", help="network to go on with")
    parser.add_argument("--images", type=int, nargs=4, default=(3000, 2400, 0, 0), help="that each phase adds")
    parser.add_argument("--steps", type=int, nargs=4, default=(2500, 3500, 3000, 2000), help="of each phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if find_spec("onnx") is None:
        parser.error("the package onnx is not installed: pip install 'tomoseg[onnx]'")
    options.folder.mkdir(parents=True, exist_ok=True)
    model = train(options.folder, options.images, options.steps, options.seed, options.workers, options.start)
    to_onnx(model, options.folder / "nanoparticles.onnx")


if __name__ == "__main__":
    main()
