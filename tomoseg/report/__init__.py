"""One self-contained HTML page, one picture, plots as files, and a look at the project in napari."""

from tomoseg.report.page import write_report
from tomoseg.report.record import StageRecord

__all__ = ["StageRecord", "write_report"]
