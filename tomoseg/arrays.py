"""Handles through which a stage sees large arrays: read and written slab by slab, wherever they live.

A NumPy array fits `ArraySource` and `ArraySink` as it is, so science and stages are tested without a file.
"""

import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FloatArray = NDArray[np.floating[Any]]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Box = tuple[slice, slice, slice]  # a part of a volume (z, y, x)


class ArraySource(Protocol):
    """Something that can be read by slicing, like a NumPy array or an HDF5 dataset."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return the selected part as a NumPy array in memory."""


class ArraySink(Protocol):
    """Something that can be written by slicing, and read back."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Store `value` at the selected part."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return what was stored there, as a NumPy array in memory."""


class Input(ArraySource, Protocol):
    """An artifact a stage reads: the array, and the attributes stored with it."""

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes as plain Python values and NumPy arrays."""


class Outputs(Protocol):
    """Where a stage leaves what it made, by artifact name. Nothing is visible to others until the stage ends well."""

    @property
    def consumed(self) -> Mapping[str, str]:
        """The run ids of the results that this run of the stage reads, by stage; empty outside a project."""

    @property
    def resumed(self) -> Mapping[str, Any] | None:
        """The state given to the last `checkpoint` of an interrupted run of this stage, or None.

        It is of a run with the same parameters and inputs. `create` then returns the array with what was written
        before that checkpoint in it.
        """

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep what is needed to continue: all that was written so far, together with `state`, is enough.

        `state` holds JSON values; floats survive exactly. To be called after every slab: how often a checkpoint is
        really put on disk is not the stage's concern, and the last one is when the stage is interrupted.
        """

    def create(
        self, name: str, shape: tuple[int, ...], dtype: Any = None, attrs: Mapping[str, Any] | None = None
    ) -> ArraySink:
        """Reserve an array of `shape` (dtype as in the schema unless given) to be filled slab by slab."""

    def put(self, name: str, value: Any, attrs: Mapping[str, Any] | None = None) -> None:
        """Store a small array or table (structured array) at once."""

    def set_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes to an artifact, or to the group that an attribute-only artifact is."""


class Part:
    """One array of several along a dimension, to read (`ArraySource`) and to write (`ArraySink`)."""

    def __init__(self, arrays: Any, axis: int, place: int) -> None:
        self._arrays, self._axis, self._place = arrays, axis, place
        self.shape: tuple[int, ...] = (*arrays.shape[:axis], *arrays.shape[axis + 1 :])
        self.dtype: np.dtype[Any] = np.dtype(getattr(arrays, "dtype", np.float32))

    def _key(self, key: Any) -> tuple[Any, ...]:
        keys = key if isinstance(key, tuple) else (key,)
        return (*keys[: self._axis], self._place, *keys[self._axis :])

    def __getitem__(self, key: Any) -> Any:
        return self._arrays[self._key(key)]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._arrays[self._key(key)] = value


def signal_names(signals: Input, axis: int) -> list[str]:
    """Return the names of signals, of which there are several along an axis of an array: one for each."""
    known, n = [str(name) for name in signals.attrs.get("names", ())], signals.shape[axis]
    return known if len(known) == n else [f"signal {k + 1}" for k in range(n)]


def volumes_by_name(volumes: Input) -> dict[str, Part]:
    """Return the volumes (z, y, x) of signals by name, of a stack of them (n_signal, z, y, x)."""
    return {name: Part(volumes, 0, k) for k, name in enumerate(signal_names(volumes, 0))}


class MemoryInput:
    """An `Input` in memory."""

    def __init__(self, array: Array | None = None, attrs: Mapping[str, Any] | None = None) -> None:
        self.array = np.empty(0) if array is None else array
        self.attrs: Mapping[str, Any] = dict(attrs or {})

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.array.dtype

    def __getitem__(self, key: Any) -> Any:
        return self.array[key]


class MemoryOutputs:
    """`Outputs` in memory, for scripts and tests: `arrays[name]` and `attrs[name]` after the run.

    `MemoryOutputs(interrupted.state, interrupted.arrays)` continues an interrupted run from its last checkpoint.
    """

    def __init__(self, resumed: Mapping[str, Any] | None = None, arrays: Mapping[str, Array] | None = None) -> None:
        self.consumed: Mapping[str, str] = {}
        self.resumed = resumed
        self.state = resumed  # as of the last checkpoint
        self.arrays: dict[str, Array] = {}
        self.attrs: dict[str, dict[str, Any]] = {}
        self._begun = dict(arrays or {})

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep the state as a file would, as JSON; the arrays are here anyway."""
        self.state = json.loads(json.dumps(state))

    def create(
        self, name: str, shape: tuple[int, ...], dtype: Any = None, attrs: Mapping[str, Any] | None = None
    ) -> ArraySink:
        """Reserve an array; filled with NaN or the largest integer so that a part never written is seen."""
        from tomoseg.schema import ARTIFACTS

        dtype = np.dtype(dtype or next(a.dtype for a in ARTIFACTS if a.name == name))
        poison = np.nan if dtype.kind == "f" else np.iinfo(dtype).max
        begun = self._begun.get(name)
        self.arrays[name] = np.full(shape, poison, dtype) if begun is None else begun
        self.set_attrs(name, attrs or {})
        return self.arrays[name]

    def put(self, name: str, value: Any, attrs: Mapping[str, Any] | None = None) -> None:
        """Store a small array or table."""
        self.arrays[name] = np.asarray(value)
        self.set_attrs(name, attrs or {})

    def set_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes."""
        self.attrs.setdefault(name, {}).update(attrs)

    def as_input(self, name: str) -> MemoryInput:
        """Return what was stored under `name` as the input of a later stage."""
        return MemoryInput(self.arrays.get(name), self.attrs.get(name))
