"""Training for single micrographs: a resting encoder, an own scale of each image, the threshold, and the recipe."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.unit.segmentation.networks.test_se_resnet import WIDTH, published, written
from tomoseg import config
from tomoseg.cli.app import app
from tomoseg.errors import InputError
from tomoseg.runtime import Runtime
from tomoseg.segmentation.inference.slice_prediction import SlicePredictor, labels_of
from tomoseg.segmentation.networks.card import read_card
from tomoseg.segmentation.networks.encoder_weights import encoder_layers, read_layers, set_encoder_weights
from tomoseg.segmentation.networks.model_file import load_checkpoint, load_model
from tomoseg.segmentation.training.cross_validation import cross_validate
from tomoseg.segmentation.training.parameters import TrainParameters, check, preset
from tomoseg.segmentation.training.threshold import ThresholdSweep
from tomoseg.segmentation.training.trainer import train

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
BINARY = TrainParameters(
    epochs=2,
    batch=2,
    patch=32,
    patches=4,
    depth=2,
    base_filters=4,
    learning_rate=1e-2,
    validation_fraction=0.3,
    sweep_threshold=True,
    monitor="iou:object",
    loss="iou",
)


@pytest.fixture
def micrographs(make_slices):
    """Return six images and their binary labels."""
    images, labels = make_slices(6, size=32)
    return images, [(label > 0).astype(np.uint8) for label in labels]


@pytest.mark.slow
def test_the_encoder_rests_and_is_then_trained(micrographs, tmp_path):
    file = written(tmp_path / "encoder.h5", published())
    settings = BINARY.changed(
        architecture="se-resnet34-unet",
        depth=3,
        base_filters=WIDTH,
        encoder_weights=str(file),
        frozen_epochs=1,
    )
    weights, steps = {}, {}
    for epochs in (1, 2):  # the second one by resuming
        runtime = Runtime(device="cpu")
        some = settings.changed(epochs=epochs)
        result = train(*micrographs, tmp_path / "m.keras", params=some, resume=epochs == 2, runtime=runtime)
        model = load_checkpoint(result.checkpoint / f"epoch_{epochs:05d}.keras")
        weights[epochs] = {w.path: np.array(w) for layer in encoder_layers(model) for w in layer.weights}
        steps[epochs] = [layer.trainable for layer in encoder_layers(model)]
        decoder = [np.array(w) for layer in model.layers if layer.name.startswith("up") for w in layer.weights]
        assert any("the encoder is trained, too, from epoch 2 on" in note for note in runtime.notes) == (epochs == 2)
    given = load_checkpoint(result.checkpoint / "epoch_00002.keras")
    set_encoder_weights(given, read_layers(file), "encoder.h5")
    start = {w.path: np.array(w) for layer in encoder_layers(given) for w in layer.weights}
    assert not any(steps[1])
    assert all(steps[2])
    for path, value in start.items():  # kernels and the statistics of batch normalisation
        np.testing.assert_array_equal(weights[1][path], value)
    changed = [path for path, value in start.items() if (weights[2][path] != value).any()]
    assert any(path.endswith("kernel") for path in changed)
    assert any(path.endswith("moving_variance") for path in changed)
    assert all(np.isfinite(w).all() for w in decoder)


@pytest.fixture
def probabilities_and_truth():
    """Return probabilities of a network that gives particles too little: 0.2 to 0.4, and the background 0 to 0.2."""
    rng = np.random.default_rng(0)
    truth = rng.random((64, 64)) < 0.3
    return np.where(truth, rng.uniform(0.2, 0.4, truth.shape), rng.uniform(0, 0.2, truth.shape)), truth


def test_the_threshold_is_where_labels_agree_best(probabilities_and_truth):
    probability, truth = probabilities_and_truth
    labels = truth.astype(np.uint8)
    labels[:8] = 255  # nobody annotated them, so they may say anything
    probability[:8] = 0.99
    sweep = ThresholdSweep()
    for part in (np.s_[:20], np.s_[20:]):
        sweep.add(probability[part].astype(np.float32), labels[part])
    threshold, best = sweep.best()
    assert (threshold, best) == (0.2, 1.0)
    stacked = np.stack([1 - probability, probability]).astype(np.float32)
    np.testing.assert_array_equal(labels_of(stacked, threshold)[8:], truth[8:])
    assert not labels_of(stacked)[8:].any()  # at one half nothing would be found


def test_every_threshold_is_counted_as_it_is_applied():
    rng = np.random.default_rng(1)
    # Also at the very thresholds, and one number of f4 below and above each.
    limits = (np.arange(1, 100) / 100).astype(np.float32)
    edges = np.concatenate([limits, np.nextafter(limits, np.float32(0)), np.nextafter(limits, np.float32(1))])
    probability = np.concatenate([edges, rng.random(500, np.float32)])[None]
    truth = (rng.random(probability.shape) < probability).astype(np.uint8)
    sweep = ThresholdSweep()
    sweep.add(probability, truth)
    scores = {}
    for threshold in np.arange(1, 100) / 100:
        labels = labels_of(np.stack([1 - probability, probability]), float(threshold))
        if threshold == 0.5:  # the likeliest class: at exactly one half the first
            labels = (probability >= 0.5).astype(np.uint8)
        scores[float(threshold)] = (labels & truth).sum() / (labels | truth).sum()
    threshold, best = sweep.best()
    assert best == max(scores.values())
    assert scores[threshold] == best


def test_without_the_class_the_threshold_stays_at_one_half():
    sweep = ThresholdSweep()
    sweep.add(np.full((4, 4), 0.1, np.float32), np.zeros((4, 4), np.uint8))
    assert sweep.best()[0] == 0.5
    flat = ThresholdSweep()  # any threshold from 0.31 to 0.8 is right
    flat.add(np.float32([[0.3, 0.8]]), np.uint8([[0, 1]]))
    assert flat.best() == (0.5, 1.0)


def test_the_threshold_is_kept_and_used(micrographs, tmp_path):
    result = train(*micrographs, tmp_path / "m.keras", params=BINARY, runtime=Runtime(device="cpu"))
    row = result.history[result.best_epoch - 1]
    model, card = load_model(result.model)
    assert card.threshold == row["threshold"] == read_card(result.model).threshold
    assert len(card.training["validation_names"]) == 2
    assert card.training["unused_names"] == []
    predictor = SlicePredictor.of(model, card, card.scaling.trained, overlap=1)
    held_out = [int(name) for name in card.training["validation_names"]]
    truth = np.stack([micrographs[1][i] for i in held_out])
    images = np.stack([micrographs[0][i] for i in held_out])
    labels, confidence = predictor.classify(images)
    assert (labels & truth).sum() / (labels | truth).sum() == pytest.approx(row["val_iou_at_threshold"], abs=1e-9)
    assert row["val_iou_at_threshold"] >= row["val_iou_object"]
    probability = np.stack([predictor.probabilities(image[None])[0] for image in images])
    np.testing.assert_array_equal(labels, probability[:, 1] >= np.float32(card.threshold))
    given = np.where(labels, probability[:, 1], probability[:, 0])
    np.testing.assert_array_equal(confidence, np.rint(255 * np.clip(given, 0, 1)))
    with result.history_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[result.best_epoch - 1]["threshold"]) == card.threshold
    assert {"val_iou", "val_iou_background", "val_iou_object", "val_iou_at_threshold"} <= set(rows[0])


def test_the_scores_of_validation_are_those_of_the_matrix(micrographs, tmp_path):
    result = train(*micrographs, tmp_path / "m.keras", params=BINARY, runtime=Runtime(device="cpu"))
    for row in result.history:
        for name in ("background", "object"):
            dice = row[f"val_dice_{name}"]
            assert row[f"val_iou_{name}"] == pytest.approx(dice / (2 - dice))
        assert row["val_iou"] == pytest.approx((row["val_iou_background"] + row["val_iou_object"]) / 2)
    assert result.best_epoch == 1 + int(np.argmax([row["val_iou_object"] for row in result.history]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "sweep_threshold is for two classes, and there are 3: background, support, particles"),
        ({"sweep_threshold": False, "monitor": "iou:Pt"}, "monitor is iou:Pt: the classes are background, support"),
        (
            {"sweep_threshold": False, "monitor": "iou", "validation_fraction": 1.0},
            "validation_fraction: .*less than 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make_slices, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        train(*make_slices(6), tmp_path / "m.keras", params=BINARY.changed(**change), runtime=Runtime())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_cross_validation_has_its_own_parts_and_a_common_threshold(micrographs, tmp_path):
    settings = BINARY.changed(validation_fraction=0, folds=2, guard=0, epochs=1)
    with pytest.raises(InputError, match=r"validation_fraction is 0\.3, for one network: .* set it to 0"):
        cross_validate(*micrographs, tmp_path / "m.keras", params=BINARY, runtime=Runtime())
    found = cross_validate(
        *micrographs, tmp_path / "m.keras", params=settings, final=True, runtime=Runtime(device="cpu")
    )
    thresholds = [result.card.threshold for result in found.results]
    assert read_card(found.final.model).threshold == np.median(thresholds)
    for fold, result in zip(found.folds, found.results, strict=True):  # by the threshold of the fold's own network
        of_fold = found.evaluation.matrices[np.array(found.fold_of) == fold].sum(axis=0)
        overlap = of_fold[1, 1] / (of_fold[1].sum() + of_fold[:, 1].sum() - of_fold[1, 1])
        assert overlap == pytest.approx(result.history[-1]["val_iou_at_threshold"], abs=0.05)  # patches overlap here


def test_each_image_may_have_its_own_scale(micrographs, tmp_path):
    """Images of any brightness and contrast give the network the same, in training and in use."""
    images, labels = micrographs
    settings = BINARY.changed(intensity="image", epochs=1)
    rng = np.random.default_rng(0)
    floats = [image.astype(np.float32) for image in images]
    other = [image * np.float32(2.0 ** rng.integers(-3, 4)) for image in floats]  # exact in f4
    results = [
        train(given, labels, tmp_path / f"{k}.keras", params=settings, runtime=Runtime(device="cpu", workers=1))
        for k, given in enumerate((floats, other))
    ]
    assert results[0].history[0]["loss"] == pytest.approx(results[1].history[0]["loss"], rel=1e-5)
    model, card = load_model(results[0].model)
    assert card.scaling.kind == "image"
    predictor = SlicePredictor.of(model, card, card.scaling.trained)
    expected = predictor.probabilities(np.stack(floats))
    np.testing.assert_allclose(predictor.probabilities(np.stack(other)), expected, atol=1e-5)
    assert np.isfinite(predictor.probabilities(np.zeros((1, 32, 32), np.float32))).all()  # an empty slice


def test_the_recipe_is_complete_and_valid():
    recipe = config.read_recipe("kit-nanoparticles")
    s = preset("paper", **recipe)
    assert not check(s)
    assert (s.architecture, s.encoder_weights, s.loss, s.monitor) == ("se-resnet34-unet", "imagenet", "iou", "iou")
    assert (s.learning_rate, s.schedule, s.plateau_factor, s.validation_fraction) == (0.01, "plateau", 0.1, 0.3)
    assert s.frozen_epochs > 0
    assert s.patience > s.plateau_epochs
    assert s.sweep_threshold
    for name in ("elastic_px", "grid_px", "rotation_deg", "scale", "contrast", "sharpen", "blur_px"):
        assert getattr(s.augmentation, name) > 0
    assert "kit-nanoparticles" in config.shipped_recipes()
    assert "kit-nanoparticles" not in config.shipped_pipelines()
    assert CliRunner().invoke(app, ["check", "kit-nanoparticles"]).exit_code == 0


def test_a_recipe_is_for_training_and_a_pipeline_for_stages(tmp_path):
    with pytest.raises(InputError, match="parameters of a training: give it to `tomoseg train --pipeline"):
        config.read_pipeline("kit-nanoparticles")
    with pytest.raises(InputError, match=r"must hold one section `train:`.*kit-nanoparticles"):
        config.read_recipe("quick")
    with pytest.raises(InputError, match=r"no pipeline file nonsense.*\(kit-nanoparticles, particles-on-support\)"):
        config.read_recipe("nonsense")
    path = tmp_path / "mine.yaml"
    for content in ("train: 3\n", "train: {epochs: 3}\nsegment: {classes: 2}\n", "- train\n", "train: {3: 4}\n"):
        path.write_text(content)
        with pytest.raises(InputError, match="must hold one section `train:`"):
            config.read_recipe(path)
    path.write_text("train: {epochs: 0, colour: red}\n")
    failed = CliRunner().invoke(app, ["check", str(path)])
    for part in ("train.epochs", "train.colour: there is no such parameter"):
        assert part in str(failed.exception)


def test_weights_beside_a_recipe_are_found(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  encoder_weights: w.h5#md5=0123\n")
    assert config.read_recipe(path)["encoder_weights"] == "w.h5#md5=0123"
    (tmp_path / "w.h5").write_bytes(b"")
    assert config.read_recipe(path)["encoder_weights"] == f"{tmp_path / 'w.h5'}#md5=0123"


@pytest.fixture
def folder(micrographs, tmp_path):
    """Return a folder of images and masks of 0 and 255 as microscopists name them."""
    made = tmp_path / "tem"
    made.mkdir()
    for k, (image, label) in enumerate(zip(*micrographs, strict=True)):
        Image.fromarray(image).save(made / f"{60 + k:03d}_3_img.png")
        Image.fromarray(255 * label).save(made / f"{60 + k:03d}_3_mask.png")
    return made


QUICK = ("--depth", "3", "--base-filters", "4", "--patch", "32", "--epochs", "1", "--batch", "2", "--device", "cpu")


def test_the_command_takes_a_recipe_and_options_go_first(folder, tmp_path):
    output = tmp_path / "net.keras"
    given = ("--pipeline", "kit-nanoparticles", "--encoder-weights", "", "--augment", "scale=0.5", "--label-map")
    command = ["train", str(folder), str(folder), "-o", str(output), *QUICK, *given]
    done = CliRunner().invoke(app, [*command, "0=0,255=1", "--class-names", "background,particles"])
    assert done.exit_code == 0, done.output
    card = read_card(output)
    assert card.class_names == ["background", "particles"]
    assert (card.training["architecture"], card.training["encoder_weights"]) == ("se-resnet34-unet", "")
    assert (card.training["loss"], card.training["epochs"], card.training["frozen_epochs"]) == ("iou", 1, 10)
    assert (card.training["augmentation"]["scale"], card.training["augmentation"]["grid_px"]) == (0.5, 3)
    assert len(card.training["training_names"]) == 4
    assert card.scores["val_iou_particles"] is not None
    scores = tmp_path / "scores.json"
    options = ["--label-map", "0=0,255=1", "--json", str(scores), "--sizes-csv", str(tmp_path / "sizes.csv")]
    done = CliRunner().invoke(app, ["evaluate", str(output), str(folder), str(folder), *options])
    assert done.exit_code == 0, done.output
    content = json.loads(scores.read_text())
    assert len(content["iou"]["mean"]) == 2
    assert (tmp_path / "sizes.csv").read_text().startswith("class,from_px,to_px,true,found,")
    assert "diameter (px)" in done.output
    told = "pixels are particles from a probability of" in done.output
    assert told == (card.threshold != 0.5)


def test_a_recipe_of_many_classes_from_random_weights(make_slices, tmp_path):
    """An encoder of random weights does not rest."""
    images, labels = make_slices(4, size=32)
    small = {"depth": 3, "base_filters": 4, "patch": 32, "epochs": 1, "batch": 2}
    recipe = config.read_recipe("kit-nanoparticles") | small | {"sweep_threshold": False, "encoder_weights": ""}
    runtime = Runtime(device="cpu")
    result = train(images, labels, tmp_path / "m.keras", params=preset("paper", **recipe), runtime=runtime)
    assert result.card.class_names == ["background", "support", "particles"]
    assert result.card.threshold == 0.5
    assert "threshold" not in result.history[0]
    assert result.card.training["frozen_epochs"] == 10
    assert all(layer.trainable for layer in encoder_layers(load_checkpoint(result.checkpoint / "epoch_00001.keras")))
    assert any("random weights, so it is trained from the first epoch" in note for note in runtime.notes)


def test_a_recipe_does_not_choose_the_fold(folder, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {fold: 2}\n")
    done = CliRunner().invoke(app, ["train", str(folder), str(folder), "-o", "x.keras", "--pipeline", str(path)])
    assert "--fold 2" in str(done.exception)


def test_missing_weights_say_what_to_do(folder, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("tomoseg.segmentation.networks.encoder_weights.urlopen", refused)
    monkeypatch.setattr("tomoseg.segmentation.networks.encoder_weights.cache_folder", lambda: tmp_path / "cache")
    given = ["--pipeline", "kit-nanoparticles", "--label-map", "0=0,255=1"]
    done = CliRunner().invoke(app, ["train", str(folder), str(folder), "-o", str(tmp_path / "n.keras"), *given])
    for part in ("cannot be downloaded", "download it elsewhere", "random weights", "--encoder-weights ''"):
        assert part in str(done.exception)
