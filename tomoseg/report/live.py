"""What the script of the page works with: controls in the page, and pictures and surfaces as JSON in it.

Every control stands beside the still pictures that it replaces where the script runs on a screen.
"""

import base64
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tomoseg.arrays import Array, Input
from tomoseg.report.contents import Contents, LabelClass
from tomoseg.report.html import Html, el, join
from tomoseg.report.images import Limits, grey_limits, pale, rgb, to_grey, volume_limits
from tomoseg.report.mesh import GLASS_TRIANGLES, SOLID_TRIANGLES, encoded, surface
from tomoseg.report.scan import PLANES, Fractions, slices
from tomoseg.report.surfaces import PITCH, YAW
from tomoseg.report.words import number, plain

MOST_TILTS, TILT_SIDE = 80, 320
CONFIDENCE_SIDE = 200
MOST_PARTICLES = 5000
# Of all pictures of a kind, before base64 adds a third.
SLICE_BYTES, TILT_BYTES, CONFIDENCE_BYTES = 3_200_000, 1_100_000, 500_000
QUALITIES = (82, 72, 60, 48, 36, 24, 12)  # of WebP; the first that fits is taken
KIND = "image/webp"
MONTAGE_TILTS = 5
VIEWS = {
    "xy": "along the beam at zero tilt",
    "zy": "from the side",
    "xz": "across the tilt axis, with the missing wedge",
}


def script() -> str:
    """Return the script of the page."""
    return resources.files("tomoseg.report").joinpath("page.js").read_text(encoding="utf-8")


def digest(text: str) -> str:
    """Return the source expression by which a policy allows exactly this inline script (Content Security Policy 3)."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() + "'"


def data_block(name: str, content: Any) -> Html:
    """Return JSON as an element of the page, such that nothing in it can end the element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":  # only within strings
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Html(f'<script type="application/json" id="data-{name}">{text}</script>')


def choice(live: Html, *still: Any) -> Html:
    """Return controls, seen where the script runs on a screen, and what is seen elsewhere."""
    return el("div", live, el("div", *still, class_="still"), class_="choice")


# --- tilt series ---


def tilts_control(contents: Contents) -> Html | None:
    """Return the controls of the tilt series: raw and, where there are any, aligned images."""
    series = list(_series(contents))
    if not series or series[0][1].shape[0] < 2:
        return None
    words = {"raw": "As acquired.", "aligned": "Aligned; the tilt axis dashed."}
    pictures = [
        el(
            "figure",
            el("canvas", data_series=name, role="img", aria_label=f"tilt image, {name}"),
            el("figcaption", f"{words[name]} {_tilt_limits(source).words('counts')}."),
        )
        for name, source in series
    ]
    last = len(_chosen_tilts(series[0][1])) - 1
    bar = el(
        "div",
        el("button", "▶", type="button", aria_label="play"),
        el("input", type="range", min=0, max=last, value=last // 2, aria_label="tilt"),
        el("output", ""),
        class_="bar",
    )
    return el("div", el("div", *pictures, class_="pair"), bar, class_="live", data_kind="tilts")


def tilts_data(contents: Contents) -> dict[str, Any] | None:
    """Return the pictures of the tilt series with angles and shifts."""
    series = list(_series(contents))
    if not series or series[0][1].shape[0] < 2:
        return None
    index = _chosen_tilts(series[0][1])
    angles, shifts = contents.angles_deg, contents.rows("shifts_px")
    quality = contents.rows("tilt_quality")
    n = int(series[0][1].shape[0])
    outlier = quality is not None and "is_outlier" in (quality.dtype.names or ()) and len(quality) == n
    return {
        "kind": KIND,
        "all": n,
        "index": index.tolist(),
        "angles": _finite(angles[index]) if angles is not None and len(angles) == n else None,
        "shifts": _finite(shifts[index]) if shifts is not None and shifts.shape == (n, 2) else None,
        "outlier": (quality["is_outlier"][index] > 0).tolist() if outlier else None,  # type: ignore[index]
        "pixel_nm": _known(contents.pixel_size_nm),
        "series": {name: _tilt_pictures(source, index) | {"axis": name == "aligned"} for name, source in series},
    }


def _series(contents: Contents) -> Iterator[tuple[str, Input]]:
    raw, aligned = contents.get("tilt_series"), contents.get("aligned")
    if raw is not None and len(raw.shape) == 3:
        yield "raw", raw
    if aligned is not None and len(aligned.shape) == 3 and (raw is None or aligned.shape[0] == raw.shape[0]):
        yield "aligned", aligned


def _chosen_tilts(source: Input) -> NDArray[np.int64]:
    n = int(source.shape[0])
    return np.unique(np.linspace(0, n - 1, min(n, MOST_TILTS)).round().astype(np.int64))


def _tilt_limits(source: Input) -> Limits:
    """Return the grey levels of the montage, so that both show the same."""
    chosen = np.unique(np.linspace(0, source.shape[0] - 1, MONTAGE_TILTS).round().astype(int))
    return grey_limits([np.asarray(source[int(i)]) for i in chosen])


def _tilt_pictures(source: Input, index: Array) -> dict[str, Any]:
    limits = _tilt_limits(source)
    factor = -(-max(source.shape[1:]) // TILT_SIDE)
    pictures = [_reduced(to_grey(np.asarray(source[int(i)]), limits), factor) for i in index]
    height, width = pictures[0].shape
    return {"images": webp(pictures, TILT_BYTES), "width": width, "height": height, "factor": factor}


def _reduced(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return image if factor == 1 else np.asarray(Image.fromarray(image).reduce(factor))


# --- slices ---


def slices_control(contents: Contents, *, overlay: bool) -> Html | None:
    """Return the controls of the three directions of slices, with the classes over them or without."""
    volume = contents.get("volume")
    if volume is None or len(volume.shape) != 3 or (overlay and not has_labels(contents)):
        return None
    panels = [_panel(plane, volume.shape[axis], "zyx"[axis], overlay=overlay) for plane, (axis, _, _) in PLANES.items()]
    lines = _box("lines of the other slices", "lines", checked=True)
    controls: list[Html | None] = [lines]
    if overlay:
        controls = [
            *(_class_box(label) for label in contents.classes[1:]),
            el("label", "opacity ", _range("opacity", 0.5, "opacity of the classes")),
            _box("confidence instead", "confidence") if _confidence(contents) is not None else None,
            lines,
        ]
    hint = "Click into a slice to move the other two there."
    if overlay and _confidence(contents) is not None:
        hint += " Confidence: dark blue is unsure, yellow certain (0 to 100 %)."
    return el(
        "div",
        el("div", *controls, class_="bar"),
        el("div", *panels, class_="triple"),
        el("p", hint, class_="note"),
        class_="live",
        data_kind="slices",
        data_overlay=int(overlay),
    )


def _panel(plane: str, n: int, axis: str, *, overlay: bool) -> Html:
    from tomoseg.report.scan import chosen

    positions = chosen(n)
    middle = int(np.argmin(np.abs(positions - n // 2)))
    what = f"{'labels over the ' if overlay else ''}{plane} slice"
    return el(
        "figure",
        el("canvas", role="img", aria_label=f"{what}, {VIEWS[plane]}"),
        el("input", type="range", min=0, max=len(positions) - 1, value=middle, aria_label=f"{axis} of the {what}"),
        el("figcaption", el("strong", plane), f" {VIEWS[plane]}. ", el("output", "")),
        data_plane=plane,
    )


def slices_data(contents: Contents) -> dict[str, Any] | None:
    """Return the slices of volume, labels and confidence, each read once."""
    volume = contents.get("volume")
    if volume is None or len(volume.shape) != 3:
        return None
    found, limits = slices(volume), volume_limits(contents)
    grey = {plane: to_grey(images, limits) for plane, images in found.images.items()}
    pictures = _by_plane(grey, SLICE_BYTES)
    planes = {
        plane: {
            "axis": "zyx"[axis],
            "rows": rows,
            "columns": columns,
            "n": int(volume.shape[axis]),
            "positions": found.positions[plane].tolist(),
            "height": int(grey[plane].shape[1]),
            "width": int(grey[plane].shape[2]),
            "images": pictures[plane],
        }
        for plane, (axis, rows, columns) in PLANES.items()
    }
    content: dict[str, Any] = {"kind": KIND, "planes": planes, "factor": found.factor}
    content |= {"voxel_nm": _known(contents.voxel_size_nm), "labels": None, "confidence": None, "classes": []}
    if has_labels(contents):
        labels = slices(contents.artifacts["labels"], average=False)
        content["labels"] = {plane: [_png(image) for image in images] for plane, images in labels.images.items()}
        content["classes"] = [{"index": label.index, "color": label.color} for label in contents.classes[1:]]
        confidence = _confidence(contents)
        if confidence is not None:
            sure = slices(confidence, CONFIDENCE_SIDE).images
            rounded = {plane: np.rint(images).astype(np.uint8) for plane, images in sure.items()}
            content["confidence"] = _by_plane(rounded, CONFIDENCE_BYTES)
    return content


def has_labels(contents: Contents) -> bool:
    """Tell whether there are labels that fit the volume."""
    volume, labels = contents.get("volume"), contents.get("labels")
    same = volume is not None and labels is not None and tuple(volume.shape) == tuple(labels.shape)
    return same and len(contents.classes) > 1


def _confidence(contents: Contents) -> Input | None:
    confidence, labels = contents.get("confidence"), contents.get("labels")
    fits = confidence is not None and labels is not None and tuple(confidence.shape) == tuple(labels.shape)
    return confidence if fits else None


def _by_plane(images: dict[str, NDArray[np.uint8]], n_bytes: int) -> dict[str, list[str]]:
    """Encode the slices of all planes alike."""
    every = webp([image for plane in PLANES for image in images[plane]], n_bytes)
    found, start = {}, 0
    for plane in PLANES:
        found[plane] = every[start : start + len(images[plane])]
        start += len(images[plane])
    return found


# --- surfaces ---


def drawn_classes(contents: Contents) -> tuple[list[LabelClass], int]:
    """Return the classes whose surfaces are drawn, and the index of the one that is solid: the particles."""
    classes = contents.classes
    names = [label.name for label in classes]
    counted = contents.text("measurement_info", "particle_class")
    return classes[1:], names.index(counted) if counted in names[1:] else len(classes) - 1


def surfaces_control(contents: Contents) -> Html:
    """Return the controls of the surfaces."""
    classes, solid = drawn_classes(contents)
    stage = el(
        "div",
        el("canvas", class_="over"),
        el(
            "canvas",
            class_="gl",
            tabindex=0,
            role="application",
            aria_label="surfaces of the labelled classes; arrow keys turn, plus and minus magnify, 0 resets",
        ),
        el("p", class_="picked", role="status"),
        class_="stage",
    )
    buttons = [
        el("button", text, type="button", data_does=does, aria_label=words, title=words)
        for text, does, words in (
            ("+", "closer", "magnify"),
            ("−", "farther", "reduce"),
            ("Reset", "reset", "reset the view"),
        )
    ]
    glass = [label for label in classes if label.index != solid]
    see_through = el("label", "opacity ", _range("opacity", 0.5, "opacity of what is seen through"))
    return el(
        "div",
        stage,
        el(
            "div",
            *(_class_box(label) for label in classes),
            see_through if glass else el("span", _range("opacity", 0.5, "opacity"), hidden=""),
            class_="bar",
        ),
        el("div", *buttons, _box("turn by itself", "rotate"), class_="bar"),
        el(
            "p",
            "Drag to turn, Shift and drag to move, pinch or (after a click) wheel to magnify; a click on a particle "
            "names it. Parallel projection: the scale bar is true everywhere.",
            class_="note",
        ),
        class_="live",
        data_kind="surfaces",
    )


def surfaces_data(contents: Contents, found: Fractions) -> dict[str, Any] | None:
    """Return the surfaces of the classes, and where the particles are."""
    classes, solid = drawn_classes(contents)
    shape = contents.artifacts["labels"].shape
    meshes = []
    for label in classes:
        triangles = surface(found, label.index, SOLID_TRIANGLES if label.index == solid else GLASS_TRIANGLES)
        mixed = "#{:02x}{:02x}{:02x}".format(*pale(rgb(label.color)))
        if len(triangles.faces):
            about = {"index": label.index, "color": label.color, "pale": mixed, "solid": label.index == solid}
            meshes.append(about | encoded(triangles, shape))
    if not meshes:
        return None
    return {
        "classes": meshes,
        "step": meshes[0]["step"],
        "voxel_nm": _known(contents.voxel_size_nm),
        "yaw": YAW,
        "pitch": PITCH,
        "particles": _particles(contents),
    }


def _particles(contents: Contents) -> dict[str, list[Any]] | None:
    rows = contents.rows("particle_table")
    needed = {"x": "x_px", "y": "y_px", "z": "z_px", "d": "diameter_px"}
    if rows is None or not {"id", *needed.values()} <= set(rows.dtype.names or ()):
        return None
    rows = rows[:MOST_PARTICLES]
    places = {key: _finite(np.round(rows[name].astype(float), 2)) for key, name in needed.items()}
    return {"id": [str(plain(i)) for i in rows["id"]], **places}


# --- parts ---


def _class_box(label: LabelClass) -> Html:
    box = el("input", type="checkbox", checked="", data_class=label.index)
    return el("label", box, el("span", class_="swatch", style=f"background:{label.color}"), label.name)


def _box(words: str, role: str, *, checked: bool = False) -> Html:
    return el("label", el("input", type="checkbox", checked="" if checked else None, data_role=role), words)


def _range(role: str, value: float, words: str) -> Html:
    return el("input", type="range", min=0, max=1, step=0.05, value=number(value), data_role=role, aria_label=words)


def webp(images: Sequence[NDArray[np.uint8]], n_bytes: int) -> list[str]:
    """Encode grey images (rows, columns) u1 as WebP in base64, in the best of `QUALITIES` that takes `n_bytes` or less.

    The worst is taken where none does.
    """
    sample = images[:: max(1, len(images) // 12)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for quality in QUALITIES:
            sizes = [len(data) for data in pool.map(lambda image, q=quality: _webp(image, q), sample)]
            if np.mean(sizes) * len(images) <= n_bytes:
                break
        return [base64.b64encode(data).decode() for data in pool.map(lambda image: _webp(image, quality), images)]


def _webp(image: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=quality, method=2)
    return buffer.getvalue()


def _png(labels: NDArray[np.uint8]) -> str:
    """Encode class indices (rows, columns) as they are: the script colours them."""
    buffer = io.BytesIO()
    Image.fromarray(labels.astype(np.uint8)).save(buffer, format="PNG", compress_level=6)
    return base64.b64encode(buffer.getvalue()).decode()


def _finite(values: Array) -> list[Any]:
    """Return numbers as JSON can hold them; what is not finite is 0."""
    rounded: list[Any] = np.round(np.nan_to_num(values.astype(float), posinf=0.0, neginf=0.0), 4).tolist()
    return rounded


def _known(size: float) -> float | None:
    return float(size) if np.isfinite(size) else None


def join_blocks(blocks: Sequence[tuple[str, dict[str, Any] | None]]) -> Html:
    """Return the elements of data; none for what is not there."""
    return join(data_block(name, content) for name, content in blocks if content is not None)
