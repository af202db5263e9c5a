"""Slices of a project out to paint on, painted labels back in."""

import json

import h5py
import numpy as np
import pytest
import tifffile

from tests.conftest import tomoseg
from tomoseg import schema
from tomoseg.annotation.exchange import (
    export_slices,
    import_slices,
    load_painted_slices,
    read_annotations,
)
from tomoseg.errors import InputError, Interrupted, NotReady
from tomoseg.project import Project, compact
from tomoseg.runtime import Runtime


def export(project, folder, **options):
    with Project.read(project) as opened:
        return export_slices(opened, folder, Runtime(), **options)


def take_in(project, folder, runtime=None, **options):
    with Project.write(project) as opened:
        return import_slices(opened, folder, runtime or Runtime(), **options)


def painted_in(project):
    with Project.read(project) as opened:
        return read_annotations(opened)


def paint(folder, value=1):
    for file in (folder / "labels").iterdir():
        labels = tifffile.imread(file)
        labels[:, :9], labels[:, 9:12] = value, (value + 1) % 3
        tifffile.imwrite(file, labels)


def array(project, artifact):
    with h5py.File(project) as file:
        return file[artifact.path][:]


@pytest.mark.parametrize(("plane", "cut"), [("xz", np.s_[:, 7]), ("xy", np.s_[7]), ("yz", np.s_[:, :, 7])])
def test_images_and_prefilled_labels_are_slices_of_the_volume(project, tmp_path, plane, cut):
    written = export(project, tmp_path / "p", plane=plane, n_slices=64, prefill=True)  # all there are
    assert written.numbers == list(range(3, 61))  # but those where the volume ends
    volume, labels = array(project, schema.VOLUME), array(project, schema.LABELS)
    about = json.loads((tmp_path / "p" / "annotation.json").read_text())
    image = tifffile.imread(tmp_path / "p" / "images" / f"{plane}_0007.tif")
    values = about["scaling"]["offset"] + about["scaling"]["step"] * image
    np.testing.assert_allclose(values, volume[cut], atol=0.51 * about["scaling"]["step"])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p" / "labels" / f"{plane}_0007.tif"), labels[cut])


def test_what_is_taken_in_is_what_was_painted(project, tmp_path):
    written = export(project, tmp_path / "p", n_slices=3)
    paint(tmp_path / "p")
    take_in(project, tmp_path / "p")
    held = painted_in(project)
    volume = array(project, schema.VOLUME)
    assert held.numbers == written.numbers
    for number, image, labels in zip(held.numbers, held.images, held.labels, strict=True):
        np.testing.assert_allclose(image, volume[:, number], atol=1e-4 * np.ptp(volume))
        assert (labels[:, :9] == 1).all()
        assert (labels[:, 9:12] == 2).all()
        assert (labels[:, 12:] == 255).all()
    assert held.class_names == ["background", "support", "particles"]
    assert held.pixel_size_nm == pytest.approx(0.25)
    with Project.read(project) as opened:
        record = opened.history()[-1]
        reconstruct = opened.record("reconstruct")
    assert (record.stage, record.outcome, len(record.files)) == ("annotate", "done", 3)
    assert held.run_ids == [reconstruct.run_id] * 3


def test_nothing_else_becomes_stale_and_a_compacted_project_keeps_it(project, tmp_path):
    export(project, tmp_path / "p", n_slices=2)
    paint(tmp_path / "p")
    take_in(project, tmp_path / "p")
    compact(project, lambda: None, str, break_lock=False)
    assert len(painted_in(project).numbers) == 2
    assert json.loads(tomoseg("status", project, "--json").stdout)["fresh"]
    assert "annotate" in tomoseg("history", project).stdout


def test_a_volume_made_anew_leaves_the_paintings_as_they_were(project, tmp_path):
    export(project, tmp_path / "p", n_slices=2)
    paint(tmp_path / "p")
    take_in(project, tmp_path / "p")
    before = painted_in(project)
    tomoseg("reconstruct", project, "--method", "fbp", "--progress", "none")
    after = painted_in(project)
    np.testing.assert_array_equal(after.images, before.images)
    np.testing.assert_array_equal(after.labels, before.labels)


def test_more_slices_join_and_are_others(project, tmp_path):
    first = export(project, tmp_path / "a", n_slices=3)
    paint(tmp_path / "a")
    take_in(project, tmp_path / "a")
    second = export(project, tmp_path / "b", n_slices=3)
    assert not set(first.numbers) & set(second.numbers)
    paint(tmp_path / "b", value=0)
    assert take_in(project, tmp_path / "b").numbers == sorted(first.numbers + second.numbers)
    assert take_in(project, tmp_path / "b", replace=True).numbers == second.numbers
    assert painted_in(project).numbers == second.numbers


def test_an_interrupted_import_leaves_what_was_there(project, tmp_path):
    class Stopped(Runtime):
        def check(self, seconds=0.0):
            raise Interrupted("stopped")

    for name in ("a", "b"):
        export(project, tmp_path / name, n_slices=2)
        paint(tmp_path / name, value=len(name))
        if name == "a":
            take_in(project, tmp_path / name)
    before = painted_in(project)
    with pytest.raises(Interrupted):
        take_in(project, tmp_path / "b", Stopped(), replace=True)
    after = painted_in(project)
    assert after.numbers == before.numbers
    np.testing.assert_array_equal(after.labels, before.labels)
    with h5py.File(project) as file:
        assert not list(file.get(schema.STAGING, ()))


def test_another_plane_or_other_classes_are_told_before_anybody_paints(project, tmp_path):
    export(project, tmp_path / "a", n_slices=1, class_names=["vacuum", "oxide", "metal"])
    paint(tmp_path / "a")
    take_in(project, tmp_path / "a")
    runtime = Runtime()
    with Project.read(project) as opened:
        again = export_slices(opened, tmp_path / "b", runtime, n_slices=1)
        assert again.class_names == ["vacuum", "oxide", "metal"]
        assert not runtime.warnings
        export_slices(opened, tmp_path / "c", runtime, n_slices=1, plane="xy")
    assert "painted xz slices of vacuum, oxide, metal" in runtime.warnings[0]
    paint(tmp_path / "c")
    with pytest.raises(InputError, match="--replace"):
        take_in(project, tmp_path / "c")
    assert take_in(project, tmp_path / "c", replace=True).plane == "xy"


def test_when_every_slice_is_painted(project, tmp_path):
    export(project, tmp_path / "a", n_slices=64)
    paint(tmp_path / "a")
    take_in(project, tmp_path / "a")
    with pytest.raises(InputError, match=r"every xz slice of .* is painted already"):
        export(project, tmp_path / "b")
    with pytest.raises(InputError, match="not empty"):  # said before the volume is read
        export(project, tmp_path / "a")


def test_slices_of_another_series_are_refused(project, tmp_path):
    export(project, tmp_path / "p", n_slices=1)
    paint(tmp_path / "p")
    about = json.loads((tmp_path / "p" / "annotation.json").read_text())
    (tmp_path / "p" / "annotation.json").write_text(json.dumps(about | {"series_sha256": "0" * 64}))
    with pytest.raises(InputError, match="another tilt series"):
        take_in(project, tmp_path / "p")


def test_what_is_missing_is_said(project, tmp_path):
    with h5py.File(project, "r+") as file:
        del file[schema.SEGMENTATION_INFO.path]
    with pytest.raises(NotReady, match="no labels of its current volume"):
        export(project, tmp_path / "p", prefill=True)
    with h5py.File(project, "r+") as file:
        del file[schema.RECONSTRUCTION_INFO.path]
    with pytest.raises(NotReady, match="no volume yet"):
        export(project, tmp_path / "p")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda g: g.attrs.pop("plane"),
        lambda g: g.attrs.update({"class_names": 3}),
        lambda g: (g.pop("labels"), g.create_dataset("labels", data=np.zeros((1, 2, 3), np.uint8))),
        lambda g: (g.pop("slices"), g.create_dataset("slices", data=np.zeros(2))),
    ],
)
def test_annotations_that_something_else_wrote(project, tmp_path, spoil):
    export(project, tmp_path / "p", n_slices=2)
    paint(tmp_path / "p")
    take_in(project, tmp_path / "p")
    with h5py.File(project, "r+") as file:
        spoil(file[schema.ANNOTATION_INFO.path])
    with Project.read(project) as opened, pytest.raises(InputError, match="are damaged: import them again"):
        read_annotations(opened)


def test_a_single_class_is_nothing_to_train_on(project, tmp_path):
    export(project, tmp_path / "p", n_slices=2)
    for file in (tmp_path / "p" / "labels").iterdir():
        tifffile.imwrite(file, np.zeros_like(tifffile.imread(file)))
    with pytest.raises(InputError, match="hold 1 class"):
        take_in(project, tmp_path / "p")
    assert painted_in(project) is None


def test_the_commands(project, tmp_path):
    folder, model = tmp_path / "p", tmp_path / "m.keras"
    assert "holds no painted slices" in tomoseg("train", project, "-o", model, code=3).stderr
    said = tomoseg("annotate", "export", project, "-o", folder, "--slices", 2, "--progress", "none").stdout
    assert "0 = background, 1 = support, 2 = particles" in said
    assert "nothing is painted" in tomoseg("annotate", "import", project, folder, code=2).stderr
    paint(folder)
    assert "% painted" in tomoseg("annotate", "import", project, folder, "--progress", "none").stdout
    assert "--label-map is for" in tomoseg("train", project, "-o", model, "--label-map", "0=1", code=2).stderr
    assert "is not a project file" in tomoseg("train", folder, "-o", model, code=2).stderr


@pytest.mark.parametrize("plane", ["xz", "yz"])
def test_neighbours_of_painted_slices_come_from_the_volume(project, tmp_path, plane):
    export(project, tmp_path / "p", plane=plane, n_slices=64)
    for name in ("0003", "0030", "0060"):
        path = tmp_path / "p" / "labels" / f"{plane}_{name}.tif"
        labels = tifffile.imread(path)
        labels[:5], labels[5:8] = 1, 0
        tifffile.imwrite(path, labels)
    take_in(project, tmp_path / "p")
    held = painted_in(project)
    volume = np.moveaxis(array(project, schema.VOLUME), 1 if plane == "xz" else 2, 0)
    stacks = load_painted_slices(project, 9).images
    numbers = ([0, *range(8)], list(range(26, 35)), [*range(56, 64), 63])
    for stack, image, places in zip(stacks, held.images, numbers, strict=True):
        np.testing.assert_array_equal(stack[..., 4], image)
        beside = [0, 1, 2, 3, 5, 6, 7, 8]
        np.testing.assert_array_equal(stack[..., beside], np.moveaxis(volume[places], 0, -1)[..., beside])
    tomoseg("reconstruct", project, "--method", "fbp", "--progress", "none")
    assert len(load_painted_slices(project).images) == 3
    with pytest.raises(InputError, match=rf"slice {plane}_0003 was cut from an earlier reconstruction"):
        load_painted_slices(project, 3)
