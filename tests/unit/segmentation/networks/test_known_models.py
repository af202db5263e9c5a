"""Networks by name: where they are looked for, what is listed, what a name leads to."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import tomoseg
from tomoseg import config
from tomoseg.errors import InputError
from tomoseg.segmentation.networks import known_models
from tomoseg.segmentation.networks.known_models import find_model, is_name, resolve_model, user_folder


@pytest.fixture
def folders(tmp_path, monkeypatch, trained):
    """Return the user's folder and the shipped one, each with two networks, 'both' in common."""
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    for folder, names in ((own, ("mine", "both")), (shipped, ("both", "pt-al2o3"))):
        folder.mkdir()
        for name in names:
            shutil.copy(trained.path, folder / f"{name}.keras")
    monkeypatch.setenv("TOMOSEG_MODELS", str(own))
    monkeypatch.setattr(known_models, "SHIPPED", shipped)
    monkeypatch.chdir(tmp_path)
    return own, shipped


def test_names_lead_to_files_and_the_users_own_come_first(folders):
    own, shipped = folders
    assert resolve_model("mine") == own / "mine.keras"
    assert resolve_model("both") == own / "both.keras"
    assert resolve_model("pt-al2o3") == shipped / "pt-al2o3.keras"
    assert resolve_model(Path("pt-al2o3")) == shipped / "pt-al2o3.keras"


def test_paths_stay_paths(folders):
    for path in ("absent.keras", "sub/both", str(folders[0] / "mine.keras")):
        assert resolve_model(path) == Path(path)
    Path("both").write_bytes(b"")  # a file of that name is meant
    assert resolve_model("both") == Path("both")


@pytest.mark.parametrize(
    ("text", "expected"), [("a", True), ("v1.2", True), ("a.keras", False), ("d/a", False), ("", False)]
)
def test_what_a_name_looks_like(text, expected):
    assert is_name(text) is expected


def test_a_bad_name_lists_those_there_are(folders):
    with pytest.raises(InputError, match=r"no network named 'pt' \(there are both, mine, pt-al2o3\)"):
        resolve_model("pt")
    assert find_model("pt") == Path("pt")


def test_what_is_listed(folders, trained):
    own, _ = folders
    (own / "broken.keras").write_bytes(b"nothing")
    found = {(m.name, m.ships): m for m in known_models.known_models()}
    assert set(found) == {
        ("both", False),
        ("both", True),
        ("broken", False),
        ("mine", False),
        ("pt-al2o3", True),
    }
    assert [key for key, m in found.items() if m.hidden] == [("both", True)]
    assert "not a .keras file" in found["broken", False].problem
    assert found["mine", False].card == trained.result.card
    assert found["mine", False].to_dict()["pixel_size_nm"] == 0.3


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"HOME": "/home/me"}, "/home/me/.local/share/tomoseg/models"),
        ("darwin", {"HOME": "/home/me", "XDG_DATA_HOME": "/data"}, "/data/tomoseg/models"),
        ("win32", {"LOCALAPPDATA": "/app"}, "/app/tomoseg/models"),
        ("linux", {"HOME": "/home/me", "TOMOSEG_MODELS": "~/nets"}, "/home/me/nets"),
    ],
)
def test_where_the_users_own_lie(monkeypatch, platform, environment, expected):
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA", "TOMOSEG_MODELS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert user_folder() == Path(expected)


def test_pipelines_may_name_a_network(folders, tmp_path):
    _, shipped = folders
    sub = tmp_path / "sub"
    sub.mkdir()
    pipeline = sub / "p.yaml"

    def model(text):
        pipeline.write_text(f"segment:\n  model: {text}\n")
        return config.resolve(config.read_pipeline(pipeline))["segment"].model

    assert model("pt-al2o3") == shipped / "pt-al2o3.keras"
    assert model("nets/a.keras") == sub / "nets" / "a.keras"
    (sub / "both").write_bytes(b"")
    assert model("both") == sub / "both"
    pipeline.write_text("segment:\n  model: nobody\n")
    with pytest.raises(InputError, match=r"segment\.model: there is no network named 'nobody' \(there are both, mine"):
        config.check_stages(config.resolve(config.read_pipeline(pipeline)))


def test_the_command_lists_and_segment_takes_a_name(folders, project):
    listed = tomoseg("models").stdout
    assert "mine  (your own)" in listed
    assert "classes     background, support, particles" in listed
    assert "pixel size  0.3 nm" in listed
    found = json.loads(tomoseg("models", "--json").stdout)
    assert found["folder"] == str(folders[0])
    assert {m["name"] for m in found["models"] if not m["ships_with_tomoseg"]} == {"both", "mine"}
    refused = tomoseg("segment", project, "--model", "nobody", code=2)
    assert "no network named 'nobody'" in refused.stderr
    tomoseg("segment", project, "--model", "mine", "--device", "cpu", "--progress", "none")
    status = json.loads(tomoseg("status", project, "--json").stdout)
    segment = next(stage for stage in status["stages"] if stage["name"] == "segment")
    assert segment["state"] == "fresh"
    assert segment["run"]["parameters"]["model"] == str(folders[0] / "mine.keras")
