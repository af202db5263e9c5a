"""Commands around labelled slices: `check-data`."""

import json
from typing import Annotated, Any

import typer

from tomoseg.cli.learning import ImagesDir, LabelMapText, LabelsDir, label_map_of, words
from tomoseg.cli.options import ProgressKind, make_runtime
from tomoseg.errors import InputError, printable
from tomoseg.runtime import stopping_on_signals

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
MOST_SHOWN = 20  # errors in one message; --json has all


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("check-data")(check_data)


def check_data(
    images_dir: ImagesDir,
    labels_dir: LabelsDir,
    label_map: LabelMapText = "",
    class_names: Annotated[str, typer.Option(metavar="A,B,...", help="Names in class order.")] = "",
    folds: Annotated[int, typer.Option(help="Parts that training would split the slices into.", min=1)] = 4,
    guard: Annotated[int, typer.Option(help="Neighbouring slices left out between the parts.", min=0)] = 1,
    as_json: AsJson = False,
    progress: ProgressKind = "auto",
) -> None:
    """Say what is wrong with labelled slices: files, sizes, values, rare classes, copies, leaks between folds."""
    from tomoseg.segment.data_check import check_data as look

    runtime = make_runtime("cpu", 1, "", progress)
    with stopping_on_signals():
        report = look(
            images_dir,
            labels_dir,
            label_map=label_map_of(label_map),
            class_names=words(class_names),
            folds=folds,
            guard=guard,
            runtime=runtime,
        )
    print(json.dumps(report.to_dict(), indent=1) if as_json else _data_text(report))
    if report.errors:
        more = len(report.errors) - MOST_SHOWN
        shown = report.errors[:MOST_SHOWN] + ([f"and {more} more, which --json names"] if more > 0 else [])
        raise InputError.of([printable(error) for error in shown])


def _data_text(report: Any) -> str:
    """Return the table of classes, what the slices are, and the warnings."""
    kinds = ", ".join(f"{n} of {kind}" for kind, n in [*report.sizes.items(), *report.dtypes.items()])
    width = max(len(c.name) for c in report.classes)
    lines = [
        f"{report.n_slices} labelled slices: {kinds}",
        f"{'class':<{width + 5}} {'pixels':>12} {'share':>8} slices",
    ]
    lines += [
        f"{i:>3}  {c.name:<{width}} {c.pixels:>12} {100 * c.share:>7.3g}% {c.slices:>6}"
        for i, c in enumerate(report.classes)
    ]
    lines.append(f"not annotated: {100 * report.unannotated:.3g}% of all pixels")
    lines += [f"warning: {text}" for text in report.warnings]
    lines += [] if report.errors else ["usable for training"]
    return "\n".join(map(printable, lines))
