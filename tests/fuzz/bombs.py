"""Files that unpack to, or claim, far more than they hold, as the lowest level of HDF5 and a text editor make them.

Each function takes the content of a sound file and returns that of the bomb.
"""

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import h5py
import numpy as np

from tomoseg import schema

MIB = 1 << 20
GZIP = h5py.h5z.FILTER_DEFLATE
N_REFERENCES, TEXT_BYTES = 3900, 5 * MIB // 4  # 4.7 GB; more references do not fit an attribute of the old layout
N_RECORDS = 1000
Change = Callable[[h5py.File], None]


@lru_cache(4)
def packed_zeros(n_bytes: int) -> bytes:
    """Return `n_bytes` zeros as deflate packs them."""
    packer = zlib.compressobj(9, wbits=-15)
    one = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)  # the same for every MiB
    packer = zlib.compressobj(9, wbits=-15)
    rest = packer.compress(bytes(n_bytes % MIB)) + packer.flush()
    checksum = (n_bytes % 65521 << 16) + 1  # Adler-32 of zeros
    return b"\x78\xda" + one * (n_bytes // MIB) + rest + checksum.to_bytes(4, "big")


def packed_array(
    group: h5py.Group,
    name: str,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: Any,
    stored: bytes,
    n_gzip: int = 1,
) -> None:
    """Put an array in place of `name`: each chunk of it is `stored`, as `n_gzip` filters would have made it."""
    attributes = dict(group[name].attrs) if name in group else {}
    group.pop(name, None)
    plist, links = h5py.h5p.create(h5py.h5p.DATASET_CREATE), h5py.h5p.create(h5py.h5p.LINK_CREATE)
    plist.set_chunk(tuple(chunks))
    for _ in range(n_gzip):
        plist.set_deflate(9)
    links.set_create_intermediate_group(True)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    space = h5py.h5s.create_simple(tuple(shape))
    node = h5py.h5d.create(group.id, name.encode(), kind, space, dcpl=plist, lcpl=links)
    for corner in np.ndindex(*(-(-n // c) for n, c in zip(shape, chunks, strict=True))):
        node.write_direct_chunk(tuple(i * c for i, c in zip(corner, chunks, strict=True)), stored)
    h5py.Dataset(node).attrs.update(attributes)


def _changed(content: bytes, change: Change) -> bytes:
    memory = io.BytesIO(content)
    with h5py.File(memory, "r+", libver=("v110", "v110")) as file:
        change(file)
    return memory.getvalue()


def _with_array(path: str, *arguments: Any) -> Callable[[bytes], bytes]:
    return lambda content: _changed(content, lambda file: packed_array(file, path, *arguments))


# Chunks --------------------------------------------------------------------------------------------------------------


def packed_twice(path: str) -> Callable[[bytes], bytes]:
    """Return what puts an array of 3.5 GB there, deflated twice."""

    def made(content: bytes) -> bytes:
        stored = zlib.compress(packed_zeros(256 * MIB), 0)
        return _with_array(path, (14 * 512, 512, 1024), (512, 512, 1024), "u1", stored, 2)(content)

    return made


def one_chunk(path: str, dtype: str) -> Callable[[bytes], bytes]:
    """Return what puts an array of one chunk of 2.5 GB there, deflated as it may be."""
    shape = (640 * 4 // np.dtype(dtype).itemsize, 1024, 1024)
    return lambda content: _with_array(path, shape, shape, dtype, packed_zeros(2560 * MIB))(content)


def chunks_of_more(path: str, shape: Sequence[int], dtype: str) -> Callable[[bytes], bytes]:
    """Return what puts an array there whose chunks of 64 KiB, of the usual size as stored, unpack to 60 MiB each."""
    return lambda content: _with_array(path, shape, (64, 16, 64), dtype, packed_zeros(60 * MIB))(content)


def packed_table(content: bytes) -> bytes:
    """Put in a table of particles of 2 GB, in chunks of 16 MiB; it is read as a whole."""

    def change(file: h5py.File) -> None:
        dtype = file[schema.PARTICLE_TABLE.path].dtype
        rows = 16 * MIB // dtype.itemsize
        stored = packed_zeros(rows * dtype.itemsize)
        packed_array(file, schema.PARTICLE_TABLE.path, (128 * rows,), (rows,), dtype, stored)

    return _changed(content, change)


def legal_labels(content: bytes, n: int) -> bytes:
    """Put in labels (2n, n, n) and a volume of that shape, of chunks as tomoseg writes them with a ball in each.

    Nothing is wrong with them: they are to be read slab by slab.
    """
    z, y, x = np.ogrid[:64, :16, :64]
    ball = (z - 32) ** 2 + (y - 8) ** 2 + (x - 32) ** 2 < 36

    def change(file: h5py.File) -> None:
        for artifact, dtype, one in ((schema.LABELS, "u1", ball * 2), (schema.VOLUME, "f4", ball * 1000.0)):
            stored = zlib.compress(one.astype(dtype).tobytes(), 9)
            packed_array(file, artifact.path, (2 * n, n, n), (64, 16, 64), dtype, stored)

    return _changed(content, change)


# References ----------------------------------------------------------------------------------------------------------


def references_to_one_text(path: str, name: str) -> Callable[[bytes], bytes]:
    """Return what gives a group an attribute of texts that are all one object of the heap."""

    def made(content: bytes) -> bytes:
        texts = ["x" * TEXT_BYTES, *["y"] * (N_REFERENCES - 1)]
        out = _in_old_layout(content, lambda file: _renewed(file, path).attrs.create(name, texts, dtype=_TEXT))
        (at,) = _references(out, TEXT_BYTES)
        out[at : at + 16 * N_REFERENCES] = out[at : at + 16] * N_REFERENCES
        return bytes(out)

    return made


def records_of_one_text(content: bytes) -> bytes:
    """Give the project a long history, whose records are all one object of the heap."""
    few = 777  # bytes, as no other text has

    def change(file: h5py.File) -> None:
        record = file[schema.PROVENANCE]["import"].attrs["record"]
        for i in range(N_RECORDS):
            text = record.ljust(few if i else TEXT_BYTES)[: few if i else None]
            file[schema.HISTORY].create_group(f"{i:08}").attrs["record"] = text

    out = _in_old_layout(content, change)
    (large,) = _references(out, TEXT_BYTES)
    for at in _references(out, few):
        out[at : at + 16] = out[large : large + 16]
    return bytes(out)


def json_of_much(content: bytes) -> bytes:
    """Give the project settings of 40 MB as text, of which Python makes a gigabyte."""
    text = f'{{"reconstruct": {{"a": [{",".join(["[]"] * (40 * MIB // 3))}]}}}}'
    return _changed(content, lambda file: _renewed(file, schema.SETTINGS).attrs.update({"parameters": text}))


_TEXT = h5py.string_dtype()


def _renewed(file: h5py.File, path: str) -> h5py.Group:
    """Return a new group in place of an old one; arrays in it stay where they are."""
    file.pop(path, None)
    return file.create_group(path)


def _in_old_layout(content: bytes, change: Callable[[h5py.File], object]) -> bytearray:
    """Return a project in which what `change` adds lies under no checksum."""
    memory = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as source, h5py.File(memory, "w", libver="earliest") as file:
        file.attrs.update(source.attrs)
        for name in source:
            source.copy(name, file)
        change(file)
    return bytearray(memory.getvalue())


def _references(content: bytes | bytearray, length: int) -> list[int]:
    """Return where references to texts of `length` bytes lie: length, place of a heap, number of the object."""
    found = re.finditer(re.escape(struct.pack("<I", length)) + rb"(?=(.{8}))", content, re.DOTALL)
    places = [(match.start(), int.from_bytes(match[1], "little")) for match in found]
    return [at for at, heap in places if content[heap : heap + 4] == b"GCOL"]


# Networks ------------------------------------------------------------------------------------------------------------


def layer(kind: str, module: str = "keras.layers", **config: Any) -> dict[str, Any]:
    """Return the description of a layer."""
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def there_and_back(n: int) -> dict[str, list[dict[str, Any]]]:
    """Return layers that blow an image of 16 px up by `n` and shrink it again, by name."""
    pair = [layer("UpSampling2D", size=[n, n]), layer("AveragePooling2D", pool_size=[n, n], strides=[n, n])]
    inner = {"name": "inner", "layers": pair, "build_input_shape": [None, 16, 16, 1]}
    return {
        "enlarged": pair,
        "enlarged within": [layer("Sequential", "keras", **inner)],
        "padded": [layer("ZeroPadding2D", padding=[8 * n, 8 * n]), layer("Cropping2D", cropping=[8 * n, 8 * n])],
        "resized": [layer("Resizing", height=16 * n, width=16 * n), layer("Resizing", height=16, width=16)],
    }


def with_layers(content: bytes, layers: list[dict[str, Any]]) -> bytes:
    """Put layers without weights before the first one of a Sequential network in a `.keras` file."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            part = old.read(entry)
            if entry.filename == "config.json":
                config = json.loads(part)
                config["config"]["layers"][1:1] = layers
                part = json.dumps(config).encode()
            new.writestr(entry.filename, part)
    return target.getvalue()


# The tables ----------------------------------------------------------------------------------------------------------

PROJECTS: dict[str, Callable[[bytes], bytes]] = {
    "labels packed twice": packed_twice(schema.LABELS.path),
    "volume of one chunk": one_chunk(schema.VOLUME.path, "f4"),
    "chunks of more than one": chunks_of_more(schema.LABELS.path, (64, 64, 64), "u1"),
    "packed table": packed_table,
    "references to one text": references_to_one_text(schema.SUPPORT_INFO.path, "support_classes"),
    "records of one text": records_of_one_text,
    "JSON of much": json_of_much,
}
# With the name of the sample that each is made of.
SERIES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "images packed twice": ("dxchange.h5", packed_twice("exchange/data")),
    "images of one chunk": ("dxchange.h5", one_chunk("exchange/data", "u2")),
    "chunks of more than one": ("dxchange.h5", chunks_of_more("exchange/data", (64, 64, 64), "u1")),
    "references to one text": ("own.hspy", references_to_one_text("Experiments/series/metadata/more", "texts")),
}
