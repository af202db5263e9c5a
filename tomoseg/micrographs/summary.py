"""The tables of many micrographs: images, particles, and the sizes of each sample and of all together."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.export.formats.csv import write_csv
from tomoseg.export.formats.parquet import why_missing, write_parquet
from tomoseg.io.atomic import atomic_path
from tomoseg.measurement.particles.sizes import SampleSizes, size_table
from tomoseg.micrographs.distribution import confidence_intervals, finite_weights, weighted_sizes
from tomoseg.micrographs.records import Record
from tomoseg.micrographs.results import DELETED, SIZES

ALL = "all images"
TEXTS = {
    *("image", "sample", "scale_source", "scale_bar_label", "polarity", "polarity_by", "notes", "warnings", "origin"),
    *("reason", "unit", "path"),
}
WHOLE = {"height_px", "width_px", "n_particles", "n_cut_by_border", "label", "n_images"}


def counted(record: Record) -> NDArray[np.bool_]:
    """Return which particles of an image count in the sizes: inside the frame, and not deleted by hand."""
    cut = np.array(record.particles["touches_border"], bool)
    return np.asarray(~cut & np.array([origin != DELETED for origin in record.particles["origin"]], bool))


def samples_of(records: Sequence[Record], *, border_correction: bool) -> list[SampleSizes]:
    """Return the sizes in all images together and, where there are several samples, in each of them."""
    measured = [record for record in records if not record.skipped]
    names = sorted({record.row["sample"] for record in measured})
    of_each = [[r for r in measured if r.row["sample"] == name] for name in names] if len(names) > 1 else []
    parts = [(ALL, measured), *zip(names, of_each, strict=False)]
    return [_sample(name, chosen, border_correction) for name, chosen in parts]


def _sample(name: str, records: Sequence[Record], border_correction: bool) -> SampleSizes:
    with_scale = [r for r in records if np.isfinite(_number(r.row["pixel_size_nm"]))]
    unit, chosen, notes = "nm", with_scale, []
    if not with_scale:
        unit, chosen = "px", list(records)
        if records:
            notes.append("no image has a scale: sizes are in px, which mean the same only at one magnification")
    elif len(with_scale) < len(records):
        notes.append(f"{len(records) - len(with_scale)} images without a scale are left out")
    kept = [counted(r) for r in chosen]
    sizes = _gathered(chosen, kept, f"diameter_{unit}")
    weights = _gathered(chosen, kept, "weight") if border_correction else np.ones(len(sizes))
    cut = sum(int(np.sum(r.particles["touches_border"])) for r in chosen)
    histogram = size_table(sizes, 1.0, weights=finite_weights(weights))
    return SampleSizes(
        name,
        unit,
        len(chosen),
        len(sizes),
        cut,
        weighted_sizes(sizes, weights),
        confidence_intervals(sizes, weights),
        histogram,
        notes,
    )


def _gathered(records: Sequence[Record], kept: Sequence[NDArray[np.bool_]], column: str) -> NDArray[np.float64]:
    parts = [np.array(r.particles[column], float)[k] for r, k in zip(records, kept, strict=True)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


# --- files ---


def write_tables(folder: Path, records: Sequence[Record], samples: Sequence[SampleSizes]) -> list[Path]:
    """Write images, particles, samples and what was skipped, as CSV and, where it can be, as Parquet."""
    measured = [record for record in records if not record.skipped]
    tables = {
        "images": _table([record.row for record in measured]),
        "particles": _table([row for record in measured for row in _particle_rows(record)]),
        "samples": _table([_sample_row(sample) for sample in samples]),
        "skipped": _table([{"image": record.name, "reason": record.skipped} for record in records if record.skipped]),
    }
    written = []
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        if table is None:
            path.unlink(missing_ok=True)  # of an earlier run
            continue
        with atomic_path(path) as temporary:
            write_csv(temporary, table)
        written.append(path)
        if name in ("images", "particles") and not why_missing():
            with atomic_path(path.with_suffix(".parquet")) as temporary:
                write_parquet(temporary, table)
            written.append(path.with_suffix(".parquet"))
    return written


def _particle_rows(record: Record) -> Iterator[dict[str, Any]]:
    names = list(record.particles)
    for values in zip(*record.particles.values(), strict=True):
        yield {"image": record.name, "sample": record.row["sample"], **dict(zip(names, values, strict=True))}


def _sample_row(sample: SampleSizes) -> dict[str, Any]:
    row: dict[str, Any] = {"sample": sample.name, "n_images": sample.n_images, "n_particles": sample.n_particles}
    row |= {"n_cut_by_border": sample.n_cut, "unit": sample.unit}
    for name in (*SIZES, "dv10", "dv90", "lognormal_median", "lognormal_sigma"):
        row[name] = sample.numbers[name]
        row[f"{name}_ci95_low"], row[f"{name}_ci95_high"] = sample.intervals[name]
    return row | {"notes": "; ".join(sample.notes)}


def _table(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.void] | None:
    """Return rows as a structured array; None where there are none."""
    if not rows:
        return None
    kinds = [(name, _kind(name)) for name in rows[0]]
    return np.array([tuple(_cell(row[name], kind) for name, kind in kinds) for row in rows], np.dtype(kinds))


def _kind(name: str) -> str:
    if name in TEXTS:
        return "O"
    return "i8" if name in WHOLE else "?" if name == "touches_border" else "f8"


def _cell(value: Any, kind: str) -> Any:
    return str(value) if kind == "O" else _number(value) if kind == "f8" else value
