"""Properties of the package as a whole."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tomoseg.segmentation

MODULES = sorted(Path(tomoseg.segmentation.__file__).parent.glob("*.py"))
NEEDS_KERAS = {"keras_setup", "network", "se_resnet", "losses", "model_file"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
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
    light = [f"tomoseg.segmentation.{path.stem}" for path in MODULES if path.stem not in {*NEEDS_KERAS, "__init__"}]
    heavy = ("keras", "tensorflow", "matplotlib")
    code = f"import sys, {', '.join(light)}; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_keras_says_nothing(tmp_path):
    code = "import tomoseg.segmentation.networks.keras_setup"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == ""
