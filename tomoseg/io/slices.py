"""Folders of 2D images and of label images that share their names, for training and evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
# More classes than anybody paints by hand: a label image with larger values is something else.
MAX_CLASSES = 64
Labels = NDArray[np.uint8]


def read_image(path: Path | str) -> Array:
    """Read a grey image.

    PNG, TIFF or JPEG of 8 or 16 bits, or float TIFF. A colour image whose channels are equal is grey.

    Returns
    -------
    array, shape (y, x), uint8, uint16, or the type in the TIFF

    Raises
    ------
    InputError
        The file is missing or damaged, holds several images, colours, NaN or infinity.
    """
    path = Path(path)
    image = _grey(path, _pixels(path))
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise InputError(f"{path} holds NaN or infinite values")
    return image


def read_labels(path: Path | str, n_classes: int | None = None) -> Labels:
    """Read a label image as class indices.

    An image of indices 0..C-1 is taken as it is, whatever its bit depth (a palette image: its indices); one of 0 and
    255 is a mask and becomes 0 and 1.

    Parameters
    ----------
    n_classes
        The number of classes C, if known.

    Returns
    -------
    array of uint8, shape (y, x), values 0..C-1

    Raises
    ------
    InputError
        The file cannot be read, or its values are not class indices; the message shows them.
    """
    path = Path(path)
    image = _grey(path, _pixels(path, keep_palette=True))
    values = np.unique(image)
    limit = MAX_CLASSES if n_classes is None else n_classes
    if values[-1] == 255 and set(values.tolist()) <= {0, 255} and limit >= 2:
        return (image > 0).astype(np.uint8)
    whole = bool(np.all(values == np.round(values)))
    if whole and values[0] >= 0 and values[-1] < limit:
        return image.astype(np.uint8)
    shown = ", ".join(f"{value:g}" for value in values[:12].tolist()) + (", ..." if len(values) > 12 else "")
    classes = f"0 to {limit - 1}" if n_classes is not None else "0, 1, 2, ... in class order"
    lossy = "; JPEG changes values, save labels as PNG or TIFF" if path.suffix.lower() in {".jpg", ".jpeg"} else ""
    raise InputError(f"{path} is no label image: its values are {shown}; expected are {classes}, or 0 and 255{lossy}")


def paired_files(images_dir: Path | str, labels_dir: Path | str) -> list[tuple[str, Path, Path]]:
    """Pair the images of a folder with the label images of the same name (without extension) in another.

    Returns
    -------
    list of (name, image path, label path), sorted by name

    Raises
    ------
    InputError
        A folder is missing or has no images, a name occurs twice, or files are without their partner.
    """
    images, labels = image_files(images_dir), image_files(labels_dir)
    problems = [
        f"{len(names)} {what} without {partner}: {_listed(names)}"
        for names, what, partner in (
            (sorted(set(images) - set(labels)), f"images in {images_dir}", f"a label image in {labels_dir}"),
            (sorted(set(labels) - set(images)), f"label images in {labels_dir}", f"an image in {images_dir}"),
        )
        if names
    ]
    if problems:
        raise InputError("; ".join(problems) + "; image and label image must have the same name")
    return [(name, images[name], labels[name]) for name in sorted(images)]


def image_files(folder: Path | str) -> dict[str, Path]:
    """Return the image files of a folder by their name without extension; hidden and other files are left out.

    Raises
    ------
    InputError
        The folder is missing or holds no image, or two files differ only by extension.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in files:
            raise InputError(f"{path} and {files[path.stem].name} have the same name: leave one of them")
        files[path.stem] = path
    if not files:
        raise InputError(f"there are no images in {folder} ({', '.join(SUFFIXES)})")
    return files


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _pixels(path: Path, keep_palette: bool = False) -> Array:
    """Return all the values of an image file."""
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        if path.suffix.lower() in {".tif", ".tiff"} and (found := _tiff_pixels(path)) is not None:
            return found
        return _pillow_pixels(path, keep_palette)
    except InputError:
        raise
    except Exception as error:  # a damaged file makes the reading libraries raise anything
        raise InputError(f"{path} cannot be read as an image ({error}); it may be damaged") from error


def _tiff_pixels(path: Path) -> Array | None:
    """Return the pixels of a TIFF; None where its compression (LZW) needs Pillow."""
    import tifffile

    from tomoseg.io.readers.tiff import tifffile_decodes
    from tomoseg.io.series import heard

    with heard("tifffile"), tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) > 1:
            raise InputError(f"{path} holds {len(tiff.pages)} images; give one image per file")
        page: Any = tiff.pages[0]
        if not tifffile_decodes(page) or page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return None
        pixels = np.asarray(page.asarray())
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
            return np.asarray(np.iinfo(pixels.dtype).max - pixels, pixels.dtype)
        return pixels


def _pillow_pixels(path: Path, keep_palette: bool) -> Array:
    from PIL import Image

    with Image.open(path) as image:
        n_images = getattr(image, "n_frames", 1)
        if n_images > 1:
            raise InputError(f"{path} holds {n_images} images; give one image per file")
        if image.mode == "P" and not keep_palette:
            return np.asarray(image.convert("RGB"))
        pixels = np.asarray(image)
        # Pillow widens 16-bit grey images to 32 bits in some modes.
        if image.mode == "I" and pixels.min() >= 0 and pixels.max() <= 65535:
            return pixels.astype(np.uint16)
        return pixels


def _grey(path: Path, pixels: Array) -> Array:
    """Return (y, x) from pixels that may have equal channels; transparency is left out."""
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if pixels.ndim == 3 and pixels.shape[-1] in {2, 3, 4}:
        colours = pixels[..., : 3 if pixels.shape[-1] > 2 else 1]
        if np.any(colours != colours[..., :1]):
            raise InputError(f"{path} is a colour image; give grey values (or, for labels, class indices)")
        pixels = colours[..., 0]
    if pixels.ndim != 2 or pixels.size == 0:
        raise InputError(f"{path} is not a 2D image: its shape is {pixels.shape}")
    return pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels.astype(pixels.dtype.newbyteorder("="))
