"""A raw tilt series in a file: what the file says of it, and its images, read on demand."""

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError, shown
from tomoseg.io.limits import reason_of
from tomoseg.io.units import PixelSize
from tomoseg.words import bytes_as_text

Axis = Literal["x", "y"]
Angles = NDArray[np.float64]
COLOUR_IMAGES = "holds colour images; a tilt series has one number per pixel: export it in grey values"
LARGEST_SIDE = 1_000_000  # pixels or images along one dimension
FEW_IMAGES = 5  # fewer are hardly a tilt series
MOST_LISTED = 12  # signals in a message
_MOST_MESSAGES = 1000  # of a library about one file


@dataclass(frozen=True)
class Signal:
    """One of the images, stacks and maps that a file holds: what a detector or a calculation gave.

    `shape` is as stored, `n_images` how many images (y, x) a tilt series of it would have, 0 where it can be none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    n_images: int


@dataclass(frozen=True)
class AngleSource:
    """Tilt angles in degrees, and where they come from in words.

    `angles_deg` has one for each image of a series; NaN where the source says nothing of an image. `is_solved` are
    angles that an alignment has refined.
    """

    name: str
    angles_deg: Angles
    is_solved: bool = False


@dataclass
class RawSeries:
    """A lazily opened stack of images; use it as a context manager.

    `fetch` reads images start..stop of the file, (k, y, x), for `read`. Angles are in the order of the images, None
    where neither the file nor its companion holds them. `tilt_axis` is the direction of the image along which the
    metadata say that the axis runs. `metadata` is JSON-able. `notes` and `warnings` tell the user how the file was
    read; `set_aside` says which sources of angles are not used, and why; `table` are lines that show how a series of
    several files was understood. `more_angles` are other sources of them. Reading takes `scratch_bytes` of memory on
    top of the images: a chunk is decoded as a whole. `signals` are all that the file holds, and `signal` the place of
    this one among them.
    """

    path: Path  # the file that holds the pixels
    format: str
    shape: tuple[int, int, int]  # (n, y, x)
    dtype: np.dtype[Any]  # the native form of the stored type
    fetch: Callable[[slice], Array]
    angles_deg: Angles | None = None
    angles_source: str = ""
    pixel_size: PixelSize = field(default_factory=PixelSize)
    tilt_axis: Axis | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    close: Callable[[], None] = lambda: None
    scratch_bytes: int = 0
    signals: list[Signal] = field(default_factory=list)
    signal: int = 0
    more_angles: list[AngleSource] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    table: list[str] = field(default_factory=list)

    def read(self, images: slice | Sequence[int] | NDArray[np.integer[Any]]) -> Array:
        """Return the images of a slice or a list of indices, in that order: (k, y, x), native dtype, C order.

        Only these images are read; neighbouring ones, in either direction, are read in one go. Raises `InputError` if
        the images cannot be decoded, or do not fit into memory.
        """
        indices = range(*images.indices(self.shape[0])) if isinstance(images, slice) else [int(i) for i in images]
        try:
            return self._read(indices)
        except MemoryError as error:
            needed = len(indices) * self.shape[1] * self.shape[2] * self.dtype.itemsize
            raise InputError(
                f"there is not enough memory for {len(indices)} images of {self.path}, which take "
                f"{bytes_as_text(needed)}"
            ) from error

    def _read(self, indices: Sequence[int]) -> Array:
        out = np.empty((len(indices), *self.shape[1:]), self.dtype)
        done = 0
        for first, last in _runs(indices):
            step = 1 if last >= first else -1
            low, high = min(first, last), max(first, last)
            try:
                part = self.fetch(slice(low, high + 1))
            except (MemoryError, InputError):
                raise
            except Exception as error:  # a damaged file makes the reading libraries raise anything
                raise InputError(
                    f"images {low + 1} to {high + 1} of {self.path} cannot be read ({reason_of(error)}); the file is "
                    "damaged"
                ) from error
            out[done : done + len(part)] = part[::step]
            done += len(part)
        return out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut indices into (first, last) of runs that go up or down by one."""
    start = 0
    while start < len(indices):
        stop = start + 1
        step = indices[stop] - indices[start] if stop < len(indices) else 0
        while abs(step) == 1 and stop < len(indices) and indices[stop] - indices[stop - 1] == step:
            stop += 1
        yield indices[start], indices[stop - 1]
        start = stop


def stack_shape(path: Path, shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, int, int]:
    """Return `shape` as (n, y, x) if it can be that of images of real numbers; a single image is a stack of one.

    Raises `InputError` for no images, more dimensions, colour or complex values.
    """
    sizes = tuple(int(n) for n in shape)
    size = " x ".join(str(n) for n in sizes)
    if dtype.names is not None:
        raise InputError(f"{path} {COLOUR_IMAGES}")
    if dtype.kind == "c":
        raise InputError(f"{path} holds complex values (a Fourier transform or a phase image), not a tilt series")
    if dtype.kind not in "iufb":
        raise InputError(f"{path} holds values of type {dtype}, which are not numbers")
    if len(sizes) < 2:
        raise InputError(f"{path} holds {size} values in a row, not a tilt series")
    if len(sizes) > 3:
        raise InputError(f"{path} has {len(sizes)} dimensions ({size}); a tilt series has three: tilt, y, x")
    if min(sizes) < 1:
        raise InputError(f"{path} is empty: its size is {size}")
    if max(sizes) > LARGEST_SIDE:
        raise InputError(f"{path} is damaged: its header gives a size of {size}")
    *stack, height, width = sizes
    return (stack[0] if stack else 1), height, width


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in this machine's byte order; bool as uint8."""
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def contiguous(path: Path, offset: int, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Callable[[slice], Array]:
    """Return a `fetch` for images stored one after the other from `offset` on, after checking that all are there.

    They are read, not memory-mapped: a mapped file that vanishes or shrinks on a network disk kills the process. Raises
    `InputError` if the file is shorter than its header says.
    """
    image_bytes = shape[1] * shape[2] * dtype.itemsize  # Python integers: a lying header cannot overflow
    require_bytes(path, offset + shape[0] * image_bytes, shape[0], (path.stat().st_size - offset) // image_bytes)

    def fetch(part: slice) -> Array:
        start, stop, _ = part.indices(shape[0])
        count = (stop - start) * shape[1] * shape[2]
        return np.fromfile(path, dtype, count, offset=offset + start * image_bytes).reshape(-1, *shape[1:])

    return fetch


def require_bytes(path: Path, needed: int, n_images: int, complete: int) -> None:
    """Raise InputError if `path` is shorter than `needed` bytes; `complete` images of `n_images` are in it."""
    size = path.stat().st_size
    if size < needed:
        raise InputError(
            f"{path} is truncated: its header announces {n_images} images ({needed} bytes), but the file has {size} "
            f"bytes and {max(0, min(complete, n_images))} complete images; copy it again, or save it again at the "
            "microscope"
        )


def nominal_axis(angle_from_vertical_deg: float) -> Axis | None:
    """Return the image direction nearest to a tilt axis given by its angle from the vertical; None near 45 degrees."""
    if not math.isfinite(angle_from_vertical_deg):
        return None
    along_x = abs(math.sin(math.radians(angle_from_vertical_deg)))
    if abs(along_x - math.sqrt(0.5)) < 0.12:  # within about 10 degrees of the diagonal
        return None
    return "x" if along_x > math.sqrt(0.5) else "y"


def n_images_of(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Return how many images of a tilt series an array (n, y, x) or (y, x) holds; 0 if it can be none."""
    return 0 if dtype.kind not in "iufb" or not 2 <= len(shape) <= 3 else int(shape[0]) if len(shape) == 3 else 1


def signals_of(
    names: Sequence[str], shapes: Sequence[Sequence[int]], dtypes: Sequence[Any], n_images: Sequence[int]
) -> list[Signal]:
    """Return the signals of a file, told apart by a number where several have the same name."""
    found: list[Signal] = []
    for name, shape, dtype, n in zip(names, shapes, dtypes, n_images, strict=True):
        times = sum(other == name for other in names[: len(found)])
        unique = f"{name} ({times + 1})" if times else name
        found.append(Signal(unique, tuple(int(size) for size in shape), str(np.dtype(dtype)), int(n)))
    return found


def choose_signal(path: Path, signals: Sequence[Signal], wanted: str | None = None) -> tuple[int, str]:
    """Return which signal of a file to read, and a note if there are others.

    `wanted` is a name, part of a name, or a number from 1. By default it is the one that is most likely to be the tilt
    series: of those with five images or more a HAADF signal, else the one with the most images. Raises `InputError` if
    no signal, or more than one, is like the one that is wanted.
    """
    if wanted is not None:
        chosen = _named_signal(path, signals, wanted)
    else:
        keys = [(s.n_images >= FEW_IMAGES, "haadf" in s.name.lower(), s.n_images) for s in signals]
        chosen = max(range(len(signals)), key=lambda i: (keys[i], -i))
    if len(signals) == 1:
        return chosen, ""
    others = [f"'{shown(s.name)}' ({size_of(s)})" for i, s in enumerate(signals) if i != chosen]
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    of, how = signals[chosen], "" if wanted is not None else "; --signal chooses another"
    return chosen, (
        f"of the {len(signals)} signals in the file '{shown(of.name)}' ({size_of(of)}) is used, not "
        f"{', '.join(others[:5])}{more}{how}"
    )


def size_of(signal: Signal) -> str:
    """Return the shape of a signal in words, such as '35 x 96 x 96'."""
    return " x ".join(str(n) for n in signal.shape)


def _named_signal(path: Path, signals: Sequence[Signal], wanted: str) -> int:
    names = [s.name.casefold() for s in signals]
    key = wanted.strip().casefold()
    found = [i for i, name in enumerate(names) if name == key]
    if not found and key.isascii() and key.isdigit() and 1 <= int(key[:9]) <= len(signals):
        found = [int(key) - 1]
    found = found or [i for i, name in enumerate(names) if key and key in name]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{i + 1} '{shown(s.name)}' ({size_of(s)})" for i, s in enumerate(signals[:MOST_LISTED]))
    more = f" and {len(signals) - MOST_LISTED} more" if len(signals) > MOST_LISTED else ""
    what = "several signals like" if found else "no signal"
    raise InputError(f"{path} holds {what} '{shown(wanted, 80)}'; it holds {listed}{more}")


def jsonable(value: Any, depth: int = 12) -> Any:  # noqa: PLR0911 - one return per type reads best
    """Return `value` as JSON can hold it: other types as text, long arrays as their shape."""
    if depth == 0:
        return "..."
    if isinstance(value, Mapping):
        return {str(key): jsonable(item, depth - 1) for key, item in value.items()}
    if getattr(value, "ndim", 0) > 0:  # NumPy, or lazy and then not read
        known = isinstance(value, np.ndarray) and value.size <= 1000
        return jsonable(value.tolist(), depth - 1) if known else f"array of shape {value.shape}"
    if isinstance(value, (list, tuple, set)):
        return f"list of {len(value)} values" if len(value) > 1000 else [jsonable(item, depth - 1) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return jsonable(value.item(), depth - 1)
    if isinstance(value, bytes):
        return value.split(b"\0")[0].decode("utf-8", "replace").strip()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (int, float, bool)):
        return value
    return str(value).encode("utf-8", "replace").decode()  # lone surrogates, which nothing can write, become "?"


@contextlib.contextmanager
def captured_messages(*loggers: str) -> Iterator[list[str]]:
    """Collect the first warnings and log messages of the libraries that read a file, instead of printing them."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if len(messages) < _MOST_MESSAGES:
                messages.append(shown(record.getMessage(), 200))

    collector = Collector(logging.WARNING)
    found = [logging.getLogger(name) for name in loggers]
    before = [(logger, list(logger.handlers), logger.propagate) for logger in found]
    for logger in found:
        logger.handlers, logger.propagate = [collector], False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", ResourceWarning)
            yield messages
        messages += [shown(warning.message, 200) for warning in caught[: _MOST_MESSAGES - len(messages)]]
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
