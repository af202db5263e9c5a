"""The curves of a project, each with its caption: which plots there are, and what they show."""

import re
from collections.abc import Iterator

import numpy as np

from tomoseg.arrays import Array
from tomoseg.report.figures import plots
from tomoseg.report.figures.plots import TILT, Line, Plot
from tomoseg.report.formatting import in_nm, joined, plain, split_unit
from tomoseg.report.results import Results, column
from tomoseg.report.summary import size_sentence

MOST_BARS = 24
WEIGHTS = (("number_fraction", "number"), ("surface_fraction", "surface"), ("volume_fraction", "volume"))

Curve = tuple[Plot, str]  # a plot and its caption


def all_curves(results: Results) -> Iterator[Curve]:
    """Yield every curve of the page."""
    for artifact, makers in (
        ("aligned", (alignment_curves,)),
        ("volume", (reconstruction_curves,)),
        ("class_table", (size_curves, support_curves, pore_curves)),
    ):
        if results.get(artifact) is not None:
            for make in makers:
                yield from make(results)


# --- alignment and reconstruction ---


def alignment_curves(results: Results) -> Iterator[Curve]:
    """Yield shifts, correlation, prediction and error, as far as they are known."""
    angles, shifts, quality = results.angles_deg, results.rows("shifts_px"), results.rows("tilt_quality")
    if angles is None:
        return
    if shifts is not None and shifts.shape == (len(angles), 2) and shifts.any():
        lines: list[Line] = [(shifts[:, 1], "x", "first", "o-"), (shifts[:, 0], "y", "second", "s-")]
        alt, caption = "shift of each tilt in x and y", "Shift added to the coordinates of each raw image to align it."
        yield plots.lines_plot("shifts", alt, (TILT, "shift (px)"), angles, lines), caption
    yield from _marker_curve(angles, results.rows("marker_residuals_px"))
    if quality is None or len(quality) != len(angles):
        return
    before, after = (column(quality, "correlation", when) for when in ("before", "after"))
    if before is not None and after is not None:
        caption = "Correlation of each tilt with its neighbour. High and smooth curves mean a good alignment."
        labels, lines = (TILT, "correlation with neighbour"), _raw_and_aligned(before, after)
        alt = "correlation of neighbouring tilts before and after alignment"
        yield plots.lines_plot("correlation", alt, labels, angles, lines, limits=(None, 1.0)), caption
    yield from _prediction_curves(angles, quality)


def _marker_curve(angles: Array, residuals: Array | None) -> Iterator[Curve]:
    if residuals is None or residuals.shape[1:] != (len(angles), 2):
        return
    lengths = np.hypot(residuals[..., 0], residuals[..., 1])
    seen = np.isfinite(lengths)
    means = np.where(seen, lengths, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    lines: list[Line] = [(np.where(seen.any(axis=0), means, np.nan), None, "first", "o-")]
    caption = "Mean distance of the markers in each tilt from where they must be."
    labels = (TILT, "marker residual (px)")
    yield (
        plots.lines_plot(
            "markers", "mean residual of the markers in each tilt", labels, angles, lines, limits=(0, None)
        ),
        caption,
    )


def _raw_and_aligned(before: Array, after: Array) -> list[Line]:
    return [(before, "raw", "second", "o-"), (after, "aligned", "first", "o-")]


def _prediction_curves(angles: Array, quality: Array) -> Iterator[Curve]:
    """Yield what the prediction of held-out tilts tells; projects of old versions lack it."""
    before, after = (column(quality, "residual", when) for when in ("before", "after"))
    outliers = column(quality, "is_outlier")
    marked = np.zeros(len(angles), bool) if outliers is None else outliers > 0
    if before is not None and after is not None and np.isfinite(after).any():
        caption = (
            "Prediction of held-out tilts: relative residual ‖measured − predicted‖ / ‖measured‖ of each tilt, "
            "predicted from the others by a quick reconstruction. What remains after alignment comes from noise and "
            "from the limited number of tilts."
        )
        alt, lines = "residual of each held-out tilt before and after alignment", _raw_and_aligned(before, after)
        # 1 is as bad as predicting nothing: a single image far above must not press the others flat.
        limits = 0, min(1.2, 1.1 * float(np.nanmax([before, after]))) or 1.0
        labels = (TILT, "relative residual")
        yield plots.lines_plot("residual_of_tilts", alt, labels, angles, lines, outliers=marked, limits=limits), caption
    error, limit = column(quality, "error_px"), column(quality, "error_uncertainty_px")
    if error is not None and np.isfinite(error).any():
        caption = (
            "Estimated alignment error: distance of each aligned image from the position that the other tilts predict, "
            "in raw pixels per direction. Errors that drift slowly from tilt to tilt are underestimated."
        )
        lines = [(error, "estimated error", "first", "o-")]
        lines += [] if limit is None else [(limit, "detection limit", "second", "--")]
        limits = 0, 1.35 * float(np.nanmax(error)) or 1.0  # room for the legend
        alt, labels = "estimated alignment error of each tilt", (TILT, "alignment error (px)")
        yield (
            plots.lines_plot("error_of_positions", alt, labels, angles, lines, outliers=marked, limits=limits),
            caption,
        )


def reconstruction_curves(results: Results) -> Iterator[Curve]:
    """Yield residual, stopping and resolution curves, as far as they are known."""
    residuals, stopping, shells = (results.rows(name) for name in ("residuals", "stopping", "shells"))
    if residuals is not None and len(residuals) > 1:
        caption = "Relative residual ‖p − A v‖ / ‖p‖: the part of the images p that the volume v does not explain."
        lines: list[Line] = [(residuals, None, "first", "o-")]
        alt, labels = "relative residual against iteration", ("iteration", "relative residual")
        yield plots.lines_plot("residual", alt, labels, np.arange(len(residuals)), lines, limits=(0, None)), caption
    if stopping is not None and len(stopping):
        caption = "Residual of the held-out tilts: it falls while the object emerges and rises once noise is fitted."
        chosen = results.number("reconstruction_info", "iterations")
        yield plots.stopping_plot(stopping["iterations"], stopping["held_out"], int(np.nan_to_num(chosen))), caption
    if shells is not None and len(shells):
        caption = (
            "Fourier shell correlation of reconstructions from even and from odd tilts, outside the missing wedge: "
            "averaged over directions, across the tilt axis (x), and along it (y)."
        )
        yield plots.shell_plot(shells, results.voxel_size_nm), caption


# --- measurement ---


def size_curves(results: Results) -> Iterator[Curve]:
    """Yield the size distribution by count, and as fractions of number, surface and volume."""
    sizes = results.rows("size_table")
    if sizes is None:
        return
    unit = "nm" if np.isfinite(sizes["from_nm"]).all() else "px"
    edges = np.append(sizes[f"from_{unit}"], sizes[f"to_{unit}"][-1])
    mean = results.number("measurement_info", f"mean_diameter_{unit}")
    yield plots.size_plot(edges, sizes["count"], mean, unit), f"Size distribution. {size_sentence(results)}"
    known = [(what, sizes[name].astype(float)) for name, what in WEIGHTS if name in (sizes.dtype.names or ())]
    known = [(what, heights) for what, heights in known if np.isfinite(heights).any()]
    if known:
        weighted = [(f"by {what}", heights) for what, heights in known]
        alt = "size distribution weighted by number, surface and volume"
        yield (
            plots.distribution_plot("sizes_weighted", edges, weighted, plots.diameter_label(unit), "fraction", alt),
            f"Fraction of the particles' {joined([what for what, _ in known])} in each bin: "
            "large particles contribute more to the surface and the volume than to the number.",
        )


def support_curves(results: Results) -> Iterator[Curve]:
    """Yield facets, orientations and curvature of the support's surface."""
    facets, density = results.rows("facet_table"), results.rows("orientation_map")
    if facets is not None and (bars := _bars(_on_facets(facets))):
        alt = "part of the support's surface, and of the particles, by facet"
        yield plots.bars_plot("facets", *bars, "fraction", alt), "The support's surface by crystal plane or facet."
    if density is not None and density.ndim == 3 and len(density) == 2 and np.isfinite(density).any():
        caption = "Directions of the support's outward surface normals, in Lambert's equal-area projection."
        yield plots.discs_plot(density.astype(float), ("−z", "+z")), caption
    caption = "Mean curvature of the support's surface: positive where it is convex."
    yield from _histogram(results.rows("curvature_table"), "curvature", "mean curvature", caption)


def pore_curves(results: Results) -> Iterator[Curve]:
    """Yield the distribution of pore sizes."""
    caption = "Pore volume by the diameter of the largest sphere that fits."
    yield from _histogram(results.rows("pore_size_table"), "pore_sizes", "pore diameter", caption)


def _histogram(bins: Array | None, name: str, what: str, caption: str) -> Iterator[Curve]:
    """Yield the plot of a table of bins: columns from_..., to_... with a unit, and fractions."""
    if bins is None:
        return
    columns = bins.dtype.names or ()
    starts = [c for c in columns if c.startswith("from_") and not np.isnan(numbers(bins, c)).any()]
    starts = [c for c in starts if in_nm(c) == c or in_nm(c) not in starts]
    heights = _fractions(bins)
    if not starts or starts[0].replace("from_", "to_", 1) not in columns or not heights:
        return
    edges = np.append(numbers(bins, starts[0]), numbers(bins, starts[0].replace("from_", "to_", 1))[-1])
    if len(edges) > 3:  # the outermost bins may be open: they are drawn as wide as their neighbours
        edges[[0, -1]] = [
            end if np.isfinite(end) else 2 * near - next_
            for end, near, next_ in (edges[[0, 1, 2]], edges[[-1, -2, -3]])
        ]
    if not (np.isfinite(edges).all() and (np.diff(edges) > 0).all()):
        return
    unit = split_unit(starts[0])[1]
    yield plots.distribution_plot(name, edges, heights, f"{what} ({unit})" if unit else what, "fraction", what), caption


def _on_facets(facets: Array) -> Array:
    """Return facets and families without the row of all that lies on none of them, which would dwarf them."""
    if "name" not in (facets.dtype.names or ()):
        return facets
    return facets[[plain(name) != "rest" for name in facets["name"]]]


def _bars(rows: Array) -> tuple[list[str], list[tuple[str, Array]]] | None:
    """Return names and fractions of the rows of a table: those with the largest first fraction, in their order."""
    values = _fractions(rows)
    if not values or not len(rows):
        return None
    texts = [c for c in rows.dtype.names or () if rows[c].dtype.kind in "SUO"]
    kept = np.sort(np.argsort(-np.nan_to_num(values[0][1]), kind="stable")[:MOST_BARS])
    labels = [_plain_letters(plain(rows[texts[0]][i])) if texts else "" for i in kept]
    labels = [label or f"row {i + 1}" for label, i in zip(labels, kept, strict=True)]
    return labels, [(words, heights[kept]) for words, heights in values]


def _plain_letters(value: object) -> str:
    """Return a short text if it consists of letters that every font has; otherwise ''."""
    text = str(value)
    return text if re.fullmatch(r"[A-Za-z0-9{}()\[\]<>., +/-]{1,20}", text) else ""


def _fractions(rows: Array) -> list[tuple[str, Array]]:
    """Return up to three columns of fractions with their names in plain words; counts if there are no fractions."""
    names = [c for c in rows.dtype.names or () if rows[c].dtype.kind in "fiu" and _plain_letters(c.replace("_", " "))]
    for word in ("fraction", "share", "count"):
        found = [c for c in names if word in c and np.isfinite(numbers(rows, c)).any()]
        if found:
            return [(c.replace("_", " "), np.nan_to_num(numbers(rows, c))) for c in found[:3]]
    return []


def numbers(rows: Array, name: str) -> Array:
    """Return a column as float64, all NaN where it does not hold numbers."""
    return np.asarray(rows[name], float) if rows[name].dtype.kind in "fiub" else np.full(len(rows), np.nan)
