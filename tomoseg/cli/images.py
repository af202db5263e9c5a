"""The command `images`: particle sizes from single micrographs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tomoseg.cli.options import computing, with_options
from tomoseg.errors import InputError, StageFailed
from tomoseg.micrographs.parameters import MicrographParameters
from tomoseg.runtime import Runtime, stopping_on_signals
from tomoseg.terminal import show


def add_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("images")(with_options(MicrographParameters, computing(images), ("pixel_size_nm",)))


def images(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGES...", help="Image files, or folders of them; a folder is a sample."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where tables, pictures and the report go.")
    ] = Path("particles"),
    pixel_size: Annotated[
        float | None, typer.Option("--pixel-size", metavar="NM", help="Pixel size in nm, in place of any other scale.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Also search folders in folders.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Measure again what is known, and drop what was corrected by hand.")
    ] = False,
    review: Annotated[
        bool, typer.Option("--review", help="Open the measured images in napari, to add and delete particles by hand.")
    ] = False,
    *,
    options: dict[str, Any],
    runtime: Runtime,
) -> None:
    """Find and measure the particles of micrographs: sizes, distributions, pictures and a report in one folder.

    The same command again continues where it stopped, and measures only what is new or changed.
    """
    params = MicrographParameters.of("images", options | ({} if pixel_size is None else {"pixel_size_nm": pixel_size}))
    from tomoseg.micrographs import folder as many

    if not sources:
        if not review:
            raise InputError("name the images to measure, or --review and the folder of an earlier run (-o FOLDER).")
        records, params = many.known_records(output)
    else:
        tasks = many.tasks_of(sources, recursive=recursive)
        many.prepare_folder(output, params)
        with stopping_on_signals(lambda: "The same command continues with the images that are left."):
            records = many.measure_files(tasks, output, params, runtime, force=force)
    if review:
        from tomoseg.micrographs.review import Review
        from tomoseg.report.review_viewer import open_review

        reviewed = Review(output, records, params)
        open_review(reviewed)
        records = reviewed.records
    _write(output, records, params)
    if all(record.skipped for record in records):
        raise StageFailed(f"no image could be measured; {output / 'skipped.csv'} says why.")


def _write(output: Path, records: Any, params: MicrographParameters) -> None:
    """Write tables, plots and report, and tell the sizes."""
    from tomoseg import __version__
    from tomoseg.micrographs.results import OVERLAYS
    from tomoseg.micrographs.summary import samples_of, write_tables
    from tomoseg.report.micrographs import MicrographPage, size_plot_of, write_micrograph_page

    samples = samples_of(records, border_correction=params.border_correction)
    written = write_tables(output, records, samples)
    if len(samples[0].histogram):
        plot = size_plot_of(samples[0])
        for kind in ("png", "svg"):
            plot.save(output / f"sizes.{kind}", kind)
            written.append(output / f"sizes.{kind}")
    page = MicrographPage(
        output.absolute().name,
        output / OVERLAYS,
        [record.row for record in records if not record.skipped],
        samples,
        [(record.name, record.skipped) for record in records if record.skipped],
        settings=params.model_dump(mode="json"),
        version=__version__,
    )
    write_micrograph_page(output / "report.html", page)
    skipped = [record for record in records if record.skipped]
    for sample in samples:
        show(sample.words)
    if skipped:
        show(f"{len(skipped)} of {len(records)} files were not measured: {output / 'skipped.csv'}")
    show(*written, output / "report.html")
