"""Facts: short texts that exported files carry about the data (unit of length, raw file, names of classes)."""

from collections.abc import Mapping, Sequence

Facts = Mapping[str, str | Sequence[str]]


def as_texts(facts: Facts) -> dict[str, str]:
    """Return one text per fact, for formats that cannot hold lists."""
    return {key: text if isinstance(text, str) else ", ".join(text) for key, text in facts.items()}
