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
    *("classes", "components", "lengths", "machine", "missing_wedge", "palette", "plain_json", "plain_yaml"),
    *("ahead", "chunks", "scratch", "tables", "terminal", "words"),
}
SCIENCE = {
    "io",
    "alignment",
    "reconstruction",
    "segmentation",
    "measurement",
    "micrographs",
    "export",
    "simulate",
    "worlds",
    "report",
}
HEAVY = {
    *("tensorflow", "keras", "astra", "vtk", "vtkmodules", "numba", "scipy", "skimage", "matplotlib", "pandas"),
    *("tomopy",),
}
# Who may import whom inside tomoseg, besides EVERYONE_MAY_USE and itself: a whole room, or one module of it.
ALLOWED = {
    "cli": {
        "annotation",
        "api",
        "batch",
        "beforehand",
        "cluster",
        "config",
        "engine",
        "project",
        "reproduction",
        "stages",
        "doctor",
    }
    | SCIENCE,
    "annotation": {"io", "project", "segmentation"},
    "beforehand": {"config", "io", "project", "stages"},
    "engine": {"config", "io", "project", "stages"},
    "config": {"stages"},
    "stages": SCIENCE,
    "project": {"io"},
    "io": set(),
    "alignment": {"io", "reconstruction"},
    "reconstruction": set(),
    "segmentation": {"io"},
    "measurement": set(),
    "micrographs": {"export", "io", "measurement", "segmentation"},
    "export": {"io", "measurement"},
    "report": {"export", "io", "measurement", "project.provenance"},
    "batch": {"config", "io", "project", "stages"},
    "cluster": {"batch.site", "reconstruction.backends.gpu"},
    "simulate": set(),
    "worlds": {"io", "reconstruction", "segmentation", "simulate"},
    "progress": set(),
    "reproduction": {"config", "project", "stages"},
    "doctor": {"io.file_system", "io.limits"},
    "schema": set(),
    "ahead": set(),
    "chunks": set(),
    "scratch": set(),
    "errors": set(),
    "arrays": set(),
    "machine": set(),
    "runtime": set(),
    "palette": set(),
    "parameters": set(),
    "keywords": {"project"},
    "tables": set(),
    "classes": set(),
    "lengths": set(),
    "missing_wedge": set(),
    "plain_json": set(),
    "plain_yaml": set(),
    "terminal": set(),
    "words": set(),
    "components": set(),
    "api": {"beforehand", "config", "engine", "project", "report"},
    "__init__": {"api"} | SCIENCE,
    "__main__": {"cli"},
}


def _modules():
    return sorted(PACKAGE.rglob("*.py"))


def _room(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


# Within a room, in the order of the flow: a part may import the parts before it, and what stands in the room itself.
ORDER = {
    "alignment": ("images", "finding", "judging"),
    "segmentation": ("data", "networks", "inference", "evaluation", "training"),
    "measurement": ("common", "particles", "pores", "support"),
}


def _name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(path): path for path in _modules()}


def _imports(path):
    """Yield (module, name) of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def _imported_modules(path):
    """Return the modules of tomoseg that a file imports, wherever it does."""
    named = {f"{module}.{name}" if f"{module}.{name}" in MODULES else module for module, name in _imports(path)}
    return named & set(MODULES)


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = _room(path)
    used = set()
    for module, name in _imports(path):
        parts = module.split(".")
        if parts[0] == "tomoseg":
            used.add(
                ".".join(parts[1:])
                if len(parts) > 1
                else (name if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists() else "__init__")
            )
    allowed = EVERYONE_MAY_USE | {room} | ALLOWED[room]
    assert [module for module in used if not {module, module.split(".")[0]} & allowed] == []


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_project_room_opens_hdf5(path):
    foreign = ("hdf5.py", "weights.py")  # EMD, hspy, data exchange; the weights of networks
    other_files = {PACKAGE / "io" / "readers" / name for name in foreign}
    other_files |= {PACKAGE / "export" / "formats" / "vtkhdf.py"}
    if _room(path) != "project" and path not in other_files:
        assert "h5py" not in {module.split(".")[0] for module, _ in _imports(path)}


def test_no_module_imports_itself_by_way_of_others():
    """Also by imports within functions or for annotations: in a cycle nobody can say which module comes first."""
    left = {name: _imported_modules(path) - {"tomoseg"} for name, path in MODULES.items() if name != "tomoseg"}
    while free := [name for name, used in left.items() if not used & (left.keys() - {name})]:
        for name in free:
            del left[name]
    assert sorted(left) == []


def _written_to_the_terminal(path):
    """Yield the lines in which a file writes to standard output or standard error by itself."""
    streams = {f"sys.{dunder}{name}{dunder}" for name in ("stdout", "stderr") for dunder in ("", "__")}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in streams:
            yield node.lineno
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            is_print = called in {"print", "pprint", "typer.echo", "typer.secho", "echo", "traceback.print_exc"}
            if is_print or called.startswith("traceback.print_"):
                yield node.lineno
            if called == "os.write" and ast.unparse(node.args[0]) in {"1", "2"}:
                yield node.lineno


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_door_writes_to_the_terminal(path):
    # The watchdog writes past Python, whose lock the main thread may hold; what it writes is made printable.
    expected = {"terminal.py": None, "runtime.py": 1}
    found = list(_written_to_the_terminal(path))
    if str(path.relative_to(PACKAGE)) == "terminal.py":
        assert found
    else:
        assert len(found) == (expected.get(str(path.relative_to(PACKAGE))) or 0), found


def test_no_stage_imports_another():
    for path in (PACKAGE / "stages").glob("*.py"):
        if path.name != "__init__.py":
            others = {m for m in _imported_modules(path) if m.startswith("tomoseg.stages.")}
            assert others <= {"tomoseg.stages.base", "tomoseg.stages.halves"}, path.name  # which are no stages


@pytest.mark.parametrize(("room", "parts"), ORDER.items(), ids=ORDER)
def test_the_parts_of_a_room_follow_the_flow(room, parts):
    folders = {path.name for path in (PACKAGE / room).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(parts) <= folders
    for n, part in enumerate(parts):
        later = tuple(f"tomoseg.{room}.{other}" for other in parts[n + 1 :])
        for path in (PACKAGE / room / part).rglob("*.py"):
            assert not [m for m in _imported_modules(path) if m.startswith(later)], path


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
