"""Start or find a Dask scheduler and its workers, and connect to it."""

import contextlib
import logging
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from tomoseg import plain_json
from tomoseg.batch.site import Site
from tomoseg.cluster.asked import Asked
from tomoseg.errors import InputError
from tomoseg.runtime import Runtime

CONNECT_S = 10  # to reach a scheduler that is said to run
LOOPBACK = "127.0.0.1"
SETTINGS = {
    # A part that ends three workers one after the other is to blame itself.
    "distributed.scheduler.allowed-failures": 2,
    # tomoseg plans its memory itself; Dask would take results that wait to be fetched for a leak.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.worker.profile.enabled": False,
    # Between machines, what a sample shows to be compressible is compressed; the volume of a needle is half empty.
    "distributed.comm.compression": "auto",
    # Of each transition of each task, the scheduler keeps a record.
    "distributed.admin.low-level-log-length": 1000,
    "distributed.admin.large-graph-warning-threshold": "1TB",
}


@contextmanager
def connected(asked: Asked, runtime: Runtime) -> Iterator[Any]:
    """Yield a Dask client of the cluster asked for; what was started is ended afterwards.

    Raises `InputError` where no scheduler answers.
    """
    import dask
    import distributed

    for name in ("distributed", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is said in words of our own
    with dask.config.set(SETTINGS), contextlib.ExitStack() as started:
        if asked.kind in ("address", "file"):
            address = asked.address if asked.kind == "address" else _address_in(Path(asked.address))
            _require_answer(address)
            try:
                client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
            except (OSError, ValueError) as error:
                raise _no_answer(address, error) from error
        else:
            cluster = started.enter_context(_local(asked.n, runtime) if asked.site is None else _jobs(asked))
            client = distributed.Client(cluster, set_as_default=False)
        started.callback(client.close, timeout=5)
        _warn_if_open(client.scheduler.address, runtime)
        yield client


def _address_in(path: Path) -> str:
    """Return the address in the file that a scheduler wrote."""
    try:
        content = plain_json.load(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError:
        content = None
    address = content.get("address") if isinstance(content, dict) else None
    if not isinstance(address, str):
        raise InputError(f"--cluster {path}: this is no file that a Dask scheduler wrote; it names no address.")
    return address


def _require_answer(address: str) -> None:
    """Raise `InputError` where nobody listens, or what TLS needs is missing: Dask would try for long."""
    import dask

    protocol, _, place = address.rpartition("://")
    if protocol in ("tls", "wss") and not dask.config.get("distributed.comm.tls.ca-file"):
        raise InputError(
            f"--cluster {address}: Dask's settings name no certificates; give distributed.comm.tls in "
            "~/.config/dask/*.yaml."
        )
    host, _, port = place.rpartition(":")
    last = time.monotonic() + CONNECT_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
            return
        except (OSError, ValueError) as error:
            if not isinstance(error, ConnectionRefusedError) or time.monotonic() > last:
                raise _no_answer(address, error) from error
        time.sleep(0.2)  # one that is just starting


def _no_answer(address: str, error: Exception) -> InputError:
    return InputError(
        f"--cluster {address}: no Dask scheduler answers there ({error}). Start one with `dask scheduler` and workers "
        "with `dask worker`, or check address and network."
    )


def _local(n: int, runtime: Runtime) -> Any:
    """Start workers on this machine, which share its threads and memory."""
    import distributed

    return distributed.LocalCluster(
        n_workers=n,
        threads_per_worker=max(1, runtime.workers // n),
        memory_limit=2 * runtime.max_memory // n,  # of which a worker uses half
        host=LOOPBACK,
        dashboard_address=f"{LOOPBACK}:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
    )


def _jobs(asked: Asked) -> Any:
    """Ask a batch system for jobs with workers."""
    assert asked.site is not None
    classes = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
    cluster = getattr(import_module("dask_jobqueue"), classes[asked.kind])(**job_options(asked.site))
    cluster.scale(jobs=asked.n)
    return cluster


def job_options(site: Site) -> dict[str, Any]:
    """Return the keywords of a class of dask-jobqueue for jobs as the site wants them; a worker for each GPU."""
    from distributed.utils import get_ip_interface

    has_gpus = site.gpus > 0
    asked = site.resources(on_gpu=has_gpus)
    limit = f"{asked.seconds // 3600:02d}:{asked.seconds // 60 % 60:02d}"
    if site.scheduler != "lsf":
        limit += f":{asked.seconds % 60:02d}"
    further = site.options.splitlines()
    options: dict[str, Any] = {
        "job_name": "tomoseg",
        "cores": asked.cpus,
        "memory": asked.memory,
        "processes": max(1, site.gpus),
        "queue": asked.partition or site.partition or None,
        "walltime": limit,
        "interface": site.interface,
        "python": "python" if site.setup else shlex.quote(sys.executable),
        "scheduler_options": {"dashboard_address": f"{get_ip_interface(site.interface)}:0", "dashboard": False},
        "silence_logs": logging.CRITICAL,
        "worker_extra_args": ["--no-dashboard"],
        "job_script_prologue": [*site.setup.splitlines(), *_as_variables()],
    }
    if site.account:
        options["project" if site.scheduler == "lsf" else "account"] = site.account
    if site.scheduler == "pbs":
        gpus = f":ngpus={site.gpus}" if has_gpus else ""
        options["resource_spec"] = f"select=1:ncpus={asked.cpus}:mem={asked.memory}B{gpus}"
    elif has_gpus:
        further.append(f"--gpus-per-node={site.gpus}" if site.scheduler == "slurm" else f"-gpu num={site.gpus}")
    options["job_extra_directives"] = further
    return options


def _as_variables() -> list[str]:
    """Return lines of a shell that give the settings of workers to Dask there."""
    return [
        f"export DASK_{name.upper().replace('.', '__').replace('-', '_')}={value}"
        for name, value in SETTINGS.items()
        if name.startswith(("distributed.worker", "distributed.comm"))
    ]


def _warn_if_open(address: str, runtime: Runtime) -> None:
    """Warn of a scheduler that others on the network can use."""
    protocol, _, place = address.rpartition("://")
    if protocol not in ("tls", "wss", "inproc") and not place.startswith((f"{LOOPBACK}:", "localhost:", "[::1]:")):
        runtime.progress.message(
            f"warning: whoever reaches {address} can run programs as you, for it is not protected: keep it to a "
            "private network, or use TLS (docs/hpc.md)"
        )
