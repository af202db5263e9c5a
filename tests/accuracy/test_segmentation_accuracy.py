"""Segmentation of objects with known truth: particle count and size by thresholds, Dice of a trained network."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from tomoseg import simulate
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.io.slices import find_pairs
from tomoseg.reconstruction.parameters import ReconstructParameters
from tomoseg.runtime import Runtime
from tomoseg.segmentation.parameters import SegmentParameters
from tomoseg.segmentation.training.parameters import TrainParameters
from tomoseg.stages.reconstruct import STAGE as RECONSTRUCT
from tomoseg.stages.segment import STAGE

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def dice(labels, truth, n_classes=3):
    return [
        2 * np.sum((labels == c) & (truth == c)) / (np.sum(labels == c) + np.sum(truth == c)) for c in range(n_classes)
    ]


def segment(volume, **params):
    outputs, runtime = MemoryOutputs(), Runtime()
    STAGE.run(
        volume=MemoryInput(volume, {"voxel_size_nm": 0.25}),
        params=SegmentParameters(**params),
        runtime=runtime,
        outputs=outputs,
    )
    return outputs


# --------------------------------------------------------------------------------------------------- thresholds


@functools.cache
def reconstructed(n_particles, seed, dose):
    """Return a phantom and the MLEM reconstruction of a noisy, aligned series of it with a missing wedge."""
    phantom, angles = simulate.catalyst(144, n_particles, seed), simulate.tilt_angles(68, 2)
    raw = simulate.acquire(simulate.project(phantom.density, angles), dose=dose, vacuum=0, black_level=0, seed=seed)
    outputs = MemoryOutputs()
    RECONSTRUCT.run(
        aligned=MemoryInput(raw.astype(np.float32)),
        angles_deg=MemoryInput(angles),
        tilt_quality=MemoryInput(np.zeros(len(angles), [("is_outlier", "u1")])),
        tilt_series_info=MemoryInput(attrs={"pixel_size_nm": 0.25}),
        params=ReconstructParameters(method="mlem", iterations=20, backend="cpu"),
        runtime=Runtime(),
        outputs=outputs,
    )
    return phantom, outputs.arrays["volume"]


# A catalyst as in the demonstration, and one with so few particles that they are 0.02 % of the volume.
@pytest.mark.parametrize(("n_particles", "seed", "dose"), [(40, 0, 400.0), (4, 1, 100.0)])
def test_thresholds_count_and_size_the_particles_of_a_reconstruction(n_particles, seed, dose):
    phantom, volume = reconstructed(n_particles, seed, dose)
    assert np.mean(phantom.labels == 2) < 0.01
    labels = segment(volume, method="otsu")
    particles, count = ndimage.label(labels.arrays["labels"] == 2, np.ones((3, 3, 3)))
    assert count == n_particles
    volumes = np.bincount(particles.ravel())[1:]
    diameter = np.mean((6 * volumes / np.pi) ** (1 / 3))
    # Stated goal: within 2 %. Measured: 0.5 % too large to 0.9 % too small, since half height under-rates spheres near
    # the resolution; 1.4 to 3 % too small with rims left around them.
    assert diameter == pytest.approx(phantom.particles["diameter_px"].mean(), rel=0.02)
    # The missing wedge smears the support along the beam, which no threshold undoes: measured 0.92 to 0.95.
    scores = dice(labels.arrays["labels"], phantom.labels)
    assert scores[1] > 0.9
    assert scores[2] > 0.9


# ------------------------------------------------------------------------------------------------------ network


def test_the_network_that_ships_knows_a_catalyst_it_has_never_seen():
    phantom, volume = reconstructed(40, 0, 400.0)
    middle = np.s_[:, 40:104]
    labels, truth = segment(volume[middle], model="gamma-alumina-pt").arrays["labels"], phantom.labels[middle]
    found, true = (ndimage.label(volume == 2, np.ones((3, 3, 3)))[1] for volume in (labels, truth))
    assert true > 20
    assert found == pytest.approx(true, abs=2)
    # Measured in the whole volume: 40 particles of 40, Dice of 0.995, 0.914 and 0.910.
    scores = dice(labels, truth)
    assert scores[1] > 0.88
    assert scores[2] > 0.88


def noisy(phantom, seed):
    """Return what a reconstruction of a phantom might look like: blurred and noisy, support at 60, particles at 270."""
    rng = np.random.default_rng(seed)
    clean = 60 * ndimage.gaussian_filter(phantom.density, 0.8)
    return np.maximum(clean + rng.normal(4, 8, clean.shape), 0).astype(np.float32)


def slices_in_folders(root, n, seed):
    """Write `n` xz slices of a phantom and its labels as 8-bit images."""
    from PIL import Image

    phantom = simulate.catalyst(96, 30, seed, mean_diameter_px=7.0)
    volume = np.clip(np.rint(noisy(phantom, seed)), 0, 255).astype(np.uint8)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for y in np.linspace(20, 76, n).astype(int):
        Image.fromarray(volume[:, y]).save(root / "images" / f"s_{y:03d}.tif")
        Image.fromarray(phantom.labels[:, y]).save(root / "labels" / f"s_{y:03d}.tif")
    return find_pairs(root / "images", root / "labels")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Train a small network on the slices of one phantom."""
    from tomoseg.io.slices import load_pairs
    from tomoseg.segmentation.training.trainer import train

    root = tmp_path_factory.mktemp("network")
    data = load_pairs(slices_in_folders(root / "train", 24, seed=0))
    settings = TrainParameters(epochs=10, batch=4, patch=64, learning_rate=3e-3, depth=3, base_filters=8, seed=1)
    return train(data.images, data.labels, root / "net.keras", names=data.names, params=settings, runtime=Runtime())


@pytest.mark.slow
def test_a_small_network_segments_slices_of_an_object_it_never_saw(network, tmp_path):
    from tomoseg.segmentation.evaluation.model_evaluation import evaluate_model

    evaluation = evaluate_model(network.model, slices_in_folders(tmp_path, 12, seed=5), runtime=Runtime())
    pooled = evaluation.pooled()["dice"]
    assert (pooled > 0.9).all(), pooled
    # Its surfaces are right to a pixel at the median.
    assert (evaluation.hausdorff_statistic().mean[:, 0] <= 1).all()
    # One by one: measured 40 of 43 found and none invented; those missed have less than 4 px across.
    objects, sizes = evaluation.detection.scores(), evaluation.detection.by_size([0, 4, np.inf])
    assert objects["precision"] > 0.9, objects
    assert objects["recall"] > 0.8, objects
    assert sizes["recall"][1] > 0.95, sizes
    # Measured: off by 0.008 over all pixels.
    assert evaluation.calibration.to_dict()["ece"] < 0.03


def test_it_segments_a_float_volume_in_another_unit(network):
    # Trained on 8-bit slices that saturate, used on a float volume in a unit 1000 times smaller, mostly empty.
    phantom = simulate.catalyst(96, 30, seed=7, mean_diameter_px=7.0)
    outputs = segment(noisy(phantom, 7) * 1e-3, model=network.model)
    scores = dice(outputs.arrays["labels"], phantom.labels)
    assert min(scores) > 0.9, scores
    # Where it says that it is certain it is right far more often than where it is not.
    wrong = outputs.arrays["labels"] != phantom.labels
    certain = outputs.arrays["confidence"] > 230
    assert wrong[certain].mean() < 0.2 * wrong[~certain].mean()
