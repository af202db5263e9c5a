"""The weights of a network, as Keras keeps them in HDF5: groups of arrays of numbers."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError, shown
from tomoseg.io.readers.hdf5 import require_self_contained

KINDS = "biufV"  # V: bfloat16, which HDF5 has no name for
_BFLOAT16 = "bfloat16"
_ORDER = "layer_names"


def copy(source: Path, target: Path) -> int:
    """Write what is in `source` to the new file `target`; return how many numbers there are.

    Of attributes, only the order of layers that Keras 2 notes is kept. Raises `InputError` if the file refers to
    others, claims more than is stored, or holds something else than numbers.
    """
    left = source.stat().st_size
    n_numbers = 0
    with h5py.File(source, "r") as old, h5py.File(target, "w") as new:
        require_self_contained(Path("the file of weights"), old)

        def copy_one(name: str, item: Any) -> None:
            nonlocal left, n_numbers
            if isinstance(item, h5py.Dataset):
                left -= math.prod(item.shape) * item.dtype.itemsize
                # Keras does not compress: all arrays together are no larger than the file.
                if item.dtype.kind not in KINDS or item.dtype.names or item.chunks or left < 0:
                    raise InputError(
                        f"'{shown(name)}' among the weights is not a plain array of numbers, or is larger than the file"
                    )
                copied = new.create_dataset(name, data=item[()])
                if item.attrs.get("dtype") == _BFLOAT16:
                    copied.attrs["dtype"] = _BFLOAT16  # how Keras knows it
                n_numbers += item.size
            else:
                new.require_group(name)

        old.visititems(copy_one)
        if (names := _noted_order(old)) is not None:
            new.attrs[_ORDER] = names
    return n_numbers


def _noted_order(file: h5py.File) -> Array | None:
    """Return the names of layers in the order that Keras 2 notes, as bytes; None where it is not noted."""
    names = file.attrs.get(_ORDER)
    if not isinstance(names, np.ndarray) or names.ndim != 1 or not all(isinstance(n, str | bytes) for n in names):
        return None
    return np.array([n.encode() if isinstance(n, str) else n for n in names], "S")


def arrays(path: Path) -> dict[str, Array]:
    """Return all arrays in a file that `copy` wrote, by their paths, in the order of layers if that is noted."""
    found: dict[str, Array] = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(take)
        names = _noted_order(file)
    if names is None:
        return found
    place = {name.decode("utf-8", "replace"): i for i, name in enumerate(names)}
    return dict(sorted(found.items(), key=lambda item: place.get(item[0].split("/")[0], len(place))))
