"""The command `evaluate`: how good a network is, by labelled slices."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tomoseg.cli.options import Device, MaxMemory, ProgressKind, StopBefore, Workers, runtime_of
from tomoseg.cli.train import ImagesDir, LabelMapText, LabelsDir, label_map_of
from tomoseg.errors import InputError
from tomoseg.runtime import stopping_on_signals


def add_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("evaluate")(evaluate)


def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The network: a .keras file, or a name that `tomoseg models` lists.")
    ],
    images_dir: ImagesDir,
    labels_dir: LabelsDir,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the scores as JSON.")] = None,
    as_csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the scores as CSV.")] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            "--plots", metavar="DIR", help="Draw scores, distances, calibration, objects, cases, errors (PNG)."
        ),
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(metavar="NM", help="Pixel size of the slices in nm.")] = None,
    label_map: LabelMapText = "",
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only slices that the network was validated on, not trained on.")
    ] = False,
    objects: Annotated[
        str,
        typer.Option(metavar="CLASS", help="Class whose objects are looked for one by one [default: the last one]."),
    ] = "",
    min_object: Annotated[int, typer.Option(metavar="PX", help="Smaller objects are left out.", min=1)] = 5,
    object_iou: Annotated[
        float, typer.Option(help="Intersection over union from which on an object is found.", min=0, max=1)
    ] = 0.5,
    objects_csv: Annotated[
        Path | None, typer.Option("--objects-csv", metavar="FILE", help="Write every object and what became of it.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="MODEL", help="Compare with this network, image by image; repeatable."),
    ] = None,
    device: Device = "auto",
    workers: Workers = 0,
    max_memory: MaxMemory = "",
    progress: ProgressKind = "auto",
    stop_before: StopBefore = "",
) -> None:
    """Compare a network's labels with true ones: by pixels, surfaces and objects; and how sure it is of itself."""
    from tomoseg.io.slices import find_pairs
    from tomoseg.segmentation.evaluation.comparison import common_names, compare, require_same_classes
    from tomoseg.segmentation.evaluation.detection import ObjectRule
    from tomoseg.segmentation.evaluation.plots import Cases, plot_comparison, plot_errors, plot_evaluation
    from tomoseg.segmentation.evaluation.scores import evaluate_model
    from tomoseg.segmentation.networks.card import read_card
    from tomoseg.segmentation.networks.known_models import resolve_model

    models = _named([resolve_model(path) for path in (model, *(against or []))])
    runtime = runtime_of(device, workers, max_memory, progress, stop_before)
    rule = ObjectRule(min_object, object_iou)
    cards = {name: read_card(path) for name, path in models.items()}
    pairs = find_pairs(images_dir, labels_dir, runtime, label_map_of(label_map))
    chosen = {name: _held_out(path, pairs, cards[name]) if held_out else pairs for name, path in models.items()}
    common_names([[pair.name for pair in each] for each in chosen.values()])
    require_same_classes({name: card.class_names for name, card in cards.items() if card is not None})
    for file in filter(None, (as_json, as_csv, objects_csv)):
        if not file.absolute().parent.is_dir():
            raise InputError(f"The folder of {file} does not exist.")
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
    main = next(iter(models))
    card, cases = cards[main], Cases()

    def draw(image: Any) -> None:
        if plots is not None:
            cases.add(image)
        if plots is not None and card is not None:
            plot_errors(image, card.class_names, card.class_colors, plots / f"errors_{image.name}.png")

    with stopping_on_signals():
        evaluations = {
            name: evaluate_model(
                path,
                chosen[name],
                runtime=runtime,
                pixel_size_nm=pixel_size,
                objects=objects,
                object_rule=rule,
                on_image=draw if name == main else None,
            )
            for name, path in models.items()
        }
        evaluation = evaluations[main]
        comparison = compare(evaluations) if against else None
    if as_json is not None:
        as_json.write_text(json.dumps(_as_dict(evaluations, comparison), indent=1) + "\n", encoding="utf-8")
    if as_csv is not None:
        evaluation.write_csv(as_csv)
    if objects_csv is not None and evaluation.detection is not None:
        evaluation.detection.write_csv(objects_csv)
    if plots is not None:
        plot_evaluation(evaluation, plots)
        cases.plot(evaluation, chosen[main], plots / "cases.png")
        if comparison is not None:
            plot_comparison(comparison, plots / "comparison.png")
    print(_table(evaluation))
    print(_calibration_line(evaluation))
    print(_detection_line(evaluation.detection))
    if comparison is not None:
        print(f"\n{_comparison_table(comparison)}")


def _named(paths: list[Path]) -> dict[str, Path]:
    """Return the files by the shortest names that tell them apart."""
    if len(set(paths)) < len(paths):
        raise InputError("--against names a network twice: compare different ones.")
    stems = [path.stem for path in paths]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in paths}


def _held_out(model: Path, pairs: list[Any], card: Any) -> list[Any]:
    """Return the slices that the network was validated on."""
    from tomoseg.segmentation.evaluation.scores import validation_pairs

    held_out = validation_pairs(pairs, card) if card is not None else []
    if not held_out:
        raise InputError(f"--held-out: {model} does not name any of these slices as those it was validated on.")
    return held_out


def _as_dict(evaluations: dict[str, Any], comparison: Any) -> dict[str, Any]:
    """Return the scores of the first network; with others, also theirs and how they compare."""
    first, *others = evaluations
    result: dict[str, Any] = evaluations[first].to_dict()
    if comparison is not None:
        result["against"] = {name: evaluations[name].to_dict() for name in others}
        result["comparison"] = comparison.to_dict()
    return result


def _table(evaluation: Any) -> str:
    """Return mean and 95 % confidence interval of each metric, one class a line."""
    summary = evaluation.summary()
    width = max(len(name) for name in evaluation.classes)
    lines = [f"{'class':<{width}}  " + "".join(f"{metric:<19}" for metric in summary) + "images"]
    for c, name in enumerate(evaluation.classes):
        cells = "".join(f"{s.mean[c]:.4f} ± {s.ci95[c]:.4f}    " for s in summary.values())
        lines.append(f"{name:<{width}}  {cells}{int(summary['dice'].n[c])}")
    return "\n".join(lines)


def _calibration_line(evaluation: Any) -> str:
    """Return how far the network's confidence can be believed, and that of the pixels predicted as each class."""
    facts = evaluation.calibration.to_dict()
    if facts["ece"] is None:
        return "calibration: no pixel has both a label and probabilities"
    lean = "too sure" if facts["overconfidence"] > 0 else "too unsure"
    each = zip(evaluation.classes, facts["per_class"]["ece"], strict=True)
    classes = ", ".join(f"{name} {error:.4f}" for name, error in each if error is not None)
    return (
        f"calibration: expected error {facts['ece']:.4f} ({classes}), {lean} by {abs(facts['overconfidence']):.4f}, "
        f"Brier score {facts['brier']:.4f}"
    )


def _detection_line(detection: Any) -> str:
    """Return how many objects were found."""
    facts = detection.scores()
    scores = ", ".join(f"{name} {facts[name.lower()]:.4f}" for name in ("precision", "recall", "F1"))
    return (
        f"objects of class {detection.class_name} from {detection.rule.min_size} px (IoU >= {detection.rule.iou:g}): "
        f"{facts['found']} of {facts['true']} found, {facts['missed']} missed ({facts['untouched']} without any "
        f"overlap), {facts['invented']} invented, {facts['split']} split, {facts['merged']} merged; {scores}"
    )


def _comparison_table(comparison: Any) -> str:
    """Return the mean Dice of each network and its difference from the first, one class a line."""
    models, classes = list(comparison.means), comparison.classes
    width, depth = max(len(name) for name in (*models, "network")), max(len(name) for name in (*classes, "class"))
    lines = [
        f"Dice on the {len(comparison.names)} images that all have in common, in {comparison.n_groups} groups of "
        f"neighbouring slices; differences from {comparison.baseline}, * where both intervals leave out 0",
        f"{'network':<{width}}  {'class':<{depth}}  mean    difference  95 % by groups       95 % by images  images",
    ]
    for model in models:
        for c, name in enumerate(classes):
            start = f"{model:<{width}}  {name:<{depth}}  {comparison.means[model]['dice'][c]:.4f}"
            if model != comparison.baseline:
                d = comparison.differences[model]["dice"]
                sure = "*" if d.is_sure()[c] else " "
                ends = f"{d.low[c]:+.4f} to {d.high[c]:+.4f}"
                start += f"  {d.mean[c]:+.4f} {sure}   {ends:<19}  ± {d.ci95[c]:.4f}        {int(d.n[c])}"
            lines.append(start)
    return "\n".join([*lines, *filter(None, [comparison.note()])])
