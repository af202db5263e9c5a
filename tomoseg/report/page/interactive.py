"""The interactive views: tilts and slices to page through, surfaces to rotate.

Each has controls in the page, and pictures or surfaces as JSON from which the script draws. The controls replace still
pictures where the script runs on a screen.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tomoseg.arrays import Array, Input
from tomoseg.report.figures.encoding import png, webp
from tomoseg.report.figures.images import chosen_tilts, to_grey, volume_limits
from tomoseg.report.figures.rendering import PITCH, YAW, pale
from tomoseg.report.formatting import number, plain
from tomoseg.report.html import Html, el, join
from tomoseg.report.results import LabelClass, Results
from tomoseg.report.sampling.mesh import GLASS_TRIANGLES, SOLID_TRIANGLES, encoded, surface
from tomoseg.report.sampling.slices import PLANES, SLICES, Plane, evenly_spaced, slices
from tomoseg.words import ordinal

MOST_TILTS, TILT_SIDE = 80, 320
CONFIDENCE_SIDE = 200
MOST_PARTICLES = 5000
# Of all pictures of a kind, before base64 adds a third.
SLICE_BYTES, TILT_BYTES, CONFIDENCE_BYTES = 3_200_000, 1_100_000, 500_000
KIND = "image/webp"
MONTAGE_TILTS = 5


def choice(live: Html | None, still: Html) -> Html:
    """Return an interactive view with the still pictures it replaces; only these if there is no such view."""
    return still if live is None else el("div", live, el("div", still, class_="still"), class_="choice")


def data_blocks(results: Results) -> Html:
    """Return the data of all views as elements of the page."""
    blocks = {"tilts": tilts_data(results), "slices": slices_data(results), "surfaces": surfaces_data(results)}
    return join(data_block(name, content) for name, content in blocks.items() if content is not None)


def data_block(name: str, content: Any) -> Html:
    """Return JSON as an element of the page, such that no text in it can end the element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":  # only within strings
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Html(f'<script type="application/json" id="data-{name}">{text}</script>')


# --- tilt series ---

SERIES_CAPTIONS = {"raw": "As acquired.", "aligned": "Aligned, tilt axis dashed."}


def tilts_control(results: Results) -> Html | None:
    """Return the controls of the tilt series: raw and, if there are any, aligned images."""
    series = _series(results)
    if not series:
        return None
    pictures = [
        el(
            "figure",
            el("canvas", data_series=name, role="img", aria_label=f"tilt image, {name}"),
            # The grey levels of the montage, so that both show the same.
            el("figcaption", f"{SERIES_CAPTIONS[name]} {chosen_tilts(source, MONTAGE_TILTS)[2].words('counts')}."),
        )
        for name, source in series.items()
    ]
    last = len(_shown_tilts(series)) - 1
    bar = el(
        "div",
        el("button", "▶", type="button", aria_label="play"),
        el("input", type="range", min=0, max=last, value=last // 2, aria_label="tilt"),
        el("output", ""),
        class_="bar",
    )
    note = _steps_note([_number_of_tilts(series)], MOST_TILTS, "tilt")
    hint = el("p", note, class_="note") if note else None
    return el("div", el("div", *pictures, class_="pair"), bar, hint, class_="live", data_kind="tilts")


def tilts_data(results: Results) -> dict[str, Any] | None:
    """Return the pictures of the tilt series with angles and shifts."""
    series = _series(results)
    if not series:
        return None
    index = _shown_tilts(series)
    angles, shifts, quality = results.angles_deg, results.rows("shifts_px"), results.rows("tilt_quality")
    n = _number_of_tilts(series)
    marked = quality is not None and "is_outlier" in (quality.dtype.names or ()) and len(quality) == n
    return {
        "kind": KIND,
        "all": n,
        "index": index.tolist(),
        "angles": _finite(angles[index]) if angles is not None and len(angles) == n else None,
        "shifts": _finite(shifts[index]) if shifts is not None and shifts.shape == (n, 2) else None,
        "outlier": (quality["is_outlier"][index] > 0).tolist() if marked else None,  # type: ignore[index]
        "pixel_nm": _known(results.pixel_size_nm),
        "series": {name: _tilt_pictures(name, images, index) for name, images in series.items()},
    }


def _series(results: Results) -> dict[str, Input]:
    """Return the series to page through, by name; none of a single image."""
    raw, aligned = results.stack("tilt_series"), results.stack("aligned")
    if raw is not None and aligned is not None and aligned.shape[0] != raw.shape[0]:
        aligned = None
    found = {name: source for name, source in (("raw", raw), ("aligned", aligned)) if source is not None}
    return found if found and _number_of_tilts(found) > 1 else {}


def _number_of_tilts(series: dict[str, Input]) -> int:
    return int(next(iter(series.values())).shape[0])


def _shown_tilts(series: dict[str, Input]) -> NDArray[np.int64]:
    return evenly_spaced(_number_of_tilts(series), MOST_TILTS)


def _tilt_pictures(name: str, source: Input, index: Array) -> dict[str, Any]:
    limits = chosen_tilts(source, MONTAGE_TILTS)[2]
    factor = -(-max(source.shape[1:]) // TILT_SIDE)
    pictures = [_reduced(to_grey(np.asarray(source[int(i)]), limits), factor) for i in index]
    height, width = pictures[0].shape
    return {
        "images": webp(pictures, TILT_BYTES),
        "width": width,
        "height": height,
        "factor": factor,
        "axis": name == "aligned",
    }


def _reduced(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return image if factor == 1 else np.asarray(Image.fromarray(image).reduce(factor))


# --- slices ---


def slices_control(results: Results, *, overlay: bool) -> Html | None:
    """Return the controls of the slices in all three directions, with the classes painted over them or without."""
    volume = results.stack("volume")
    if volume is None or (overlay and not results.labels_fit_volume):
        return None
    lines = _box("lines of the other slices", "lines", checked=True)
    controls: list[Html | None] = [lines]
    hint = "Click in a slice to move the other two there."
    if overlay:
        confident = results.confidence is not None
        controls = [
            *(_class_box(label) for label in results.classes[1:]),
            _opacity("opacity of the classes"),
            _box("confidence instead", "confidence") if confident else None,
            lines,
        ]
        hint += " Confidence runs from dark blue (0 %) to yellow (100 %)." if confident else ""
    hint = f"{hint} {_steps_note(volume.shape, SLICES, 'slice')}".strip()
    return el(
        "div",
        el("div", *controls, class_="bar"),
        el("div", *(_panel(plane, volume.shape[plane.axis], overlay=overlay) for plane in PLANES), class_="triple"),
        el("p", hint, class_="note"),
        class_="live",
        data_kind="slices",
        data_overlay=int(overlay),
    )


def _steps_note(lengths: Sequence[int], most: int, what: str) -> str:
    """Say where sliders do not stop at every image: only so many are in the page."""
    step = max(round((n - 1) / (min(n, most) - 1)) for n in lengths if n > 1)
    return f"The page holds every {ordinal(step)} {what}." if step > 1 else ""


def _panel(plane: Plane, n: int, *, overlay: bool) -> Html:
    positions = evenly_spaced(n, SLICES)
    middle = int(np.argmin(np.abs(positions - n // 2)))
    what = f"{'labels over the ' if overlay else ''}{plane.name} slice"
    slider = el(
        "input", type="range", min=0, max=len(positions) - 1, value=middle, aria_label=f"{plane.cut_axis} of the {what}"
    )
    return el(
        "figure",
        el("canvas", role="img", aria_label=f"{what}, {plane.view}"),
        slider,
        el("figcaption", el("strong", plane.name), f" {plane.view}. ", el("output", "")),
        data_plane=plane.name,
    )


def slices_data(results: Results) -> dict[str, Any] | None:
    """Return the slices of volume, labels and confidence, each read once."""
    volume = results.stack("volume")
    if volume is None:
        return None
    found, limits = slices(volume), volume_limits(results)
    grey = {name: to_grey(images, limits) for name, images in found.images.items()}
    pictures = _encoded_alike(grey, SLICE_BYTES)
    planes = {
        plane.name: {
            "axis": plane.cut_axis,
            "rows": plane.down,
            "columns": plane.right,
            "n": int(volume.shape[plane.axis]),
            "positions": found.positions[plane.name].tolist(),
            "height": int(grey[plane.name].shape[1]),
            "width": int(grey[plane.name].shape[2]),
            "images": pictures[plane.name],
        }
        for plane in PLANES
    }
    content: dict[str, Any] = {"kind": KIND, "planes": planes, "factor": found.factor}
    content |= {"voxel_nm": _known(results.voxel_size_nm), "labels": None, "confidence": None, "classes": []}
    if results.labels_fit_volume:
        labels = slices(results.artifacts["labels"], average=False)
        content["labels"] = {name: [png(image) for image in images] for name, images in labels.images.items()}
        content["classes"] = [{"index": label.index, "color": label.color} for label in results.classes[1:]]
        if results.confidence is not None:
            reduced = slices(results.confidence, CONFIDENCE_SIDE).images
            rounded = {name: np.rint(images).astype(np.uint8) for name, images in reduced.items()}
            content["confidence"] = _encoded_alike(rounded, CONFIDENCE_BYTES)
    return content


def _encoded_alike(images: dict[str, NDArray[np.uint8]], n_bytes: int) -> dict[str, list[str]]:
    """Encode the slices of all planes with the same quality."""
    every = iter(webp([image for stack in images.values() for image in stack], n_bytes))
    return {name: [next(every) for _ in stack] for name, stack in images.items()}


# --- surfaces ---


def surfaces_control(results: Results) -> Html:
    """Return the controls of the surfaces."""
    bodies = results.bodies
    stage = el(
        "div",
        el("canvas", class_="over"),
        el(
            "canvas",
            class_="gl",
            tabindex=0,
            role="application",
            aria_label="surfaces of the labelled classes; arrow keys rotate, plus and minus zoom, 0 resets the view",
        ),
        el("p", class_="picked", role="status"),
        class_="stage",
    )
    buttons = [
        el("button", text, type="button", data_does=does, aria_label=words, title=words)
        for text, does, words in (
            ("+", "closer", "zoom in"),
            ("−", "farther", "zoom out"),
            ("Reset", "reset", "reset the view"),
        )
    ]
    opacity = _opacity("opacity of the translucent classes")
    if all(body.solid for body in bodies):
        opacity = el("span", opacity, hidden="")
    return el(
        "div",
        stage,
        el("div", *(_class_box(body) for body in bodies), opacity, class_="bar"),
        el("div", *buttons, _box("rotate continuously", "rotate"), class_="bar"),
        el(
            "p",
            "Drag to rotate, drag with Shift to move, and pinch or (after a click) scroll to zoom. Click a particle to "
            "identify it. The projection is parallel, so the scale bar holds everywhere.",
            class_="note",
        ),
        class_="live",
        data_kind="surfaces",
    )


def surfaces_data(results: Results) -> dict[str, Any] | None:
    """Return the surfaces of the bodies, and the positions of the particles."""
    found = results.class_fractions
    if found is None:
        return None
    shape = results.artifacts["labels"].shape
    meshes = []
    for body in results.bodies:
        triangles = surface(found, body.index, SOLID_TRIANGLES if body.solid else GLASS_TRIANGLES)
        mixed = "#{:02x}{:02x}{:02x}".format(*pale(body.color))
        if len(triangles.faces):
            about = {"index": body.index, "color": body.color, "pale": mixed, "solid": body.solid}
            meshes.append(about | encoded(triangles, shape))
    if not meshes:
        return None
    return {
        "classes": meshes,
        "step": meshes[0]["step"],
        "voxel_nm": _known(results.voxel_size_nm),
        "yaw": YAW,
        "pitch": PITCH,
        "particles": _particles(results),
    }


def _particles(results: Results) -> dict[str, list[Any]] | None:
    rows = results.rows("particle_table")
    needed = {"x": "x_px", "y": "y_px", "z": "z_px", "d": "diameter_px"}
    if rows is None or not {"id", *needed.values()} <= set(rows.dtype.names or ()):
        return None
    rows = rows[:MOST_PARTICLES]
    positions = {key: _finite(np.round(rows[name].astype(float), 2)) for key, name in needed.items()}
    return {"id": [str(plain(i)) for i in rows["id"]], **positions}


# --- parts ---


def _class_box(label: LabelClass) -> Html:
    box = el("input", type="checkbox", checked="", data_class=label.index)
    return el("label", box, el("span", class_="swatch", style=f"background:{label.color}"), label.name)


def _box(words: str, role: str, *, checked: bool = False) -> Html:
    return el("label", el("input", type="checkbox", checked="" if checked else None, data_role=role), words)


def _opacity(words: str) -> Html:
    return el(
        "label",
        "opacity ",
        el("input", type="range", min=0, max=1, step=0.05, value=number(0.5), data_role="opacity", aria_label=words),
    )


def _finite(values: Array) -> list[Any]:
    """Return numbers as JSON can hold them; those that are not finite become 0."""
    rounded: list[Any] = np.round(np.nan_to_num(values.astype(float), posinf=0.0, neginf=0.0), 4).tolist()
    return rounded


def _known(size: float) -> float | None:
    return float(size) if np.isfinite(size) else None
