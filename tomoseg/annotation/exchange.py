"""Export of slices of a project to paint labels on, and import of the painted labels."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tomoseg import schema
from tomoseg.annotation.paint_folder import (
    PaintedSlices,
    merged,
    read_about,
    read_folder,
    require_empty,
    slice_name,
    write_folder,
)
from tomoseg.arrays import Array, Input
from tomoseg.classes import colors_in, default_colors, names_in
from tomoseg.errors import InputError, NotReady
from tomoseg.io.digest import sha256
from tomoseg.io.label_values import LabelMap, counts_of, label_problems
from tomoseg.io.slices import IGNORE, LabelledSlices
from tomoseg.lengths import size_or_nan
from tomoseg.project import Project, Record, job_id, new_run_id, now, versions
from tomoseg.runtime import Runtime, Stopwatch

STEP = "annotate"  # name of an import in the history
VERSION = 1


def export_slices(
    project: Project,
    folder: Path,
    runtime: Runtime,
    *,
    n_slices: int = 6,
    plane: str = "xz",
    class_names: Sequence[str] | None = None,
    prefill: bool | None = False,
) -> PaintedSlices:
    """Write the slices most worth painting to a folder and return them.

    Slices are chosen as `tomoseg.annotation.slice_selection` says; slices that are painted already are left out. For
    the files see `tomoseg.annotation.paint_folder`. Classes are by default those of earlier annotations, or of the
    project's labels, with which `prefill` begins the painting; None: where there are labels.

    Raises `NotReady`: the project holds no volume, or no labels of it to prefill with. Raises `InputError`: the folder
    is not empty, classes do not fit, or every slice is painted already.
    """
    from tomoseg.annotation.slice_selection import describe_slices, select_slices
    from tomoseg.classes import class_names as names_of
    from tomoseg.classes import default_names, problems_with_names
    from tomoseg.segmentation.inference.slice_prediction import NORMAL_AXIS

    require_empty(folder)
    reconstruct, volume = project.record("reconstruct"), _volume(project)
    run_id = reconstruct.run_id if reconstruct is not None else ""
    labels, confidence = (_of_run(project, artifact, run_id) for artifact in (schema.LABELS, schema.CONFIDENCE))
    prefill = labels is not None if prefill is None else prefill
    if prefill and labels is None:
        raise NotReady(f"{project.path} holds no labels of its current volume. Run `tomoseg segment` on it first.")
    of_labels = names_of(labels) if labels is not None else default_names(3)
    before = read_annotations(project)
    names = list(class_names or (before.class_names if before is not None else of_labels))
    if problems := problems_with_names(names):
        raise InputError.of(problems)
    if prefill and len(names) != len(of_labels):
        raise InputError(f"{len(names)} classes are named, but the labels to prefill with have {len(of_labels)}")
    axis = NORMAL_AXIS[plane]
    painted = []
    if before is not None and (before.plane, before.class_names) == (plane, names):
        painted = [n for n in before.numbers if n < volume.shape[axis]]
    elif before is not None:
        runtime.warn(
            f"the project holds painted {before.plane} slices of {', '.join(before.class_names)}: to import {plane} "
            f"slices of {', '.join(names)}, `annotate import` will need --replace, which drops them"
        )
    described = describe_slices(volume, confidence, axis, runtime)
    numbers = select_slices(described, n_slices, painted)
    if not numbers:
        raise InputError(f"every {plane} slice of {project.path} is painted already")
    runtime.say(f"slices chosen by {described.criterion}: {', '.join(map(str, numbers))}")
    images = [_cut(volume, axis, n, np.float32) for n in numbers]
    if prefill and labels is not None:
        start = [_cut(labels, axis, n, np.uint8) for n in numbers]
    else:
        start = [np.full(image.shape, IGNORE, np.uint8) for image in images]
    size = size_or_nan(volume.attrs.get("voxel_size_nm"))
    pixel_size, colors = size if math.isfinite(size) else None, default_colors(len(names))
    chosen = PaintedSlices(plane, numbers, [run_id] * len(numbers), images, start, names, colors, pixel_size)
    about = {"project": project.path.name, "series_sha256": _series(project)}
    write_folder(folder, chosen, about | {"chosen_by": described.criterion, "prefilled": prefill})
    return chosen


def _volume(project: Project) -> Input:
    if not project.has(schema.VOLUME):
        raise NotReady(
            f"{project.path} holds no volume yet. Run `tomoseg run {project.path} --until reconstruct` first."
        )
    return project.artifact(schema.VOLUME)


def _of_run(project: Project, artifact: schema.Artifact, run_id: str) -> Input | None:
    """Return an artifact of the segmentation of that reconstruction, if there is one."""
    segment = project.record("segment")
    if segment is None or segment.consumed.get("reconstruct") != run_id or not project.has(artifact):
        return None
    return project.artifact(artifact)


def _cut(source: Input, axis: int, number: int, dtype: type) -> Array:
    """Return one slice perpendicular to an axis, (h, w)."""
    return np.asarray(source[(slice(None),) * axis + (number,)], dtype)


def _series(project: Project) -> str:
    """Return the digest of the raw series, which identifies a project whatever its name."""
    return str(project.artifact(schema.TILT_SERIES_INFO).attrs.get("source_sha256", ""))


def import_slices(
    project: Project,
    folder: Path,
    runtime: Runtime,
    *,
    label_map: LabelMap | None = None,
    label_pattern: str = "",
    replace: bool = False,
    take_unchanged: bool = False,
) -> PaintedSlices:
    """Store painted labels in the project with their images; return all painted slices that it then holds.

    `replace` drops those that the project holds. Raises `InputError`: the slices are from another series,
    `tomoseg.annotation.paint_folder.read_folder` or `merged` refuse them, or all together show a single class.
    """
    watch = Stopwatch()
    if read_about(folder).get("series_sha256") != _series(project):
        raise InputError(f"the slices in {folder} were exported from another tilt series than {project.path} holds")
    new, left_out = read_folder(
        folder, label_map, take_unchanged=take_unchanged, label_pattern=label_pattern, warn=runtime.warn
    )
    if left_out:
        runtime.say(f"not painted, left out: {', '.join(left_out)}")
    old = None if replace else read_annotations(project)
    every = new if old is None else merged(old, new)
    if problems := label_problems(counts_of(every.labels), len(every.class_names), mapped=True):
        raise InputError.of(problems)
    record = _begun(new, folder, label_map, replace)
    with project.transaction(record, restart=True) as outputs:
        shape = (len(every.numbers), *every.images[0].shape)
        images = outputs.create(schema.ANNOTATED_IMAGES.name, shape)
        labels = outputs.create(schema.ANNOTATED_LABELS.name, shape)
        for i in range(len(every.numbers)):
            images[i], labels[i] = every.images[i], every.labels[i]
        rows = list(zip(every.numbers, every.run_ids, strict=True))
        outputs.put(schema.ANNOTATED_SLICES.name, np.array(rows, [("number", "i4"), ("run_id", "U64")]))
        classes = {"class_names": every.class_names, "class_colors": every.class_colors}
        facts = {"plane": every.plane, **classes, "pixel_size_nm": every.pixel_size_nm or math.nan}
        outputs.set_attrs(schema.ANNOTATION_INFO.name, facts)
        runtime.check()
        told = {"wall_seconds": round(watch.seconds, 3), "device": "cpu", "notes": list(runtime.notes)}
        outputs.commit(dataclasses.replace(record, **told))  # type: ignore[arg-type]
    return every


def _begun(new: PaintedSlices, folder: Path, label_map: LabelMap | None, replace: bool) -> Record:
    """Return the provenance record of an import."""
    files = {name: {"path": str(file.absolute()), "sha256": sha256(file)} for name, file in new.files.items()}
    text = label_map.text if label_map else ""
    digest = hashlib.sha256("".join(f["sha256"] for f in files.values()).encode()).hexdigest()
    return Record(
        stage=STEP,
        run_id=new_run_id(),
        fingerprint=digest,
        stage_version=VERSION,
        parameters={"folder": str(folder.absolute()), "label_map": text, "replace": replace},
        files=files,
        consumed={},
        started=now(),
        job_id=job_id(),
        versions=versions(),
    )


def read_annotations(project: Project) -> PaintedSlices | None:
    """Return the painted slices that a project holds, or None; raise `InputError` where they are damaged."""
    if not all(project.has(artifact) for artifact in schema.BY_HAND):
        return None
    images, labels, table, info = (project.artifact(artifact) for artifact in schema.BY_HAND)
    rows = table[:]
    try:
        numbers, run_ids = [int(n) for n in rows["number"]], [bytes(r).decode() for r in rows["run_id"]]
        names = names_in(info.attrs) or []
        colors = colors_in(info.attrs, len(names)) or default_colors(len(names))
        plane, size = str(info.attrs["plane"]), size_or_nan(info.attrs["pixel_size_nm"])
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise _damaged(project) from error
    if (
        not names
        or not images.shape == labels.shape
        or len(numbers) != images.shape[0]
        or not numbers
        or min(images.shape) < 1
    ):
        raise _damaged(project)
    planes, painted = ([source[i] for i in range(len(numbers))] for source in (images, labels))
    pixel_size = None if math.isnan(size) else size
    return PaintedSlices(plane, numbers, run_ids, planes, painted, names, colors, pixel_size)


def _damaged(project: Project) -> InputError:
    return InputError(
        f"The painted slices in {project.path} are damaged: import them again with `tomoseg annotate import "
        "--replace`, or restore the file from a backup."
    )


def load_painted_slices(path: Path, channels: int = 1, tell: Callable[[str], object] = str) -> LabelledSlices:
    """Read the painted slices of a project file, to train on.

    Raises `NotReady`: the project holds no painted slices, or no volume to take neighbours from. Raises `InputError`:
    it is not a project file, or neighbours are wanted and a slice was cut from another reconstruction than the project
    holds now.

    With `channels`, odd, above 1, images are (h, w, channels) with neighbours from the volume, see
    `tomoseg.segmentation.data.neighbours`. The middle channel is the slice as it was painted on. `tell` is called with
    the names of the slices.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a project file: give IMAGES_DIR and LABELS_DIR, or a project.")
    with Project.read(path) as project:
        painted = read_annotations(project)
        if painted is None:
            raise NotReady(
                f"{path} holds no painted slices. Export some with `tomoseg annotate export {path} -o FOLDER`, paint "
                f"labels, and import them with `tomoseg annotate import {path} FOLDER`."
            )
        tell(f"painted slices: {', '.join(slice_name(painted.plane, n) for n in painted.numbers)}")
        slices = painted.as_slices()
        if channels == 1:
            return slices
        return dataclasses.replace(slices, images=_with_neighbours(project, painted, channels))


def _with_neighbours(project: Project, painted: PaintedSlices, channels: int) -> list[Array]:
    """Return the images of painted slices with their neighbours in the volume, (h, w, channels) each."""
    from tomoseg.segmentation.inference.slice_prediction import NORMAL_AXIS

    axis, reach = NORMAL_AXIS[painted.plane], channels // 2
    volume, reconstruct = _volume(project), project.record("reconstruct")
    present = reconstruct.run_id if reconstruct is not None else ""
    stacks = []
    for number, run_id, image in zip(painted.numbers, painted.run_ids, painted.images, strict=True):
        if run_id != present or number >= volume.shape[axis]:
            raise InputError(
                f"slice {slice_name(painted.plane, number)} was cut from an earlier reconstruction than the one in "
                f"{project.path}, so its neighbours are gone: train with --channels 1, or export, paint and import the "
                "slices again."
            )
        places = np.clip(np.arange(number - reach, number + reach + 1), 0, volume.shape[axis] - 1)
        planes = [_cut(volume, axis, int(n), np.float32) for n in places]
        planes[reach] = image
        stacks.append(np.stack(planes, axis=-1))
    return stacks
