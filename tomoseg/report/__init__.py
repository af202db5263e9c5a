"""The report of a project: a self-contained page, an overview picture, plots as files, and a view in napari."""

from tomoseg.report.page.page import write_report
from tomoseg.report.results import PictureSizes

__all__ = ["PictureSizes", "write_report"]
