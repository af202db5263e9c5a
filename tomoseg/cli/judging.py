"""The command `evaluate`: how good a network is, by labelled slices."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tomoseg.cli.learning import ImagesDir, LabelMapText, LabelsDir, label_map_of
from tomoseg.cli.options import Device, MaxMemory, ProgressKind, StopBefore, Workers, make_runtime
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
        Path | None, typer.Option("--plots", metavar="DIR", help="Draw scores, Hausdorff distances, error maps (PNG).")
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
    device: Device = "auto",
    workers: Workers = 0,
    max_memory: MaxMemory = "",
    progress: ProgressKind = "auto",
    stop_before: StopBefore = "",
) -> None:
    """Compare a network's labels with true ones: by pixels, surfaces and objects; and how sure it is of itself."""
    from tomoseg.io.slices import find_pairs
    from tomoseg.segment.card import read_card
    from tomoseg.segment.detection import ObjectRule
    from tomoseg.segment.evaluation import evaluate_model, validation_pairs
    from tomoseg.segment.known_models import resolve_model
    from tomoseg.segment.plots import plot_calibration, plot_detection, plot_errors, plot_hausdorff, plot_scores

    model = resolve_model(model)
    runtime = make_runtime(device, workers, max_memory, progress, stop_before)
    rule = ObjectRule(min_object, object_iou)
    card = read_card(model)
    pairs = find_pairs(images_dir, labels_dir, runtime, label_map_of(label_map))
    if held_out:
        pairs = validation_pairs(pairs, card) if card is not None else []
        if not pairs:
            raise InputError(f"--held-out: {model} does not name any of these slices as those it was validated on.")
    for file in filter(None, (as_json, as_csv, objects_csv)):
        if not file.absolute().parent.is_dir():
            raise InputError(f"The folder of {file} does not exist.")
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)

    def draw(image: Any) -> None:
        if plots is not None and card is not None:
            plot_errors(image, card.class_names, card.class_colors, plots / f"errors_{image.name}.png")

    with stopping_on_signals():
        evaluation = evaluate_model(
            model,
            pairs,
            runtime=runtime,
            pixel_size_nm=pixel_size,
            objects=objects,
            object_rule=rule,
            on_image=draw,
        )
    if as_json is not None:
        evaluation.write_json(as_json)
    if as_csv is not None:
        evaluation.write_csv(as_csv)
    if objects_csv is not None and evaluation.detection is not None:
        evaluation.detection.write_csv(objects_csv)
    if plots is not None:
        plot_scores(evaluation, plots / "scores.png")
        plot_hausdorff(evaluation, plots / "hausdorff.png")
        plot_calibration(evaluation, plots / "calibration.png")
        plot_detection(evaluation, plots / "objects.png")
    print(_table(evaluation))
    print(_calibration_line(evaluation.calibration))
    print(_detection_line(evaluation.detection))


def _table(evaluation: Any) -> str:
    """Return mean and 95 % confidence interval of each metric, one class a line."""
    summary = evaluation.summary()
    width = max(len(name) for name in evaluation.classes)
    lines = [f"{'class':<{width}}  " + "".join(f"{metric:<19}" for metric in summary) + "images"]
    for c, name in enumerate(evaluation.classes):
        cells = "".join(f"{s.mean[c]:.4f} ± {s.ci95[c]:.4f}    " for s in summary.values())
        lines.append(f"{name:<{width}}  {cells}{int(summary['dice'].n[c])}")
    return "\n".join(lines)


def _calibration_line(calibration: Any) -> str:
    """Return how far the network's confidence can be believed."""
    facts = calibration.to_dict()
    if facts["ece"] is None:
        return "calibration: no pixel has both a label and probabilities"
    lean = "too sure" if facts["overconfidence"] > 0 else "too unsure"
    return (
        f"calibration: expected error {facts['ece']:.4f} ({lean} by {abs(facts['overconfidence']):.4f}), "
        f"Brier score {facts['brier']:.4f}"
    )


def _detection_line(detection: Any) -> str:
    """Return how many objects were found."""
    facts = detection.scores()
    scores = ", ".join(f"{key} {facts[key]:.4f}" for key in ("precision", "recall", "f1"))
    return (
        f"objects of class {detection.class_name} from {detection.rule.min_size} px (IoU >= {detection.rule.iou:g}): "
        f"{facts['found']} of {facts['true']} found, {facts['missed']} missed ({facts['untouched']} without any "
        f"overlap), {facts['invented']} invented, {facts['split']} split, {facts['merged']} merged; {scores}"
    )
