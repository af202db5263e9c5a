"""Series in NumPy files and Zarr stores."""

import json

import numpy as np
import pytest
import zarr

from tests.unit.io.test_angle_sources import angle_file, planned
from tomoseg.errors import InputError
from tomoseg.io.raw import open_raw

STACK = np.random.default_rng(0).integers(0, 60000, (5, 6, 7)).astype(np.uint16)
ANGLES = [-40.0, -20.0, 0.0, 20.0, 40.0]


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", "<f8", "|i1"])
def test_an_array(tmp_path, dtype):
    values = (STACK >> 9).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    angle_file(tmp_path / "a.rawtlt", ANGLES)
    with planned(tmp_path / "a.npy", pixel_size_nm=0.7) as plan:
        assert plan.pixel_size_nm == 0.7
        assert plan.raw.dtype.isnative
        np.testing.assert_array_equal(plan.raw.read([4, 0]), values[[4, 0]])


def test_arrays_that_are_no_series(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(STACK))
    with pytest.raises(InputError, match="column by column"):
        open_raw(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not numbers"):
        open_raw(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", STACK)
    (tmp_path / "c.npy").write_bytes((tmp_path / "c.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        open_raw(tmp_path / "c.npy")
    np.save(tmp_path / "d.npy", STACK[0])
    with pytest.raises(InputError, match="single 2D image"):
        open_raw(tmp_path / "d.npy")


def _zspy(path, data, axes, title="HAADF"):
    """Write a store as HyperSpy does: a group for each signal, with its data, axes and metadata."""
    root = zarr.open_group(path, mode="a", zarr_format=2)
    root.attrs.update({"file_format": "ZSpy", "file_format_version": "3.3"})
    group = root.require_group("Experiments").create_group(title)
    array = group.create_array("data", shape=data.shape, dtype=data.dtype, chunks=(1, *data.shape[1:]))
    array[:] = data
    for i, axis in enumerate(axes):
        group.create_group(f"axis-{i}").attrs.update({"_type": "UniformDataAxis", **axis})
    group.create_group("learning_results")
    group.create_group("original_metadata")
    metadata = group.create_group("metadata")
    metadata.create_group("General").attrs.update({"title": title})
    metadata.create_group("Signal").attrs.update({"signal_type": ""})


def _axis(name, size, scale, units, offset=0.0, navigate=False):
    return {"name": name, "size": size, "scale": scale, "units": units, "offset": offset, "navigate": navigate}


AXES = [_axis("Tilt", 5, 20.0, "degrees", -40.0, True), _axis("y", 6, 0.5, "nm"), _axis("x", 7, 0.5, "nm")]


def test_a_store_of_hyperspy(tmp_path):
    _zspy(tmp_path / "a.zspy", STACK, AXES)
    _zspy(tmp_path / "a.zspy", STACK[:2] + 1, [{**AXES[0], "size": 2}, *AXES[1:]], "BF")
    with planned(tmp_path / "a.zspy") as plan:
        np.testing.assert_array_equal(plan.raw.read([3, 2]), STACK[[3, 2]])
        np.testing.assert_allclose(plan.angles_deg, ANGLES)
        assert plan.pixel_size_nm == pytest.approx(0.5)
    with planned(tmp_path / "a.zspy", signal="BF", angle_range=np.array([0.0, 1.0])) as plan:
        np.testing.assert_array_equal(plan.raw.read([1]), STACK[[1]] + 1)


def test_a_store_that_runs_code_or_leads_elsewhere_is_refused(tmp_path):
    _zspy(tmp_path / "a.zspy", STACK, AXES)
    about = tmp_path / "a.zspy/Experiments/HAADF/data/.zarray"
    content = json.loads(about.read_text())
    about.write_text(json.dumps({**content, "filters": [{"id": "pickle", "protocol": 5}]}))
    with pytest.raises(InputError, match="pickle, which is not unpacked"):
        open_raw(tmp_path / "a.zspy")
    about.write_text(json.dumps(content))
    (tmp_path / "a.zspy/more").symlink_to("/etc")
    with pytest.raises(InputError, match="holds a link"):
        open_raw(tmp_path / "a.zspy")
    (tmp_path / "b.zspy").mkdir()
    with pytest.raises(InputError, match=r"b\.zspy"):
        open_raw(tmp_path / "b.zspy")
