"""The commands `check-data`, `annotate` and `models`, around labelled slices and networks."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tomoseg.cli.options import AsJson, BreakLock, ProgressKind, ProjectFile, runtime_of
from tomoseg.cli.train import ImagesDir, LabelMapText, LabelPattern, LabelsDir, label_map_of, words
from tomoseg.errors import InputError
from tomoseg.project import Project
from tomoseg.runtime import stopping_on_signals
from tomoseg.terminal import show, show_document

SliceCount = Annotated[int, typer.Option(help="Number of slices.", min=1)]
Plane = Annotated[Literal["xz", "xy", "yz"], typer.Option(help="Plane of the slices, as for `segment`.")]
ClassNames = Annotated[
    str, typer.Option(metavar="A,B,...", help="In class order [default: those of the project's labels].")
]
MOST_SHOWN = 20  # errors in one message; --json has all


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("check-data")(check_data)
    app.command("models")(models)
    annotate = typer.Typer(
        help="Paint labels on slices of a project, here or in another program, to train on.", no_args_is_help=True
    )
    annotate.command("paint")(annotate_paint)
    annotate.command("export")(annotate_export)
    annotate.command("import")(annotate_import)
    app.add_typer(annotate, name="annotate")


def check_data(
    images_dir: ImagesDir,
    labels_dir: LabelsDir,
    label_map: LabelMapText = "",
    label_pattern: LabelPattern = "",
    class_names: Annotated[
        str,
        typer.Option(metavar="A,B,...", help="Names in class order; where each class has masks, after those."),
    ] = "",
    folds: Annotated[int, typer.Option(help="Parts that the slices would be split into for training.", min=1)] = 4,
    guard: Annotated[int, typer.Option(help="Neighbouring slices left out between the parts.", min=0)] = 1,
    as_json: AsJson = False,
    progress: ProgressKind = "auto",
) -> None:
    """Check labelled slices for training: files, sizes, values, rare classes, copies, leaks between folds."""
    from tomoseg.segmentation.data.check import check_data as look

    runtime = runtime_of("cpu", 1, "", progress)
    with stopping_on_signals():
        report = look(
            images_dir,
            labels_dir,
            label_map=label_map_of(label_map),
            label_pattern=label_pattern,
            class_names=words(class_names),
            folds=folds,
            guard=guard,
            runtime=runtime,
        )
    if as_json:
        show_document(json.dumps(report.to_dict(), indent=1))
    else:
        show(*_data_lines(report))
    if report.errors:
        more = len(report.errors) - MOST_SHOWN
        shown = report.errors[:MOST_SHOWN] + ([f"and {more} more; --json lists all"] if more > 0 else [])
        raise InputError.of(shown)


def _data_lines(report: Any) -> list[str]:
    """Return sizes and types of the slices, the table of classes, and the warnings."""
    kinds = ", ".join(f"{n} of {kind}" for kind, n in [*report.sizes.items(), *report.dtypes.items()])
    lines, width = (
        [f"{report.n_slices} labelled slices: {kinds}"],
        max((len(c.name) for c in report.classes), default=0),
    )
    lines += [f"{'class':<{width + 5}} {'pixels':>12} {'share':>8} slices"] * bool(report.classes)
    lines += [
        f"{i:>3}  {c.name:<{width}} {c.pixels:>12} {100 * c.share:>7.3g}% {c.slices:>6}"
        for i, c in enumerate(report.classes)
    ]
    lines.append(f"not annotated: {100 * report.unannotated:.3g}% of all pixels")
    lines += [f"warning: {text}" for text in report.warnings]
    return lines + ([] if report.errors else ["usable for training"])


def annotate_paint(
    project: ProjectFile,
    slices: SliceCount = 3,
    plane: Plane = "xz",
    class_names: ClassNames = "",
    progress: ProgressKind = "auto",
    break_lock: BreakLock = False,
) -> None:
    """Paint on the slices most worth it in napari, from the project's labels on; what you changed is imported.

    Until then it lies in a folder beside the project, where a painting that was cut short goes on.
    """
    import shutil

    from tomoseg.annotation.exchange import export_slices
    from tomoseg.annotation.painting import Painting, folder_for
    from tomoseg.report.review_viewer import open_painting
    from tomoseg.report.viewer import require_napari

    runtime, folder, names = runtime_of("cpu", 1, "", progress), folder_for(project), words(class_names)
    require_napari()
    with stopping_on_signals():
        if folder.exists():
            runtime.say(f"going on with the slices in {folder}")
        else:
            with Project.read(project) as opened:
                export_slices(opened, folder, runtime, n_slices=slices, plane=plane, class_names=names, prefill=None)
        painting = Painting(folder)
        open_painting(painting, painting.class_names, painting.class_colors)
    if painting.any_painted():
        annotate_import(project, folder, progress=progress, break_lock=break_lock)
    else:
        show(f"nothing was painted: {project} is unchanged")
    shutil.rmtree(folder)


def annotate_export(
    project: ProjectFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="A new folder to write to.")],
    slices: SliceCount = 6,
    plane: Plane = "xz",
    class_names: ClassNames = "",
    prefill: Annotated[bool, typer.Option("--prefill", help="Start from the project's labels.")] = False,
    progress: ProgressKind = "auto",
) -> None:
    """Write the slices most worth painting as TIFF, each with a label file to paint on (255 = not painted)."""
    from tomoseg.annotation.exchange import export_slices

    runtime = runtime_of("cpu", 1, "", progress)
    names = words(class_names)
    with stopping_on_signals(), Project.read(project) as opened:
        written = export_slices(
            opened, output, runtime, n_slices=slices, plane=plane, class_names=names, prefill=prefill
        )
    classes = ", ".join(f"{i} = {name}" for i, name in enumerate(written.class_names))
    show(f"paint on {output / 'labels'}: {classes}", f"then: tomoseg annotate import {project} {output}")


def annotate_import(
    project: ProjectFile,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder from `annotate export`, with painted labels.")
    ],
    label_map: LabelMapText = "",
    label_pattern: LabelPattern = "",
    replace: Annotated[bool, typer.Option("--replace", help="Drop the painted slices that the project holds.")] = False,
    take_unchanged: Annotated[
        bool, typer.Option("--take-unchanged", help="Also import prefilled labels that nobody changed.")
    ] = False,
    progress: ProgressKind = "auto",
    break_lock: BreakLock = False,
) -> None:
    """Import painted labels into the project, to train on: `tomoseg train PROJECT -o MODEL.keras`."""
    from tomoseg.annotation.exchange import import_slices

    runtime = runtime_of("cpu", 1, "", progress)
    with (
        stopping_on_signals(lambda: f"{project} is unchanged; start the same command again."),
        Project.write(project, runtime.progress.message, break_lock=break_lock) as opened,
    ):
        held = import_slices(
            opened,
            folder,
            runtime,
            label_map=label_map_of(label_map),
            label_pattern=label_pattern,
            replace=replace,
            take_unchanged=take_unchanged,
        )
    for number, labels in zip(held.numbers, held.labels, strict=True):
        show(f"{held.plane} slice {number}: {100 * float((labels != 255).mean()):.3g}% painted")
    show(f"then: tomoseg train {project} -o MODEL.keras")


def models(as_json: AsJson = False) -> None:
    """List the networks known by name: your own, and those that ship with tomoseg."""
    from tomoseg.segmentation.networks.known_models import known_models, user_folder

    found = known_models()
    if as_json:
        content = {"folder": str(user_folder()), "models": [m.to_dict() for m in found]}
        show_document(json.dumps(content, indent=1))
        return
    lines = [line for m in found for line in _model_lines(m)] or ["no networks are known by name"]
    show(*lines, f"put your own (.keras, from `tomoseg train`) into {user_folder()}")


def _model_lines(model: Any) -> list[str]:
    """Return name, origin, classes, scores and file of a network."""
    where = "ships with tomoseg" if model.ships else "your own"
    lines = [f"{model.name}  ({where}{', hidden by your own of that name' if model.hidden else ''})"]
    if model.card is None:
        return [*lines, f"    cannot be used: {model.problem}"]
    card = model.card
    size = "unknown" if card.pixel_size_nm is None else f"{card.pixel_size_nm:.4g} nm"
    together = card.scores.get("cross_validated")
    of = together.get("pooled_dice") if isinstance(together, dict) else None
    dice = {
        name: of.get(name) if isinstance(of, dict) else card.scores.get(f"val_dice_{name}") for name in card.class_names
    }
    scored = ", ".join(f"{name} {value:.3f}" for name, value in dice.items() if isinstance(value, int | float))
    if isinstance(of, dict):
        scored += " (cross-validated; it was trained on all slices)"
    return [
        *lines,
        f"    classes     {', '.join(card.class_names)}",
        f"    pixel size  {size}",
        f"    Dice        {scored or 'not validated'}",
        f"    file        {model.path}",
    ]
