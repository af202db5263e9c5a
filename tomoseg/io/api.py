"""Raw tilt series for Python: `read_series`, and `copy_series`, which the import stage is made of."""

import os
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tomoseg.arrays import Array, MemoryOutputs, Outputs
from tomoseg.errors import InputError, TomosegWarning
from tomoseg.io.parameters import ImportParameters
from tomoseg.io.plan import SeriesPlan, plan_series
from tomoseg.io.raw import open_raw
from tomoseg.io.series import Angles, RawSeries
from tomoseg.progress import Progress
from tomoseg.runtime import Runtime, make_runtime, slabs

MOST_MISSING = 0.5  # part of the pixels that may be NaN or infinite


@dataclass(frozen=True, eq=False)
class Series:
    """A tilt series as it was acquired, sorted by ascending angle.

    Attributes
    ----------
    path : Path
        File that holds the pixels.
    images : ndarray, (n_tilt, y, x), dtype of the file
    angles_deg : ndarray of float64, (n_tilt,)
        Tilt angles in degrees. Repeated exposures stay in the order in which they were taken.
    angles_source : str
        Where the angles came from.
    pixel_size_nm : float
        Pixel size in nm; NaN where unknown.
    pixel_size_source : str
        Where the pixel size came from: 'given', the name of a header, or 'unknown'.
    tilt_axis : {'x', 'y', 'unknown'}
        Nominal direction of the tilt axis in the images: horizontal, vertical, or not known.
    metadata : dict
        Format and acquisition metadata; JSON values.
    notes, warnings : list of str
        What was found and decided, and what needs care.
    """

    path: Path
    images: Array = field(repr=False)
    angles_deg: Angles
    angles_source: str
    pixel_size_nm: float
    pixel_size_source: str
    tilt_axis: str
    metadata: dict[str, Any] = field(repr=False)
    notes: list[str]
    warnings: list[str]


def read_series(
    path: str | os.PathLike[str],
    *,
    angles: str | os.PathLike[str] | None = None,
    pixel_size: float | None = None,
    tilt_axis: str = "auto",
    signal: str | int | None = None,
    exclude: str | None = None,
    square_pixels: bool = False,
    max_memory: int | str | None = None,
    progress: str | Progress | None = None,
) -> Series:
    """Read a raw tilt series with its angles and pixel size.

    Parameters
    ----------
    path : path
        File that holds the series: MRC, DM3/DM4, Velox or NCEM EMD, TIA .ser/.emi, HyperSpy .hspy or .zspy, TIFF
        stack, DXchange HDF5 or .npy; or a folder with one file per tilt, or a pattern of their names. The content
        decides, not the extension.
    angles : path or str, optional
        File with the tilt angles in degrees, in the order of the images: .rawtlt, .tlt, .aln, a list, a table, CSV or
        .mdoc; or a range 'start:stop:step'. By default a companion .mdoc, the metadata of the raw file, the names of
        its files, or an angle file of the same name.
    pixel_size : float, optional
        Pixel size in nm; by default that of the metadata.
    tilt_axis : {'auto', 'x', 'y'}
        Nominal direction of the tilt axis in the images; 'auto' takes it from the metadata.
    signal : str or int, optional
        The signal to read where a file holds several: its name, part of it, or its number from 1.
    exclude : str, optional
        Views to leave out: numbers from 1 in the order of the file ('3,17-19') or angles ('60deg, -70..-62deg').
    square_pixels : bool
        Take pixels as square whatever the metadata say; otherwise others are refused.
    max_memory : int or str, optional
        Bytes to work in, or a text such as '8G'; by default half of what it may use. The images come on top.
    progress : {'auto', 'bar', 'plain', 'none'} or tomoseg.runtime.Progress, optional
        Where progress is shown; by default nowhere.

    Returns
    -------
    Series
        The images as stored in the file, sorted by ascending angle, and what is known of them.

    Raises
    ------
    InputError
        A file cannot be used, most pixels are NaN or infinite, or the images do not fit in memory. All problems are
        named at once.

    Warns
    -----
    TomosegWarning
        The pixel size is unknown, or sources contradict each other.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from tomoseg.io.mrc import write_angles, write_mrc
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_mrc(folder / "particle.mrc", np.arange(24, dtype=np.int16).reshape(3, 2, 4), 0.5, kind="stack")
    >>> write_angles(folder / "particle.rawtlt", [0.0, 30.0, -30.0])
    >>> series = read_series(folder / "particle.mrc")
    >>> series.images.shape, series.angles_deg.tolist(), series.pixel_size_nm
    ((3, 2, 4), [-30.0, 0.0, 30.0], 0.5)
    """
    options = {
        "raw": Path(path),
        "angles": angles,
        "pixel_size": pixel_size,
        "tilt_axis": tilt_axis,
        "signal": None if signal is None else str(signal),
        "exclude": exclude,
        "square_pixels": square_pixels,
    }
    params = ImportParameters.of("import", options)
    outputs, runtime = MemoryOutputs(), make_runtime(max_memory=max_memory, progress=progress)
    try:
        plan = copy_series(params, runtime, outputs)
    except MemoryError as error:
        raise InputError(
            f"the images of {path} do not fit in memory. `tomoseg import {path} -o PROJECT.h5` copies them part by part"
        ) from error
    for text in runtime.warnings:
        warnings.warn(text, TomosegWarning, stacklevel=2)
    return Series(
        path=plan.raw.path,
        images=outputs.arrays["tilt_series"],
        angles_deg=outputs.arrays["angles_deg"],
        angles_source=plan.angles_source,
        pixel_size_nm=plan.pixel_size_nm,
        pixel_size_source=plan.pixel_size_source,
        tilt_axis=plan.tilt_axis,
        metadata={"format": plan.raw.format, **plan.raw.metadata},
        notes=runtime.notes,
        warnings=runtime.warnings,
    )


def copy_series(params: ImportParameters, runtime: Runtime, outputs: Outputs) -> SeriesPlan:
    """Copy a series to the outputs `tilt_series` and `angles_deg`, sorted by ascending angle, in slabs.

    Returns what is known of the series, in the order of the file; it is closed. Raises `InputError` if the files cannot
    be used, or most pixels are NaN or infinite.
    """
    if params.raw is None:
        raise InputError("there is no raw tilt series to import: name the file (tomoseg run RAW -o PROJECT.h5)")
    plan, problems = plan_series(params.raw, params.wishes())
    if plan is None:
        raise InputError.of(problems)
    with plan.raw:
        for line in plan.raw.table:
            runtime.progress.message(line)
        for note in plan.notes:
            runtime.say(note)
        for warning in plan.warnings:
            runtime.warn(warning)
        # A stable order keeps repeated exposures in the order they were taken.
        order = np.argsort(plan.angles_deg, kind="stable")
        sorted_deg = plan.angles_deg[order]
        _copy_images(plan.raw, plan.images[order], sorted_deg, runtime, outputs)
        outputs.put("angles_deg", sorted_deg)
        if plan.further_signals:
            _copy_signals(plan, order, runtime, outputs)
    return plan


def _copy_signals(plan: SeriesPlan, order: Array, runtime: Runtime, outputs: Outputs) -> None:
    """Copy other signals of the file to the output `further_signals`, in the order of the tilt series."""
    images, names = plan.images[order], [plan.raw.signals[i].name for i in plan.further_signals]
    n, (ny, nx) = len(images), plan.raw.shape[1:]
    with ExitStack() as stack:
        opened = [stack.enter_context(open_raw(plan.raw.path, str(i + 1))) for i in plan.further_signals]
        dtype = np.result_type(*(series.dtype for series in opened))
        shape = (n, len(opened), ny, nx)
        sink = outputs.create("further_signals", shape, dtype, {"names": names})
        size = runtime.slab_size(ny * nx * 3 * dtype.itemsize, n)
        for k, series in enumerate(opened):
            if series.shape != plan.raw.shape:
                raise InputError(f"signal '{names[k]}' of {plan.raw.path} has the shape {series.shape}")
            for slab in runtime.track(slabs(n, size), f"importing {names[k]}"):
                sink[slab, k] = series.read(images[slab])
    runtime.say(f"further signals: {', '.join(names)}")


def _copy_images(raw: RawSeries, order: Array, sorted_deg: Angles, runtime: Runtime, outputs: Outputs) -> None:
    n, (ny, nx) = len(order), raw.shape[1:]
    missing: list[int] = []
    sink = outputs.create("tilt_series", (n, ny, nx), raw.dtype)
    # The images as read and as sorted, and a mask where they are checked.
    needed = ny * nx * (2 * raw.dtype.itemsize + 1)
    if needed > runtime.max_memory:
        allowed = runtime.max_memory / 2**20
        runtime.warn(f"one image takes about {needed / 2**20:.0f} MB of memory, and {allowed:.0f} MB are allowed")
    size = runtime.slab_size(needed, n)
    for slab in runtime.track(slabs(n, size), "importing"):
        images = raw.read(order[slab])
        if images.dtype.kind == "f":
            missing += [image.size - int(np.count_nonzero(np.isfinite(image))) for image in images]
        sink[slab] = images
    if missing:
        _tell_missing(raw, np.array(missing), order, sorted_deg, runtime)


def _tell_missing(raw: RawSeries, missing: Array, order: Array, sorted_deg: Angles, runtime: Runtime) -> None:
    """Tell how many pixels are no numbers, (n_tilt,) sorted by angle; raise InputError where most of all are."""
    n, (ny, nx) = len(order), raw.shape[1:]
    total, affected = int(missing.sum()), int((missing > 0).sum())
    if total == 0:
        return
    if total > MOST_MISSING * n * ny * nx:
        raise InputError(
            f"{raw.path}: {100 * total / (n * ny * nx):.0f} % of the pixels are NaN or infinite, so there is no tilt "
            "series to work with; check the file in another viewer, and write it anew"
        )
    runtime.say(
        f"{total} pixels in {affected} of {n} images are NaN or infinite: they are kept as they are; align replaces "
        "single ones by what surrounds them, and leaves larger parts out"
    )
    mostly = np.flatnonzero(missing > MOST_MISSING * ny * nx)
    if len(mostly):
        named = ", ".join(f"image {order[i] + 1} at {sorted_deg[i]:g} degrees" for i in mostly[:10])
        more = " ..." if len(mostly) > 10 else ""
        runtime.warn(f"{len(mostly)} of {n} images are mostly NaN or infinite and cannot be used ({named}{more})")
