"""Training that starts from a trained network."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.digest import sha256
from tomoseg.segmentation.networks.card import read_card
from tomoseg.segmentation.networks.model_file import load_model
from tomoseg.segmentation.training import preset
from tomoseg.segmentation.training.api import train

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
TINY = {"epochs": 1, "patches": 4, "batch": 2, "patch": 32, "folds": 2, "learning_rate": 1e-9}


def weights_of(path):
    return load_model(path)[0].get_weights()


def begun_from(trained, output, labels=None, **changes):
    params = preset("paper", start=str(trained.path), **(TINY | changes))
    options = params.model_dump(exclude={"augmentation"})
    return train(trained.images, trained.labels if labels is None else labels, output, **options)


def test_the_weights_are_those_of_the_start(trained, tmp_path):
    done = begun_from(trained, tmp_path / "next.keras")
    before, after = weights_of(trained.path), weights_of(done.model)
    kernels = [i for i, weight in enumerate(before) if weight.ndim == 4]
    for i in kernels:
        np.testing.assert_allclose(after[i], before[i], atol=1e-6)
    card = read_card(done.model)
    assert card.training["start"] == trained.path.stem
    assert card.training["start_sha256"] == sha256(trained.path)


def test_other_classes_take_all_but_the_last_layer(trained, tmp_path):
    labels = [np.minimum(label, 1) for label in trained.labels]
    done = begun_from(trained, tmp_path / "two.keras", labels)
    before, after = weights_of(trained.path), weights_of(done.model)
    assert [w.shape for w in after[:-2]] == [w.shape for w in before[:-2]]
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
    assert after[-1].shape == (2,)


def test_the_shape_is_that_of_the_start(trained):
    known = read_card(trained.path).training
    params = preset("small", start=str(trained.path))
    assert (params.architecture, params.depth, params.base_filters) == (
        known["architecture"], known["depth"], known["base_filters"],
    )  # fmt: skip


def test_another_shape_or_no_network_is_refused_before_anything_is_read(trained, tmp_path):
    with pytest.raises(InputError, match="depth is 4, and 3 in the network to start from"):
        begun_from(trained, tmp_path / "deep.keras", depth=4)
    with pytest.raises(InputError, match="there is no network named 'nobody'"):
        preset("paper", start="nobody")
    assert not list(tmp_path.iterdir())


def weights_by_layer(path):
    return {layer.name: (type(layer).__name__, layer.get_weights()) for layer in load_model(path)[0].layers}


@pytest.mark.filterwarnings("ignore:there is no validation")
def test_batch_normalisation_stays_after_its_epochs(make_slices, tmp_path):
    images, labels = make_slices(4, size=32)
    shape = {"architecture": "compact", "depth": 2, "base_filters": 4}

    def trained_for(epochs, norm_epochs, name, **how):
        params = preset("paper", **(TINY | shape | {"epochs": epochs, "norm_epochs": norm_epochs, "folds": 1}))
        options = params.model_dump(exclude={"augmentation"}) | {"learning_rate": 1e-2}
        return weights_by_layer(train(images, labels, tmp_path / name, **options, **how).model)

    cases = ((1, 0), (2, 1), (2, 0))
    first, stayed, learned = (trained_for(epochs, n, f"{epochs}-{n}.keras") for epochs, n in cases)
    norms = [name for name, (kind, _) in first.items() if kind == "BatchNormalization"]
    assert norms
    for name in norms:
        for before, after in zip(first[name][1], stayed[name][1], strict=True):
            np.testing.assert_array_equal(after, before)
        assert any((after != before).any() for before, after in zip(first[name][1], learned[name][1], strict=True))
    others = [name for name, (_, weights) in first.items() if weights and name not in norms]
    assert all((stayed[name][1][0] != first[name][1][0]).any() for name in others)
