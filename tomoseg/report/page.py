"""The whole page: summary, warnings, sections, provenance; written in one file that needs no network."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Input
from tomoseg.io.atomic import atomic_path
from tomoseg.report.contents import Contents
from tomoseg.report.html import Html, details, el, figure, join, table
from tomoseg.report.images import pale, rgb, rgba_picture
from tomoseg.report.live import (
    choice,
    digest,
    drawn_classes,
    join_blocks,
    script,
    slices_data,
    surfaces_control,
    surfaces_data,
    tilts_data,
)
from tomoseg.report.measured import size_words
from tomoseg.report.record import StageRecord
from tomoseg.report.scan import Fractions, fractions
from tomoseg.report.sections import legend, sections, tilt_range
from tomoseg.report.style import CSS
from tomoseg.report.words import NOTHING, count, duration, length, memory, moment, number, show, with_spread

STATE_WORDS = {"fresh": "✓ up to date", "stale": "stale", "partial": "unfinished", "missing": "not run"}
# Nothing from outside and no script but our own can ever run in the page, whatever a file held.
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    path: Path | str, artifacts: Mapping[str, Input], stages: Sequence[StageRecord], title: str, command: str = ""
) -> None:
    """Write one self-contained HTML page about a project.

    Parameters
    ----------
    path : path
        The page to write. It is replaced in one step when it is complete.
    artifacts : mapping of artifact names (`tomoseg.schema`) to what holds them
        Any may be absent. Of large ones only what is shown is read, and the labels in slabs.
    stages : sequence of StageRecord
        State and provenance, in order.
    title : str
        Heading of the page.
    command : str
        What one types to make the results again.

    Raises
    ------
    InputError
        The folder does not exist or cannot be written to.
    """
    with atomic_path(path) as temporary:
        page = _page(Contents(artifacts, tuple(stages), title), command)
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _page(contents: Contents, command: str) -> str:
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=f"{POLICY}; script-src {digest(script())}"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{contents.title} · tomoseg report"),
        el("style", Html(CSS)),
    )
    main = el("main", *(_section(contents, *section) for section in sections(contents)), _provenance(contents, command))
    footer = el("footer", _made_with(contents))
    found = class_fractions(contents)
    ours = script()
    body = el("body", _header(contents, found), main, footer, _data(contents, found), Html(f"<script>{ours}</script>"))
    return "<!DOCTYPE html>\n" + el("html", head, body, lang="en") + "\n"


def _data(contents: Contents, found: Fractions | None) -> Html:
    """Return what the script shows."""
    return join_blocks(
        [
            ("tilts", tilts_data(contents)),
            ("slices", slices_data(contents)),
            ("surfaces", None if found is None else surfaces_data(contents, found)),
        ]
    )


# --- summary ---


def _header(contents: Contents, found: Fractions | None) -> Html:
    """Return what a supervisor reads in a minute."""
    picture = _surface_figure(contents, found)
    text = el("div", el("p", summary(contents), class_="lead"), _numbers(contents))
    return el(
        "header",
        el("p", "Electron tomography report", class_="kicker"),
        el("h1", contents.title),
        el("div", text, picture, class_="hero" if picture else "hero plain"),
        _warnings(contents),
        _navigation(contents),
    )


def summary(contents: Contents) -> str:
    """Say in words what was done and found."""
    sentences = []
    series, volume, labels = (contents.get(name) for name in ("tilt_series", "volume", "labels"))
    if series is not None:
        size = contents.pixel_size_nm
        pixel = f"{length(size)} per pixel" if np.isfinite(size) else "of unknown pixel size"
        sentences.append(
            f"A tilt series of {tilt_range(contents.angles_deg) or count(series.shape[0], 'image')}, {pixel}."
        )
    if contents.get("aligned") is not None:
        before, after = (contents.number("alignment_info", f"correlation_{when}") for when in ("before", "after"))
        error = contents.number("alignment_info", "estimated_error_px")
        gain = f" (correlation of neighbouring tilts {number(before)} → {number(after)})" if np.isfinite(after) else ""
        method = contents.text("alignment_info", "method")
        sentences.append("It was taken as aligned." if method == "none" else f"The tilts were aligned{gain}.")
        if np.isfinite(error):
            sentences.append(f"Each lies about {number(error, 2)} px from where the others put it.")
    if volume is not None:
        method = contents.text("reconstruction_info", "method").upper()
        shape = " × ".join(str(n) for n in volume.shape)
        sentences.append(f"The volume of {shape} voxels was reconstructed{f' with {method}' if method else ''}.")
    if labels is not None and contents.classes:
        how = {"otsu": "by intensity thresholds", "unet": "by a trained network"}.get(
            contents.text("segmentation_info", "method"), ""
        )
        names = ", ".join(label.name for label in contents.classes)
        sentences.append(f"Its voxels were labelled {how} as {names}.".replace("  ", " "))
    if contents.get("class_table") is not None:
        sentences.append(size_words(contents))
    return " ".join(sentences) or "Nothing has been computed yet."


def key_numbers(contents: Contents) -> list[tuple[str, str, str | None]]:
    """Return the four numbers people ask for first: name, value, and unit or spread."""
    voxel, info = contents.voxel_size_nm, "measurement_info"
    unit = "nm" if np.isfinite(contents.number(info, "mean_diameter_nm")) else "px"
    mean, spread = (contents.number(info, f"{key}_diameter_{unit}") for key in ("mean", "std"))
    angles = contents.angles_deg
    middle, around = with_spread(mean, spread)
    size_unit = unit if around == NOTHING else f"± {around} {unit}"  # one particle has no spread
    # A particle number of a stage that has not run is nothing, not zero.
    particles = number(contents.number(info, "n_particles"), 6)
    return [
        ("tilts", NOTHING if angles is None else str(len(angles)), None),
        ("voxel size", number(voxel), "nm" if np.isfinite(voxel) else None),
        ("particles", particles, None),
        ("mean diameter", middle, size_unit if np.isfinite(mean) else None),
    ]


def _numbers(contents: Contents) -> Html:
    return el(
        "dl",
        *(
            el("div", el("dt", name), el("dd", value, " " if rest else None, el("small", rest) if rest else None))
            for name, value, rest in key_numbers(contents)
        ),
        class_="numbers",
    )


def _surface_figure(contents: Contents, found: Fractions | None) -> Html | None:
    """Return the picture of the surfaces: particles solid, other classes but the background as glass."""
    drawn = None if found is None else surface_picture(contents, found)
    if drawn is None:
        return None
    image, pixel_voxels = drawn
    picture = rgba_picture(
        image, pixel_voxels * contents.voxel_size_nm, "surfaces of the labelled classes", pixel_voxels
    )
    words = (
        "Surfaces of the labels in parallel projection; the tilt axis runs from top to bottom, tipped towards the "
        "viewer."
    )
    still = figure(picture, join([legend(contents.classes[1:]), words]), "surface")
    return choice(surfaces_control(contents), still)


def surface_picture(contents: Contents, found: Fractions) -> tuple[NDArray[np.uint8], float] | None:
    """Return the rendered surfaces (y, x, 4) and how many voxels a pixel is; None where there is nothing to see."""
    from tomoseg.report.surfaces import Surface, render

    classes, solid = drawn_classes(contents)
    surfaces = [
        Surface(c.index, rgb(c.color) if c.index == solid else pale(rgb(c.color)), c.index != solid) for c in classes
    ]
    image, pixel_voxels = render(found, surfaces)
    return (image, pixel_voxels) if image[..., 3].any() else None


def class_fractions(contents: Contents) -> Fractions | None:
    """Return how much of each class is where; None where there are no labels of any class."""
    labels = contents.get("labels")
    if labels is None or len(labels.shape) != 3 or len(contents.classes) < 2:
        return None
    return fractions(labels, len(contents.classes))


def _warnings(contents: Contents) -> Html | None:
    found = list(_all_warnings(contents))
    if not found:
        done = any(stage.state == "fresh" for stage in contents.stages)
        return el("p", "✓ No warnings.", class_="clear") if done else None
    items = (el("li", el("strong", f"{stage}: "), text) for stage, text in found)
    return el(
        "div",
        el("h2", f"{count(len(found), 'thing')} to know before relying on this"),
        el("ul", *items),
        class_="warnings",
    )


def _all_warnings(contents: Contents) -> Iterator[tuple[str, str]]:
    """Yield (stage, warning): what stages warned of, and results that no longer fit together."""
    for stage in contents.stages:
        if stage.state in ("stale", "partial"):
            why = f" ({'; '.join(stage.reasons)})" if stage.reasons else ""
            word = "no longer fits the settings or its input" if stage.state == "stale" else "is unfinished"
            yield stage.name, f"the result shown {word}{why}; run it again"
    for stage in contents.stages:
        for text in dict.fromkeys(stage.warnings):
            yield stage.name, text
    size_known = np.isfinite(contents.pixel_size_nm) or np.isfinite(contents.voxel_size_nm)
    already = any("pixel size" in text or "voxel size" in text for stage in contents.stages for text in stage.warnings)
    if contents.get("tilt_series") is not None and not size_known and not already:
        yield "import", "the pixel size is unknown, so lengths are in pixels (px)"


def _navigation(contents: Contents) -> Html:
    links = []
    for stage in contents.stages:
        state = el("span", STATE_WORDS[stage.state], class_=f"state {stage.state}")
        links.append(el("li", el("a", stage.name, state, href=f"#{_anchor(stage.name)}")))
    return el("nav", el("ul", *links), aria_label="stages")


# --- stages ---


def _anchor(stage: str) -> str:
    return "stage-" + "".join(c if c.isalnum() else "-" for c in stage)


def _section(contents: Contents, name: str, heading: str, content: Html | None) -> Html:
    stage = contents.stage(name)
    state = None if stage is None else el("span", STATE_WORDS[stage.state], class_=f"state {stage.state}")
    title = el("div", el("h2", heading), state, class_="title")
    if content is None:
        why = f": {'; '.join(stage.reasons)}" if stage and stage.reasons else ""
        content = el("p", f"No result{why}.", class_="note")
    return el("section", title, content, _notes(stage), id=_anchor(name))


def _notes(stage: StageRecord | None) -> Html | None:
    if stage is None or not stage.notes:
        return None
    return details("Notes of this stage", el("ul", *(el("li", note) for note in stage.notes), class_="notes"))


def _provenance(contents: Contents, command: str) -> Html | None:
    """Return how each result was made."""
    ran = [stage for stage in contents.stages if stage.started or stage.wall_seconds or stage.parameters]
    if not ran:
        return None
    rows = [
        (
            stage.name,
            STATE_WORDS[stage.state],
            moment(stage.started) or NOTHING,
            duration(stage.wall_seconds),
            memory(stage.peak_memory_bytes) if stage.peak_memory_bytes else NOTHING,
            stage.device or NOTHING,
            stage.host or NOTHING,
        )
        for stage in ran
    ]
    columns = ("stage", "state", "started", "time", "peak memory", "device", "host")
    return el(
        "section",
        el("div", el("h2", "How it was made"), class_="title"),
        table(columns, rows),
        _command(command),
        *(_settings(stage) for stage in ran),
        id="provenance",
    )


def _command(command: str) -> Html | None:
    """Return the command that makes the results again; the script adds a button that copies it."""
    if not command:
        return None
    words = (
        "The same again, from the raw file, into a new project. On the same machine, device and versions the results "
        "are the same to the bit."
    )
    return el("div", el("h3", "The command"), el("p", words), el("div", el("code", command), class_="command"))


def _settings(stage: StageRecord) -> Html | None:
    tables = []
    if stage.parameters:
        tables.append(table(("parameter", "value"), [(k, show(v)) for k, v in stage.parameters.items()]))
    if stage.versions:
        tables.append(table(("package", "version"), [(k, show(v)) for k, v in stage.versions.items()]))
    return details(f"Parameters and versions: {stage.name}", *tables) if tables else None


def _made_with(contents: Contents) -> str:
    version = next((s.versions["tomoseg"] for s in contents.stages if "tomoseg" in s.versions), "")
    return f"Made by tomoseg {version}".strip() + ". Pictures and numbers are those of the project file at that time."
