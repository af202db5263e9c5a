"""Labelled slices in two folders: images, and label images of the same names."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError, shown
from tomoseg.io.label_values import UNPAINTED, LabelMap
from tomoseg.io.limits import reason_of, require_plausible
from tomoseg.io.series import captured_messages
from tomoseg.runtime import Runtime

IGNORE = UNPAINTED  # label of pixels that nobody annotated
LOSSLESS = (".tif", ".tiff", ".png", ".bmp", ".npy")
IMAGE_SUFFIXES = (*LOSSLESS, ".jpg", ".jpeg")
_PILLOW_FORMATS = ("TIFF", "PNG", "BMP", "JPEG")
_TIFF_COMPRESSIONS = {1, 5, 8, 32773, 32946, 34925, 50000}  # none, LZW, deflate, PackBits, LZMA, ZSTD


@dataclass(frozen=True)
class Pair:
    """The files of a slice and its labels, which share the name `name`, without suffix.

    `label_map` translates labels that are not class numbers.
    """

    name: str
    image: Path
    labels: Path
    label_map: LabelMap | None = None


def find_pairs(
    images_dir: Path, labels_dir: Path, runtime: Runtime | None = None, label_map: LabelMap | None = None
) -> list[Pair]:
    """Return the slices of `images_dir` with labels of the same name in `labels_dir`, sorted by name.

    Raises `InputError` if a folder is missing or holds no images, names are not unique, or labels have no image.
    """
    images, labels = by_stem(images_dir, IMAGE_SUFFIXES), by_stem(labels_dir, LOSSLESS)
    orphans = sorted(set(labels) - set(images))
    if orphans:
        raise InputError(
            f"{len(orphans)} label files in {labels_dir} have no image of the same name in {images_dir}: "
            f"{few(orphans)}. An image and its labels must share their name."
        )
    unlabelled = sorted(set(images) - set(labels))
    if unlabelled and runtime is not None:
        runtime.say(f"{len(unlabelled)} images without labels are left out: {few(unlabelled)}")
    return [Pair(name, images[name], labels[name], label_map) for name in sorted(labels)]


def by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return the files of a folder with these suffixes, by name without suffix.

    Raises `InputError` if the folder is missing or holds no such file, or two files share a name.
    """
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith("."))
    if not files:
        raise InputError(f"the folder {folder} holds no image files ({', '.join(suffixes)})")
    found: dict[str, Path] = {}
    for file in files:
        if file.stem in found:
            raise InputError(f"{file} and {found[file.stem]} have the same name: remove or rename one of them")
        found[file.stem] = file
    return found


def slice_readers(folder: Path) -> dict[str, Callable[[], Array]]:
    """Return a function that reads each image of a folder, by name; see `by_stem`."""
    return {name: partial(read_slice, path) for name, path in by_stem(folder, IMAGE_SUFFIXES).items()}


def read_slice(path: Path) -> Array:
    """Read a grey image as a 2D array in the type of the file; a colour image must have equal channels."""
    data = _read(path)
    if data.ndim == 3 and data.shape[-1] in (2, 3, 4):
        color = data[..., : 1 if data.shape[-1] == 2 else 3]
        if (color == color[..., :1]).all():
            data = color[..., 0]
    if data.ndim != 2 or min(data.shape) < 1 or data.dtype.kind not in "uifb":
        raise InputError(
            f"{path} is not a single grey image (shape {data.shape}, {data.dtype}): save each slice as one grey file"
        )
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(f"{path} holds NaN or infinite values")
    return data.astype(np.uint8) if data.dtype.kind == "b" else data


def read_labels(path: Path, n_classes: int | None = None, label_map: LabelMap | None = None) -> NDArray[np.uint8]:
    """Read a label image (h, w) as u1: class numbers from 0, and 255 where nobody annotated.

    A `label_map` translates other values; if it names colours, a palette image gives its colours. Raises `InputError`
    if a value is not a class number, not below `n_classes` if that is given, or not in the map.
    """
    if label_map is None:
        data = read_slice(path)
    else:
        data = label_map.apply(path, _read(path, in_color=True) if label_map.by_color else read_slice(path))
    values = np.unique(data)
    if values[0] < 0 or values[-1] > IGNORE or (values != np.round(values)).any():
        raise InputError(f"{path} holds {few(values)}: labels are whole numbers from 0 to {IGNORE - 1}")
    classes = values[values != IGNORE]
    if n_classes is not None and classes.size and classes[-1] >= n_classes:
        raise InputError(
            f"{path} holds the labels {few(values)}, but there are {n_classes} classes: labels must be 0 to "
            f"{n_classes - 1}, and {IGNORE} where nobody annotated. Name every class, and save class numbers or "
            "translate values with --label-map."
        )
    return data.astype(np.uint8)


def _read(path: Path, *, in_color: bool = False) -> Array:
    """Read any supported file; a palette image gives its indices, or its colours if `in_color`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; what matters raises
            return _read_npy(path) if path.suffix.lower() == ".npy" else _read_image(path, in_color)
    except InputError:
        raise
    except Exception as error:  # image libraries raise nearly anything on a broken file
        raise InputError(f"{path} cannot be read as an image: {reason_of(error)}") from error


def _read_npy(path: Path) -> Array:
    """Read a NumPy file; one that holds Python objects is refused, because reading them runs code."""
    with path.open("rb") as file:
        shape, by_columns, dtype = npy_header(path, file)
        return np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order="F" if by_columns else "C")


def npy_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array of one or several grey images: shape, whether in Fortran order, and type.

    Afterwards the file is positioned at the first pixel. Raises `InputError` if it holds something else, or fewer
    pixels than the header claims; `ValueError` if it is not a NumPy file.
    """
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in headers:
        raise InputError(f"{path} is a NumPy file of format {version}, which is not for images")
    shape, by_columns, dtype = headers[version](file)
    if dtype.hasobject or dtype.kind not in "uifb":
        raise InputError(f"{path} holds values of type {shown(dtype)}, which are not numbers")
    if not 2 <= len(shape) <= 3 or min(shape) < 1:
        raise InputError(f"{path} is not a single grey image (shape {shown(shape)})")
    n, stored = math.prod(shape), path.stat().st_size - file.tell()
    if n * dtype.itemsize > stored:
        raise InputError(f"{path} is truncated: its header claims {n * dtype.itemsize} bytes, it has {stored}")
    return shape, by_columns, dtype


def _read_image(path: Path, in_color: bool) -> Array:
    """Read an image file with Pillow, or with tifffile if it is a TIFF that Pillow cannot read."""
    from PIL import Image, UnidentifiedImageError

    try:
        # Pillow goes by the content, so the formats are named: it would run Ghostscript on PostScript called .png.
        with Image.open(path, formats=_PILLOW_FORMATS) as image:
            bytes_per_px = {"1": 1, "L": 1, "P": 1, "I;16": 2}.get(image.mode, 4)
            require_plausible(path, image.width * image.height * bytes_per_px, path.stat().st_size)
            _refuse_pages(path, getattr(image, "n_frames", 1))
            if in_color and image.mode in ("1", "P"):
                return np.asarray(image.convert("RGB"))
            return np.asarray(image)  # a palette image gives its indices, as label painters write them
    except UnidentifiedImageError:
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise
        return _read_other_tiff(path)


def _read_other_tiff(path: Path) -> Array:
    """Read a TIFF that Pillow cannot read: of 64-bit numbers, or compressed with ZSTD."""
    import tifffile

    from tomoseg.io.readers.tiff import ALONE

    with captured_messages("tifffile"), tifffile.TiffFile(path, **ALONE) as tiff:
        _refuse_pages(path, len(tiff.pages))
        page: Any = tiff.pages[0]
        if page.compression not in _TIFF_COMPRESSIONS:
            raise InputError(
                f"{path} is compressed as {shown(page.compression)}: save it as LZW, deflate or plain TIFF"
            )
        require_plausible(path, page.size * (page.dtype.itemsize if page.dtype else 1), path.stat().st_size)
        return np.asarray(page.asarray(maxworkers=1))


def _refuse_pages(path: Path, n_pages: int) -> None:
    if n_pages > 1:
        raise InputError(f"{path} holds {n_pages} pages: save each slice as a separate file")


@dataclass(frozen=True)
class LabelledSlices:
    """Labelled slices in memory; class names, colours and pixel size are None where unknown."""

    names: list[str]  # tell neighbouring slices by their numbers
    images: list[Array]  # (h, w) of any size in one type, or (h, w, channels) with neighbouring slices
    labels: list[NDArray[np.uint8]]  # (h, w) u1, 255 where nobody annotated
    class_names: list[str] | None = None
    class_colors: list[str] | None = None
    pixel_size_nm: float | None = None


def load_pairs(pairs: Iterable[Pair], n_classes: int | None = None) -> LabelledSlices:
    """Read all pairs.

    Raises `InputError` if an image and its labels differ in size, images differ in type, or all labels are 0 or 255:
    such masks would count as not annotated where they are 255.
    """
    data = LabelledSlices([], [], [])
    for pair in pairs:
        image, labels = load_pair(pair, n_classes)
        if data.images and image.dtype != data.images[0].dtype:
            raise InputError(
                f"{pair.image} is {image.dtype}, the images before it are {data.images[0].dtype}: save all in one type"
            )
        data.names.append(pair.name)
        data.images.append(image)
        data.labels.append(labels)
    if problem := mask_problem([{int(v) for v in np.unique(labels)} for labels in data.labels]):
        raise InputError(problem)
    return data


def mask_problem(values: Iterable[set[int]]) -> str:
    """Return a message if label images hold only 0 and 255, given the values of each; else an empty text."""
    if set().union(*values) != {0, IGNORE}:
        return ""
    return (
        f"all label images hold only 0 and {IGNORE}, and {IGNORE} means that nobody annotated: if they are masks, give "
        f"--label-map 0=0,{IGNORE}=1"
    )


def load_pair(pair: Pair, n_classes: int | None = None) -> tuple[Array, NDArray[np.uint8]]:
    """Read one slice and its labels, of equal size."""
    image, labels = read_slice(pair.image), read_labels(pair.labels, n_classes, pair.label_map)
    if image.shape != labels.shape:
        raise InputError(
            f"{pair.image} is {image.shape[1]} x {image.shape[0]} px, its labels {pair.labels} are "
            f"{labels.shape[1]} x {labels.shape[0]} px: they must be the same slice"
        )
    return image, labels


def data_digest(names: Sequence[str], images: Sequence[Array], labels: Sequence[Array]) -> str:
    """Return the SHA-256 of labelled slices, by which a network knows what it was trained on."""
    digest = hashlib.sha256()
    for name, image, label in zip(names, images, labels, strict=True):
        digest.update(f"{name} {image.shape} {image.dtype} ".encode())
        digest.update(np.ascontiguousarray(image).data)
        digest.update(np.ascontiguousarray(label, np.uint8).data)
    return digest.hexdigest()


def few(items: Iterable[Any], most: int = 5) -> str:
    """Return the first items as text, and the number of the others."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
