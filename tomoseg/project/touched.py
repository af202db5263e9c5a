"""Input files that were touched since a run read them, and are the same all the same."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tomoseg.project.file import Project
from tomoseg.project.provenance import Record
from tomoseg.project.transaction import write_provenance


def remember_files(project: Project, record: Record, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Note the present sizes and times of files that a stage's present result was made from.

    Only those in `files` change. They are on the disk at the next commit; until then, or without one, it has no effect.
    """
    known = replace(record, files={**record.files, **{name: dict(facts) for name, facts in files.items()}})
    if known != record:
        write_provenance(project.for_writing(), known)
