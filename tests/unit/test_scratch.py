import numpy as np
import pytest

from tomoseg import scratch
from tomoseg.errors import StageFailed
from tomoseg.scratch import ScratchOutputs


def test_large_arrays_lie_in_files_without_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "HELD_BYTES", 1000)
    outputs = ScratchOutputs("a test")
    small, large = (outputs.create("volume", (n, 4, 5)) for n in (2, 200))
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    large[150:152] = 7
    assert outputs.arrays["volume"][149:153].sum() == 7 * 40
    assert large.dtype == np.float32
    assert list(tmp_path.iterdir()) == []
    outputs.close()
    assert outputs.arrays == {}


def test_no_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    outputs = ScratchOutputs("measure.uncertainty")
    with pytest.raises(StageFailed, match=r"measure.uncertainty needs .* GiB of temporary space in .*TMPDIR"):
        outputs.create("volume", (1 << 20, 1 << 14, 1 << 14))


def test_tables_and_attributes_are_kept():
    outputs = ScratchOutputs("a test")
    outputs.put("residuals", [1.0, 2.0], {"a": 1})
    outputs.set_attrs("residuals", {"b": 2})
    outputs.checkpoint({"slices": 3})
    assert outputs.arrays["residuals"].tolist() == [1, 2]
    assert outputs.attrs["residuals"] == {"a": 1, "b": 2}
    assert outputs.resumed is None
