"""How Sphinx builds the documentation: `make docs`, then open docs/_build/index.html."""

import subprocess
import sys
from pathlib import Path

import tomoseg

HERE = Path(__file__).parent

project = "tomoseg"
version = release = tomoseg.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
html_theme = "furo"
html_title = f"tomoseg {version}"
exclude_patterns = ["_build", "gallery/*.rst", "gallery/*.md"]
intersphinx_mapping: dict[str, object] = {}  # pages are complete without the network
nitpicky = False
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]  # the gallery's settings hold functions
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings give shapes and units as well
numpydoc_show_class_members = False
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": "/plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "remove_config_comments": True,
    "min_reported_time": 1,
}


def setup(app: object) -> None:
    """Write the command reference from the program itself."""
    del app
    command = [
        sys.executable,
        "-m",
        "typer",
        "tomoseg.cli.app",
        "utils",
        "docs",
        "--name",
        "tomoseg",
        "--title",
        "Commands",
    ]
    subprocess.run([*command, "--output", str(HERE / "commands.md")], check=True, capture_output=True)
