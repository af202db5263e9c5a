"""From slices to labels and confidence."""

from types import SimpleNamespace

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.segmentation.data.intensity_scaling import Scale
from tomoseg.segmentation.inference import slice_prediction as inference
from tomoseg.segmentation.inference.slice_prediction import SlicePredictor, bytes_per_pixel, fitted
from tomoseg.segmentation.networks.card import foreign_card


def softened(patches):
    """Return probabilities that follow the scaled intensity: class 1 for bright, class 0 for dark."""
    p = np.clip(patches, 0, 1)
    return np.stack([1 - p, p], axis=-1)


def predictor(patch=32, multiple=8):
    return SlicePredictor(softened, Scale(100, 200, 0, 1), 2, patch, multiple)


def test_labels_and_confidence_are_argmax_and_maximum():
    slices = np.array([[[100, 120, 180, 200]]], np.uint16)
    labels, confidence = predictor().classify(slices)
    assert labels.dtype == confidence.dtype == np.uint8
    np.testing.assert_array_equal(labels[0], [[0, 0, 1, 1]])
    np.testing.assert_array_equal(confidence[0], [[255, 204, 204, 255]])


@pytest.mark.parametrize("shape", [(2, 40, 70), (1, 5, 9), (3, 32, 32)])
def test_any_size_gives_labels_of_its_size(shape):
    slices = 100 + 100 * (np.random.default_rng(0).random(shape) > 0.5)
    labels, _ = predictor().classify(slices)
    np.testing.assert_array_equal(labels, slices > 150)


def test_patches_are_no_larger_than_needed():
    assert predictor(512, 32).patch_shape((100, 190)) == (192, 192)
    assert predictor(512, 32).patch_shape((600, 100)) == (512, 512)
    assert predictor(inference.WHOLE_SLICE, 32).patch_shape((600, 100)) == (608, 128)


def test_a_patch_that_does_not_fit_the_network_is_refused():
    free = SimpleNamespace(input_shape=(None, None, None, 1))
    with pytest.raises(InputError, match="a multiple of 32"):
        SlicePredictor.of(free, foreign_card(2, 512, 32), Scale(0, 1, 0, 1), patch=100)
    fixed = SimpleNamespace(input_shape=(None, 64, 64, 1))
    with pytest.raises(InputError, match="exactly 64"):
        SlicePredictor.of(fixed, foreign_card(2, 64, 64), Scale(0, 1, 0, 1), patch=128)


def test_batches_are_of_one_slice_and_checked_between():
    calls, checked = [], []

    def predict(patches):
        calls.append(patches.shape)
        return softened(patches)

    # 100 x 70 px with patches of 32 px every 16: six by four places, five patches at a time by their memory.
    bytes_per_pixel = inference.BATCH_BYTES / (5 * 32**2)
    predictor = SlicePredictor(predict, Scale(100, 200, 0, 1), 2, 32, 8, bytes_per_pixel=bytes_per_pixel)
    slices = 100 + 100 * np.random.default_rng(0).random((3, 100, 70))
    together = predictor.classify(slices, lambda: checked.append(len(calls)))
    assert calls == 15 * [(5, 32, 32)]
    assert checked == list(range(15))
    alone = [predictor.classify(one[None]) for one in slices]
    for i in range(2):
        np.testing.assert_array_equal(together[i], np.concatenate([a[i] for a in alone]))


def test_slices_without_their_neighbours_are_refused():
    several = SlicePredictor(softened, Scale(0, 1, 0, 1), 2, 32, 8, channels=3)
    with pytest.raises(InputError, match="channels: 3 in all"):
        several.classify(np.zeros((1, 8, 8)))
    with pytest.raises(InputError, match="channels: 1 in all"):
        predictor().classify(np.zeros((1, 8, 8, 3)))


def test_the_memory_of_a_network_is_told_from_its_layers():
    from tomoseg.segmentation.networks.builders import build

    # The widest array of the paper's network joins two of 32 channels at full size; 4 bytes each, four such at a time.
    assert bytes_per_pixel(build("unet", 3, depth=6), 64, 64) == 4 * 4 * 64
    predictor = SlicePredictor(softened, Scale(0, 1, 0, 1), 3, 512, 32, bytes_per_pixel=1024)
    assert predictor.batch_size((1000, 1000)) == 1
    assert predictor.batch_size((128, 128)) == 1  # a patch of its size, and one place only
    small = SlicePredictor(softened, Scale(0, 1, 0, 1), 3, 128, 32, bytes_per_pixel=1024)
    assert small.batch_size((1000, 1000)) == 4  # 16 MiB each
    always, per_slice = small.memory_bytes((1000, 1000))
    assert 64 << 20 < always < 2 * (64 << 20)
    assert per_slice == 12e6  # read as f4, the next one too, labels and confidence, and these once more when written


def test_a_network_that_is_fitted_keeps_its_batches_unless_there_is_little_memory():
    from tomoseg.segmentation.networks.builders import build

    model, shape = build("unet", 3, depth=3, base_filters=8), (700, 600)
    card = foreign_card(3, 128, 32)
    free = SlicePredictor.of(model, card, card.scaling.trained)
    much, little = (fitted(free, model, [shape], limit << 20) for limit in (256, 128))
    assert (much.bytes_per_pixel, much.batch_size(shape)) == (free.bytes_per_pixel, free.batch_size(shape))
    assert 1 < little.batch_size(shape) < free.batch_size(shape)
    assert sum(little.memory_bytes(shape)) < 128 << 20
    with pytest.raises(InputError, match=r"needs about 2\d MiB for a patch of 128 px .* allows \(4 MiB\).* or pray"):
        fitted(free, model, [shape], 4 << 20, ", or pray")


def test_a_network_is_fitted_to_the_patches_that_it_gets():
    """What does not shrink with the patch is not told from larger patches."""
    from tomoseg.segmentation.networks.keras_setup import keras

    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((None, None, 1)), layers.Resizing(512, 512), layers.Conv2D(8, 1), layers.Resizing(32, 32)]
    )
    card = foreign_card(8, 512, 32)
    free = SlicePredictor.of(model, card, card.scaling.trained)
    assert free.memory_bytes((20, 20))[0] < 1 << 20
    assert fitted(free, model, [(20, 20)], 256 << 20).memory_bytes((20, 20))[0] > 32 << 20
