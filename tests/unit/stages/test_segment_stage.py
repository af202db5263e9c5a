"""The segment stage: thresholds and network, slab by slab, with everything said and stored."""

import errno
import hashlib

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from tests.unit.stages.interruptions import Fatal, Killed, killed_again_and_again
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError, Interrupted, StageFailed
from tomoseg.runtime import Runtime
from tomoseg.segmentation.inference import engines, occupied, volume_planes
from tomoseg.segmentation.parameters import SegmentParameters
from tomoseg.stages.segment import STAGE

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

LEVELS = np.array([0.0, 75.0, 330.0])


class Watched(MemoryInput):
    """A volume that remembers the largest part of it that was read at once."""

    largest = 0

    def __getitem__(self, key):
        part = super().__getitem__(key)
        self.largest = max(self.largest, part.size)
        return part


def ball(shape, centre, radius):
    grid = np.indices(shape)
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < radius**2


@pytest.fixture(scope="module")
def phantom():
    """A slab of support with three particles and a speck, blurred and noisy, and its labels without the speck."""
    shape = (36, 40, 44)
    labels = np.zeros(shape, np.uint8)
    labels[10:26, 6:34, 8:38] = 1
    for centre in ((12, 12, 14), (18, 26, 30), (24, 14, 30)):
        labels[ball(shape, centre, 4.0)] = 2
    speck = labels.copy()
    speck[18:20, 10:12, 24:26] = 2
    clean = ndimage.gaussian_filter(LEVELS[speck], 0.6)
    noise = np.random.default_rng(0).normal(0, 6, shape)
    volume = np.where(clean > 1, clean + noise, np.abs(0.1 * noise)).astype(np.float32)
    return volume, labels


def run(volume, runtime=None, voxel_size_nm=0.3, outputs=None, **params):
    """Run the stage, by thresholds unless a network is named; see `test_the_default` for what users get."""
    outputs, runtime = outputs or MemoryOutputs(), runtime or Runtime(device="cpu")
    if "model" not in params:
        params = {"method": "otsu"} | params
    STAGE.run(
        volume=MemoryInput(volume, {"voxel_size_nm": voxel_size_nm}) if isinstance(volume, np.ndarray) else volume,
        params=SegmentParameters(**params),
        runtime=runtime,
        outputs=outputs,
    )
    return outputs, runtime


# --------------------------------------------------------------------------------------------------- thresholds


def test_thresholds_find_the_classes(phantom):
    volume, truth = phantom
    outputs, runtime = run(volume)
    labels = outputs.arrays["labels"]
    assert labels.dtype == np.uint8
    for c in range(3):
        overlap = 2 * np.sum((labels == c) & (truth == c)) / (np.sum(labels == c) + np.sum(truth == c))
        assert overlap > 0.95, c  # a blur of 0.6 px rounds corners and the rims of balls of 8 px
    assert ndimage.label(labels == 2, np.ones((3, 3, 3)))[1] == 3  # the speck is gone
    assert outputs.attrs["labels"] == {
        "class_names": ["background", "support", "particles"],
        "class_colors": ["#000000", "#0072b2", "#e69f00"],
        "voxel_size_nm": 0.3,
    }
    info = outputs.attrs["segmentation_info"]
    assert info["method"] == "otsu"
    # Half heights between the levels. Half of the voxels of balls of 8 px lie in their blurred rim, which lowers the
    # median of that class, and with it the threshold, by a sixth.
    np.testing.assert_allclose(info["thresholds"][0], 37.5, rtol=0.05)
    np.testing.assert_allclose(info["thresholds"][1], 202.5, rtol=0.17)
    np.testing.assert_allclose(info["class_fractions"], [np.mean(labels == c) for c in range(3)])
    assert "confidence" not in outputs.arrays
    assert any("not by a trained network" in w and "support above" in w for w in runtime.warnings)
    assert "small objects removed (fewer than 20 voxels): 0 of support, 1 of particles" in runtime.notes


def test_slabs_change_nothing_and_bound_what_is_read(phantom):
    volume, _ = phantom
    whole, _ = run(volume)
    watched = Watched(volume, {"voxel_size_nm": 0.3})
    # Half of what is allowed holds about 12 of the 36 planes, at 8 bytes per voxel for smoothing and 14 for the rest.
    pieces, _ = run(watched, Runtime(max_memory=2 * (8 + 14) * 12 * 40 * 44))
    np.testing.assert_array_equal(whole.arrays["labels"], pieces.arrays["labels"])
    assert watched.largest < 24 * 40 * 44
    assert pieces.attrs == whole.attrs


def assert_continues_to_the_same_result(volume, every, choices, **params):
    """Kill runs at every n-th checkpoint and continue them with other memory; compare with an undisturbed run."""
    whole, undisturbed = run(volume, **params)
    runtimes = []

    def again(outputs, max_memory):
        runtimes.append(Runtime(device="cpu", max_memory=max_memory))
        run(volume, runtimes[-1], outputs=outputs, **params)

    resumed = killed_again_and_again(again, every, choices)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], array, strict=True)
    assert resumed.attrs == whole.attrs
    last = runtimes[-1]
    assert any("continuing after" in note for note in last.notes)
    # When and how often TensorFlow was started in this process is no matter of the runs.
    told = [[n for n in r.notes if "continuing" not in n and "TensorFlow" not in n] for r in (undisturbed, last)]
    assert told[0] == told[1]
    assert last.warnings == undisturbed.warnings


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


# Memory for slabs of 1, 4, 10 and all planes of the phantom.
MEMORY = [1, 2 * 1760 * (32 + 4 * 14), 2 * 1760 * (32 + 10 * 14), 1 << 30]


@pytest.mark.parametrize(
    ("every", "order"),
    [slow(1, (1,)), slow(1, (2, 1)), (2, (2, 0)), slow(3, (0, 1, 2)), slow(2, (2, 3)), slow(7, (0, 1))],
)
@pytest.mark.parametrize("params", [{}, {"min_size": 1}, {"thresholds": [40.0, 150.0], "smooth": 0.0}])
def test_killed_runs_by_thresholds_continue_to_the_very_same_labels(phantom, every, order, params):
    assert_continues_to_the_same_result(phantom[0], every, [MEMORY[i] for i in order], **params)


def test_thresholds_are_not_sought_twice(phantom):
    first = Fatal(1)  # as soon as they are known
    with pytest.raises(Killed):
        run(phantom[0], outputs=first)
    state, arrays = first.kept
    assert state["slices"] == 0
    assert len(state["levels"]) == 3
    state["thresholds"] = [40.0, 150.0]
    resumed, _ = run(phantom[0], outputs=MemoryOutputs(state, arrays))
    assert resumed.attrs["segmentation_info"]["thresholds"] == [40.0, 150.0]
    assert resumed.attrs["segmentation_info"]["class_levels"] == state["levels"]


def test_the_input_is_left_alone(phantom):
    volume, _ = phantom
    before = volume.copy()
    run(volume)
    np.testing.assert_array_equal(volume, before)


def test_two_classes_and_names_of_ones_own(phantom):
    volume, truth = phantom
    outputs, runtime = run(
        volume, classes=2, class_names=["vacuum", "solid"], class_colors=["#111111", "#eeeeee"], voxel_size_nm=np.nan
    )
    labels = outputs.arrays["labels"]
    assert np.mean((labels == 1) == (truth > 0)) > 0.98
    assert outputs.attrs["labels"]["class_names"] == ["vacuum", "solid"]
    assert np.isnan(outputs.attrs["labels"]["voxel_size_nm"])
    assert any("solid above" in w for w in runtime.warnings)


def test_thresholds_by_hand_are_taken_as_they_are(phantom):
    volume, _ = phantom
    outputs, _ = run(volume, thresholds=[40, 150, 300], classes=4, smooth=0, min_size=1)
    expected = np.digitize(volume, [40, 150, 300], right=True)
    np.testing.assert_array_equal(outputs.arrays["labels"], expected)
    assert outputs.attrs["segmentation_info"]["thresholds"] == [40, 150, 300]


def test_an_empty_class_is_pointed_out(phantom):
    volume, _ = phantom
    _, runtime = run(volume, thresholds=[40, 1e6])
    assert any("no voxel was labelled as particles" in w for w in runtime.warnings)


@pytest.mark.parametrize(("value", "message"), [(0.0, "nothing but the value 0"), (np.nan, "NaN")])
def test_unusable_volumes_are_refused(value, message):
    with pytest.raises(StageFailed, match=message):
        run(np.full((4, 5, 6), value, np.float32))


def test_a_signal_stops_it(phantom, monkeypatch):
    monkeypatch.setattr("tomoseg.runtime._signals", [2])
    with pytest.raises(Interrupted):
        run(phantom[0])


# ----------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "unet"}, "no network is named"),
        ({"class_names": ["a", "b"]}, "has 2 names, but segment.classes is 3"),
        ({"class_names": ["a", "b", "b"]}, "holds b twice"),
        ({"class_colors": ["#000000"]}, "1 colours for 3 classes"),
        ({"class_colors": ["red", "green", "blue"]}, "#rrggbb"),
        ({"thresholds": [3.0, 1.0]}, "ascending"),
        ({"thresholds": [1.0]}, "need 2 ascending"),
        ({"model": "/nowhere/model.keras"}, "does not exist"),
        ({"min_size": 0}, "voxels of 1 or more"),
        ({"min_size": [5, 0]}, "voxels of 1 or more"),
        ({"min_size": [1, 2, 3]}, "has 3 numbers: give one, or 2"),
    ],
)
def test_problems_are_found_before_computing(params, message, phantom):
    problems = STAGE.check(SegmentParameters(**params))
    assert any(message in problem for problem in problems), problems
    with pytest.raises(InputError, match=message):
        run(phantom[0], **params)


def test_a_file_that_is_no_model_is_found_before_computing(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("nothing of the kind")
    assert "not a .keras file" in STAGE.check(SegmentParameters(model=path))[0]
    assert "uses no network" in "".join(STAGE.check(SegmentParameters(model=path, method="otsu")))


def test_defaults_are_fine_and_unknown_keys_are_not():
    assert STAGE.check(SegmentParameters()) == []
    with pytest.raises(ValidationError):
        SegmentParameters(clases=3)
    with pytest.raises(ValidationError):
        SegmentParameters(classes=1)


def test_the_model_is_an_input_file():
    assert SegmentParameters.input_file_fields() == ["model"]


# ---------------------------------------------------------------------------------------------------- network


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """A network that thresholds: one 1x1 convolution with set weights, softmax over three classes."""
    from tomoseg.segmentation.data.intensity_scaling import Scale, Scaling
    from tomoseg.segmentation.networks.builders import build
    from tomoseg.segmentation.networks.card import ModelCard
    from tomoseg.segmentation.networks.model_file import save_model

    # depth 1: two convolutions and the classifier. Everything but the centre of the kernels is 0, so that the logits
    # are -40 (s - 0.5), 0 and 40 (s - 2.5) for the scaled intensity s (0 vacuum, 1 support, 4.4 particles), cut at 0.
    net = build("unet", 3, depth=1, base_filters=2)
    first, second, last = np.zeros((3, 3, 1, 2)), np.zeros((3, 3, 2, 2)), np.zeros((1, 1, 2, 3))
    first[1, 1, 0, 0], second[1, 1, 0, 0], last[0, 0, 0] = 1, 1, [-40, 0, 40]
    net.set_weights([first, np.zeros(2), second, np.zeros(2), last, np.array([20.0, 0.0, -100.0])])
    scaling = Scaling("levels", "uint8", Scale(0.0, 57.0, -0.1, 4.5))
    card = ModelCard(["void", "oxide", "metal"], ["#000000", "#0072b2", "#e69f00"], scaling, 16, 1, pixel_size_nm=0.3)
    path = tmp_path_factory.mktemp("model") / "thresholds.keras"
    save_model(net, path, card)
    return path


@pytest.mark.parametrize("plane", ["xz", "xy", "yz"])
def test_a_network_labels_slice_by_slice_in_any_plane(phantom, model_path, plane):
    volume, truth = phantom
    outputs, runtime = run(volume, model=model_path, plane=plane)
    labels, confidence = outputs.arrays["labels"], outputs.arrays["confidence"]
    # It thresholds at half a support and 2.5 supports; the levels come from the volume, in its own unit.
    support = outputs.attrs["segmentation_info"]["intensity_one"]
    assert support == pytest.approx(75, abs=2)
    np.testing.assert_array_equal(labels, np.digitize(volume, [0.5 * support, 2.5 * support]))
    assert confidence.dtype == np.uint8
    assert confidence.min() >= 255 // 3
    assert (confidence[truth == 0] > 250).mean() > 0.95
    info = outputs.attrs["segmentation_info"]
    assert info["method"] == "unet"
    assert info["plane"] == plane
    assert info["model_sha256"] == hashlib.sha256(model_path.read_bytes()).hexdigest()
    assert outputs.attrs["labels"]["class_names"] == ["void", "oxide", "metal"]
    assert runtime.warnings == []


def test_a_network_in_slabs_gives_the_same(phantom, model_path, monkeypatch):
    volume, _ = phantom
    whole, _ = run(volume, model=model_path)
    watched = Watched(volume, {"voxel_size_nm": 0.3})
    monkeypatch.setattr(volume_planes, "MAX_SLAB_SLICES", 1)
    pieces, _ = run(watched, Runtime(device="cpu", max_memory=1 << 20), model=model_path)
    np.testing.assert_array_equal(whole.arrays["labels"], pieces.arrays["labels"])
    np.testing.assert_array_equal(whole.arrays["confidence"], pieces.arrays["confidence"])
    assert watched.largest <= 36 * 16 * 44  # where vacuum is looked for; then one plane at a time


@pytest.mark.parametrize("plane", ["xz", "xy", "yz", "all"])
def test_a_network_does_not_look_at_clean_vacuum(phantom, model_path, plane, monkeypatch):
    volume, before, after = phantom[0], (30, 25, 20), (35, 15, 30)
    vacuum = np.pad(np.where(volume > 30, volume, 0), list(zip(before, after, strict=True)))
    looked_at, runtime = run(vacuum, model=model_path, plane=plane, overlap=1, engine="keras")
    (note,) = [note for note in runtime.notes if "beyond them is vacuum" in note]
    assert "48 x 48 x 48 voxels" in note
    monkeypatch.setattr(occupied, "WORTHWHILE", 0)
    whole, _ = run(vacuum, model=model_path, plane=plane, overlap=1, engine="keras")
    assert "looked_at" in looked_at.attrs["segmentation_info"]
    assert "looked_at" not in whole.attrs["segmentation_info"]
    for name in ("labels", "confidence"):
        np.testing.assert_array_equal(looked_at.arrays[name], whole.arrays[name])
    for key in ("class_fractions", "class_counts", "expected_dice"):
        if key in whole.attrs["segmentation_info"]:
            assert looked_at.attrs["segmentation_info"][key] == pytest.approx(whole.attrs["segmentation_info"][key])


@pytest.mark.parametrize(("every", "order"), [slow(1, (1,)), (3, (2, 1, 0))])
def test_killed_runs_that_look_at_a_part_continue_to_the_very_same_labels(phantom, model_path, every, order):
    vacuum = np.pad(np.where(phantom[0] > 30, phantom[0], 0), ((30, 35), (40, 20), (20, 30)))
    memory = [1, 350_000, 1 << 30]
    assert_continues_to_the_same_result(vacuum, every, [memory[i] for i in order], model=model_path, overlap=1)


@pytest.mark.parametrize(("every", "order"), [slow(1, (1,)), slow(2, (1, 2)), (3, (2, 1, 0))])
@pytest.mark.parametrize("plane", ["xz", "xy", "yz"])
def test_killed_runs_of_a_network_continue_to_the_very_same_labels(phantom, model_path, plane, every, order):
    # Slabs of 1, a few and 16 slices: a slice takes nine patches of 12 KiB, 75 KiB to work with it, and 12 KiB to keep.
    memory = [1, 350_000, 1 << 30]
    assert_continues_to_the_same_result(
        phantom[0], every, [memory[i] for i in order], model=model_path, plane=plane, overlap=1
    )


def test_a_network_computed_by_something_else_starts_anew(phantom, model_path):
    first = Fatal(1)
    with pytest.raises(Killed):
        run(phantom[0], outputs=first, model=model_path)
    state, arrays = first.kept
    assert (state["slices"], state["device"]) == (16, "cpu")
    assert state["engine"].split()[0] in ("keras", "openvino")
    arrays["labels"][:, :16] = 2
    kept, _ = run(phantom[0], outputs=MemoryOutputs(state, dict(arrays)), model=model_path)
    assert np.all(kept.arrays["labels"][:, :16] == 2)
    whole, _ = run(phantom[0], model=model_path)
    for other in ({"device": "cuda"}, {"engine": "another 1.0"}):
        left = {name: array.copy() for name, array in arrays.items()}
        anew, _ = run(phantom[0], outputs=MemoryOutputs({**state, **other}, left), model=model_path)
        np.testing.assert_array_equal(anew.arrays["labels"], whole.arrays["labels"])
        assert anew.attrs == whole.attrs


@pytest.mark.parametrize("voxel_size_nm", [0.3e-3, 0.3e3])
def test_a_pixel_size_in_another_unit_is_refused(phantom, model_path, voxel_size_nm):
    with pytest.raises(InputError, match="Correct the pixel size"):
        run(phantom[0], model=model_path, voxel_size_nm=voxel_size_nm)


@pytest.fixture(scope="module")
def directed_path(tmp_path_factory):
    """A network of random weights: what it makes of a voxel depends on the plane and on the direction."""
    from tomoseg.segmentation.data.intensity_scaling import Scale, Scaling
    from tomoseg.segmentation.networks.builders import build
    from tomoseg.segmentation.networks.card import ModelCard
    from tomoseg.segmentation.networks.model_file import save_model

    scaling = Scaling("levels", "uint8", Scale(0.0, 57.0, -0.1, 4.5))
    card = ModelCard(["void", "oxide", "metal"], ["#000000", "#0072b2", "#e69f00"], scaling, 16, 2, pixel_size_nm=0.3)
    path = tmp_path_factory.mktemp("model") / "directed.keras"
    save_model(build("unet", 3, depth=2, base_filters=3, seed=4), path, card)
    return path


@pytest.mark.parametrize("most_slices", [1, 16])
def test_all_planes_give_the_mean_of_the_three(phantom, directed_path, most_slices, monkeypatch):
    from tomoseg.segmentation.data.intensity_scaling import Scale
    from tomoseg.segmentation.inference.slice_prediction import NORMAL_AXIS, SlicePredictor
    from tomoseg.segmentation.networks.model_file import load_model

    volume = phantom[0][:10, :22, :18]
    monkeypatch.setattr(volume_planes, "MAX_SLAB_SLICES", most_slices)
    outputs, _ = run(volume, model=directed_path, plane="all")
    info = outputs.attrs["segmentation_info"]
    model, card = load_model(directed_path)
    scale = Scale(info["intensity_zero"], info["intensity_one"], -0.1, 4.5)
    predictor = SlicePredictor.of(model, card, scale)
    passes = []
    for axis in NORMAL_AXIS.values():
        probabilities = predictor.probabilities(np.moveaxis(volume, axis, 0))  # n, classes, h, w
        passes.append(np.moveaxis(np.moveaxis(probabilities, 1, 0), 1, axis + 1))
    assert max(np.abs(passes[0] - other).max() for other in passes[1:]) > 0.1  # planes do differ
    mean = np.mean(passes, axis=0)
    first, second = np.sort(mean, axis=0)[[-1, -2]]
    clear = first - second > 1e-4  # the sums are kept in steps of 1 / 65535
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(outputs.arrays["labels"][clear], mean.argmax(axis=0)[clear])
    np.testing.assert_allclose(outputs.arrays["confidence"], 255 * first, atol=0.52)
    assert info["plane"] == "all"
    np.testing.assert_allclose(info["class_fractions"], np.bincount(outputs.arrays["labels"].ravel()) / volume.size)


def test_all_planes_need_room_for_their_sums(phantom, model_path, monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr("tomoseg.scratch.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StageFailed, match="set TMPDIR"):
        run(phantom[0], model=model_path, plane="all")


@pytest.mark.parametrize(("number", "refused"), [(errno.ENOSPC, True), (errno.EOPNOTSUPP, False)])
def test_a_file_system_that_cannot_reserve_is_none_that_is_full(phantom, model_path, monkeypatch, number, refused):
    def refuse(*_):
        raise OSError(number, "no")

    monkeypatch.setattr("tomoseg.scratch.os.posix_fallocate", refuse, raising=False)
    if refused:
        with pytest.raises(StageFailed, match="set TMPDIR"):
            run(phantom[0], model=model_path, plane="all")
    else:
        outputs, _ = run(phantom[0][8:24, 8:24], model=model_path, plane="all", overlap=1)
        assert len(np.unique(outputs.arrays["labels"])) == 3


def test_slices_in_one_piece_and_test_time_augmentation(phantom, directed_path):
    from tomoseg.segmentation.data.intensity_scaling import Scale
    from tomoseg.segmentation.networks.model_file import load_model

    volume = phantom[0][:11, :6, :17]
    outputs, _ = run(volume, model=directed_path, patch=0, tta="dihedral")
    info = outputs.attrs["segmentation_info"]
    assert info["patch_px"] == [12, 18]
    model, _ = load_model(directed_path)
    slices = Scale(info["intensity_zero"], info["intensity_one"], -0.1, 4.5)(np.moveaxis(volume, 1, 0))
    padded = np.pad(slices, ((0, 0), (0, 1), (0, 1)), mode="symmetric")
    total = 0
    for turned in (lambda p: p, lambda p: p.swapaxes(1, 2)):
        for axes in ((), (1,), (2,), (1, 2)):
            predicted = np.asarray(model.predict_on_batch(np.flip(turned(padded), axes)[..., None]))
            total = total + turned(np.flip(predicted, axes)) / 8
    np.testing.assert_allclose(
        outputs.arrays["confidence"], 255 * np.moveaxis(total.max(axis=-1)[:, :11, :17], 0, 1), atol=0.51
    )
    plain, _ = run(volume, model=directed_path, patch=0)
    assert not np.array_equal(plain.arrays["confidence"], outputs.arrays["confidence"])


@pytest.mark.parametrize("plane", ["xz", "all"])
def test_small_objects_of_a_network_are_removed_by_class(phantom, model_path, plane):
    volume = phantom[0].copy()
    volume[3:5, 3, 3] = 400  # a speck of two voxels in vacuum
    kept, _ = run(volume, model=model_path, plane=plane)
    outputs, runtime = run(volume, model=model_path, plane=plane, min_size=[3, 20])
    before, after = kept.arrays["labels"], outputs.arrays["labels"]
    assert (before[3:5, 3, 3] == 2).all()
    assert (after[3:5, 3, 3] == 0).all()
    # The speck of eight voxels in the support becomes support, and all else stays.
    assert (before[18:20, 10:12, 24:26] == 2).all()
    assert (after[18:20, 10:12, 24:26] == 1).all()
    expected = before.copy()
    for k, least in ((2, 20), (1, 3)):
        found, _ = ndimage.label(expected >= k, np.ones((3, 3, 3)))
        small = (np.bincount(found.ravel()) < least)[found] & (found > 0)
        expected[small] = k - 1
    np.testing.assert_array_equal(after, expected)
    info = outputs.attrs["segmentation_info"]
    assert info["min_size_voxels"] == [3, 20]
    np.testing.assert_allclose(info["class_fractions"], [np.mean(after == c) for c in range(3)])
    assert any("1 of oxide (fewer than 3 voxels), 2 of metal (fewer than 20 voxels)" in note for note in runtime.notes)


# The removal takes 36, 4 and 1 slabs; for all planes there are no checkpoints but those of it.
@pytest.mark.parametrize(
    ("plane", "every", "order"),
    [slow("yz", 1, (1,)), slow("yz", 2, (1, 2)), ("yz", 4, (2, 1, 0)), slow("all", 1, (1,)), ("all", 2, (1, 2))],
)
def test_killed_runs_continue_where_small_objects_are_removed(phantom, model_path, plane, every, order):
    memory = [1, 350_000, 1 << 30]
    choices = [memory[i] for i in order]
    volume = phantom[0][:, :20]
    volume = np.where(np.random.default_rng(3).random(volume.shape) < 0.001, 400, volume).astype(np.float32)
    assert_continues_to_the_same_result(volume, every, choices, model=model_path, plane=plane, overlap=1, min_size=20)


def test_outliers_and_padding_do_not_move_the_levels(phantom, model_path):
    volume = phantom[0]
    plain, _ = run(volume, model=model_path)
    spiked = volume.copy()
    spiked[18, 20, 20], spiked[0, 0, 0] = 1e7, -1e6
    padded = np.pad(volume, ((0, 0), (0, 0), (0, 44)))
    for other in (spiked, padded):
        outputs, _ = run(other, model=model_path)
        for key, allowed in (("intensity_zero", 2), ("intensity_one", 2)):
            assert outputs.attrs["segmentation_info"][key] == pytest.approx(
                plain.attrs["segmentation_info"][key], abs=allowed
            )


def test_nan_beyond_the_slices_looked_at_is_refused_too(model_path):
    volume = np.random.default_rng(0).normal(LEVELS[np.arange(200) % 3][:, None, None], 5, (200, 8, 8))
    volume[1, 3, 3] = np.nan  # 64 of 200 planes are looked at
    with pytest.raises(StageFailed, match="NaN"):
        run(volume.astype(np.float32), model=model_path)


def test_a_volume_unlike_the_training_slices_is_warned_of(phantom, model_path, tmp_path):
    from dataclasses import replace

    from tomoseg.segmentation.networks.model_file import load_model, save_model

    model, card = load_model(model_path)
    path = tmp_path / "told.keras"
    # The phantom's noise is 6 of 75 in the support, and a tenth of that in vacuum; its particles are at 330 of 75.
    seen = {"noise": 0.005, "brightest": 4.0}
    save_model(model, path, replace(card, scaling=replace(card.scaling, intensities=seen)))
    _, runtime = run(phantom[0], model=path)
    assert runtime.warnings == []
    bright = np.where(
        phantom[0] > 200, 4 * phantom[0], phantom[0] + np.random.default_rng(0).normal(0, 4, (36, 40, 44))
    )
    _, runtime = run(bright.astype(np.float32), model=path)
    (warning,) = runtime.warnings
    assert "differs from the slices the network was trained on" in warning
    assert "the noise is" in warning
    assert "the bright particles" in warning


@pytest.fixture(scope="module")
def neighbour_path(tmp_path_factory):
    """A network that sees five slices and labels by the first of them: what is above half a support."""
    from tomoseg.segmentation.data.intensity_scaling import Scale, Scaling
    from tomoseg.segmentation.networks.builders import build
    from tomoseg.segmentation.networks.card import ModelCard
    from tomoseg.segmentation.networks.model_file import save_model

    net = build("unet", 2, n_channels=5, depth=1, base_filters=2)
    first, second, last = np.zeros((3, 3, 5, 2)), np.zeros((3, 3, 2, 2)), np.zeros((1, 1, 2, 2))
    first[1, 1, 0, 0], second[1, 1, 0, 0], last[0, 0, 0] = 1, 1, [-40, 40]
    net.set_weights([first, np.zeros(2), second, np.zeros(2), last, np.array([20.0, -20.0])])
    scaling = Scaling("levels", "uint8", Scale(0.0, 57.0, -0.1, 4.5))
    card = ModelCard(["void", "solid"], ["#000000", "#0072b2"], scaling, 16, 1, channels=5)
    path = tmp_path_factory.mktemp("model") / "neighbours.keras"
    save_model(net, path, card)
    return path


@pytest.mark.parametrize("most_slices", [1, 3, 16])
@pytest.mark.parametrize("plane", ["xy", "xz"])
def test_a_network_sees_the_neighbours_of_a_slice(phantom, neighbour_path, plane, most_slices, monkeypatch):
    volume = phantom[0][:, :20]
    monkeypatch.setattr(volume_planes, "MAX_SLAB_SLICES", most_slices)
    outputs, _ = run(volume, model=neighbour_path, plane=plane, overlap=1)
    axis = {"xy": 0, "xz": 1}[plane]
    before = np.take(volume, np.maximum(np.arange(volume.shape[axis]) - 2, 0), axis)
    threshold = 0.5 * outputs.attrs["segmentation_info"]["intensity_one"]
    np.testing.assert_array_equal(outputs.arrays["labels"], before > threshold)


def test_a_network_of_neighbours_at_another_pixel_size_and_in_other_engines(phantom, neighbour_path, tmp_path):
    from dataclasses import replace

    from tomoseg.segmentation.networks.model_file import load_model, save_model

    model, card = load_model(neighbour_path)
    path = tmp_path / "finer.keras"
    save_model(model, path, replace(card, pixel_size_nm=0.15))
    volume = phantom[0][:, :20]
    plain, _ = run(volume, model=neighbour_path, overlap=1)
    engine = "auto" if engines.problem_with("openvino") else "openvino"
    outputs, runtime = run(volume, model=path, overlap=1, engine=engine, tta="flips")
    assert any("to 2 times as many pixels" in note for note in runtime.notes)
    assert np.mean(outputs.arrays["labels"] == plain.arrays["labels"]) > 0.97  # the edges are smoothed by it
    assert outputs.attrs["segmentation_info"]["zoom"] == pytest.approx(2)


def test_the_choice_of_an_engine_goes_by_the_pixels_the_network_sees(phantom, model_path, monkeypatch):
    from tomoseg.segmentation.inference import network

    asked = []

    def noted(wanted, *arguments):
        asked.append((wanted, arguments[-1]))
        return engines.engine_for("keras", *arguments)

    monkeypatch.setattr(network, "engine_for", noted)
    run(phantom[0][:, :20], model=model_path)
    run(phantom[0][:, :20], model=model_path, voxel_size_nm=0.6, plane="all", tta="flips", overlap=1)
    n_voxels = 36 * 20 * 44
    assert asked == [("auto", n_voxels), ("auto", pytest.approx(n_voxels * 2**2 * 3 * 4))]


@pytest.mark.skipif(engines.problem_with("openvino") is not None, reason="openvino is not installed")
def test_engines_give_the_same_labels(phantom, model_path):
    few, _ = run(phantom[0], model=model_path)
    assert few.attrs["segmentation_info"]["engine"].startswith("keras")  # which is quicker for so small a volume
    other, _ = run(phantom[0], model=model_path, engine="openvino")
    assert other.attrs["segmentation_info"]["engine"].startswith("openvino")
    assert np.mean(other.arrays["labels"] == few.arrays["labels"]) > 0.999


def test_a_network_can_be_stopped_within_a_slice(phantom, model_path, monkeypatch):
    calls = []
    runtime = Runtime(device="cpu")

    def check(_seconds=0.0):
        calls.append(len(calls))
        if len(calls) == 6:
            raise Interrupted("stopped by SIGTERM")

    monkeypatch.setattr(runtime, "check", check)
    outputs = MemoryOutputs()
    with pytest.raises(Interrupted):
        run(phantom[0], runtime, outputs=outputs, model=model_path, overlap=8)
    # A slice of 36 x 44 px has 11 x 15 places for patches of 16 px every 2 px, in three batches; a slab has 16 slices.
    assert len(calls) == 6
    assert outputs.state is None


@pytest.mark.parametrize(
    ("patch", "sides", "hint"), [(None, "16", "a segment.patch of less than 16 px"), (0, "40 x 44", "cut slices into")]
)
def test_a_network_that_needs_more_memory_than_allowed_is_refused(phantom, model_path, patch, sides, hint):
    with pytest.raises(InputError, match=rf"about \d+ MiB for a patch of {sides} px .*--max-memory allows .*{hint}"):
        run(phantom[0][:4], Runtime(device="cpu", max_memory=1 << 16), model=model_path, plane="xy", patch=patch)


def test_a_patch_that_does_not_fit_is_found_before_computing(directed_path):
    assert "multiple of 2 px, or 0" in STAGE.check(SegmentParameters(model=directed_path, patch=15))[0]
    assert STAGE.check(SegmentParameters(model=directed_path, patch=0)) == []


def test_names_for_a_network_must_fit_it(phantom, model_path):
    problems = STAGE.check(SegmentParameters(model=model_path, class_names=["a", "b"]))
    assert problems == ["segment.class_names has 2 names, but the network has 3 classes"]
    outputs, _ = run(phantom[0], model=model_path, class_names=["a", "b", "c"])
    assert outputs.attrs["labels"]["class_names"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("voxel_size_nm", "rescale", "warned", "said"),
    [
        (0.9, False, "objects look 0.33 times as large", ""),
        (0.9, True, "", "slices are resampled to 3 times as many pixels across"),
        (0.07, True, "usually a mistake", ""),
        (0.31, True, "", ""),
        (np.nan, True, "", "the voxel size is unknown: slices are not resampled"),
    ],
)
def test_another_pixel_size_is_told_of(phantom, model_path, voxel_size_nm, rescale, warned, said):
    part = phantom[0][:, :20]
    _, runtime = run(part, model=model_path, voxel_size_nm=voxel_size_nm, rescale=rescale, overlap=1)
    sizes = [w for w in runtime.warnings if "the network is unsure" not in w]
    assert [warned in w for w in sizes] == [True] * bool(warned)
    assert any(said in n for n in runtime.notes)
    assert any("trained on pixels of 0.3 nm" in n for n in runtime.notes + runtime.warnings) == (
        bool(warned or said) and np.isfinite(voxel_size_nm)
    )


def test_the_scale_of_the_training_slices_can_be_kept(phantom, model_path):
    outputs, _ = run(phantom[0], model=model_path, intensity="model")
    assert outputs.attrs["segmentation_info"]["intensity_one"] == 57.0


def test_a_model_from_elsewhere_is_used_and_said_loudly(phantom, tmp_path):
    from tomoseg.segmentation.networks.keras_setup import keras

    net = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 1, activation="softmax")])
    net.set_weights([np.array([[[[-20.0, 20.0]]]]), np.array([4.0, -4.0])])  # class 1 above 0.2 of the range
    path = tmp_path / "foreign.keras"
    net.save(path)
    outputs, runtime = run(phantom[0], model=path)
    assert any("not trained by tomoseg" in w for w in runtime.warnings)
    assert outputs.attrs["labels"]["class_names"] == ["background", "object"]
    volume = phantom[0]
    low, high = np.percentile(volume, [0.1, 99.9])
    expected = volume > low + 0.2 * (high - low)
    assert np.mean((outputs.arrays["labels"] == 1) == expected) > 0.999  # percentiles to within a bin
    with pytest.raises(InputError, match="has 2 classes"):
        run(volume, model=path, class_names=["a", "b", "c"])


# ------------------------------------------------------------------------------------------------- the default


def supported_particles():
    """A ball with particles on it, as a reconstruction might show it, and its labels."""
    shape = (64, 20, 64)
    labels = np.zeros(shape, np.uint8)
    labels[ball(shape, (32, 10, 32), 22)] = 1
    for centre in ((12, 10, 30), (30, 8, 54), (50, 12, 44), (36, 9, 20)):
        labels[ball(shape, centre, 4.0)] = 2
    volume = ndimage.gaussian_filter(np.array([0.0, 1.0, 4.0])[labels], 0.8)
    return (volume + np.random.default_rng(0).normal(0, 0.08, shape)).astype(np.float32), labels


def segmented_by_default(volume, outputs=None):
    outputs, runtime = outputs or MemoryOutputs(), Runtime(device="cpu")
    STAGE.run(volume=MemoryInput(volume), params=SegmentParameters(), runtime=runtime, outputs=outputs)
    return outputs, runtime


@pytest.mark.parametrize("unit", [1.0, 3000.0])
def test_the_default_network_labels_what_is_like_its_world(unit):
    volume, truth = supported_particles()
    outputs, runtime = segmented_by_default(unit * volume - 0.3 * unit)
    labels, info = outputs.arrays["labels"], outputs.attrs["segmentation_info"]
    assert info["model"] == "particles-on-support.keras"
    for k in (1, 2):
        assert 2 * np.sum((labels == k) & (truth == k)) / (np.sum(labels == k) + np.sum(truth == k)) > 0.85
    assert info["intensity_one"] - info["intensity_zero"] == pytest.approx(unit, rel=0.15)
    assert min(info["expected_dice"]) > 0.85
    assert len(info["agreement_with_thresholds"]) == 3
    assert any("Dice to expect by the network's own probabilities: support 0." in note for note in runtime.notes)
    assert any(
        note.startswith("Dice between the network and thresholds in 12 slices: support") for note in runtime.notes
    )


def test_what_is_unlike_it_is_labelled_by_thresholds_and_that_is_said():
    noise = np.random.default_rng(0).normal(0, 1, (48, 16, 48)).astype(np.float32)
    noise[20:24], noise[30:34] = noise[20:24] + 3, noise[30:34] + 6
    outputs, runtime = segmented_by_default(noise)
    info = outputs.attrs["segmentation_info"]
    assert info["method"] == "otsu"
    assert info["no_network"].startswith("the volume is unlike those that particles-on-support was trained on (")
    assert any(f"by a trained network, since {info['no_network']}: " in warning for warning in runtime.warnings)


def test_a_body_brighter_than_the_rest_is_no_particle():
    """Two layers of a rod: labels may be right, but what fills most of the sample is no particle on a support."""
    z, y, x = np.indices((64, 24, 64)) - np.array([32, 12, 32])[:, None, None, None]
    rod = np.hypot(z, x) < 16
    volume = np.where(rod, np.where(y < -4, 50.0, 200.0), 0.0) + np.random.default_rng(0).normal(0, 3, rod.shape)
    outputs, runtime = segmented_by_default(volume.astype(np.float32))
    assert outputs.attrs["segmentation_info"]["method"] == "unet"
    share = np.sum(outputs.arrays["labels"] == 2) / np.sum(outputs.arrays["labels"] > 0)
    (said,) = [warning for warning in runtime.warnings if "they may be layers" in warning]
    assert float(said.split("fill ")[1].split("%")[0]) == pytest.approx(100 * share, abs=10)


def test_why_no_network_labels_is_known_after_an_interruption_too():
    noise = np.random.default_rng(0).normal(0, 1, (48, 16, 48)).astype(np.float32)
    noise[20:24], noise[30:34] = noise[20:24] + 3, noise[30:34] + 6
    first = Fatal(2)
    with pytest.raises(Killed):
        segmented_by_default(noise, first)
    outputs, runtime = segmented_by_default(noise, MemoryOutputs(*first.kept))
    whole, _ = segmented_by_default(noise)
    assert outputs.attrs["segmentation_info"] == whole.attrs["segmentation_info"]
    assert any("since the volume is unlike" in warning for warning in runtime.warnings)


@pytest.mark.parametrize("given", [{"classes": 2}, {"thresholds": [40.0, 150.0]}, {"method": "otsu"}])
def test_other_wishes_mean_thresholds(phantom, given):
    outputs, runtime = MemoryOutputs(), Runtime(device="cpu")
    STAGE.run(volume=MemoryInput(phantom[0]), params=SegmentParameters(**given), runtime=runtime, outputs=outputs)
    assert outputs.attrs["segmentation_info"]["method"] == "otsu"
    assert "no_network" not in outputs.attrs["segmentation_info"]
    assert not any("unlike" in warning for warning in runtime.warnings)


def test_thresholds_that_began_go_on(phantom):
    first = Fatal(1)
    with pytest.raises(Killed):
        run(phantom[0], outputs=first)
    outputs, _ = segmented_by_default(phantom[0], MemoryOutputs(*first.kept))
    assert outputs.attrs["segmentation_info"]["method"] == "otsu"
