"""Single micrographs: one image of any format, grey or with coloured overlays, and what the file says of its scale."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.companions import COMPRESSED
from tomoseg.io.formats import IMAGE_EXTENSIONS
from tomoseg.io.image_files import IMAGE_SUFFIXES, ImageFile, count_pages, read_image
from tomoseg.io.raw_files import open_images
from tomoseg.io.series import COLOUR_IMAGES
from tomoseg.io.units import PixelSize

LEAST_PX = 16  # along a side
PICTURES = (".png", ".bmp", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Micrograph:
    """An image (y, x), or (y, x, 3) u1 where it has coloured overlays, and its pixel size by the metadata."""

    path: Path
    image: Array
    pixel_size: PixelSize
    warnings: list[str] = field(default_factory=list)


def read_micrograph(path: Path, signal: str | None = None) -> Micrograph:
    """Read a file with one image.

    Raises `InputError`: the file is damaged, of an unknown format, or holds several images.
    """
    if path.suffix.lower() in PICTURES:
        return Micrograph(path, _checked(path, _picture(path)), PixelSize())
    try:
        with open_images(path, signal) as series:
            if series.shape[0] != 1:
                raise InputError(
                    f"{path} holds {series.shape[0]} images: it may be a tilt series (tomoseg run) or a film; save the "
                    "ones to measure as files of their own"
                )
            image = series.read(slice(0, 1))[0]
            return Micrograph(path, _checked(path, image), series.pixel_size, list(series.warnings))
    except InputError as error:
        if COLOUR_IMAGES not in str(error) or path.suffix.lower() not in IMAGE_SUFFIXES:
            raise
    if count_pages(path) > 1:
        raise InputError(f"{path} holds several colour images: save the ones to measure as files of their own")
    return Micrograph(path, _checked(path, _picture(path)), PixelSize())


def micrograph_files(sources: Sequence[Path], *, recursive: bool = False) -> Iterator[Path]:
    """Yield the image files that are named or lie in named folders, sorted by name, each once.

    Raises `InputError`: a source does not exist, or a folder holds no image.
    """
    seen: set[Path] = set()
    for source in sources:
        if not source.exists():
            raise InputError(f"{source} does not exist")
        found = [source]
        if source.is_dir() and source.suffix.lower() not in IMAGE_EXTENSIONS:
            found = sorted(path for path in _listed(source, recursive) if _is_image(path))
            if not found:
                more = "" if recursive else "; with --recursive, folders in it are searched as well"
                raise InputError(f"{source} holds no image that can be read{more}")
        for path in found:
            if path.absolute() not in seen:
                seen.add(path.absolute())
                yield path


def _listed(folder: Path, recursive: bool) -> Iterator[Path]:
    return (path for path in (folder.rglob("*") if recursive else folder.iterdir()) if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    ending = path.suffix.lower()
    if ending in COMPRESSED:
        ending = Path(path.stem).suffix.lower()
    return ending in IMAGE_EXTENSIONS and path.is_file()


def _picture(path: Path) -> Array:
    """Return a picture (y, x), or (y, x, 3) where its channels differ; transparency is dropped."""
    data = read_image(ImageFile(path), in_color=True)
    if data.ndim == 3 and data.shape[-1] in (1, 2):
        return data[..., 0]
    if data.ndim == 3 and data.shape[-1] in (3, 4):
        data = data[..., :3]
        return data[..., 0] if (data == data[..., :1]).all() else data
    return data


def _checked(path: Path, image: Array) -> Array:
    """Return an image of numbers that can be measured."""
    if image.ndim not in (2, 3) or image.dtype.kind not in "uifb" or min(image.shape[:2]) < LEAST_PX:
        raise InputError(
            f"{path} is not an image of at least {LEAST_PX} x {LEAST_PX} px (shape {image.shape}, {image.dtype})"
        )
    if image.dtype.kind == "b":
        return image.astype(np.uint8)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        if not np.isfinite(image).any():
            raise InputError(f"{path} holds no finite value")
        image = np.where(np.isfinite(image), image, np.median(image[np.isfinite(image)]))
    return image
