"""Networks and their cards on disk: what comes back, and what is refused."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segmentation.data.intensity_scaling import Scale, Scaling
from tomoseg.segmentation.networks.builders import build
from tomoseg.segmentation.networks.card import CARD_ENTRY, ModelCard, read_card
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.model_file import load_model, save_model

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CARD = ModelCard(
    ["vacuum", "oxide", "metal"],
    ["#000000", "#0072b2", "#e69f00"],
    Scaling("levels", "uint8", Scale(4.0, 57.0, -0.1, 4.7)),
    patch=64,
    multiple=4,
    pixel_size_nm=0.12,
    data_digest="ab" * 32,
    training={"epochs": 3},
    scores={"val_dice": 0.9},
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = build("unet", 3, depth=3, base_filters=4, seed=5)
    path = tmp_path_factory.mktemp("model") / "net.keras"
    save_model(model, path, CARD)
    return model, path


def some_images():
    return np.random.default_rng(0).normal(size=(2, 64, 64, 1)).astype(np.float32)


def test_predictions_and_card_survive(saved):
    model, path = saved
    again, card = load_model(path)
    assert card == CARD
    assert read_card(path) == CARD
    np.testing.assert_array_equal(again.predict_on_batch(some_images()), model.predict_on_batch(some_images()))
    assert list(path.parent.iterdir()) == [path]  # no half-written file is left


def test_keras_itself_reads_the_file(saved):
    # The card is one more entry in the archive, which Keras leaves alone.
    model, path = saved
    plain = keras.saving.load_model(path, safe_mode=True)
    np.testing.assert_array_equal(plain.predict_on_batch(some_images()), model.predict_on_batch(some_images()))


def test_a_keras_model_from_elsewhere_works_with_stated_defaults(tmp_path):
    foreign = keras.Sequential(
        [keras.Input((32, 32, 1)), keras.layers.Conv2D(4, 3, padding="same", activation="softmax")]
    )
    path = tmp_path / "foreign.keras"
    foreign.save(path)
    assert read_card(path) is None
    _, card = load_model(path)
    assert card.class_names == ["background", "class_1", "class_2", "class_3"]
    assert (card.patch, card.multiple) == (32, 32)
    assert not card.trained_here
    assert card.scaling.kind == "range"


def test_missing_and_foreign_files_are_refused(tmp_path, saved):
    with pytest.raises(InputError, match="does not exist"):
        load_model(tmp_path / "nothing.keras")
    text = tmp_path / "text.keras"
    text.write_text("not a model")
    with pytest.raises(InputError, match=r"not a .keras file"):
        load_model(text)
    other = tmp_path / "other.keras"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="no Keras model"):
        load_model(other)


def rewritten(source, target, **entries):
    """Copy an archive with some entries replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, entries.get(name, old.read(name)))
    return target


def test_damaged_files_are_refused(tmp_path, saved):
    path = saved[1]
    cut = tmp_path / "cut.keras"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="damaged"):
        load_model(cut)
    with pytest.raises(InputError, match=r"the weights in .* are damaged"):
        load_model(rewritten(path, tmp_path / "weights.keras", **{"model.weights.h5": b"garbage"}))
    with pytest.raises(InputError, match="description inside"):
        load_model(rewritten(path, tmp_path / "card.keras", **{CARD_ENTRY: b"{}"}))
    bad_colour = json.loads(CARD.to_json()) | {"class_colors": ["red", "green", "blue"]}
    with pytest.raises(InputError, match="#rrggbb"):
        read_card(rewritten(path, tmp_path / "colour.keras", **{CARD_ENTRY: json.dumps(bad_colour).encode()}))


def test_a_network_with_other_classes_than_its_card_is_refused(tmp_path, saved):
    two = json.loads(CARD.to_json()) | {"class_names": ["a", "b"], "class_colors": ["#000000", "#ffffff"]}
    path = rewritten(saved[1], tmp_path / "two.keras", **{CARD_ENTRY: json.dumps(two).encode()})
    with pytest.raises(InputError, match="has 3 classes, but its card names 2"):
        load_model(path)


def test_code_in_a_model_is_not_run(tmp_path):
    net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Lambda(lambda x: x), keras.layers.Conv2D(2, 1)])
    path = tmp_path / "lambda.keras"
    net.save(path)
    with pytest.raises(InputError, match="for safety it is not loaded"):
        load_model(path)


def test_networks_that_do_not_segment_are_refused(tmp_path):
    net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    path = tmp_path / "dense.keras"
    net.save(path)
    with pytest.raises(InputError, match="must map grey images"):
        load_model(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, saved, monkeypatch):
    model, source = saved
    path = tmp_path / "net.keras"
    shutil.copyfile(source, path)
    monkeypatch.setattr(
        "tomoseg.segmentation.networks.model_file.add_card", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        save_model(model, path, CARD)
    assert path.read_bytes() == source.read_bytes()
    assert list(tmp_path.iterdir()) == [path]
