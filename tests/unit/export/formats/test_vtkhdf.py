import subprocess
import sys

import h5py
import numpy as np
import pytest

from tomoseg.export.formats.vtkhdf import write_vtkhdf

pytest.importorskip("resource")  # a limit on the size of files stands for a full disk

FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from tomoseg.export.formats.vtkhdf import write_vtkhdf
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
volume = np.random.default_rng(0).normal(size=(40, 100, 100)).astype(np.float32)
try:
    write_vtkhdf(Path(sys.argv[1]), volume, 0.5, "volume", slab_bytes=1)
except OSError as error:
    print("OSError", error.errno)
"""


@pytest.mark.parametrize("limit", [0, 100, 3000, 200_000, 1_300_000])
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path, limit):
    command = [sys.executable, "-c", FULL, str(tmp_path / "v.vtkhdf"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["OSError", "27"], "")  # EFBIG


def test_the_file_is_what_readers_of_version_1_know(tmp_path):
    volume = np.arange(9 * 5 * 7, dtype=">f4").reshape(9, 5, 7)
    write_vtkhdf(
        tmp_path / "v.vtkhdf", volume, 0.5, "volume", facts={"unit_of_length": "nm", "class_names": ["γ", "b"]}
    )
    with h5py.File(tmp_path / "v.vtkhdf") as file:
        root = file["VTKHDF"]
        assert root.attrs["Version"].tolist() == [1, 0]
        assert root.attrs["Type"] == b"ImageData"
        assert root.attrs["WholeExtent"].tolist() == [0, 6, 0, 4, 0, 8]
        assert root.attrs["Origin"].tolist() == [0, -2, -4]
        assert root.attrs["unit_of_length"] == "nm"
        assert root.attrs["class_names"].tolist() == ["γ", "b"]
        stored = root["PointData/volume"]
        assert (stored.compression, stored.shuffle) == ("gzip", True)  # HDF5's own: no plugin is needed
        np.testing.assert_array_equal(stored[:], volume[::-1, ::-1])
