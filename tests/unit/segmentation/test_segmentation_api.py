"""The public function: the bits of the stage, the sentences of the command line, documented shapes, an example."""

import doctest
import inspect

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError, StageFailed, TomosegWarning
from tomoseg.runtime import Runtime
from tomoseg.segmentation import api
from tomoseg.segmentation.api import Segmentation, segment
from tomoseg.segmentation.parameters import SegmentParameters
from tomoseg.stages.segment import STAGE

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates; labels by thresholds always come with a warning.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:labels were made by intensity thresholds"),
    pytest.mark.filterwarnings("ignore:the volume differs from the slices"),
    pytest.mark.filterwarnings("ignore:the network is unsure"),
]


@pytest.fixture(scope="module")
def volume():
    """A slab of support with particles, blurred and noisy."""
    rng = np.random.default_rng(0)
    density = np.zeros((28, 32, 36))
    density[8:20, 5:27, 6:30] = 75
    for z, y, x in rng.integers(9, 19, (5, 3)):
        density[z - 2 : z + 2, y - 2 : y + 2, x - 2 : x + 2] = 330
    return (ndimage.gaussian_filter(density, 0.7) + rng.normal(0, 4, density.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small network of random weights, trained on pixels of 0.12 nm as its card has it."""
    from tomoseg.segmentation.data.intensity_scaling import Scale, Scaling
    from tomoseg.segmentation.networks.builders import build
    from tomoseg.segmentation.networks.card import ModelCard
    from tomoseg.segmentation.networks.model_file import save_model

    scaling = Scaling("levels", "uint8", Scale(0.0, 57.0, -0.1, 4.5))
    card = ModelCard(["void", "oxide", "metal"], ["#000000", "#0072b2", "#e69f00"], scaling, 16, 2, pixel_size_nm=0.12)
    path = tmp_path_factory.mktemp("model") / "random.keras"
    save_model(build("unet", 3, depth=2, base_filters=3, seed=0), path, card)
    return path


def by_the_stage(volume, voxel_size_nm, **options):
    outputs, runtime = MemoryOutputs(), Runtime(device="cpu")
    given = MemoryInput(volume, {"voxel_size_nm": voxel_size_nm})
    STAGE.run(volume=given, params=SegmentParameters.of("segment", options), runtime=runtime, outputs=outputs)
    return outputs, runtime


@pytest.mark.parametrize(
    "options",
    [
        {"method": "otsu"},
        {"classes": 2, "smooth": 0.0, "min_size": 1},
        {"thresholds": [40.0, 180.0], "class_names": ["vacuum", "oxide", "metal"], "min_size": [5, 3]},
        {"model": "random", "tta": "flips"},
        {"model": "random", "plane": "all", "min_size": 4},
    ],
    ids=str,
)
def test_the_function_gives_the_bits_of_the_stage(volume, network, options):
    if "model" in options:
        options = {**options, "model": network}
    outputs, runtime = by_the_stage(volume, 0.12, **options)
    found = segment(volume, voxel_size_nm=0.12, device="cpu", **options)
    assert isinstance(found, Segmentation)
    np.testing.assert_array_equal(found.labels, outputs.arrays["labels"], strict=True)
    assert (found.labels.shape, found.labels.dtype) == (volume.shape, np.uint8)
    if "model" in options:
        np.testing.assert_array_equal(found.confidence, outputs.arrays["confidence"], strict=True)
        assert (found.confidence.shape, found.confidence.dtype) == (volume.shape, np.uint8)
    else:
        assert found.confidence is None
    assert (found.class_names, found.class_colors) == (
        outputs.attrs["labels"]["class_names"],
        outputs.attrs["labels"]["class_colors"],
    )
    info = {k: v for k, v in outputs.attrs["segmentation_info"].items() if k != "parameters"}
    assert {**found.info, "class_fractions": found.class_fractions} == info
    np.testing.assert_allclose(found.class_fractions, np.bincount(found.labels.ravel()) / volume.size)
    told = [[note for note in notes if "TensorFlow" not in note] for notes in (found.notes, runtime.notes)]
    assert told[0] == told[1]
    assert found.warnings == runtime.warnings
    assert np.all(np.bincount(found.labels.ravel()) > 100)  # something to compare


def test_the_network_that_ships_along_goes_by_its_name(volume):
    found = segment(volume[8:24, 10:14, 8:24], model="gamma-alumina-pt", voxel_size_nm=0.12, device="cpu")
    assert found.class_names == ["background", "alumina", "Pt"]
    assert found.labels.shape == found.confidence.shape == (16, 4, 16)
    assert found.info["model"] == "gamma-alumina-pt.keras"


def test_a_handle_brings_its_voxel_size(volume, network):
    handle = MemoryInput(volume, {"voxel_size_nm": 0.24})
    found = segment(handle, model=network, max_memory="64M")
    assert found.info["zoom"] == pytest.approx(2)
    known = segment(volume, voxel_size_nm=0.24, model=network)
    np.testing.assert_array_equal(found.labels, known.labels)
    unknown = segment(volume, model=network)
    assert unknown.info["zoom"] == 1
    assert any("voxel size is unknown" in note for note in unknown.notes)


def test_nested_lists_are_a_volume_too(volume):
    part = np.round(volume[4:12, 2:10, 2:12])
    np.testing.assert_array_equal(
        segment(part.tolist(), classes=2).labels, segment(part.astype(np.float64), classes=2).labels
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clases": 3}, "segment.clases: there is no such parameter; segment has method, model, classes"),
        ({"classes": 1}, "segment.classes: input should be greater than or equal to 2, got 1"),
        ({"method": "unet"}, "segment.method is unet, but no network is named: set segment.model"),
        ({"model": "no-such-network"}, "segment.model: there is no network named 'no-such-network'"),
        ({"model": "gamma-alumina-pt", "patch": 7}, "segment.patch is 7: for this network it must be a multiple of"),
        ({"thresholds": [2.0, 1.0]}, "3 classes need 2 ascending thresholds"),
        ({"class_names": ["a", "b"]}, "segment.class_names has 2 names, but segment.classes is 3"),
        ({"engine": "none"}, "segment.engine: input should be 'auto', 'keras', 'openvino'"),
        ({"voxel_size_nm": 0}, "voxel_size_nm is 0: a size must be from"),
        ({"device": "tpu"}, "device is tpu"),
    ],
)
def test_wrong_options_are_told_as_on_the_command_line(volume, options, message):
    with pytest.raises(InputError) as raised:
        segment(volume, **options)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 5)), np.zeros((0, 4, 5)), np.zeros((3, 4, 5), bool), np.zeros((3, 4, 5), complex)]
)
def test_what_is_no_volume_is_refused(array):
    with pytest.raises(InputError, match=r"a \(z, y, x\) array of numbers"):
        segment(array)


def test_a_volume_without_contrast_is_refused():
    with pytest.raises(StageFailed, match="nothing but the value 7"):
        segment(np.full((4, 5, 6), 7.0))


def test_warnings_are_issued_and_the_volume_is_left_alone(volume):
    before = volume.copy()
    with pytest.warns(TomosegWarning, match="not by a trained network"):
        found = segment(volume, method="otsu")
    assert len(found.warnings) == 1
    np.testing.assert_array_equal(volume, before)


def test_the_example_in_the_docstring_runs():
    assert segment.__doc__.index("Other Parameters") < segment.__doc__.index("Returns")
    assert {"classes", "model", "tta", "voxel_size_nm", "workers"} <= set(inspect.signature(segment).parameters)
    (test,) = doctest.DocTestFinder(recurse=False).find(segment, "segment", module=api, globs={})
    assert len(test.examples) >= 4
    assert doctest.DocTestRunner().run(test).failed == 0
