"""One picture of a project: slices, labels, surfaces, particle sizes and the key numbers."""

import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tomoseg.arrays import Array, Input
from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path
from tomoseg.io.regular import open_regular
from tomoseg.palette import INK, LIGHT, SOFT_INK
from tomoseg.report.figures.curves import all_curves, size_curves
from tomoseg.report.figures.images import Limits, chosen_tilts, nice_length, painted, to_grey, volume_limits
from tomoseg.report.figures.plots import KEEP_TEXT, UNDATED, Plot, new_figure
from tomoseg.report.figures.rendering import draw_surfaces
from tomoseg.report.formatting import length, number
from tomoseg.report.results import Results
from tomoseg.report.summary import key_numbers, summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
SIZE_INCHES, DPI = (13.3, 7.5), 150  # of a slide
MADE_BY = "tomoseg preview"
MOST_TILTS = 4


def write_preview(path: Path, results: Results, dpi: int = DPI) -> None:
    """Write the picture of a project, however far it has come; the suffix of `path` is one of `FORMATS`.

    In PDF and SVG, text, plots and scale bars are vectors. Raises `InputError` if the suffix is none of these, there is
    nothing to show, or the folder cannot be written to.
    """
    file_format = path.suffix.lower().removeprefix(".")
    if file_format not in FORMATS:
        raise InputError(f"-o {path}: the picture is a .png, .pdf or .svg file.")
    import matplotlib as mpl

    metadata = {"Software": MADE_BY} if file_format == "png" else {"Creator": MADE_BY} | UNDATED[file_format]
    with mpl.rc_context(KEEP_TEXT), warnings.catch_warnings(), atomic_path(path) as temporary:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        figure = new_figure(SIZE_INCHES, dpi)
        draw_preview(figure, results)
        figure.savefig(temporary, format=file_format, facecolor="white", metadata=metadata)


def draw_preview(figure: "Figure", results: Results) -> None:
    """Draw the picture of a project on an empty figure of `SIZE_INCHES`; InputError if there is nothing to show."""
    if results.get("tilt_series") is None and results.get("volume") is None:
        raise InputError("there is nothing to show yet: the project holds neither a tilt series nor a volume.")
    _head(figure, results)
    right = _right(results)
    body = figure.add_gridspec(
        1, 2 if right else 1, left=0.03, right=0.975, top=0.76, bottom=0.075, wspace=0.06,
        width_ratios=[1.75, 1.0] if right else None,
    )  # fmt: skip
    _pictures(figure, body[0], results)
    if right:
        cells = body[1].subgridspec(len(right), 1, hspace=0.16, height_ratios=[1.35, 1.0][: len(right)])
        for i, part in enumerate(right):
            _fill(figure, cells[i], part, results)


def is_ours(path: Path) -> bool:
    """Tell whether a file was written by `write_preview`."""
    with open_regular(path) as file:
        start, end = file.read(4096), b""
        if path.stat().st_size > 4096:
            file.seek(max(4096, path.stat().st_size - 65_536))
            end = file.read()
    return MADE_BY.encode() in start + end


def _head(figure: Any, results: Results) -> None:
    """Write title, summary and the key numbers."""
    text = textwrap.fill(summary(results), 106, max_lines=5, placeholder=" …")
    written: list[tuple[float, float, str, dict[str, Any]]] = [
        (0.03, 0.945, results.title[:80], {"size": 20, "weight": "bold", "color": INK, "va": "center"}),
        (0.03, 0.9, text, {"size": 10, "color": SOFT_INK, "va": "top"}),
    ]
    for left, (name, value, unit) in zip((0.62, 0.69, 0.775, 0.85), key_numbers(results), strict=True):
        shown = value if unit is None else f"{value} {unit}"
        written.append((left, 0.935, shown, {"size": 11, "weight": "bold", "color": INK, "va": "center"}))
        written.append((left, 0.9, name, {"size": 9, "color": SOFT_INK, "va": "center"}))
    for x, y, words, style in written:
        figure.text(x, y, words, parse_math=False, **style)


def _right(results: Results) -> list[Any]:
    """Return what stands on the right: the rendered surfaces and the sizes, or the curves of an earlier stage."""
    surfaces = draw_surfaces(results)
    plots = [plot for plot, _ in size_curves(results)][:1] or [plot for plot, _ in all_curves(results)][-2:]
    return ([surfaces] * (surfaces is not None) + plots)[:2]


def _fill(figure: Any, cell: Any, part: Any, results: Results) -> None:
    axes = figure.add_subplot(cell)
    if isinstance(part, Plot):
        part.into(axes, LIGHT)
        # Its labels lie outside its axes: the axes are made smaller to fit into the cell.
        box = axes.get_position()
        axes.set_position((box.x0 + 0.04, box.y0 + 0.035, box.width - 0.05, box.height - 0.035))
        return
    image, pixel_voxels = part
    axes.imshow(image, interpolation="antialiased")
    axes.set_axis_off()
    below = 1.07 * image.shape[0]  # room for the scale bar
    axes.set_ylim(below, 0)
    size = pixel_voxels * results.voxel_size_nm
    _scale_bar(axes, image.shape[1], below, size if np.isfinite(size) else pixel_voxels, results, INK)
    axes.set_title("surfaces of the labelled classes; tilt axis from top to bottom", size=9, color=SOFT_INK)
    _legend(axes, results)


def _legend(axes: Any, results: Results) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=label.color, label=label.name) for label in results.classes[1:]]
    where: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": min(4, len(patches))}
    legend = axes.legend(handles=patches, frameon=False, fontsize=9, labelcolor=INK, borderaxespad=0.2, **where)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _pictures(figure: Any, cell: Any, results: Results) -> None:
    """Draw slices of the volume, with labels below; or, before there is a volume, some tilts, raw and aligned."""
    if results.stack("volume") is not None:
        limits = volume_limits(results)
        rows = [_slices(results, limits, overlay=False)]
        if results.labels_fit_volume:
            rows.append(_slices(results, limits, overlay=True))
        size, note = results.voxel_size_nm, f"slices: {limits.words('counts per px')}"
    else:
        found = [(name, results.get(name)) for name in ("tilt_series", "aligned")]
        drawn = [_tilts(results, source, name.replace("_", " ")) for name, source in found if source is not None]
        rows = [pictures for pictures, _ in drawn]
        size, note = results.pixel_size_nm, f"tilts as acquired: {drawn[0][1].words('counts')}"
    grid = cell.subgridspec(len(rows), max(map(len, rows)), hspace=0.14, wspace=0.04)
    for i, row in enumerate(rows):
        for j, (image, name) in enumerate(row):
            axes = figure.add_subplot(grid[i, j])
            axes.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
            axes.set_title(name, size=9, color=SOFT_INK)
            _scale_bar(axes, image.shape[1], image.shape[0], size if np.isfinite(size) else 1.0, results, "white")
    figure.text(0.03, 0.03, note, size=8.5, color=SOFT_INK, parse_math=False)


def _slices(results: Results, limits: Limits, *, overlay: bool) -> list[tuple[Array, str]]:
    """Return the three central slices as pictures with their names, with the classes painted over them or without."""
    pictures: list[tuple[Array, str]] = []
    for one in results.central:
        grey = to_grey(one.image, limits)
        if overlay:
            labels = one.plane.cut(results.artifacts["labels"], one.position)
            colored = painted(np.repeat(grey[..., None], 3, axis=2), labels, results.classes)
            pictures.append((colored, f"labels, {one.name}"))
        else:
            pictures.append((grey, f"{one.name}  ({one.plane.right} →, {one.plane.down} ↓)"))
    return pictures


def _tilts(results: Results, series: Input, name: str) -> tuple[list[tuple[Array, str]], Limits]:
    """Return a few tilts as pictures with their names, and the grey levels they share."""
    chosen, images, limits = chosen_tilts(series, MOST_TILTS)
    named = [f"{name}, {results.tilt_name(i)}" for i in chosen]
    return list(zip([to_grey(image, limits) for image in images], named, strict=True)), limits


def _scale_bar(axes: Any, width: int, height: float, unit: float, results: Results, color: str) -> None:
    """Draw a bar of a round length, `unit` nm (or px, where no size is known) per pixel of the picture."""
    from matplotlib.patches import Rectangle

    bar = nice_length(width * unit / 4)
    known = np.isfinite(results.voxel_size_nm) or np.isfinite(results.pixel_size_nm)
    text = length(bar) if known else f"{number(bar)} px"
    left, bottom = 0.04 * width, 0.95 * height
    # No outline of the letters, which would turn them into shapes in a vector file.
    behind = None if color == INK else {"facecolor": "black", "alpha": 0.45, "lw": 0, "pad": 1.5}
    axes.add_patch(Rectangle((left, bottom - 0.012 * height), bar / unit, 0.018 * height, color=color, lw=0))
    axes.text(left, bottom - 0.03 * height, text, color=color, size=9, weight="bold", va="bottom", bbox=behind)
