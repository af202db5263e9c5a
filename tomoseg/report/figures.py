"""The plots of the page as files of their own, for papers and talks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tomoseg.arrays import Input
from tomoseg.errors import InputError
from tomoseg.export.manifest import Manifest
from tomoseg.report.contents import Contents
from tomoseg.report.record import StageRecord
from tomoseg.report.sections import all_curves

FORMATS = ("pdf", "svg", "png")


def write_figures(
    folder: Path, file_format: str, artifacts: Mapping[str, Input], stages: Sequence[StageRecord], title: str
) -> list[Path]:
    """Write each plot of the page to `folder`, which is made if need be, as NAME.pdf, .svg or .png.

    Files that were written so before and not changed since are replaced, others never.

    Returns
    -------
    list of the files written

    Raises
    ------
    InputError
        The format is unknown, the folder cannot be made, or files in it are not ours.
    """
    if file_format not in FORMATS:
        raise InputError(f"--figure-format {file_format}: give one of {', '.join(FORMATS)}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--figures {folder}: cannot make the folder: {error.strerror}.") from error
    plots = [plot for plot, _ in all_curves(Contents(artifacts, tuple(stages), title))]
    manifest = Manifest(folder)
    names = [f"{plot.name}.{file_format}" for plot in plots]
    foreign = manifest.foreign(names)
    if foreign:
        raise InputError(
            f"{folder} holds files that were not written by this command, or were changed since: {', '.join(foreign)}. "
            "Move them, or name another folder (--figures)."
        )
    for plot, name in zip(plots, names, strict=True):
        with manifest.writing(name) as path:
            plot.save(path, file_format)
    manifest.finish()
    return [folder / name for name in names]
