"""Damage to files, by chance but repeatable: the same seed gives the same file."""

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator

# Counts, sizes and offsets that programs trip over.
INTEGERS = (
    *(0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 4096, 65535, 65536, 1 << 20, 1 << 24),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**63 - 1, -1, -2, -128, -(2**15), -(2**31), -(2**63)),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, 1e38, -1e38, np.nan, np.inf, -np.inf)
WORDS = (
    *("", "0", "-1", "1e999", "nan", "-inf", "9" * 5000, "1,5", "0x10", "1_000", "²", "٣", "\0", "\n", "\t" * 50),
    *("=", "]", "[[[[[[[[", "*a", "&a", "<<: *a", "!!python/object/apply:os.system ['true']", "!!timestamp 1"),
    *("!!int x", "~", "null", "<script>", "../../../etc/passwd", "A" * 10_000, " " * 3000, "{", "}", "'", '"', "#"),
    *(": ", "- ", "🦠", "\udcff"),
)


def mutated(data: bytes, rng: Rng, donor: bytes = b"", *, text: bool = False) -> bytes:
    """Return `data` with one to six kinds of damage; `donor` is another file that parts may come from."""
    operations: Sequence[Callable[[bytearray, Rng, bytes], None]] = BINARY + TEXT * 3 if text else BINARY
    out = bytearray(data)
    for _ in range(1 + min(int(rng.geometric(0.5)) - 1, 5)):
        operations[int(rng.integers(len(operations)))](out, rng, donor)
    return bytes(out)


def _place(out: bytearray, rng: Rng) -> int:
    """Return a place: the first bytes of a file, where headers are, are hit more often."""
    limit = len(out) if rng.random() < 0.5 else min(len(out), int(rng.choice((32, 256, 1024, 4096))))
    return int(rng.integers(limit)) if limit else 0


def _flip_bits(out: bytearray, rng: Rng, _donor: bytes) -> None:
    for _ in range(int(rng.choice((1, 1, 2, 8, 64)))):
        if out:
            out[_place(out, rng)] ^= 1 << int(rng.integers(8))


def _set_bytes(out: bytearray, rng: Rng, _donor: bytes) -> None:
    place, count = _place(out, rng), int(rng.choice((1, 1, 2, 4, 16, 200)))
    out[place : place + count] = rng.integers(0, 256, min(count, len(out) - place), dtype=np.uint8).tobytes()


def _set_integer(out: bytearray, rng: Rng, _donor: bytes) -> None:
    """Write a number over a field, mostly where one would be aligned."""
    size = int(rng.choice((1, 2, 4, 4, 8)))
    place = _place(out, rng)
    place -= place % size if rng.random() < 0.7 else 0
    value = INTEGERS[int(rng.integers(len(INTEGERS)))] % (1 << 8 * size)
    order = "little" if rng.random() < 0.6 else "big"
    if place + size <= len(out):
        out[place : place + size] = value.to_bytes(size, order)


def _change_integer(out: bytearray, rng: Rng, _donor: bytes) -> None:
    """Make a number a little larger or smaller: offsets and counts that are nearly right."""
    size = int(rng.choice((2, 4, 8)))
    place = _place(out, rng) // 2 * 2
    order = "little" if rng.random() < 0.6 else "big"
    if place + size <= len(out):
        value = int.from_bytes(out[place : place + size], order) + int(rng.choice((-256, -8, -2, -1, 1, 2, 8, 256)))
        out[place : place + size] = (value % (1 << 8 * size)).to_bytes(size, order)


def _set_float(out: bytearray, rng: Rng, _donor: bytes) -> None:
    kind = np.dtype(str(rng.choice(("<f4", ">f4", "<f8", ">f8"))))
    place = _place(out, rng) // 4 * 4
    with np.errstate(over="ignore"):
        content = np.array(FLOATS[int(rng.integers(len(FLOATS)))]).astype(kind).tobytes()
    if place + len(content) <= len(out):
        out[place : place + len(content)] = content


def _truncate(out: bytearray, rng: Rng, _donor: bytes) -> None:
    del out[_place(out, rng) if rng.random() < 0.5 else int(rng.integers(len(out) + 1)) :]


def _piece(data: bytes | bytearray, rng: Rng) -> bytes:
    start = int(rng.integers(len(data) + 1))
    return bytes(data[start : start + int(rng.choice((1, 4, 16, 64, 512, 4096)))])


def _duplicate(out: bytearray, rng: Rng, _donor: bytes) -> None:
    place = _place(out, rng)
    out[place:place] = _piece(out, rng) * int(rng.choice((1, 1, 2, 20)))


def _copy_over(out: bytearray, rng: Rng, _donor: bytes) -> None:
    """Put a part of the file over another one: tables and counts of the right kind at the wrong place."""
    piece, place = _piece(out, rng), _place(out, rng)
    out[place : place + len(piece)] = piece[: len(out) - place]


def _remove(out: bytearray, rng: Rng, _donor: bytes) -> None:
    place = _place(out, rng)
    del out[place : place + int(rng.choice((1, 2, 4, 16, 128, 2048)))]


def _splice(out: bytearray, rng: Rng, donor: bytes) -> None:
    piece, place = _piece(donor, rng), _place(out, rng)
    out[place : place + (len(piece) if rng.random() < 0.7 else 0)] = piece


def _fill(out: bytearray, rng: Rng, _donor: bytes) -> None:
    place, count = _place(out, rng), int(rng.choice((4, 16, 64, 512)))
    value = int(rng.choice((0, 0, 255, 32, 127)))
    out[place : place + count] = bytes([value]) * min(count, len(out) - place)


BINARY: tuple[Callable[[bytearray, Rng, bytes], None], ...] = (
    *(_flip_bits, _set_bytes, _set_integer, _set_integer, _set_integer, _change_integer, _change_integer, _set_float),
    *(_truncate, _duplicate, _copy_over, _remove, _splice, _fill),
)


def _replace_word(out: bytearray, rng: Rng, _donor: bytes) -> None:
    """Replace a number or a word by one that readers trip over."""
    words = list(re.finditer(rb"-?[\w.]+", bytes(out)))
    if words:
        word = words[int(rng.integers(len(words)))]
        out[word.start() : word.end()] = _word(rng)


def _insert_word(out: bytearray, rng: Rng, _donor: bytes) -> None:
    place = int(rng.integers(len(out) + 1))
    out[place:place] = _word(rng)


def _lines(out: bytearray, rng: Rng, donor: bytes) -> None:
    """Leave out, repeat or swap whole lines, or take one from another file."""
    lines = bytes(out).split(b"\n")
    i, j = (int(rng.integers(len(lines))) for _ in range(2))
    what = int(rng.integers(4))
    if what == 0:
        del lines[i]
    elif what == 1:
        lines[i:i] = [lines[j]] * int(rng.choice((1, 1, 3, 200)))
    elif what == 2:
        lines[i], lines[j] = lines[j], lines[i]
    else:
        others = donor.split(b"\n")
        lines[i] = others[int(rng.integers(len(others)))]
    out[:] = b"\n".join(lines)


def _word(rng: Rng) -> bytes:
    chosen = int(rng.integers(len(WORDS) + len(INTEGERS)))
    word = WORDS[chosen] if chosen < len(WORDS) else str(INTEGERS[chosen - len(WORDS)])
    return word.encode("utf-8", "surrogateescape")


TEXT: tuple[Callable[[bytearray, Rng, bytes], None], ...] = (_replace_word, _insert_word, _lines)


def mutated_archive(data: bytes, rng: Rng, donor: bytes, names: Sequence[str]) -> bytes:
    """Return a zip archive whose entry is damaged inside, so that the archive itself stays sound.

    JSON entries are mostly damaged as what they mean: values, keys and subtrees.
    """
    name = names[int(rng.integers(len(names)))]
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == name:
                is_json = name.endswith(".json")
                if is_json and rng.random() < 0.8:
                    content = json.dumps(mutated_json(json.loads(content), rng)).encode()
                else:
                    content = mutated(content, rng, donor, text=is_json)
            new.writestr(entry.filename, content)
    return target.getvalue()


SHAPES_AND_VALUES = (0, 7, 8, 9)  # what `_change_node` does to arrays that stay arrays


def mutated_project(data: bytes, rng: Rng, changes: Sequence[int] = range(12)) -> bytes:
    """Return an HDF5 file with one to three nodes or attributes replaced, so that its checksums stay right."""
    import h5py

    memory = io.BytesIO(data)
    with h5py.File(memory, "r+", libver=("v110", "v110")) as file:
        for _ in range(int(rng.integers(1, 4))):
            names = [""]
            file.visit(names.append)
            name = names[int(rng.integers(len(names)))]
            if name == "" or rng.random() < 0.5:
                _change_attribute(file[f"/{name}"].attrs, rng)
            else:
                _change_node(file, name, rng, changes[int(rng.integers(len(changes)))])
    return memory.getvalue()


def _change_attribute(attrs: Any, rng: Rng) -> None:
    keys = list(attrs)
    key = keys[int(rng.integers(len(keys)))] if keys else "record"
    value, what = attrs.get(key, "{}"), int(rng.integers(5))
    if what == 0 and keys:
        del attrs[key]
    elif what < 4 and isinstance(value, str) and value[:2] in {'{"', '["', "[{"}:
        attrs[key] = json.dumps(mutated_json(json.loads(value), rng))
    else:
        values: tuple[Any, ...] = (
            *("", "x" * 5000, "{", "[" * 5000, "\x1b[31m<script>", b"\xff\xfe", "nan", "../../x", 0, -1, 2**63 - 1),
            *(
                np.nan,
                np.inf,
                -1e300,
                True,
                np.zeros(0),
                np.zeros((3, 3)),
                np.zeros(3, "S5"),
                np.array(["a", "b"], object),
            ),
        )
        attrs[key] = values[int(rng.integers(len(values)))]


def _change_node(file: Any, name: str, rng: Rng, what: int) -> None:
    import h5py

    old = file[name]
    shape, dtype = getattr(old, "shape", (3,)), getattr(old, "dtype", np.dtype("f4"))
    attrs, other = dict(old.attrs), list(file)[int(rng.integers(len(file)))]
    del old, file[name]
    if what == 1:
        file.create_group(name)
    elif what == 2:
        file[name] = h5py.SoftLink(f"/{other}")
    elif what == 3:
        file[name] = h5py.ExternalLink("other.h5", "/")
    elif what == 4:
        file[name] = h5py.SoftLink("/nowhere")
    elif what == 5:
        file[name] = "a text"
    elif what == 6:
        file.create_dataset(name, (10**5,) * max(1, len(shape)), dtype, chunks=True)
    elif what == 7:
        file.create_dataset(name, tuple(n + int(rng.integers(-1, 2)) for n in shape if n), dtype)
    elif what == 8:
        file[name] = np.full((0,) * max(1, len(shape)), 0, dtype if dtype.names is None else "f4")
    elif what == 9:
        file[name] = np.random.default_rng(1).normal(scale=1e30, size=shape).astype(dtype if not dtype.names else "f8")
    elif what == 10:
        file.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    elif what == 11 and other != name.split("/", maxsplit=1)[0]:
        file[name] = file[other]
    if what not in {0, 2, 3, 4} and name in file:
        for key, value in attrs.items():
            with contextlib.suppress(UnicodeEncodeError):
                file[name].attrs[key] = value


def mutated_json(value: Any, rng: Rng) -> Any:
    """Return a JSON value with one to three places replaced, removed, repeated or nested."""
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(value))
        if not places:
            return _any_value(rng)
        owner, key = places[int(rng.integers(len(places)))]
        what = int(rng.integers(5))
        if what == 0:
            del owner[key]
        elif what == 1:
            other_owner, other_key = places[int(rng.integers(len(places)))]
            owner[key] = json.loads(json.dumps(other_owner[other_key]))
        elif what == 2:
            owner[key] = [owner[key]] * 2
        else:
            owner[key] = _any_value(rng)
    return value


def _places(value: Any) -> Any:
    """Yield (container, key) of everything inside."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, item in items:
        yield value, key
        yield from _places(item)


def _any_value(rng: Rng) -> Any:
    values: tuple[Any, ...] = (
        *(None, True, False, [], {}, [[]], "", "relu", "Lambda", "Conv2D", "os", "builtins", "keras.layers", -1, 0),
        *(1.5, 1e308, float("inf"), 10**9, 2**31, 2**63, 10**30, "A" * 1000, "\ud800", "mixed_float16", "float64"),
        [1, 10**6, 10**6, 1],
        {"module": "os", "class_name": "system", "config": {"command": "true"}, "registered_name": None},
        {"class_name": "__lambda__", "config": {"value": ["4wA=", None, None]}},
    )
    return json.loads(json.dumps(values[int(rng.integers(len(values)))]))
