"""CPUs and memory that this process may use: machine, control groups of both versions, `ulimit`."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tomoseg.machine import available_cpus, available_memory
from tomoseg.runtime import default_memory, make_runtime

GIB = 1 << 30
PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MOUNT = "30 23 0:26 {top} {where} rw,nosuid shared:9 - {kind} {kind} rw,{options}\n"


def system(root, own, mounts, limits):
    """Make the files of a system: /proc/self/cgroup, what is mounted, and files of limits."""
    content = {"proc/self/cgroup": own, "proc/self/mountinfo": "".join(MOUNT.format(**m) for m in mounts), **limits}
    for name, text in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def unified(top="/", where="/sys/fs/cgroup"):
    return {"top": top, "where": where, "kind": "cgroup2", "options": "nsdelegate"}


def first_version(controllers, top="/", where=None):
    where = where or f"/sys/fs/cgroup/{controllers}"
    return {"top": top, "where": where, "kind": "cgroup", "options": controllers}


@pytest.mark.parametrize("own", [None, "", "nonsense", "0::/x", "1:name=systemd:/x"])
def test_without_limits_all_there_is(tmp_path, own):
    root = tmp_path if own is None else system(tmp_path, own, [unified()], {"sys/fs/cgroup/x/memory.max": "max"})
    assert (available_cpus(root), available_memory(root)) == (len(os.sched_getaffinity(0)), PHYSICAL)


@pytest.mark.parametrize(
    ("own", "mounts", "limits", "memory"),
    [
        (
            "0::/system.slice/job.scope",
            [unified()],
            {"sys/fs/cgroup/system.slice/job.scope/memory.max": GIB, "sys/fs/cgroup/system.slice/memory.max": "max"},
            GIB,
        ),
        (  # the smallest on the way up counts
            "0::/a/b/c",
            [unified()],
            {"sys/fs/cgroup/a/b/c/memory.max": 3 * GIB, "sys/fs/cgroup/a/memory.max": 2 * GIB},
            2 * GIB,
        ),
        (  # a container with a view of its own
            "0::/",
            [unified()],
            {"sys/fs/cgroup/memory.max": GIB},
            GIB,
        ),
        (  # a container that sees its path from outside, and mounted only its own group
            "4:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123",
            [first_version("memory", "/docker/0123")],
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": GIB},
            GIB,
        ),
        (  # the same, in a group of the container
            "4:memory:/docker/0123/step",
            [first_version("memory", "/docker/0123")],
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
                "sys/fs/cgroup/memory/step/memory.limit_in_bytes": GIB,
            },
            GIB,
        ),
        (  # both versions at once; a path that leads out of what is mounted is not followed
            "4:memory:/../job\n0::/x",
            [first_version("memory"), unified(where="/sys/fs/cgroup/uni\\040fied")],
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": 2 * GIB, "sys/fs/cgroup/uni fied/x/memory.max": GIB},
            GIB,
        ),
        ("0::/x", [unified()], {"sys/fs/cgroup/x/memory.max": "lots of it"}, PHYSICAL),
        ("0::/x", [unified()], {"sys/fs/cgroup/x/memory.max": 1 << 60}, PHYSICAL),
    ],
)
def test_memory_is_what_the_control_groups_leave(tmp_path, own, mounts, limits, memory):
    assert available_memory(system(tmp_path, own, mounts, limits)) == min(memory, PHYSICAL)


@pytest.mark.parametrize(
    ("own", "mounts", "limits", "cpus"),
    [
        ("0::/x", [unified()], {"sys/fs/cgroup/x/cpu.max": "150000 100000"}, 2),
        ("0::/x", [unified()], {"sys/fs/cgroup/x/cpu.max": "1000 100000"}, 1),
        ("0::/x", [unified()], {"sys/fs/cgroup/x/cpu.max": "max 100000"}, 8),
        ("0::/x", [unified()], {"sys/fs/cgroup/x/cpu.max": "9900000 100000"}, 8),
        ("0::/x/y", [unified()], {"sys/fs/cgroup/x/cpu.max": "300000 100000", "sys/fs/cgroup/x/y/cpu.max": "max 5"}, 3),
        (
            "3:cpu,cpuacct:/job",
            [first_version("cpu,cpuacct")],
            {
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": 250000,
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": 100000,
            },
            3,
        ),
        (
            "3:cpu:/",
            [first_version("cpu")],
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1, "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000},
            8,
        ),
        (  # of another controller
            "3:cpu:/x",
            [first_version("cpuset")],
            {"sys/fs/cgroup/cpuset/x/cpu.cfs_quota_us": 1, "sys/fs/cgroup/cpuset/x/cpu.cfs_period_us": 1},
            8,
        ),
    ],
)
def test_cpus_are_what_the_control_groups_leave_rounded_up(tmp_path, monkeypatch, own, mounts, limits, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert available_cpus(system(tmp_path, own, mounts, limits)) == cpus


def test_the_limit_of_a_shell_counts():
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), resource.RLIM_INFINITY))\n"
    code += "from tomoseg.runtime import default_memory; print(default_memory())"
    command = [sys.executable, "-c", code, str(2 * GIB)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == min(2 * GIB, PHYSICAL) // 2


def test_the_default_of_a_run_is_half_of_it(tmp_path, monkeypatch):
    root = system(tmp_path, "0::/", [unified()], {"sys/fs/cgroup/memory.max": GIB, "sys/fs/cgroup/cpu.max": "1 1"})
    monkeypatch.setattr("tomoseg.runtime.available_memory", lambda: available_memory(root))
    monkeypatch.setattr("tomoseg.runtime.available_cpus", lambda: available_cpus(root))
    assert default_memory() == GIB // 2
    assert (make_runtime().max_memory, make_runtime().workers) == (GIB // 2, 1)
    assert make_runtime(workers=3, max_memory="3G").max_memory == 3 * GIB


# --- a real control group, where one can be made


def _made_group(limit):
    """Return the folder of a new control group with a limit on memory, or None."""
    for parent, file in (
        (Path("/sys/fs/cgroup"), "memory.max"),
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    ):
        folder = parent / f"tomoseg-{uuid.uuid4().hex[:8]}"
        if not (parent / "cgroup.procs").exists() or not os.access(parent, os.W_OK):
            continue
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / file).write_text(str(limit))
            return folder
        except OSError:
            folder.rmdir()
    return None


def test_a_real_control_group():
    limit = 512 << 20
    group = _made_group(limit)
    if group is None:
        pytest.skip("no control group with a limit on memory can be made here (it needs root)")
    code = "import sys, os; open(sys.argv[1], 'w').write(str(os.getpid()))\n"
    code += "from tomoseg.runtime import default_memory; print(default_memory())"
    try:
        command = [sys.executable, "-c", code, str(group / "cgroup.procs")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        group.rmdir()
    assert int(done.stdout) == limit // 2


@pytest.mark.parametrize(
    ("given", "cpus"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1", "SLURM_CPUS_ON_NODE": "64"}, 1),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "1"}, 1),
        ({"PBS_JOBID": "7.head", "NCPUS": "1"}, 1),
        ({"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "1"}, 1),
        ({"SLURM_CPUS_PER_TASK": "1"}, None),  # left over from somewhere, but no job
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "9999"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "many"}, None),
    ],
)
def test_cpus_that_a_batch_system_says_it_gave(tmp_path, monkeypatch, given, cpus):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert available_cpus(tmp_path) == (cpus or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("given", "memory"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "512"}, GIB // 2),
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "256", "SLURM_CPUS_ON_NODE": "4"}, GIB),
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "0"}, PHYSICAL),
        ({"SLURM_MEM_PER_NODE": "512"}, PHYSICAL),
    ],
)
def test_memory_that_a_batch_system_says_it_gave(tmp_path, monkeypatch, given, memory):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert available_memory(tmp_path) == memory
