"""The opening of a raw tilt series: a file, or a folder with one file per tilt."""

from pathlib import Path

from tomoseg.errors import InputError
from tomoseg.io.input_files import is_pattern, is_store
from tomoseg.io.raw_files import open_images
from tomoseg.io.series import RawSeries
from tomoseg.io.tilt_files import open_tilt_files


def open_raw(path: Path | str, signal: str | None = None) -> RawSeries:
    """Open a tilt series lazily, with what its file, or its files, say of it.

    `path` is a file that holds the whole series, perhaps compressed by gzip or bzip2, a folder with one file per tilt,
    or a pattern of their names; `signal` is the one to read of several. Raises `InputError` if the file is missing,
    empty, truncated, of an unknown format, or not a stack of grey images.
    """
    path = Path(path)
    if is_pattern(path) or (path.is_dir() and not is_store(path)):
        return open_tilt_files(path, signal)
    series = open_images(path, signal)
    if series.shape[0] == 1:
        series.close()
        raise InputError(
            f"{path} holds a single 2D image ({series.shape[1]} x {series.shape[2]}), not a tilt series: give a stack "
            "of images, or the folder that holds one file per tilt"
        )
    return series
