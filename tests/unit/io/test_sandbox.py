"""Limits of the process that reads files."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from pathlib import Path
from tomoseg.io.sandbox import import_beyond_limits

sys.path.insert(0, sys.argv[1])
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (in_use + (64 << 20), hard))
import_beyond_limits("large_library")
kept = sys.modules["large_library"].KEPT
try:
    more = bytearray(80 << 20)
except MemoryError:
    print(len(kept) >> 20, "as limited as before")
else:
    print("no longer limited")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited on Linux only")
def test_a_library_for_few_files_does_not_use_up_what_the_file_may_take(tmp_path):
    (tmp_path / "large_library.py").write_text("KEPT = bytearray(200 << 20)\n")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[0] == "200 as limited as before"
