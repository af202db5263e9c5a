"""The tree of tags that a DM3 or DM4 file consists of.

Read here and not with RosettaSciIO, which needs 20 times longer to open a small stack and turns every long table into
Python numbers (docs/decisions/0011-readers.md). The format was worked out by C. Boothroyd
(http://www.er-c.org/cbb/info/dmformat): counts are big-endian, values mostly little-endian; a group holds tags, a tag
holds a number, a text, a struct, or an array of them.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tomoseg.errors import InputError, shown

Tags = dict[str, Any]

_GROUP, _DATA = 20, 21
_STRUCT, _TEXT, _ARRAY = 15, 18, 20
_NUMBERS = {
    **{2: "i2", 3: "i4", 4: "u2", 5: "u4", 6: "f4", 7: "f8"},
    **{8: "u1", 9: "i1", 10: "i1", 11: "i8", 12: "u8"},
}
_UNICODE = 4  # arrays of u2 are texts
_DEEPEST = 64
_LONGEST_INFO = 1000  # numbers that describe one tag: a struct with hundreds of fields
_MOST_VALUES = 1000  # of arrays that are metadata and not tables or pictures
_LONGEST_TEXT = 65_536


@dataclass(frozen=True)
class Block:
    """An array that was left in the file: its place and type; `dtype` is None for structs and texts."""

    offset: int
    size: int
    dtype: np.dtype[Any] | None


class TagFile:
    """Reads the tags of an open file; `order` ("<" or ">") is the byte order of values."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._n_bytes = path.stat().st_size
        (version,) = struct.unpack(">i", self._bytes(4))
        if version not in {3, 4}:
            raise InputError(f"{path} is not a Digital Micrograph file (DM3 or DM4): its version is {version}")
        self._wide = version == 4
        self._integer()  # the size of the file
        self.order = "<" if struct.unpack(">i", self._bytes(4))[0] else ">"

    def tags(self) -> Tags:
        """Return all tags: numbers, texts, tuples of numbers, a `Block` for a long array, and groups as dictionaries.

        Raises `InputError` if the file breaks off, or its tags contradict themselves.
        """
        self._bytes(2)
        return self._group(self._integer(), "", 0)

    def _group(self, n_tags: int, group: str, depth: int) -> Tags:
        if depth > _DEEPEST:
            raise InputError(f"{self._path} is damaged: its tags are nested more than {_DEEPEST} deep")
        found: Tags = {}
        n_data = n_groups = 0
        for _ in range(n_tags):  # ends at the end of the file at the latest: every tag takes some bytes
            kind, length = struct.unpack(">Bh", self._bytes(3))
            name = self._bytes(length).decode("latin-1").replace(".", "")
            if kind == _DATA:
                pixels = (group, name) == ("ImageData", "Data")
                found[name or f"Data{n_data}"] = self._data(0 if pixels else _MOST_VALUES)
                n_data += not name
            elif kind == _GROUP:
                self._bytes(10 if self._wide else 2)
                found[name or f"TagGroup{n_groups}"] = self._group(self._integer(), name, depth + 1)
                n_groups += not name
            else:
                self._refuse(f"tags of kind {kind} do not exist")
        return found

    def _data(self, most_values: int) -> Any:
        """Return the value of a tag; arrays of more than `most_values` stay in the file."""
        if self._wide:
            self._bytes(8)
        mark = self._bytes(4)
        if mark != b"%%%%":
            self._refuse(f"a tag begins with {mark!r} instead of '%%%%'")
        n_info = self._integer()
        if not 1 <= n_info <= _LONGEST_INFO:
            self._refuse(f"a tag is described by {n_info} numbers")
        return self._value([self._integer() for _ in range(n_info)], most_values)

    def _value(self, info: list[int], most_values: int) -> Any:
        """Return the value that `info` describes, or where it is."""
        kind = info[0]
        if kind in _NUMBERS and len(info) == 1:
            return self._array(_NUMBERS[kind], 1)[0].item()
        if kind == _TEXT and len(info) == 2:
            return self._text(info[1])
        if kind == _STRUCT:
            return tuple(self._array(code, 1)[0].item() for code in self._fields(info[1:]))
        if kind == _ARRAY and len(info) == 3 and info[1] in _NUMBERS:
            return self._numbers(info[1], info[2], most_values)
        if kind == _ARRAY and len(info) > 3:
            return self._skipped(self._element_bytes(info[1:-1]), info[-1], None)
        return self._refuse(f"a tag has the unknown kind {info[:3]}")

    def _numbers(self, code: int, size: int, most_values: int) -> Any:
        """Return an array of numbers, as text where its type says so."""
        dtype = np.dtype(self.order + _NUMBERS[code])
        is_text = code == _UNICODE and most_values > 0
        if not 0 <= size <= (_LONGEST_TEXT if is_text else most_values):
            return self._skipped(dtype.itemsize, size, dtype)
        values = self._array(_NUMBERS[code], size)
        return values.astype("<u2").tobytes().decode("utf-16-le", "replace") if is_text else values.tolist()

    def _text(self, size: int) -> str:
        if size > _LONGEST_TEXT:
            self._skipped(1, size, None)
            return ""
        content = self._bytes(size)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return content.decode("latin-1")

    def _skipped(self, element_bytes: int, size: int, dtype: np.dtype[Any] | None) -> Block:
        """Go past an array and return where it was."""
        offset = self._file.tell()
        if size < 0 or offset + element_bytes * size > self._n_bytes:
            self._refuse_truncated()
        self._file.seek(element_bytes * size, 1)
        return Block(offset, size, dtype)

    def _element_bytes(self, info: list[int]) -> int:
        """Return the size of an element of an array of structs, texts or arrays."""
        if info[0] == _STRUCT:
            return sum(np.dtype(code).itemsize for code in self._fields(info[1:]))
        if info[0] == _TEXT and len(info) == 2 and info[1] >= 0:
            return info[1]
        if info[0] == _ARRAY and len(info) == 3 and info[1] in _NUMBERS and info[2] >= 0:
            return np.dtype(_NUMBERS[info[1]]).itemsize * info[2]
        return int(self._refuse(f"an array has the unknown kind {info[:3]}"))

    def _fields(self, info: list[int]) -> list[str]:
        """Return the types of the fields of a struct: its name's length, their number, and two numbers for each."""
        kinds = info[3::2]
        if len(info) < 2 or len(info) != 2 + 2 * info[1] or any(kind not in _NUMBERS for kind in kinds):
            self._refuse("the description of a struct contradicts itself")
        return [_NUMBERS[kind] for kind in kinds]

    def _array(self, code: str, size: int) -> Any:
        dtype = np.dtype(self.order + code)
        return np.frombuffer(self._bytes(size * dtype.itemsize), dtype)

    def _integer(self) -> int:
        """Return a count: four bytes in DM3, eight in DM4."""
        value: int = struct.unpack(">q" if self._wide else ">i", self._bytes(8 if self._wide else 4))[0]
        return value

    def _bytes(self, n: int) -> bytes:
        content = self._file.read(n) if n >= 0 else b""
        if n < 0 or len(content) < n:
            self._refuse_truncated()
        return content

    def _refuse(self, what: str) -> Any:
        raise InputError(
            f"{self._path} cannot be read as Digital Micrograph: {shown(what, 200)} (at byte {self._file.tell()}); it "
            "may be damaged or in another format"
        )

    def _refuse_truncated(self) -> None:
        raise InputError(
            f"{self._path} is truncated: its tags reach beyond its end ({self._n_bytes} bytes); copy it again"
        )
