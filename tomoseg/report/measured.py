"""The section of what was measured: classes, particles, the support with its facets, and the pores.

Columns and attributes are shown by their names, whose ends are their units: what a later version measures appears
without a word about it here.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tomoseg.arrays import Array
from tomoseg.report.contents import Contents
from tomoseg.report.html import Html, details, el, facts, figure, join, table
from tomoseg.report.plots import Plot, bars_plot, discs_plot, distribution_plot, size_plot
from tomoseg.report.words import (
    NBSP,
    NOTHING,
    column,
    count,
    heading,
    number,
    plain,
    show,
    split_unit,
    twin,
    value_with_unit,
    with_spread,
)

MOST_ROWS, MOST_CELLS = 5000, 60_000  # of one table in the page; the project file holds all
MOST_BARS = 24
STATISTICS = (
    ("mean_diameter", "mean"),
    ("std_diameter", "standard deviation"),
    ("median_diameter", "median"),
    ("d10", "a tenth of the particles is smaller than"),
    ("d90", "a tenth of the particles is larger than"),
    ("d32", "mean weighted by surface"),
    ("d43", "mean weighted by volume"),
)
WEIGHTS = (("number_fraction", "by number"), ("surface_fraction", "by surface"), ("volume_fraction", "by volume"))
# What is asked of a support first: attribute, words, and whether it is a fraction to be shown in per cent.
SUPPORT_FACTS = (
    ("porosity", "porosity", True),
    ("porosity_half_voxel_out", "with the surface half a voxel out", True),
    ("porosity_half_voxel_in", "with the surface half a voxel in", True),
    ("porosity_with_gaps", "with gaps and corners", True),
    ("closed_porosity", "closed pores", True),
    ("n_pores", "pores", False),
    ("mean_pore_diameter_nm", "mean pore diameter", False),
    ("mean_pore_diameter_px", "mean pore diameter", False),
    ("largest_pore_share", "pore volume in the largest", True),
    ("specific_area_m2_g", "specific surface area", False),
    ("exposed_area_nm2", "exposed surface", False),
    ("pore_wall_area_nm2", "of it pore walls", False),
    ("covered_area_nm2", "covered by particles", False),
    ("crystal", "orientation of a cubic crystal", False),
    ("n_facets", "facets", False),
    ("n_particles_in_pores", "particles in pores", False),
    ("particles_where_planes_meet_share", "particles where planes meet", True),
    ("area_where_planes_meet_share", "surface where planes meet", True),
    ("particles_where_facets_meet_share", "particles where facets meet", True),
    ("area_where_facets_meet_share", "surface where facets meet", True),
    ("tortuosity_z", "tortuosity along z", False),
    ("tortuosity_y", "tortuosity along y", False),
    ("tortuosity_x", "tortuosity along x", False),
)
# Attributes that say how an array is stored, and those that have a place of their own.
NOT_SHOWN = {"meaning", "dims", "unit", "particle_class", "n_particles", "n_in_size_statistics", "n_touching_border"}


def measure_section(contents: Contents) -> Html:
    """Show classes, particles, support and pores."""
    parts: list[Html | None] = []
    classes = contents.rows("class_table")
    if classes is not None:
        parts.append(rows_table(classes, "Classes"))
    parts += _sizes(contents)
    parts += _particles(contents)
    parts += _support(contents)
    parts += _pores(contents)
    return join(parts)


def measurement_curves(contents: Contents) -> Iterator[tuple[Plot, str]]:
    """Yield the plots of this section with their captions."""
    for make in (size_curves, support_curves, pore_curves):
        yield from make(contents)


# --- particles ---


def size_curves(contents: Contents) -> Iterator[tuple[Plot, str]]:
    """Yield the size distribution by count, and as fractions of number, surface and volume."""
    sizes = contents.rows("size_table")
    if sizes is None:
        return
    edges, unit = _edges(sizes)
    mean = contents.number("measurement_info", f"mean_diameter_{unit}")
    yield size_plot(edges, sizes["count"], mean, unit), f"Size distribution. {size_words(contents)}"
    weighted = [(words, sizes[name].astype(float)) for name, words in WEIGHTS if name in (sizes.dtype.names or ())]
    weighted = [(words, heights) for words, heights in weighted if np.isfinite(heights).any()]
    if weighted:
        axis = f"equivalent-sphere diameter ({unit})"
        alt = "size distribution weighted by number, surface and volume"
        yield (
            distribution_plot("sizes_weighted", edges, weighted, axis, "fraction", alt),
            f"Fraction of the particles' {_joined([words.removeprefix('by ') for words, _ in weighted])} in each bin: "
            "large particles hold more of the surface and of the volume than of the number.",
        )


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _sizes(contents: Contents) -> Iterator[Html]:
    curves = list(size_curves(contents))
    if not curves:
        yield el("p", size_words(contents))
        return
    unit = "nm" if np.isfinite(contents.number("measurement_info", "mean_diameter_nm")) else "px"
    pictures = [figure(plot.picture(), words) for plot, words in curves]
    yield el("div", *pictures, class_="pair")
    yield table(("of the diameters", "value"), _statistics(contents, unit), "Size statistics")
    more = _all_facts(contents, "measurement_info", {f"{key}_{unit}" for key, _ in STATISTICS})
    if more:
        yield details("All summary numbers", facts(more))


def _statistics(contents: Contents, unit: str) -> Iterator[tuple[str, str]]:
    """Yield what is known of the size distribution, and which particles are in it."""
    info = "measurement_info"
    for key, words in STATISTICS:
        value = contents.number(info, f"{key}_{unit}")
        low, high = (contents.number(info, f"{key}_ci95_{end}_{unit}") for end in ("low", "high"))
        between = f" (95{NBSP}%: {number(low)} to {number(high)})" if np.isfinite(low) and np.isfinite(high) else ""
        if np.isfinite(value):
            yield words, f"{number(value)}{NBSP}{unit}{between}"
    counted, border = (contents.number(info, key) for key in ("n_in_size_statistics", "n_touching_border"))
    if np.isfinite(counted):
        yield "particles counted in", number(counted, 7)
    if np.isfinite(border):
        yield "left out: cut by the border of the volume", number(border, 7)


def _particles(contents: Contents) -> Iterator[Html]:
    particles = contents.rows("particle_table")
    if particles is not None:
        names = particles.dtype.names or ()
        ids = particles["id"] if "id" in names else np.arange(1, len(particles) + 1)
        yield el("div", rows_table(particles, count(len(particles), "particle"), ids), id="particle-rows")


def size_words(contents: Contents) -> str:
    """Say how many particles there are and how large, in one sentence."""
    info = "measurement_info"
    n, name = contents.number(info, "n_particles"), contents.text(info, "particle_class")
    particles = contents.rows("particle_table")
    if not np.isfinite(n):
        n = 0.0 if particles is None else float(len(particles))
    if n == 0:
        return f"No particles of class {name} were found." if name else "No particles were found."
    text = count(int(n), "particle") + (f" of class {name}" if name not in ("", "particle", "particles") else "")
    unit = "nm" if np.isfinite(contents.number(info, "mean_diameter_nm")) else "px"
    mean, spread = (contents.number(info, f"{key}_diameter_{unit}") for key in ("mean", "std"))
    if not np.isfinite(mean):
        return f"{text}."
    middle, around = with_spread(mean, spread)
    if around == NOTHING:
        return f"{text}, mean diameter {middle} {unit}."
    return f"{text}, mean diameter {middle} ± {around} {unit} (standard deviation)."


# --- support and pores ---


def support_curves(contents: Contents) -> Iterator[tuple[Plot, str]]:
    """Yield facets, orientations and curvature of the support's surface."""
    facets, density = contents.rows("facet_table"), contents.rows("orientation_map")
    if facets is not None and (bars := _bars(_named(facets))):
        labels, values = bars
        alt = "part of the support's surface, and of the particles, by facet"
        yield bars_plot("facets", labels, values, "fraction", alt), "The support's surface by the planes it faces."
    if density is not None and density.ndim == 3 and len(density) == 2 and np.isfinite(density).any():
        words = "Where the outward normals of the support's surface point, in Lambert's equal-area projection."
        yield discs_plot(density.astype(float), ("−z", "+z")), words
    curvature = contents.rows("curvature_table")
    if curvature is not None:
        words = "Mean curvature of the support's surface: positive where it bulges outwards."
        yield from _histogram(curvature, "curvature", "mean curvature", words)


def pore_curves(contents: Contents) -> Iterator[tuple[Plot, str]]:
    """Yield the distribution of pore sizes."""
    sizes = contents.rows("pore_size_table")
    if sizes is not None:
        words = "Pore volume by the diameter of the largest sphere that fits there."
        yield from _histogram(sizes, "pore_sizes", "pore diameter", words)


def _support(contents: Contents) -> Iterator[Html]:
    rows = list(_support_facts(contents))
    yield from _part(contents, "The support", rows, support_curves, "facet_table", "Facets")
    if more := _all_facts(contents, "support_info"):
        yield details("All numbers of the support", facts(more))


def _support_facts(contents: Contents) -> Iterator[tuple[str, str]]:
    """Yield what is asked first, in that order; lengths in px only where nm are unknown."""
    attrs, said = contents.attrs("support_info"), set[str]()
    for key, words, in_percent in SUPPORT_FACTS:
        text = show(attrs.get(key))
        if text == NOTHING or words in said:
            continue
        said.add(words)
        value = f"{number(100 * contents.number('support_info', key))}{NBSP}%" if in_percent else None
        yield words, value or value_with_unit(attrs[key], split_unit(key)[1])


def _pores(contents: Contents) -> Iterator[Html]:
    yield from _part(contents, "Pores", [], pore_curves, "pore_table", "Pores, one by one")


def _part(
    contents: Contents,
    title: str,
    rows: Sequence[tuple[str, str]],
    make: Callable[[Contents], Iterator[tuple[Plot, str]]],
    name: str,
    caption: str,
) -> Iterator[Html]:
    """Yield a part with its heading; nothing where there is nothing to show."""
    curves, listed = list(make(contents)), contents.rows(name)
    if not (rows or curves or listed is not None):
        return
    yield el("h3", title)
    if rows:
        yield facts(rows)
    if curves:
        yield el("div", *(figure(plot.picture(), words) for plot, words in curves), class_="pair")
    if listed is not None:
        yield rows_table(listed, caption)


def _edges(bins: Array) -> tuple[Array, str]:
    """Return the edges (n + 1,) of a table of bins, in nm where known, and their unit."""
    unit = "nm" if np.isfinite(bins["from_nm"]).all() else "px"
    return np.append(bins[f"from_{unit}"], bins[f"to_{unit}"][-1]), unit


def _histogram(bins: Array, name: str, what: str, caption: str) -> Iterator[tuple[Plot, str]]:
    """Yield the plot of a table of bins: columns from_..., to_... with a unit, and fractions."""
    columns = bins.dtype.names or ()
    starts = [c for c in columns if c.startswith("from_") and not np.isnan(_numbers(bins, c)).any()]
    starts = [c for c in starts if twin(c) == c or twin(c) not in starts]
    heights = _fractions(bins)
    if not starts or starts[0].replace("from_", "to_", 1) not in columns or not heights:
        return
    edges = np.append(_numbers(bins, starts[0]), _numbers(bins, starts[0].replace("from_", "to_", 1))[-1])
    if len(edges) > 3:  # the outermost bins may be open: they are drawn as wide as their neighbours
        edges[[0, -1]] = [
            end if np.isfinite(end) else 2 * near - next_
            for end, near, next_ in (edges[[0, 1, 2]], edges[[-1, -2, -3]])
        ]
    if not (np.isfinite(edges).all() and (np.diff(edges) > 0).all()):
        return
    unit = split_unit(starts[0])[1]
    yield distribution_plot(name, edges, heights, f"{what} ({unit})" if unit else what, "fraction", what), caption


def _named(facets: Array) -> Array:
    """Return the facets and families without what is on none of them, which would dwarf them."""
    if "name" not in (facets.dtype.names or ()):
        return facets
    return facets[[plain(name) != "rest" for name in facets["name"]]]


def _bars(rows: Array) -> tuple[list[str], list[tuple[str, Array]]] | None:
    """Return names and fractions of the rows of a table, those with the largest first fractions, in their order."""
    values = _fractions(rows)
    if not values or not len(rows):
        return None
    texts = [c for c in rows.dtype.names or () if rows[c].dtype.kind in "SUO"]
    kept = np.sort(np.argsort(-np.nan_to_num(values[0][1]), kind="stable")[:MOST_BARS])
    labels = [_plain_letters(plain(rows[texts[0]][i])) if texts else "" for i in kept]
    labels = [label or f"row {i + 1}" for label, i in zip(labels, kept, strict=True)]
    return labels, [(words, heights[kept]) for words, heights in values]


def _plain_letters(value: object) -> str:
    """Return a short text of letters that any font has and nothing else; else ''."""
    text = str(value)
    return text if re.fullmatch(r"[A-Za-z0-9{}()\[\]<>., +/-]{1,20}", text) else ""


def _fractions(rows: Array) -> list[tuple[str, Array]]:
    """Return up to three columns of fractions with plain words for them; counts where there are no fractions."""
    names = [c for c in rows.dtype.names or () if rows[c].dtype.kind in "fiu" and _plain_letters(c.replace("_", " "))]
    for word in ("fraction", "share", "count"):
        found = [c for c in names if word in c and np.isfinite(_numbers(rows, c)).any()]
        if found:
            return [(c.replace("_", " "), np.nan_to_num(_numbers(rows, c))) for c in found[:3]]
    return []


def _numbers(rows: Array, name: str) -> Array:
    return np.asarray(rows[name], float) if rows[name].dtype.kind in "fiub" else np.full(len(rows), np.nan)


# --- what there is, by its names ---


def _all_facts(contents: Contents, info: str, without: set[str] | None = None) -> list[tuple[str, str]]:
    """Return every attribute that says something, with its unit; none in px beside the same in nm."""
    attrs = contents.attrs(info)
    left_out = NOT_SHOWN | (without or set())
    rows = []
    for key, value in attrs.items():
        other = twin(key)
        if key in left_out or other in left_out or (other != key and show(attrs.get(other)) != NOTHING):
            continue
        words, unit = split_unit(key)
        text = value_with_unit(value, unit)
        if text != NOTHING and not text.startswith(NOTHING):
            rows.append((words, text))
    return rows


def rows_table(rows: Array, caption: str, ids: Array | None = None) -> Html:
    """Return a structured array as a table: units in brackets, columns without a number and px beside nm left out."""
    names = [name for name in rows.dtype.names or () if not _useless(rows, name)]
    shown = max(1, min(len(rows), MOST_ROWS, MOST_CELLS // max(1, len(names))))
    if shown < len(rows):
        caption = f"{caption}, the first {shown}; the project file holds all"
    cells = [column(rows[name][:shown]) for name in names]
    marks = None if ids is None else [str(plain(i)) for i in ids[:shown]]
    return table([heading(name) for name in names], zip(*cells, strict=True), caption, sortable=True, row_ids=marks)


def _useless(rows: Array, name: str) -> bool:
    """Say whether a column holds nothing, or in px what another holds in nm."""
    other = twin(name)
    if other != name and other in (rows.dtype.names or ()):
        return bool(np.isfinite(_numbers(rows, other)).any())
    return rows[name].dtype.kind == "f" and not np.isfinite(rows[name]).any()
