"""Training of a segmentation network on labelled slices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import __version__
from tomoseg.arrays import Array
from tomoseg.errors import Interrupted, StageFailed
from tomoseg.io.digest import sha256
from tomoseg.io.slices import IGNORE
from tomoseg.runtime import Runtime, Stopwatch
from tomoseg.segmentation.data.folds import leak_warning, thumbnail
from tomoseg.segmentation.data.neighbours import middle, with_named_neighbours
from tomoseg.segmentation.evaluation.scores import confusion_matrix, scores
from tomoseg.segmentation.inference.slice_prediction import SlicePredictor
from tomoseg.segmentation.networks.card import MIDDLE, ModelCard
from tomoseg.segmentation.networks.encoder_weights import (
    Layers,
    encoder_layers,
    fetch,
    name_of,
    read_layers,
    set_encoder_weights,
)
from tomoseg.segmentation.networks.known_models import resolve_model
from tomoseg.segmentation.training.files import THRESHOLD_KEYS, VALIDATED, TrainFiles, as_json
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.segmentation.training.patches import batches, epoch_plan
from tomoseg.segmentation.training.schedule import best_epoch, ends_early, learning_rate
from tomoseg.segmentation.training.threshold import ThresholdSweep
from tomoseg.segmentation.training.training_set import TrainingSet


@dataclass(frozen=True)
class TrainResult:
    """A trained network."""

    model: Path  # its `.keras` file
    card: ModelCard  # what is known of it; also stored in the file
    history: list[dict[str, Any]]  # learning rate, loss, validation scores and seconds of each epoch
    best_epoch: int  # the epoch, from 1, whose weights were kept
    history_csv: Path  # the history as a table
    curves_png: Path  # the history as a picture
    checkpoint: Path  # folder from which the training can be continued


def train(
    images: Sequence[Array],
    labels: Sequence[Array],
    output: Path,
    *,
    names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
    pixel_size_nm: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    group_of: Callable[[str], str] | None = None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
    params: TrainParameters,
    runtime: Runtime,
) -> TrainResult:
    """Train a network on labelled slices and save the weights that did best in validation.

    In each epoch every slice gives as many random patches as cover it, unless `patches` is set. After each epoch,
    weights, optimiser and history go to the folder OUTPUT.checkpoint. The patches follow from seed, epoch and slice
    alone, the learning rate from the history, so that a resumed training goes on as it would have without the
    interruption. The best epoch is the one with the highest `monitor`, by default the mean over classes of the Dice of
    all validation pixels; without validation it is the last one.

    Parameters
    ----------
    images : sequence of (h, w) arrays
        Slices of one type, of any size. Where the network sees neighbours (`channels` above 1), (h, w, channels) with
        them, or (h, w) if they can be found among these by their names.
    labels : sequence of (h, w) integer arrays
        Class numbers from 0; 255 where nobody annotated.
    output : Path
        The `.keras` file to write; history and curves go beside it.
    names : sequence of str, optional
        File names without suffix, whose numbers tell neighbouring slices; '0000', '0001', ... by default.
    class_names, class_colors : sequence of str, optional
        One per class; default names and colours for as many classes as occur.
    pixel_size_nm : float, optional
        Pixel size of the slices in nm.
    resume : bool
        Continue after the last finished epoch.
    overwrite : bool
        Replace a network or checkpoints that exist already.
    group_of : callable, optional
        See `tomoseg.segmentation.data.folds.split`.
    on_epoch : callable, optional
        Called with the row of the history after each epoch.

    Returns
    -------
    TrainResult

    Raises
    ------
    InputError
        Slices, parameters, an existing output or a checkpoint do not fit; raised before anything is computed.
    StageFailed
        The loss became NaN.
    Interrupted
        A signal arrived or the time budget is used up; all finished epochs are kept.

    Notes
    -----
    The defaults are those of Genc, Kovarik & Fraser, Scientific Reports 12, 16267 (2022). For a CPU, see
    `tomoseg.segmentation.training.preset`.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from tomoseg.segmentation.training import train
    >>> rng = np.random.default_rng(0)
    >>> labels = [np.kron(rng.integers(0, 2, (4, 4)), np.ones((8, 8), int)) for _ in range(4)]
    >>> images = [60.0 * label + rng.normal(20, 5, label.shape) for label in labels]
    >>> output = pathlib.Path(tempfile.mkdtemp()) / "net.keras"
    >>> result = train(images, labels, output, epochs=1, patch=32, depth=2, base_filters=2, folds=2)
    >>> result.card.class_names
    ['background', 'object']
    >>> result.model == output
    True
    """
    images = images if names is None else with_named_neighbours(names, images, params.channels)
    data = TrainingSet.checked(images, labels, names, class_names, class_colors, params, group_of)
    work = TrainFiles(Path(output))
    encoder, md5 = None, ""
    if params.encoder_weights and not (resume and work.began()):
        path, md5 = fetch(params.encoder_weights, runtime.say, runtime.check)
        encoder = read_layers(path)
    state = work.start(data, params, resume=resume, overwrite=overwrite)
    if encoder is not None:
        state["encoder_md5"] = md5
    _say_what(data, params, state, runtime)
    from tomoseg.segmentation.networks.keras_setup import prepare

    prepare(runtime)
    trainer = _Trainer(data, params, work, state, runtime, pixel_size_nm, encoder)
    try:
        trainer.run(on_epoch)
    except Interrupted as stop:
        done = len(state["history"])
        raise Interrupted(f"{stop}: {done} of {params.epochs} epochs are done and kept in {work.checkpoint}") from stop
    return trainer.finish()


def _say_what(data: TrainingSet, params: TrainParameters, state: Mapping[str, Any], runtime: Runtime) -> None:
    """Tell which network is trained on which slices, and warn of what makes validation unreliable."""
    parts = data.split
    begun = f", starting from {Path(params.start).stem}" if params.start else ""
    runtime.say(
        f"{params.architecture} of depth {params.depth} from {params.base_filters} filters, loss {params.loss}{begun}"
    )
    runtime.say(
        f"{len(parts.training)} slices to train on, {len(parts.validation)} to validate on, {len(parts.unused)} left "
        f"out because they are neighbours of validation slices; classes {', '.join(data.class_names)} with weights "
        f"{', '.join(f'{w:.2g}' for w in data.weights)}"
    )
    thumbnails = [thumbnail(middle(image)) for image in data.images] if parts.validation else []
    if leak := leak_warning(data.names, thumbnails, parts):
        runtime.warn(leak)
    if params.frozen_epochs and not params.encoder_weights:
        runtime.say("the encoder starts from random weights, so it is trained from the first epoch (encoder_weights)")
    if not parts.validation:
        runtime.warn("there is no validation: the weights of the last epoch are kept, and their quality is unknown")
    if state["history"]:
        runtime.say(f"continuing after epoch {len(state['history'])} of {params.epochs}")


class _Trainer:
    """The loop over epochs."""

    def __init__(
        self,
        data: TrainingSet,
        params: TrainParameters,
        files: TrainFiles,
        state: dict[str, Any],
        runtime: Runtime,
        pixel_size_nm: float | None,
        encoder: Layers | None = None,
    ) -> None:
        self.data, self.params, self.files, self.state, self.runtime = data, params, files, state, runtime
        self.pixel_size_nm = pixel_size_nm
        self.model = self._model(encoder)

    @cached_property
    def _predicted(self) -> Callable[[Array], NDArray[np.float32]]:
        """Predict validation slices by the network's present weights; its graphs are compiled once for all epochs."""
        return predictor_of(self.model, self._card({}), self.runtime.check, overlap=1)

    def _model(self, encoder: Layers | None) -> Any:
        """Build the network, or load it with its optimiser from the checkpoint."""
        from tomoseg.segmentation.networks.builders import build
        from tomoseg.segmentation.networks.keras_setup import policy, policy_for
        from tomoseg.segmentation.networks.model_file import load_checkpoint

        s = self.params
        if self.state["latest"]:
            return load_checkpoint(self.files.checkpoint / self.state["latest"])
        name = policy_for(s.precision, self.runtime.device_used)
        with policy(name):
            model = build(s.architecture, len(self.data.class_names), s.channels, s.depth, s.base_filters, s.seed)
        self.state["policy"] = name
        if s.start:
            self._take_over(model)
        if encoder is not None:
            set_encoder_weights(model, encoder, name_of(s.encoder_weights))
            if s.frozen_epochs:
                _stay(encoder_layers(model))
        for layer in _normalising(model):
            layer.momentum = max(layer.momentum, s.ema)  # statistics over as many steps as the averaged weights
        self._compile(model)
        return model

    def _take_over(self, model: Any) -> None:
        """Take the weights of the network to start from, but for the last layer where classes differ in number.

        Batch normalisation stays as it is there: statistics of small batches, which are drawn around rare classes, are
        not those of whole slices.
        """
        from tomoseg.segmentation.networks.model_file import load_model

        path = resolve_model(self.params.start)
        given, card = load_model(path)
        self.state["start_sha256"] = sha256(path)
        weights = given.get_weights()
        _stay(_normalising(model))
        if len(card.class_names) == len(self.data.class_names):
            model.set_weights(weights)
            return
        last = len(model.layers[-1].get_weights())
        model.set_weights([*weights[:-last], *model.layers[-1].get_weights()])
        self.runtime.say(
            f"{path.stem} has {len(card.class_names)} classes, and here are {len(self.data.class_names)}: its last "
            "layer starts anew"
        )

    def _compile(self, model: Any) -> None:
        """Give a network loss and optimiser, a new one."""
        # Compiling the graph with XLA was measured to be slower on CPU, and it never gains on the first epochs.
        optimizer = make_optimizer(self.params, self.state["policy"])
        model.compile(optimizer=optimizer, loss=self._loss(), jit_compile=False)

    def _change_layers(self, epoch: int) -> None:
        """Train the encoder, too, once its epochs of rest are over, and batch normalisation no more after its own.

        Adam starts anew: its moments are those of the weights that it knew.
        """
        s = self.params
        released = encoder_layers(self.model) if s.encoder_weights and 0 < s.frozen_epochs == epoch else []
        for layer in released:
            layer.trainable = True
        if released:
            self.runtime.say(f"the encoder is trained, too, from epoch {epoch + 1} on")
        learning = [layer for layer in _normalising(self.model) if layer.trainable]
        settled = learning if 0 < s.norm_epochs <= epoch else []
        if settled:
            _stay(settled)
            self.runtime.say(f"batch normalisation stays as it is from epoch {epoch + 1} on")
        if released or settled:
            self._compile(self.model)

    def _loss(self) -> Any:
        from tomoseg.segmentation.networks.losses import make_loss

        return make_loss(self.params.loss, self.data.weights, self.params.gamma)

    def run(self, on_epoch: Callable[[Mapping[str, Any]], None] | None) -> None:
        """Train the remaining epochs; no epoch starts that would not finish within the time budget."""
        longest, every = 0.0, self.params.validate_every
        for epoch in range(len(self.state["history"]), self.params.epochs):
            if ends_early(self.params, self.state["history"]):
                self.runtime.say(
                    f"validation has not improved for {self.params.patience} epochs: the training ends here"
                )
                return
            self.runtime.check(longest)
            watch = Stopwatch()
            self._change_layers(epoch)
            rate = learning_rate(self.params, self.state["history"])
            if self.params.schedule != "constant":
                self.model.optimizer.learning_rate = rate
            loss = self._train_epoch(epoch)
            row: dict[str, Any] = {"epoch": epoch + 1, "learning_rate": rate, "loss": loss}
            with self._averaged_weights():
                row |= self._validate(due=(epoch + 1) % every == 0 or epoch + 1 == self.params.epochs)
                row["seconds"] = round(watch.seconds, 2)
                self._keep_best(row)
            self._checkpoint(row)
            longest = max(longest, watch.seconds)
            if on_epoch is not None:
                on_epoch(row)

    def _train_epoch(self, epoch: int) -> float:
        """Train one epoch; return its mean loss."""
        plan = epoch_plan(self.data, self.params, epoch)
        views = batches(self.data, self.params, epoch, plan, self.runtime.workers)
        losses, n_steps = [], -(-len(plan) // self.params.batch)
        for _ in self.runtime.track(range(n_steps), f"epoch {epoch + 1}/{self.params.epochs}"):
            x, y = next(views)
            losses.append(float(self.model.train_on_batch(x, y)))
            if not np.isfinite(losses[-1]):
                raise StageFailed(
                    f"the loss became {losses[-1]} in epoch {epoch + 1}: lower the learning rate "
                    f"({self.params.learning_rate:g}). All finished epochs are kept in {self.files.checkpoint}."
                )
        return float(np.mean(losses))

    def _validate(self, *, due: bool) -> dict[str, float | None]:
        """Return loss, Dice and IoU of each class over the validation slices; None for each if it is not due.

        With `sweep_threshold` also the best threshold, and the IoU of the second class with it.
        """
        names, sweep = self.data.class_names, ThresholdSweep() if self.params.sweep_threshold else None
        keys = ["val_loss", *(f"val_{score}{of}" for score in VALIDATED for of in ("", *(f"_{n}" for n in names)))]
        empty: dict[str, float | None] = dict.fromkeys([*keys, *(THRESHOLD_KEYS if sweep else ())])
        if not due or not self.data.split.validation:
            return empty
        matrix = np.zeros((len(names), len(names)), np.int64)
        loss, pixels = 0.0, 0
        for i in self.data.split.validation:
            truth = self.data.labels[i]
            probabilities = self._predicted(self.data.images[i])
            matrix += confusion_matrix(truth, probabilities.argmax(axis=0), len(names))
            known = int((truth != IGNORE).sum())
            loss += known * self._loss_of(truth, probabilities)
            pixels += known
            if sweep is not None:
                sweep.add(probabilities[1], truth)
        found, by_metric = empty | {"val_loss": loss / max(pixels, 1)}, scores(matrix)
        for score in VALIDATED:
            values = by_metric[score]
            found[f"val_{score}"] = float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
            per_class = zip(names, values, strict=True)
            found |= {f"val_{score}_{name}": None if np.isnan(v) else float(v) for name, v in per_class}
        if sweep is not None:
            found |= dict(zip(THRESHOLD_KEYS, sweep.best(), strict=True))
        return found

    def _loss_of(self, truth: Array, probabilities: NDArray[np.float32]) -> float:
        """Return the loss of one predicted slice, probabilities (C, h, w)."""
        from tomoseg.segmentation.networks.keras_setup import keras

        value = self._loss()(truth[None].astype(np.int32), np.moveaxis(probabilities, 0, -1)[None])
        return float(keras.ops.convert_to_numpy(value))

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Use the moving average of the weights, if there is one, inside this block."""
        if not self.params.ema:
            yield
            return
        from tomoseg.segmentation.networks.keras_setup import keras

        weights = self.model.trainable_variables
        present = [np.copy(keras.ops.convert_to_numpy(w)) for w in weights]
        self.model.optimizer.finalize_variable_values(weights)
        try:
            yield
        finally:
            for weight, value in zip(weights, present, strict=True):
                weight.assign(value)

    def _keep_best(self, row: dict[str, Any]) -> None:
        """Save the weights with their card if they are the best so far."""
        from tomoseg.segmentation.networks.model_file import save_model

        state, epoch = self.state, int(row["epoch"])
        if best_epoch([*state["history"], row], self.params.monitor) == epoch:
            state["best_epoch"], state["best"] = epoch, f"best_{epoch:05d}.keras"
            save_model(self.model, self.files.checkpoint / state["best"], self._card(row))

    def _checkpoint(self, row: dict[str, Any]) -> None:
        """Save weights, optimiser and history of a finished epoch."""
        state, latest = self.state, f"epoch_{int(row['epoch']):05d}.keras"
        self.model.save(self.files.checkpoint / latest)
        state["history"].append(row)
        state["latest"] = latest
        self.files.keep(state)
        self.files.write_history(state["history"], self.data.class_names, self.data.class_colors)

    def _card(self, scored: Mapping[str, Any]) -> ModelCard:
        """Return the card of the present weights."""
        data, s = self.data, self.params
        training = {
            **as_json(s),
            "class_weights": data.weights,
            "policy": self.state.get("policy", "float32"),
            "encoder_md5": self.state.get("encoder_md5", ""),
            "start_sha256": self.state.get("start_sha256", ""),
            **{f"{part}_names": [data.names[i] for i in indices] for part, indices in vars(data.split).items()},
        }
        return ModelCard(
            data.class_names,
            data.class_colors,
            data.scaling,
            s.predict_patch or s.patch,
            2 ** (s.depth - 1),
            self.pixel_size_nm,
            data.digest,
            training,
            dict(scored),
            f"tomoseg {__version__}",
            channels=s.channels,
            threshold=scored.get(THRESHOLD_KEYS[0]) or MIDDLE,
        )

    def finish(self) -> TrainResult:
        """Put the best weights at the output, and the history beside them."""
        state, files = self.state, self.files
        files.write_history(state["history"], self.data.class_names, self.data.class_colors)
        files.publish(state["best"])
        best = state["history"][state["best_epoch"] - 1]
        paths = files.history, files.curves, files.checkpoint
        return TrainResult(files.output, self._card(best), state["history"], state["best_epoch"], *paths)


def _normalising(model: Any) -> list[Any]:
    """Return the layers of batch normalisation."""
    from tomoseg.segmentation.networks.keras_setup import keras

    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def _stay(layers: Sequence[Any]) -> None:
    """Keep weights of layers, and statistics of batch normalisation, as they are."""
    for layer in layers:
        layer.trainable = False


def make_optimizer(params: TrainParameters, policy: str) -> Any:
    """Return the optimiser of a network with this Keras policy."""
    from tomoseg.segmentation.networks.keras_setup import keras

    adam = keras.optimizers.Adam(params.learning_rate, use_ema=params.ema > 0, ema_momentum=params.ema)
    # Keras would wrap it by itself, but not again when the network is loaded from a checkpoint.
    return keras.optimizers.LossScaleOptimizer(adam) if policy == "mixed_float16" else adam


def predictor_of(
    model: Any, card: ModelCard, check: Callable[[], object], overlap: int = 2
) -> Callable[[Array], NDArray[np.float32]]:
    """Return a function from a raw training image, (h, w) or (h, w, channels), to probabilities (C, h, w)."""
    predictor = SlicePredictor.of(model, card, card.scaling.trained, overlap=overlap)
    return lambda image: predictor.probabilities(image[None], check)[0]
