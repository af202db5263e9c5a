"""The command `evaluate`: scores of networks on labelled slices."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tomoseg.cli.options import AsJson, computing
from tomoseg.cli.train import ImagesDir, LabelMapText, LabelPattern, LabelsDir, label_map_of
from tomoseg.errors import InputError
from tomoseg.lengths import require_size
from tomoseg.runtime import Runtime, stopping_on_signals
from tomoseg.terminal import show, show_document

JSON_FILE = "--json-file"


class Evaluate(TyperCommand):
    """Takes `--json FILE.json`, as earlier versions did, for `--json-file FILE.json`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        at = args.index("--json") if "--json" in args else -1
        if 0 <= at < len(args) - 1 and args[at + 1].endswith(".json"):
            args = [*args[:at], JSON_FILE, *args[at + 1 :]]
        return super().parse_args(ctx, args)


def add_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("evaluate", cls=Evaluate)(computing(evaluate))


def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The network: a .keras file, or a name that `tomoseg models` lists.")
    ],
    images_dir: ImagesDir,
    labels_dir: LabelsDir,
    as_json: AsJson = False,
    json_file: Annotated[Path | None, typer.Option(JSON_FILE, metavar="FILE", help="Write the JSON to a file.")] = None,
    as_csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the scores as CSV.")] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            "--plots", metavar="DIR", help="Draw scores, distances, calibration, objects, cases and errors (PNG)."
        ),
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(metavar="NM", help="Pixel size of the slices in nm.")] = None,
    label_map: LabelMapText = "",
    label_pattern: LabelPattern = "",
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Score only slices that the network was validated on.")
    ] = False,
    objects: Annotated[
        str,
        typer.Option(metavar="CLASS", help="Class whose objects are counted one by one [default: the last one]."),
    ] = "",
    min_object: Annotated[int, typer.Option(metavar="PX", help="Smallest object that counts, in px.", min=1)] = 5,
    object_iou: Annotated[
        float, typer.Option(help="Smallest intersection over union that makes an object found.", min=0, max=1)
    ] = 0.5,
    objects_csv: Annotated[
        Path | None, typer.Option("--objects-csv", metavar="FILE", help="Write every object and whether it was found.")
    ] = None,
    sizes_csv: Annotated[
        Path | None,
        typer.Option("--sizes-csv", metavar="FILE", help="Write precision and recall of the objects by size."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="MODEL", help="Compare with this network, slice by slice; repeatable."),
    ] = None,
    *,
    runtime: Runtime,
) -> None:
    """Score a network on labelled slices: pixels, surfaces, objects and calibration; compare it with others."""
    from tomoseg.io.atomic import atomic_path
    from tomoseg.io.slices import find_pairs
    from tomoseg.segmentation.evaluation import tables
    from tomoseg.segmentation.evaluation.api import evaluate as evaluate_networks
    from tomoseg.segmentation.evaluation.detection import ObjectRule
    from tomoseg.segmentation.networks.card import MIDDLE, read_card
    from tomoseg.segmentation.networks.known_models import resolve_model

    require_size("--pixel-size", pixel_size)
    rule = ObjectRule(min_object, object_iou)
    card = read_card(resolve_model(model))
    pairs = find_pairs(
        images_dir,
        labels_dir,
        runtime,
        label_map_of(label_map),
        class_names=card.class_names if card is not None else None,
        label_pattern=label_pattern,
    )
    for file in filter(None, (json_file, as_csv, objects_csv, sizes_csv)):
        if not file.absolute().parent.is_dir():
            raise InputError(f"The folder of {file} does not exist.")
    with stopping_on_signals():
        found = evaluate_networks(
            [model, *(against or [])],
            pairs,
            held_out=held_out,
            pixel_size_nm=pixel_size,
            objects=objects,
            object_rule=rule,
            plots=plots,
            runtime=runtime,
        )
    first = found.first
    if as_csv is not None:
        with atomic_path(as_csv) as part:
            first.write_csv(part)
    if first.detection is not None and objects_csv is not None:
        with atomic_path(objects_csv) as part:
            first.detection.write_csv(part)
    if first.detection is not None and sizes_csv is not None:
        with atomic_path(sizes_csv) as part:
            first.detection.write_sizes_csv(part)
    if json_file is not None:
        with atomic_path(json_file) as part:
            part.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    if as_json:
        show_document(json.dumps(found.to_dict(), indent=1))
        return
    show(*tables.scores_table(first).split("\n"))
    if card is not None and card.threshold != MIDDLE:
        show(f"pixels are {card.class_names[1]} from a probability of {card.threshold:g} on, as in its training")
    if first.calibration is not None:
        show(tables.calibration_line(first.calibration, first.classes))
    if first.detection is not None:
        show(tables.detection_line(first.detection))
        show(*tables.sizes_table(first.detection).split("\n"))
    if found.comparison is not None:
        show("", *tables.comparison_table(found.comparison).split("\n"))
