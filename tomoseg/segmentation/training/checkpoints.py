"""The files of a training: checkpoints after each epoch, history, curves and the model itself."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path, remove_unfinished
from tomoseg.segmentation.networks.encoder_weights import name_of
from tomoseg.segmentation.training.parameters import TrainSettings
from tomoseg.segmentation.training.patches import TrainData

HISTORY_FIXED = ("epoch", "learning_rate", "loss", "val_loss", "val_dice", "seconds")


def checkpoint_folder(output: Path) -> Path:
    """Return where the checkpoints of the model `output` are kept."""
    return output.with_name(output.name + ".checkpoint")


class TrainFiles:
    """The model file and what lies beside it."""

    def __init__(self, output: Path) -> None:
        if output.suffix != ".keras":
            raise InputError(f"the model must be written to a file ending in .keras, not {output.name}")
        self.output = output
        self.checkpoint = checkpoint_folder(output)
        self.history = output.with_name(output.stem + ".history.csv")
        self.curves = output.with_name(output.stem + ".curves.png")

    def start(self, data: TrainData, settings: TrainSettings, *, resume: bool, overwrite: bool) -> dict[str, Any]:
        """Return the state to start from, after making sure that results can be written."""
        identity = _identity(data, settings)
        for file in (self.output, self.history, self.curves):
            remove_unfinished(file)
        if resume and self.began():
            state = self._read()
            known = asdict(TrainSettings()) | state["identity"]  # what it does not name was not to be chosen then
            differing = [key for key, value in identity.items() if known.get(key) != value]
            if differing:
                raise InputError(
                    f"the checkpoint {self.checkpoint} was made with other {', '.join(differing)}: resume with the "
                    "same data and settings (the number of epochs may change), or train to another file"
                )
            return state
        self.require_free(resume=resume, overwrite=overwrite)
        try:
            shutil.rmtree(self.checkpoint, ignore_errors=True)
            self.checkpoint.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"the model cannot be written to {self.output.parent}: {error}") from error
        return {"identity": identity, "history": [], "best_epoch": 0, "latest": None, "best": None}

    def require_free(self, *, resume: bool, overwrite: bool) -> None:
        """Raise `InputError` where something is there that is neither to be continued nor to be replaced."""
        taken = [path for path in (self.output, self._state_file) if path.exists()]
        if not taken or overwrite or (resume and self.began()):
            return
        if resume:
            raise InputError(f"{self.output} is finished and has no checkpoint: there is nothing to resume")
        hint = "continue it with --resume, " if self.began() else ""
        raise InputError(f"{' and '.join(map(str, taken))} exists already: {hint}use another name, or --force")

    def began(self) -> bool:
        """Tell whether there is a state that a training can continue from."""
        return self._state_file.is_file()

    @property
    def _state_file(self) -> Path:
        return self.checkpoint / "state.json"

    def _read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state_file.read_text(encoding="utf-8"))
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
        """Write the state in one step, then remove weights that it no longer names."""
        with atomic_path(self._state_file) as part:
            part.write_text(json.dumps(state, indent=1), encoding="utf-8")
        for file in self.checkpoint.glob("*.keras"):
            if file.name not in (state["latest"], state["best"]):
                file.unlink()

    def publish(self, best: str) -> None:
        """Copy the best weights to where the model was asked for."""
        with atomic_path(self.output) as part:
            shutil.copyfile(self.checkpoint / best, part)

    def write_history(
        self, rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], colors: Sequence[str]
    ) -> None:
        """Write the history as CSV and as a picture."""
        from tomoseg.segmentation.evaluation.plots import plot_history

        with atomic_path(self.history) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*HISTORY_FIXED, *(f"val_dice_{name}" for name in class_names)])
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
        with atomic_path(self.curves) as part:
            plot_history(rows, class_names, colors, part)


def _identity(data: TrainData, settings: TrainSettings) -> dict[str, Any]:
    """Return what must be the same for a training to be the same one, as JSON gives it back."""
    values = {"data": data.digest, "class_names": data.class_names, **asdict(settings)}
    del values["epochs"]
    values["encoder_weights"] = name_of(settings.encoder_weights)
    identity: dict[str, Any] = json.loads(json.dumps(values))
    return identity
