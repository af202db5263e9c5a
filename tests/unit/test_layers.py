"""Imports point one way, heavy packages stay out of light commands, and no stage spells an HDF5 path."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tomoseg
from tomoseg import schema

PACKAGE = Path(tomoseg.__file__).parent
EVERYONE_MAY_USE = {
    *("schema", "errors", "arrays", "runtime", "progress", "parameters", "keywords", "__init__"),
    *("classes", "components", "tables"),
}
SCIENCE = {"io", "alignment", "reconstruction", "segmentation", "measurement", "export", "simulate", "report"}
HEAVY = {
    "tensorflow",
    "keras",
    "astra",
    "vtk",
    "vtkmodules",
    "numba",
    "scipy",
    "skimage",
    "matplotlib",
    "pandas",
    "tomopy",
}
# Who may import whom inside tomoseg, besides EVERYONE_MAY_USE and itself.
ALLOWED = {
    "cli": {"annotation", "config", "engine", "project", "stages", "doctor"} | SCIENCE,
    "annotation": {"io", "project", "segmentation"},
    "engine": {"config", "io", "project", "stages"},
    "config": {"stages"},
    "stages": SCIENCE,
    "project": {"io", "simulate"},
    "io": set(),
    "alignment": {"reconstruction"},
    "reconstruction": set(),
    "segmentation": {"io"},
    "measurement": set(),
    "export": {"io", "measurement"},
    "report": {"export", "io", "measurement"},
    "simulate": set(),
    "progress": set(),
    "doctor": set(),
    "schema": set(),
    "errors": set(),
    "arrays": set(),
    "runtime": set(),
    "parameters": set(),
    "keywords": set(),
    "classes": set(),
    "components": set(),
    "tables": set(),
    "__init__": set(),
    "__main__": {"cli"},
}


def _modules():
    return sorted(PACKAGE.rglob("*.py"))


def _room(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def _imports(path):
    """Yield (module, name) of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = _room(path)
    used = set()
    for module, name in _imports(path):
        parts = module.split(".")
        if parts[0] == "tomoseg":
            used.add(
                parts[1]
                if len(parts) > 1
                else (name if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists() else "__init__")
            )
    assert used - EVERYONE_MAY_USE - {room} <= ALLOWED[room]


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_project_room_opens_hdf5(path):
    foreign = ("hdf5.py", "weights.py")  # EMD, hspy, data exchange; the weights of networks
    other_files = {PACKAGE / "io" / "readers" / name for name in foreign} | {PACKAGE / "export" / "vtkhdf.py"}
    if _room(path) != "project" and path not in other_files:
        assert "h5py" not in {module.split(".")[0] for module, _ in _imports(path)}


def test_no_path_of_the_project_file_outside_the_schema():
    groups = tuple({"/" + artifact.path.split("/")[1] for artifact in schema.ARTIFACTS} | {schema.PROVENANCE})
    for path in _modules():
        if path.name != "schema.py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(groups):
                    pytest.fail(f"{path.name}:{node.lineno} spells {node.value}")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["status", "PROJECT"]])
def test_light_commands_load_nothing_heavy(arguments, small_run):
    arguments = [str(small_run.project) if a == "PROJECT" else a for a in arguments]
    code = (
        "import sys\nfrom tomoseg.cli import main\n"
        f"try:\n    main({arguments!r})\n"
        "except SystemExit as e:\n    assert e.code == 0, e.code\n"
        f"print('LOADED', sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "LOADED []" in out


def test_stage_run_takes_what_it_declares():
    import inspect

    from tomoseg.stages import STAGES

    for stage in STAGES:
        keywords = set(inspect.signature(stage.run).parameters)
        assert keywords == {a.name for a in stage.reads} | {"params", "runtime", "outputs"} | set(
            stage.parameters.other_project_fields()
        ), stage.name


def test_every_parameter_is_described():
    from tomoseg.stages import STAGES

    undescribed = [f"{s.name}.{n}" for s in STAGES for n, f in s.parameters.model_fields.items() if not f.description]
    assert undescribed == []


def test_every_artifact_is_written_by_one_stage_or_by_hand():
    from tomoseg.schema import ARTIFACTS, BY_HAND
    from tomoseg.stages import STAGES

    written = [artifact.name for stage in STAGES for artifact in stage.writes] + [a.name for a in BY_HAND]
    assert sorted(written) == sorted(a.name for a in ARTIFACTS)


def test_every_package_is_installed():
    pyproject = PACKAGE.parent / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("not a source checkout")
    listed = tomllib.loads(pyproject.read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(p.parent.relative_to(PACKAGE.parent).parts) for p in PACKAGE.rglob("__init__.py")}
    assert sorted(listed) == sorted(found | {"tomoseg.pipelines"})
