"""Words around numbers, for messages and pages."""


def count(n: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun, singular or plural.

    >>> count(1, "particle"), count(2, "particle"), count(2, "series", "series")
    ('1 particle', '2 particles', '2 series')
    """
    return f"{n} {one if n == 1 else many or one + 's'}"
