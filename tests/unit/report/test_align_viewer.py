"""The aligned tilts in napari, moved by hand; seen by a stand-in for napari, and by napari itself where it is there."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from tests.conftest import tomoseg
from tests.unit.report.test_report_page import everything
from tomoseg.alignment.images.warp import rotate_vectors
from tomoseg.arrays import MemoryInput
from tomoseg.cli.view import with_shifts_set
from tomoseg.errors import NotReady
from tomoseg.io.set_shifts import parse_shifts
from tomoseg.report.align_viewer import Nudged, Nudges, open_align_viewer
from tomoseg.report.results import Results

INSTALLED = importlib.util.find_spec("napari") is not None


class Layers(list):
    def __init__(self):
        super().__init__()
        self.selection = SimpleNamespace(active=None)


class Viewer:
    """As documented at napari.org/stable/api/napari.Viewer.html, as far as it is used."""

    opened: ClassVar[list] = []

    def __init__(self, *, title="napari"):
        self.title, self.layers, self.keys, self.heard = title, Layers(), {}, []
        events = SimpleNamespace(current_step=SimpleNamespace(connect=self.heard.append))
        self.dims = SimpleNamespace(axis_labels=(), current_step=(0, 0, 0), events=events, set_current_step=self._show)
        self.scale_bar = SimpleNamespace(visible=False, unit=None)
        self.text_overlay = SimpleNamespace(visible=False, text="", position="")
        Viewer.opened.append(self)

    def _show(self, axis, step):
        assert axis == 0
        self.dims.current_step = (step, 0, 0)
        for callback in self.heard:
            callback(None)

    def bind_key(self, key, function, *, overwrite):
        assert overwrite
        assert key not in self.keys
        self.keys[key] = function

    def press(self, *keys):
        for key in keys:
            self.keys[key](self)

    def reset_view(self):
        pass

    def add_image(self, data, *, name, scale, colormap, blending, contrast_limits, multiscale):
        return self._add(data, vars())

    def add_points(self, data, *, name, size, scale, features, face_color, border_color):
        return self._add(data, vars())

    def add_vectors(self, data, *, name, scale, edge_color, edge_width):
        return self._add(data, vars())

    def _add(self, data, given):
        given = {key: value for key, value in given.items() if key not in ("self", "data")}
        layer = SimpleNamespace(data=data, axis_labels=(), units=None, refreshed=0, **given)
        layer.refresh = lambda: setattr(layer, "refreshed", layer.refreshed + 1)
        self.layers.append(layer)
        return layer


@pytest.fixture
def stand_in(monkeypatch):
    """Put a stand-in in napari's place."""
    module = ModuleType("napari")
    module.Viewer, module.run = Viewer, lambda: None
    monkeypatch.setitem(sys.modules, "napari", module)
    monkeypatch.setattr(Viewer, "opened", [])


def opened(artifacts=None):
    """Open the view; return the results, what is moved, and the window."""
    results = Results(artifacts or everything(), (), "sample")
    return results, open_align_viewer(results), Viewer.opened[-1]


def test_keys_move_the_image_that_is_shown(stand_in):
    results, nudges, viewer = opened()
    tilt = int(np.argmin(np.abs(results.angles_deg)))
    assert viewer.dims.current_step[0] == tilt  # the lowest tilt comes first
    viewer.press("Shift-Right", "Shift-Right", "Control-Shift-Up", "Shift-Down")
    assert nudges.moves_px[tilt].tolist() == [0.9, 2.0]
    assert not np.delete(nudges.moves_px, tilt, axis=0).any()
    assert "moved by +0.9, +2.0 px (down, right); not saved" in viewer.text_overlay.text
    viewer.dims.set_current_step(0, tilt + 1)
    assert "where the alignment put it" in viewer.text_overlay.text
    viewer.press("Shift-Up")
    viewer.dims.set_current_step(0, tilt)
    viewer.press("Shift-U")
    assert np.flatnonzero(nudges.moves_px.any(axis=1)).tolist() == [tilt + 1]


def test_the_image_and_its_neighbour_are_shown_as_they_are_moved(stand_in):
    results, _, viewer = opened()
    series = np.asarray(results.artifacts["aligned"][:])
    following, shown = viewer.layers[:2]
    assert (following.name, shown.name) == ("next tilt", "tilt")
    assert np.array_equal(shown.data[2], series[2])
    assert np.array_equal(following.data[2], series[3])
    assert np.array_equal(following.data[len(series) - 1], series[-2])  # the last has only the one before
    viewer.dims.set_current_step(0, 2)
    viewer.press("Shift-Right", "Shift-Right", "Shift-Down")
    assert np.allclose(shown.data[2][1:, 2:], series[2][:-1, :-2], atol=1e-5)
    assert np.array_equal(shown.data[3], series[3])
    assert np.allclose(following.data[1][1:, 2:], series[2][:-1, :-2], atol=1e-5)
    assert (following.refreshed, shown.refreshed) == (3, 3)


def test_an_array_is_sliced_as_numpy_slices():
    series = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    view = Nudged(MemoryInput(series), Nudges(5))
    for key in (2, slice(1, 4), (3, slice(None), slice(2, 5)), (slice(None), 2, slice(None)), (-1, 1, 2)):
        assert np.array_equal(view[key], series[key])
    assert (view.shape, view.ndim, view.dtype) == ((5, 6, 7), 3, np.float32)


@pytest.mark.parametrize("axis_deg", [3.0, -80.0, 90.0])
def test_what_is_saved_becomes_shifts_of_the_raw_images(stand_in, axis_deg):
    artifacts = everything()
    artifacts["alignment_info"] = MemoryInput(
        attrs={**artifacts["alignment_info"].attrs, "tilt_axis_angle_deg": axis_deg}
    )
    results, nudges, viewer = opened(artifacts)
    viewer.dims.set_current_step(0, 1)
    viewer.press("Shift-Right", "Shift-S", "Shift-Right")
    viewer.dims.set_current_step(0, 3)
    viewer.press("Shift-Up")
    assert nudges.unsaved.tolist() == [1, 3]
    assert nudges.saved.tolist() == [1]
    angles, before = results.angles_deg, results.rows("shifts_px")
    other = f"{angles[4]:g}=1,2; {angles[1] + 0.2:g}=9,9"  # as set before: another image, and this one
    found = parse_shifts(with_shifts_set(results, {"align": {"set_shift": other}}, nudges)["align"]["set_shift"])
    assert found[angles[4]] == (1, 2)
    assert len(found) == 2
    changed = np.array(found[next(t for t in found if abs(t - angles[1]) < 0.5)]) - before[1]
    assert rotate_vectors(changed, axis_deg) == pytest.approx([0, 1], abs=2e-3)


def test_markers_lie_where_the_aligned_images_show_them(stand_in):
    artifacts = everything()
    n = len(artifacts["angles_deg"].array)
    places = np.full((2, n, 2), np.nan)
    places[0], places[1, 3] = (10.0, 30.0), (20.0, 15.0)
    artifacts["marker_places_px"] = MemoryInput(places)
    artifacts["marker_residuals_px"] = MemoryInput(np.where(np.isfinite(places), [0.1, -0.2], np.nan))
    rings, lines = opened(artifacts)[2].layers[2:]
    assert rings.data.shape == (n + 1, 3)
    assert lines.data.shape == (n + 1, 2, 3)
    last = rings.data[-1]
    shift, phi = artifacts["shifts_px"].array[3], np.deg2rad(3.0)
    y, x = places[1, 3] + shift - 23.5
    expected = [np.sin(phi) * x + np.cos(phi) * y + 23.5, np.cos(phi) * x - np.sin(phi) * y - 2.5 + 23.5]
    assert last.tolist() == pytest.approx([3, *expected])
    assert lines.data[-1, 1].tolist() == pytest.approx([0, 1, -2])


def test_without_an_aligned_series_there_is_nothing_to_step_through(stand_in):
    artifacts = everything()
    del artifacts["aligned"]
    with pytest.raises(NotReady, match="tomoseg align"):
        open_align_viewer(Results(artifacts, (), "t"))


@pytest.mark.skipif(not INSTALLED, reason="napari is not installed")
def test_napari_itself_takes_the_layers_and_the_keys(monkeypatch):
    from napari.components import ViewerModel
    from napari.utils.key_bindings import coerce_keybinding

    made = []

    def new(title):
        made.append(ViewerModel(title=title))
        return made[0]

    monkeypatch.setattr("tomoseg.report.align_viewer.new_viewer", new)
    nudges = open_align_viewer(Results(everything(), (), "t"), block=False)
    made[0].keymap[coerce_keybinding("Shift-Right")](made[0])
    assert nudges.moves_px[int(made[0].dims.current_step[0])].tolist() == [0, 1]


def test_the_command_needs_an_aligned_series(project):
    done = tomoseg("view", project, "--stage", "nothing", code=2)
    assert "align" in done.stderr
