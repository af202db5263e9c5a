"""Words around numbers, for messages and pages."""


def count(n: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun, singular or plural.

    >>> count(1, "particle"), count(2, "particle"), count(2, "series", "series")
    ('1 particle', '2 particles', '2 series')
    """
    return f"{n} {one if n == 1 else many or one + 's'}"


def ordinal(n: int) -> str:
    """Return a number as an ordinal.

    >>> ordinal(2), ordinal(3), ordinal(11), ordinal(21)
    ('2nd', '3rd', '11th', '21st')
    """
    teen = 10 < n % 100 < 20
    return f"{n}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def bytes_as_text(n_bytes: float) -> str:
    """Return a number of bytes with a fitting unit.

    >>> bytes_as_text(17), bytes_as_text(3_141_592)
    ('17 bytes', '3.14 MB')
    """
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 999.5:  # 1000 to three digits
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"
