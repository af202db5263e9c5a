"""The training of the network of micrographs: its pictures, its network and the file it becomes."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tomoseg.micrographs import learning
from tomoseg.micrographs.simulated import simulated_micrograph
from tomoseg.segmentation.networks.openvino_setup import compiled


def test_a_seed_gives_one_picture_and_others_differ():
    recipe = learning.faint_recipe(6)
    assert recipe == learning.faint_recipe(6) != learning.faint_recipe(7)
    seen, said = learning.training_picture(6, 1)
    again, _ = learning.training_picture(6, 1)
    assert np.array_equal(seen, again)
    assert seen.dtype == np.float16
    assert said.dtype == np.uint8


def test_particles_that_are_out_of_focus_keep_their_outlines():
    plain = learning.training_recipe(13)
    blurred = learning.with_changes(plain, depth_blur=0.15, fainter=0.8)
    one, other = (simulated_micrograph(recipe, 13) for recipe in (plain, blurred))
    kept = np.isin(one.particles[["y", "x"]], other.particles[["y", "x"]])
    assert kept.sum() == len(other.particles)
    assert np.array_equal(one.particles["diameter_px"][kept], other.particles["diameter_px"])


def test_particles_of_a_packed_layer_lie_at_its_distance():
    plain = learning.with_changes(learning.training_recipe(4), mode="BF", support="film", median_px=16.0, spread=0.05)
    packed = learning.with_changes(plain, pitch=1.3, particle_shape="round", grain=0.1, grain_px=4.0)
    truth = simulated_micrograph(packed, 4)
    places = np.stack([truth.particles["y"], truth.particles["x"]], axis=1)
    distances, _ = cKDTree(places).query(places, 2)
    assert len(places) > 30
    assert abs(np.median(distances[:, 1]) / (1.3 * 16) - 0.95) < 0.05  # the nearest of six is nearer than their mean


def test_grain_is_seen_in_bright_field_and_makes_no_particle():
    bare = learning.with_changes(learning.training_recipe(4), mode="BF", support="film", n_particles=0, texture=0.0)
    smooth, grainy = (simulated_micrograph(learning.with_changes(bare, grain=g), 4) for g in (0.0, 0.5))
    assert not grainy.labels.any()
    assert grainy.image.std() / grainy.image.mean() > 2 * smooth.image.std() / smooth.image.mean()


def test_structures_of_a_support_grow_with_its_scale():
    from tomoseg.micrographs.supports import support_thickness

    def scatter_of_steps(scale):
        thickness = support_thickness("film", (256, 256), scale, np.random.default_rng(3))
        return np.diff(thickness).std() / thickness.std()

    assert scatter_of_steps(0.25) > 1.3 * scatter_of_steps(1.0) > 1.7 * scatter_of_steps(3.0)


def test_pictures_are_kept_and_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "PICTURE_PX", 64)
    monkeypatch.setattr(learning, "PATCH_PX", 32)
    seen, said = learning.pictures(tmp_path, 3, 1, 0, 1)
    assert seen.shape == (3, 64, 64, 2)
    stamp = (tmp_path / "seen-0.npy").stat().st_mtime_ns
    learning.pictures(tmp_path, 3, 1, 0, 1)
    assert (tmp_path / "seen-0.npy").stat().st_mtime_ns == stamp
    patches, targets = learning.batch([(seen, said)], 0, 1)
    assert patches.shape == targets.shape == (learning.BATCH, 32, 32, 2)
    assert targets.max() <= 1
    others, _ = learning.batch([(seen, said)], 1, 1)
    assert not np.array_equal(patches, others)


@pytest.fixture(scope="module")
def trained():
    """A small network after three steps, so that its normalisation has something to say."""
    from tomoseg.segmentation.networks.keras_setup import keras

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "WIDTHS", (4, 5, 6, 6, 8))
        keras.utils.set_random_seed(1)
        model = learning.network(normalised=True)
        model.compile(keras.optimizers.Adam(3e-2), loss=learning.loss)
        rng = np.random.default_rng(0)
        for _ in range(3):
            patches = rng.normal(size=(2, 32, 48, 2)).astype(np.float32)
            model.train_on_batch(patches, (np.abs(patches) > 1).astype(np.float32))
        yield model, learning.without_normalisation(model)


def test_normalisation_becomes_part_of_the_weights(trained):
    normalised, plain = trained
    image = np.random.default_rng(1).normal(size=(1, 48, 32, 2)).astype(np.float32)
    expected = np.asarray(normalised(image, training=False))
    assert expected.std() > 1e-3
    np.testing.assert_allclose(np.asarray(plain(image)), expected, atol=1e-5)


def test_the_onnx_file_says_the_same(trained, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    plain = trained[1]
    learning.to_onnx(plain, tmp_path / "small.onnx")
    network = compiled(tmp_path / "small.onnx", workers=1, precision="f32")
    for shape in ((48, 32), (16, 64)):
        image = np.random.default_rng(2).normal(size=(1, *shape, 2)).astype(np.float32)
        said = network(np.ascontiguousarray(np.moveaxis(image, -1, 1)))[0]
        np.testing.assert_allclose(np.moveaxis(said, 1, -1), np.asarray(plain(image)), atol=1e-5)


def test_training_goes_on_from_the_onnx_file(trained, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    plain = trained[1]
    learning.to_onnx(plain, tmp_path / "small.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "WIDTHS", (4, 5, 6, 6, 8))
        again = learning.from_onnx(tmp_path / "small.onnx")
    for one, other in zip(plain.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_the_loss_is_least_for_the_truth():
    rng = np.random.default_rng(3)
    truth = (rng.random((2, 32, 32, 2)) > 0.7).astype(np.float32)
    losses = [float(learning.loss(truth, np.clip(truth + off, 0, 1))) for off in (0, 0.1, 0.3)]
    assert losses[0] < losses[1] < losses[2]
    assert losses[0] < 1e-4


def test_the_rate_rises_and_falls():
    of_phase = [[learning.rate(step, 1000, phase) for step in range(1000)] for phase in (0, 1)]
    assert max(of_phase[0]) > 0.9 * learning.RATES[0]
    assert of_phase[0][-1] > 0.5 * learning.RATES[0]
    assert of_phase[1][-1] < 0.02 * learning.RATES[1]
