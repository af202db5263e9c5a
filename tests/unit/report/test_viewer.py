"""The project in napari, seen by a stand-in that records what it is asked for."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tests.conftest import tomoseg
from tests.unit.report.test_report_page import everything
from tomoseg.arrays import MemoryInput
from tomoseg.errors import InputError, NotReady
from tomoseg.report import viewer
from tomoseg.report.results import Results

try:
    import napari  # noqa: F401 - whether it is there
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True


class Counting(MemoryInput):
    """An artifact that counts the elements read."""

    read = 0

    def __getitem__(self, key):
        part = self.array[key]
        self.read += np.size(part)
        return part


class Blocks:
    """What is left of a dask array: where it comes from and in which blocks it is read."""

    def __init__(self, source, chunks, name, asarray):
        assert (name, asarray) == (False, False)
        self.source, self.chunks = source, chunks
        self.shape, self.dtype, self.ndim = source.shape, source.dtype, source.ndim

    def __getitem__(self, key):
        return self.source[key]


class Viewer:
    """As documented at napari.org/stable/api/napari.Viewer.html, as far as it is used."""

    def __init__(self, *, title="napari"):
        self.title, self.layers = title, []
        self.dims, self.scale_bar = SimpleNamespace(axis_labels=()), SimpleNamespace(visible=False, unit=None)

    def reset_view(self):
        self.resets = getattr(self, "resets", 0) + 1

    def add_image(self, data, *, name, scale, colormap, contrast_limits):
        return self._add("image", data, vars(), units=None)

    def add_labels(self, data, *, name, scale, opacity, colormap):
        return self._add("labels", data, vars(), units=None)

    def add_points(self, data, *, name, size, scale, features, face_color, border_color):
        return self._add("points", data, vars(), units=None, out_of_slice_display=False)

    def _add(self, kind, data, given, **more):
        given = {key: value for key, value in given.items() if key not in ("self", "data")}
        self.layers.append(SimpleNamespace(kind=kind, data=data, axis_labels=(), **given, **more))
        return self.layers[-1]


@pytest.fixture
def stand_in(monkeypatch):
    """Put stand-ins for napari and dask in their places; returns the list of times that napari was run."""
    runs = []
    modules = {name: ModuleType(name) for name in ("napari", "napari.utils", "napari.utils.colormaps", "dask")}
    modules["napari"].Viewer, modules["napari"].run = Viewer, lambda: runs.append("run")
    modules["napari.utils.colormaps"].DirectLabelColormap = lambda color_dict: color_dict
    modules["dask"].array = SimpleNamespace(from_array=Blocks)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return runs


def test_volume_labels_and_particles_to_scale(stand_in):
    artifacts = everything()
    rows = artifacts["particle_table"].array
    table = np.zeros(len(rows), [*rows.dtype.descr, *((f"{axis}_px", "f8") for axis in "zyx")])
    for name in rows.dtype.names:
        table[name] = rows[name]
    table["z_px"], table["y_px"], table["x_px"] = 10, 20, 30
    artifacts["particle_table"] = MemoryInput(table)
    shown = viewer.open_viewer(Results(artifacts, (), "sample"))
    volume, labels, points = shown.layers
    assert (volume.kind, labels.kind, points.kind) == ("image", "labels", "points")
    assert all(layer.scale == (0.5, 0.5, 0.5) for layer in shown.layers)
    assert all(layer.units == ("nm",) * 3 and layer.axis_labels == ("z", "y", "x") for layer in shown.layers)
    assert shown.dims.axis_labels == ("z", "y", "x")
    assert shown.scale_bar.visible
    assert shown.resets == 1  # once the units are known
    assert np.array_equal(volume.data[3], artifacts["volume"].array[3])
    assert volume.contrast_limits[0] < volume.contrast_limits[1]
    assert labels.colormap[0].tolist() == [0, 0, 0, 0]
    assert labels.colormap[1] == pytest.approx([0, 0x72 / 255, 0xB2 / 255, 1])
    assert labels.colormap[2] == pytest.approx([0xE6 / 255, 0x9F / 255, 0, 1])
    assert points.data.tolist() == [[10, 20, 30]] * len(rows)
    assert points.size.tolist() == table["diameter_px"].tolist()
    assert points.features["id"] == table["id"].tolist()
    assert points.out_of_slice_display is True
    assert stand_in == ["run"]


def test_little_is_read_before_it_is_looked_at(stand_in):
    artifacts = everything(n_particles=2)
    for name in ("volume", "labels"):
        artifacts[name] = Counting(np.tile(artifacts[name].array, (2, 2, 2)), artifacts[name].attrs)
    volume = viewer.open_viewer(Results(artifacts, (), "sample")).layers[0]
    assert artifacts["labels"].read == 0
    assert artifacts["volume"].read == 3 * 96 * 96  # three slices, for the grey levels
    assert volume.data.chunks == (64, 64, 64)


def test_an_unknown_voxel_size_is_a_voxel(stand_in):
    volume = MemoryInput(np.random.default_rng(0).random((9, 8, 7)).astype(np.float32))
    shown = viewer.open_viewer(Results({"volume": volume}, (), "t"), block=False)
    assert shown.layers[0].scale == (1.0, 1.0, 1.0)
    assert shown.layers[0].units == ("pixel",) * 3
    assert stand_in == []


def test_before_there_is_a_volume_the_tilts_are_shown(stand_in):
    artifacts = everything()
    shown_of = {name: artifacts[name] for name in ("tilt_series", "tilt_series_info", "aligned")}
    shown = viewer.open_viewer(Results(shown_of, (), "t"))
    assert [layer.name for layer in shown.layers] == ["tilt series", "aligned"]
    assert shown.dims.axis_labels == ("tilt", "y", "x")
    assert shown.layers[1].scale == (1.0, 0.5, 0.5)
    assert shown.layers[1].units == ("pixel", "nm", "nm")
    assert shown.layers[0].data.chunks == (1, 48, 48)


def test_older_versions_know_a_unit_for_the_scale_bar_only(stand_in, monkeypatch):
    def plain(self, data, **given):
        self.layers.append(SimpleNamespace(data=data))
        return self.layers[-1]

    for name in ("add_image", "add_labels", "add_points"):
        monkeypatch.setattr(Viewer, name, plain)
    shown = viewer.open_viewer(Results(everything(), (), "t"))
    assert shown.scale_bar.unit == "nm"


def test_nothing_to_show_is_said(stand_in):
    with pytest.raises(NotReady, match="nothing to show"):
        viewer.open_viewer(Results({}, (), "t"))


@pytest.mark.skipif(INSTALLED, reason="napari is installed, and would open a window")
def test_without_napari_one_paragraph_says_what_to_do(project):
    done = tomoseg("view", project, code=2)
    assert "pip install 'tomoseg[view]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    with pytest.raises(InputError, match="napari"):
        viewer.open_viewer(Results(everything(), (), "t"))
