"""The command `train`, and what commands for labelled slices share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tomoseg import config
from tomoseg.cli.options import computing, with_options
from tomoseg.errors import InputError
from tomoseg.io.slices import LabelledSlices
from tomoseg.lengths import require_size
from tomoseg.runtime import Runtime, stopping_on_signals
from tomoseg.segmentation.training.parameters import TAKEN_OVER, TrainParameters, preset
from tomoseg.terminal import show

ImagesDir = Annotated[
    Path, typer.Argument(metavar="IMAGES_DIR", help="Folder of slices or TIFF stacks, or one stack (PNG, TIFF).")
]
LabelsDir = Annotated[
    Path,
    typer.Argument(
        metavar="LABELS_DIR",
        help="Folder of label images of the same names; the same folder where names tell labels (x_mask.tif for "
        "x.tif); or one stack.",
    ),
]
LabelPattern = Annotated[
    str,
    typer.Option(
        "--label-pattern",
        metavar="TEXT",
        help="How label images are named: {name}_mask, where {name} is the name of the image without suffix.",
    ),
]
LabelMapText = Annotated[
    str,
    typer.Option(
        "--label-map",
        metavar="VALUE=CLASS,...",
        help="Meaning of the values in label images that are not class numbers: 0=0,128=1,255=2 or "
        "#000000=0,#ff0000=1; 'ignore' for pixels nobody annotated.",
    ),
]
PresetName = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="paper|small|fine",
        help="Values of the options that are not given: the published settings, shown below, those of a compact "
        "network for a CPU, or those that start from particles-on-support [default: paper; for a project fine, or "
        "small with options for another network].",
        show_default=False,
    ),
]
Recipe = Annotated[
    str,
    typer.Option(
        "--pipeline",
        metavar="FILE|NAME",
        help="A file of training parameters (section `train`), or the name of one that ships with tomoseg: "
        "kit-nanoparticles, particles-on-support. Options go before the file, and the file before the preset.",
    ),
]
WORLD_SHAPE = (128, 24, 128)  # voxels z, y, x
OF_WORLDS = "particles-on-support"  # the recipe for them
EVERY_SLICE = 2  # neighbours look alike
FINAL = -1  # the 'fold' of the network trained on all slices


def add_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    # `fold` and `augmentation` have options of their own, which say more than a value.
    app.command("train")(with_options(TrainParameters, computing(train, on_cluster=True), ("fold", "augmentation")))


def train(
    images_dir: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES_DIR|PROJECT", help="Folder of slices or stacks, or a project with painted slices."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL.keras", help="The network to write.")],
    labels_dir: Annotated[
        Path | None,
        typer.Argument(metavar="LABELS_DIR", help="Folder of label images of the same names, or as for `check-data`."),
    ] = None,
    class_names: Annotated[
        str, typer.Option(metavar="A,B,...", help="Names in class order [default: background,support,particles for 3].")
    ] = "",
    pixel_size: Annotated[float | None, typer.Option(metavar="NM", help="Pixel size of the slices in nm.")] = None,
    preset_name: PresetName = "",
    recipe: Recipe = "",
    simulated: Annotated[
        int,
        typer.Option(
            "--simulated",
            metavar="N",
            min=0,
            help="Train on N simulated worlds, which are kept in IMAGES_DIR and made there where they are missing "
            "[--pipeline: particles-on-support].",
        ),
    ] = 0,
    real: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--real",
            metavar="IMAGES_DIR LABELS_DIR",
            help="Labelled slices of real samples to train on besides the simulated worlds.",
        ),
    ] = None,
    augment: Annotated[
        str, typer.Option(metavar="NAME=VALUE,...", help="Changes to the random views, such as rotation_deg=180.")
    ] = "",
    fold: Annotated[
        str,
        typer.Option(
            metavar="N|N,N,...|all", help="Part to validate on; several, or all: one network for each, with scores."
        ),
    ] = "0",
    final: Annotated[
        bool, typer.Option("--final", help="After these parts, also train a network on all slices.")
    ] = False,
    label_map: LabelMapText = "",
    label_pattern: LabelPattern = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue after the last finished epoch.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a network that exists already.")] = False,
    *,
    options: dict[str, Any],
    runtime: Runtime,
) -> None:
    """Train a network on labelled slices; the defaults are the settings of Genc, Kovarik & Fraser (2022)."""
    from tomoseg.annotation.exchange import load_painted_slices
    from tomoseg.classes import problems_with_names
    from tomoseg.segmentation.data.neighbours import load_slices
    from tomoseg.segmentation.training.cross_validation import cross_validate
    from tomoseg.segmentation.training.several import Training, train_each

    if output.suffix != ".keras":
        raise InputError(f"-o {output}: a network is written as a .keras file.")
    require_size("--pixel-size", pixel_size)
    if real and not simulated:
        raise InputError("--real is for slices besides simulated worlds (--simulated): give these as IMAGES_DIR.")
    folds = _folds(fold)
    if simulated and not preset_name:
        recipe = recipe or OF_WORLDS
    wanted: Any = preset_name or ("paper" if labels_dir is not None or recipe else _for_project(options))
    options = _with_recipe(recipe, options | {"augmentation": _views(augment)})
    channels = preset(wanted, **options).channels  # wrong values are reported before anything is read
    if (label_map or label_pattern) and labels_dir is None:
        option = "--label-map" if label_map else "--label-pattern"
        raise InputError(f"{option} is for label images; the labels in a project are class numbers already.")
    with stopping_on_signals(lambda: "The same command with --resume continues after the last finished epoch."):
        group_of: Callable[[str], str] | None = None
        if simulated:
            slices, group_of = _worlds(images_dir, simulated, real, channels, runtime)
        elif labels_dir is None:
            slices = load_painted_slices(images_dir, channels, runtime.say)
        else:
            names = words(class_names)
            if problems := problems_with_names(names) if names else []:
                raise InputError.of(problems)
            slices = load_slices(
                images_dir,
                labels_dir,
                channels,
                label_map_of(label_map),
                runtime,
                class_names=names,
                label_pattern=label_pattern,
            )
        params = preset(wanted, max(max(image.shape[:2]) for image in slices.images), **options)
        known: dict[str, Any] = {
            "names": slices.names,
            "class_names": words(class_names) or slices.class_names,
            "class_colors": slices.class_colors,
            "pixel_size_nm": slices.pixel_size_nm if pixel_size is None else pixel_size,
            "group_of": group_of,
        }
        how: dict[str, Any] = {"resume": resume, "overwrite": force}

        def told(row: Mapping[str, Any]) -> None:
            runtime.progress.message(_epoch_line(row, params.epochs))

        if folds is not None and len(folds) == 1 and not final:
            one = Training(output, params.changed(fold=folds[0]), "", told)
            (result,) = train_each(slices.images, slices.labels, [one], known, runtime, **how)
            show(result.model, result.history_csv, result.curves_png)
            return
        found = cross_validate(
            slices.images,
            slices.labels,
            output,
            **known,
            **how,
            only_folds=folds,
            final=final,
            on_epoch=told,
            params=params,
            runtime=runtime,
        )
    results = [*found.results, *filter(None, [found.final])]
    show(*found.table().split("\n"), *(result.model for result in results), found.scores_json, found.scores_csv)


def _for_project(options: dict[str, Any]) -> str:
    """Return the preset for painted slices: 'fine', unless options ask for a network of another shape."""
    return "small" if any(name in options for name in TAKEN_OVER) else "fine"


def _worlds(
    folder: Path, n: int, real: tuple[Path, Path] | None, channels: int, runtime: Runtime
) -> tuple[LabelledSlices, Callable[[str], str]]:
    """Return slices of simulated worlds, made where they are missing, and real ones; and what tells their group."""
    from tomoseg.segmentation.data.neighbours import load_slices
    from tomoseg.worlds.library import write_worlds
    from tomoseg.worlds.slices import labelled_slices, with_real, world_of

    others = load_slices(*real, channels, None, runtime) if real else None
    slices = labelled_slices(write_worlds(folder, range(n), WORLD_SHAPE, runtime), channels, EVERY_SLICE)
    return (with_real(slices, others) if others else slices), world_of


def _with_recipe(recipe: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return options with the values of a recipe where none is given."""
    given = config.read_recipe(recipe) if recipe else {}
    if "fold" in given:
        raise InputError(f"{recipe} gives a fold, which is an option of the command instead: --fold {given['fold']}")
    views = given.get("augmentation", {})
    merged = {**views, **options["augmentation"]} if isinstance(views, dict) else views
    return given | options | {"augmentation": merged}


def _epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """Return the row of an epoch as text."""
    facts = (f"{key} {value:.4g}" for key, value in row.items() if key != "epoch" and isinstance(value, float))
    fold = row.get("fold")
    where = "" if fold is None else "final: " if fold == FINAL else f"fold {fold}: "
    of = "" if fold == FINAL else f"/{epochs}"
    return f"{where}epoch {row['epoch']}{of}: {', '.join(facts)}"


def label_map_of(text: str) -> Any:
    """Return the map that `--label-map` names; None where it is not given."""
    from tomoseg.io.label_values import LabelMap

    return LabelMap.parse(text) if text else None


def words(text: str) -> list[str] | None:
    """Return the words of a text separated by commas; None for an empty one."""
    return [word.strip() for word in text.split(",")] if text else None


def _folds(text: str) -> list[int] | None:
    """Return the numbers that `--fold` names; None for all."""
    if text == "all":
        return None
    numbers = [word.strip() for word in text.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise InputError(f"--fold {text}: give the number of a part, from 0, several separated by commas, or all.")
    return [int(number) for number in numbers]


def _views(text: str) -> dict[str, float]:
    """Return the values that '--augment rotation_deg=180,noise=0.1' names."""
    views = {}
    for item in text.split(",") if text else []:
        name, _, value = item.partition("=")
        try:
            views[name.strip()] = float(value)
        except ValueError as error:
            raise InputError(f"--augment {text}: write '{item.strip()}' as NAME=NUMBER (flip: 0 or 1).") from error
    return views
