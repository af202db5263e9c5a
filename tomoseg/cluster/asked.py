"""What `--cluster` asks for: a scheduler that runs already, jobs of a batch system, or processes on this machine."""

import re
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tomoseg.batch.site import COMMANDS, Scheduler, Site, site_of
from tomoseg.errors import InputError, shown

Kind = Literal["address", "file", "local"] | Scheduler
MOST_WORKERS = 9999
INSTALL = "pip install 'tomoseg[cluster]'"


@dataclass(frozen=True)
class Asked:
    """A cluster that is asked for.

    `address` is that of a running scheduler, or the path of the file in which it wrote its own; `n` the number of
    processes or jobs to start; `site` what jobs ask for.
    """

    kind: Kind
    address: str = ""
    n: int = 0
    site: Site | None = None


def asked_for(text: str, site_file: Path | None = None) -> Asked:
    """Return what `--cluster` asks for.

    Raises `InputError`: the text says nothing that is known, a package or command is missing, or the defaults of the
    site do not say what jobs need.

    Examples
    --------
    >>> asked_for("local:4").n
    4
    """
    if find_spec("distributed") is None:
        raise InputError(f"--cluster needs Dask's package `distributed`, which is not installed: {INSTALL}.")
    name, _, number = text.partition(":")
    if name in ("local", *COMMANDS):
        if number and not (number.isdecimal() and 1 <= int(number) <= MOST_WORKERS):
            raise InputError(f"--cluster {shown(text)}: give a number from 1 to {MOST_WORKERS} after the colon.")
        if name == "local":
            if not number:
                raise InputError("--cluster local: say how many processes, for example local:2.")
            return Asked("local", n=int(number))
        return _jobs(name, int(number or 0), site_file)
    if text.endswith(".json"):
        if not Path(text).is_file():
            raise InputError(
                f"--cluster {shown(text)}: there is no such file; a Dask scheduler writes it as it starts."
            )
        return Asked("file", str(Path(text).absolute()))
    if re.fullmatch(r"((tcp|tls|ucx|ws|wss)://)?(\[[0-9a-fA-F:%.\w]+\]|[\w.-]+):\d{1,5}", text):
        return Asked("address", text if "://" in text else f"tcp://{text}")
    raise InputError(
        f"--cluster {shown(text)}: give the address of a Dask scheduler (tcp://HOST:PORT, tls://HOST:PORT), its "
        "scheduler file (.json), slurm, pbs or lsf with a number of jobs (slurm:4), or local:N."
    )


def _jobs(name: str, n: int, site_file: Path | None) -> Asked:
    """Return what asks for jobs of a batch system."""
    if find_spec("dask_jobqueue") is None:
        raise InputError(f"--cluster {name} needs the package `dask-jobqueue`, which is not installed: {INSTALL}.")
    command = COMMANDS[name]
    if shutil.which(command) is None:
        raise InputError(f"--cluster {name}: `{command}` is not here; start on a node that may submit jobs.")
    site = site_of(site_file, {"scheduler": name})
    if not site.interface:
        raise InputError(
            f"--cluster {name}: name the network by which jobs reach this machine, `interface: NAME` in the site file. "
            f"Here are {_interfaces()}."
        )
    return Asked(site.scheduler, n=n or site.jobs, site=site)


def _interfaces() -> str:
    """Return the network interfaces of this machine, with their IPv4 addresses."""
    import socket

    import psutil

    found = {
        name: one.address
        for name, all_of in psutil.net_if_addrs().items()
        for one in all_of
        if one.family == socket.AF_INET
    }
    return ", ".join(f"{name} ({address})" for name, address in found.items()) or "none with an IPv4 address"
