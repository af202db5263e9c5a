"""MRC stacks: the 2014 standard, SerialEM, FEI1/FEI2 extended headers, and FEI's older files without `MAP ` stamp.

Layout: 1024 bytes of header, `nsymbt` bytes of extended header, the images. The standard is
doi:10.1016/j.jsb.2015.04.002; SerialEM's and IMOD's use of the extra bytes is described in IMOD's "MRC file format".
"""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.mdoc import PLACEHOLDER_NM, axis_from_titles
from tomoseg.io.series import Angles, RawSeries, contiguous, jsonable, native, nominal_axis, stack_shape
from tomoseg.io.units import PixelSize, checked_pixel_size

HEADER_BYTES = 1024
_DTYPES = {0: "i1", 1: "i2", 2: "f4", 3: "complex", 4: "c8", 6: "u2", 12: "f2"}
_PACKED = 101  # two pixels of 4 bits in a byte, the first one in the lower half; each row begins with a new byte
_LARGEST = 1_000_000  # pixels or images along one dimension; more means that the byte order is the other one
_LARGEST_EXTENDED = 64 << 20  # bytes; thousands of records of any kind
_IMOD_STAMP = 1146047817  # "IMOD"
_IMOD_SIGNED_BYTES = 1

# FEI before 2013: 1024 records of 32 reals, of which these are used.
_FEI_FIELDS = (
    *("alpha_tilt_deg", "beta_tilt_deg", "x_stage_m", "y_stage_m", "z_stage_m", "x_shift_m", "y_shift_m", "defocus_m"),
    *("exposure_time_s", "mean_intensity", "tilt_axis_deg", "pixel_size_m", "magnification", "high_tension_V"),
    *("binning", "applied_defocus_m"),
)
_FEI_REALS = 32
_FEI_RECORDS = 1024

# SerialEM: (flag, name, bytes) of what is stored for each image, in this order.
_SERIALEM_FIELDS = (
    (1, "tilt", 2),
    (2, "piece", 6),
    (4, "stage", 4),
    (8, "magnification", 2),
    (16, "intensity", 2),
    (32, "dose", 4),
)
# Of neighbouring pixels, those that differ by half of the range of their type: more are a sign of the wrong type, if
# the other one has far fewer. Spikes and white noise over the whole range have as many in both.
MOST_JUMPS, FEWER_JUMPS = 1e-4, 0.2
SAMPLED_BYTES = 200_000  # of each place that is looked at
# FEI1/FEI2 "Bitmask 1": which fields were filled in.
_FEI1_ALPHA, _FEI1_AXIS, _FEI1_PIXEL = 1 << 7, 1 << 12, 3 << 14


def read(path: Path, _signal: str | None = None) -> RawSeries:
    """Open an MRC stack.

    Raises `InputError` if the file has no MRC header, is truncated, or holds a mode that a tilt series cannot have.
    """
    header, order = _header(path)
    dtype = _dtype(path, header, order)
    shape = stack_shape(path, (header["nz"], header["ny"], header["nx"]), dtype)
    n_extended = int(header["nsymbt"])
    offset = HEADER_BYTES + n_extended
    fetch = _packed if int(header["mode"]) == _PACKED else contiguous
    series = RawSeries(path, "MRC", shape, native(dtype), fetch(path, offset, shape, dtype))
    if dtype.kind in "iu" and int(header["mode"]) != _PACKED:
        _decide_sign(series, header, order, offset, dtype)
    titles = _titles(header)
    series.pixel_size = _cell_pixel_size(header)
    series.tilt_axis = axis_from_titles(titles)
    series.metadata = _metadata(header, titles)
    image_bytes = shape[1] * (-(-shape[2] // 2) if int(header["mode"]) == _PACKED else shape[2] * dtype.itemsize)
    surplus = (path.stat().st_size - offset) // image_bytes - shape[0]
    if surplus > 0:
        series.warnings.append(f"{path.name} has room for {surplus} more images than the {shape[0]} in its header")
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        extended = file.read(min(n_extended, _LARGEST_EXTENDED))
    _read_extended(series, header, order, extended)
    return series


def read_single(path: Path) -> Array | None:
    """Return the image (y, x) of a file that holds only one; None where it holds several.

    Raises `InputError` if the file has no MRC header, is truncated, or holds a mode that a grey image cannot have.
    """
    header, _ = _header(path)
    if header["nz"] != 1:
        return None
    with read(path) as series:
        image: Array = series.read([0])[0]
    return image


def _header(path: Path) -> tuple[Any, str]:
    """Return the header and its byte order: the one in which it makes sense."""
    from mrcfile.dtypes import HEADER_DTYPE

    with path.open("rb") as file:
        raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise InputError(f"{path} is truncated: it has {len(raw)} bytes and an MRC header alone has {HEADER_BYTES}")
    orders = ("<", ">") if raw[212:213] != b"\x11" else (">", "<")
    headers = [(np.frombuffer(raw, np.dtype(HEADER_DTYPE).newbyteorder(order))[0], order) for order in orders]
    known = [pair for pair in headers if int(pair[0]["mode"]) in {*_DTYPES, 16, _PACKED}]
    sensible = [
        (header, order)
        for header, order in known
        if all(0 < int(header[key]) <= _LARGEST for key in ("nx", "ny", "nz")) and header["nsymbt"] >= 0
    ]
    if sensible:
        # Without a stamp, 256 pixels pass for 65536 in the other order: the smaller image is the true one.
        return min(sensible, key=lambda pair: math.prod(int(pair[0][key]) for key in ("nx", "ny", "nz")))
    first, _ = (known or headers)[0]
    raise InputError(
        f"{path} has no usable MRC header: it gives {int(first['nx'])} x {int(first['ny'])} pixels, {int(first['nz'])} "
        f"images, mode {int(first['mode'])} and {int(first['nsymbt'])} bytes of extended header"
    )


def _dtype(path: Path, header: Any, order: str) -> np.dtype[Any]:
    """Return the dtype of the pixels as the standard has it: bytes are signed."""
    mode = int(header["mode"])
    if mode == 16:
        raise InputError(f"{path} holds RGB colours (MRC mode 16), which tomoseg does not read: export 16-bit integers")
    if mode in {3, 4}:
        raise InputError(f"{path} holds complex values (MRC mode {mode}), a Fourier transform and not a tilt series")
    return np.dtype("u1") if mode == _PACKED else np.dtype(order + _DTYPES[mode])


def _packed(path: Path, offset: int, shape: tuple[int, int, int], _dtype: np.dtype[Any]) -> Callable[[slice], Array]:
    """Return a `fetch` for images of 4-bit numbers, which become u1."""
    read_bytes = contiguous(path, offset, (shape[0], shape[1], -(-shape[2] // 2)), np.dtype("u1"))

    def fetch(part: slice) -> Array:
        packed = read_bytes(part)
        return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1)[..., : shape[2]]

    return fetch


def _decide_sign(series: RawSeries, header: Any, order: str, offset: int, dtype: np.dtype[Any]) -> None:
    """Read integers with the sign that they were written with, and say which.

    Bytes are signed in the 2014 standard, but IMOD and SerialEM wrote unsigned ones and say so in their flags. Others
    say nothing, or the wrong thing: then smallest and largest value in the header decide, if they fit one sign only,
    else the pixels. In an image, neighbouring pixels are alike; read with the wrong sign, some of them jump by the
    whole range of the type.
    """
    kinds = np.dtype(dtype.str.replace("u", "i")), np.dtype(dtype.str.replace("i", "u"))
    stamp, flags = struct.unpack(f"{order}ii", header["extra2"].tobytes()[40:48])
    kind, why = dtype, "as in the MRC standard"  # what holds where nothing tells more
    if dtype.itemsize == 1 and stamp == _IMOD_STAMP:
        kind = kinds[0 if flags & _IMOD_SIGNED_BYTES else 1]
        why = "according to IMOD's flag"
    bands = _bands(series, offset, dtype)
    pixels = [_Pixels.of(bands, one) for one in kinds]
    low, high = float(header["dmin"]), float(header["dmax"])
    fitting = [one for one, seen in zip(kinds, pixels, strict=True) if low <= seen.smallest and seen.largest <= high]
    jumps = {one: seen.jumps for one, seen in zip(kinds, pixels, strict=True)}
    other = kinds[1] if kind == kinds[0] else kinds[0]
    if low < high and len(fitting) == 1 and (why != "according to IMOD's flag" or fitting[0] == kind):
        if fitting[0] != kind:
            kind, why = fitting[0], f"because the header gives values from {low:g} to {high:g}"
    elif jumps[kind] > MOST_JUMPS and jumps[other] < FEWER_JUMPS * jumps[kind]:
        # Nothing is contradicted where the header says nothing.
        tell = series.notes if why == "as in the MRC standard" and dtype.itemsize == 1 else series.warnings
        tell.append(
            f"the pixels of {series.path.name} are read as {_signed(other)}: read as {_signed(kind)}, {why}, "
            f"{jumps[kind]:.2%} of neighbouring pixels would lie half of the range apart or more; so do "
            f"{jumps[other]:.2%}"
        )
        kind, why = other, ""
    if dtype.itemsize == 1 and why:
        series.notes.append(f"the pixels are {_signed(kind)}, {why}")
    if kind != dtype:
        series.dtype, series.fetch = native(kind), contiguous(series.path, offset, series.shape, kind)


def _signed(dtype: np.dtype[Any]) -> str:
    what = "bytes" if dtype.itemsize == 1 else "16-bit numbers"
    return f"{'unsigned' if dtype.kind == 'u' else 'signed'} {what}"


@dataclass(frozen=True)
class _Pixels:
    """What a few images hold: extremes, and the part of neighbours that differ by half of the range or more."""

    smallest: int
    largest: int
    jumps: float

    @classmethod
    def of(cls, bands: Sequence[Array], dtype: np.dtype[Any]) -> "_Pixels":
        """Return what bands of rows hold as numbers of `dtype`."""
        extremes, n_jumps, n_pairs = [], 0, 0
        for band in bands:
            image = band.view(dtype).astype(np.int32)
            extremes += [int(image.min()), int(image.max())]
            for axis in (0, 1):
                steps = np.abs(np.diff(image, axis=axis))
                n_jumps += int(np.count_nonzero(steps >= 1 << (8 * dtype.itemsize - 1)))
                n_pairs += steps.size
        return cls(min(extremes), max(extremes), n_jumps / max(n_pairs, 1))


def _bands(series: RawSeries, offset: int, dtype: np.dtype[Any]) -> list[Array]:
    """Return rows of the first image, the last and three between them, as stored: all of small images."""
    n, height, width = series.shape
    row_bytes = width * dtype.itemsize
    rows = min(height, max(2, SAMPLED_BYTES // row_bytes))
    starts = sorted({0, (height - rows) // 2, height - rows})
    images = sorted({0, n // 3, n // 2, (2 * n) // 3, n - 1})
    places = (offset + (i * height + start) * row_bytes for i in images for start in starts)
    return [np.fromfile(series.path, dtype, rows * width, offset=at).reshape(rows, width) for at in places]


def _titles(header: Any) -> tuple[str, ...]:
    labels = [bytes(label).decode("latin-1").strip("\0 ") for label in header["label"]]
    return tuple(label for label in labels if label)


def _cell_pixel_size(header: Any) -> PixelSize:
    """Return the pixel size from the cell (Å) and its number of grid points."""
    mx, my = int(header["mx"]), int(header["my"])
    width = float(header["cella"]["x"]) / mx if mx > 0 else 0.0
    height = float(header["cella"]["y"]) / my if my > 0 else 0.0
    sides = float(f"{height:.7g}"), float(f"{width:.7g}")  # the digits that single precision holds
    return checked_pixel_size(sides, ("Å", "Å"), "MRC header", PLACEHOLDER_NM)


def _metadata(header: Any, titles: tuple[str, ...]) -> dict[str, Any]:
    return {
        "mode": int(header["mode"]),
        "labels": list(titles),
        "extended_header": _exttyp(header),
        "minimum": jsonable(header["dmin"]),
        "maximum": jsonable(header["dmax"]),
        "mean": jsonable(header["dmean"]),
    }


def _exttyp(header: Any) -> str:
    return bytes(header["exttyp"]).decode("latin-1").strip("\0 ")


def _read_extended(series: RawSeries, header: Any, order: str, extended: bytes) -> None:
    """Take angles, pixel size and settings from the extended header, whichever kind it is."""
    kind, titles = _exttyp(header), _titles(header)
    # Two 16-bit numbers at byte 128: Agard's counts of integers and reals, or SerialEM's size and flags.
    n_integers, n_reals = struct.unpack(f"{order}hh", header["extra2"].tobytes()[16:20])
    if kind in {"FEI1", "FEI2"}:
        _read_fei(series, kind, extended, order)
    elif kind == "SERI" or (not kind and any("SerialEM" in title for title in titles)):
        _read_serialem(series, extended, n_integers, n_reals, order)
    elif any("Fei Company" in title for title in titles) or (
        (n_integers, n_reals) == (0, _FEI_REALS) and len(extended) == 4 * _FEI_REALS * _FEI_RECORDS
    ):
        _read_old_fei(series, extended, order)


def _set_angles(series: RawSeries, angles: Angles, where: str) -> None:
    """Use the angles of an extended header, unless they were evidently not filled in."""
    if not np.isfinite(angles).all() or np.abs(angles).max() > 180:
        series.warnings.append(f"the tilt angles in the {where} are not used: not all are between -180 and 180 degrees")
    elif np.any(angles != 0):
        series.angles_deg, series.angles_source = angles, where


def _read_fei(series: RawSeries, kind: str, extended: bytes, order: str) -> None:
    from mrcfile.dtypes import get_ext_header_dtype

    dtype = get_ext_header_dtype(kind.encode(), order)
    size = struct.unpack(f"{order}i", extended[:4])[0] if len(extended) >= 4 else 0
    n = series.shape[0]
    where = f"{kind} extended header"
    if size < dtype.itemsize or len(extended) < n * size:
        series.warnings.append(f"the {where} is incomplete ({len(extended)} bytes for {n} images) and is not used")
        return
    # Records can be longer than the fields known today.
    padded = np.dtype({"names": ["known"], "formats": [dtype], "itemsize": size})
    records = np.frombuffer(extended, padded, n)["known"]
    filled = int(np.bitwise_and.reduce(records["Bitmask 1"].astype(np.uint32)))
    if filled & _FEI1_ALPHA:
        _set_angles(series, records["Alpha tilt"].astype(np.float64), where)
    if filled & _FEI1_PIXEL == _FEI1_PIXEL:
        _set_pixel_size(series, records["Pixel size Y"], records["Pixel size X"], where)
    if filled & _FEI1_AXIS and series.tilt_axis is None:
        series.tilt_axis = nominal_axis(float(records["Tilt axis angle"][0]))
    first = {name: records[0][name] for name in dtype.names or () if "reserved" not in name and "Unused" not in name}
    series.metadata["first_image"] = {name: jsonable(v) for name, v in first.items() if v and "Bitmask" not in name}


def _read_old_fei(series: RawSeries, extended: bytes, order: str) -> None:
    n = series.shape[0]
    where = "FEI extended header"
    if len(extended) < 4 * _FEI_REALS * n:
        series.warnings.append(f"the {where} is incomplete ({len(extended)} bytes for {n} images) and is not used")
        return
    records: Array = np.frombuffer(extended, f"{order}f4", n * _FEI_REALS).reshape(n, _FEI_REALS)
    column = {name: records[:, i].astype(np.float64) for i, name in enumerate(_FEI_FIELDS)}
    # Single precision: four decimals are what was meant.
    _set_angles(series, np.round(column["alpha_tilt_deg"], 4), where)
    _set_pixel_size(series, column["pixel_size_m"], column["pixel_size_m"], where)
    # These files hold a tilt axis of 0 also where the axis runs along x: 0 means "not filled in" here.
    if column["tilt_axis_deg"][0] != 0 and series.tilt_axis is None:
        series.tilt_axis = nominal_axis(float(column["tilt_axis_deg"][0]))
    series.metadata["first_image"] = {name: jsonable(v[0]) for name, v in column.items() if v[0] != 0}


def _set_pixel_size(series: RawSeries, height_m: Array, width_m: Array, where: str) -> None:
    """Use the extended header's pixel size (m); the main header's is a copy of it, or a placeholder."""
    height_m, width_m = height_m.astype(np.float64), width_m.astype(np.float64)
    if not np.allclose(width_m, width_m[0], rtol=1e-3, atol=0) or not math.isfinite(width_m[0]):
        series.pixel_size = PixelSize(doubt=f"the pixel size in the {where} is not the same for all images")
        return
    # Single precision of a number in metres: 7 digits are what was meant.
    size = checked_pixel_size((float(f"{height_m[0]:.7g}"), float(f"{width_m[0]:.7g}")), ("m", "m"), where)
    if size.nm is not None or series.pixel_size.nm is None:
        series.pixel_size = size


def _read_serialem(series: RawSeries, extended: bytes, n_bytes: int, flags: int, order: str) -> None:
    n = series.shape[0]
    fields = [(name, size) for bit, name, size in _SERIALEM_FIELDS if flags & bit]
    if not flags & 1 or sum(size for _, size in fields) > n_bytes or len(extended) < n * n_bytes:
        return
    # The tilt angle comes first in each image's record, in hundredths of a degree.
    tilts = np.frombuffer(extended, np.dtype({"names": ["tilt"], "formats": [f"{order}i2"], "itemsize": n_bytes}), n)
    _set_angles(series, tilts["tilt"].astype(np.float64) / 100.0, "SerialEM extended header")
