"""One self-contained HTML page with pictures of every stage."""

from tomoseg.report.page import write_report
from tomoseg.report.record import StageRecord

__all__ = ["StageRecord", "write_report"]
