import numpy as np
import pytest

from tomoseg.measurement.common.class_table import ClassCounter, class_table
from tomoseg.measurement.common.surface import block_mesh, block_of
from tomoseg.runtime import slabs


@pytest.mark.parametrize("size", [1, 4, 100])
def test_layers(size):
    labels = np.zeros((18, 9, 10), np.uint8)
    labels[6:] = 1
    labels[13:] = 2
    pieces = [block_of((z, slice(0, 9), slice(0, 10)), labels.shape) for z in slabs(18, size)]
    counter = ClassCounter(4)
    for slab in pieces:
        counter.take(counter.counted(labels[slab.read], slab))
    assert counter.voxels.tolist() == [6 * 90, 7 * 90, 5 * 90, 0]
    levels = counter.levels()
    areas = [sum(block_mesh(labels[s.read] == k, levels[k], s).area_px2() for s in pieces) for k in range(4)]
    # Flat layers: exact; the layer in the middle has two sides; an absent class has none.
    assert areas == pytest.approx([90, 180, 90, 0], rel=1e-5)


def test_table_of_names_and_units():
    table = class_table(["Hintergrund", "γ-Al₂O₃"], np.array([6, 2]), np.array([5.0, 5.0]), 0.5)
    assert table["name"].tolist() == ["Hintergrund", "γ-Al₂O₃"]
    assert table["volume_fraction"].tolist() == [0.75, 0.25]
    assert table["volume_nm3"].tolist() == [0.75, 0.25]
    assert table["surface_area_nm2"].tolist() == [1.25, 1.25]
    unknown = class_table(["a"], np.array([6]), np.array([5.0]), np.nan)
    assert np.isnan(unknown["volume_nm3"][0])
    assert unknown["surface_area_px2"][0] == 5
