"""Limits on what a file may claim about itself.

A header can announce any number of pixels. Before memory is allocated for them, the claim is compared with the bytes
that the file really holds.
"""

from pathlib import Path

from tomoseg.errors import InputError, shown
from tomoseg.words import bytes_as_text

FREE_BYTES = 64 << 20  # never refused: a large slice of one value may compress to next to nothing
# Decoded bytes per stored byte. Images with noise stay below 5, and so do noise-free simulated projections.
MOST_EXPANSION = 100


def require_plausible(path: Path, claimed: int, stored: int, what: str = "it") -> None:
    """Raise InputError if `claimed` bytes of pixels cannot have been compressed to `stored` bytes.

    Raises `InputError` if more is claimed than `FREE_BYTES` and `MOST_EXPANSION` times what is stored.
    """
    if claimed > max(FREE_BYTES, MOST_EXPANSION * stored):
        raise InputError(
            f"{path} is damaged or truncated: {what} claims {bytes_as_text(claimed)} of pixels, but "
            f"{bytes_as_text(stored)} are stored, less than images can be compressed to. If the file is sound, "
            "save it without compression"
        )


def reason_of(error: BaseException) -> str:
    """Return the first line of a library's error, short and without control characters."""
    return shown(str(error).strip().split("\n", 1)[0], 200) or type(error).__name__


def reason_without(error: InputError, path: Path) -> str:
    """Return what an error says of a file, without the file's name at its beginning."""
    return str(error).removeprefix(str(path)).lstrip(":, ")


def read_text(path: Path, most: int, what: str) -> str:
    """Return the text of a small file in UTF-8 or, where it says so, UTF-16; invalid bytes are replaced.

    UTF-16 is told by its byte order mark, or by every other byte of the beginning being 0.

    Raises `InputError` if it does not exist, cannot be read, or has more than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)  # not its stated size: a pipe has none
    except FileNotFoundError as error:
        raise InputError(f"the {what} {path} does not exist") from error
    except OSError as error:
        raise InputError(f"cannot read the {what} {path}: {error.strerror}") from error
    if len(content) > most:
        raise InputError(f"the {what} {path} has more than {bytes_as_text(most)}; was another file meant?")
    return content.decode(_encoding(content), errors="replace")


def _encoding(content: bytes) -> str:
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return "utf-16"
    start = content[:64]
    if len(start) >= 4 and not any(start[1::2]):
        return "utf-16-le"
    if len(start) >= 4 and not any(start[::2]):
        return "utf-16-be"
    return "utf-8-sig"
