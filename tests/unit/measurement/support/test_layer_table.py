import warnings

import numpy as np
import pytest

from tests.unit.measurement.shapes import labelled
from tomoseg.errors import TomosegWarning
from tomoseg.measurement.api import measure
from tomoseg.measurement.support.layers import layer_table
from tomoseg.runtime import Runtime

NAMES = ["vacuum", "Si", "Ge", "W"]


def needle(*ends, slope=0.0, n=60):
    """Return labels of a needle along y whose classes 1, 2, 3, 1, ... end at these places, px from the first slice."""
    z, y, x = np.indices((n, 100, n))
    inside = np.hypot(z - n / 2, x - n / 2) <= 10 + 0.1 * y
    height = y + slope * (x - n / 2)
    return np.where(inside, 1 + sum((height + 0.5 > end).astype(int) for end in ends) % 3, 0).astype(np.uint8)


def table_of(labels, resolved_px=2.0, voxel_size_nm=0.5):
    return layer_table(labels, NAMES, voxel_size_nm, resolved_px, Runtime())


def test_layers_and_their_thicknesses():
    table = table_of(needle(20, 45, 60))
    assert table["name"].tolist() == ["Si", "Ge", "W", "Si"]
    assert table["thickness_px"].tolist() == pytest.approx([20, 25, 15, 40])
    assert table["thickness_nm"].tolist() == pytest.approx([10, 12.5, 7.5, 20])
    assert table["from_px"].tolist() == pytest.approx([-0.5, 19.5, 44.5, 59.5])
    assert table["touches_border"].tolist() == [True, False, False, True]
    assert table["purity"].tolist() == pytest.approx([1] * 4)


def test_borders_between_slices_and_tilted_layers():
    """Half of the cross-section lies beyond a tilted border where its middle is: within a tenth of a pixel."""
    table = table_of(needle(30.3, 61.6, slope=0.2))
    assert table["thickness_px"][1] == pytest.approx(31.3, abs=0.15)
    assert table["purity"].min() > 0.9


@pytest.mark.parametrize(
    "labels",
    [
        needle(200),  # of one class
        labelled(),  # a plate with particles
        np.where(np.random.default_rng(0).random((20, 60, 20)) < 0.4, 1, 2).astype(np.uint8),  # a mixture
        np.zeros((8, 8, 8), np.uint8),
        needle(50, 51),  # the middle one is thinner than the resolution
    ],
)
def test_other_samples_have_no_layers(labels):
    assert len(table_of(labels)) == 0


def test_memory_changes_nothing():
    labels = needle(20, 45, 60)
    little = layer_table(labels, NAMES, 0.5, 2.0, Runtime(max_memory=1 << 16))
    assert little.tobytes() == table_of(labels).tobytes()


def test_measure_has_them():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TomosegWarning)  # the layer of the last class is no particle
        found = measure(needle(20, 45), needle(20, 45).astype(float), class_names=NAMES, voxel_size_nm=2.0)
    assert found.layers["thickness_nm"].round(1).tolist() == [40, 50, 110]
    assert any("3 layers along the tilt axis: Si 40 nm, Ge 50 nm, W 110 nm" in note for note in found.notes)
