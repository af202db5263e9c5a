"""The sections of the page, one per stage: pictures, plots and what to look at in them."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import numpy as np

from tomoseg.arrays import Array, Input
from tomoseg.report.contents import Contents, LabelClass, orthoslices
from tomoseg.report.html import Html, details, el, facts, figure, join, table
from tomoseg.report.images import (
    SMALL,
    Limits,
    Panel,
    aligned_picture,
    grey_limits,
    grey_picture,
    label_picture,
    volume_limits,
)
from tomoseg.report.live import choice, slices_control, tilts_control
from tomoseg.report.measured import measure_section, measurement_curves
from tomoseg.report.plots import (
    Plot,
    correlation_plot,
    error_plot,
    prediction_plot,
    residual_plot,
    shell_plot,
    shifts_plot,
    stopping_plot,
)
from tomoseg.report.words import NOTHING, count, length, memory, number

MONTAGE_TILTS = 5
METADATA_LETTERS = 20_000
SINOGRAM_BYTES = 2 << 30  # of raw images read for a sinogram; of a larger series every second, third, ... tilt
SINOGRAM_HEIGHT = 0.6  # of its width, about


def curves(found: Iterable[tuple[Plot, str]]) -> Html:
    """Return plots with their captions, side by side."""
    return el("div", *(figure(plot.picture(), words) for plot, words in found), class_="pair")


def all_curves(contents: Contents) -> Iterator[tuple[Plot, str]]:
    """Yield every plot of the page with its caption."""
    for artifact, make in (
        ("aligned", alignment_curves),
        ("volume", reconstruction_curves),
        ("class_table", measurement_curves),
    ):
        if contents.get(artifact) is not None:
            yield from make(contents)


NYQUIST_PX = 2.0  # the shortest period that pixels can show


def sections(contents: Contents) -> Iterator[tuple[str, str, Html | None]]:
    """Yield (stage name, heading, content) in the order of the stages; content is None where there is no result."""
    writers: Sequence[tuple[str, str, str, Callable[[Contents], Html]]] = (
        ("import", "Tilt series", "tilt_series", import_section),
        ("align", "Alignment", "aligned", align_section),
        ("reconstruct", "Reconstruction", "volume", reconstruct_section),
        ("segment", "Segmentation", "labels", segment_section),
        ("measure", "Measurement", "class_table", measure_section),
        ("export", "Files written", "export_info", export_section),
    )
    for stage, heading, artifact, write in writers:
        there = artifact in contents.artifacts if artifact == "export_info" else contents.get(artifact) is not None
        yield stage, heading, write(contents) if there else None


# --- import and alignment ---


def import_section(contents: Contents) -> Html:
    """Show what was acquired."""
    series = contents.artifacts["tilt_series"]
    info = "tilt_series_info"
    n, ny, nx = series.shape
    size, digest = contents.pixel_size_nm, contents.text(info, "source_sha256")
    rows = [
        ("tilts", tilt_range(contents.angles_deg) or count(n, "image")),
        ("each image", f"{ny} × {nx} pixels (y × x), {series.dtype}"),
        ("angles from", contents.text(info, "angles_source")),
        ("pixel size", length(size) if np.isfinite(size) else "unknown"),
        ("pixel size from", contents.text(info, "pixel_size_source")),
        ("field of view", f"{length(ny * size)} × {length(nx * size)}" if np.isfinite(size) else None),
        ("nominal tilt axis", contents.text(info, "tilt_axis")),
        ("file", contents.text(info, "source")),
        ("SHA-256", el("code", digest) if digest else None),
    ]
    montage = _montage(contents, series, size, "as acquired", grey_picture)
    return join(
        [
            facts(rows),
            montage if contents.get("aligned") is not None else _either(tilts_control(contents), montage),
            _metadata(contents.text(info, "metadata")),
        ]
    )


def align_section(contents: Contents) -> Html:
    """Show shifts, quality and the aligned series."""
    aligned, info = contents.artifacts["aligned"], "alignment_info"
    rows = [
        ("method", contents.text(info, "method")),
        ("tilt axis", f"{number(contents.number(info, 'tilt_axis_angle_deg'))}° from the vertical, counter-clockwise"),
        ("axis offset", _offset(contents)),
        ("correlation of neighbours", _raw_and_aligned(contents, "correlation")),
        ("residual against the other tilts", _raw_and_aligned(contents, "residual")),
        ("estimated error of positions", _position_error(contents)),
        *_single_images(contents),
    ]
    return join(
        [
            facts(rows),
            curves(alignment_curves(contents)),
            *_preview(contents),
            el("div", *_sinograms(contents), class_="pair"),
            _either(
                tilts_control(contents),
                _montage(contents, aligned, contents.pixel_size_nm, "aligned, the tilt axis dashed", aligned_picture),
            ),
        ]
    )


def _offset(contents: Contents) -> str:
    """Say where the tilt axis lies in the aligned images."""
    offset, size = contents.number("alignment_info", "tilt_axis_offset_px"), contents.pixel_size_nm
    side = "" if not np.isfinite(offset) or offset == 0 else ", to the right" if offset > 0 else ", to the left"
    real = f" ({length(abs(offset) * size)})" if np.isfinite(offset * size) else ""
    return f"{number(abs(offset))} px{real} from the image centre{side}"


def _raw_and_aligned(contents: Contents, figure_name: str) -> str | None:
    """Say what a figure was before and after alignment, if it is known."""
    before, after = (contents.number("alignment_info", f"{figure_name}_{when}") for when in ("before", "after"))
    return f"{number(before)} raw, {number(after)} aligned (median)" if np.isfinite(after) else None


def _position_error(contents: Contents) -> str | None:
    """Say how far the images are from where they should be, if it is known."""
    error, least = (contents.number("alignment_info", f"{key}_px") for key in ("estimated_error", "error_uncertainty"))
    if not np.isfinite(error):
        return None
    real = f" ({length(error * contents.pixel_size_nm)})" if np.isfinite(contents.pixel_size_nm) else ""
    unseen = f"; below {number(least, 2)} px it cannot be seen" if np.isfinite(least) else ""
    return f"{number(error, 2)} px{real} in each direction (rms){unseen}"


def _single_images(contents: Contents) -> Iterator[tuple[str, str]]:
    """Yield what single images were turned and magnified by, and what their tilts were found to be, if they were."""
    quality = contents.rows("tilt_quality")
    columns = {
        "rotation": ("rotation_deg", 0.0, 1, "°"),
        "magnification": ("magnification", 1.0, 100, " %"),
        "change of the tilt angle": ("tilt_error_deg", 0.0, 1, "°"),
    }
    for what, (name, usual, times, unit) in columns.items():
        found = None if quality is None else _column(quality, name)
        if found is not None and np.any(found != usual):
            apart = times * np.abs(found - usual)
            rms = float(np.sqrt(np.square(apart).mean()))
            yield f"{what} of single images", f"{number(rms, 2)}{unit} rms, {number(apart.max(), 2)}{unit} at most"


def alignment_curves(contents: Contents) -> Iterator[tuple[Plot, str]]:
    """Yield the plots of shifts, correlation, residual and error with captions, where the numbers are there."""
    angles, shifts, quality = contents.angles_deg, contents.rows("shifts_px"), contents.rows("tilt_quality")
    if angles is None:
        return
    if shifts is not None and shifts.shape == (len(angles), 2) and shifts.any():
        words = "Shifts added to each raw image's coordinates to bring it into register."
        yield shifts_plot(angles, shifts), words
    if quality is None or len(quality) != len(angles):
        return
    before, after = (_column(quality, "correlation", when) for when in ("before", "after"))
    if before is not None and after is not None:
        words = "Correlation of each tilt with its neighbour: the higher and smoother, the better."
        yield correlation_plot(angles, before, after), words
    yield from _prediction_plots(angles, quality)


def _prediction_plots(angles: Array, quality: Array) -> Iterator[tuple[Plot, str]]:
    """Yield what comes of predicting each tilt from the others; older projects know nothing of it."""
    before, after = (_column(quality, "residual", when) for when in ("before", "after"))
    outliers = _column(quality, "is_outlier")
    marked = np.zeros(len(angles), bool) if outliers is None else outliers > 0
    if before is not None and after is not None and np.isfinite(after).any():
        words = (
            "Relative residual ‖measured − predicted‖ / ‖measured‖ of each tilt, predicted from others by a quick "
            "reconstruction: what is left after alignment is noise and too few tilts."
        )
        yield prediction_plot(angles, before, after, marked), words
    error, least = _column(quality, "error_px"), _column(quality, "error_uncertainty_px")
    if error is not None and np.isfinite(error).any():
        words = (
            "Estimated error of each aligned image's position, in pixels of the raw image per direction: how far it "
            "lies from where the other tilts put it. Errors that change slowly from tilt to tilt are hardly in it."
        )
        yield error_plot(angles, error, least, marked), words


def _preview(contents: Contents) -> Iterator[Html]:
    """Yield the slice across the axis from the raw and from the aligned images, if it was stored."""
    slices = contents.rows("alignment_preview")
    if slices is None or slices.ndim != 3 or len(slices) != 2:
        return
    factor, size = contents.number("alignment_preview", "voxel_size_px"), contents.pixel_size_nm
    factor = factor if np.isfinite(factor) and factor > 0 else 1.0
    limits = grey_limits([slices[1]])
    same = np.array_equal(slices[0], slices[1])
    named = [(slices[1], "images as given")] if same else [(slices[0], "raw images"), (slices[1], "aligned images")]
    pictures = []
    for image, name in named:
        panel = Panel(image, ("z", "x"), factor * size, pixel_px=factor)
        words = f"slice across the tilt axis, reconstructed from the {name}"
        pictures.append(figure(grey_picture(panel, limits, words), f"From the {name}."))
    yield el("div", *pictures, class_="pair")
    row = contents.number("alignment_preview", "row")
    where = f"Slice across the tilt axis at y = {number(row)}" if np.isfinite(row) else "Slice across the tilt axis"
    yield el(
        "p",
        f"{where}, the brightest, quickly reconstructed from reduced images. Points become arcs and edges double where "
        f"images are out of register. Grey levels: {limits.words()}.",
        class_="note",
    )


def _column(rows: Array, *parts: str) -> Array | None:
    """Return the first column of a table whose name holds all `parts`, as numbers."""
    names = [n for n in rows.dtype.names or () if all(part in n for part in parts)]
    return rows[names[0]].astype(float) if names else None


def _sinograms(contents: Contents) -> Iterator[Html]:
    """Yield the sinogram of a line across the tilt axis, the brightest where it is known, raw and aligned."""
    raw, aligned = contents.get("tilt_series"), contents.artifacts["aligned"]
    angle = contents.number("alignment_info", "tilt_axis_angle_deg")
    row, height = contents.number("alignment_preview", "row"), aligned.shape[1]
    known = bool(0 <= row < height)
    y, place = (int(row), "brightest") if known else (height // 2, "central")
    if raw is not None and np.isfinite(angle):
        # The raw line is the row or the column that is nearer to being across the axis.
        step = _tilt_step(raw)
        across_rows = abs(angle) > 45
        lines = raw.shape[2 if across_rows else 1]
        at = min(height - 1 - y if angle < -45 else y, lines - 1)
        line = raw[::step, :, at] if across_rows else raw[::step, at, :]
        yield _sinogram(contents, np.asarray(line), f"{place} raw {'column' if across_rows else 'row'}")
    step = _tilt_step(aligned)
    yield _sinogram(contents, np.asarray(aligned[::step, y, :]), f"{place} aligned row")


def _tilt_step(series: Input) -> int:
    return max(1, -(-int(np.prod(series.shape)) * series.dtype.itemsize // SINOGRAM_BYTES))


def _sinogram(contents: Contents, lines: Array, what: str) -> Html:
    """Return one sinogram, its few tilts drawn several pixels high."""
    limits = grey_limits([lines])
    n_tilt, width = lines.shape
    if n_tilt < SINOGRAM_HEIGHT * width:
        lines = np.repeat(lines, max(1, round(SINOGRAM_HEIGHT * width / n_tilt)), axis=0)
    else:
        lines = np.repeat(lines, max(1, round(n_tilt / (SINOGRAM_HEIGHT * width))), axis=1)
    picture = grey_picture(
        Panel(lines, ("tilt", "y" if "column" in what else "x"), scale_bar=False), limits, f"sinogram, {what}"
    )
    angles = contents.angles_deg
    ends = "" if angles is None else f", {number(angles[0])}° at the top to {number(angles[-1])}° at the bottom"
    hint = (
        "smooth curves mean that the tilts fit together" if "aligned" in what else "jagged curves are drift and jitter"
    )
    return figure(picture, f"Sinogram of the {what}{ends}; {hint}. {limits.words()}")


def _montage(
    contents: Contents, series: Input, pixel_nm: float, what: str, draw: Callable[[Panel, Limits, str, int], Html]
) -> Html:
    """Return a few tilts from one end of the range to the other, in common grey levels."""
    chosen = np.unique(np.linspace(0, series.shape[0] - 1, MONTAGE_TILTS).round().astype(int))
    images = [np.asarray(series[int(i)]) for i in chosen]
    limits = grey_limits(images)
    angles = contents.angles_deg
    panels = []
    for i, image in zip(chosen, images, strict=True):
        angle = f"{number(angles[i])}°" if angles is not None and i < len(angles) else f"image {i + 1}"
        panels.append(figure(draw(Panel(image, None, pixel_nm), limits, f"tilt {angle}, {what}", SMALL), angle))
    note = f"{len(chosen)} of {count(series.shape[0], 'tilt')}, {what}. Same grey levels: {limits.words('counts')}."
    return join([el("div", *panels, class_="montage"), el("p", note, class_="note")])


def _metadata(text: str) -> Html | None:
    """Return the acquisition metadata, indented where it is JSON, behind a click."""
    if text in ("", NOTHING, "{}"):
        return None
    with suppress(ValueError):  # what is not JSON is shown as it is
        text = json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    left_out = len(text) - METADATA_LETTERS
    more = f"\n… {left_out} more characters" if left_out > 0 else ""
    return details("Acquisition metadata", el("pre", text[:METADATA_LETTERS] + more))


def tilt_range(angles: Array | None) -> str:
    """Say how many tilts there are, from where to where and how far apart."""
    if angles is None or len(angles) == 0:
        return ""
    text = f"{count(len(angles), 'image')} from {number(angles[0], 4)}° to {number(angles[-1], 4)}°"
    steps = np.diff(np.unique(angles))
    if len(steps) == 0:
        return text
    even = np.ptp(steps) < 0.05 * np.median(steps) + 1e-6
    return f"{text}, {'every' if even else 'typically'} {number(np.median(steps))}°"


# --- reconstruction and segmentation ---


def _either(live: Html | None, still: Html) -> Html:
    """Return still pictures, with controls in their place where the script runs."""
    return still if live is None else choice(live, still)


def reconstruct_section(contents: Contents) -> Html:
    """Show the volume."""
    volume = contents.artifacts["volume"]
    voxel, info = contents.voxel_size_nm, "reconstruction_info"
    nz, ny, nx = volume.shape
    residuals = contents.rows("residuals")
    rows = [
        ("method", contents.text(info, "method").upper()),
        ("computed by", " on ".join(t for t in (contents.text(info, "backend"), contents.text(info, "device")) if t)),
        ("volume", f"{nz} × {ny} × {nx} voxels (z × y × x)"),
        ("voxel size", length(voxel) if np.isfinite(voxel) else "unknown"),
        ("iterations", contents.text(info, "iterations")),
        ("resolution", _resolution(contents)),
        ("relative residual", None if residuals is None else f"{number(residuals[0])} → {number(residuals[-1])}"),
    ]
    slices = contents.central
    limits = volume_limits(contents)
    panels = [
        figure(grey_picture(Panel(image, axes, voxel), limits, words), _sentence(words))
        for image, words, axes, _ in slices
    ]
    still = el("div", *panels, class_="triple")
    live = slices_control(contents, overlay=False)
    parts = [facts(rows), _either(live, still), _grey_note(limits, "counts per px")]
    parts.append(curves(reconstruction_curves(contents)))
    return join(parts)


def _resolution(contents: Contents) -> str | None:
    """Say what the shell correlation told, if it was computed."""
    px, nm = (contents.number("reconstruction_info", f"resolution_{unit}") for unit in ("px", "nm"))
    if not np.isfinite(px):
        return None
    words = f"{number(px)} px" if not np.isfinite(nm) else f"{length(nm)} ({number(px)} px)"
    return f"{words}, as fine as the pixels" if px <= NYQUIST_PX else words


def reconstruction_curves(contents: Contents) -> Iterator[tuple[Plot, str]]:
    """Yield residual, stopping and resolution curves with captions, as far as there are any."""
    residuals, stopping, shells = (contents.rows(name) for name in ("residuals", "stopping", "shells"))
    if residuals is not None and len(residuals) > 1:
        words = "Relative residual ‖p − A v‖ / ‖p‖: how much of the images the volume does not explain."
        yield residual_plot(residuals), words
    if stopping is not None and len(stopping):
        words = "Residual of tilts left out: it falls while the object is found and rises with the noise."
        chosen = contents.number("reconstruction_info", "iterations")
        yield stopping_plot(stopping["iterations"], stopping["held_out"], int(np.nan_to_num(chosen))), words
    if shells is not None and len(shells):
        words = "Fourier shell correlation of reconstructions from even and from odd tilts, within the measured wedge."
        yield shell_plot(shells["frequency_per_px"], shells["correlation"], contents.voxel_size_nm), words


def segment_section(contents: Contents) -> Html:
    """Show the labels over the volume."""
    labels, volume = contents.artifacts["labels"], contents.get("volume")
    classes = contents.classes
    same = volume is not None and tuple(volume.shape) == tuple(labels.shape)
    slices = contents.central if same else orthoslices(labels)
    limits = volume_limits(contents) if same else Limits(0.0, 1e9, (0.0, 100.0))
    method = contents.text("segmentation_info", "method")
    panels = []
    for image, words, axes, part in slices:
        shown = np.asarray(labels[part])
        shown = shown.T if axes == ("y", "z") else shown
        panel = Panel(image, axes, contents.voxel_size_nm)
        panels.append(figure(label_picture(panel, shown, classes, limits, f"labels, {words}"), _sentence(words)))
    rows = [
        ("method", {"otsu": "intensity thresholds (otsu)", "unet": "trained network (U-Net)"}.get(method, method)),
        ("model", contents.text("segmentation_info", "model")),
        ("thresholds", contents.text("segmentation_info", "thresholds")),
        ("confidence", _confidence(contents)),
    ]
    still = join([legend(classes), el("div", *panels, class_="triple")])
    live = slices_control(contents, overlay=True) if same else None
    return join([facts(rows), _either(live, still), _grey_note(limits) if same else None])


def legend(classes: Sequence[LabelClass]) -> Html:
    """Return the classes with their colours."""
    entries = []
    for label in classes:
        painted = f"background:{label.color}" if label.index else None
        name = label.name if label.index else f"{label.name} (not painted)"
        entries.append(el("li", el("span", class_="swatch" + ("" if painted else " empty"), style=painted), name))
    return el("ul", *entries, class_="legend")


def _confidence(contents: Contents) -> str | None:
    """Say how certain the labels of the central slice are."""
    confidence = contents.get("confidence")
    if confidence is None:
        return None
    middle = np.asarray(confidence[confidence.shape[0] // 2], float) / 255
    mean, unsure = 100 * middle.mean(), 100 * (middle < 0.5).mean()
    return f"{mean:.1f} % on average in the central slice; {unsure:.2g} % of it below 50 %"


def _grey_note(limits: Limits, unit: str = "") -> Html:
    return el("p", f"Same grey levels in all three: {limits.words(unit)}.", class_="note")


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "." if not words.startswith(("xy", "xz", "zy")) else words + "."


# --- export ---


def export_section(contents: Contents) -> Html:
    """List the files written."""
    try:
        files = json.loads(contents.text("export_info", "files"))
        rows = [(str(f["name"]), memory(float(f["bytes"]))) for f in files]
    except (ValueError, TypeError, KeyError):
        rows = []
    return join(
        [facts([("folder", contents.text("export_info", "directory"))]), table(("file", "size"), rows, sortable=True)]
    )
