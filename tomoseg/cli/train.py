"""The command `train`, and what commands for labelled slices share."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from tomoseg.cli.options import Device, MaxMemory, ProgressKind, StopBefore, Workers, runtime_of
from tomoseg.errors import InputError
from tomoseg.runtime import Runtime, stopping_on_signals

ImagesDir = Annotated[Path, typer.Argument(metavar="IMAGES_DIR", help="Folder of slices (PNG, TIFF).")]
LabelsDir = Annotated[Path, typer.Argument(metavar="LABELS_DIR", help="Folder of label images of the same names.")]
LabelMapText = Annotated[
    str,
    typer.Option(
        "--label-map",
        metavar="VALUE=CLASS,...",
        help="What the values of label images mean, where they are not class numbers: 0=0,128=1,255=2, or "
        "#000000=0,#ff0000=1; 'ignore' for pixels nobody annotated.",
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("train")(train)


def train(
    context: typer.Context,
    images_dir: Annotated[
        Path,
        typer.Argument(metavar="IMAGES_DIR|PROJECT", help="Folder of slices, or a project with painted slices in it."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL.keras", help="The network to write.")],
    labels_dir: Annotated[
        Path | None, typer.Argument(metavar="LABELS_DIR", help="Folder of label images of the same names.")
    ] = None,
    class_names: Annotated[
        str, typer.Option(metavar="A,B,...", help="Names in class order [default: background,support,particles for 3].")
    ] = "",
    pixel_size: Annotated[float | None, typer.Option(metavar="NM", help="Pixel size of the slices in nm.")] = None,
    preset: Annotated[
        str,
        typer.Option(
            metavar="paper|small",
            help="Where other options are not given: the published settings, shown below, or those of a compact "
            "network for a CPU [default: paper; small for a project].",
            show_default=False,
        ),
    ] = "",
    epochs: Annotated[int, typer.Option(help="Passes over the slices.", min=1)] = 100,
    batch: Annotated[int, typer.Option(help="Patches per step.", min=1)] = 2,
    patch: Annotated[int, typer.Option(help="Side of the patches in px.", min=8)] = 512,
    predict_patch: Annotated[
        int, typer.Option(help="Side in px in validation and use [default: as --patch].", min=0, show_default=False)
    ] = 0,
    patches: Annotated[
        int, typer.Option(help="Patches per epoch [default: those that cover it].", min=0, show_default=False)
    ] = 0,
    sampling: Annotated[
        float, typer.Option(help="Part of the patches that is placed around a pixel of a rare class.", min=0, max=1)
    ] = 0.0,
    augment: Annotated[
        str, typer.Option(metavar="NAME=VALUE,...", help="Changes to the random views, such as rotation_deg=180.")
    ] = "",
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 5e-4,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: constant, cosine or plateau.")] = "constant",
    patience: Annotated[int, typer.Option(help="End after so many epochs without a new best; 0 = never.", min=0)] = 0,
    monitor: Annotated[
        str, typer.Option(metavar="dice|loss|dice:CLASS", help="What of validation makes an epoch the best.")
    ] = "dice",
    validate_every: Annotated[int, typer.Option(help="Validate after every so many epochs, and the last.", min=1)] = 1,
    ema: Annotated[
        float, typer.Option(help="Keep a moving average of the weights, such as 0.999; 0 = the weights.", min=0)
    ] = 0.0,
    loss: Annotated[
        str, typer.Option(help="focal, cross-entropy, dice, tversky, iou, or a sum: focal+dice, 0.5*focal+1*dice.")
    ] = "focal",
    gamma: Annotated[float, typer.Option(help="Focusing parameter of the focal loss.", min=0)] = 1.0,
    class_weights: Annotated[
        str, typer.Option(metavar="W,W,...", help="One per class [default: 0.2,0.3,0.5 for 3, else by frequency].")
    ] = "",
    channels: Annotated[
        int, typer.Option(help="Slices it sees: the one to label in the middle, and neighbours; odd.", min=1)
    ] = 1,
    architecture: Annotated[
        str, typer.Option(help="unet, attention-unet, attention-res-unet, compact or se-resnet34-unet.")
    ] = "unet",
    depth: Annotated[int, typer.Option(help="Levels of the network.", min=1)] = 6,
    base_filters: Annotated[
        int,
        typer.Option(
            help="Channels of its first level [default: 32; compact: 16; se-resnet34-unet: 64].",
            min=0,
            show_default=False,
        ),
    ] = 0,
    encoder_weights: Annotated[
        str,
        typer.Option(
            metavar="FILE|URL",
            help="Weights that the encoder of se-resnet34-unet starts from: a file or https address, with #md5=... "
            "behind it to be sure; imagenet = the public ones.",
        ),
    ] = "",
    folds: Annotated[int, typer.Option(help="Parts the slice groups are split into; 1 = no validation.", min=1)] = 4,
    fold: Annotated[
        str,
        typer.Option(
            metavar="N|N,N,...|all", help="The part to validate on; several, or all = each in turn, with scores."
        ),
    ] = "0",
    final: Annotated[
        bool, typer.Option("--final", help="After these parts, also a network trained on all slices.")
    ] = False,
    guard: Annotated[int, typer.Option(help="Neighbouring slices left out between the parts.", min=0)] = 1,
    label_map: LabelMapText = "",
    precision: Annotated[
        str, typer.Option(help="float32, mixed (16-bit products) or auto: mixed on a GPU, float32 on a CPU.")
    ] = "float32",
    seed: Annotated[int, typer.Option(help="Of first weights and random views.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after the last finished epoch.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a network that is there already.")] = False,
    device: Device = "auto",
    workers: Workers = 0,
    max_memory: MaxMemory = "",
    progress: ProgressKind = "auto",
    stop_before: StopBefore = "",
) -> None:
    """Train a network on labelled slices; the defaults are the settings of Genc, Kovarik & Fraser (2022)."""
    from dataclasses import replace

    from tomoseg.io.slices import find_pairs, load_pairs
    from tomoseg.segmentation.training.cross_validation import cross_validate
    from tomoseg.segmentation.training.train import train as train_network

    if output.suffix != ".keras":
        raise InputError(f"-o {output}: a network is written as a .keras file.")
    parts = _parts(fold)
    if preset not in ("", "paper", "small"):
        raise InputError(f"--preset {preset}: give paper or small.")
    runtime = runtime_of(device, workers, max_memory, progress, stop_before)
    values: dict[str, Any] = {
        "epochs": epochs,
        "batch": batch,
        "patch": patch,
        "predict_patch": predict_patch,
        "patches": patches,
        "sampling": sampling,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "patience": patience,
        "monitor": monitor,
        "validate_every": validate_every,
        "ema": ema,
        "loss": loss,
        "gamma": gamma,
        "class_weights": _numbers("--class-weights", class_weights),
        "channels": channels,
        "architecture": architecture,
        "depth": depth,
        "base_filters": base_filters,
        "encoder_weights": encoder_weights,
        "folds": folds,
        "guard": guard,
        "precision": precision,
        "seed": seed,
    }
    values = {name: value for name, value in values.items() if _was_given(context, name)}
    wanted = preset or ("small" if labels_dir is None else "paper")

    def show(row: Any) -> None:
        facts = (f"{key} {value:.4g}" for key, value in row.items() if key != "epoch" and isinstance(value, float))
        where = {None: "", -1: "final: "}.get(row.get("fold"), f"fold {row.get('fold')}: ")
        of = "" if row.get("fold") == -1 else f"/{settings.epochs}"
        runtime.progress.message(f"{where}epoch {row['epoch']}{of}: {', '.join(facts)}")

    with stopping_on_signals(lambda: "The same command with --resume continues after the last finished epoch."):
        known: dict[str, Any] = {}
        if labels_dir is None:
            slices, known = _painted_slices(images_dir, label_map, runtime, channels)
        else:
            slices = load_pairs(find_pairs(images_dir, labels_dir, runtime, label_map_of(label_map)))
            slices = _among_others(slices, images_dir, channels)
        settings = _settings(wanted, max(max(image.shape[:2]) for image in slices.images), values, augment)
        given = {"class_names": words(class_names), "pixel_size_nm": pixel_size}
        options: dict[str, Any] = {
            **(known | {key: value for key, value in given.items() if value is not None}),
            "names": slices.names,
            "settings": settings,
            "resume": resume,
            "overwrite": force,
            "runtime": runtime,
            "on_epoch": show,
        }
        if final or parts is None or len(parts) > 1:
            found = cross_validate(slices.images, slices.labels, output, folds=parts, final=final, **options)
            results = [*found.results, *filter(None, [found.final])]
            print(found.table(), *(r.model for r in results), found.scores_json, found.scores_csv, sep="\n")
            return
        options["settings"] = replace(settings, fold=parts[0])
        result = train_network(slices.images, slices.labels, output, **options)
    print(result.model, result.history_csv, result.curves_png, sep="\n")


def _among_others(slices: Any, images_dir: Path, channels: int) -> Any:
    """Return labelled slices with their neighbours in the folder, labelled or not, if these are wanted."""
    from tomoseg.io.slices import LabelledSlices, slice_readers
    from tomoseg.segmentation.data.neighbours import with_neighbours

    if channels == 1 or channels % 2 == 0:  # the settings tell what is wrong with an even number
        return slices
    images = with_neighbours(slices.names, slices.images, channels, slice_readers(images_dir))
    return LabelledSlices(slices.names, images, slices.labels)


def _painted_slices(project: Path, label_map: str, runtime: Runtime, channels: int) -> tuple[Any, dict[str, Any]]:
    """Return the painted slices of a project, and what it says of their classes and pixel size."""
    from tomoseg.annotation.exchange import annotations_of, with_volume_neighbours
    from tomoseg.io.slices import LabelledSlices

    if not project.is_file():
        raise InputError(f"{project} is no project file: give IMAGES_DIR and LABELS_DIR, or a project.")
    if label_map:
        raise InputError("--label-map is for label images; the labels in a project are class numbers already.")
    painted = annotations_of(project, runtime.say)
    keys = ("class_names", "class_colors", "pixel_size_nm")
    slices = painted.as_slices()
    if channels > 1 and channels % 2:
        slices = LabelledSlices(slices.names, with_volume_neighbours(project, painted, channels), slices.labels)
    return slices, {key: getattr(painted, key) for key in keys}


def label_map_of(text: str) -> Any:
    """Return the map that `--label-map` names; None where it is not given."""
    from tomoseg.io.label_values import LabelMap

    return LabelMap.parse(text) if text else None


def words(text: str) -> list[str] | None:
    """Return the words of a text with commas between; None for an empty one."""
    return [word.strip() for word in text.split(",")] if text else None


def _numbers(option: str, text: str) -> tuple[float, ...] | None:
    try:
        return tuple(float(word) for word in text.split(",")) if text else None
    except ValueError as error:
        raise InputError(f"{option} {text}: give numbers with commas between, for example 0.2,0.3,0.5.") from error


def _parts(fold: str) -> list[int] | None:
    """Return the numbers of the parts that `--fold` names; None for all."""
    words = [word.strip() for word in fold.split(",")]
    if fold == "all":
        return None
    if not all(word.isdecimal() for word in words):
        raise InputError(f"--fold {fold}: give the number of a part, from 0, several with commas between, or all.")
    return [int(word) for word in words]


def _was_given(context: typer.Context, option: str) -> bool:
    """Tell whether an option was on the command line."""
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def _settings(wanted: str, largest_side: int, values: dict[str, Any], augment: str) -> Any:
    """Return the settings of a preset with the values that were given in their place."""
    from dataclasses import replace

    from tomoseg.segmentation.training.parameters import FILTERS, preset

    start = preset(cast(Any, wanted), largest_side)
    if "architecture" in values and not values.get("base_filters"):
        values = values | {"base_filters": FILTERS.get(values["architecture"], 32)}
    return replace(start, **values, augmentation=_augmentation(augment, start.augmentation))


def _augmentation(text: str, start: Any) -> Any:
    """Return an augmentation with the changes that 'rotation_deg=180,noise=0.1' asks for."""
    from dataclasses import replace

    known = vars(start)
    changes: dict[str, Any] = {}
    for item in text.split(",") if text else []:
        name, _, value = (part.strip() for part in item.partition("="))
        try:
            changes[name] = type(known[name])(float(value))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"--augment {text}: '{item.strip()}' is no number for one of {', '.join(known)} (flip: 0 or 1)."
            ) from error
    return replace(start, **changes)
