"""Cross-validation: every labelled slice is scored by a network that did not see it.

One network is trained for each fold of the slices, as `tomoseg.segmentation.training.train.train` does with one, and
labels the slices that it was validated on. Scores over all of these say more than those of one fold, whose slices may
be easier or harder than others.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from tomoseg.segmentation.evaluation.scores import METRICS, Evaluation, evaluate_labels, scores
from tomoseg.segmentation.numbers import plain
from tomoseg.segmentation.training.checkpoints import TrainFiles
from tomoseg.segmentation.training.parameters import TrainSettings
from tomoseg.segmentation.training.patches import TrainData
from tomoseg.segmentation.training.train import TrainResult, predictor_of, train


@dataclass(frozen=True)
class CrossValidation:
    """What a cross-validation left behind.

    Attributes
    ----------
    folds : the numbers of the folds
    results : the training of each of them
    fold_of : the fold of each slice that was scored, in the order of `evaluation.names`
    evaluation : of the labels that each slice got from the network that did not see it
    final : the network trained on all slices, if one was asked for
    """

    folds: list[int]
    results: list[TrainResult]
    fold_of: list[int]
    evaluation: Evaluation
    scores_json: Path
    scores_csv: Path
    final: TrainResult | None = None

    def table(self) -> str:
        """Return mean over slices and 95 % confidence interval of each metric, and the Dice of each fold's pixels."""
        summary, by_fold = self.evaluation.summary(), self._dice_of_folds()
        width = max(len(name) for name in self.evaluation.classes)
        folds = "".join(f"fold {fold:<5}" for fold in self.folds)
        lines = [f"{'class':<{width}}  " + "".join(f"{metric:<19}" for metric in METRICS) + f"slices  {folds}".rstrip()]
        for c, name in enumerate(self.evaluation.classes):
            cells = "".join(f"{summary[m].mean[c]:.4f} ± {summary[m].ci95[c]:.4f}    " for m in METRICS)
            each = "".join(f"{dice:<10.4f}" for dice in by_fold[:, c])
            lines.append(f"{name:<{width}}  {cells}{summary['dice'].n[c]:<8d}{each}".rstrip())
        return "\n".join(lines)

    def _dice_of_folds(self) -> NDArray[np.float64]:
        """Return the Dice of all pixels of each fold, (folds, C)."""
        of = np.array(self.fold_of)
        matrices = [self.evaluation.matrices[of == fold].sum(axis=0) for fold in self.folds]
        return scores(np.stack(matrices))["dice"]

    def write(self) -> None:
        """Write the scores as JSON and CSV."""
        dice = self._dice_of_folds()
        folds = [
            {
                "fold": fold,
                "model": result.model.name,
                "best_epoch": result.best_epoch,
                "dice": [None if np.isnan(d) else float(d) for d in row],
            }
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
    settings: TrainSettings | None = None,
    folds: Sequence[int] | None = None,
    final: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    group_of: Callable[[str], str] | None = None,
    runtime: Runtime | None = None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
    **known: Any,
) -> CrossValidation:
    """Train a network for each fold and score all slices.

    Parameters
    ----------
    output : the networks are named after it, see `fold_path`, and the scores, `net.crossval.json` and `.csv`
    settings : `fold` does not count
    folds : those to train a network for; all unless given
    final : also train a network on all slices, to `output`, whose card holds the scores of the folds. It is trained for
        as many epochs as it took, by the median over folds, to get to the best one; with schedule 'cosine', where the
        last ones count as those of the lowest rate, for as many as the folds
    resume : go on where it was; folds that are finished are not trained again
    on_epoch : see `tomoseg.segmentation.training.train.train`; the row also has 'fold', which is -1 for the final
    network known : further arguments of `tomoseg.segmentation.training.train.train`, such as `class_names` and
    `pixel_size_nm`

    Raises
    ------
    InputError
        As `tomoseg.segmentation.training.train.train`, and where a fold has no slices to validate on, before anything
        is computed.
    StageFailed, Interrupted
        As `tomoseg.segmentation.training.train.train`.
    """
    settings, runtime = settings or TrainSettings(), runtime or Runtime()
    given = [f"{i:04d}" for i in range(len(images))] if names is None else list(names)
    images = images if names is None else with_named_neighbours(names, images, settings.channels)
    numbers = sorted(set(range(settings.folds) if folds is None else folds))
    of_fold = [replace(settings, fold=fold) for fold in numbers]
    on_all = replace(settings, folds=1, fold=0, patience=0, monitor="dice")
    files = [TrainFiles(fold_path(output, fold)) for fold in numbers]
    problems = settings.problems() + _problems_with_folds(given, settings.folds, of_fold, group_of)
    if final and settings.schedule == "plateau":
        problems.append("schedule is plateau: the final network has no validation to go by; choose another")
    if problems:
        raise InputError.of(problems)
    for how in of_fold:
        TrainData.checked(images, labels, given, known.get("class_names"), known.get("class_colors"), how, group_of)
    for file in [*files, TrainFiles(output)] if final else files:
        file.require_free(resume=resume, overwrite=overwrite)

    def trained(where: Path, how: TrainSettings, fold: int) -> TrainResult:
        return train(
            images,
            labels,
            where,
            names=given,
            settings=how,
            resume=resume,
            overwrite=overwrite,
            group_of=group_of,
            runtime=runtime,
            on_epoch=None if on_epoch is None else lambda row: on_epoch({"fold": fold, **row}),
            **known,
        )

    results, predictions, fold_of = [], {}, {}
    for file, how in zip(files, of_fold, strict=True):
        fold = how.fold
        runtime.say(f"fold {fold} of 0 to {settings.folds - 1}")
        result = trained(file.output, how, fold)
        held_out = [given.index(name) for name in result.card.training["validation_names"]]
        for i, prediction in zip(held_out, _labels_of(result, [images[i] for i in held_out], runtime), strict=True):
            predictions[i], fold_of[i] = prediction, fold
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
    evaluation = replace(evaluation, notes=[note])
    found = CrossValidation(
        numbers,
        results,
        [fold_of[i] for i in scored],
        evaluation,
        output.with_name(output.stem + ".crossval.json"),
        output.with_name(output.stem + ".crossval.csv"),
    )
    found.write()
    if final:
        best = max(1, round(float(np.median([result.best_epoch for result in results]))))
        epochs = settings.epochs if settings.schedule == "cosine" else best
        runtime.say(f"the final network, on all slices for {epochs} epochs")
        found = replace(found, final=_scored(trained(output, replace(on_all, epochs=epochs), -1), found))
    return found


def _scored(final: TrainResult, found: CrossValidation) -> TrainResult:
    """Put the scores of the folds on the card of the network that was trained on all slices."""
    from tomoseg.segmentation.networks.keras_setup import keras
    from tomoseg.segmentation.networks.model_file import load_model, save_model

    dice = found.evaluation.summary()["dice"]
    scores = {
        "folds": found.folds,
        "slices": len(found.evaluation.names),
        "dice": dict(zip(final.card.class_names, plain(dice.mean), strict=True)),
        "dice_ci95": dict(zip(final.card.class_names, plain(dice.ci95), strict=True)),
        "pooled_dice": dict(zip(final.card.class_names, plain(found.evaluation.pooled()["dice"]), strict=True)),
    }
    card = replace(final.card, scores=final.card.scores | {"cross_validated": scores})
    keras.utils.clear_session()
    save_model(load_model(final.model)[0], final.model, card)
    return replace(final, card=card)


def _problems_with_folds(
    names: Sequence[str], n_folds: int, of_fold: Sequence[TrainSettings], group_of: Callable[[str], str] | None
) -> list[str]:
    """Say which folds would leave nothing to train or to validate on."""
    if n_folds < 2:
        return [f"folds is {n_folds}: cross-validation needs 2 or more"]
    beyond = [str(s.fold) for s in of_fold if not 0 <= s.fold < n_folds]
    if beyond:
        return [f"there is no fold {', '.join(beyond)}: with {n_folds} folds they are 0 to {n_folds - 1}"]
    empty = [s.fold for s in of_fold if not split(names, s.folds, s.fold, s.reach(), group_of).validation]
    if not empty:
        return []
    which = ", ".join(map(str, empty))
    return [f"of {len(names)} slices, fold {which} of {n_folds} leaves none to train or to validate on: ask for fewer"]


def _labels_of(result: TrainResult, images: Sequence[Array], runtime: Runtime) -> list[NDArray[np.uint8]]:
    """Return the labels that the network of a training gives to images."""
    from tomoseg.segmentation.networks.keras_setup import keras
    from tomoseg.segmentation.networks.model_file import load_model

    keras.utils.clear_session()  # of the network that was trained
    model, card = load_model(result.model)
    predicted = predictor_of(model, card, runtime.check)
    return [predicted(image).argmax(axis=0).astype(np.uint8) for image in runtime.track(images, "score")]
