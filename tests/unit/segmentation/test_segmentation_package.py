"""Properties of the package as a whole."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tomoseg.segmentation

ROOM = Path(tomoseg.segmentation.__file__).parent
MODULES = sorted(ROOM.rglob("*.py"))
NEEDS_KERAS = {"keras_setup", "builders", "losses", "model_file", "feature_maps"}


def name_of(path):
    return ".".join(("tomoseg.segmentation", *path.relative_to(ROOM).with_suffix("").parts))


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_only_the_setup_knows_the_backend(module):
    # The same code runs with KERAS_BACKEND=torch or jax: nothing but the setup names a backend.
    nodes = list(ast.walk(ast.parse(module.read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    if module.stem != "keras_setup":
        assert not {"tf", "torch", "jax"} & names
        assert not {"tensorflow", "torch", "jax", "keras"} & {name.split(".")[0] for name in imported}


def test_everything_that_needs_no_network_loads_without_keras():
    light = [name_of(path) for path in MODULES if path.stem not in {*NEEDS_KERAS, "__init__"}]
    heavy = ("keras", "tensorflow", "matplotlib")
    code = f"import sys, {', '.join(light)}; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_parameters_of_a_training_load_nothing_heavy():
    code = (
        "import sys, tomoseg.segmentation.training.parameters\n"
        "sys.exit(any(m in sys.modules for m in ('scipy', 'skimage', 'keras', 'tensorflow', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_keras_says_nothing(tmp_path):
    code = "import tomoseg.segmentation.networks.keras_setup"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == ""
