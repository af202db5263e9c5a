import json
import zipfile

import h5py
import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.raw import open_raw

STACK = np.random.default_rng(4).integers(0, 4000, (5, 6, 7)).astype(np.uint16)
ANGLES = np.array([-60.0, -30.5, 0.0, 30.25, 60.0])


def _frame(alpha_deg, detector="HAADF", pixel=3.6e-9, unit="m"):
    return {
        "Stage": {"AlphaTilt": str(np.radians(alpha_deg))},
        "BinaryResult": {
            "Detector": detector,
            "PixelSize": {"width": str(pixel), "height": str(pixel)},
            "PixelUnitX": unit,
            "PixelUnitY": unit,
        },
        "Optics": {"AccelerationVoltage": "300000"},
    }


def _velox(path, series):
    """Write a Velox file: for each image series its frames (n, y, x) and one metadata text per frame."""
    with h5py.File(path, "w") as file:
        file["Version"] = [json.dumps({"version": "11", "format": "Velox"}).encode()]
        for i, (frames, texts) in enumerate(series):
            group = file.create_group(f"Data/Image/{i:032x}")
            group["Data"] = frames.transpose(1, 2, 0)
            metadata = np.zeros((60000, len(texts)), np.uint8)
            for j, text in enumerate(texts):
                content = np.frombuffer(json.dumps(text).encode(), np.uint8)
                metadata[: len(content), j] = content
            group["Metadata"] = metadata


def test_velox_tilt_series(tmp_path):
    _velox(tmp_path / "a.emd", [(STACK, [_frame(a) for a in ANGLES])])
    with open_raw(tmp_path / "a.emd") as series:
        assert (series.format, series.shape, series.dtype) == ("Velox EMD", STACK.shape, np.uint16)
        np.testing.assert_array_equal(series.read(slice(None)), STACK)
        np.testing.assert_array_equal(series.read([3, 1, 0]), STACK[[3, 1, 0]])
        np.testing.assert_allclose(series.angles_deg, ANGLES, atol=1e-12)
        assert series.pixel_size.nm == pytest.approx(3.6)
        assert series.metadata["Optics"]["AccelerationVoltage"] == "300000"


def test_velox_with_several_detectors_takes_haadf_and_says_so(tmp_path):
    other = [_frame(a, "BF") for a in ANGLES]
    single = STACK[:1], [_frame(0, "HAADF")]
    _velox(tmp_path / "a.emd", [single, (STACK + 1, other), (STACK, [_frame(a) for a in ANGLES])])
    with open_raw(tmp_path / "a.emd") as series:
        np.testing.assert_array_equal(series.read([0]), STACK[:1])
        assert "'HAADF (2)' (6 x 7 x 5) is used" in series.notes[0]
        assert [signal.n_images for signal in series.signals] == [1, 5, 5]
    with open_raw(tmp_path / "a.emd", "bf") as series:
        np.testing.assert_array_equal(series.read([0]), STACK[:1] + 1)
    with pytest.raises(InputError, match=r"several signals like 'HA'; it holds 1 'HAADF' \(6 x 7 x 1\), 2 'BF'"):
        open_raw(tmp_path / "a.emd", "HA")


@pytest.mark.parametrize(("unit", "pixel"), [("", 1.0), ("1/m", 1e8), ("m", 0.0)])
def test_velox_pixel_size_that_is_none(tmp_path, unit, pixel):
    _velox(tmp_path / "a.emd", [(STACK, [_frame(a, pixel=pixel, unit=unit) for a in ANGLES])])
    with open_raw(tmp_path / "a.emd") as series:
        assert series.pixel_size.nm is None


def test_velox_without_a_series_is_refused(tmp_path):
    _velox(tmp_path / "a.emd", [(STACK[:1], [_frame(0)]), (STACK[:1], [_frame(0)])])
    with pytest.raises(InputError, match=r"single 2D image \(6 x 7\)"):
        open_raw(tmp_path / "a.emd")
    complex_type = np.dtype([("realFloat", "f4"), ("imagFloat", "f4")])
    _velox(tmp_path / "b.emd", [(np.zeros((3, 6, 7), complex_type), [_frame(0)])])
    with pytest.raises(InputError, match="complex"):
        open_raw(tmp_path / "b.emd")
    _velox(tmp_path / "c.emd", [])
    with h5py.File(tmp_path / "c.emd", "a") as file:
        file.create_group("Data/Image")
    with pytest.raises(InputError, match="without images"):
        open_raw(tmp_path / "c.emd")


def _ncem(path, data, dimensions, first=1):
    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group("data/tomography")
        group.attrs["emd_group_type"] = 1
        group["data"] = data
        for i, (values, name, unit) in enumerate(dimensions):
            vector = group.create_dataset(f"dim{first + i}", data=np.asarray(values, np.float64))
            vector.attrs["name"], vector.attrs["units"] = name, unit
        file.create_group("microscope").attrs["voltage"] = 300


X, Y = ([0, 3.36, 6.72], "x", "[n_m]"), ([0, 3.36], "y", "[n_m]")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    ("order", "dimensions"),
    [
        ((0, 1, 2), [(ANGLES, "angles", "[deg]"), Y, X]),
        ((2, 1, 0), [X, Y, (ANGLES, "angles", "[deg]")]),  # as tomviz writes it
        ((1, 2, 0), [Y, X, (ANGLES, "tilt", "[deg]")]),
        ((0, 2, 1), [(ANGLES, "tilt", "[deg]"), X, Y]),
        ((0, 1, 2), [(np.radians(ANGLES), "", "[rad]"), Y, X]),
        ((0, 1, 2), [(np.radians(ANGLES), "theta", "radians"), Y, X]),
        ((2, 1, 0), [([0, 0.00336], "", "[u_m]"), ([0, 0.00336], "", "[u_m]"), (ANGLES, "angles", "[deg]")]),
    ],
)
def test_ncem_dimensions_say_which_is_the_tilt(tmp_path, order, dimensions, first):
    _ncem(tmp_path / "a.emd", STACK.transpose(order), dimensions, first)
    with open_raw(tmp_path / "a.emd") as series:
        assert (series.format, series.shape) == ("NCEM EMD", STACK.shape)
        np.testing.assert_array_equal(series.read(slice(None)), STACK)
        np.testing.assert_array_equal(series.read([2, 0]), STACK[[2, 0]])
        np.testing.assert_allclose(series.angles_deg, ANGLES, atol=1e-12)
        assert series.pixel_size.nm == pytest.approx(3.36)
        assert series.metadata["microscope"]["voltage"] == 300


def test_ncem_regular_angles_from_two_values_and_angles_without_unit(tmp_path):
    _ncem(tmp_path / "a.emd", STACK, [([-60, -58], "angle", "[deg]"), Y, X])
    with open_raw(tmp_path / "a.emd") as series:
        np.testing.assert_allclose(series.angles_deg, [-60, -58, -56, -54, -52])
    _ncem(tmp_path / "a.emd", STACK, [(ANGLES, "angle", ""), Y, X])
    with open_raw(tmp_path / "a.emd") as series:
        np.testing.assert_array_equal(series.angles_deg, ANGLES)
        assert "taken as degrees" in series.warnings[0]


def test_ncem_without_names_says_what_was_taken(tmp_path):
    _ncem(tmp_path / "a.emd", STACK, [([0, 1], "z", "nm"), Y, X])
    with open_raw(tmp_path / "a.emd") as series:
        np.testing.assert_array_equal(series.read(slice(None)), STACK)
        assert series.angles_deg is None
        assert "first one is taken as the tilts" in series.notes[0]


def _dxchange(path, data, theta=None, unit=None, axes="theta:y:x", **more):
    with h5py.File(path, "w") as file:
        file["exchange/data"] = data
        file["exchange/data"].attrs["axes"] = axes
        if theta is not None:
            file["exchange/theta"] = theta
            if unit:
                file["exchange/theta"].attrs["units"] = unit
        for name, value in more.items():
            file[f"exchange/{name}"] = value


@pytest.mark.parametrize(
    ("factor", "unit"), [(1, None), (1, "degrees"), (1, b"deg"), (np.pi / 180, "rad"), (np.pi / 180, "radians")]
)
def test_dxchange_angles(tmp_path, factor, unit):
    _dxchange(tmp_path / "a.h5", STACK, factor * ANGLES, unit)
    with open_raw(tmp_path / "a.h5") as series:
        np.testing.assert_array_equal(series.read(slice(None)), STACK)
        np.testing.assert_allclose(series.angles_deg, ANGLES, atol=1e-12)
        assert series.pixel_size.nm is None


def test_dxchange_sinograms_and_angles_that_do_not_fit(tmp_path):
    _dxchange(tmp_path / "a.h5", STACK.transpose(1, 0, 2), ANGLES, axes="y:theta:x")
    with open_raw(tmp_path / "a.h5") as series:
        np.testing.assert_array_equal(series.read([4, 2]), STACK[[4, 2]])
    for theta, message in (
        (ANGLES[:3], "there are 3 for 5 images"),
        (ANGLES * 10, "-180 and 180"),
        (ANGLES * np.nan, "180"),
    ):
        _dxchange(tmp_path / "a.h5", STACK, theta)
        with open_raw(tmp_path / "a.h5") as series:
            assert series.angles_deg is None
            assert message in series.warnings[0]


def _hspy(path, data, axes, tilts=None, chunks=None):
    with h5py.File(path, "w") as file:
        file.attrs["file_format"], file.attrs["file_format_version"] = "HyperSpy", "3.3"
        group = file.create_group("Experiments/HAADF")
        group.create_dataset("data", data=data, chunks=chunks)
        for i, axis in enumerate(axes):
            group.create_group(f"axis-{i}").attrs.update(axis)
        group.create_group("original_metadata")
        group.create_group("metadata/General").attrs["title"] = "HAADF"
        group.create_group("metadata/Signal").attrs["signal_type"] = ""
        if tilts is not None:
            group["metadata/Tomography/tilts"] = tilts


def _axis(name, size, scale, unit, offset=0.0, navigate=False):
    return {
        "_type": "UniformDataAxis",
        "name": name,
        "size": size,
        "scale": scale,
        "offset": offset,
        "units": unit,
        "navigate": navigate,
        "is_binned": False,
    }


IMAGE_AXES = [_axis("y", 6, 3.36, "nm"), _axis("x", 7, 3.36, "nm")]


@pytest.mark.parametrize(
    ("tilt", "angles"),
    [
        (_axis("Projections", 5, 2.0, "degrees", -4.0, True), [-4, -2, 0, 2, 4]),
        (_axis("tilt", 5, np.pi / 90, "rad", 0.0, True), [0, 2, 4, 6, 8]),
        (_axis("time", 5, 2.0, "s", 0.0, True), None),
        (_axis("tilt", 5, 2.0, "", 0.0, True), None),
    ],
)
@pytest.mark.parametrize("chunks", [None, (2, 4, 7), (1, 6, 7)])
def test_hspy_axis_in_degrees_or_radians_gives_the_angles(tmp_path, tilt, angles, chunks):
    _hspy(tmp_path / "a.hspy", STACK, [tilt, *IMAGE_AXES], chunks=chunks)
    with open_raw(tmp_path / "a.hspy") as series:
        assert (series.format, series.shape, series.dtype) == ("HyperSpy", STACK.shape, np.uint16)
        np.testing.assert_array_equal(series.read([3, 4, 1]), STACK[[3, 4, 1]])
        if angles is None:
            assert series.angles_deg is None
        else:
            np.testing.assert_allclose(series.angles_deg, angles, atol=1e-12)
        assert series.pixel_size.nm == pytest.approx(3.36)


def test_hspy_stored_tilts_come_before_the_axis(tmp_path):
    axes = [_axis("Projections", 5, 2.0, "degrees", -4.0, True), *IMAGE_AXES]
    _hspy(tmp_path / "a.hspy", STACK, axes, tilts=ANGLES)
    with open_raw(tmp_path / "a.hspy") as series:
        np.testing.assert_array_equal(series.angles_deg, ANGLES)
        assert series.angles_source == "tilts in the HyperSpy metadata"
        json.dumps(series.metadata)


def test_hspy_list_of_angles_and_another_order_of_dimensions(tmp_path):
    axes = [*IMAGE_AXES, {"_type": "DataAxis", "name": "t", "units": "deg", "navigate": False}]
    _hspy(tmp_path / "a.hspy", STACK.transpose(1, 2, 0), axes)
    with h5py.File(tmp_path / "a.hspy", "a") as file:
        file["Experiments/HAADF/axis-2/axis"] = ANGLES
    with open_raw(tmp_path / "a.hspy") as series:
        np.testing.assert_array_equal(series.read(slice(None)), STACK)
        np.testing.assert_array_equal(series.angles_deg, ANGLES)


def test_hspy_with_several_signals_takes_the_stack(tmp_path):
    _hspy(tmp_path / "a.hspy", STACK, [_axis("t", 5, 2.0, "deg", 0.0, True), *IMAGE_AXES])
    with h5py.File(tmp_path / "a.hspy", "a") as file:
        file["Experiments/EELS/data"] = np.zeros(9)
    with open_raw(tmp_path / "a.hspy") as series:
        assert series.shape == STACK.shape
        assert [signal.n_images for signal in series.signals] == [0, 5]


def test_hspy_single_image_and_more_dimensions_are_refused(tmp_path):
    _hspy(tmp_path / "a.hspy", STACK[0], IMAGE_AXES)
    with pytest.raises(InputError, match="single 2D image"):
        open_raw(tmp_path / "a.hspy")
    _hspy(tmp_path / "b.hspy", STACK[None], [_axis("a", 1, 1.0, "", 0.0, True), _axis("b", 5, 1.0, ""), *IMAGE_AXES])
    with pytest.raises(InputError, match="4 dimensions"):
        open_raw(tmp_path / "b.hspy")


def test_other_hdf5_files_and_truncated_ones_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["something"] = STACK[0]
    with pytest.raises(InputError, match="without a tilt series"):
        open_raw(tmp_path / "a.h5")
    _dxchange(tmp_path / "b.h5", STACK, ANGLES)
    (tmp_path / "b.h5").write_bytes((tmp_path / "b.h5").read_bytes()[:-5])
    with pytest.raises(InputError, match="truncated"):
        open_raw(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.hspy", "w") as file:
        file["Experiments/x/nothing"] = 1
    with pytest.raises(InputError, match="HyperSpy file without a signal"):
        open_raw(tmp_path / "c.hspy")


def test_files_are_closed(tmp_path):
    _dxchange(tmp_path / "a.h5", STACK, ANGLES)
    _hspy(tmp_path / "b.hspy", STACK, [_axis("t", 5, 2.0, "deg", 0.0, True), *IMAGE_AXES])
    _velox(tmp_path / "c.emd", [(STACK, [_frame(a) for a in ANGLES])])
    for path in tmp_path.iterdir():
        with open_raw(path) as series:
            series.read([0])
        with h5py.File(path, "a") as file:  # writing is refused while somebody has it open for reading
            file.attrs["written"] = True
        with h5py.File(path, "r") as file:
            assert file.attrs["written"]


def test_real_catalyst(real_data):
    with open_raw(real_data / "tilt-series/catalyst-simulated/Catalyst3DModel_TiltSeries180.hspy") as series:
        assert (series.shape, series.dtype) == ((90, 600, 600), np.float32)
        np.testing.assert_array_equal(series.angles_deg, np.arange(0, 180, 2))
        assert series.pixel_size.nm == 1.0  # 1 with the unit nm is meant
        assert series.tilt_axis is None
        with h5py.File(series.path) as file:
            np.testing.assert_array_equal(
                series.read([60, 59, 7]), file["Experiments/__unnamed__/data"][[7, 59, 60]][::-1]
            )


def test_real_aligned_needle(real_data):
    with open_raw(real_data / "tilt-series/needle/HAADF_Aligned.hspy") as series:
        assert (series.shape, series.dtype) == ((77, 256, 256), np.float32)
        np.testing.assert_array_equal(series.angles_deg, np.arange(-76, 77, 2))
        assert series.pixel_size.nm == pytest.approx(3.36, rel=1e-6)


def test_real_velox_stack(real_data):
    with open_raw(real_data / "formats/velox_tem_stack.emd") as series:
        assert (series.shape, series.dtype) == ((2, 3, 3), np.int16)
        assert series.pixel_size.nm == pytest.approx(0.0081728831922978511)
        np.testing.assert_allclose(series.angles_deg, np.degrees([-0.21967359999999991] * 2))
        assert series.read(slice(None)).shape == (2, 3, 3)


def test_real_velox_spectrum_images(real_data, tmp_path):
    with zipfile.ZipFile(real_data / "formats/velox_emd_v11.zip") as archive:
        archive.extractall(tmp_path)
    with open_raw(tmp_path / "Test SI 16x16 215 kx.emd") as series:
        assert (series.shape, series.dtype) == ((2, 16, 16), np.uint16)  # the frames of the HAADF image
        assert series.pixel_size.nm == pytest.approx(3.5992492559614689)
        assert len(set(series.angles_deg)) == 1
    with pytest.raises(InputError, match=r"single 2D image \(16 x 16\)"):
        open_raw(tmp_path / "Test SI 16x16 ReducedData 215 kx.emd")


def test_real_ncem_and_hspy_examples(real_data):
    with open_raw(real_data / "formats/ncem_example_signal.emd") as series:
        assert (series.shape, series.dtype) == ((3, 3, 3), np.int32)
        assert series.angles_deg is None
        assert series.pixel_size.nm is None
    for name in ("ncem_example_image.emd", "hspy_v3.1.hspy"):
        with pytest.raises(InputError, match="single 2D image"):
            open_raw(real_data / f"formats/{name}")


def test_real_dxchange(real_data):
    with open_raw(real_data / "formats/dxchange_tooth.h5") as series:
        assert (series.shape, series.dtype) == ((181, 2, 640), np.float32)
        np.testing.assert_allclose(series.angles_deg, np.arange(181) * 180 / 181, atol=1e-9)
        assert "white or dark fields" in series.warnings[0]
