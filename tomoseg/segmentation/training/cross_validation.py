"""Cross-validation: every labelled slice is scored by a network that was not trained on it.

One network is trained for each fold and labels the slices it was validated on. Scores over all slices say more than
those of one fold, whose slices may be easier or harder than others.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path
from tomoseg.runtime import Runtime
from tomoseg.segmentation.data.folds import split
from tomoseg.segmentation.data.neighbours import with_named_neighbours
from tomoseg.segmentation.evaluation.numbers import plain
from tomoseg.segmentation.evaluation.scores import Evaluation, evaluate_labels, scores
from tomoseg.segmentation.evaluation.tables import scores_table
from tomoseg.segmentation.inference.slice_prediction import labels_of
from tomoseg.segmentation.training.files import TrainFiles
from tomoseg.segmentation.training.parameters import TrainParameters, check
from tomoseg.segmentation.training.several import Training, train_each
from tomoseg.segmentation.training.trainer import TrainResult, predictor_of
from tomoseg.segmentation.training.training_set import TrainingSet


@dataclass(frozen=True)
class CrossValidation:
    """The networks of all folds, and their scores."""

    folds: list[int]  # the numbers of the folds
    results: list[TrainResult]  # the training of each of them
    fold_of: list[int]  # the fold of each slice that was scored, in the order of `evaluation.names`
    evaluation: Evaluation  # of the labels that each slice got from the network that was not trained on it
    scores_json: Path
    scores_csv: Path
    final: TrainResult | None = None  # the network trained on all slices, if one was asked for

    def table(self) -> str:
        """Return mean and 95 % confidence interval over slices, and the Dice of the pixels of each fold, as text."""
        by_fold = self._dice_of_folds()
        return scores_table(self.evaluation, "slices", {f"fold {n}": by_fold[k] for k, n in enumerate(self.folds)})

    def _dice_of_folds(self) -> NDArray[np.float64]:
        """Return the Dice of each fold over all its pixels, (folds, C)."""
        of = np.array(self.fold_of)
        matrices = [self.evaluation.matrices[of == fold].sum(axis=0) for fold in self.folds]
        return scores(np.stack(matrices))["dice"]

    def write(self) -> None:
        """Write the scores as JSON and CSV."""
        dice = self._dice_of_folds()
        folds = [
            {"fold": fold, "model": result.model.name, "best_epoch": result.best_epoch, "dice": plain(row)}
            for fold, result, row in zip(self.folds, self.results, dice, strict=True)
        ]
        content = self.evaluation.to_dict() | {"folds": folds, "fold_of_image": self.fold_of}
        with atomic_path(self.scores_json) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        with atomic_path(self.scores_csv) as part:
            self.evaluation.write_csv(part)


def fold_path(output: Path, fold: int) -> Path:
    """Return the file of the network of a fold: `net-fold0.keras` beside `net.keras`."""
    return output.with_name(f"{output.stem}-fold{fold}{output.suffix}")


def cross_validate(
    images: Sequence[Array],
    labels: Sequence[Array],
    output: Path,
    *,
    names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
    pixel_size_nm: float | None = None,
    only_folds: Sequence[int] | None = None,
    final: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    group_of: Callable[[str], str] | None = None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
    params: TrainParameters,
    runtime: Runtime,
) -> CrossValidation:
    """Train one network per fold, and score each slice with the network that was not trained on it.

    Parameters
    ----------
    images, labels, names, class_names, class_colors, pixel_size_nm, resume, overwrite, group_of
        See `train`. Folds that are finished are not trained again.
    output : Path
        Networks are named after it (`net-fold0.keras` for `net.keras`), and so are the scores, `net.crossval.json` and
        `net.crossval.csv`.
    only_folds : sequence of int, optional
        Numbers of the folds to train a network for; all of them by default. `fold` is ignored.
    final : bool
        Also train a network on all slices, to `output`, whose card holds the scores of the folds. It takes as many
        epochs as the median fold took to its best one; with schedule 'cosine', whose last epochs have the lowest rate,
        as many as the folds.
    on_epoch : callable, optional
        Called with the row of the history after each epoch, and its 'fold', which is -1 for the final network.

    Returns
    -------
    CrossValidation

    Raises
    ------
    InputError
        As `train`, and where a fold has no slices to validate on; raised before anything is computed.
    StageFailed, Interrupted
        As `train`.
    """
    output = Path(output)
    given = [f"{i:04d}" for i in range(len(images))] if names is None else list(names)
    images = images if names is None else with_named_neighbours(names, images, params.channels)
    numbers = sorted(set(range(params.folds) if only_folds is None else only_folds))
    files = [TrainFiles(fold_path(output, fold)) for fold in numbers]
    problems = check(params) + _problems_with_folds(given, params, numbers, group_of)
    if final and params.schedule == "plateau":
        problems.append("schedule is plateau, but the final network has no validation: choose another schedule")
    if problems:
        raise InputError.of(problems)
    of_fold = [params.changed(fold=fold) for fold in numbers]
    for one in of_fold:
        TrainingSet.checked(images, labels, given, class_names, class_colors, one, group_of)
    for file in [*files, TrainFiles(output)] if final else files:
        file.require_free(resume=resume, overwrite=overwrite)

    about: dict[str, Any] = {
        **{"names": given, "class_names": class_names, "class_colors": class_colors, "pixel_size_nm": pixel_size_nm},
        "group_of": group_of,
    }

    def trained(trainings: Sequence[Training]) -> Iterator[TrainResult]:
        return train_each(images, labels, trainings, about, runtime, resume=resume, overwrite=overwrite)

    def told(fold: int, row: Mapping[str, Any]) -> None:
        if on_epoch is not None:
            on_epoch({"fold": fold, **row})

    results, predictions, fold_of = [], {}, {}
    of_folds = [
        Training(file.output, one, f"fold {one.fold} of 0 to {params.folds - 1}", partial(told, one.fold))
        for file, one in zip(files, of_fold, strict=True)
    ]
    for one, result in zip(of_fold, trained(of_folds), strict=True):
        held_out = [given.index(name) for name in result.card.training["validation_names"]]
        for i, prediction in zip(held_out, _labels_of(result, [images[i] for i in held_out], runtime), strict=True):
            predictions[i], fold_of[i] = prediction, one.fold
        results.append(result)
    card, scored = results[0].card, sorted(predictions)
    evaluation = evaluate_labels(
        [np.asarray(labels[i], np.uint8) for i in scored],
        [predictions[i] for i in scored],
        [given[i] for i in scored],
        card.class_names,
        card.class_colors,
        card.pixel_size_nm,
    )
    note = "each slice is scored by the network that was not trained on it, but whose best epoch it helped to choose"
    as_json, as_csv = (output.with_name(f"{output.stem}.crossval.{kind}") for kind in ("json", "csv"))
    of_scored, noted = [fold_of[i] for i in scored], replace(evaluation, notes=[note])
    found = CrossValidation(numbers, results, of_scored, noted, as_json, as_csv)
    found.write()
    if final:
        best = max(1, round(float(np.median([result.best_epoch for result in results]))))
        epochs = params.epochs if params.schedule == "cosine" else best
        no_validation = {"folds": 1, "fold": 0, "patience": 0, "monitor": "dice", "sweep_threshold": False}
        what = f"the final network, on all slices for {epochs} epochs"
        on_all = Training(output, params.changed(**no_validation, epochs=epochs), what, partial(told, -1))
        found = replace(found, final=_with_scores(next(trained([on_all])), found))
    return found


def _with_scores(final: TrainResult, found: CrossValidation) -> TrainResult:
    """Put scores and threshold of the folds on the card of the network that was trained on all slices.

    The threshold is the median of those of the folds.
    """
    from tomoseg.segmentation.networks.keras_setup import keras
    from tomoseg.segmentation.networks.model_file import load_model, save_model

    dice = found.evaluation.summary()["dice"]
    by_class = {"dice": dice.mean, "dice_ci95": dice.ci95, "pooled_dice": found.evaluation.pooled()["dice"]}
    scores = {
        "folds": found.folds,
        "slices": len(found.evaluation.names),
        **{key: dict(zip(final.card.class_names, plain(values), strict=True)) for key, values in by_class.items()},
    }
    threshold = float(np.median([result.card.threshold for result in found.results]))
    card = replace(final.card, scores=final.card.scores | {"cross_validated": scores}, threshold=threshold)
    keras.utils.clear_session()
    save_model(load_model(final.model)[0], final.model, card)
    return replace(final, card=card)


def _problems_with_folds(
    names: Sequence[str], params: TrainParameters, numbers: Sequence[int], group_of: Callable[[str], str] | None
) -> list[str]:
    """List the folds that do not exist, or leave nothing to train or to validate on."""
    n = params.folds
    if params.validation_fraction:
        told = f"validation_fraction is {params.validation_fraction:g}, for one network"
        return [f"{told}: cross-validation takes the parts of `folds`, so set it to 0"]
    if n < 2:
        return [f"folds is {n}: cross-validation needs 2 or more"]
    if beyond := [str(fold) for fold in numbers if not 0 <= fold < n]:
        return [f"there is no fold {', '.join(beyond)}: with {n} folds they are 0 to {n - 1}"]
    empty = [str(fold) for fold in numbers if not split(names, n, fold, params.reach, group_of).validation]
    told = f"of {len(names)} slices, fold {', '.join(empty)} of {n} leaves none to train or to validate on"
    return [f"{told}: use fewer folds"] if empty else []


def _labels_of(result: TrainResult, images: Sequence[Array], runtime: Runtime) -> list[NDArray[np.uint8]]:
    """Return the labels that a trained network gives to images."""
    from tomoseg.segmentation.networks.keras_setup import keras
    from tomoseg.segmentation.networks.model_file import load_model

    keras.utils.clear_session()  # of the network that was trained
    model, card = load_model(result.model)
    predicted = predictor_of(model, card, runtime.check)
    return [labels_of(predicted(image), card.threshold) for image in runtime.track(images, "score")]
