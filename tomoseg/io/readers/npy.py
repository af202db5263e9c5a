"""NumPy arrays of a tilt series (n, y, x): pixels only, read without loading the whole file."""

from pathlib import Path

from tomoseg.errors import InputError
from tomoseg.io.image_files import npy_header
from tomoseg.io.series import RawSeries, contiguous, native, stack_shape


def read(path: Path, _signal: str | None = None) -> RawSeries:
    """Open an array of images.

    Raises `InputError` if it holds something else than numbers, is truncated, or stored column by column.
    """
    with path.open("rb") as file:
        shape, by_columns, dtype = npy_header(path, file)
        offset = file.tell()
    if by_columns:
        raise InputError(f"{path} is stored column by column: save np.ascontiguousarray of the array instead")
    sizes = stack_shape(path, shape, dtype)
    return RawSeries(path, "NumPy", sizes, native(dtype), contiguous(path, offset, sizes, dtype))
