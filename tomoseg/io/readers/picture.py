"""Pictures that hold one grey image: PNG, BMP, JPEG."""

from pathlib import Path

from tomoseg.arrays import Array
from tomoseg.io.series import RawSeries, stack_shape
from tomoseg.io.slices import read_slice


def read(path: Path, _signal: str | None = None) -> RawSeries:
    """Open a picture as a stack of one image.

    Raises `InputError` if it holds colours, or is damaged.
    """
    image = read_slice(path)
    shape = stack_shape(path, image.shape, image.dtype)

    def fetch(part: slice) -> Array:
        return read_slice(path)[None][part]

    series = RawSeries(path, path.suffix[1:].upper(), shape, image.dtype, fetch)
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        series.warnings.append(f"{path.name} is JPEG, which alters pixel values; use the original images")
    return series
