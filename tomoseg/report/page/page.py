"""The whole page: summary, warnings, sections and provenance in a single file that needs no network."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

from tomoseg import plain_json
from tomoseg.io.atomic import atomic_path
from tomoseg.palette import AXES, INK, SOFT_INK, TILT_AXIS
from tomoseg.project.provenance import Record, StageState
from tomoseg.report.figures.images import rgba_picture
from tomoseg.report.figures.rendering import draw_surfaces
from tomoseg.report.formatting import NOTHING, duration, memory, moment, show
from tomoseg.report.html import Html, details, el, facts, figure, join, table
from tomoseg.report.page.interactive import choice, data_blocks, surfaces_control
from tomoseg.report.page.measurement import measure_section
from tomoseg.report.page.parts import legend
from tomoseg.report.page.tilt_series import align_section, import_section
from tomoseg.report.page.volume import reconstruct_section, segment_section
from tomoseg.report.results import Results
from tomoseg.report.summary import key_numbers, summary, warnings_of
from tomoseg.words import count


def export_section(results: Results) -> Html:
    """List the files written."""
    try:
        files = plain_json.load(results.text("export_info", "files"))
        rows = [(str(f["name"]), memory(float(f["bytes"]))) for f in files]
    except (ValueError, TypeError, KeyError):
        rows = []
    folder = facts([("folder", results.text("export_info", "directory"))])
    return join([folder, table(("file", "size"), rows, sortable=True)])


STATE_WORDS = {"fresh": "✓ up to date", "stale": "out of date", "partial": "unfinished", "missing": "not run"}
# Nothing from outside and no script but our own can ever run in the page, whatever a file held.
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'"
# Stage, heading, the artifact without which there is no result, and what writes the section. What was found comes
# first, then what it was found from.
SECTIONS: tuple[tuple[str, str, str, Callable[[Results], Html]], ...] = (
    ("measure", "Measurement", "class_table", measure_section),
    ("segment", "Segmentation", "labels", segment_section),
    ("reconstruct", "Reconstruction", "volume", reconstruct_section),
    ("align", "Alignment", "aligned", align_section),
    ("import", "Tilt series", "tilt_series", import_section),
    ("export", "Exported files", "export_info", export_section),
)


def write_report(path: Path | str, results: Results, command: str = "") -> None:
    """Write one self-contained HTML page about a project; `command` reproduces its results.

    The page is replaced in one step when it is complete. Of large arrays only what is shown is read, and the labels in
    slabs. Raises `InputError` if the folder does not exist or cannot be written to.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(_page(results, command), encoding="utf-8", errors="replace")


def _page(results: Results, command: str) -> str:
    _ = results.bodies  # counted once, for pictures and views
    with ThreadPoolExecutor(1) as beside:
        views = beside.submit(data_blocks, results)
        header = _header(results)
        main = el("main", *(_section(results, *section) for section in SECTIONS), _provenance(results, command))
    return document(results.title, header, main, el("footer", _made_with(results)), views.result())


def document(title: str, *body: Html) -> str:
    """Return a self-contained page of these parts, with the style and the script of reports."""
    script = page_script()
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=f"{POLICY}; script-src {digest(script)}"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{title} · tomoseg report"),
        el("style", Html(style_sheet())),
    )
    whole = el("html", head, el("body", *body, Html(f"<script>{script}</script>")), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def page_script() -> str:
    """Return the script of the page."""
    return resources.files(__package__).joinpath("page.js").read_text(encoding="utf-8")


def style_sheet() -> str:
    """Return the style sheet of the page, with the colours of the palette."""
    colors = {"ink": INK, "soft": SOFT_INK, "tilt-axis": TILT_AXIS} | {f"axis-{axis}": c for axis, c in AXES.items()}
    named = " ".join(f"--{name}: {color};" for name, color in colors.items())
    return f":root {{ {named} }}\n" + resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")


def digest(text: str) -> str:
    """Return the source expression by which a policy allows exactly this inline script (Content Security Policy 3)."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() + "'"


# --- head ---


def _header(results: Results) -> Html:
    """Return what a supervisor reads in a minute."""
    picture = _surface_figure(results)
    text = el("div", el("p", summary(results), class_="lead"), _numbers(results))
    return el(
        "header",
        el("p", "Electron tomography report", class_="kicker"),
        el("h1", results.title),
        el("div", text, picture, class_="hero" if picture else "hero plain"),
        _warnings(results),
        _navigation(results),
    )


def _numbers(results: Results) -> Html:
    return el(
        "dl",
        *(
            el("div", el("dt", name), el("dd", value, " " if rest else None, el("small", rest) if rest else None))
            for name, value, rest in key_numbers(results)
        ),
        class_="numbers",
    )


def _surface_figure(results: Results) -> Html | None:
    """Return the picture of the surfaces, if there are any."""
    drawn = draw_surfaces(results)
    if drawn is None:
        return None
    image, pixel_voxels = drawn
    alt = "surfaces of the labelled classes"
    picture = rgba_picture(image, pixel_voxels * results.voxel_size_nm, alt, pixel_voxels)
    caption = (
        "Surfaces of the labelled classes in parallel projection. The tilt axis runs from top to bottom, tipped "
        "towards the viewer."
    )
    still = figure(picture, join([legend(results.bodies), caption]), "surface")
    return choice(surfaces_control(results), still)


def _warnings(results: Results) -> Html | None:
    found = list(warnings_of(results))
    if not found:
        done = any(stage.state == "fresh" for stage in results.stages)
        return el("p", "✓ No warnings.", class_="clear") if done else None
    items = (el("li", el("strong", f"{stage}: "), text) for stage, text in found)
    return el("div", el("h2", count(len(found), "warning")), el("ul", *items), class_="warnings")


def _navigation(results: Results) -> Html:
    links = (el("li", el("a", stage.name, _state(stage), href=f"#{_anchor(stage.name)}")) for stage in results.stages)
    return el("nav", el("ul", *links), aria_label="stages")


# --- stages ---


def _anchor(stage: str) -> str:
    return "stage-" + "".join(c if c.isalnum() else "-" for c in stage)


def _state(stage: StageState) -> Html:
    return el("span", STATE_WORDS[stage.state], class_=f"state {stage.state}")


def _section(results: Results, name: str, heading: str, artifact: str, write: Callable[[Results], Html]) -> Html:
    stage = results.stage(name)
    title = el("div", el("h2", heading), _state(stage) if stage else None, class_="title")
    # The export has no arrays: its group is there, or it is not.
    there = artifact in results.artifacts if artifact == "export_info" else results.get(artifact) is not None
    if there:
        content = write(results)
    else:
        why = f": {'; '.join(stage.reasons)}" if stage and stage.reasons else ""
        content = el("p", f"No result{why}.", class_="note")
    return el("section", title, content, _notes(stage), id=_anchor(name))


def _notes(stage: StageState | None) -> Html | None:
    notes = stage.record.notes if stage and stage.record else []
    return details("Notes", el("ul", *(el("li", note) for note in notes), class_="notes")) if notes else None


# --- provenance ---


def _records(results: Results) -> Iterator[tuple[StageState, Record]]:
    """Yield the stages that were run, with their records."""
    yield from ((stage, stage.record) for stage in results.stages if stage.record is not None)


def _provenance(results: Results, command: str) -> Html | None:
    """Return how each result was made."""
    rows = [
        (
            stage.name,
            STATE_WORDS[stage.state],
            moment(record.started) or NOTHING,
            duration(record.wall_seconds),
            memory(record.peak_memory_bytes) if record.peak_memory_bytes else NOTHING,
            record.device or NOTHING,
            record.host or NOTHING,
        )
        for stage, record in _records(results)
    ]
    if not rows:
        return None
    columns = ("stage", "state", "started", "duration", "peak memory", "device", "host")
    return el(
        "section",
        el("div", el("h2", "Provenance"), class_="title"),
        table(columns, rows),
        _command(command),
        *(_settings(record) for _, record in _records(results)),
        id="provenance",
    )


def _command(command: str) -> Html | None:
    """Return the command that reproduces the results; the script adds a button that copies it."""
    if not command:
        return None
    words = (
        "This command repeats all stages on the raw file and writes a new project. With the same machine, device and "
        "versions, the results are identical to the last bit."
    )
    heading = el("h3", "Reproduce these results")
    return el("div", heading, el("p", words), el("div", el("code", command), class_="command"))


def _settings(record: Record) -> Html | None:
    tables = [
        table((what, value), [(key, show(v)) for key, v in values.items()])
        for what, value, values in (
            ("parameter", "value", record.parameters),
            ("package", "version", record.versions),
        )
        if values
    ]
    return details(f"Parameters and versions: {record.stage}", *tables) if tables else None


def _made_with(results: Results) -> str:
    version = next((r.versions["tomoseg"] for _, r in _records(results) if "tomoseg" in r.versions), "")
    return f"Made by tomoseg {version}".strip() + " from the project file as it was at the time."
