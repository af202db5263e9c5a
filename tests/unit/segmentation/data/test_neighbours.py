"""Neighbouring slices as channels: which they are, that all are seen alike, and that a network uses them."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tomoseg.errors import InputError
from tomoseg.io.slices import find_pairs
from tomoseg.runtime import Runtime
from tomoseg.segmentation.data.augmentation import Augmentation, sample_patch, vary_intensity
from tomoseg.segmentation.data.neighbours import middle, neighbour_names, with_neighbours
from tomoseg.segmentation.evaluation.model_evaluation import evaluate_model
from tomoseg.segmentation.networks.model_file import load_model
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.segmentation.training.patches import TrainingSet
from tomoseg.segmentation.training.trainer import predictor_of, train

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def test_neighbours_go_by_their_number():
    every = ["al_10001_00", "al_10002_00", "al_10003_00", "al_10002_01", "al_10004_01", "al_20003_00", "other"]
    rows = neighbour_names(["al_10002_00", "al_10002_01", "al_20003_00", "other"], every, 3)
    assert rows == [
        ["al_10001_00", "al_10002_00", "al_10003_00"],  # of the same half
        ["al_10002_01", "al_10002_01", "al_10002_01"],  # 10003 is not there, 10004 is too far
        ["al_20003_00", "al_20003_00", "al_20003_00"],
        ["other", "other", "other"],
    ]
    numbers = [f"{n:03d}" for n in (8, 9, 10, 12)]
    # 11 is missing: 10, which is nearer to the middle, stands for it, and 12 is in its own place.
    assert neighbour_names(["009"], numbers, 7) == [["008", "008", "008", "009", "010", "010", "012"]]


def test_images_of_the_folder_are_neighbours_whether_labelled_or_not():
    planes = {f"s_{n}": np.full((4, 5), n, np.uint8) for n in range(1, 8)}
    read = []

    def reader(name):
        return lambda: read.append(name) or planes[name]

    named = ["s_2", "s_3", "s_7"]
    stacks = with_neighbours(named, [planes[n] for n in named], 3, {name: reader(name) for name in planes})
    assert [stack[0, 0].tolist() for stack in stacks] == [[1, 2, 3], [2, 3, 4], [6, 7, 7]]
    assert all(stack.shape == (4, 5, 3) and stack.dtype == np.uint8 for stack in stacks)
    assert sorted(read) == ["s_1", "s_4", "s_6"]  # nothing else, and nothing twice
    assert middle(stacks[0])[0, 0] == 2
    planes["s_1"] = np.zeros((4, 6), np.uint8)
    with pytest.raises(InputError, match=r"slice s_2 is \(4, 5\) uint8, its neighbour s_1 is \(4, 6\)"):
        with_neighbours(["s_2"], [planes["s_2"]], 3, {"s_1": reader("s_1")})


@pytest.mark.parametrize("straight", [0.0, 1.0])
@pytest.mark.parametrize("elastic_px", [0.0, 2.0])
def test_all_channels_are_seen_alike(straight, elastic_px):
    rng = np.random.default_rng(0)
    image, labels = rng.normal(size=(50, 60, 3)).astype(np.float32), rng.integers(0, 3, (50, 60)).astype(np.uint8)
    augmentation = Augmentation(straight=straight, elastic_px=elastic_px)
    together, seen = sample_patch(image, labels, 32, augmentation, np.random.default_rng(5))
    assert together.shape == (32, 32, 3)
    for c in range(3):
        alone, same = sample_patch(image[..., c], labels, 32, augmentation, np.random.default_rng(5))
        np.testing.assert_array_equal(together[..., c], alone)
        np.testing.assert_array_equal(seen, same)


def test_intensities_of_all_channels_are_changed_alike_and_do_not_mix():
    view = np.random.default_rng(0).normal(size=(20, 20, 3)).astype(np.float32)
    varied = Augmentation(contrast=0.3, brightness=0.3, gamma=0.3, blur_px=1.0, sharpen=0.5)
    together = vary_intensity(view, varied, np.random.default_rng(3))
    for c in range(3):
        alone = vary_intensity(view[..., c], varied, np.random.default_rng(3))
        np.testing.assert_allclose(together[..., c], alone, atol=1e-6)
    noisy = vary_intensity(np.zeros((50, 50, 3), np.float32), Augmentation(noise=1.0), np.random.default_rng(3))
    assert abs(np.corrcoef(noisy[..., 0].ravel(), noisy[..., 1].ravel())[0, 1]) < 0.1  # 5 standard deviations of 2500


def test_neighbours_of_pages_are_pages_of_the_same_stack():
    every = [f"tomo{k}_page{i:04d}" for k in range(5) for i in range(2)]
    assert neighbour_names(["tomo3_page0000"], every, 3) == [["tomo3_page0000", "tomo3_page0000", "tomo3_page0001"]]


def some_data(channels, **changes):
    images = [np.random.default_rng(n).normal(size=(16, 16)).astype(np.float32) for n in range(20)]
    names = [f"s_{n:02d}" for n in range(20)]
    labels = [np.eye(16, dtype=np.uint8)] * 20
    settings = TrainParameters(patch=16, depth=2, channels=channels, **changes)
    stacks = with_neighbours(names, images, channels) if channels > 1 else images
    return TrainingSet.checked(stacks, labels, names, None, None, settings, None), images


@pytest.mark.parametrize(("channels", "gap"), [(1, 2), (3, 2), (7, 4)])
def test_no_input_of_training_holds_a_slice_to_validate_on(channels, gap):
    data, images = some_data(channels, fold=1)
    assert min(abs(i - j) for i in data.split.training for j in data.split.validation) == gap
    for i in data.split.training:
        seen = data.images[i].reshape(256, channels)
        assert not any((seen == images[j].reshape(256, 1)).all(axis=0).any() for j in data.split.validation)
    assert data.scaling == some_data(1, fold=1, guard=gap - 1)[0].scaling  # of the slices to label alone


@pytest.mark.parametrize("channels", [0, 2, 33])
def test_numbers_of_channels_that_make_no_sense(channels):
    with pytest.raises(InputError, match=r"^train\.channels: "):
        TrainParameters.of("train", {"channels": channels})


def test_images_must_have_the_channels(make_slices, tmp_path):
    images, labels = make_slices(2)
    settings = TrainParameters(channels=3)
    with pytest.raises(InputError, match=r"slice 0000: image \(64, 64\) .* with 3 channels"):
        train(images, labels, tmp_path / "m.keras", params=settings, runtime=Runtime())


def test_a_network_finds_what_only_neighbours_show(tmp_path):
    # The slice itself is noise; an object is where both its neighbours are bright.
    rng = np.random.default_rng(0)
    images, labels = [], []
    for _ in range(12):
        there = ndimage.gaussian_filter(rng.normal(size=(32, 32)), 4) > 0
        planes = rng.normal(50, 10, (32, 32, 3))
        planes[..., (0, 2)] += 100 * there[..., None]
        images.append(np.clip(planes, 0, 255).astype(np.uint8))
        labels.append(there.astype(np.uint8))
    settings = TrainParameters(
        epochs=4,
        batch=4,
        patch=32,
        channels=3,
        patches=48,
        architecture="compact",
        depth=2,
        base_filters=8,
        learning_rate=1e-2,
        augmentation=Augmentation(),
    )
    result = train(images, labels, tmp_path / "m.keras", params=settings, runtime=Runtime(device="cpu"))
    assert max(row["val_dice"] for row in result.history) > 0.9
    model, card = load_model(result.model)
    assert card.channels == 3
    assert model.input_shape[-1] == 3
    held_out = [int(name) for name in card.training["validation_names"]]
    predicted = predictor_of(model, card, int)
    found = [predicted(images[i]).argmax(axis=0) == labels[i] for i in held_out]
    assert np.mean(found) > 0.9

    for i, planes in enumerate(images):  # in files: each slice between the two that show its object
        for k in range(3):
            save(tmp_path / "images" / f"{3 * i + k:04d}.png", planes[..., k])
        save(tmp_path / "labels" / f"{3 * i + 1:04d}.png", labels[i])
    evaluation = evaluate_model(result.model, find_pairs(tmp_path / "images", tmp_path / "labels"))
    assert evaluation.pooled()["dice"].min() > 0.9


def save(path, image):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image).save(path)
