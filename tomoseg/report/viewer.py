"""A project in napari: volume, labels and particles, to scale; only what is displayed is read from the file."""

import warnings
from typing import Any

import numpy as np

from tomoseg.arrays import Array, ArraySource, volumes_by_name
from tomoseg.errors import InputError, NotReady
from tomoseg.palette import rgb
from tomoseg.report.figures.images import Limits, grey_limits, volume_limits
from tomoseg.report.formatting import plain
from tomoseg.report.results import Results

CHUNK = (64, 64, 64)  # voxels read at once: several of the chunks (64, 16, 64) that volumes are stored in


def open_viewer(results: Results, *, block: bool = True) -> Any:
    """Show a project in napari and return the viewer; unless `block` is false, when its window is closed.

    The axes are z, y, x; lengths are in nm where the voxel size is known, otherwise in voxels. y points down and z away
    from the viewer, as everywhere in tomoseg. Of a project without a volume, the tilt series is shown. The project
    must stay open as long as the window. Raises `InputError` if napari is not installed, and `NotReady` if there is
    nothing to show.
    """
    if all(results.get(name) is None for name in ("volume", "labels", "tilt_series")):
        raise NotReady("there is nothing to show yet: the project holds neither a tilt series nor a volume.")
    viewer = new_viewer(f"{results.title} - tomoseg")
    if results.get("volume") is None and results.get("labels") is None:
        layers = _add_tilts(viewer, results)
        axes, size = ("tilt", "y", "x"), results.pixel_size_nm
    else:
        layers = _add_volume(viewer, results)
        axes, size = ("z", "y", "x"), results.voxel_size_nm
    viewer.dims.axis_labels = axes
    set_units(viewer, layers, axes, known=bool(np.isfinite(size)))
    if block:
        import napari

        napari.run()
    return viewer


def new_viewer(title: str) -> Any:
    """Open an empty window. Raises `InputError` if napari is not installed."""
    return require_napari().Viewer(title=title)


def require_napari() -> Any:
    """Return napari. Raises `InputError` if it is not installed."""
    try:
        import napari
    except ImportError as error:
        raise InputError(
            f"The window needs napari, which cannot be loaded ({error}): pip install 'tomoseg[view]'. "
            "`tomoseg preview` and `tomoseg report` work without it."
        ) from error
    return napari


def _add_volume(viewer: Any, results: Results) -> list[Any]:
    size = results.voxel_size_nm
    scale = (size if np.isfinite(size) else 1.0,) * 3
    volume, labels = results.get("volume"), results.get("labels")
    layers = []
    if volume is not None:
        layers.append(_add_image(viewer, _lazy(volume), "volume", scale, volume_limits(results)))
    signals = results.get("signal_volumes")
    for name, part in ({} if signals is None else volumes_by_name(signals)).items():
        bright = float(np.max(part[part.shape[0] // 2])) or 1.0  # of one plane: the whole may be large
        layers.append(_add_image(viewer, _lazy(part), name, scale, Limits(0.0, bright, (0.0, 100.0))))
        layers[-1].visible = False
    if labels is not None:
        layers.append(
            viewer.add_labels(_lazy(labels), name="labels", scale=scale, opacity=0.5, colormap=_colors(results))
        )
    return layers + _add_particles(viewer, results, scale)


def _colors(results: Results) -> Any:
    """Return the colours of the classes; the background, and values of no class, stay transparent."""
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, Array] = {None: np.zeros(4), 0: np.zeros(4)}
    for label in results.classes[1:]:
        colors[label.index] = np.array([*(c / 255 for c in rgb(label.color)), 1.0])
    return DirectLabelColormap(color_dict=colors)


def _add_particles(viewer: Any, results: Results, scale: tuple[float, ...]) -> list[Any]:
    """Add the particles as points of their diameters, with all columns of the table."""
    rows = results.rows("particle_table")
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
        # As spheres, which neighbouring slices cut too; newer versions of napari do so by the thickness of the slice.
        warnings.simplefilter("ignore", FutureWarning)
        if hasattr(points, "out_of_slice_display"):
            points.out_of_slice_display = True
    return [points]


def _add_tilts(viewer: Any, results: Results) -> list[Any]:
    size = results.pixel_size_nm
    # Tilts are numbered: there is no distance between them.
    scale = (1.0, *(size if np.isfinite(size) else 1.0,) * 2)
    layers = []
    for name in ("tilt_series", "aligned"):
        series = results.get(name)
        if series is not None:
            limits = grey_limits([np.asarray(series[series.shape[0] // 2])])
            images = _lazy(series, (1, *series.shape[1:]))
            layers.append(_add_image(viewer, images, name.replace("_", " "), scale, limits))
    return layers


def _add_image(viewer: Any, image: Any, name: str, scale: tuple[float, ...], limits: Limits) -> Any:
    return viewer.add_image(image, name=name, scale=scale, colormap="gray", contrast_limits=(limits.low, limits.high))


def set_units(viewer: Any, layers: list[Any], axes: tuple[str, ...], *, known: bool) -> None:
    """Set axis labels and units; older versions of napari have a unit for the scale bar only."""
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
    viewer.reset_view()  # which was chosen before the units


class _Sliceable:
    """An artifact in the file as an array that dask accepts."""

    def __init__(self, source: ArraySource) -> None:
        self.source = source
        self.shape, self.dtype, self.ndim = tuple(source.shape), source.dtype, len(source.shape)

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self.source[key])


def _lazy(source: ArraySource, chunk: tuple[int, ...] = CHUNK) -> Any:
    """Return an array that is read from the file when it is displayed; dask comes with napari."""
    from dask import array

    sides = tuple(min(side, n) for side, n in zip(chunk, source.shape, strict=True))
    from_array: Any = array.from_array  # untyped
    return from_array(_Sliceable(source), chunks=sides, name=False, asarray=False)
