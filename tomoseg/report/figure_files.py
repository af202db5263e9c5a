"""The plots of the page as separate files, for papers and talks."""

from pathlib import Path

from tomoseg.errors import InputError
from tomoseg.export.manifest import Manifest
from tomoseg.report.figures.curves import all_curves
from tomoseg.report.results import Results

FORMATS = ("pdf", "svg", "png")


def write_figures(folder: Path, file_format: str, results: Results) -> list[Path]:
    """Write each plot of the page to `folder`, which is created if necessary, as NAME.pdf, .svg or .png.

    Files of an earlier call are replaced unless they have been changed since; other files never are. Returns the files
    written. Raises `InputError` if the format is unknown, the folder cannot be created, or a file of that name was not
    written here.
    """
    if file_format not in FORMATS:
        raise InputError(f"--figure-format {file_format}: the formats are {', '.join(FORMATS)}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--figures {folder}: the folder cannot be created: {error.strerror}.") from error
    plots = [plot for plot, _ in all_curves(results)]
    manifest = Manifest(folder)
    names = [f"{plot.name}.{file_format}" for plot in plots]
    foreign = manifest.foreign(names)
    if foreign:
        raise InputError(
            f"{folder} holds files that this command did not write, or that have been changed since: "
            f"{', '.join(foreign)}. Move them, or choose another folder with --figures."
        )
    for plot, name in zip(plots, names, strict=True):
        with manifest.writing(name) as path:
            plot.save(path, file_format)
    manifest.finish()
    return [folder / name for name in names]
