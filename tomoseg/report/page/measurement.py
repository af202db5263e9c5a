"""The section of what was measured: classes, particles, the support with its facets, and the pores.

Columns and attributes are shown by their names, whose endings are their units: new measurements appear without any
mention here.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tomoseg.arrays import Array
from tomoseg.report.figures.curves import Curve, numbers, pore_curves, size_curves, support_curves
from tomoseg.report.formatting import (
    NBSP,
    NOTHING,
    aligned_column,
    heading,
    in_nm,
    number,
    plain,
    plus_minus,
    show,
    split_unit,
    uncertainty_of,
    value_with_unit,
)
from tomoseg.report.html import Html, details, el, facts, join, table
from tomoseg.report.page.parts import curves
from tomoseg.report.results import Results
from tomoseg.report.summary import size_sentence
from tomoseg.words import count

MOST_ROWS, MOST_CELLS = 5000, 60_000  # of one table in the page; the project file holds all
STATISTICS = (
    ("mean_diameter", "mean"),
    ("std_diameter", "standard deviation"),
    ("median_diameter", "median"),
    ("d10", "10th percentile"),
    ("d90", "90th percentile"),
    ("d32", "surface-weighted mean (d32)"),
    ("d43", "volume-weighted mean (d43)"),
)
COUNTED = (
    ("n_in_size_statistics", "particles included"),
    ("n_touching_border", "particles excluded because the border cuts them"),
    ("n_below_resolution", "particles excluded because they are below the resolution"),
)
# What readers look for first in a support: attribute, name, and whether it is a fraction to be shown in per cent.
SUPPORT_FACTS = (
    ("porosity", "porosity", True),
    ("porosity_half_voxel_out", "porosity with the surface half a voxel further out", True),
    ("porosity_half_voxel_in", "porosity with the surface half a voxel further in", True),
    ("porosity_with_gaps", "porosity including gaps and corners", True),
    ("closed_porosity", "closed porosity", True),
    ("n_open_pores", "open pores", False),
    ("n_closed_pores", "closed pores", False),
    ("n_pores_touching_border", "pores cut by the border", False),
    ("n_pores_below_resolution", "pores narrower than the resolution", False),
    ("mean_pore_diameter_nm", "mean pore diameter", False),
    ("mean_pore_diameter_px", "mean pore diameter", False),
    ("largest_pore_share", "share of the largest pore in the pore volume", True),
    ("specific_area_m2_g", "specific surface area", False),
    ("exposed_area_nm2", "exposed surface", False),
    ("pore_wall_area_nm2", "pore walls (part of the exposed surface)", False),
    ("covered_area_nm2", "surface covered by particles", False),
    ("crystal", "orientation of a cubic crystal", False),
    ("n_facets", "facets", False),
    ("n_particles_in_pores", "particles in pores", False),
    ("particles_where_planes_meet_share", "particles where crystal planes meet", True),
    ("area_where_planes_meet_share", "surface where crystal planes meet", True),
    ("particles_where_facets_meet_share", "particles where facets meet", True),
    ("area_where_facets_meet_share", "surface where facets meet", True),
    ("tortuosity_z", "tortuosity along z", False),
    ("tortuosity_y", "tortuosity along y", False),
    ("tortuosity_x", "tortuosity along x", False),
)
# Attributes that say how an array is stored, and those shown elsewhere.
NOT_SHOWN = {"meaning", "dims", "unit", "particle_class", "n_particles", *dict(COUNTED)}


def measure_section(results: Results) -> Html:
    """Show classes, particles, support and pores."""
    classes = results.rows("class_table")
    return join(
        [
            None if classes is None else rows_table(classes, "Classes"),
            *_layers(results),
            *_sizes(results),
            *_particles(results),
            *_support(results),
            *_part(results, "Pores", [], pore_curves, "pore_table", "All pores"),
        ]
    )


def _layers(results: Results) -> Iterator[Html]:
    layers = results.rows("layer_table")
    if layers is not None:
        yield rows_table(layers, "Layers along the tilt axis")


# --- particles ---


def _sizes(results: Results) -> Iterator[Html]:
    found = list(size_curves(results))
    if not found:
        yield el("p", size_sentence(results))
        return
    yield curves(found)
    yield table(("particle diameter", "value"), _statistics(results), "Size statistics")
    more = _all_facts(results, "measurement_info", {f"{key}_{results.diameter_unit}" for key, _ in STATISTICS})
    if more:
        yield details("All numbers of the measurement", facts(more))


def _statistics(results: Results) -> Iterator[tuple[str, str]]:
    """Yield what is known of the size distribution, and which particles it includes."""
    info, unit = "measurement_info", results.diameter_unit
    for key, name in STATISTICS:
        value = results.number(info, f"{key}_{unit}")
        low, high = (results.number(info, f"{key}_ci95_{end}_{unit}") for end in ("low", "high"))
        sigma, interval = results.number(info, uncertainty_of(f"{key}_{unit}")), ""
        if np.isfinite(low) and np.isfinite(high):
            interval = f" (95{NBSP}% confidence interval {number(low)} to {number(high)})"
        if np.isfinite(value):
            yield name, f"{plus_minus(value, sigma)}{NBSP}{unit}{interval}"
    by_intensity = results.number(info, f"mean_diameter_by_intensity_{unit}")
    if np.isfinite(by_intensity):
        yield "mean by intensity instead of labels", f"{number(by_intensity)}{NBSP}{unit}"
    n, sigma = (results.number(info, f"n_particles{what}") for what in ("", "_uncertainty"))
    if np.isfinite(sigma):
        yield "particles found (± standard uncertainty)", plus_minus(n, sigma)
        both = results.number(info, "n_particles_in_both_halves")
        yield "particles found with the even and with the odd tilts", number(both, 7)
    for key, name in COUNTED:
        n = results.number(info, key)
        if np.isfinite(n):
            yield name, number(n, 7)


def _particles(results: Results) -> Iterator[Html]:
    particles = results.rows("particle_table")
    if particles is not None:
        names = particles.dtype.names or ()
        ids = particles["id"] if "id" in names else np.arange(1, len(particles) + 1)
        yield el("div", rows_table(particles, count(len(particles), "particle"), ids), id="particle-rows")


# --- support and pores ---


def _support(results: Results) -> Iterator[Html]:
    rows = list(_support_facts(results))
    yield from _part(results, "The support", rows, support_curves, "facet_table", "Facets")
    if more := _all_facts(results, "support_info"):
        yield details("All numbers of the support", facts(more))


def _support_facts(results: Results) -> Iterator[tuple[str, str]]:
    """Yield the main facts in their order; lengths in px only where those in nm are unknown."""
    attrs, said = results.attrs("support_info"), set[str]()
    for key, name, in_percent in SUPPORT_FACTS:
        text = show(attrs.get(key))
        if text == NOTHING or name in said:
            continue
        said.add(name)
        value = f"{number(100 * results.number('support_info', key))}{NBSP}%" if in_percent else None
        unit = split_unit(key)[1]
        sigma = results.number("support_info", uncertainty_of(key))
        if np.isfinite(sigma):
            scale, unit = (100, "%") if in_percent else (1, unit)
            value = f"{plus_minus(scale * results.number('support_info', key), scale * sigma)}{NBSP}{unit}"
        yield name, value or value_with_unit(attrs[key], unit)


def _part(
    results: Results,
    title: str,
    rows: Sequence[tuple[str, str]],
    make: Callable[[Results], Iterator[Curve]],
    name: str,
    caption: str,
) -> Iterator[Html]:
    """Yield a part with its heading; nothing where there is nothing to show."""
    found, listed = list(make(results)), results.rows(name)
    if not (rows or found or listed is not None):
        return
    yield el("h3", title)
    if rows:
        yield facts(rows)
    if found:
        yield curves(found)
    if listed is not None:
        yield rows_table(listed, caption)


# --- whatever there is, by its names ---


def _all_facts(results: Results, info: str, without: set[str] | None = None) -> list[tuple[str, str]]:
    """Return all attributes that have a value, with their units; none in px beside the same in nm."""
    attrs = results.attrs(info)
    omitted = NOT_SHOWN | (without or set())
    rows = []
    for key, value in attrs.items():
        other = in_nm(key)
        if key in omitted or other in omitted or (other != key and show(attrs.get(other)) != NOTHING):
            continue
        name, unit = split_unit(key)
        text = value_with_unit(value, unit)
        if text != NOTHING and not text.startswith(NOTHING):
            rows.append((name, text))
    return rows


def rows_table(rows: Array, caption: str, ids: Array | None = None, *, most_rows: int = MOST_ROWS) -> Html:
    """Return a structured array as a table, units in brackets, without empty columns and px beside nm."""
    names = [name for name in rows.dtype.names or () if not _redundant(rows, name)]
    shown = max(1, min(len(rows), most_rows, MOST_CELLS // max(1, len(names))))
    if shown < len(rows):
        caption = f"{caption}, the first {shown} of which are shown; the project file holds all"
    cells = [aligned_column(rows[name][:shown]) for name in names]
    marks = None if ids is None else [str(plain(i)) for i in ids[:shown]]
    return table([heading(name) for name in names], zip(*cells, strict=True), caption, sortable=True, row_ids=marks)


def _redundant(rows: Array, name: str) -> bool:
    """Tell whether a column holds no values, or in px what another holds in nm."""
    other = in_nm(name)
    if other != name and other in (rows.dtype.names or ()):
        return bool(np.isfinite(numbers(rows, other)).any())
    return rows[name].dtype.kind == "f" and not np.isfinite(rows[name]).any()
