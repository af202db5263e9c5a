"""The folder of slices to paint labels on with napari, ilastik or Fiji.

FOLDER/images/xz_0012.tif is 16 bit, FOLDER/labels/xz_0012.tif 8 bit (255 = not painted); FOLDER/annotation.json
describes them for the import.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import plain_json
from tomoseg.arrays import Array
from tomoseg.classes import problems_with_colors, problems_with_names
from tomoseg.errors import InputError, shown
from tomoseg.io.atomic import atomic_path
from tomoseg.io.digest import sha256
from tomoseg.io.image_files import ImageFile
from tomoseg.io.label_values import LabelMap, counts_of, label_doubts, mask_problem
from tomoseg.io.limits import reason_of
from tomoseg.io.pairing import Pair, by_stem, paired
from tomoseg.io.slices import IGNORE, DisplayCheck, LabelledSlices, load_pair, pixel_digest, read_slice
from tomoseg.lengths import is_possible

FORMAT = 1
ABOUT = "annotation.json"
LARGEST_ABOUT = 16 << 20  # bytes
WHITE = 65535
README = "README.txt"
README_TEXT = """\
Paint on the files in labels/; those in images/ show what there is to paint, and must stay as they are.
The value of a pixel is its class:

{values}
  {ignore}  not painted, which is no class

It is enough to paint parts of a slice, borders among them. When you are done:

  tomoseg annotate import PROJECT.h5 THIS_FOLDER

Fiji: open both files, outline a region on the image, Edit > Selection > Restore Selection on the labels, Process >
Math > Set... to the class number; save the label file alone. "Apply" in Brightness/Contrast would change values.

ilastik: label the images of the folder in pixel classification, export the labels as TIFF or PNG into labels/ in place
of those there, under the names of the images or ilastik's own (xz_0012_Simple Segmentation.tif), and take them in with
--label-map 0=ignore,1=0,2=1,3=2.

napari: `tomoseg annotate paint PROJECT.h5` needs no folder.
"""
PLANES = ("xz", "xy", "yz")


@dataclass(frozen=True)
class PaintedSlices:
    """Slices with painted labels."""

    plane: str  # 'xz', 'xy' or 'yz'
    numbers: list[int]  # of the slices, along the normal of the plane
    run_ids: list[str]  # the reconstruction that each slice was cut from
    images: list[Array]  # (h, w) f4 in the unit of the volume
    labels: list[NDArray[np.uint8]]  # (h, w), 255 where nobody painted
    class_names: list[str]
    class_colors: list[str]
    pixel_size_nm: float | None
    files: Mapping[str, Path] = field(default_factory=dict)

    def as_slices(self) -> LabelledSlices:
        """Return the slices as a set to train on; their names tell neighbours."""
        names = [slice_name(self.plane, n) for n in self.numbers]
        classes = self.class_names, self.class_colors
        return LabelledSlices(names, list(self.images), list(self.labels), *classes, self.pixel_size_nm)


def slice_name(plane: str, number: int) -> str:
    """Return the name of a slice, the same for its image and its labels."""
    return f"{plane}_{number:04d}"


def require_empty(folder: Path) -> None:
    """Raise `InputError` if a folder to export to holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already and is not empty: choose another -o. Nothing in it was changed")


def write_folder(folder: Path, slices: PaintedSlices, about: Mapping[str, Any]) -> None:
    """Write slices and labels to paint on, and their description; `about` holds further JSON values for it.

    All images share one scale: 0 and 65535 are the smallest and the largest value of all of them.

    Raises `InputError`: the folder holds files already (nothing painted is ever overwritten), or cannot be written to.
    """
    require_empty(folder)
    import tifffile

    low, high = min(float(i.min()) for i in slices.images), max(float(i.max()) for i in slices.images)
    step = (high - low) / WHITE or 1.0
    size = slices.pixel_size_nm
    told: dict[str, Any] = {"resolution": (1 / size, 1 / size), "metadata": {"unit": "nm"}} if size else {}
    written: list[dict[str, Any]] = []
    try:
        for part in ("images", "labels"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for number, image, labels in zip(slices.numbers, slices.images, slices.labels, strict=True):
            name = slice_name(slices.plane, number)
            files = {"image": folder / "images" / f"{name}.tif", "labels": folder / "labels" / f"{name}.tif"}
            grey = np.round((image.astype(np.float64) - low) / step).astype(np.uint16)
            tifffile.imwrite(files["image"], grey, imagej=True, **told)
            tifffile.imwrite(files["labels"], labels, imagej=True, **told)
            digests = {f"{what}_sha256": sha256(file) for what, file in files.items()}
            digests |= {"image_pixels": pixel_digest(grey), "labels_pixels": pixel_digest(labels)}
            written.append({"name": name, "number": number, "run_id": slices.run_ids[len(written)], **digests})
        values = "\n".join(f"  {i}  {name}" for i, name in enumerate(slices.class_names))
        (folder / README).write_text(README_TEXT.format(values=values, ignore=IGNORE), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    content = {
        "format": FORMAT,
        "plane": slices.plane,
        "class_names": slices.class_names,
        "class_colors": slices.class_colors,
        "not_painted": IGNORE,
        "pixel_size_nm": size,
        "scaling": {"offset": low, "step": step, "meaning": "value in the volume = offset + step * value in the image"},
        "slices": written,
        **about,
    }
    with atomic_path(folder / ABOUT) as temporary:  # last: a folder without it is not complete
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any]:
    """Return the description that `write_folder` wrote.

    Raises `InputError`: it is missing or damaged.
    """
    path = folder / ABOUT
    try:
        with path.open("rb") as file:
            content = plain_json.load(file.read(LARGEST_ABOUT))
        facts = content["scaling"]["offset"], content["scaling"]["step"], content["pixel_size_nm"] or 1.0
        names, colors = content["class_names"], content["class_colors"]
        sound = (
            content["format"] == FORMAT
            and content["plane"] in PLANES
            and all(isinstance(x, int | float) and math.isfinite(x) for x in facts)
            and is_possible(facts[-1])
            and all(isinstance(x, str) for x in (*names, *colors))
            and not [*problems_with_names(names), *problems_with_colors(colors, len(names))]
            and all(_is_entry(entry, content["plane"]) for entry in content["slices"])
        )
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no {ABOUT}: give the folder that `tomoseg annotate export` wrote") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
        raise InputError(f"{path} cannot be read: {reason_of(error)}. Export the slices again.") from error
    if not sound:
        raise InputError(f"{path} was not written by `tomoseg annotate export`. Export the slices again.")
    return dict(content)


def _is_entry(entry: Mapping[str, Any], plane: str) -> bool:
    number, texts = entry["number"], [entry[key] for key in ("run_id", "image_sha256", "labels_sha256")]
    is_number = isinstance(number, int) and 0 <= number < 1 << 31
    return is_number and entry["name"] == slice_name(plane, number) and all(isinstance(text, str) for text in texts)


def read_folder(
    folder: Path,
    label_map: LabelMap | None = None,
    *,
    take_unchanged: bool = False,
    label_pattern: str = "",
    warn: Callable[[str], object] = str,
) -> tuple[PaintedSlices, list[str]]:
    """Return the painted slices of a folder, and the names of the others.

    Labels may have been saved as any lossless image of the same name, or as `tomoseg.io.pairing.paired` says. Labels
    whose pixels are as they were exported do not count as painted unless `take_unchanged` is set; labels without any
    painted pixel never do. `warn` is called with what may be wrong with the labels.

    Raises `InputError`: files are missing or belong to other slices, an image was changed, labels are not classes or of
    another size or nothing but masks of 0 and 255, or nothing is painted at all. All problems are reported at once.
    """
    about = read_about(folder)
    entries = {entry["name"]: entry for entry in about["slices"]}
    names = about["class_names"]
    given = paired(
        folder / "images", folder / "labels", label_map=label_map, class_names=names, label_pattern=label_pattern
    )
    pairs, displays = given.pairs, DisplayCheck()
    problems = list(given.problems)
    problems += [f"{pair.labels} is not one of the exported slices" for pair in pairs if pair.name not in entries]
    if missing := sorted(entries.keys() - by_stem(folder / "images", (".tif",)).keys()):
        problems.append(f"images are missing in {folder / 'images'}: {', '.join(missing)}")
    painted, left_out = [], sorted(entries.keys() - {pair.name for pair in pairs})
    offset, step = (float(about["scaling"][key]) for key in ("offset", "step"))
    for pair in (pair for pair in pairs if pair.name in entries):
        entry = entries[pair.name]
        try:
            if not _as_exported(pair.image, entry, "image"):
                problems.append(f"{pair.image} has changed since the export: paint on the labels only")
                continue
            if not take_unchanged and _labels_as_exported(pair, entry):
                left_out.append(pair.name)
                continue
            image, labels = load_pair(pair, len(names))
            displays.look(pair)
        except InputError as error:
            problems.append(str(error))
            continue
        if (labels == IGNORE).all():
            left_out.append(pair.name)
        else:
            values = (offset + step * image.astype(np.float64)).astype(np.float32)
            painted.append((entry, values, labels, pair))
    counts = counts_of([labels for _, _, labels, _ in painted])
    if painted and label_map is None and (masks := mask_problem(counts)):
        problems.append(f"{masks}, and if only class 0 was painted, --label-map 0=0,{IGNORE}=ignore")
    if problems:
        raise InputError.of(problems)
    if not painted:
        raise InputError(f"nothing is painted in {folder / 'labels'}: all labels are as they were exported")
    for text in [*label_doubts(counts, [entry["name"] for entry, *_ in painted]), *displays.doubts()]:
        warn(text)
    rows, images, every_labels, read = ([*column] for column in zip(*painted, strict=True))
    numbers, run_ids = [int(row["number"]) for row in rows], [shown(row["run_id"]) for row in rows]
    told: dict[str, Any] = {key: about[key] for key in ("plane", "class_names", "class_colors", "pixel_size_nm")}
    told["files"] = {
        file.name if len(pair.label_files) > 1 else pair.name: file.path for pair in read for file in pair.label_files
    }
    found = PaintedSlices(numbers=numbers, run_ids=run_ids, images=images, labels=every_labels, **told)
    return found, sorted(left_out)


def _as_exported(file: ImageFile, entry: Mapping[str, Any], what: str) -> bool:
    """Tell whether pixels are as they were exported; a program may have saved them anew in another way."""
    if sha256(file.path) == entry[f"{what}_sha256"]:
        return True
    pixels = entry.get(f"{what}_pixels")  # not in a folder of an earlier version
    return pixels is not None and pixel_digest(read_slice(file)) == pixels


def _labels_as_exported(pair: Pair, entry: Mapping[str, Any]) -> bool:
    if not isinstance(pair.labels, ImageFile):
        return False
    try:
        return _as_exported(pair.labels, entry, "labels")
    except InputError:  # colours, which were not exported, or damaged, which reading the labels will tell
        return False


def merged(old: PaintedSlices, new: PaintedSlices) -> PaintedSlices:
    """Return the slices of both; the new one where a slice is in both.

    Raises `InputError`: planes, sizes or classes differ.
    """
    kinds = [(s.plane, s.images[0].shape, s.class_names) for s in (old, new)]
    if kinds[0] != kinds[1]:
        told = [f"{plane} slices of {shape[1]} x {shape[0]} px, {', '.join(names)}" for plane, shape, names in kinds]
        raise InputError(
            f"the painted slices in the project ({told[0]}) and the new ones ({told[1]}) do not go together: add "
            "--replace to drop those in the project"
        )
    every = (zip(s.numbers, s.run_ids, s.images, s.labels, strict=True) for s in (old, new))
    by_number = {row[0]: row for rows in every for row in rows}
    numbers, run_ids, images, labels = zip(*(by_number[n] for n in sorted(by_number)), strict=True)
    return replace(new, numbers=[*numbers], run_ids=[*run_ids], images=[*images], labels=[*labels])
