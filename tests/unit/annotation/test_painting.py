"""Slices painted one after the other in a window, by what the window would do, and by the command with a stand-in."""

import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from tomoseg import schema
from tomoseg.annotation.exchange import export_slices, read_annotations
from tomoseg.annotation.painting import Painting, folder_for
from tomoseg.cli.app import app
from tomoseg.project import Project
from tomoseg.report.review_viewer import open_painting
from tomoseg.runtime import Runtime


class Keys:
    """What keys are bound to."""

    def __init__(self):
        self.keys = {}

    def bind_key(self, key, function, *, overwrite):
        assert overwrite
        self.keys[key] = function


class Labels(Keys):
    """A layer of labels, whose keys napari has bound already: 1 to 6 choose tools, and no label."""

    def __init__(self, **values):
        self.keys = {str(k): lambda layer: setattr(layer, "mode", "paint") for k in range(1, 7)}
        self.__dict__ |= values


class Viewer(Keys):
    """As documented at napari.org/stable/api/napari.Viewer.html, as far as it is used."""

    opened: ClassVar[list] = []

    def __init__(self, *, title="napari"):
        super().__init__()
        self.text_overlay = SimpleNamespace(visible=False, text="", position="")
        Viewer.opened.append(self)

    def press(self, key):
        """Press a key: those of the layer come before those of the window, as seen in napari 0.9."""
        bound = self.labels if key in self.labels.keys else self
        bound.keys[key](bound)

    def reset_view(self):
        pass

    def add_image(self, data, *, name, colormap):
        self.image = SimpleNamespace(data=data, name=name, colormap=colormap, contrast_limits=None)
        return self.image

    def add_labels(self, data, *, name, opacity):
        self.labels = Labels(data=data, name=name, opacity=opacity, selected_label=0, mode="pan_zoom")
        return self.labels

    def paint(self, key, where):
        """Paint with the class of a key."""
        self.press(key)
        assert self.labels.mode == "paint"
        painted = self.labels.data.copy()
        painted[where] = self.labels.selected_label
        self.labels.data = painted


@pytest.fixture
def painter(monkeypatch):
    """Put a stand-in in napari's place; what is appended to the list is done when the window is shown."""
    acts = []
    colors, utils, module = ModuleType("napari.utils.colormaps"), ModuleType("napari.utils"), ModuleType("napari")
    colors.DirectLabelColormap = lambda *, color_dict: color_dict
    module.Viewer, module.run = Viewer, lambda: [act(Viewer.opened[-1]) for act in acts]
    for name, one in (("napari", module), ("napari.utils", utils), ("napari.utils.colormaps", colors)):
        monkeypatch.setitem(sys.modules, name, one)
    monkeypatch.setattr(Viewer, "opened", [])
    return acts


@pytest.fixture
def folder(project, tmp_path):
    with Project.read(project) as opened:
        export_slices(opened, tmp_path / "p", Runtime(), n_slices=2, class_names=["vacuum", "oxide", "metal"])
    return tmp_path / "p"


def test_labels_are_shifted_for_the_window_and_back(folder):
    painting = Painting(folder)
    image, labels = painting.load(0)
    assert image.shape == labels.shape
    assert not labels.any()  # nobody painted
    assert not painting.any_painted()
    labels[3, 4:9], labels[5, 5], labels[6, 6] = 1, 3, 77
    assert painting.save(0, labels).endswith("% painted")
    again = painting.load(0)[1]
    assert again[3, 4] == 1
    assert again[5, 5] == 3
    assert again[6, 6] == 0  # no class
    assert painting.any_painted()
    assert np.count_nonzero(again) == 6


def test_the_folder_says_how_to_paint(folder):
    text = (folder / "README.txt").read_text()
    assert "  1  oxide" in text
    assert "  255  not painted" in text
    assert "Fiji" in text
    assert "ilastik" in text


def test_keys_choose_classes_and_walk(folder, painter):
    painting = Painting(folder)
    painter += [
        lambda v: v.paint("2", np.s_[2, 2:6]),
        lambda v: v.press("Shift-Right"),
        lambda v: v.paint("3", np.s_[4, 4]),
    ]
    open_painting(painting, painting.class_names, painting.class_colors)
    viewer = Viewer.opened[-1]
    assert "1: vacuum, 2: oxide, 3: metal; 0: not painted" in viewer.text_overlay.text
    assert painting.names[1] in viewer.text_overlay.text
    assert viewer.labels.colormap[0].tolist() == [0, 0, 0, 0]
    assert viewer.labels.colormap[2].max() <= 1
    assert np.count_nonzero(Painting(folder).load(0)[1] == 2) == 4
    assert np.count_nonzero(Painting(folder).load(1)[1] == 3) == 1


def test_the_command_begins_with_the_labels_and_imports_what_was_changed(project, painter):
    painter.append(lambda v: v.paint("3", np.s_[10:14, 10:14]))
    done = CliRunner().invoke(app, ["annotate", "paint", str(project), "--slices", "2", "--progress", "none"])
    assert done.exit_code == 0, done.output
    with Project.read(project) as opened:
        held = read_annotations(opened)
    assert len(held.numbers) == 1  # the other was not changed
    with h5py.File(project) as file:
        before = file[schema.LABELS.path][:, held.numbers[0]]
    assert (held.labels[0][10:14, 10:14] == 2).all()
    assert np.array_equal(held.labels[0][20:], before[20:])
    assert not folder_for(project).exists()


def test_a_window_closed_without_painting_changes_nothing(project, painter):
    content = project.read_bytes()
    done = CliRunner().invoke(app, ["annotate", "paint", str(project), "--progress", "none"])
    assert done.exit_code == 0, done.output
    assert "nothing was painted" in done.output
    assert project.read_bytes() == content
    assert not folder_for(project).exists()


def test_a_painting_that_was_cut_short_goes_on(project, painter):
    def cut(viewer):
        viewer.paint("2", np.s_[1, 1:4])
        viewer.press("Shift-S")
        raise RuntimeError("the window crashed")

    painter.append(cut)
    arguments = ["annotate", "paint", str(project), "--slices", "2", "--progress", "none"]
    assert CliRunner().invoke(app, arguments).exit_code != 0
    assert folder_for(project).exists()
    painter.clear()
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    with Project.read(project) as opened:
        assert (read_annotations(opened).labels[0][1, 1:4] == 1).all()


def test_without_napari_nothing_is_written(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    done = CliRunner().invoke(app, ["annotate", "paint", str(project)])
    assert done.exit_code != 0
    assert not folder_for(project).exists()
