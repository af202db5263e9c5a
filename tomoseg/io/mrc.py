"""Writers of MRC files (2014 standard, doi:10.1016/j.jsb.2015.04.002), slab by slab, and of angle files."""

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.ahead import ahead
from tomoseg.arrays import Array, ArraySource, Box
from tomoseg.chunks import pieces_of, write_piece
from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path
from tomoseg.runtime import Track, untracked

PIECE_BYTES = 64 << 20
HEADER_BYTES = 1024
MODES: dict[str, int] = {"i1": 0, "i2": 1, "f4": 2, "u2": 6, "f2": 12}


def write_mrc(
    path: Path | str,
    data: ArraySource,
    pixel_size_nm: float | None,
    *,
    kind: Literal["stack", "volume"] = "volume",
    label: str = "written by tomoseg",
    what: str = "writing MRC",
    track: Track = untracked,
) -> None:
    """Write a tilt series or a volume as an MRC file, atomically.

    Parameters
    ----------
    path
        File to write; an existing one is replaced.
    data : array or handle, (n, y, x)
        Real values, read in boxes of about 64 MiB. int8, int16, uint16, float16 and float32 are stored unchanged,
        float64 as float32. Other integers (labels) and bool are stored in the narrowest type that holds all values:
        int8 (mode 0, signed in the 2014 standard), int16 (mode 1) or uint16 (mode 6). This takes one more pass.
    pixel_size_nm
        Size of a pixel or voxel, nm; None or NaN if unknown, stored as a cell size of 0.
    kind
        "stack": images of a series (space group 0); "volume": a 3D volume (space group 1).
    label
        First label of the header, ASCII, cut to 80 characters.
    what, track
        Text shown with the progress over the boxes, and what shows it; `runtime.track` fits.

    Raises
    ------
    InputError
        `data` is not 3D, is empty, complex, holds integers beyond 16 bits, or the folder is not writable.
    """
    path = Path(path)
    shape = _checked_shape(path, data)
    pieces = pieces_of(data, data.dtype.itemsize, PIECE_BYTES)
    dtype = _stored_dtype(path, data, pieces)
    statistics = _Statistics()

    def read(piece: Box) -> tuple[Box, Array]:
        return piece, np.ascontiguousarray(data[piece], dtype=dtype)

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(HEADER_BYTES))  # it holds the statistics, which are known at the end
        with closing(ahead(read, pieces)) as parts:
            for _ in track(pieces, what):
                piece, values = next(parts)
                statistics.add(values)
                write_piece(file, HEADER_BYTES, values, piece, shape)
        file.seek(0)
        file.write(_header(shape, dtype, pixel_size_nm, statistics, kind=kind, label=label).tobytes())


def write_angles(path: Path | str, angles_deg: Sequence[float] | NDArray[np.floating[Any]]) -> None:
    """Write tilt angles in degrees, one per line (.rawtlt); they read back exactly.

    Raises `InputError` if an angle is NaN or infinite, or the folder cannot be written to.
    """
    angles = np.asarray(angles_deg, dtype=np.float64).ravel()
    if not np.isfinite(angles).all():
        raise InputError(f"cannot write {path}: an angle is NaN or infinite")
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{float(angle)!r}\n" for angle in angles), encoding="ascii")


class _Statistics:
    """Running minimum, maximum, mean and rms deviation of the finite values of images."""

    def __init__(self) -> None:
        self.smallest, self.largest, self.mean = math.inf, -math.inf, 0.0
        self._n, self._squares = 0, 0.0

    def add(self, images: Array) -> None:
        """Add images; Chan's update keeps the variance accurate where the mean is large compared with it."""
        from tomoseg.io.finite_statistics import finite_statistics  # compiled: its import takes a while

        native = np.float32 if images.dtype == np.float16 else images.dtype.newbyteorder("=")
        for image in images:
            size, smallest, largest, mean, squares = finite_statistics(image.astype(native, copy=False).ravel())
            if size == 0:
                continue
            self.smallest, self.largest = min(self.smallest, smallest), max(self.largest, largest)
            n, delta = self._n + size, mean - self.mean
            self._squares += squares + delta**2 * self._n * size / n
            self.mean += delta * size / n
            self._n = n

    def for_header(self) -> tuple[float, float, float, float]:
        """Return minimum, maximum, mean and rms; the standard's "not determined" if no value was finite."""
        if self._n == 0:
            return 0.0, -1.0, -2.0, -1.0
        return self.smallest, self.largest, self.mean, math.sqrt(self._squares / self._n)


def _checked_shape(path: Path, data: ArraySource) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in data.shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"cannot write {path}: an MRC file holds a non-empty 3D array, and this one has shape {shape}")
    if data.dtype.kind not in "fiub":
        raise InputError(f"cannot write {path}: an MRC file cannot hold values of type {data.dtype}; give real numbers")
    return shape


def _stored_dtype(path: Path, data: ArraySource, pieces: Sequence[Box]) -> np.dtype[Any]:
    """Return the little-endian dtype of the file: that of the data where MRC has it, else one that holds all values."""
    code = f"{data.dtype.kind}{data.dtype.itemsize}"
    if code in MODES:
        return np.dtype(f"<{code}")
    if data.dtype.kind == "f":
        return np.dtype("<f4")
    if data.dtype.kind == "b":
        return np.dtype("<i1")
    extremes = [(int(part.min()), int(part.max())) for part in (np.asarray(data[piece]) for piece in pieces)]
    smallest, largest = min(e[0] for e in extremes), max(e[1] for e in extremes)
    for code in ("i1", "i2", "u2"):
        limits = np.iinfo(code)
        if limits.min <= smallest and largest <= limits.max:
            return np.dtype(f"<{code}")
    raise InputError(
        f"cannot write {path}: MRC holds integers of at most 16 bits, and the values range from {smallest} to "
        f"{largest}; convert them to float32"
    )


def _header(
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    pixel_size_nm: float | None,
    statistics: _Statistics,
    *,
    kind: str,
    label: str,
) -> NDArray[np.void]:
    from mrcfile.dtypes import HEADER_DTYPE

    n, ny, nx = shape
    known = pixel_size_nm is not None and math.isfinite(pixel_size_nm)
    voxel_angstrom = 10.0 * pixel_size_nm if known and pixel_size_nm is not None else 0.0  # nm * (10 Å / nm)
    header = np.zeros((), dtype=np.dtype(HEADER_DTYPE).newbyteorder("<"))
    header["nx"], header["ny"], header["nz"] = nx, ny, n
    header["mode"] = MODES[dtype.str[1:]]
    # The standard has mz = 1 for a series of images; the cell is then one pixel thick.
    depth = 1 if kind == "stack" else n
    header["mx"], header["my"], header["mz"] = nx, ny, depth
    header["cella"] = (nx * voxel_angstrom, ny * voxel_angstrom, depth * voxel_angstrom)
    header["cellb"] = (90.0, 90.0, 90.0)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = statistics.for_header()
    header["ispg"] = 0 if kind == "stack" else 1
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0)  # little-endian
    header["nlabl"] = 1
    header["label"][0] = label.encode("ascii", "replace")[:80]
    return header
