"""A project in napari: volume, labels and particles, to scale, read from the file as they are looked at."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from tomoseg.arrays import Array, Input
from tomoseg.errors import InputError, NotReady
from tomoseg.report.contents import Contents
from tomoseg.report.images import rgb, volume_limits
from tomoseg.report.words import plain

CHUNK = (64, 64, 64)  # voxels that are read at once; as volumes are stored (64, 16, 64), several times


def open_viewer(artifacts: Mapping[str, Input], title: str, *, block: bool = True) -> Any:
    """Show a project in napari until its window is closed.

    Axes are z, y, x; lengths are nm where the voxel size is known, else voxels. y points down and z away from the
    viewer, as everywhere in tomoseg. A project without a volume shows its tilt series.

    Parameters
    ----------
    artifacts
        What the project holds; it stays open while the window is.
    title
        Of the window.
    block
        Wait until the window is closed.

    Returns
    -------
    napari.Viewer

    Raises
    ------
    InputError
        napari is not installed.
    NotReady
        There is nothing to show.
    """
    contents = Contents(artifacts, (), title)
    if all(contents.get(name) is None for name in ("volume", "labels", "tilt_series")):
        raise NotReady("there is nothing to look at yet: the project holds neither a tilt series nor a volume.")
    try:
        import napari
    except ImportError as error:
        raise InputError(
            f"napari cannot be loaded ({error}). `tomoseg view` needs it: pip install 'tomoseg[view]'. "
            "`tomoseg preview` and `tomoseg report` need nothing more."
        ) from error
    viewer = napari.Viewer(title=f"{title} - tomoseg")
    if contents.get("volume") is None and contents.get("labels") is None:
        layers = _add_tilts(viewer, contents)
        axes, size = ("tilt", "y", "x"), contents.pixel_size_nm
    else:
        layers = _add_volume(viewer, contents)
        axes, size = ("z", "y", "x"), contents.voxel_size_nm
    viewer.dims.axis_labels = axes
    _tell_units(viewer, layers, axes, known=bool(np.isfinite(size)))
    if block:
        napari.run()
    return viewer


def _add_volume(viewer: Any, contents: Contents) -> list[Any]:
    size = contents.voxel_size_nm
    scale = (size if np.isfinite(size) else 1.0,) * 3
    volume, labels = contents.get("volume"), contents.get("labels")
    layers = []
    if volume is not None:
        limits = volume_limits(contents)
        layers.append(
            viewer.add_image(
                _lazy(volume), name="volume", scale=scale, colormap="gray", contrast_limits=(limits.low, limits.high)
            )
        )
    if labels is not None:
        layers.append(
            viewer.add_labels(_lazy(labels), name="labels", scale=scale, opacity=0.5, colormap=_colors(contents))
        )
    return layers + _add_particles(viewer, contents, scale)


def _colors(contents: Contents) -> Any:
    """Return the colours of the classes; what is of no class, and the background, is not painted."""
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, Array] = {None: np.zeros(4), 0: np.zeros(4)}
    for label in contents.classes[1:]:
        colors[label.index] = np.array([*(c / 255 for c in rgb(label.color)), 1.0])
    return DirectLabelColormap(color_dict=colors)


def _add_particles(viewer: Any, contents: Contents, scale: tuple[float, ...]) -> list[Any]:
    """Add the particles as points of their diameters, with all their numbers."""
    rows = contents.rows("particle_table")
    names = rows.dtype.names or () if rows is not None else ()
    if rows is None or not len(rows) or not {"z_px", "y_px", "x_px", "diameter_px"} <= set(names):
        return []
    features = {name: [plain(value) for value in rows[name]] for name in names}
    points = viewer.add_points(
        np.stack([rows[f"{axis}_px"] for axis in "zyx"], axis=1).astype(float),
        name="particles",
        size=rows["diameter_px"].astype(float),
        scale=scale,
        features=features,
        face_color="transparent",
        border_color="white",
    )
    with warnings.catch_warnings():
        # As spheres that neighbouring slices cut too; newer versions of napari do so by the thickness of the slice.
        warnings.simplefilter("ignore", FutureWarning)
        if hasattr(points, "out_of_slice_display"):
            points.out_of_slice_display = True
    return [points]


def _add_tilts(viewer: Any, contents: Contents) -> list[Any]:
    size = contents.pixel_size_nm
    # Images follow one another as they are numbered: the distance between tilts is none.
    scale = (1.0, *(size if np.isfinite(size) else 1.0,) * 2)
    layers = []
    for name in ("tilt_series", "aligned"):
        series = contents.get(name)
        if series is not None:
            image = np.asarray(series[series.shape[0] // 2])
            low, high = (float(v) for v in np.nanpercentile(image, (0.5, 99.5)))
            limits = (low, high if high > low else low + 1)
            chunk = (1, *series.shape[1:])
            layers.append(
                viewer.add_image(
                    _lazy(series, chunk),
                    name=name.replace("_", " "),
                    scale=scale,
                    colormap="gray",
                    contrast_limits=limits,
                )
            )
    return layers


def _tell_units(viewer: Any, layers: list[Any], axes: tuple[str, ...], *, known: bool) -> None:
    """Name axes and unit; older versions of napari know a unit for the scale bar only."""
    unit = "nm" if known else "pixel"
    units = (unit,) * 3 if axes[0] == "z" else ("pixel", unit, unit)
    for layer in layers:
        if hasattr(layer, "axis_labels"):
            layer.axis_labels = axes
        if hasattr(layer, "units"):
            layer.units = units
    viewer.scale_bar.visible = True
    if not all(hasattr(layer, "units") for layer in layers):
        viewer.scale_bar.unit = unit if known else None


class _Sliceable:
    """What dask wants of an array, over an artifact in the file."""

    def __init__(self, source: Input) -> None:
        self.source = source
        self.shape, self.dtype, self.ndim = tuple(source.shape), source.dtype, len(source.shape)

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self.source[key])


def _lazy(source: Input, chunk: tuple[int, ...] = CHUNK) -> Any:
    """Return an array that is read from the file as it is looked at. napari brings dask along."""
    from dask import array

    sides = tuple(min(side, n) for side, n in zip(chunk, source.shape, strict=True))
    from_array: Any = array.from_array  # untyped
    return from_array(_Sliceable(source), chunks=sides, name=False, asarray=False)
