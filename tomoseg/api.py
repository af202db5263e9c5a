"""Whole experiments from Python: run the pipeline on a raw series, and read what a project file holds."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tomoseg import config, engine, schema
from tomoseg.arrays import Array, Input
from tomoseg.beforehand import doubts_of_raw
from tomoseg.config import Raw, Settings
from tomoseg.errors import InputError
from tomoseg.progress import Progress
from tomoseg.project import PROJECT_ENDINGS, Project, StageState, is_project
from tomoseg.runtime import Runtime, make_runtime
from tomoseg.tables import data_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

IMPORT = "import"


def run(
    source: str | Path,
    project: str | Path | None = None,
    *,
    angles: str | Path | None = None,
    pixel_size: float | None = None,
    tilt_axis: str | None = None,
    signal: str | int | None = None,
    exclude: str | None = None,
    pipeline: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    first: str | None = None,
    last: str | None = None,
    force: bool = False,
    export_dir: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_memory: int | str | None = None,
    progress: str | Progress | None = None,
) -> "OpenProject":
    """Run the pipeline on a raw tilt series, or bring a project up to date; as the command `tomoseg run`.

    Parameters
    ----------
    source : path
        The raw tilt series (a file, or a folder with one file per tilt), or a project file to continue or update.
    project : path, optional
        The project file to make from a raw series, or to update with it.
    angles : path, optional
        File of the tilt angles in degrees, where the raw file does not hold them.
    pixel_size : float, optional
        Pixel size in nm, where the raw file does not hold it.
    tilt_axis : {'x', 'y'}, optional
        Nominal direction of the tilt axis in the raw images.
    signal : str or int, optional
        The signal to read where the raw file holds several: its name, part of it, or its number from 1.
    exclude : str, optional
        Views to leave out, such as '3,17-19' or '60deg'.
    pipeline : path, optional
        Pipeline file, or the name of one that ships with tomoseg ('catalyst', 'quick', ...).
    settings : mapping, optional
        Parameters by 'stage.parameter', such as ``{"reconstruct.iterations": 40}``.
    first, last : str, optional
        First and last stage to look at.
    force : bool
        Run stages again even where they are fresh.
    export_dir : path, optional
        Folder for the exported files.
    device, workers, max_memory, progress
        See `tomoseg.reconstruct`.

    Returns
    -------
    OpenProject
        The project, open for reading.

    Raises
    ------
    InputError
        Something is wrong with the input or the settings; nothing was computed.
    StageFailed
        A stage could not finish. What was finished before is kept.
    NotReady
        A stage before `first` is missing or stale.
    ProjectLocked
        Another process is writing the project.

    Examples
    --------
    >>> import tomoseg as ts
    >>> p = ts.run("HAADF.mrc", "needle.h5", angles="HAADF.rawtlt",
    ...            settings={"reconstruct.iterations": 40})  # doctest: +SKIP
    """
    runtime = make_runtime(device, workers, max_memory, progress)
    source, output = Path(source), None if project is None else Path(project)
    given = {"angles": angles, "pixel_size": pixel_size, "tilt_axis": tilt_axis, "signal": signal, "exclude": exclude}
    layers = run_layers(pipeline, config.by_stage(settings or {}), given, export_dir)
    with opened_to_run(source, output, layers, runtime, force=force) as (opened, wanted):
        engine.run(opened, wanted, runtime, first=first, last=last, force=force)
    return open_project(output or source)


def run_layers(
    pipeline: str | Path | None,
    settings: Raw,
    given: Mapping[str, Any],
    export_dir: str | Path | None,
) -> list[Raw]:
    """Return the layers of settings that a run is given, later ones first in rank; `given` are those of the import."""
    return [
        config.read_pipeline(pipeline) if pipeline else {},
        settings,
        {IMPORT: {name: str(value) for name, value in given.items() if value is not None}},
        {"export": {"export_dir": str(Path(export_dir).absolute())}} if export_dir else {},
    ]


@contextmanager
def opened_to_run(
    source: Path,
    output: Path | None,
    layers: list[Raw],
    runtime: Runtime,
    *,
    force: bool = False,
    break_lock: bool = False,
) -> Iterator[tuple[Project, Settings]]:
    """Open or create the project to work on, with the settings it is to have."""
    if is_project(source):
        if output is not None and not (output.exists() and output.samefile(source)):
            raise InputError(f"{source} is a project already; leave out -o {output} to continue it.")
        with Project.write(source, runtime.progress.message, break_lock=break_lock) as project:
            yield project, config.resolve(*layers, stored=project.settings)
        return
    if output is None:
        raise InputError(f"Name the project file to make: `tomoseg run {source} -o PROJECT.h5`.")
    raw = {IMPORT: {"raw": str(source.absolute())}}
    if output.exists():
        with Project.write(output, runtime.progress.message, break_lock=break_lock) as project:
            settings = config.resolve(*layers, raw, stored=project.settings)
            if not force:
                engine.refuse_other_series(project, settings)
            yield project, settings
    else:
        if output.suffix.lower() not in PROJECT_ENDINGS:
            raise InputError(f"-o {output}: the name of a project file must end in .h5 or .hdf5.")
        settings = config.resolve(*layers, raw)
        config.check_stages(settings)
        if stopping := [d.text for d in doubts_of_raw(settings, output.absolute().parent) if d.stops]:
            raise InputError.of(stopping)
        with Project.create(output, runtime.progress.message, break_lock=break_lock) as project:
            yield project, settings


def open_project(path: str | Path) -> "OpenProject":
    """Open a project file for reading; it is never changed by that, and others may write it meanwhile.

    Parameters
    ----------
    path : path
        The project file (.h5).

    Returns
    -------
    OpenProject

    Raises
    ------
    InputError
        There is no such file, or it is no project.

    Examples
    --------
    >>> import tomoseg as ts
    >>> with ts.open_project("needle.h5") as p:  # doctest: +SKIP
    ...     middle = p.volume[p.volume.shape[0] // 2]
    """
    return OpenProject(Path(path))


class OpenProject:
    """A project file open for reading. Arrays are handles, read from the file as they are sliced.

    What a project does not hold yet is None. Use it in a `with` statement, or `close` it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._project = Project.read(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; handles on its arrays can no longer be read."""
        self._project.close()

    def __repr__(self) -> str:
        return f"<tomoseg project {self.path}: {', '.join(f'{s.name} {s.state}' for s in self._states())}>"

    @property
    def images(self) -> Input | None:
        """The raw tilt series, (n_tilt, y, x), by ascending angle."""
        return self._array(schema.TILT_SERIES)

    @property
    def angles_deg(self) -> Array | None:
        """Tilt angles in degrees, (n_tilt,): those the alignment refined where it did, else as imported."""
        refined = self._read(schema.REFINED_ANGLES)
        return self._read(schema.ANGLES) if refined is None else refined

    @property
    def shifts_px(self) -> Array | None:
        """Shifts (dy, dx) to add to a raw image's coordinates, (n_tilt, 2), in raw px."""
        return self._read(schema.SHIFTS)

    @property
    def aligned(self) -> Input | None:
        """The aligned tilt series, (n_tilt, y, x) float32, tilt axis along y through x = (nx - 1)/2."""
        return self._array(schema.ALIGNED)

    @property
    def aligned_signals(self) -> Input | None:
        """Further signals in register with `aligned`, (n_tilt, n_signal, y, x) float32; `.attrs["names"]`."""
        return self._array(schema.ALIGNED_SIGNALS)

    @property
    def volume(self) -> Input | None:
        """The reconstruction, (z, y, x) float32; `.attrs["voxel_size_nm"]`."""
        return self._array(schema.VOLUME)

    @property
    def signal_volumes(self) -> Input | None:
        """Reconstructions of further signals, (n_signal, z, y, x) float32; `.attrs["names"]`."""
        return self._array(schema.SIGNAL_VOLUMES)

    @property
    def labels(self) -> Input | None:
        """The class of each voxel, (z, y, x) uint8; `.attrs["class_names"]`."""
        return self._array(schema.LABELS)

    @property
    def confidence(self) -> Input | None:
        """Confidence of the labels, (z, y, x) uint8, 255 = certain; only where a network made them."""
        return self._array(schema.CONFIDENCE)

    @property
    def particles(self) -> "DataFrame | None":
        """One row per particle, units in the column names."""
        return self.table(schema.PARTICLE_TABLE.name)

    @property
    def classes(self) -> "DataFrame | None":
        """One row per class: volume, fraction and surface area."""
        return self.table(schema.CLASS_TABLE.name)

    def table(self, name: str) -> "DataFrame | None":
        """Return a table by its name in `tomoseg.schema` ('pore_table', 'tilt_quality', ...) as a DataFrame."""
        rows = self._read(schema.BY_NAME[name])
        return None if rows is None else data_frame(rows)

    def info(self, name: str) -> dict[str, Any]:
        """Return the numbers stored with a group ('alignment_info', 'measurement_info', ...); empty where it is not."""
        artifact = schema.BY_NAME[name]
        return dict(self._project.artifact(artifact).attrs) if self._project.has(artifact) else {}

    def status(self) -> "DataFrame":
        """Return where each stage stands: its state, and why it is not fresh."""
        import pandas as pd

        rows = [(s.name, s.state, "; ".join(s.reasons)) for s in self._states()]
        return pd.DataFrame(rows, columns=["stage", "state", "reasons"])

    def show(self) -> "Figure":
        """Draw one picture of the whole experiment, as a figure of Matplotlib's pyplot, which notebooks display."""
        from matplotlib import pyplot as plt

        from tomoseg.report.preview import SIZE_INCHES, draw_preview
        from tomoseg.report.results import Results

        figure = plt.figure(figsize=SIZE_INCHES)
        draw_preview(figure, Results(self._project.artifacts(), tuple(self._states()), self.path.stem))
        return figure

    def _states(self) -> list[StageState]:
        return engine.states(self._project, config.resolve(stored=self._project.settings))

    def _array(self, artifact: schema.Artifact) -> Input | None:
        return self._project.artifact(artifact) if self._project.has(artifact) else None

    def _read(self, artifact: schema.Artifact) -> Array | None:
        return self._project.artifact(artifact)[:] if self._project.has(artifact) else None
