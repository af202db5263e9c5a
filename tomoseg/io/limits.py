"""What a file may claim about itself before it is believed.

A header can promise any number of pixels. Before memory is set aside for them, the promise is held against the bytes
that are really there.
"""

from pathlib import Path

from tomoseg.errors import InputError, shown

FREE_BYTES = 64 << 20  # so much is never refused: a large slice of one value may compress to next to nothing
# Decoded bytes per stored byte. Images with noise stay below 5, and so do noise-free simulated projections.
MOST_EXPANSION = 100


def require_plausible(path: Path, claimed: int, stored: int, what: str = "it") -> None:
    """Raise InputError if `claimed` bytes of pixels cannot have been compressed to `stored` bytes.

    Raises
    ------
    InputError
        More is claimed than `FREE_BYTES` and `MOST_EXPANSION` times what is stored.
    """
    if claimed > max(FREE_BYTES, MOST_EXPANSION * stored):
        raise InputError(
            f"{path} cannot be right: {what} promises {size_words(claimed)} and has {size_words(stored)} stored, "
            "less than images can be compressed to. The file is damaged or truncated; if it is not, save it without "
            "compression"
        )


def size_words(n_bytes: int) -> str:
    """Return a number of bytes in words."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.4g} {unit}"
    return f"{n_bytes} bytes"


def reason_of(error: BaseException) -> str:
    """Return the first line of what a library said, short and without control characters."""
    return shown(str(error).strip().split("\n", 1)[0], 200) or type(error).__name__


def read_text(path: Path, most: int, what: str) -> str:
    """Return the text of a small file, UTF-8 with or without mark; bytes that are not are replaced.

    Raises
    ------
    InputError
        It does not exist, cannot be read, or has more than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)  # not its stated size: a pipe has none
    except FileNotFoundError as error:
        raise InputError(f"the {what} {path} does not exist") from error
    except OSError as error:
        raise InputError(f"cannot read the {what} {path}: {error.strerror}") from error
    if len(content) > most:
        raise InputError(f"{path} is no {what}: it has more than {size_words(most)}")
    return content.decode("utf-8-sig", errors="replace")
