"""Inside the room imports point one way: images, then finding, then judging, then the api."""

import ast
from pathlib import Path

import pytest

import tomoseg.alignment

ROOM = Path(tomoseg.alignment.__file__).parent
ORDER = ("images", "finding", "judging")


@pytest.mark.parametrize("path", sorted(ROOM.glob("*/*.py")), ids=lambda p: str(p.relative_to(ROOM)))
def test_imports_point_one_way(path):
    allowed = ORDER[: ORDER.index(path.parent.name) + 1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tomoseg.alignment."):
            assert node.module.split(".")[2] in allowed, node.module
