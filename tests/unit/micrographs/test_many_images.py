"""Folders of micrographs: continued, robust against single files, corrected by hand."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.conftest import tomoseg
from tomoseg.micrographs.folder import RECORDS, known_records
from tomoseg.micrographs.records import Record
from tomoseg.micrographs.results import ADDED, CHANGED, DELETED
from tomoseg.micrographs.review import Review, origins_of, whole_parts
from tomoseg.report.review_viewer import Reviewing

DIAMETER = 24


def _micrograph(seed, n=8, size=256):
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size))
    image = rng.normal(100, 6, (size, size))
    places = [(40 + 85 * i, 40 + 85 * j) for i in range(3) for j in range(3)][:n]
    for cy, cx in places:
        image[(y - cy) ** 2 + (x - cx) ** 2 < (DIAMETER / 2) ** 2] += 90
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Three images of two samples and one file that is none, measured."""
    root = tmp_path_factory.mktemp("images")
    for name, seed, n in (("a/1.png", 1, 8), ("a/2.tif", 2, 9), ("b/1.png", 3, 5)):
        path = root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _micrograph(seed, n).save(path)
    (root / "in" / "b" / "bad.png").write_text("no picture")
    out = tomoseg("images", "in", "-r", "-o", "out", "--pixel-size", "0.5", "--progress", "none", cwd=root)
    return root, out


def _rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_tell_images_particles_samples_and_what_was_skipped(measured):
    root, _ = measured
    images = _rows(root / "out" / "images.csv")
    assert [row["image"] for row in images] == ["a/1.png", "a/2.tif", "b/1.png"]
    assert [int(row["n_particles"]) for row in images] == [8, 9, 5]
    assert {row["scale_source"] for row in images} == {"given"}
    particles = _rows(root / "out" / "particles.csv")
    assert len(particles) == 22
    sizes = np.array([float(row["diameter_nm"]) for row in particles])
    np.testing.assert_allclose(sizes, 0.5 * DIAMETER, rtol=0.05)
    samples = {row["sample"]: row for row in _rows(root / "out" / "samples.csv")}
    assert {name: int(row["n_particles"]) for name, row in samples.items()} == {"all images": 22, "a": 17, "b": 5}
    (skipped,) = _rows(root / "out" / "skipped.csv")
    assert skipped["image"] == "b/bad.png"
    for name in ("report.html", "sizes.png", "sizes.svg", "overlays/a/1.png.png", "labels/b/1.png.png"):
        assert (root / "out" / name).stat().st_size > 100


def test_what_is_known_is_not_measured_again(measured, tmp_path):
    root, _ = measured
    shutil.copytree(root, tmp_path / "copy")
    copy = tmp_path / "copy"
    _micrograph(4, 3).save(copy / "in" / "b" / "1.png")
    before = {p: p.stat().st_mtime_ns for p in sorted((copy / "out" / RECORDS).rglob("*.json"))}
    tomoseg("images", "in", "-r", "-o", "out", "--pixel-size", "0.5", "--progress", "none", cwd=copy)
    changed = [p.name for p, t in before.items() if p.stat().st_mtime_ns != t]
    assert changed == ["1.png.json", "bad.png.json"]
    assert [int(row["n_particles"]) for row in _rows(copy / "out" / "images.csv")] == [8, 9, 3]


def test_a_folder_of_other_things_and_no_image_are_refused(measured, tmp_path):
    root, _ = measured
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    said = tomoseg("images", root / "in" / "a", "-o", tmp_path / "mine", code=2).stderr
    assert "holds other files" in said
    assert "does not exist" in tomoseg("images", tmp_path / "nothing.png", "-o", tmp_path / "out", code=2).stderr
    assert "holds no image" in tomoseg("images", tmp_path / "mine", "-o", tmp_path / "out", code=2).stderr
    assert (
        "no image could be measured"
        in tomoseg("images", root / "in" / "b" / "bad.png", "-o", tmp_path / "out", "--progress", "none", code=1).stderr
    )


@pytest.mark.slow
def test_corrections_by_hand_are_kept_with_their_origin(measured, tmp_path):
    root, _ = measured
    shutil.copytree(root, tmp_path / "copy")
    records, params = known_records(tmp_path / "copy" / "out")
    for record in records:  # the images of the copy
        record.row["path"] = record.row["path"].replace(str(root), str(tmp_path / "copy"))
    review = Review(tmp_path / "copy" / "out", records, params)
    state = Reviewing(review)
    _, labels = state.load(0)
    labels = labels.copy()
    labels[labels == labels[40, 40]] = 0  # deleted
    labels[40:52, 125] = 0  # changed: cut in part
    labels[70:80, 5:9] = 99  # not there
    labels[210:222, 210:222] = 77
    state.save(labels)
    assert "2 added, 1 changed, 1 deleted" in state.said
    again = Record.read(tmp_path / "copy" / "out" / RECORDS / "a" / "1.png.json")
    assert again.reviewed
    origins = again.particles["origin"]
    assert [origins.count(name) for name in (ADDED, CHANGED, DELETED)] == [2, 1, 1]
    assert again.row["n_particles"] == 9
    out = tmp_path / "copy" / "out"
    arguments = ("images", "in", "-r", "-o", "out", "--progress", "none", cwd := tmp_path / "copy")
    tomoseg(*arguments[:-1], cwd=cwd)  # without a pixel size: other parameters, but corrected by hand
    assert Record.read(out / RECORDS / "a" / "1.png.json").reviewed
    tomoseg(*arguments[:-1], "--force", cwd=cwd)
    assert not Record.read(out / RECORDS / "a" / "1.png.json").reviewed


def test_parts_and_origins():
    before = np.zeros((10, 10), np.int32)
    before[1:4, 1:4], before[6:9, 6:9] = 1, 2
    painted = before.copy()
    painted[1:4, 6:9] = 1  # the same label elsewhere: another particle
    labels = whole_parts(painted)
    assert labels.max() == 3
    assert sorted(origins_of(labels, before, {})) == sorted([ADDED, "found", "found"])


def test_records_of_strangers_are_none(tmp_path):
    path = tmp_path / "r.json"
    for text in ("", "[]", '{"name": 1, "surprise": 2}', json.dumps([1] * 3)):
        path.write_text(text)
        assert Record.read(path) is None
