import numpy as np
import pytest
import zarr

from tomoseg.export.formats.vtkhdf import write_vtkhdf
from tomoseg.export.formats.zarr import stored_voxels, write_ome_zarr

NAMES, COLORS = ["a", "b", "c"], ["#000000", "#ff0000", "#00ff00"]


class Watched:
    """An array that keeps the largest number of bytes read of it at once, and counts how often each voxel is read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.largest, self.times = 0, np.zeros(array.shape, np.uint8)

    def __getitem__(self, key):
        self.times[key] += 1
        found = self.array[key]
        self.largest = max(self.largest, found.nbytes)
        return found


def test_each_level_is_the_mean_or_the_commonest_of_the_one_before(tmp_path):
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(5, 300, 131)).astype(np.float32)
    labels = rng.integers(0, 3, volume.shape).astype(np.uint8)
    write_ome_zarr(tmp_path, volume, labels, 0.25, NAMES, COLORS, slab_bytes=1)
    group = zarr.open_group(tmp_path, mode="r")
    shapes = [(5, 300, 131), (3, 150, 66), (2, 75, 33)]
    assert [group[str(i)].shape for i in range(3)] == shapes
    assert stored_voxels(volume.shape) == sum(int(np.prod(s)) for s in shapes)
    for z, y, x in [(0, 0, 0), (1, 70, 64), (2, 149, 65)]:  # the last one lacks voxels along z and x
        cell = np.s_[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert group["1"][z, y, x] == pytest.approx(volume[cell].mean(), abs=1e-6)
        counts = np.bincount(labels[cell].ravel(), minlength=3)
        assert group["labels/classes/1"][z, y, x] == counts.argmax()


def test_levels_lie_on_each_other(tmp_path):
    # The centre of mass of a smooth spot does not move from level to level.
    _, y, x = np.indices((1, 280, 270))
    volume = np.exp(-((y - 120.3) ** 2 + (x - 140.8) ** 2) / (2 * 12**2)).astype(np.float32)
    write_ome_zarr(tmp_path, volume, np.zeros(volume.shape, np.uint8), 0.5, NAMES, COLORS)
    group = zarr.open_group(tmp_path, mode="r")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    assert len(datasets) == 3
    for dataset in datasets:
        scale, shift = (list(t.values())[1] for t in dataset["coordinateTransformations"])
        data = group[dataset["path"]][:]
        _, y, x = (np.indices(data.shape)[i] * scale[i] + shift[i] for i in range(3))
        assert (data * y).sum() / data.sum() == pytest.approx(120.3 * 0.5, abs=1e-3)
        assert (data * x).sum() / data.sum() == pytest.approx(140.8 * 0.5, abs=1e-3)
        assert scale[0] == 0.5  # one plane stays one


def test_little_is_read_at_once_and_each_voxel_once(tmp_path):
    rng = np.random.default_rng(1)
    volume = Watched(rng.normal(size=(140, 300, 150)).astype(np.float32))
    labels = Watched((volume.array > 1).astype(np.uint8))
    (tmp_path / "z").mkdir()
    write_ome_zarr(tmp_path / "z", volume, labels, 0.5, NAMES, COLORS, slab_bytes=1)
    assert volume.largest == 64 * 128 * 128 * 4  # a chunk
    assert (volume.times == 1).all()
    assert (labels.times == 1).all()
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "z", mode="r")["0"][:], volume.array)
    other = Watched(volume.array)
    write_vtkhdf(tmp_path / "v.vtkhdf", other, 0.5, "volume", slab_bytes=1)
    assert other.largest == 8 * 128 * 128 * 4
    assert (other.times == 1).all()


def test_the_same_whatever_is_read_at_once(tmp_path):
    rng = np.random.default_rng(3)
    volume = rng.normal(size=(130, 140, 150)).astype(np.float32)
    labels = (volume > 0).astype(np.uint8)
    for name, slab_bytes in (("much", 10**9), ("little", 1)):
        (tmp_path / name).mkdir()
        write_ome_zarr(tmp_path / name, volume, labels, 0.5, NAMES, COLORS, slab_bytes=slab_bytes)
        write_vtkhdf(tmp_path / f"{name}.vtkhdf", volume, 0.5, "volume", slab_bytes=slab_bytes)
    files = [p.relative_to(tmp_path / "much") for p in (tmp_path / "much").rglob("*") if p.is_file()]
    assert len(files) > 10
    assert (tmp_path / "much.vtkhdf").read_bytes() == (tmp_path / "little.vtkhdf").read_bytes()
    for file in files:
        assert (tmp_path / "much" / file).read_bytes() == (tmp_path / "little" / file).read_bytes()
