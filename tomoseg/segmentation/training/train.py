"""Training of a segmentation network on labelled slices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import __version__
from tomoseg.arrays import Array
from tomoseg.errors import Interrupted, StageFailed
from tomoseg.io.slices import IGNORE
from tomoseg.runtime import Runtime, Stopwatch
from tomoseg.segmentation.data.folds import lookalikes
from tomoseg.segmentation.data.neighbours import middle, with_named_neighbours
from tomoseg.segmentation.evaluation.scores import confusion_matrix, scores
from tomoseg.segmentation.inference.slice_prediction import SlicePredictor
from tomoseg.segmentation.networks.card import ModelCard
from tomoseg.segmentation.networks.encoder_weights import Layers, fetch, name_of, read_layers, set_encoder_weights
from tomoseg.segmentation.training.checkpoints import TrainFiles
from tomoseg.segmentation.training.parameters import TrainSettings
from tomoseg.segmentation.training.patches import TrainData, batches, epoch_plan
from tomoseg.segmentation.training.schedule import best_epoch, ends_early, learning_rate

__all__ = ["TrainResult", "TrainSettings", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind."""

    model: Path
    card: ModelCard
    history: list[dict[str, Any]]
    best_epoch: int
    history_csv: Path
    curves_png: Path
    checkpoint: Path


def train(
    images: Sequence[Array],
    labels: Sequence[Array],
    output: Path,
    *,
    names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
    pixel_size_nm: float | None = None,
    settings: TrainSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    group_of: Callable[[str], str] | None = None,
    runtime: Runtime | None = None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> TrainResult:
    """Train a network and save the weights that did best on the validation slices.

    Each epoch every slice gives as many random views as patches cover it, unless the settings say otherwise. After each
    epoch, weights, optimiser and history go to the folder OUTPUT.checkpoint; views are drawn from the seed, epoch and
    slice alone, and the learning rate follows from the history, so a training that was interrupted and resumed goes on
    as it would have without interruption. 'Best' is, unless the settings say otherwise, the highest mean over classes
    of the Dice of all validation pixels together; without validation, the last epoch. History and curves are written
    anew after each epoch.

    Parameters
    ----------
    images : (h, w) arrays of one type, of any size; where the network sees neighbours, (h, w, channels) of slices with
        theirs, or (h, w) if they are found among these by their names
    labels : (h, w) arrays of class numbers, 255 where nobody annotated
    output : the `.keras` file to write; history and curves go beside it
    names : file names without suffix, which tell of neighbouring slices; '0000', '0001', ... unless given
    class_names, class_colors : one per class; names for as many classes as occur unless given
    resume : continue from the last finished epoch
    overwrite : replace a model or checkpoints that are already there
    group_of : see `tomoseg.segmentation.data.folds.split`
    on_epoch : called with the row of the history of each epoch

    Raises
    ------
    InputError
        Where data, settings, an existing output or a checkpoint do not fit, before anything is computed.
    StageFailed
        Where the loss becomes NaN.
    Interrupted
        After a signal, or where the time budget is used up; all finished epochs are kept.
    """
    settings, runtime = settings or TrainSettings(), runtime or Runtime()
    images = images if names is None else with_named_neighbours(names, images, settings.channels)
    data = TrainData.checked(images, labels, names, class_names, class_colors, settings, group_of)
    work = TrainFiles(output)
    encoder = None if resume and work.began() else _encoder_of(settings, runtime)
    state = work.start(data, settings, resume=resume, overwrite=overwrite)
    if encoder is not None:
        state["encoder_md5"] = encoder[1]
    _say_what(data, settings, state, runtime)
    from tomoseg.segmentation.networks.keras_setup import prepare

    prepare(runtime)
    trainer = _Trainer(data, settings, work, state, runtime, pixel_size_nm, encoder and encoder[0])
    try:
        trainer.run(on_epoch)
    except Interrupted as stop:
        done = len(state["history"])
        raise Interrupted(
            f"{stop}: {done} of {settings.epochs} epochs are done and kept in {work.checkpoint}"
        ) from stop
    return trainer.finish()


def _encoder_of(settings: TrainSettings, runtime: Runtime) -> tuple[Layers, str] | None:
    """Return the weights that the encoder is to start from, and the MD5 of their file; None where there are none."""
    if not settings.encoder_weights:
        return None
    path, md5 = fetch(settings.encoder_weights, runtime.say, runtime.check)
    return read_layers(path), md5


def _say_what(data: TrainData, settings: TrainSettings, state: Mapping[str, Any], runtime: Runtime) -> None:
    """Tell what is trained on what."""
    parts = data.split
    runtime.say(
        f"{settings.architecture} of depth {settings.depth} from {settings.base_filters} filters, loss {settings.loss}"
    )
    runtime.say(
        f"{len(parts.training)} slices to train on, {len(parts.validation)} to validate on, {len(parts.unused)} left "
        f"out as neighbours of those; classes {', '.join(data.class_names)} with weights "
        f"{', '.join(f'{w:.2g}' for w in data.weights)}"
    )
    alike = lookalikes([middle(image) for image in data.images], parts)
    if alike:
        i, j = alike[0]
        runtime.warn(
            f"{len(alike)} of {len(parts.validation)} validation slices look much like a slice trained on (such as "
            f"{data.names[j]} like {data.names[i]}): validation scores will flatter. Name neighbouring slices by "
            "neighbouring numbers, or raise the guard"
        )
    if not parts.validation:
        runtime.warn(
            "there is no validation: the weights of the last epoch are kept, and nothing tells how good they are"
        )
    if state["history"]:
        runtime.say(f"continuing after epoch {len(state['history'])} of {settings.epochs}")


class _Trainer:
    """The loop over epochs. Only here and below is Keras needed."""

    def __init__(
        self,
        data: TrainData,
        settings: TrainSettings,
        files: TrainFiles,
        state: dict[str, Any],
        runtime: Runtime,
        pixel_size_nm: float | None,
        encoder: Layers | None = None,
    ) -> None:
        self.data, self.settings, self.files, self.state, self.runtime = data, settings, files, state, runtime
        self.pixel_size_nm = pixel_size_nm
        self.model = self._model(encoder)

    def _model(self, encoder: Layers | None) -> Any:
        """Build the network, or load it with its optimiser from the checkpoint."""
        from tomoseg.segmentation.networks.builders import build
        from tomoseg.segmentation.networks.keras_setup import keras, policy, policy_for
        from tomoseg.segmentation.networks.model_file import load_checkpoint

        s = self.settings
        if self.state["latest"]:
            return load_checkpoint(self.files.checkpoint / self.state["latest"])
        name = policy_for(s.precision, self.runtime.device_used)
        with policy(name):
            model = build(s.architecture, len(self.data.class_names), s.channels, s.depth, s.base_filters, s.seed)
        self.state["policy"] = name
        if encoder is not None:
            set_encoder_weights(model, encoder, name_of(s.encoder_weights))
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = max(layer.momentum, s.ema)  # statistics over as many steps as the averaged weights
        # Compiling the graph with XLA was measured to be slower on CPU, and it never gains on the first epochs.
        model.compile(
            optimizer=make_optimizer(s, name),
            loss=self._loss(),
            jit_compile=False,
        )
        return model

    def _loss(self) -> Any:
        from tomoseg.segmentation.networks.losses import make_loss

        return make_loss(self.settings.loss, self.data.weights, self.settings.gamma)

    def run(self, on_epoch: Callable[[Mapping[str, Any]], None] | None) -> None:
        """Train the epochs that are still to do; none is begun that would not end within the time budget."""
        longest, every = 0.0, self.settings.validate_every
        for epoch in range(len(self.state["history"]), self.settings.epochs):
            if ends_early(self.settings, self.state["history"]):
                self.runtime.say(f"validation has not become better for {self.settings.patience} epochs: it ends here")
                return
            self.runtime.check(longest)
            watch = Stopwatch()
            rate = learning_rate(self.settings, self.state["history"])
            if self.settings.schedule != "constant":
                self.model.optimizer.learning_rate = rate
            loss = self._train_epoch(epoch)
            row: dict[str, Any] = {"epoch": epoch + 1, "learning_rate": rate, "loss": loss}
            with self._averaged_weights():
                row |= self._validate(due=(epoch + 1) % every == 0 or epoch + 1 == self.settings.epochs)
                row["seconds"] = round(watch.seconds, 2)
                self._keep_best(row)
            self._checkpoint(row)
            longest = max(longest, watch.seconds)
            if on_epoch is not None:
                on_epoch(row)

    def _train_epoch(self, epoch: int) -> float:
        """Take one pass over the training slices; return the mean loss."""
        plan = epoch_plan(self.data, self.settings, epoch)
        views = batches(self.data, self.settings, epoch, plan, self.runtime.workers)
        losses = []
        what = f"epoch {epoch + 1}/{self.settings.epochs}"
        n_steps = -(-len(plan) // self.settings.batch)
        for _ in self.runtime.track(range(n_steps), what):
            x, y = next(views)
            losses.append(float(self.model.train_on_batch(x, y)))
            if not np.isfinite(losses[-1]):
                raise StageFailed(
                    f"the loss became {losses[-1]} in epoch {epoch + 1}: lower the learning rate "
                    f"({self.settings.learning_rate:g}). All finished epochs are kept in {self.files.checkpoint}."
                )
        return float(np.mean(losses))

    def _validate(self, *, due: bool) -> dict[str, float | None]:
        """Return loss and Dice of each class on the validation slices, each predicted whole; None if it is not due."""
        names = self.data.class_names
        empty: dict[str, float | None] = {"val_loss": None, "val_dice": None, **{f"val_dice_{n}": None for n in names}}
        if not due or not self.data.split.validation:
            return empty
        predicted = predictor_of(self.model, self._card({}), self.runtime.check, overlap=1)
        matrix = np.zeros((len(names), len(names)), np.int64)
        loss, pixels = 0.0, 0
        for i in self.data.split.validation:
            truth = self.data.labels[i]
            probabilities = predicted(self.data.images[i])
            matrix += confusion_matrix(truth, probabilities.argmax(axis=0), len(names))
            known = int((truth != IGNORE).sum())
            loss += known * self._loss_of(truth, probabilities)
            pixels += known
        dice = scores(matrix)["dice"]
        per_class = {f"val_dice_{n}": (None if np.isnan(d) else float(d)) for n, d in zip(names, dice, strict=True)}
        mean = float(np.nanmean(dice)) if np.isfinite(dice).any() else 0.0
        return {"val_loss": loss / max(pixels, 1), "val_dice": mean, **per_class}

    def _loss_of(self, truth: Array, probabilities: NDArray[np.float32]) -> float:
        """Return the loss of one predicted slice, probabilities (C, h, w)."""
        from tomoseg.segmentation.networks.keras_setup import keras

        value = self._loss()(truth[None].astype(np.int32), np.moveaxis(probabilities, 0, -1)[None])
        return float(keras.ops.convert_to_numpy(value))

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Put the moving average of the weights, if there is one, in their place for a while."""
        if not self.settings.ema:
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
        """Keep the weights with their card if they are the best so far."""
        from tomoseg.segmentation.networks.model_file import save_model

        state, epoch = self.state, int(row["epoch"])
        if best_epoch([*state["history"], row], self.settings.monitor) == epoch:
            state["best_epoch"], state["best"] = epoch, f"best_{epoch:05d}.keras"
            save_model(self.model, self.files.checkpoint / state["best"], self._card(row))

    def _checkpoint(self, row: dict[str, Any]) -> None:
        """Keep weights, optimiser and history of a finished epoch."""
        latest = f"epoch_{int(row['epoch']):05d}.keras"
        self.model.save(self.files.checkpoint / latest)
        self.state["history"].append(row)
        self.state["latest"] = latest
        self.files.keep(self.state)
        self.files.write_history(self.state["history"], self.data.class_names, self.data.class_colors)

    def _card(self, scored: Mapping[str, Any]) -> ModelCard:
        """Return the card of the present weights."""
        data, s = self.data, self.settings
        training = {
            **asdict(s),
            "class_weights": data.weights,
            "encoder_weights": name_of(s.encoder_weights),
            "policy": self.state.get("policy", "float32"),
            "encoder_md5": self.state.get("encoder_md5", ""),
            "training_names": [data.names[i] for i in data.split.training],
            "validation_names": [data.names[i] for i in data.split.validation],
            "unused_names": [data.names[i] for i in data.split.unused],
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
        )

    def finish(self) -> TrainResult:
        """Put the best weights in place, with the history beside them."""
        state, files = self.state, self.files
        files.write_history(state["history"], self.data.class_names, self.data.class_colors)
        files.publish(state["best"])
        best = state["history"][state["best_epoch"] - 1]
        return TrainResult(
            files.output,
            self._card(best),
            state["history"],
            state["best_epoch"],
            files.history,
            files.curves,
            files.checkpoint,
        )


def make_optimizer(settings: TrainSettings, policy: str) -> Any:
    """Return the optimiser for a network that computes in a policy of Keras."""
    from tomoseg.segmentation.networks.keras_setup import keras

    adam = keras.optimizers.Adam(settings.learning_rate, use_ema=settings.ema > 0, ema_momentum=settings.ema)
    # Keras would wrap it by itself, but not again when the network is loaded from a checkpoint.
    return keras.optimizers.LossScaleOptimizer(adam) if policy == "mixed_float16" else adam


def predictor_of(
    model: Any, card: ModelCard, check: Callable[[], object], overlap: int = 2
) -> Callable[[Array], NDArray[np.float32]]:
    """Return what gives probabilities (C, h, w) of a raw training image (h, w), or (h, w, channels)."""
    predictor = SlicePredictor.of(model, card, card.scaling.trained, overlap=overlap)
    return lambda image: predictor.probabilities(image[None], check)[0]
