"""Worlds as they are seen, on disk, and as slices to train on."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.slices import LabelledSlices
from tomoseg.runtime import Runtime
from tomoseg.segmentation.training.parameters import preset
from tomoseg.segmentation.training.training_set import TrainingSet
from tomoseg.worlds import read_world, world, write_worlds
from tomoseg.worlds.library import world_path
from tomoseg.worlds.slices import REAL, labelled_slices, with_real, world_of

SHAPE = (48, 12, 48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    write_worlds(folder, range(1, 4), SHAPE, Runtime(workers=2))
    return folder


def test_a_seed_is_a_world(folder):
    one = world(1, SHAPE)
    volume, labels, particles, described = read_world(world_path(folder, 1))
    assert np.array_equal(one.volume.astype(np.float16), volume)
    assert np.array_equal(one.labels, labels)
    assert np.array_equal(one.particles, particles)
    assert described["view"]["dose"] == one.view.dose
    assert volume.shape == labels.shape == SHAPE


def test_a_volume_is_on_the_scale_of_the_truth(folder):
    volume, labels, _, _ = read_world(world_path(folder, 3))
    assert [np.median(volume[labels == k]) for k in (0, 1)] == pytest.approx([0, 1], abs=2e-3)


def test_real_slices_join_on_the_same_scale_at_two_sizes(folder):
    worlds = labelled_slices(sorted(folder.iterdir()), 3, 4)
    labels = np.zeros((64, 64), np.uint8)
    labels[16:48, 16:48], labels[20:28, 20:28], labels[:4] = 1, 2, 255
    image = np.stack([np.array([20, 80, 230] + [0] * 253)[labels]] * 3, axis=-1).astype(np.uint8)
    both = with_real(worlds, LabelledSlices(["s_1"], [image], [labels], ["vacuum", "oxide", "metal"]))
    assert both.names[: len(worlds.names)] == worlds.names
    whole, half = both.images[-2:]
    assert whole.shape == (64, 64, 3)
    assert half.shape == (32, 32, 3)
    assert [np.median(whole[labels == k]) for k in range(3)] == pytest.approx([0, 1, 3.5], abs=2e-3)
    assert np.array_equal(both.labels[-1], labels[::2, ::2])
    assert world_of(both.names[-1]) == REAL != world_of(both.names[0])


def test_real_slices_without_support_are_refused(folder):
    worlds = labelled_slices(sorted(folder.iterdir())[:1], 1, 6)
    flat = LabelledSlices(["s_1"], [np.full((32, 32), 9, np.uint8)], [np.zeros((32, 32), np.uint8)], ["a", "b", "c"])
    with pytest.raises(InputError, match="do not tell the levels"):
        with_real(worlds, flat)


def test_what_is_there_is_not_made_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    write_worlds(folder, range(1, 3), SHAPE, Runtime(workers=1))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "world-000001.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no simulated world"):
        read_world(path)


def test_slices_have_their_neighbours_and_stay_together(folder):
    paths = sorted(folder.iterdir())
    slices = labelled_slices(paths, 3, 2)
    volume, labels, _, _ = read_world(paths[0])
    assert slices.names[:2] == ["world-000001-y0001", "world-000001-y0003"]
    assert np.array_equal(slices.images[0], np.moveaxis(volume[:, 0:3], 1, -1))
    assert np.array_equal(slices.labels[0], labels[:, 1])
    params = preset("small", 48, channels=3, folds=3, intensity="scaled")
    data = TrainingSet.checked(slices.images, slices.labels, slices.names, None, None, params, world_of)
    held_out = {world_of(data.names[i]) for i in data.split.validation}
    assert len(held_out) == 1
    assert not held_out & {world_of(data.names[i]) for i in data.split.training}
    assert (data.scaling.trained.zero, data.scaling.trained.one) == (0.0, 1.0)
