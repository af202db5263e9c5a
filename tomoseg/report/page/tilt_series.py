"""The sections on the tilt series and its alignment."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from tomoseg import plain_json
from tomoseg.arrays import Array, Input
from tomoseg.report.figures.curves import alignment_curves
from tomoseg.report.figures.images import (
    SMALL,
    Limits,
    Panel,
    aligned_picture,
    chosen_tilts,
    grey_limits,
    grey_picture,
    marked_picture,
)
from tomoseg.report.formatting import NOTHING, length, number
from tomoseg.report.html import Html, details, el, facts, figure, join
from tomoseg.report.page.interactive import MONTAGE_TILTS, choice, tilts_control
from tomoseg.report.page.parts import curves, pair
from tomoseg.report.results import Results, column
from tomoseg.report.sampling.markers import aligned_markers
from tomoseg.report.summary import alignment_error, before_and_after, tilt_range
from tomoseg.words import count

METADATA_LETTERS = 20_000
SINOGRAM_BYTES = 2 << 30  # of raw images read for a sinogram; of a larger series every second, third, ... tilt
MAGNIFIED = 20  # residuals of markers in pictures
SINOGRAM_HEIGHT = 0.6  # of its width, about


def import_section(results: Results) -> Html:
    """Show what was acquired."""
    series = results.artifacts["tilt_series"]
    info = "tilt_series_info"
    n, ny, nx = series.shape
    size, digest = results.pixel_size_nm, results.text(info, "source_sha256")
    rows = [
        ("tilts", tilt_range(results.angles_deg) or count(n, "image")),
        ("each image", f"{ny} × {nx} pixels (y × x), {series.dtype}"),
        ("source of the angles", results.text(info, "angles_source")),
        ("pixel size", length(size) if np.isfinite(size) else "unknown"),
        ("source of the pixel size", results.text(info, "pixel_size_source")),
        ("field of view", f"{length(ny * size)} × {length(nx * size)}" if np.isfinite(size) else None),
        ("nominal tilt axis", results.text(info, "tilt_axis")),
        ("file", results.text(info, "source")),
        ("SHA-256", el("code", digest) if digest else None),
    ]
    montage = _montage(results, series, "as acquired", grey_picture)
    return join(
        [
            facts(rows),
            montage if results.get("aligned") is not None else choice(tilts_control(results), montage),
            _metadata(results.text(info, "metadata")),
        ]
    )


def align_section(results: Results) -> Html:
    """Show shifts, quality and the aligned series."""
    aligned, info = results.artifacts["aligned"], "alignment_info"
    rows = [
        ("method", results.text(info, "method")),
        ("tilt axis", f"{number(results.number(info, 'tilt_axis_angle_deg'))}° counter-clockwise from the vertical"),
        ("axis offset", _offset(results)),
        ("correlation of neighbouring tilts", _median(before_and_after(results, "correlation"))),
        ("prediction of held-out tilts", _median(before_and_after(results, "residual"), "residual ")),
        ("estimated alignment error", _alignment_error(results)),
        ("markers", _marker_facts(results)),
        ("film", _film_facts(results)),
        *_image_corrections(results),
    ]
    return join(
        [
            facts(rows),
            curves(alignment_curves(results)),
            *_slice_before_and_after(results),
            *_marker_pictures(results),
            pair(_sinograms(results)),
            choice(tilts_control(results), _montage(results, aligned, "aligned, tilt axis dashed", aligned_picture)),
        ]
    )


def _median(text: str, quantity: str = "") -> str:
    return f"{quantity}{text} (median)" if text else ""


def _offset(results: Results) -> str:
    """Return where the tilt axis lies in the aligned images."""
    offset, size = results.number("alignment_info", "tilt_axis_offset_px"), results.pixel_size_nm
    side = "" if not np.isfinite(offset) or offset == 0 else " to the right" if offset > 0 else " to the left"
    real = f" ({length(abs(offset) * size)})" if np.isfinite(offset * size) else ""
    return f"{number(abs(offset))} px{real}{side} of the image centre" if side else f"{number(abs(offset))} px{real}"


def _alignment_error(results: Results) -> str:
    """Return the estimated alignment error with its detection limit; '' where unknown."""
    error = alignment_error(results, results.pixel_size_nm)
    limit = results.number("alignment_info", "error_uncertainty_px")
    return f"{error}; detection limit {number(limit, 2)} px" if error and np.isfinite(limit) else error


def _film_facts(results: Results) -> str:
    """Return thickness and inclination of a film; '' for other samples."""
    thickness = results.number("alignment_info", "film_thickness_px")
    tilt, size = results.number("alignment_info", "film_inclination_deg"), results.pixel_size_nm
    if not np.isfinite(tilt):
        return ""
    real = f" ({length(thickness * size)})" if np.isfinite(thickness * size) else ""
    thick = f"{number(thickness)} px{real} thick, " if np.isfinite(thickness) else ""
    return f"{thick}inclined by {number(tilt, 2)}° about the tilt axis as recorded"


def _marker_facts(results: Results) -> str:
    """Return how many markers there are, and how well they fit; '' without."""
    places = results.rows("marker_places_px")
    if places is None or places.ndim != 3 or not places.size:
        return ""
    counts = np.isfinite(places[..., 0]).sum(axis=0)
    residual, size = results.number("alignment_info", "marker_residual_px"), results.pixel_size_nm
    real = f" ({length(residual * size)})" if np.isfinite(residual * size) else ""
    seen = f"{len(places)}, {counts.min()} to {counts.max()} of them in an image"
    return f"{seen}; mean residual {number(residual, 2)} px{real}" if np.isfinite(residual) else seen


def _marker_pictures(results: Results) -> Iterator[Html]:
    """Yield the aligned images at the lowest tilt and at both ends, with markers and residuals."""
    markers, angles = aligned_markers(results), results.angles_deg
    if markers is None or angles is None:
        return
    aligned = results.artifacts["aligned"]
    tilts = sorted({0, int(np.argmin(np.abs(angles))), len(angles) - 1}, key=lambda i: angles[i])
    pictures = []
    for i in tilts:
        image = np.asarray(aligned[i])
        limits = grey_limits([image])
        marks = np.concatenate([markers.places_px[:, i], markers.residuals_px[:, i]], axis=1)
        words = f"aligned image at {results.tilt_name(i)} with markers and their residuals"
        panel = Panel(image, ("y", "x"), results.pixel_size_nm)
        picture = marked_picture(
            panel, marks[np.isfinite(marks).all(axis=1)], limits, words, magnified=MAGNIFIED, side=SMALL
        )
        pictures.append(figure(picture, results.tilt_name(i)))
    yield pair(pictures)
    yield el(
        "p",
        f"Markers (rings) in aligned images, and their residuals, {MAGNIFIED} times as long: from where a marker must "
        "be by the alignment to where it was seen. Residuals that point the same way show a shift, those that turn "
        "around the middle a wrong rotation, and those that grow with the distance from the axis a wrong tilt angle.",
        class_="note",
    )


def _image_corrections(results: Results) -> Iterator[tuple[str, str]]:
    """Yield how the image corrections vary, where there are any: rotations, magnifications, changes of tilt angles."""
    columns = {
        "rotation": ("rotation_deg", 0.0, 1, "°"),
        "magnification": ("magnification", 1.0, 100, " %"),
        "tilt angle": ("tilt_error_deg", 0.0, 1, "°"),
    }
    for what, (name, neutral, times, unit) in columns.items():
        found = column(results.rows("tilt_quality"), name)
        is_level = what == "tilt angle" and found is not None and np.ptp(found) == 0  # of a film, told there
        if found is not None and np.any(found != neutral) and not is_level:
            change = times * np.abs(found - neutral)
            rms = float(np.sqrt(np.square(change).mean()))
            yield f"image corrections: {what}", f"{number(rms, 2)}{unit} rms, {number(change.max(), 2)}{unit} at most"


def _slice_before_and_after(results: Results) -> Iterator[Html]:
    """Yield the slice across the axis from the raw and from the aligned images, if it was stored."""
    slices = results.rows("alignment_preview")
    if slices is None or slices.ndim != 3 or len(slices) != 2:
        return
    factor, size = results.number("alignment_preview", "voxel_size_px"), results.pixel_size_nm
    factor = factor if np.isfinite(factor) and factor > 0 else 1.0
    limits = grey_limits([slices[1]])
    same = np.array_equal(slices[0], slices[1])
    named = [(slices[1], "images as given")] if same else [(slices[0], "raw images"), (slices[1], "aligned images")]
    pictures = []
    for image, name in named:
        panel = Panel(image, ("z", "x"), factor * size, pixel_px=factor)
        words = f"slice across the tilt axis, reconstructed from the {name}"
        pictures.append(figure(grey_picture(panel, limits, words), f"Reconstructed from the {name}."))
    yield pair(pictures)
    row = results.number("alignment_preview", "row")
    where = f" at y = {number(row)}, the brightest" if np.isfinite(row) else ""
    yield el(
        "p",
        f"Slice across the tilt axis{where}, from a quick reconstruction of reduced images. Misalignment turns points "
        f"into arcs and doubles the edges. Grey levels: {limits.words()}.",
        class_="note",
    )


def _sinograms(results: Results) -> Iterator[Html]:
    """Yield the sinogram of a line across the tilt axis, the brightest where it is known, raw and aligned."""
    raw, aligned = results.get("tilt_series"), results.artifacts["aligned"]
    angle = results.number("alignment_info", "tilt_axis_angle_deg")
    row, height = results.number("alignment_preview", "row"), aligned.shape[1]
    known = bool(0 <= row < height)
    y, which = (int(row), "brightest") if known else (height // 2, "central")
    if raw is not None and np.isfinite(angle):
        # The raw line is the row or the column that is more nearly perpendicular to the axis.
        step = _tilt_step(raw)
        across_rows = abs(angle) > 45
        lines = raw.shape[2 if across_rows else 1]
        at = min(height - 1 - y if angle < -45 else y, lines - 1)
        line = raw[::step, :, at] if across_rows else raw[::step, at, :]
        name, axis = (f"{which} raw column", "y") if across_rows else (f"{which} raw row", "x")
        yield _sinogram(results, np.asarray(line), name, axis, "jagged curves show drift and jitter")
    line = np.asarray(aligned[:: _tilt_step(aligned), y, :])
    yield _sinogram(results, line, f"{which} aligned row", "x", "smooth curves show that the tilts are consistent")


def _tilt_step(series: Input) -> int:
    return max(1, -(-int(np.prod(series.shape)) * series.dtype.itemsize // SINOGRAM_BYTES))


def _sinogram(results: Results, lines: Array, name: str, axis: str, hint: str) -> Html:
    """Return one sinogram, each of its few tilts drawn several pixels high."""
    limits = grey_limits([lines])
    n_tilt, width = lines.shape
    if n_tilt < SINOGRAM_HEIGHT * width:
        lines = np.repeat(lines, max(1, round(SINOGRAM_HEIGHT * width / n_tilt)), axis=0)
    else:
        lines = np.repeat(lines, max(1, round(n_tilt / (SINOGRAM_HEIGHT * width))), axis=1)
    picture = grey_picture(Panel(lines, ("tilt", axis), scale_bar=False), limits, f"sinogram, {name}")
    angles = results.angles_deg
    ends = "" if angles is None else f", {number(angles[0])}° at the top to {number(angles[-1])}° at the bottom"
    return figure(picture, f"Sinogram of the {name}{ends}; {hint}. Grey levels: {limits.words()}.")


def _montage(results: Results, series: Input, what: str, draw: Callable[[Panel, Limits, str, int], Html]) -> Html:
    """Return a few tilts from one end of the range to the other, in common grey levels."""
    chosen, images, limits = chosen_tilts(series, MONTAGE_TILTS)
    panels = []
    for i, image in zip(chosen, images, strict=True):
        panel, name = Panel(image, None, results.pixel_size_nm), results.tilt_name(i)
        panels.append(figure(draw(panel, limits, f"tilt {name}, {what}", SMALL), name))
    note = f"{len(chosen)} of {count(series.shape[0], 'tilt')}, {what}. Common grey levels: {limits.words('counts')}."
    return join([el("div", *panels, class_="montage"), el("p", note, class_="note")])


def _metadata(text: str) -> Html | None:
    """Return the acquisition metadata, indented where it is JSON, to be opened by a click."""
    if text in ("", NOTHING, "{}"):
        return None
    with suppress(ValueError):  # anything but JSON is shown as it is
        text = json.dumps(plain_json.load(text), indent=1, ensure_ascii=False)
    hidden = len(text) - METADATA_LETTERS
    more = f"\n… {hidden} more characters" if hidden > 0 else ""
    return details("Acquisition metadata", el("pre", text[:METADATA_LETTERS] + more))
