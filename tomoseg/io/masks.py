"""Masks of raw images: pixels where the mask is 0 are ignored."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, ArraySource
from tomoseg.errors import InputError
from tomoseg.io.formats import FORMATS
from tomoseg.io.image_files import npy_header
from tomoseg.io.raw import open_raw
from tomoseg.io.readers.mrc import read_single
from tomoseg.io.series import RawSeries, contiguous
from tomoseg.io.slices import read_slice

_MRC = next(f.extensions for f in FORMATS if f.module == "mrc")


@dataclass(frozen=True)
class Mask:
    """Which pixels count, for all images of a series, shape (y, x), or one by one, (n_tilt, y, x).

    `fetch` returns the values of images start..stop, (k, y, x), of a mask with one image per tilt; else that one image.
    """

    path: Path
    shape: tuple[int, ...]
    fetch: Callable[[slice], Array]

    def used(self, part: slice) -> NDArray[np.bool_]:
        """Return which pixels of images start..stop count: (k, y, x), or (1, y, x) where one mask holds for all."""
        return np.asarray(self.fetch(part if len(self.shape) == 3 else slice(0, 1)) != 0)


@contextmanager
def open_mask(path: Path) -> Iterator[Mask]:
    """Open a mask: a grey image as PNG, BMP, TIFF, MRC or NPY, or a stack of them as TIFF, MRC or NPY.

    Raises
    ------
    InputError
        The file is missing or damaged, or holds something else.
    """
    suffix = path.suffix.lower()
    image = read_single(path) if suffix in _MRC and path.is_file() else None
    series = None if image is not None else open_raw(path) if suffix in _MRC else _tiff_stack(path)
    if suffix == ".npy":
        yield _from_npy(path)
    elif series is not None:
        with series:
            yield Mask(path, series.shape, series.read)
    else:
        image = read_slice(path) if image is None else image
        yield Mask(path, image.shape, lambda _: image[None])


def _tiff_stack(path: Path) -> RawSeries | None:
    """Open a TIFF of several images; None where it is one image, or damaged: reading it as one image then says why."""
    if path.suffix.lower() not in {".tif", ".tiff"}:
        return None
    try:
        return open_raw(path)
    except InputError:
        return None


class MaskedSeries:
    """A tilt series (`tomoseg.arrays.ArraySource`) that is NaN where its mask is 0."""

    def __init__(self, series: ArraySource, mask: Mask) -> None:
        self._series, self._mask = series, mask
        self.shape = series.shape
        self.dtype = np.dtype(np.float32 if series.dtype.itemsize <= 2 else np.float64)

    def __getitem__(self, part: slice) -> Array:
        images = np.asarray(self._series[part], self.dtype)
        images[~np.broadcast_to(self._mask.used(part), images.shape)] = np.nan
        return images


def require_fit(mask: Mask, series_shape: tuple[int, ...]) -> None:
    """Raise InputError unless the mask is one image, or one per tilt, of the series' size."""
    n, height, width = series_shape
    if mask.shape in {(height, width), (n, height, width)}:
        return
    *stack, mask_height, mask_width = mask.shape
    count = f"{stack[0]} images" if stack else "one image"
    raise InputError(
        f"the mask {mask.path} holds {count} of {mask_width} x {mask_height} px: it must be one image of {width} x "
        f"{height} px, the size of the raw images, or {n} of them, by ascending angle"
    )


def _from_npy(path: Path) -> Mask:
    try:
        with path.open("rb") as file:
            shape, by_columns, dtype = npy_header(path, file)
            offset = file.tell()
    except OSError as error:
        raise InputError(f"cannot read the mask {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} cannot be read as a NumPy array: {error}") from error
    if by_columns:
        raise InputError(f"{path} is stored column by column: save np.ascontiguousarray of the array instead")
    stack = (1, *shape) if len(shape) == 2 else shape
    return Mask(path, shape, contiguous(path, offset, (stack[0], stack[1], stack[2]), dtype))
