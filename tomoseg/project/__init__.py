"""The project file: the only code that opens it."""

from tomoseg.project.file import Project, Transaction, is_project
from tomoseg.project.provenance import PeakMemory, Record, job_id, new_run_id, now, versions

__all__ = ["PeakMemory", "Project", "Record", "Transaction", "is_project", "job_id", "new_run_id", "now", "versions"]
