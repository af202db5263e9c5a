"""The files of a training: checkpoint after each epoch, history, curves and the network itself."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tomoseg import plain_json
from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path, remove_unfinished
from tomoseg.palette import BLUE, ORANGE
from tomoseg.segmentation.evaluation.plots import new_figure
from tomoseg.segmentation.networks.encoder_weights import name_of
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.segmentation.training.training_set import TrainingSet

HISTORY_FIXED = ("epoch", "learning_rate", "loss", "val_loss", "val_dice", "seconds")
VALIDATED = ("dice", "iou")  # scores in validation: their mean, and that of each class
THRESHOLD_KEYS = ("threshold", "val_iou_at_threshold")  # of an epoch, where the threshold is swept


class TrainFiles:
    """The file of a network, and the files beside it."""

    def __init__(self, output: Path) -> None:
        if output.suffix != ".keras":
            raise InputError(f"a network is written to a file ending in .keras, not to {output.name}")
        self.output = output
        self.checkpoint = output.with_name(output.name + ".checkpoint")
        self.history = output.with_name(output.stem + ".history.csv")
        self.curves = output.with_name(output.stem + ".curves.png")

    def start(self, data: TrainingSet, params: TrainParameters, *, resume: bool, overwrite: bool) -> dict[str, Any]:
        """Return the state to start from, once it is certain that results can be written."""
        identity = _identity(data, params)
        for file in (self.output, self.history, self.curves):
            remove_unfinished(file)
        if resume and self.began():
            state = self._read()
            known = as_json(TrainParameters.of("train", {})) | state["identity"]  # older versions had fewer parameters
            differing = [key for key, value in identity.items() if known.get(key) != value]
            if differing:
                raise InputError(
                    f"the checkpoint {self.checkpoint} was made with other {', '.join(differing)}: resume with the "
                    "same data and parameters (only the number of epochs may change), or train to another file"
                )
            return state
        self.require_free(resume=resume, overwrite=overwrite)
        try:
            self.remove()
            self.checkpoint.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"the network cannot be written to {self.output.parent}: {error}") from error
        return {"identity": identity, "history": [], "best_epoch": 0, "latest": None, "best": None}

    def require_free(self, *, resume: bool, overwrite: bool) -> None:
        """Raise `InputError` where a file is in the way that is neither resumed nor overwritten."""
        taken = [path for path in (self.output, self._state_file) if path.exists()]
        if not taken or overwrite or (resume and self.began()):
            return
        if resume:
            raise InputError(f"{self.output} is complete and has no checkpoint: there is nothing to resume")
        hint = "continue with --resume, " if self.began() else ""
        raise InputError(f"{' and '.join(map(str, taken))} exists already: {hint}use another name, or --force")

    def began(self) -> bool:
        """Tell whether there is a checkpoint to continue from."""
        return self._state_file.is_file()

    @property
    def _state_file(self) -> Path:
        return self.checkpoint / "state.json"

    def _read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = plain_json.load(self._state_file.read_text(encoding="utf-8"))
            files = [state["latest"], state["best"]]
            missing = [name for name in files if not (self.checkpoint / name).is_file()]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the checkpoint {self._state_file} is damaged ({error}): train anew with --force"
            ) from error
        if missing:
            raise InputError(f"the checkpoint {self.checkpoint} lacks {', '.join(missing)}: train anew with --force")
        return state

    def keep(self, state: dict[str, Any]) -> None:
        """Write the state atomically, then remove the weights that it no longer names."""
        with atomic_path(self._state_file) as part:
            part.write_text(json.dumps(state, indent=1), encoding="utf-8")
        for file in self.checkpoint.glob("*.keras"):
            if file.name not in (state["latest"], state["best"]):
                file.unlink()

    def content(self) -> dict[str, bytes]:
        """Return the content of all files by their names beside the network; none where there is no checkpoint."""
        if not self.began():
            return {}
        folder = self.output.parent
        files = [*sorted(self.checkpoint.iterdir()), self.history, self.curves, self.output]
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files if file.is_file()}

    def replace(self, content: Mapping[str, bytes]) -> None:
        """Write files as `content` returned them: weights before the state that names them, then remove older ones."""
        if not content:
            return
        folder, state = self.output.parent, self._state_file.relative_to(self.output.parent).as_posix()
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        for name in sorted(content, key=lambda name: (name == self.output.name, name == state)):
            with atomic_path(folder / name) as part:
                part.write_bytes(content[name])
        for file in self.checkpoint.glob("*.keras"):
            if file.relative_to(folder).as_posix() not in content:
                file.unlink()

    def remove(self) -> None:
        """Remove the checkpoint, so that a training starts anew."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)

    def publish(self, best: str) -> None:
        """Copy the best weights to the file of the network."""
        with atomic_path(self.output) as part:
            shutil.copyfile(self.checkpoint / best, part)

    def write_history(
        self, rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], colors: Sequence[str]
    ) -> None:
        """Write the history as CSV and draw it."""
        with atomic_path(self.history) as part, part.open("w", newline="", encoding="utf-8") as file:
            more = ["val_iou", *(f"val_iou_{name}" for name in class_names)]
            swept = [key for key in THRESHOLD_KEYS if key in rows[-1]] if rows else []
            writer = csv.DictWriter(
                file, [*HISTORY_FIXED, *(f"val_dice_{name}" for name in class_names), *more, *swept]
            )
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
        with atomic_path(self.curves) as part:
            plot_history(rows, class_names, colors, part)


def as_json(params: TrainParameters) -> dict[str, Any]:
    """Return parameters as JSON values, without the folder of a file of weights."""
    names = {"encoder_weights": name_of(params.encoder_weights), "start": Path(params.start).stem}
    return params.model_dump(mode="json") | names


def _identity(data: TrainingSet, params: TrainParameters) -> dict[str, Any]:
    """Return what two trainings must share for one to continue the other."""
    values = {"data": data.digest, "class_names": data.class_names, **as_json(params)}
    del values["epochs"]
    return values


def plot_history(
    rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], colors: Sequence[str], path: Path
) -> None:
    """Draw loss and validation Dice of each class against the epoch, from the rows of the history."""
    figure, (left, right) = new_figure(9.0, 3.6, 2)

    def draw(axes: Any, key: str, color: str, label: str) -> None:
        known = [(row["epoch"], row[key]) for row in rows if row[key] is not None]  # not every epoch ends in validation
        axes.plot(*zip(*known, strict=True) if known else ([], []), ".-", ms=3, color=color, label=label)

    draw(left, "loss", BLUE, "training")
    draw(left, "val_loss", ORANGE, "validation")
    left.set_ylabel("loss")
    left.set_yscale("log")
    for name, color in zip(class_names, colors, strict=True):
        draw(right, f"val_dice_{name}", color, name)
    right.set_ylabel("Dice on the validation slices")
    right.set_ylim(0, 1.02)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130, format="png")
