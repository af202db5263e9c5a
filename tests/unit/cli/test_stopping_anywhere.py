"""Every command ends with exit code 130 and a line when it is told to stop; no file is half written."""

import signal
import subprocess
import sys
import time

import pytest

COMMANDS = {
    "report": ["report", "PROJECT", "-o", "OUT/r.html", "--figures", "OUT/figures"],
    "preview": ["preview", "PROJECT", "-o", "OUT/p.png"],
    "simulate": ["simulate", "-o", "OUT/x.mrc", "--truth", "OUT/t.h5", "--size", "160"],
    "annotate export": ["annotate", "export", "PROJECT", "-o", "OUT/paint"],
    "export": ["export", "PROJECT", "--export-dir", "OUT/files"],
    "status": ["status", "PROJECT"],
}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("seconds", [0.4, 2.5])
def test_a_stop_at_any_time(project, tmp_path, name, signum, seconds):
    out = tmp_path / "out"
    out.mkdir()
    words = [word.replace("OUT", str(out)).replace("PROJECT", str(project)) for word in COMMANDS[name]]
    # What loads before tomoseg itself is Python's own affair.
    code = "import tomoseg.runtime, sys; print('here', flush=True); from tomoseg.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-W", "ignore", "-c", code, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        time.sleep(seconds)
        process.send_signal(signum)
        sent = time.monotonic()
        said = process.communicate(timeout=60)[1]
    assert time.monotonic() - sent < 12
    assert "Traceback" not in said
    assert "Exception" not in said
    assert process.returncode in (130, 0), said  # 0: it had ended
    if process.returncode == 130:
        assert f"stopped by {signum.name}" in said.splitlines()[-1]
    assert [path.name for path in out.rglob("*.part")] == []
