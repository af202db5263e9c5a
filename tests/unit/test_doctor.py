"""What `doctor` says of packages that are not there, or are and cannot be loaded."""

import sys

import pytest

from tomoseg.doctor import findings

WHY = "required for export --formats parquet: pip install pyarrow, or 'pyarrow<26' with NumPy 1"


@pytest.fixture
def found_with(tmp_path, monkeypatch):
    """Return a function that puts a pyarrow of the given content first and returns what is found out about it."""

    def found(content):
        (tmp_path / "pyarrow").mkdir()
        (tmp_path / "pyarrow" / "__init__.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
        for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
            monkeypatch.delitem(sys.modules, name)
        return next(finding for finding in findings() if finding.what == "pyarrow")

    return found


def test_a_package_that_is_not_there(found_with):
    finding = found_with("raise ModuleNotFoundError('No module named pyarrow')")
    assert finding.verdict == "absent"
    assert finding.detail == WHY


@pytest.mark.parametrize(
    "error", ["ImportError", "AttributeError", "ValueError", "RuntimeError", "SystemError", "OSError"]
)
def test_a_package_that_cannot_be_loaded_is_told_with_its_reason(found_with, capsys, error):
    finding = found_with(f"import sys\nsys.stderr.write('pages')\nraise {error}('built for another NumPy\\nand more')")
    assert finding.verdict == "absent"
    assert finding.detail == f"cannot be loaded (built for another NumPy); {WHY}"
    assert capsys.readouterr().err == ""
