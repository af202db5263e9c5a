"""The rooms on a cluster: all that is sent can be, and results are the same to the bit, however slabs are dealt out.

The cluster here is this process, through `pickle` as on the way to a worker; real ones are in `test_pool` and in
`tests/pipeline/test_cluster.py`.
"""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import Interrupted, StageFailed
from tomoseg.reconstruction.api import reconstruct_series
from tomoseg.reconstruction.parameters import ReconstructParameters
from tomoseg.runtime import Runtime
from tomoseg.segmentation.api import segment_volume
from tomoseg.segmentation.parameters import SegmentParameters
from tomoseg.segmentation.training import several
from tomoseg.segmentation.training.parameters import preset
from tomoseg.segmentation.training.several import Training, train_each

MODEL = Path(several.__file__).parents[2] / "models" / "gamma-alumina-pt.keras"


class HereAsFarAway:
    """A cluster of two workers of one thread in this process."""

    def __init__(self, memory=1 << 30):
        self.memory, self.names = memory, []

    def n_workers(self, _runtime):
        return 2

    def each(self, function, shared, items, runtime):
        held = pickle.loads(pickle.dumps(shared))
        for name, item in items:
            self.names.append(name)
            far = Runtime(device=runtime.device, workers=1, max_memory=self.memory)
            sent, called = pickle.loads(pickle.dumps((item, function)))
            result = pickle.loads(pickle.dumps(called(held, sent, far)))
            for note in far.notes:
                runtime.say(note)
            yield result

    def everywhere(self, function, argument, runtime):
        return [function(pickle.loads(pickle.dumps(argument)), Runtime(device=runtime.device)) for _ in range(2)]


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(0)
    angles = np.linspace(-60, 60, 25)
    x = np.arange(40) - 19.5
    chord = 2 * np.sqrt(np.clip(9**2 - (x - 4 * np.sin(np.deg2rad(angles))[:, None]) ** 2, 0, None))
    data = np.repeat(chord[:, None], 70, axis=1) * (1 + 0.3 * np.sin(np.arange(70) / 7))[:, None]
    return rng.poisson(20 * data).astype(np.float32) / 20, angles


def reconstructed(series, runtime, outputs=None, **options):
    data, angles = series
    outputs = outputs or MemoryOutputs()
    params = ReconstructParameters.of("reconstruct", options)
    common = {"outliers": None, "pixel_size_nm": 0.5, "params": params, "outputs": outputs}
    return reconstruct_series(MemoryInput(data), angles, runtime=runtime, **common)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "sirt", "iterations": 12, "support": "cylinder"},
        {"method": "fbp", "binning": 2},
        {"method": "tv", "iterations": 10, "y_range": (3, 60)},
        {"method": "mlem", "iterations": 10, "backend": "astra"},
    ],
    ids=["mlem", "sirt", "fbp", "tv", "astra"],
)
def test_a_reconstruction_is_the_same(series, options):
    cluster = HereAsFarAway()
    here = reconstructed(series, Runtime(device="cpu", workers=2), **options)
    there = reconstructed(series, Runtime(device="cpu", workers=2, cluster=cluster), **options)
    assert np.array_equal(here.volume, there.volume)
    assert np.array_equal(here.residuals, there.residuals)
    assert here.iterations == there.iterations
    assert here.resolution.shells.tobytes() == there.resolution.shells.tobytes()
    assert len([name for name in cluster.names if name.startswith("slices")]) > 1


def test_a_reconstruction_that_was_stopped_goes_on_elsewhere(series):
    options = {"iterations": 6}
    whole = reconstructed(series, Runtime(device="cpu"), **options)

    class StopsAfterTwo(HereAsFarAway):
        def each(self, function, shared, items, runtime):
            for k, result in enumerate(super().each(function, shared, items, runtime)):
                if k == 2 and self.names[-1].startswith("slices"):
                    raise Interrupted("stopped here")
                yield result

    first = MemoryOutputs()
    with pytest.raises(Interrupted):
        reconstructed(series, Runtime(device="cpu", cluster=StopsAfterTwo()), first, **options)
    assert 0 < first.state["slices"] < 70
    again = MemoryOutputs(first.state, first.arrays)
    assert np.array_equal(reconstructed(series, Runtime(device="cpu"), again, **options).volume, whole.volume)


def test_values_that_overflow_are_told_with_their_slices(series):
    data, angles = series
    with pytest.raises(StageFailed, match=r"in slices 0 to \d+, whose pixels reach"):
        reconstructed((data * np.float32(1e30), angles), Runtime(device="cpu", cluster=HereAsFarAway()), iterations=3)


@pytest.mark.slow
def test_labels_are_the_same():
    rng = np.random.default_rng(1)
    radius = np.linalg.norm(np.indices((12, 32, 20)) - np.array([6, 16, 10])[:, None, None, None], axis=0)
    volume = MemoryInput(np.float32([0, 75, 300])[np.digitize(-radius, [-10, -3])] + rng.normal(0, 8, radius.shape))
    params = SegmentParameters.of("segment", {"model": str(MODEL), "plane": "all", "rescale": False})

    def labelled(cluster):
        outputs = MemoryOutputs()
        runtime = Runtime(device="cpu", workers=2, cluster=cluster)
        summary = segment_volume(volume, 0.12, params, runtime, outputs)
        return outputs.arrays["labels"], outputs.arrays["confidence"], summary.info

    (labels, confidence, info), far = labelled(None), labelled(HereAsFarAway())
    assert np.array_equal(labels, far[0])
    assert np.array_equal(confidence, far[1])
    assert info == far[2]
    assert labels.max() > 0


@pytest.fixture(scope="module")
def slices():
    rng = np.random.default_rng(0)
    labels = [np.kron(rng.integers(0, 2, (4, 4)), np.ones((8, 8), int)).astype(np.uint8) for _ in range(4)]
    return [(60.0 * label + rng.normal(20, 5, label.shape)).astype(np.float32) for label in labels], labels


def trained(slices, folder, cluster, epochs=3, *, resume=False):
    folder.mkdir(exist_ok=True)
    options = {"epochs": epochs, "patch": 32, "depth": 2, "base_filters": 2, "folds": 2}
    params = [preset("small", 32, **options, fold=fold) for fold in (0, 1)]
    told = []
    wanted = [Training(folder / f"net{k}.keras", one, "", told.append) for k, one in enumerate(params)]
    runtime = Runtime(device="cpu", workers=1, cluster=cluster)
    results = list(train_each(*slices, wanted, {}, runtime, resume=resume, overwrite=False))
    return results, told


def scores(results):
    return [[{k: v for k, v in row.items() if k != "seconds"} for row in one.history] for one in results]


@pytest.mark.slow
def test_networks_are_trained_in_pieces_as_in_one_go(slices, tmp_path, monkeypatch):
    monkeypatch.setattr(several, "PIECE_S", 0.0)  # each epoch is a piece
    cluster = HereAsFarAway()
    here, _ = trained(slices, tmp_path / "here", None)
    there, told = trained(slices, tmp_path / "there", cluster)
    assert cluster.names == ["the training of net0.keras", "the training of net1.keras"] * 3
    assert scores(here) == scores(there)
    assert [row["epoch"] for row in told] == [1, 1, 2, 2, 3, 3]
    for one in there:
        assert one.model.is_file()
        assert one.curves_png.is_file()
        assert one.checkpoint.is_dir()
        assert one.model.parent == tmp_path / "there"


@pytest.mark.slow
def test_a_training_here_goes_on_there(slices, tmp_path):
    whole, _ = trained(slices, tmp_path / "whole", None)
    trained(slices, tmp_path / "both", None, epochs=1)
    for k in (0, 1):
        (tmp_path / "both" / f"net{k}.keras").unlink()
    rest, told = trained(slices, tmp_path / "both", HereAsFarAway(), resume=True)
    assert [row["epoch"] for row in told] == [2, 3, 2, 3]
    assert scores(rest) == scores(whole)
