"""Upgrade of a project that an older tomoseg wrote to the present schema.

Applied in memory where a project is only read, and with the first commit where it is written, so that a crash leaves
the old file or the new one.
"""

import json
from collections.abc import Callable
from typing import Any

import h5py

from tomoseg import plain_json, schema


def upgrade(file: h5py.File) -> None:
    """Apply every step from the file's version to the present one."""
    for version in range(int(file.attrs[schema.SCHEMA_ATTR]), schema.SCHEMA_VERSION):
        STEPS[version](file)
        file.attrs[schema.SCHEMA_ATTR] = version + 1


def _from_1(file: h5py.File) -> None:
    """Give every run an outcome: only those that ended well were kept."""
    file.pop(schema.STAGING, None)
    groups = [*file.get(schema.PROVENANCE, {}).values(), *file.get(schema.HISTORY, {}).values()]
    for group in groups:
        if "record" in group.attrs:
            added: dict[str, Any] = {"outcome": "done", "continues": ""}
            group.attrs.update(added)
            group.attrs["record"] = json.dumps(plain_json.load(group.attrs["record"]) | added)


STEPS: dict[int, Callable[[h5py.File], None]] = {1: _from_1}
