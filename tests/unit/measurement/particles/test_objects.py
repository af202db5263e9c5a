"""Particles of a class: what limits and memory do, and do not, change."""

import numpy as np
import pytest

from tests.unit.measurement.shapes import SHAPE, crowded, labelled
from tomoseg.measurement.api import measure_labels
from tomoseg.measurement.parameters import MeasureParameters
from tomoseg.measurement.particles.objects import Limits
from tomoseg.runtime import Runtime


def measured(labels, names=("background", "support", "Pt"), volume=None, memory=1 << 34, limits=None, **parameters):
    volume = labels.astype(np.float32) if volume is None else volume
    params = MeasureParameters(**parameters)
    return measure_labels(labels, volume, names, 0.5, params, Runtime(max_memory=memory), limits=limits or Limits())


@pytest.mark.parametrize(
    "how", [{"separate_touching": True}, {"separate_touching": False}, {"separate_by": "intensity"}]
)
def test_memory_allowed_does_not_change_a_bit(how):
    limits = Limits(large_voxels=30**3)  # larger particles, also cut out, go by blocks
    labels = crowded()
    volume = 5 * labels + np.random.default_rng(0).random(labels.shape, np.float32)
    how = {"measure_support": False} | how  # the cells of its grid follow the memory
    results = [
        measured(labels, volume=volume, memory=n, limits=limits, **how)
        # All at once, and slabs and strips as thin as they get: 20 MB is what the cluster of balls needs to be cut.
        for n in (1 << 34, 100 << 20, 20 << 20)
    ]
    assert results[0].summary["n_objects_cut"] > 0 or not how.get("separate_touching", True)
    for other in results[1:]:
        np.testing.assert_equal(other.summary, results[0].summary)  # where NaN is NaN
        for name, table in results[0].tables.items():
            assert other.tables[name].tobytes() == table.tobytes()


def test_surfaces_that_do_not_fit_in_the_memory_are_made_anew():
    labels = labelled()
    z, y, x = np.indices(SHAPE)
    labels[(z - 36) ** 2 + (y - 12) ** 2 + (x - 22) ** 2 <= 36] = 2
    labels[(z - 36) ** 2 + (y - 22) ** 2 + (x - 22) ** 2 <= 36] = 2  # touches the one before
    tables = [measured(labels, limits=limits).tables["particle_table"] for limits in (Limits(), Limits(surfaces=0))]
    assert len(tables[0]) == 8
    assert tables[0].tobytes() == tables[1].tobytes()


def test_body_that_is_no_cluster_is_not_cut_and_it_is_said():
    z, y, x = np.indices((30, 30, 50))
    labels = np.zeros((30, 30, 50), np.uint8)
    for cx in (15, 31):  # would be cut otherwise
        labels[(z - 15) ** 2 + (y - 15) ** 2 + (x - cx) ** 2 <= 100] = 1
    found = measured(labels, ["background", "Pt"], limits=Limits(cut_voxels=1000))
    assert found.tables["particle_table"]["voxels"].tolist() == [np.count_nonzero(labels)]
    assert any("1 objects of more than 1.5% of the volume were not cut" in text for text in found.warnings)
