"""The section of the exported files."""

import json

from tomoseg.report.formatting import memory
from tomoseg.report.html import Html, facts, join, table
from tomoseg.report.results import Results


def export_section(results: Results) -> Html:
    """List the files written."""
    try:
        files = json.loads(results.text("export_info", "files"))
        rows = [(str(f["name"]), memory(float(f["bytes"]))) for f in files]
    except (ValueError, TypeError, KeyError):
        rows = []
    folder = facts([("folder", results.text("export_info", "directory"))])
    return join([folder, table(("file", "size"), rows, sortable=True)])
