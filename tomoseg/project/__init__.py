"""The project file: the only code that opens it."""

from tomoseg.project.compact import compact
from tomoseg.project.file import PROJECT_ENDINGS, Project, is_project
from tomoseg.project.provenance import PeakMemory, Record, StageState, job_id, new_run_id, now, versions
from tomoseg.project.transaction import Partial, Transaction

__all__ = [
    "PROJECT_ENDINGS",
    "Partial",
    "PeakMemory",
    "Project",
    "Record",
    "StageState",
    "Transaction",
    "compact",
    "is_project",
    "job_id",
    "new_run_id",
    "now",
    "versions",
]
