"""The table of file formats, and the opening of a raw tilt series in any of them, without reading its images."""

import importlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tomoseg.errors import InputError, shown
from tomoseg.io.angles import checked
from tomoseg.io.limits import reason_of
from tomoseg.io.mdoc import mdoc_beside, read_mdoc
from tomoseg.io.regular import open_regular
from tomoseg.io.sandbox import open_in_sandbox
from tomoseg.io.series import RawSeries

Reader = Callable[[Path], RawSeries]
SNIFFED_BYTES = 1024


@dataclass(frozen=True)
class Format:
    """A file format: the extensions of its files, how their content begins, and the module that reads them.

    `libraries` are those that the module needs; a module that needs any runs in the sandbox.
    """

    name: str
    extensions: tuple[str, ...]
    module: str
    recognises: Callable[[bytes], bool]
    libraries: tuple[str, ...] = ()

    def open(self, path: Path) -> RawSeries:
        """Open a file of this format."""
        if self.libraries:
            return open_in_sandbox(path, self.module, self.libraries)
        read: Reader = importlib.import_module(f"tomoseg.io.readers.{self.module}").read
        return read(path)


# The content decides, the extension only where content has no mark (FEI's older MRC files).
FORMATS: tuple[Format, ...] = (
    Format(
        "HDF5 (Velox or NCEM EMD, HyperSpy, DXchange)",
        (".emd", ".hspy", ".h5", ".hdf5", ".hdf"),
        "hdf5",
        lambda head: head.startswith(b"\x89HDF\r\n\x1a\n"),
        ("h5py", "hdf5plugin"),
    ),
    Format(
        "TIFF",
        (".tif", ".tiff"),
        "tiff",
        lambda head: head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"},
        ("tifffile", "imagecodecs"),
    ),
    Format("TIA", (".ser", ".emi"), "ser", lambda head: head[:4] == b"II\x97\x01"),
    Format(
        "MRC", (".mrc", ".st", ".ali", ".rec", ".mrcs", ".map", ".preali"), "mrc", lambda head: head[208:211] == b"MAP"
    ),
    Format("Digital Micrograph", (".dm3", ".dm4"), "dm", lambda head: head[:4] in {b"\0\0\0\x03", b"\0\0\0\x04"}),
)


def supported() -> str:
    """Return the formats and their extensions in words."""
    return ", ".join(f"{f.name} ({' '.join(f.extensions)})" for f in FORMATS)


def open_raw(path: Path | str) -> RawSeries:
    """Open a tilt series lazily, with what the file and its companion say of it.

    A companion .mdoc file (`X.mrc.mdoc`, `X.mdoc`) beside the file is used for angles and pixel size. Raises
    `InputError` if the file is missing, empty, truncated, of an unknown format, or not a stack of grey images.
    """
    path = Path(path)
    head = _head(path)
    kind = _format_of(path, head)
    try:
        series = kind.open(path)
    except InputError:
        raise
    except Exception as error:  # a damaged file makes the reading libraries raise anything
        raise InputError(
            f"{path} cannot be read as {kind.name}: {reason_of(error)}; it may be damaged, truncated or in another "
            "format"
        ) from error
    try:
        _use_mdoc(series, path)
        _drop_impossible_angles(series)
    except BaseException:
        series.close()
        raise
    return series


def _head(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a folder; give one file that holds the whole tilt series")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is a device or a pipe; give a file that holds the whole tilt series")
        if not status.st_size:  # also those of /proc, some of which never end
            raise InputError(f"{path} is empty (0 bytes)")
        with open_regular(path) as file:
            return file.read(SNIFFED_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _format_of(path: Path, head: bytes) -> Format:
    by_content = next((f for f in FORMATS if f.recognises(head)), None)
    by_name = next((f for f in FORMATS if path.suffix.lower() in f.extensions), None)
    # DM's mark is only four bytes, which an MRC file of 3 or 4 columns in the other byte order has too.
    if by_content is None or (by_content.module == "dm" and by_name is not None):
        by_content = by_name
    if by_content is None:
        raise InputError(f"the format of {path} is not recognised; supported are {supported()}")
    return by_content


def _use_mdoc(series: RawSeries, path: Path) -> None:
    """Take angles, pixel size and tilt axis from a companion .mdoc."""
    found = mdoc_beside(path)
    if found is None:
        return
    mdoc = read_mdoc(found)
    n = series.shape[0]
    if len(mdoc.images) != n:
        series.warnings.append(f"{found.name} is not used: it describes {len(mdoc.images)} images, the stack has {n}")
        return
    angles = checked(mdoc.angles_deg(), [f"[ZValue = {i}]" for i in range(n)], found)
    before = series.angles_deg
    # The extended header holds hundredths of a degree; a larger difference means another series.
    if before is not None and np.abs(angles - before).max() > 0.02:
        series.warnings.append(
            f"the angles of {found.name} differ by up to {np.abs(angles - before).max():.4g} deg from those in the "
            f"{series.angles_source}; {found.name} is used"
        )
    series.angles_deg, series.angles_source = angles, found.name
    if series.pixel_size.nm is None and (size := mdoc.pixel_size()).nm is not None:
        series.pixel_size = size
    series.tilt_axis = series.tilt_axis or mdoc.tilt_axis()
    series.metadata["mdoc"] = {"header": mdoc.header, "titles": list(mdoc.titles), "first_image": mdoc.images[0]}


def _drop_impossible_angles(series: RawSeries) -> None:
    """Drop angles that are NaN, infinite or beyond half a turn: such metadata are not those of a tilt series."""
    angles = series.angles_deg
    if angles is not None and not (np.isfinite(angles).all() and np.abs(angles).max() <= 180):
        series.warnings.append(
            f"the tilt angles in the {shown(series.angles_source)} are not used: not all are between -180 and 180 "
            "degrees"
        )
        series.angles_deg, series.angles_source = None, ""
