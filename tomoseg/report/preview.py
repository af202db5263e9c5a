"""The one picture of a project: slices, labels, surfaces, sizes and the numbers people ask for first."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array, Input
from tomoseg.errors import InputError
from tomoseg.io.atomic import atomic_path
from tomoseg.report.contents import Contents
from tomoseg.report.images import OVERLAY, Limits, grey_limits, nice_length, rgb, to_grey, volume_limits
from tomoseg.report.live import has_labels
from tomoseg.report.measured import size_curves
from tomoseg.report.page import class_fractions, key_numbers, summary, surface_picture
from tomoseg.report.plots import KEEP_TEXT, LIGHT, UNDATED, Plot
from tomoseg.report.record import StageRecord
from tomoseg.report.sections import all_curves
from tomoseg.report.words import length, number

FORMATS = ("png", "pdf", "svg")
SIZE_INCHES, DPI = (13.3, 7.5), 150  # of a slide
MADE_BY = "tomoseg preview"
MOST_TILTS = 4
INK, SOFT = "#1c2127", "#59636e"


def write_preview(path: Path, artifacts: Mapping[str, Input], stages: Sequence[StageRecord], title: str) -> None:
    """Write the picture of a project, however far it has come; the ending of `path` is one of `FORMATS`.

    In PDF and SVG text, plots and scale bars are vectors.

    Raises
    ------
    InputError
        The ending is none of those, there is nothing to show, or the folder cannot be written to.
    """
    file_format = path.suffix.lower().removeprefix(".")
    if file_format not in FORMATS:
        raise InputError(f"-o {path}: the picture is a .png, .pdf or .svg file.")
    contents = Contents(artifacts, tuple(stages), title)
    if contents.get("tilt_series") is None and contents.get("volume") is None:
        raise InputError("there is nothing to show yet: the project holds neither a tilt series nor a volume.")
    import matplotlib as mpl

    mark = {"png": {"Software": MADE_BY}, "pdf": {"Creator": MADE_BY} | UNDATED["pdf"]}
    metadata = mark.get(file_format, {"Creator": MADE_BY} | UNDATED["svg"])
    with mpl.rc_context(KEEP_TEXT), warnings.catch_warnings(), atomic_path(path) as temporary:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        _drawn(contents).savefig(temporary, format=file_format, facecolor="white", metadata=metadata)


def is_ours(path: Path) -> bool:
    """Tell whether a file was written by `write_preview`."""
    with path.open("rb") as file:
        start, end = file.read(4096), b""
        if path.stat().st_size > 4096:
            file.seek(max(4096, path.stat().st_size - 65_536))
            end = file.read()
    return MADE_BY.encode() in start + end


def _drawn(contents: Contents) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI)
    FigureCanvasAgg(figure)
    _head(figure, contents)
    right = _right(contents)
    body = figure.add_gridspec(
        1, 2 if right else 1, left=0.03, right=0.975, top=0.76, bottom=0.075, wspace=0.06,
        width_ratios=[1.75, 1.0] if right else None,
    )  # fmt: skip
    _pictures(figure, body[0], contents)
    if right:
        cells = body[1].subgridspec(len(right), 1, hspace=0.16, height_ratios=[1.35, 1.0][: len(right)])
        for i, part in enumerate(right):
            _fill(figure, cells[i], part, contents)
    return figure


def _head(figure: Any, contents: Contents) -> None:
    """Write title, summary and the key numbers."""
    import textwrap

    written: list[tuple[float, float, str, dict[str, Any]]] = [
        (0.03, 0.945, contents.title[:80], {"size": 20, "weight": "bold", "color": INK, "va": "center"}),
        (
            0.03,
            0.9,
            textwrap.fill(summary(contents), 106, max_lines=5, placeholder=" …"),
            {"size": 10, "color": SOFT, "va": "top"},
        ),
    ]
    for i, (name, value, unit) in enumerate(key_numbers(contents)):
        left = (0.62, 0.69, 0.775, 0.85)[i]
        shown = value if unit is None else f"{value} {unit}"
        written.append((left, 0.935, shown, {"size": 11, "weight": "bold", "color": INK, "va": "center"}))
        written.append((left, 0.9, name, {"size": 9, "color": SOFT, "va": "center"}))
    for x, y, text, style in written:
        figure.text(x, y, text, parse_math=False, **style)


def _right(contents: Contents) -> list[Any]:
    """Return what stands at the right: the rendered surfaces and the sizes, or the curves of an earlier stage."""
    parts: list[Any] = []
    found = class_fractions(contents)
    picture = None if found is None else surface_picture(contents, found)
    if picture is not None:
        parts.append(picture)
    plots = [plot for plot, _ in size_curves(contents)][:1] or [plot for plot, _ in all_curves(contents)][-2:]
    return (parts + plots)[:2]


def _fill(figure: Any, cell: Any, part: Any, contents: Contents) -> None:
    axes = figure.add_subplot(cell)
    if isinstance(part, Plot):
        part.into(axes, LIGHT)
        # Its labels lie outside its axes: these are made smaller, within the cell.
        box = axes.get_position()
        axes.set_position((box.x0 + 0.04, box.y0 + 0.035, box.width - 0.05, box.height - 0.035))
        return
    image, pixel_voxels = part
    axes.imshow(image, interpolation="antialiased")
    axes.set_axis_off()
    below = 1.07 * image.shape[0]  # room for the scale bar
    axes.set_ylim(below, 0)
    size = pixel_voxels * contents.voxel_size_nm
    _scale_bar(axes, image.shape[1], below, size if np.isfinite(size) else pixel_voxels, contents, INK)
    axes.set_title("surfaces of the labels; the tilt axis runs downwards", size=9, color=SOFT)
    _legend(axes, contents)


def _legend(axes: Any, contents: Contents) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=label.color, label=label.name) for label in contents.classes[1:]]
    where: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": min(4, len(patches))}
    legend = axes.legend(handles=patches, frameon=False, fontsize=9, labelcolor=INK, borderaxespad=0.2, **where)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _pictures(figure: Any, cell: Any, contents: Contents) -> None:
    """Draw slices of the volume, with labels below; or, before there is a volume, some tilts, raw and aligned."""
    volume = contents.get("volume")
    if volume is not None and len(volume.shape) == 3:
        limits = volume_limits(contents)
        rows = [_slices(contents, limits, painted=False)]
        if has_labels(contents):
            rows.append(_slices(contents, limits, painted=True))
        size, note = contents.voxel_size_nm, f"slices: {limits.words('counts per px')}"
    else:
        found = [(name, contents.get(name)) for name in ("tilt_series", "aligned")]
        series = [(name.replace("_", " "), source) for name, source in found if source is not None]
        rows = [_tilts(contents, source, name) for name, source in series]
        limits = _tilt_limits(series[0][1])
        size, note = contents.pixel_size_nm, f"tilts as acquired: {limits.words('counts')}"
    grid = cell.subgridspec(len(rows), len(rows[0]), hspace=0.14, wspace=0.04)
    for i, row in enumerate(rows):
        for j, (image, name) in enumerate(row):
            axes = figure.add_subplot(grid[i, j])
            axes.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
            axes.set_title(name, size=9, color=SOFT)
            _scale_bar(axes, image.shape[1], image.shape[0], size if np.isfinite(size) else 1.0, contents, "white")
    figure.text(0.03, 0.03, note, size=8.5, color=SOFT, parse_math=False)


def _slices(contents: Contents, limits: Limits, *, painted: bool) -> list[tuple[Array, str]]:
    """Return the three central slices as pictures with their names; `painted`: with the classes over them."""
    pictures = []
    for image, words, axes, part in contents.central:
        grey = to_grey(image, limits)
        name = words.split(":")[0]
        if not painted:
            pictures.append((grey, f"{name}  ({axes[1]} →, {axes[0]} ↓)"))
            continue
        shown = np.asarray(contents.artifacts["labels"][part])
        shown = shown.T if axes == ("y", "z") else shown
        colored = np.repeat(grey[..., None], 3, axis=2).astype(float)
        for label in contents.classes[1:]:
            inside = shown == label.index
            colored[inside] = (1 - OVERLAY) * colored[inside] + OVERLAY * np.array(rgb(label.color))
        pictures.append((colored.astype(np.uint8), f"labels, {name}"))
    return pictures


def _tilts(contents: Contents, source: Input, name: str) -> list[tuple[Array, str]]:
    limits, angles = _tilt_limits(source), contents.angles_deg
    pictures = []
    for i in _some(source):
        known = angles is not None and i < len(angles)
        words = f"{number(angles[i])}°" if known and angles is not None else f"image {i + 1}"
        pictures.append((to_grey(np.asarray(source[int(i)]), limits), f"{name}, {words}"))
    return pictures


def _some(source: Input) -> Array:
    n = int(source.shape[0])
    return np.linspace(0, n - 1, MOST_TILTS).round().astype(int)


def _tilt_limits(source: Input) -> Limits:
    return grey_limits([np.asarray(source[int(i)]) for i in np.unique(_some(source))])


def _scale_bar(axes: Any, width: int, height: float, unit: float, contents: Contents, color: str) -> None:
    """Draw a bar of a round length, `unit` nm (or px, where no size is known) per pixel of the picture."""
    from matplotlib.patches import Rectangle

    bar = nice_length(width * unit / 4)
    known = np.isfinite(contents.voxel_size_nm) or np.isfinite(contents.pixel_size_nm)
    text = length(bar) if known else f"{number(bar)} px"
    left, bottom = 0.04 * width, 0.95 * height
    # No outline of the letters, which would turn them into shapes in a vector file.
    behind = None if color == INK else {"facecolor": "black", "alpha": 0.45, "lw": 0, "pad": 1.5}
    axes.add_patch(Rectangle((left, bottom - 0.012 * height), bar / unit, 0.018 * height, color=color, lw=0))
    axes.text(left, bottom - 0.03 * height, text, color=color, size=9, weight="bold", va="bottom", bbox=behind)
