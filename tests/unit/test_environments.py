"""What `pyproject.toml`, `environment.yml` and the messages say of packages that go together."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement

import tomoseg
from tomoseg import doctor
from tomoseg.export.formats import parquet

ROOT = Path(tomoseg.__file__).parents[1]
CONDA_NAMES = {"matplotlib": "matplotlib-base", "rosettasciio": "rosettasciio-base", "vtk": "vtk-base"}

if not (ROOT / "pyproject.toml").exists():
    pytest.skip("not a source checkout", allow_module_level=True)


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def conda():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = [text for text in listed[-1]["pip"] if not text.startswith("-")]
    texts = [text.replace("=3.11", "==3.11") for text in listed[:-1]] + by_pip
    return {r.name: r.specifier for r in map(Requirement, texts)}


def test_conda_brings_every_dependency_in_a_version_that_will_do(project, conda):
    for text in project["dependencies"]:
        needed = Requirement(text)
        name = needed.name.lower()
        oldest = [s.version for s in conda[CONDA_NAMES.get(name, name)] if s.operator == ">="]
        assert all(needed.specifier.contains(version) for version in oldest), text


def test_the_messages_name_the_pyarrow_that_the_extra_installs(project, monkeypatch):
    (pair,) = [text for text in project["optional-dependencies"]["numpy1"] if text.startswith("pyarrow")]
    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.setattr(parquet, "import_module", lambda name: __import__("no_such_package"))
    assert f"pip install '{pair}'" in parquet.why_missing()
    assert f"'{pair}' with NumPy 1" in doctor.OPTIONAL["pyarrow"][1]


def test_containers_have_this_release_and_a_python_that_it_runs_on(project):
    docker, apptainer = ((ROOT / "containers" / name).read_text() for name in ("Dockerfile", "tomoseg.def"))
    for text in (docker, apptainer):
        assert re.search(rf"(?m)^\s*(ARG VERSION|version)={re.escape(tomoseg.__version__)}$", text)
        (python,) = re.findall(r"python:(\d+\.\d+)-slim", text)
        assert Requirement(f"python{project['requires-python']}").specifier.contains(python)
        extras = re.search(r"(?m)^\s*(?:ARG EXTRAS|extras)=(.*)$", text)[1].split(",")
        assert set(extras) <= set(project["optional-dependencies"])
