"""What this process may use of its machine: CPUs and memory, within the limits of containers, batch systems and shells.

`root` is the folder in which /proc and the control groups are found, for tests.
"""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
UNKNOWN_MEMORY = 8 << 30  # bytes, where the system cannot be asked


def available_cpus(root: Path = ROOT) -> int:
    """Return the number of CPUs this process may use, at least 1; a batch system may give fewer than there are."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min([cpus, *_job_cpus(), *(math.ceil(quota) for quota in _cpu_quotas(root))]))


def available_memory(root: Path = ROOT) -> int:
    """Return the memory this process may use, in bytes.

    It is the machine's, or less by a control group, by `ulimit -v`, or by what a batch system says it gave.
    """
    limits = [*_physical_memory(), *_address_space(), *_job_memory(), *_group_memory(root)]
    return min(limits, default=UNKNOWN_MEMORY)


# --- batch systems: what they say they gave, for those that let a job take more ---

# By the variable that tells a job: variables of the CPUs on this node, of which the first that is set counts.
JOB_CPUS = {
    "SLURM_JOB_ID": ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"),
    "PBS_JOBID": ("NCPUS", "PBS_NUM_PPN"),
    "LSB_JOBID": ("LSB_DJOB_NUMPROC",),
}


def _job_cpus() -> list[int]:
    for job, names in JOB_CPUS.items():
        if job in os.environ:
            return [n for name in names if (n := _positive(name))][:1]
    return []


def _job_memory() -> list[int]:
    """Return the memory that Slurm gave, which it tells in MiB of a node or of a CPU; 0 means all there is."""
    if "SLURM_JOB_ID" not in os.environ:
        return []
    of_node, of_cpu, cpus = (_positive(f"SLURM_{n}") for n in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE"))
    return [n << 20 for n in (of_node, of_cpu * cpus) if n]


def _positive(name: str) -> int:
    """Return the number in a variable of the environment, 0 where there is none."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 0


def _physical_memory() -> list[int]:
    try:
        return [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (ValueError, OSError, AttributeError):
        return []


def _address_space() -> list[int]:
    try:
        import resource
    except ImportError:  # Windows
        return []
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if soft == resource.RLIM_INFINITY else [soft]


# --- control groups, version 1 and 2 (cgroups(7)) ---


def _group_memory(root: Path) -> Iterator[int]:
    """Yield the limit of every control group around this process, in bytes."""
    for folder in _groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):  # without a limit it is 'max', or a huge number
            yield from _numbers(folder / name)


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield how many CPUs every control group around this process may keep busy."""
    for folder in _groups("cpu", root):
        one_by_one = _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")
        for numbers in (_numbers(folder / "cpu.max"), one_by_one):
            if len(numbers) == 2 and min(numbers) > 0:  # without a quota it is 'max', or -1
                yield numbers[0] / numbers[1]


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups that have the controller, and of all groups above them."""
    own: dict[str, PurePosixPath] = {}  # by controller; version 2 has one for all, without a name
    for line in _lines(root / "proc/self/cgroup"):
        if found := re.fullmatch(r"\d+:([^:]*):(/.*)", line):
            own |= dict.fromkeys(found[1].split(","), PurePosixPath(found[2]))
    for line in _lines(root / "proc/self/mountinfo"):
        mount = re.fullmatch(
            r"\S+ \S+ \S+ (?P<top>\S+) (?P<where>\S+) .*- (?P<kind>cgroup2?) \S+ (?P<options>\S+)", line
        )
        name = "" if mount and mount["kind"] == "cgroup2" else controller
        if mount is None or name not in own or name not in ["", *mount["options"].split(",")]:
            continue
        # A container may see the path from outside, and mounted only its own group.
        top, path = _unescaped(mount["top"]), own[name]
        inner = path.relative_to(top) if path.is_relative_to(top) and ".." not in path.parts else PurePosixPath()
        for folder in (inner, *inner.parents):
            yield root / _unescaped(mount["where"]).lstrip("/") / folder


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _lines(file: Path) -> list[str]:
    """Return the lines of a file; none where it cannot be read."""
    try:
        return file.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []


def _numbers(file: Path) -> list[int]:
    """Return the whole numbers in a file; none where it cannot be read."""
    return [int(word) for line in _lines(file) for word in line.split() if re.fullmatch(r"-?\d{1,30}", word)]
