"""YAML of plain values, as YAML 1.2 reads them: what looks like a time, a ratio or a version stays the text it is.

Integers are 12, 0o14 and 0xC, floats 1.5, 1e3, .inf and .nan, truth values true and false, and nothing is null or ~.
YAML 1.1, which PyYAML reads by itself, takes 1:30 for 90, 0b1 for 1, 012 for 10, and no and off for false.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from tomoseg.errors import InputError, shown

LARGEST_CONTENT = 1_000_000  # characters once aliases are followed
_TAG = "tag:yaml.org,2002:"
# What plain words mean (YAML 1.2.2, section 10.3.2), and the first letters by which PyYAML finds that.
_MEANINGS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
)
_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
for _name, _pattern, _letters in _MEANINGS:
    for _letter in _letters:
        _meaning = (_TAG + _name, re.compile(f"(?:{_pattern})$"))
        _RESOLVERS.setdefault(_letter.replace("\0", ""), []).append(_meaning)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS


class _Constructor(yaml.constructor.SafeConstructor):
    pass


def _whole_number(constructor: Any, node: yaml.Node) -> int:
    text = constructor.construct_scalar(node)
    return int(text, 0) if re.match(r"0[ox]", text) else int(text, 10)


_Constructor.add_constructor(f"{_TAG}int", _whole_number)


# Quoted is also what YAML 1.1 would not read as text.
_IN_1_1 = yaml.SafeDumper.yaml_implicit_resolvers
_IN_EITHER = {letter: [*_RESOLVERS.get(letter, []), *_IN_1_1.get(letter, [])] for letter in {*_RESOLVERS, *_IN_1_1}}


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _IN_EITHER


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Write text that is not printable on one line with escapes."""
    return dumper.represent_scalar(f"{_TAG}str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)


def load(text: str) -> Any:
    """Return what YAML text holds: plain values, lists and mappings, never objects.

    Raises `ValueError` if it is not valid, says a key twice, contains itself, or would have no end once its aliases are
    followed.
    """
    try:
        node = yaml.compose(text, _Loader)
        if node is None:
            return None
        if _expanded_size(node, (), {}) > LARGEST_CONTENT:
            raise ValueError(f"it has more than {LARGEST_CONTENT} characters once its aliases are followed")
        return _Constructor().construct_document(node)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except Exception as error:  # a value that is not what its tag says makes PyYAML raise anything
        hint = ". A # begins a comment: write colours in quotes, '#d55e00'" if re.search(r"[\[,]\s*#", text) else ""
        raise ValueError(shown(" ".join(str(error).split()), 400) + hint) from error


def dump(value: Any, *, ascii_only: bool = False) -> str:
    """Return a plain value on one line of YAML, which `load` reads back; control characters are escaped."""
    options: dict[str, Any] = {"Dumper": _Dumper, "default_flow_style": True, "width": float("inf")}
    text = _dumped(value, allow_unicode=not ascii_only, **options)
    return text if text.isprintable() else _dumped(value, allow_unicode=False, **options)


def _dumped(value: Any, **options: Any) -> str:
    return str(yaml.dump(value, **options)).removesuffix("...\n").strip()


def _expanded_size(node: yaml.Node, inside: tuple[int, ...], known: dict[int, int]) -> int:
    """Return about how many characters a node has once its aliases are followed; they are not, to find out."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in inside:
        raise ValueError(f"what begins in line {node.start_mark.line + 1} contains itself")
    if isinstance(node, yaml.ScalarNode):
        if "\0" in node.value:
            raise ValueError(f"there is a NUL character in line {node.start_mark.line + 1}")
        return 1 + len(node.value.encode("utf-8"))  # which refuses lone surrogates
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated_keys(node)
    parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
    known[id(node)] = 1 + sum(_expanded_size(part, (*inside, id(node)), known) for part in parts)
    return known[id(node)]


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise ValueError(
                    f"'{shown(key.value, 100)}' stands twice, the second time in line {key.start_mark.line + 1}"
                )
            seen.add(key.value)


def read(path: Path, what: str, most_bytes: int) -> Any:
    """Return the plain values in a file; `what` is what it ought to be ('pipeline file').

    Raises `InputError` where it cannot be read, is larger than it may be, or is not YAML.
    """
    try:
        with path.open("rb") as file:
            text = file.read(most_bytes + 1)
        if len(text) > most_bytes:
            raise InputError(f"{path} is no {what}: it has more than {most_bytes} bytes.")
        return load(text.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The {what} {path} cannot be read: {error}.") from error
    except ValueError as error:
        raise InputError(f"The {what} {path} is not valid YAML: {error}.") from error
