"""What `--cluster` asks for, in words."""

import pytest

from tomoseg.cluster import asked, asked_for
from tomoseg.errors import InputError

pytest.importorskip("distributed")


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("node7:8786", "address", "tcp://node7:8786"),
        ("tcp://10.0.0.3:8786", "address", "tcp://10.0.0.3:8786"),
        ("tls://login.example.org:8786", "address", "tls://login.example.org:8786"),
        ("[fe80::1]:8786", "address", "tcp://[fe80::1]:8786"),
    ],
)
def test_addresses(text, kind, address):
    found = asked_for(text)
    assert (found.kind, found.address) == (kind, address)


def test_processes_on_this_machine():
    assert asked_for("local:3") == asked.Asked("local", n=3)


def test_a_scheduler_file(tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text("{}")
    assert asked_for(str(path)) == asked.Asked("file", str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local", "say how many processes"),
        ("local:0", "from 1 to 9999"),
        ("local:many", "from 1 to 9999"),
        ("node7", "give the address of a Dask scheduler"),
        ("http://node7:8786", "give the address of a Dask scheduler"),
        ("missing.json", "there is no such file"),
    ],
)
def test_what_is_no_cluster(text, message):
    with pytest.raises(InputError, match=message):
        asked_for(text)


@pytest.fixture
def with_slurm(monkeypatch, tmp_path):
    monkeypatch.setattr(asked.shutil, "which", lambda command: f"/usr/bin/{command}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "tomoseg").mkdir()
    return tmp_path / "tomoseg" / "site.yaml"


def test_jobs_as_the_site_says(with_slurm):
    with_slurm.write_text("site:\n  interface: lo\n  jobs: 3\n  cpus: 16\n")
    found = asked_for("slurm")
    assert (found.kind, found.n, found.site.cpus) == ("slurm", 3, 16)
    assert asked_for("slurm:5").n == 5
    assert asked_for("lsf:5").site.scheduler == "lsf"


def test_jobs_must_know_the_way_back(with_slurm):
    with pytest.raises(InputError, match=r"`interface: NAME` in the site file. Here are .*lo \(127\.0\.0\.1\)"):
        asked_for("slurm")


def test_where_no_job_can_be_submitted(monkeypatch):
    monkeypatch.setattr(asked.shutil, "which", lambda _command: None)
    with pytest.raises(InputError, match="`qsub` is not here"):
        asked_for("pbs:2")
