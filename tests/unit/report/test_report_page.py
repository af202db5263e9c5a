"""The page is complete, self-contained, safe, and shows what the artifacts hold."""

import base64
import hashlib
import io
import json
import re
from dataclasses import astuple
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tomoseg import simulate
from tomoseg.arrays import MemoryInput
from tomoseg.errors import InputError
from tomoseg.palette import DARK, LIGHT
from tomoseg.project.provenance import Record, StageState
from tomoseg.report.figures.encoding import webp
from tomoseg.report.figures.plots import PLACES
from tomoseg.report.page.interactive import data_block
from tomoseg.report.page.measurement import rows_table
from tomoseg.report.page.page import page_script, write_report
from tomoseg.report.results import Results
from tomoseg.report.sampling.slices import SLAB_BYTES

HOSTILE = "<script>alert('x')</script>\"><img src=http://evil.example/x.png onerror=alert(1)>"
STAGES = ("import", "align", "reconstruct", "segment", "measure", "export")
VOID = {"img", "meta", "source", "br", "input"}
PICTURES = ("data:image/png;base64,", "data:image/svg+xml;base64,", "data:image/webp;base64,")
SMALL_PX = 60  # drawn quickly


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.text, self.open, self.scripts = [], [], [], []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.text).append(data)

    @property
    def data(self):
        """Return what the script works with, by name."""
        blocks = [attrs for tag, attrs in self.tags if tag == "script"]
        found = zip(blocks, self.scripts, strict=True)
        return {
            attrs["id"].removeprefix("data-"): json.loads(text)
            for attrs, text in found
            if attrs.get("type") == "application/json"
        }

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text).replace("\u00a0", " "))

    def images(self):
        """Decode every picture of the page but the plots."""
        return [Image.open(io.BytesIO(data)) for kind, data in self._pictures() if "svg" not in kind]

    def plots(self):
        """Return the roots of all plots in SVG, those for dark screens included."""
        return [ElementTree.fromstring(data) for kind, data in self._pictures() if "svg" in kind]

    def _pictures(self):
        for tag, attrs in self.tags:
            if tag in ("img", "source"):
                uri = attrs.get("src") or attrs["srcset"]
                assert uri.startswith(PICTURES)
                kind, _, data = uri.partition(",")
                yield kind, base64.b64decode(data, validate=True)


def particle_table(particles, size_nm):
    table = np.zeros(
        len(particles), [("id", "i4"), ("diameter_nm", "f8"), ("diameter_px", "f8"), ("touches_border", "?")]
    )
    table["id"] = np.arange(1, len(particles) + 1)
    table["diameter_px"] = particles["diameter_px"]
    table["diameter_nm"] = particles["diameter_px"] * size_nm
    return table


def size_table(diameters_px, size_nm):
    columns = ("from_nm", "to_nm", "from_px", "to_px", "count")
    if len(diameters_px) == 0:
        return np.zeros(0, [(c, "f8") for c in columns])
    counts, edges = np.histogram(diameters_px, 4)
    table = np.zeros(len(counts), [(c, "f8") for c in columns])
    table["from_px"], table["to_px"], table["count"] = edges[:-1], edges[1:], counts
    table["from_nm"], table["to_nm"] = table["from_px"] * size_nm, table["to_px"] * size_nm
    return table


def everything(size_nm=0.5, n_particles=5, name="particles", text="a note"):
    """All artifacts of a small project; the volume is the truth itself."""
    series = simulate.simulate_series(48, n_particles, tilt_step_deg=17, jitter_px=1, drift_px=2, pixel_size_nm=size_nm)
    phantom, n = series.truth.phantom, len(series.raw)
    quality = np.zeros(n, [("background", "f8"), ("correlation_before", "f8"), ("correlation_after", "f8")])
    names = ["background", "support", name]
    classes = np.zeros(
        3, [("class_index", "i4"), ("name", "U80"), ("volume_fraction", "f8"), ("surface_area_nm2", "f8")]
    )
    classes["class_index"], classes["name"] = range(3), names
    classes["surface_area_nm2"] = 100 * size_nm**2
    d = phantom.particles["diameter_px"]
    summary = {"particle_class": name, "n_particles": len(d), "n_in_size_statistics": len(d)}
    if len(d):
        summary |= {"mean_diameter_px": d.mean(), "std_diameter_px": d.std(ddof=1)}
        summary |= {"mean_diameter_nm": d.mean() * size_nm, "std_diameter_nm": d.std(ddof=1) * size_nm}
    label_attrs = {"class_names": names, "class_colors": ["#000000", "#0072b2", "#e69f00"], "voxel_size_nm": size_nm}
    info = {"pixel_size_nm": size_nm, "source": text, "metadata": json.dumps({"note": text}), "tilt_axis": "y"}
    axis = {"tilt_axis_angle_deg": 3.0, "tilt_axis_offset_px": 2.5, "method": text, "correlation_after": 0.99}
    files = json.dumps([{"name": f"{text}.vti", "bytes": 1_500_000, "mtime_ns": 0}])
    return {
        "tilt_series": MemoryInput(series.raw),
        "angles_deg": MemoryInput(series.angles_deg),
        "tilt_series_info": MemoryInput(attrs=info),
        "shifts_px": MemoryInput(series.truth.shifts_px),
        "alignment_info": MemoryInput(attrs=axis),
        "tilt_quality": MemoryInput(quality),
        "aligned": MemoryInput(simulate.project(phantom.density, series.angles_deg)),
        "volume": MemoryInput(phantom.density, {"voxel_size_nm": size_nm}),
        "residuals": MemoryInput(np.array([0.9, 0.5, 0.25])),
        "reconstruction_info": MemoryInput(attrs={"method": "mlem", "backend": "cpu", "device": "cpu"}),
        "labels": MemoryInput(phantom.labels, label_attrs),
        "confidence": MemoryInput(np.full(phantom.labels.shape, 255, np.uint8)),
        "segmentation_info": MemoryInput(attrs={"method": "otsu", "thresholds": [0.5, 2.0]}),
        "class_table": MemoryInput(classes),
        "particle_table": MemoryInput(particle_table(phantom.particles, size_nm)),
        "size_table": MemoryInput(size_table(d, size_nm)),
        "measurement_info": MemoryInput(attrs=summary),
        "export_info": MemoryInput(attrs={"directory": f"/somewhere/{text}", "files": files}),
    }


def with_assessment(artifacts, n_outliers=1, slices=None):
    """Return the artifacts as the align stage leaves them when there are tilts enough to judge it."""
    n = len(artifacts["angles_deg"].array)
    names = ("correlation_before", "correlation_after", "residual_before", "residual_after", "error_px")
    columns = [(name, "f8") for name in (*names, "error_uncertainty_px")]
    quality = np.zeros(n, [*columns, ("is_outlier", "u1")])
    quality["residual_before"], quality["residual_after"] = 0.4, 0.05
    quality["error_px"], quality["error_uncertainty_px"] = 0.07, 0.03
    quality["error_px"][-1] = 0.09
    quality["is_outlier"][:n_outliers] = 1
    quality["residual_after"][:n_outliers] = quality["error_px"][:n_outliers] = np.nan
    if slices is None:
        slices = np.random.default_rng(0).random((2, 24, 24)).astype(np.float32)
    figures = {"residual_before": 0.4, "residual_after": 0.05, "estimated_error_px": 0.07, "error_uncertainty_px": 0.03}
    return artifacts | {
        "tilt_quality": MemoryInput(quality),
        "alignment_info": MemoryInput(attrs=dict(artifacts["alignment_info"].attrs) | figures),
        "alignment_preview": MemoryInput(slices, {"voxel_size_px": 2.0, "row": 20}),
    }


def records(state="fresh", text="a note"):
    ran = {"host": text, "device": "cpu", "wall_seconds": 125.0, "peak_memory_bytes": 2_000_000_000, "started": "today"}
    values = {"parameters": {"key": text}, "versions": {"tomoseg": "1.2.3"}, "notes": [text], "warnings": [text]}
    return [StageState(name, state, [], record(name, **ran, **values)) for name in STAGES]


def record(stage, **more):
    required = {"parameters": {}, "files": {}, "consumed": {}, "started": "today"}
    return Record(stage=stage, run_id="run", fingerprint="", stage_version=1, **(required | more))


def write(tmp_path, artifacts, stages=(), title="My sample"):
    path = tmp_path / "report.html"
    write_report(path, Results(artifacts, stages, title, SMALL_PX))
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]  # nothing temporary is left
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def artifacts():
    return everything()


def test_whole_page_tells_what_was_found(artifacts, tmp_path):
    page = write(tmp_path, artifacts, records(text="mind the gap"))
    for words in (
        "My sample",
        "The tilt series has 9 images from −68° to 68° in steps of 17°; the pixel size is 0.5 nm.",
        "5 particles were found, with a mean diameter of 1.",
        "6 warnings",
        "mind the gap",
        "Common grey levels",
        "2 min 5 s",
        "2 GB",
        "1.5 MB",
    ):
        assert words in page.words
    # 3D, 2 montages of 5, 2 sinograms, 2 x 3 slices, 4 plots light and dark
    assert (len(page.images()), len(page.plots())) == (1 + 10 + 2 + 6, 8)
    assert page.data.keys() == {"tilts", "slices", "surfaces"}


def test_what_single_images_needed_is_shown_where_they_needed_something(artifacts, tmp_path):
    n = len(artifacts["angles_deg"].array)
    quality = np.zeros(n, [(name, "f8") for name in ("rotation_deg", "magnification", "tilt_error_deg")])
    quality["magnification"] = 1
    assert "image corrections" not in write(tmp_path, artifacts | {"tilt_quality": MemoryInput(quality)}).text
    quality["rotation_deg"] = np.where(np.arange(n) % 2, 0.5, -0.5)
    quality["magnification"][0] = 0.98
    text = write(tmp_path, artifacts | {"tilt_quality": MemoryInput(quality)}).text
    assert "image corrections: rotation" in text
    assert "0.5° rms, 0.5° at most" in text
    assert any(words.endswith(" % rms, 2 % at most") for words in text)
    assert "image corrections: tilt angle" not in text


def test_the_quality_of_the_alignment_is_shown(artifacts, tmp_path):
    page = write(tmp_path, with_assessment(artifacts), records())
    for words in (
        "prediction of held-out tilts residual 0.400 before alignment, 0.050 after (median)",
        "0.07 px (0.035 nm) rms, 0.09 px (0.045 nm) at the worst tilt; detection limit 0.03 px",
        "2.5 px (1.25 nm) to the right of the image centre",
        "The estimated alignment error is 0.07 px rms, 0.09 px at the worst tilt.",
        "Prediction of held-out tilts: relative residual ‖measured − predicted‖ / ‖measured‖ of each tilt",
        "Estimated alignment error: distance of each aligned image",
        "Slice across the tilt axis at y = 20",
        "Reconstructed from the raw images.",
        "Reconstructed from the aligned images.",
        "Sinogram of the brightest raw row",
        "Sinogram of the brightest aligned row",
    ):
        assert words in page.words
    # Beside what any page has (see above): two plots, light and dark, and two slices.
    assert (len(page.images()), len(page.plots())) == (1 + 10 + 2 + 6 + 2, 8 + 4)


def test_an_alignment_without_an_assessment_is_shown_as_far_as_it_goes(artifacts, tmp_path):
    page = write(tmp_path, artifacts)
    assert "Correlation of each tilt with its neighbour" in page.words
    assert "Sinogram of the central aligned row" in page.words
    for words in ("held-out tilts", "stimated alignment error", "Slice across"):
        assert words not in page.words


def test_an_assessment_that_says_nothing_is_left_out(artifacts, tmp_path):
    n = len(artifacts["angles_deg"].array)
    silent = with_assessment(artifacts, n_outliers=n)
    del silent["alignment_preview"]
    unknown = dict.fromkeys(("residual_before", "residual_after", "estimated_error_px"), np.nan)
    silent["alignment_info"] = MemoryInput(attrs=dict(artifacts["alignment_info"].attrs) | unknown)
    page = write(tmp_path, silent)
    assert "stimated alignment error" not in page.words
    assert "elative residual ‖measured" not in page.words


def test_a_series_taken_as_given_has_one_slice(artifacts, tmp_path):
    slices = np.repeat(np.random.default_rng(0).random((1, 24, 24)), 2, axis=0).astype(np.float32)
    page = write(tmp_path, with_assessment(artifacts, slices=slices))
    assert "Reconstructed from the images as given." in page.words
    assert "Reconstructed from the raw images." not in page.words


@pytest.mark.parametrize("attrs", [{}, {"voxel_size_px": "wide", "row": "top"}, {"voxel_size_px": -1.0, "row": 1e9}])
def test_a_slice_with_odd_attributes_is_shown(attrs, artifacts, tmp_path):
    odd = with_assessment(artifacts) | {"alignment_preview": MemoryInput(np.ones((2, 8, 8), np.float32), attrs)}
    assert "Sinogram of the central aligned row" in write(tmp_path, odd).words


def test_every_picture_decodes_and_shows_something(artifacts, tmp_path):
    for picture in write(tmp_path, artifacts).images():
        assert np.asarray(picture).std() > 0
        assert min(picture.size) >= 60


def test_plots_differ_in_colours_only_on_light_and_dark_screens(artifacts, tmp_path):
    plots = [ElementTree.tostring(root, "unicode") for root in write(tmp_path, artifacts).plots()]
    for dark, light in zip(plots[::2], plots[1::2], strict=True):
        assert LIGHT.text in light
        assert DARK.text in dark
        assert not [place for place in astuple(PLACES) if place in light + dark]
        assert len(re.findall("<[^/]*path", light)) > 20  # axes, curves and letters
        recoloured = light
        for one, other in zip(astuple(LIGHT), astuple(DARK), strict=True):
            recoloured = recoloured.replace(one, other)
        assert recoloured == dark


def test_page_needs_nothing_from_outside_and_runs_only_our_script(artifacts, tmp_path):
    page = write(tmp_path, artifacts, records())
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], tag
        for name in ("src", "srcset", "href"):
            assert attrs.get(name, "#").startswith(("#", *PICTURES))
    assert "url(" not in "".join(page.text)
    scripts = [attrs for tag, attrs in page.tags if tag == "script"]
    running = [text for attrs, text in zip(scripts, page.scripts, strict=True) if "type" not in attrs]
    assert running == [page_script()]
    expected = base64.b64encode(hashlib.sha256(running[0].encode()).digest()).decode()
    policy = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == [
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{expected}'"
    ]


def test_data_cannot_end_their_element():
    block = data_block("x", {"name": "</script><!--<script>&"})
    assert block.count("<") == 2
    assert block.count(">") == 2
    text = block.removeprefix('<script type="application/json" id="data-x">').removesuffix("</script>")
    assert json.loads(text) == {"name": "</script><!--<script>&"}


def test_strings_from_files_stay_text(tmp_path):
    hostile = everything(name=HOSTILE, text=HOSTILE)
    hostile["labels"].attrs["class_colors"][2] = f"#123456;{HOSTILE}"
    page = write(tmp_path, hostile, records("stale", HOSTILE), title=HOSTILE)
    assert [tag for tag, _ in page.tags].count("script") == 4  # tilts, slices, surfaces, and our own
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert page.words.count("<script>alert('x')</script>") > 10


def test_links_lead_to_sections(artifacts, tmp_path):
    page = write(tmp_path, artifacts, records())
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    links = [attrs["href"][1:] for tag, attrs in page.tags if tag == "a"]
    assert len(set(ids)) == len(ids)
    assert len(links) == len(STAGES)
    assert set(links) <= set(ids)


def test_every_picture_is_described(artifacts, tmp_path):
    assert all(attrs["alt"] for tag, attrs in write(tmp_path, artifacts).tags if tag == "img")


@pytest.mark.parametrize("last", range(len(STAGES)))
def test_a_project_that_stopped_early_gives_a_page(last, artifacts, tmp_path):
    made_by = {
        "import": ("tilt_series", "angles_deg", "tilt_series_info"),
        "align": ("shifts_px", "alignment_info", "aligned"),
        "reconstruct": ("volume", "residuals", "reconstruction_info"),
        "segment": ("labels", "segmentation_info"),
        "measure": ("class_table", "particle_table", "size_table", "measurement_info"),
    }
    present = [name for stage in STAGES[:last] for name in made_by[stage]]
    stages = [*records()[:last], *(StageState(name, "missing", ["not run yet"]) for name in STAGES[last:])]
    page = write(tmp_path, {name: artifacts[name] for name in present}, stages)
    assert page.words.count("No result: not run yet.") == len(STAGES) - last
    assert ("No particles" in page.words) is False
    if last == 0:
        assert "Nothing has been computed yet." in page.words


@pytest.mark.slow
def test_any_one_artifact_may_be_absent(tmp_path):
    artifacts = everything(n_particles=3)
    made_of = {"tilt_series", "aligned", "volume", "labels", "class_table", "export_info"}  # one per section
    for name in artifacts:
        page = write(tmp_path, {k: v for k, v in artifacts.items() if k != name}, records())
        assert page.words.count("No result.") == (name in made_of), name
        assert page.data.keys() >= {"tilts"}, name


def test_unknown_pixel_size_gives_pixels_and_says_so(tmp_path):
    page = write(tmp_path, everything(size_nm=float("nan")), records())
    assert "the pixel size is unknown, so lengths are in pixels (px)" in page.words
    assert "diameter (px)" in page.words
    assert "diameter (nm)" not in page.words
    assert re.search(r"mean diameter of [\d.]+ ± [\d.]+ px", page.words)
    assert not re.search(r"\bnan\b", page.words, re.IGNORECASE)


def test_known_pixel_size_leaves_out_pixels(artifacts, tmp_path):
    page = write(tmp_path, artifacts)
    assert "diameter (nm)" in page.words
    assert "diameter (px)" not in page.words


def test_no_particles_is_said(tmp_path):
    page = write(tmp_path, everything(n_particles=0), records())
    assert "No particles of class particles were found." in page.words


def test_many_particles_are_all_there_and_on_paper_the_first(artifacts, tmp_path):
    many = np.zeros(300, [("id", "i4"), ("diameter_px", "f8")])
    many["id"] = np.arange(1, 301)
    page = write(tmp_path, artifacts | {"particle_table": MemoryInput(many)})
    rows = [attrs for tag, attrs in page.tags if tag == "tr" and "data-id" in attrs]
    assert [attrs["data-id"] for attrs in rows] == [str(i) for i in range(1, 301)]
    assert [attrs.get("class") for attrs in rows] == [None] * 25 + ["more"] * 275
    assert "The first 25 rows are printed" in page.words


def test_endless_tables_are_cut():
    rows = np.ones(70, [("id", "i4"), ("x_nm", "f8")])
    page = Page(rows_table(rows, "70 particles", rows["id"], most_rows=30))
    assert "70 particles, the first 30 of which are shown; the project file holds all" in page.words
    assert sum("data-id" in attrs for _, attrs in page.tags) == 30


def test_stale_result_says_why(artifacts, tmp_path):
    stages = [StageState("reconstruct", "stale", ["iterations 20 -> 40"], record("reconstruct"))]
    assert "the result shown is out of date (iterations 20 -> 40)" in write(tmp_path, artifacts, stages).words


def test_no_warnings_is_said_too(artifacts, tmp_path):
    assert "✓ No warnings." in write(tmp_path, artifacts, [StageState("import", "fresh")]).words


def test_constant_images_and_volumes_without_numbers_are_shown_black(artifacts, tmp_path):
    constant = MemoryInput(np.zeros((9, 48, 48), np.int16))
    holes = MemoryInput(np.full((48, 48, 48), np.nan, np.float32), {"voxel_size_nm": 0.5})
    empty = MemoryInput(np.zeros((48, 48, 48), np.uint8), dict(artifacts["labels"].attrs))
    page = write(tmp_path, artifacts | {"tilt_series": constant, "volume": holes, "labels": empty})
    assert "5 of 9 tilts, as acquired. Common grey levels: black ≤ 0, white ≥ 1 counts" in page.words
    alts = [attrs.get("alt", "") for tag, attrs in page.tags if tag == "img"]
    assert "surfaces of the labelled classes" not in alts  # there is nothing to see
    assert page.data.keys() == {"tilts", "slices"}
    planes = page.data["slices"]["planes"].values()
    images = [Image.open(io.BytesIO(base64.b64decode(plane["images"][0]))) for plane in planes]
    assert all(np.asarray(image.convert("L")).max() == 0 for image in images)


def test_bytes_and_missing_class_colors(artifacts, tmp_path):
    labels = MemoryInput(artifacts["labels"].array, {"class_names": np.array([b"void", b"alumina", "Pt"], object)})
    assert "void, alumina and Pt" in write(tmp_path, artifacts | {"labels": labels}).words


def test_flat_and_wide_volumes(artifacts, tmp_path):
    volume = np.random.default_rng(0).random((5, 40, 900)).astype(np.float32)
    labels = MemoryInput(
        (volume > 0.5).astype(np.uint8), {"class_names": ["no", "yes"], "class_colors": ["#000000", "#d55e00"]}
    )
    page = write(tmp_path, artifacts | {"volume": MemoryInput(volume), "labels": labels})
    data = page.data["slices"]
    assert data["factor"] == 3  # 900 voxels on at most 400 pixels
    sizes = {name: (plane["height"], plane["width"]) for name, plane in data["planes"].items()}
    assert sizes == {"xy": (14, 300), "zy": (14, 2), "xz": (2, 300)}
    assert "5 × 40 × 900 voxels (z × y × x)" in page.words


def test_an_old_page_stays_when_writing_fails(artifacts, tmp_path):
    class Broken(MemoryInput):
        def __getitem__(self, key):
            raise OSError("the disk went away")

    (tmp_path / "report.html").write_text("old")
    with pytest.raises(OSError, match="went away"):
        write_report(tmp_path / "report.html", Results(artifacts | {"volume": Broken(np.zeros((4, 4, 4)))}, [], "t"))
    assert (tmp_path / "report.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="folder"):
        write_report(tmp_path / "nowhere" / "report.html", Results({}, [], "t"))


def test_large_volumes_are_read_in_parts(artifacts, tmp_path):
    """Of volume and labels, single slices or slabs may be in memory, of the series single images."""

    class Counting(MemoryInput):
        largest, read = 0, 0

        def __getitem__(self, key):
            part = self.array[key]
            self.largest, self.read = max(self.largest, part.size), self.read + part.size
            return part

    volume = np.random.default_rng(0).random((64, 500, 600), np.float32)
    volume = Counting(volume, {"voxel_size_nm": 1.0})
    series = Counting(np.ones((200, 50, 60), np.uint16))
    write(tmp_path, {"volume": volume, "tilt_series": series, "alignment_info": artifacts["alignment_info"]})
    assert volume.array.nbytes > SLAB_BYTES
    assert 4 * volume.largest <= SLAB_BYTES
    assert volume.read < 1.2 * volume.array.size
    assert series.largest == 50 * 60


def test_the_data_are_those_of_the_project(artifacts, tmp_path):
    data = write(tmp_path, artifacts, records()).data
    angles = artifacts["angles_deg"].array
    assert data["tilts"]["angles"] == pytest.approx(angles)
    assert data["tilts"]["shifts"] == pytest.approx(np.round(artifacts["shifts_px"].array, 4))
    assert [len(series["images"]) for series in data["tilts"]["series"].values()] == [len(angles)] * 2
    planes = data["slices"]["planes"]
    assert planes["zy"]["positions"] == list(range(48))
    labels = Image.open(io.BytesIO(base64.b64decode(data["slices"]["labels"]["xz"][20])))
    assert np.array_equal(np.asarray(labels), artifacts["labels"].array[:, 20])
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(planes["zy"]["images"][30]))).convert("L"), float)
    volume = artifacts["volume"].array[:, :, 30].T
    assert np.corrcoef(image.ravel(), np.clip(volume, 0, np.percentile(volume, 99)).ravel())[0, 1] > 0.97


def test_pictures_keep_to_their_budget():
    noise = np.random.default_rng(0).integers(0, 255, (20, 200, 200)).astype(np.uint8)
    fine, coarse = (sum(map(len, webp(noise, budget))) for budget in (10**7, 400_000))
    assert coarse < 0.85 * fine
    assert coarse * 3 / 4 < 420_000


@pytest.mark.parametrize("size", ["nm", "px"])
def test_new_numbers_appear_by_their_names(artifacts, tmp_path, size):
    nm = 1.0 if size == "nm" else np.nan
    support = {"support_classes": ["support"], "specific_surface_m2_per_g": 112.5, "bulk_nm3": 5e4, "tilt_deg": 3.5}
    support |= {"roughness_px": 4.0, "roughness_nm": 4.0 * nm}
    facets = np.zeros(3, [("plane", "S8"), ("area_nm2", "f8"), ("area_fraction", "f8"), ("particle_fraction", "f8")])
    facets["plane"], facets["area_fraction"] = [b"{110}", b"{111}", b"$x$"], [0.5, 0.3, 0.2]
    bins = np.zeros(4, [("from_per_nm", "f8"), ("to_per_nm", "f8"), ("area_fraction", "f8")])
    bins["from_per_nm"], bins["to_per_nm"], bins["area_fraction"] = np.arange(4), np.arange(1, 5), 0.25
    pores = np.zeros(
        4, [("from_nm", "f8"), ("to_nm", "f8"), ("from_px", "f8"), ("to_px", "f8"), ("volume_fraction", "f8")]
    )
    pores["from_px"], pores["to_px"] = np.arange(4), np.arange(1, 5)
    pores["from_nm"], pores["to_nm"] = pores["from_px"] * nm, pores["to_px"] * nm
    disc = np.hypot(*np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21)))
    new = {
        "support_info": MemoryInput(attrs=support),
        "facet_table": MemoryInput(facets),
        "curvature_table": MemoryInput(bins),
        "orientation_map": MemoryInput(np.where(disc <= 1, disc, np.nan)[None].repeat(2, 0).astype(np.float32)),
        "pore_table": MemoryInput(np.ones(7, [("id", "i4"), ("volume_nm3", "f8")])),
        "pore_size_table": MemoryInput(pores),
    }
    before, page = write(tmp_path, artifacts), write(tmp_path, artifacts | new)
    for words in ("specific surface 112.5 m²/g", "bulk 50000 nm³", "tilt 3.5°", "Facets", "All pores", "{110}"):
        assert words in page.words
        assert words not in before.words
    assert ("roughness 4 nm" in page.words) is (size == "nm")
    assert ("roughness 4 px" in page.words) is (size == "px")
    alts = [attrs.get("alt") for tag, attrs in page.tags if tag == "img"]
    for alt in ("by facet", "normals", "mean curvature", "pore diameter"):
        assert sum(alt in text for text in alts) == 1


def test_what_weighs_is_shown_beside_what_is_many(artifacts, tmp_path):
    rows = artifacts["size_table"].array
    weighted = np.zeros(len(rows), [*rows.dtype.descr, ("surface_fraction", "f8"), ("volume_fraction", "f8")])
    for name in rows.dtype.names:
        weighted[name] = rows[name]
    page = write(tmp_path, artifacts | {"size_table": MemoryInput(weighted)})
    assert "Fraction of the particles' surface and volume in each bin" in page.words
    assert "Fraction of the particles'" not in write(tmp_path, artifacts).words


def test_the_command_is_told(artifacts, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, Results(artifacts, records(), "t", SMALL_PX), "tomoseg run 'a b.mrc' --set x.y='<b>'")
    page = Page(path.read_text())
    assert "tomoseg run 'a b.mrc' --set x.y='<b>'" in page.words
    assert [attrs for tag, attrs in page.tags if attrs.get("class") == "command"]
