"""A Dask scheduler and workers in processes of their own, over TCP or TLS, for tests of `--cluster`."""

import os
import socket
import subprocess
import sys

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class DaskProcesses:
    """A scheduler at `address`, and workers of one thread without nannies; in a `with` statement."""

    def __init__(self, folder, n_workers, protocol="tcp"):
        self.address = f"{protocol}://127.0.0.1:{free_port()}"
        # The functions of tests are found where this process finds them.
        place = {**QUIET, "cwd": folder, "env": os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}}
        program = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
        self.scheduler = subprocess.Popen([*program, "--host", self.address], **place)
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--no-dashboard", "--no-nanny"]
        self.workers = [
            subprocess.Popen([*worker, "--nthreads", "1", "--name", str(k)], **place) for k in range(n_workers)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
