"""The files beside a raw series that say what it does not say itself: SerialEM's .mdoc, and files of tilt angles."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tomoseg.io.regular import status_of

COMPRESSED = (".gz", ".bz2")
# What other programs add to the name of a series once it is aligned: IMOD's X.ali, in newer versions X_ali.mrc.
ALIGNED_SUFFIXES, ALIGNED_ENDS = (".ali",), ("_ali", "-ali")
_OTHER_ENDS = ("_preali", "_newst", "_st", "_raw")
# The endings of files of tilt angles: as recorded, and as solved by an alignment.
RECORDED = (".rawtlt", "_tlt.txt")
SOLVED = (".tlt", ".aln")
ANGLE_ENDINGS = (*RECORDED, *SOLVED)
_LONGEST_LISTING = 100_000  # files of a folder


@dataclass(frozen=True)
class Companions:
    """The companions of a raw series: its .mdoc, and its angle files, those that count for more first."""

    mdoc: Path | None = None
    angles: list[Path] = field(default_factory=list)


def is_aligned(raw: Path) -> bool:
    """Return whether the name of a series says that it was aligned before: its solved tilt angles hold then."""
    name = raw.name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).suffix in ALIGNED_SUFFIXES or Path(name).stem.endswith(ALIGNED_ENDS)


def companions_of(raw: Path, names: Mapping[str, str] | None = None) -> Companions:
    """Return the companions of a raw series, by name; upper and lower case are the same.

    `X.mrc.mdoc` and `X.mdoc`; `X.rawtlt`, `X_TLT.txt`, `X.tlt` and `X.aln`, solved angles first for an aligned series.
    For a raw file `X_ali.mrc` (`X_preali`, `X_st`) the companions of `X` count as well, after its own. `names` are
    those of its folder, `names_in`, where they are known already.
    """
    raw = raw if raw.name else raw.absolute()
    beside = names_in(raw.parent) if names is None else names

    def first(*wanted: str) -> Path | None:
        known = (beside[name.lower()] for name in wanted if name.lower() in beside)
        return next((path for path in (raw.with_name(name) for name in known) if status_of(path)), None)

    stems = _stems(raw)
    mdoc = first(*(f"{name}.mdoc" for name in (raw.name, *stems, *(f"{s}{e}" for s in stems for e in (".st", ".mrc")))))
    kinds = (*SOLVED, *RECORDED) if is_aligned(raw) else (*RECORDED, *SOLVED)
    found = [first(*(f"{stem}{kind}" for stem in stems)) for kind in kinds]
    return Companions(mdoc, [path for path in found if path is not None])


def angles_beside(path: Path) -> Path | None:
    """Return the .rawtlt or .tlt of the same name as a file, if there is one."""
    return next((p for p in (path.with_suffix(".rawtlt"), path.with_suffix(".tlt")) if status_of(p)), None)


def _stems(raw: Path) -> list[str]:
    """Return the name without its suffixes, and without what programs add to it."""
    name = raw.stem if raw.name.lower().endswith(COMPRESSED) else raw.name
    stem = Path(name).stem
    ends = [end for end in (*ALIGNED_ENDS, *_OTHER_ENDS) if stem.lower().endswith(end) and len(stem) > len(end)]
    return [stem, *(stem[: -len(end)] for end in ends[:1])]


def names_in(folder: Path) -> dict[str, str]:
    """Return the names in a folder by their lower case; none if it may not be seen."""
    found: dict[str, str] = {}
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= _LONGEST_LISTING:
                    break
                found.setdefault(entry.name.lower(), entry.name)
    except OSError:
        return {}
    return found
