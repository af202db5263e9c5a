"""The command `try`: variants of a few slices side by side, in a page; the project stays as it is."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from tomoseg import config
from tomoseg.arrays import MemoryOutputs
from tomoseg.classes import class_names
from tomoseg.cli.options import ProjectFile, computing, require_page
from tomoseg.config import Settings
from tomoseg.errors import InputError, NotReady
from tomoseg.lengths import size_or_nan
from tomoseg.progress import Progress
from tomoseg.project import Project
from tomoseg.runtime import Runtime, Stopwatch, stopping_on_signals
from tomoseg.stages.halves import Series
from tomoseg.terminal import show

if TYPE_CHECKING:
    from tomoseg.report.trial import Tried

VARIED = ("reconstruct", "segment")
MOST_VARIANTS = 24
AROUND = 1  # slices on either side that are computed, too: networks look at neighbours, filters at surroundings


def add_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("try")(computing(try_))


@dataclass(frozen=True)
class Variant:
    """What is varied, as it is written, and the settings that it gives."""

    label: str
    settings: Settings


def try_(
    project: ProjectFile,
    sets: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="STAGE.PARAM=V1,V2,...",
            help="Values to try, of reconstruct or segment; repeatable: all combinations are tried.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TRY.html", help="The page to write.")] = Path(
        "try.html"
    ),
    slices: Annotated[
        list[int] | None,
        typer.Option(
            "--slice", metavar="Y", help="Slice to try it on, counted along the tilt axis; repeatable.", min=0
        ),
    ] = None,
    *,
    runtime: Runtime,
) -> None:
    """Try parameters on a slice or a few: variants side by side, with their figures, in a page; nothing is changed."""
    from tomoseg.cli.inspect import results_of
    from tomoseg.report.trial import write_trial

    require_page(output, "result")
    with Project.read(project) as opened, stopping_on_signals(lambda: "Nothing was written."):
        variants = variants_of(sets, opened.settings)
        artifacts = opened.artifacts()
        if "volume" not in artifacts:
            raise NotReady(f"{project} has no volume yet: run `tomoseg run {project} --until reconstruct` first.")
        n_y = artifacts["volume"].shape[1]
        chosen = sorted(set(slices or [n_y // 2]))
        if chosen[-1] >= n_y:
            raise InputError(f"--slice {chosen[-1]}: the volume has {n_y} slices, 0 to {n_y - 1}.")
        jobs = [(y, variant) for y in chosen for variant in variants]
        own = config.resolve(stored=opened.settings)
        tried = [_tried(artifacts, y, variant, own, runtime) for y, variant in runtime.track(jobs, "trying")]
        write_trial(output, tried, results_of(opened))
    show(output)


def variants_of(sets: Sequence[str], stored: Any) -> list[Variant]:
    """Return all combinations of the values to try. Raises `InputError` with what is wrong with them."""
    keys, values = [], []
    for text in sets:
        key, _, listed = text.partition("=")
        stage = key.strip().partition(".")[0]
        if stage not in VARIED:
            raise InputError(f"--set {text}: try varies parameters of {' and '.join(VARIED)}.")
        keys.append(key.strip())
        values.append([v.strip() for v in re.split(r",(?![^\[]*\])", listed)])  # not commas within [ ]
    combined = list(itertools.product(*values))
    if len(combined) > MOST_VARIANTS:
        raise InputError(f"These are {len(combined)} combinations; try at most {MOST_VARIANTS}.")
    found = []
    for one in combined:
        assignments = [f"{key}={value}" for key, value in zip(keys, one, strict=True)]
        settings = config.resolve(config.parse_sets(assignments), stored=stored)
        config.check_stages(settings, list(VARIED))
        found.append(Variant(", ".join(assignments), settings))
    return found


def _tried(artifacts: Any, y: int, variant: Variant, own: Settings, runtime: Runtime) -> "Tried":
    """Compute a variant of slice y of the project's volume; what the project has itself is taken from there."""
    from tomoseg.report.trial import Tried
    from tomoseg.segmentation.api import segment_volume

    watch, quiet = Stopwatch(), replace(runtime, notes=[], warnings=[], progress=Progress())
    settings, volume = variant.settings, artifacts["volume"]
    figures: dict[str, str] = {}
    first, last = max(0, y - AROUND), min(volume.shape[1], y + AROUND + 1)
    if settings["reconstruct"] != own["reconstruct"]:
        slab, figures = _reconstructed(artifacts, first, last, own["reconstruct"], settings["reconstruct"], quiet)
    else:
        slab = np.asarray(volume[:, first:last], np.float32)
    labels, thresholds = None, []
    if settings["segment"] != own["segment"]:
        outputs = MemoryOutputs()
        size = size_or_nan(volume.attrs.get("voxel_size_nm"))
        summary = segment_volume(slab, size, settings["segment"], quiet, outputs)  # type: ignore[arg-type]
        names = class_names(outputs.as_input("labels"))
        labels = outputs.arrays["labels"][:, min(AROUND, y)]
        thresholds = summary.info.get("thresholds", [])
        figures |= {name: f"{100 * f:.3g} %" for name, f in zip(names, summary.class_fractions, strict=True)}
        if thresholds:
            figures["thresholds"] = ", ".join(f"{t:.4g}" for t in thresholds)
    middle = slab[:, min(AROUND, y, slab.shape[1] - 1)]
    figures["time"] = f"{watch.seconds:.1f} s"
    return Tried(y, variant.label, middle, labels, figures, [*quiet.warnings], thresholds)


def _reconstructed(
    artifacts: Any, first: int, last: int, own: Any, params: Any, runtime: Runtime
) -> tuple[Any, dict[str, str]]:
    """Reconstruct slices `first` to `last` of the project's volume with other parameters."""
    if "aligned" not in artifacts:
        raise NotReady("The project holds no aligned series: run align first.")
    start = (own.y_range or (0, 0))[0]
    rows = [int((n + start) * own.binning / params.binning) for n in (first, last)]
    changes: dict[str, Any] = {"y_range": (rows[0], max(rows[1], rows[0] + 1)), "resolution": False}
    info = artifacts["reconstruction_info"].attrs
    if params.iterations == "auto" and params.method == own.method and int(info.get("iterations", 0)):
        changes["iterations"] = int(info["iterations"])  # what the whole volume asked for
    angles = artifacts.get("refined_angles_deg", artifacts["angles_deg"])
    series = Series.of(artifacts["aligned"], angles, artifacts.get("tilt_quality"), artifacts["alignment_info"])
    pixel_size_nm = size_or_nan(artifacts["volume"].attrs.get("voxel_size_nm")) / own.binning
    done = series.reconstruct(params.model_copy(update=changes), pixel_size_nm, runtime, MemoryOutputs())
    figures = {"method": done.method, "iterations": str(done.iterations)}
    figures["relative residual"] = f"{done.residuals[-1]:.4f}"
    return np.asarray(done.volume), figures
