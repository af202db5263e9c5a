"""Companion files: found beside a raw series by their name, and used without being given."""

from pathlib import Path


def mdoc_beside(raw: Path) -> Path | None:
    """Return the .mdoc of a raw series, `X.mrc.mdoc` or `X.mdoc`, if there is one."""
    return _first([raw.with_name(f"{raw.name}.mdoc"), raw.with_name(f"{raw.stem}.mdoc")])


def angles_beside(raw: Path) -> Path | None:
    """Return the .rawtlt or .tlt of the same name as a raw series, if there is one."""
    return _first([raw.with_suffix(".rawtlt"), raw.with_suffix(".tlt")])


def _first(paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
