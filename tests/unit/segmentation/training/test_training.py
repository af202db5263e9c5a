"""Training: what is kept, what resumes, what is refused."""

import csv
import json
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from tomoseg.errors import InputError, Interrupted, StageFailed
from tomoseg.runtime import Runtime
from tomoseg.segmentation.data.augmentation import Augmentation
from tomoseg.segmentation.inference.slice_prediction import SlicePredictor
from tomoseg.segmentation.networks.card import read_card
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.model_file import load_checkpoint, load_model
from tomoseg.segmentation.training.api import train as train_by_keywords
from tomoseg.segmentation.training.files import TrainFiles
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.segmentation.training.patches import batches, epoch_plan
from tomoseg.segmentation.training.trainer import train
from tomoseg.segmentation.training.training_set import TrainingSet

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


class StopAfter:
    """Progress that lets a signal arrive during epoch `epoch`."""

    def __init__(self, epoch, monkeypatch):
        self.what, self.monkeypatch = f"epoch {epoch}/", monkeypatch

    def start(self, what, total):
        if what.startswith(self.what):
            self.monkeypatch.setattr("tomoseg.runtime._signals", [15])

    def advance(self, done):
        pass

    def finish(self):
        pass

    def message(self, text):
        pass


def test_the_files_of_a_training(trained):
    result = trained.result
    assert result.model == trained.path
    assert result.best_epoch in (1, 2)
    with result.history_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    assert {"loss", "val_loss", "val_dice", "val_dice_background", "val_dice_particles", "seconds"} <= set(rows[0])
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in trained.rows]
    assert result.curves_png.read_bytes().startswith(b"\x89PNG")
    assert sorted(file.suffix for file in result.checkpoint.iterdir()) == [".json", ".keras", ".keras"]


def test_the_card_tells_what_the_network_is(trained):
    card = read_card(trained.path)
    assert card == trained.result.card
    assert card.class_names == ["background", "support", "particles"]
    assert card.pixel_size_nm == 0.3
    assert card.patch == 64
    assert card.multiple == 4
    assert card.training["class_weights"] == [0.2, 0.3, 0.5]  # the paper's
    assert card.scores["epoch"] == trained.result.best_epoch
    assert not set(card.training["training_names"]) & set(card.training["validation_names"])
    assert len(card.training["validation_names"]) == 4
    # Levels of the phantom: 8 and 60, with noise of 9 and blurred edges.
    assert card.scaling.trained.zero == pytest.approx(8, abs=3)
    assert card.scaling.trained.one == pytest.approx(60, abs=3)


def test_what_was_said(trained):
    assert any("to validate on" in note for note in trained.runtime.notes)
    assert not trained.runtime.warnings


def test_the_saved_network_is_the_best_one(trained):
    # Its validation Dice, computed again from the file, is the best of the history.
    model, card = load_model(trained.path)
    predictor = SlicePredictor.of(model, card, card.scaling.trained, overlap=1)
    held_out = [i for i, name in enumerate(trained.names) if name in card.training["validation_names"]]
    truth = np.stack([trained.labels[i] for i in held_out])
    labels, _ = predictor.classify(np.stack([trained.images[i] for i in held_out]))
    dice = [2 * np.sum((labels == c) & (truth == c)) / (np.sum(labels == c) + np.sum(truth == c)) for c in range(3)]
    assert np.mean(dice) == pytest.approx(max(row["val_dice"] for row in trained.rows), abs=1e-6)


@pytest.mark.slow
def test_resume_continues_as_if_nothing_had_happened(tmp_path, make_slices, tiny_settings):
    images, labels = make_slices(8, seed=1)
    once = tiny_settings.changed(epochs=1)
    through = train(images, labels, tmp_path / "through.keras", params=tiny_settings, runtime=Runtime())
    first = train(images, labels, tmp_path / "cut.keras", params=once, runtime=Runtime())
    again = Runtime()
    resumed = train(
        images, labels, tmp_path / "cut.keras", params=tiny_settings, resume=True, runtime=again
    )  # more epochs than were asked for first
    assert any("continuing after epoch 1 of 2" in note for note in again.notes)
    assert [row["epoch"] for row in resumed.history] == [1, 2]
    assert resumed.history[0] == first.history[0]
    # The same views and optimiser state; threads sum convolutions in an order of their own, hence not to the last bit.
    for a, b in zip(through.history, resumed.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    for a, b in zip(
        load_model(through.model)[0].get_weights(), load_model(resumed.model)[0].get_weights(), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-3)


@pytest.mark.slow
def test_resume_with_averages_and_a_schedule_is_exact(tmp_path, make_slices, tiny_settings):
    images, labels = make_slices(8, seed=1)
    settings = tiny_settings.changed(
        architecture="compact",
        depth=2,
        loss="focal+dice",
        schedule="plateau",
        plateau_epochs=1,
        ema=0.8,
        sampling=0.5,
    )
    runs = {}
    for name, parts in (("through", (3,)), ("cut", (1, 3))):
        for epochs in parts:
            some = settings.changed(epochs=epochs)
            result = train(
                images,
                labels,
                tmp_path / f"{name}.keras",
                params=some,
                resume=epochs != parts[0],
                runtime=Runtime(device="cpu"),
            )
        latest = load_checkpoint(result.checkpoint / "epoch_00003.keras")
        runs[name] = (result, latest)
    (through, weights), (cut, again) = runs["through"], runs["cut"]
    assert [row["learning_rate"] for row in cut.history] == [row["learning_rate"] for row in through.history]
    assert int(again.optimizer.iterations) == int(weights.optimizer.iterations) == 3 * 2
    for a, b in zip(through.history, cut.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    # The averages, which the optimiser holds, and the weights; threads sum in an order of their own.
    for a, b in zip(weights.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=2e-3)
    for a, b in zip(weights.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


@pytest.mark.slow
def test_the_averaged_weights_are_kept_and_training_goes_on_from_the_present_ones(tmp_path, make_slices, tiny_settings):
    images, labels = make_slices(6, seed=1)
    plain = tiny_settings.changed(folds=1, epochs=2)
    paths = {}
    for name, ema in (("plain", 0.0), ("averaged", 0.7)):
        settings = plain.changed(ema=ema)
        paths[name] = train(images, labels, tmp_path / f"{name}.keras", params=settings, runtime=Runtime())
    weights, averaged = (load_checkpoint(paths[name].checkpoint / "epoch_00002.keras") for name in paths)
    for a, b in zip(weights.get_weights(), averaged.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)  # the average does not act on the training
    kept = load_model(paths["averaged"].model)[0].get_weights()
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(kept, averaged.get_weights(), strict=True))
    # w1, then 0.7 mean + 0.3 w: the average after four steps lies among the weights that there were.
    mean = [np.array(v) for v in averaged.optimizer._model_variables_moving_average]
    for a, b in zip(kept, mean, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_patience_ends_a_training_and_resuming_does_not_go_on(tmp_path, make_slices, tiny_settings):
    images, labels = make_slices(8, seed=1)
    # Next to no learning: validation does not become better after the first epochs.
    still = tiny_settings.changed(learning_rate=1e-12, patience=2, epochs=9)
    result = train(images, labels, tmp_path / "m.keras", params=still, runtime=Runtime())
    assert len(result.history) == result.best_epoch + 2 < 9
    again = Runtime()
    resumed = train(images, labels, tmp_path / "m.keras", params=still, resume=True, runtime=again)
    assert len(resumed.history) == len(result.history)
    assert any("has not improved for 2 epochs" in note for note in again.notes)


@pytest.mark.slow
def test_a_compact_network_learns_a_phantom(tmp_path, make_slices):
    images, labels = make_slices(24, seed=3)
    settings = TrainParameters(
        epochs=12,
        batch=4,
        patch=64,
        patches=40,
        sampling=0.5,
        architecture="compact",
        depth=3,
        base_filters=8,
        loss="focal+dice",
        learning_rate=1e-2,
        schedule="cosine",
        ema=0.9,
        augmentation=Augmentation(contrast=0.1, noise=0.05),
        seed=1,
    )
    result = train(images, labels, tmp_path / "m.keras", params=settings, runtime=Runtime(device="cpu"))
    best = result.history[result.best_epoch - 1]
    # Particles of 5 to 9 px: one px along the rim of one of 7 px costs 0.25. Noise of 9 on steps of 52 and 130 does not
    # hide where the levels are.
    assert best["val_dice_background"] > 0.97
    assert best["val_dice_support"] > 0.93
    assert best["val_dice_particles"] > 0.8
    assert result.card.training["architecture"] == "compact"
    assert result.card.training["loss"] == "focal+dice"
    assert result.card.training["augmentation"]["noise"] == 0.05


@pytest.mark.slow
def test_the_side_of_patches_in_use_may_be_another(tmp_path, make_slices, tiny_settings):
    images, labels = make_slices(4, size=96)
    settings = tiny_settings.changed(epochs=1, predict_patch=96)
    result = train(images, labels, tmp_path / "m.keras", params=settings, runtime=Runtime())
    assert result.card.patch == read_card(result.model).patch == 96
    assert result.card.training["patch"] == 64


def test_a_signal_stops_between_batches_and_keeps_finished_epochs(tmp_path, make_slices, tiny_settings, monkeypatch):
    images, labels = make_slices(8, seed=1)
    output = tmp_path / "m.keras"
    with pytest.raises(Interrupted, match="1 of 2 epochs are done and kept"):
        train(images, labels, output, params=tiny_settings, runtime=Runtime(progress=StopAfter(2, monkeypatch)))
    assert not output.exists()
    kept = next(TrainFiles(output).checkpoint.glob("best_*.keras"))
    assert read_card(kept).scores["epoch"] == 1


def test_an_earlier_model_is_not_overwritten_by_accident(trained, tiny_settings):
    def again(**options):
        return train(
            trained.images,
            trained.labels,
            trained.path,
            names=trained.names,
            params=tiny_settings,
            **options,
            runtime=Runtime(),
        )

    before = trained.path.read_bytes()
    with pytest.raises(InputError, match=r"exists already.*--resume.*--force"):
        again()
    assert again(resume=True).best_epoch == trained.result.best_epoch  # nothing left to do
    assert trained.path.read_bytes() == before
    with pytest.raises(InputError, match="other learning_rate"):
        train(
            trained.images,
            trained.labels,
            trained.path,
            names=trained.names,
            params=tiny_settings.changed(learning_rate=1.0),
            resume=True,
            runtime=Runtime(),
        )


def test_problems_are_reported_together(make_slices, tmp_path):
    images, labels = make_slices(2)
    labels[1] = labels[1][:-1]
    with pytest.raises(InputError) as error:
        train(images, labels, tmp_path / "m.keras", params=TrainParameters(patch=100), runtime=Runtime())
    for part in ("multiple of 32", "slice 0001"):
        assert part in str(error.value)
    with pytest.raises(InputError) as error:
        train_by_keywords(images, labels, tmp_path / "m.keras", epochs=0, augmentation={"zoom": 2})
    for part in ("train.epochs", "train.augmentation.zoom"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ["a", "b"]}, "hold 2, but there are 2 classes"),
        ({"class_names": ["a", "b", "b"]}, "holds b twice"),
        ({"class_colors": ["red", "#000000", "#ffffff"]}, "#rrggbb"),
        ({"names": ["x", "x"]}, "same name"),
        ({"class_weights": (1.0, 2.0)}, "class_weights has 2 values for 3 classes"),
        ({"augmentation": {"hue": 1}}, r"train.augmentation: there is no 'hue'; there are rotation_deg, flip"),
        ({"filters": 3}, "train.filters: there is no such parameter; train has epochs, batch"),
    ],
)
def test_unusable_options_are_refused(make_slices, tmp_path, options, message):
    images, labels = make_slices(2)
    with pytest.raises(InputError, match=message):
        train_by_keywords(images, labels, tmp_path / "m.keras", **options)


def test_the_output_is_checked_before_training(make_slices, tmp_path):
    images, labels = make_slices(2)
    with pytest.raises(InputError, match=r"ending in \.keras"):
        train(images, labels, tmp_path / "model.h5", params=TrainParameters(), runtime=Runtime())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        train(images, labels, tmp_path / "file" / "m.keras", params=TrainParameters(), runtime=Runtime())


def test_a_diverging_training_stops_with_advice(make_slices, tiny_settings, tmp_path, monkeypatch):
    images, labels = make_slices(4)
    monkeypatch.setattr(
        "tomoseg.segmentation.training.trainer._Trainer._model",
        lambda *_: SimpleNamespace(train_on_batch=lambda _x, _y: np.nan, layers=[]),
    )
    with pytest.raises(StageFailed, match="lower the learning rate"):
        train(images, labels, tmp_path / "m.keras", params=tiny_settings, runtime=Runtime())


def test_no_validation_is_said_loudly_and_unannotated_pixels_are_fine(make_slices, tiny_settings, tmp_path):
    images, labels = make_slices(3)
    for label in labels:
        label[:, 32:] = 255
    runtime = Runtime()
    settings = tiny_settings.changed(folds=1)
    result = train(images, labels, tmp_path / "m.keras", params=settings, runtime=runtime)
    assert any("no validation" in warning for warning in runtime.warnings)
    assert result.best_epoch == 2  # the last one
    assert result.history[0]["val_loss"] is None
    assert np.isfinite(result.history[1]["loss"])
    assert result.card.class_names == ["background", "support", "particles"]  # 255 is not a class


def checked(images, labels, settings):
    return TrainingSet.checked(images, labels, None, None, None, settings, None)


def test_class_weights_of_other_class_numbers_follow_their_frequency(make_slices, tiny_settings):
    images, labels = make_slices(4)
    two = checked(images, [label > 0 for label in labels], tiny_settings)
    share = np.mean([label > 0 for label in labels])
    expected = np.array([(1 - share) ** -0.5, share**-0.5])
    np.testing.assert_allclose(two.weights, expected / expected.sum(), rtol=1e-9)
    assert two.class_names == ["background", "object"]


def test_each_epoch_sees_every_training_slice_in_new_views(make_slices, tiny_settings):
    images, labels = make_slices(6, size=100)
    data = checked(images, labels, tiny_settings.changed(folds=1))
    settings = tiny_settings.changed(patch=64, batch=5, folds=1)
    plan = epoch_plan(data, settings, 0)
    assert sorted(plan) == sorted(4 * list(range(6)))  # 100 px take two patches of 64 along each side
    assert plan != epoch_plan(data, settings, 1)
    first, same, other = (list(batches(data, settings, e, epoch_plan(data, settings, e), 2)) for e in (0, 0, 1))
    assert [x.shape for x, _ in first] == [(5, 64, 64, 1)] * 5  # 24 views in full batches
    np.testing.assert_array_equal(first[3][0], same[3][0])
    assert not np.array_equal(first[3][0], other[3][0])
    assert first[0][1].dtype == np.uint8


def test_checkpoints_hold_the_optimiser(trained):
    latest = next(TrainFiles(trained.path).checkpoint.glob("epoch_*.keras"))
    model = keras.saving.load_model(latest, safe_mode=True)
    assert int(model.optimizer.iterations) == 2 * 3  # 12 training slices less neighbours, in batches of 4, two epochs


@pytest.mark.slow
def test_history_and_curves_are_there_after_every_epoch_and_validation_when_it_is_due(
    tmp_path, make_slices, tiny_settings
):
    images, labels = make_slices(8, seed=1)
    settings = tiny_settings.changed(epochs=5, validate_every=3, patches=4)
    seen = []

    def on_epoch(row):
        with (tmp_path / "m.history.csv").open() as file:
            rows = list(csv.DictReader(file))
        seen.append((len(rows), rows[-1]["val_dice"] != ""))
        assert (tmp_path / "m.curves.png").read_bytes().startswith(b"\x89PNG")

    result = train(images, labels, tmp_path / "m.keras", params=settings, on_epoch=on_epoch, runtime=Runtime())
    assert seen == [(1, False), (2, False), (3, True), (4, False), (5, True)]
    assert result.best_epoch in (3, 5)
    assert read_card(result.model).scores["epoch"] == result.best_epoch
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_the_best_epoch_is_that_of_what_is_monitored(tmp_path, make_slices, tiny_settings):
    images, labels = make_slices(8, seed=1)
    settings = tiny_settings.changed(epochs=3, monitor="dice:support", patches=4)
    result = train(images, labels, tmp_path / "m.keras", params=settings, runtime=Runtime())
    support = [row["val_dice_support"] for row in result.history]
    assert result.best_epoch == 1 + support.index(max(support))


def test_a_class_that_cannot_be_monitored_is_refused(tmp_path, make_slices, tiny_settings):
    images, labels = make_slices(8, seed=1)
    for name, message in (
        ("pores", "classes are background, support, particles"),
        ("particles", "no validation slice of fold 0"),
    ):
        settings = tiny_settings.changed(monitor=f"dice:{name}")
        for label in labels[:2]:
            label[label == 2] = 1
        with pytest.raises(InputError, match=rf"monitor is dice:{name}: .*{message}"):
            train(images, labels, tmp_path / "m.keras", params=settings, runtime=Runtime())
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_from_before_an_option_existed_goes_on_with_its_default(trained, tiny_settings, tmp_path):
    for path in trained.path.parent.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    state_file = TrainFiles(tmp_path / trained.path.name).checkpoint / "state.json"
    for path in state_file.parent.glob("epoch_*.keras"):  # the losses were in another module then, too
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        here, then = b"tomoseg.segmentation.networks.losses", b"tomoseg.segment.losses"
        assert here in entries["config.json"]
        entries["config.json"] = entries["config.json"].replace(here, then)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
    state = json.loads(state_file.read_text())
    for key in ("channels", "precision", "monitor", "validate_every", "encoder_weights"):
        del state["identity"][key]
    state_file.write_text(json.dumps(state))

    def resumed(settings):
        given = {"names": trained.names, "params": settings, "resume": True}
        return train(trained.images, trained.labels, tmp_path / trained.path.name, **given, runtime=Runtime())

    assert resumed(tiny_settings).history == trained.result.history
    with pytest.raises(InputError, match="other monitor"):
        resumed(tiny_settings.changed(monitor="loss"))
