"""JSON of strangers: read within limits, so that nothing that is done with it later can fail over its shape."""

import json
from typing import Any

MOST_LEVELS = 100  # of nesting; tomoseg writes 8
LARGEST_NUMBER = 2**128  # of whole numbers: far beyond it they do not even become floats


def load(text: str | bytes) -> Any:
    """Return what JSON text holds; `ValueError` if it is not valid, nested too deep, or a number is too large."""
    try:
        content = json.loads(text, parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    level = [content]
    for _ in range(MOST_LEVELS):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return content
    raise ValueError("it is nested too deep")


def _parts(whole: Any) -> list[Any]:
    """Return the containers within a container."""
    parts = whole.values() if isinstance(whole, dict) else whole if isinstance(whole, list) else ()
    return [part for part in parts if isinstance(part, (dict, list))]


def _whole_number(text: str) -> int:
    number = int(text)
    if abs(number) > LARGEST_NUMBER:
        raise ValueError("it holds a whole number of more than 128 bits")
    return number
