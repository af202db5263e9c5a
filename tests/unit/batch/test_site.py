"""What jobs ask for: defaults of a site, and options."""

import pytest

from tests.conftest import tomoseg
from tomoseg.batch.site import Site, default_path, seconds, site_of
from tomoseg.errors import InputError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90m", 5400), ("4h", 14400), ("1h30m", 5400), ("2d", 172800), ("04:00:00", 14400), ("1-00:00:30", 86430)],
)
def test_times_are_read_as_batch_systems_write_them(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "10s", "-4h", "4 h", "99999h"])
def test_other_times_are_refused(text):
    with pytest.raises(InputError, match=r"site\.time"):
        Site.of("site", {"time": text})


def test_options_come_before_the_file_and_the_file_before_defaults(home):
    write(default_path(), "site:\n  scheduler: lsf\n  cpus: 4\n  account: abc\n  options: [--x=1, --y=2]\n")
    site = site_of(None, {"cpus": "12"})
    assert (site.scheduler, site.cpus, site.account, site.memory) == ("lsf", 12, "abc", "32G")
    assert site.options == "--x=1\n--y=2"
    assert site_of(None, {"options": "--z\n--w"}).options == "--z\n--w"


def test_a_template_is_beside_the_file_that_names_it(home):
    path = write(home / "sites" / "my.yaml", "site:\n  template: own.slurm\n")
    assert site_of(path, {}).template == home / "sites" / "own.slurm"


def test_without_a_file_there_are_defaults(home):
    assert site_of(None, {}) == Site()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("site:\n  cpus: many\n", "site.cpus"),
        ("site:\n  cpu: 3\n", "cpu"),
        ("site:\n  memory: lots\n", "site.memory"),
        ('site:\n  account: "a\\n#SBATCH --uid=0"\n', "one line of text"),
        ("cpus: 3\n", "one section `site:`"),
        ("site: 3\n", "one section `site:`"),
        ("site: [\n", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(home, text, words):
    path = write(default_path(), text)
    with pytest.raises(InputError, match=words) as refused:
        site_of(None, {})
    assert str(path) in str(refused.value)


def test_check_finds_what_is_wrong_with_it(tmp_path):
    good, bad = (write(tmp_path / f"{n}.yaml", f"site:\n  gpus: {n}\n") for n in (1, 1000))
    assert "no problems found" in tomoseg("check", good).stdout
    assert "site.gpus" in tomoseg("check", bad, code=2).stderr
