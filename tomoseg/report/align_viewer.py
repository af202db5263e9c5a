"""The aligned series in napari: stepping through the tilts with their markers, and nudging images by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import ArraySource
from tomoseg.errors import NotReady
from tomoseg.report.figures.images import grey_limits
from tomoseg.report.results import Results
from tomoseg.report.sampling.markers import aligned_markers
from tomoseg.report.viewer import new_viewer, set_units

# Keys and the steps (dy', dx') in px that they move the image shown by.
STEPS = {
    "Shift-Up": (-1.0, 0.0),
    "Shift-Down": (1.0, 0.0),
    "Shift-Left": (0.0, -1.0),
    "Shift-Right": (0.0, 1.0),
    "Control-Shift-Up": (-0.1, 0.0),
    "Control-Shift-Down": (0.1, 0.0),
    "Control-Shift-Left": (0.0, -0.1),
    "Control-Shift-Right": (0.0, 0.1),
}
UNDO, SAVE = "Shift-U", "Shift-S"
HELP = "Shift+arrows: 1 px; Ctrl+Shift+arrows: 0.1 px\nShift+U: back to where it was; Shift+S: save"
RING_PX = 6


class Nudges:
    """Moves by hand: `moves_px` (n_tilt, 2) (dy', dx') in px of the aligned images, and those that were `saved_px`."""

    def __init__(self, n_tilt: int) -> None:
        self.moves_px = np.zeros((n_tilt, 2))
        self.saved_px = np.zeros((n_tilt, 2))

    def move(self, tilt: int, step_px: tuple[float, float]) -> None:
        """Move an image by a step."""
        self.moves_px[tilt] = np.round(self.moves_px[tilt] + step_px, 6)

    def undo(self, tilt: int) -> None:
        """Move an image back to where it was."""
        self.moves_px[tilt] = 0

    def save(self) -> None:
        """Keep the moves as they are."""
        self.saved_px = self.moves_px.copy()

    @property
    def unsaved(self) -> NDArray[np.intp]:
        """Images whose moves are not saved."""
        return np.flatnonzero((self.moves_px != self.saved_px).any(axis=1))

    @property
    def saved(self) -> NDArray[np.intp]:
        """Images that are to be moved."""
        return np.flatnonzero(self.saved_px.any(axis=1))

    def words(self, tilt: int) -> str:
        """Return how an image was moved."""
        dy, dx = self.moves_px[tilt]
        if not (dy or dx):
            return "where the alignment put it" + ("; not saved" if tilt in self.unsaved else "")
        return f"moved by {dy:+.1f}, {dx:+.1f} px (down, right)" + ("; not saved" if tilt in self.unsaved else "")


class Nudged:
    """Aligned images (n_tilt, y, x) as they are moved; each is read when it is shown.

    Image `i` of the view is image `i + step` of the series: with a step of 1, the neighbour to compare with.
    """

    def __init__(self, series: ArraySource, nudges: Nudges, step: int = 0) -> None:
        self._series, self._nudges, self._step = series, nudges, step
        self.shape, self.dtype, self.ndim = tuple(series.shape), np.dtype(np.float32), 3

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        which, *rest = key if isinstance(key, tuple) else (key,)
        chosen = np.arange(self.shape[0])[which]
        images = np.stack([self._image(int(i)) for i in np.atleast_1d(chosen)])
        return images[(0 if np.ndim(chosen) == 0 else slice(None), *rest)]

    def _image(self, i: int) -> NDArray[np.float32]:
        i = i + self._step if 0 <= i + self._step < self.shape[0] else i - self._step
        image, move = np.asarray(self._series[i], np.float32), self._nudges.moves_px[i]
        return np.asarray(ndimage.shift(image, move, order=1)) if move.any() else image


def open_align_viewer(results: Results, *, block: bool = True) -> Nudges:
    """Show the aligned series in napari and return what was moved by hand when its window is closed.

    The image shown is green and its neighbour magenta, so that both are grey where they agree. Markers are rings, and
    lines show their residuals, ten times as long. With `block` false the window stays open. Raises `NotReady` if there
    is no aligned series, and `InputError` if napari is not installed.
    """
    series, angles = results.stack("aligned"), results.angles_deg
    if series is None or angles is None or len(angles) != series.shape[0]:
        raise NotReady("there is no aligned series to show yet: run `tomoseg align` first.")
    viewer = new_viewer(f"{results.title}, alignment - tomoseg")
    nudges = Nudges(series.shape[0])
    size = results.pixel_size_nm
    scale = (1.0, *(size if np.isfinite(size) else 1.0,) * 2)
    limits = grey_limits([np.asarray(series[series.shape[0] // 2])])
    layers = [
        viewer.add_image(
            Nudged(series, nudges, step), name=name, scale=scale, colormap=color, blending="additive",
            contrast_limits=(limits.low, limits.high), multiscale=False,
        )
        for name, color, step in (("next tilt", "magenta", 1), ("tilt", "green", 0))
    ]  # fmt: skip
    layers += _add_markers(viewer, results, scale)
    viewer.dims.axis_labels = ("tilt", "y", "x")
    set_units(viewer, layers, ("tilt", "y", "x"), known=bool(np.isfinite(size)))
    viewer.layers.selection.active = layers[1]
    viewer.dims.set_current_step(0, int(np.argmin(np.abs(angles))))
    _bind_keys(viewer, layers[:2], nudges, results)
    if block:
        import napari

        napari.run()
    return nudges


def _add_markers(viewer: Any, results: Results, scale: tuple[float, ...]) -> list[Any]:
    markers = aligned_markers(results)
    if markers is None:
        return []
    marker, tilt = np.nonzero(np.isfinite(markers.places_px).all(axis=-1))
    places = np.column_stack([tilt, markers.places_px[marker, tilt]])
    steps = np.column_stack([np.zeros(len(tilt)), 10 * markers.residuals_px[marker, tilt]])
    rings = viewer.add_points(
        places,
        name="markers",
        size=RING_PX,
        scale=scale,
        features={"marker": marker},
        face_color="transparent",
        border_color="yellow",
    )
    lines = viewer.add_vectors(
        np.stack([places, steps], axis=1), name="residuals x 10", scale=scale, edge_color="yellow", edge_width=0.5
    )
    return [rings, lines]


def _bind_keys(viewer: Any, layers: list[Any], nudges: Nudges, results: Results) -> None:
    """Let keys move the image that is shown, and tell where it is."""
    viewer.text_overlay.visible = True
    viewer.text_overlay.position = "top_left"

    def shown() -> int:
        return int(viewer.dims.current_step[0])

    def move(step: tuple[float, float]) -> None:
        nudges.move(shown(), step)

    def tell(*_event: Any) -> None:
        viewer.text_overlay.text = f"{results.tilt_name(shown())}: {nudges.words(shown())}\n{HELP}"

    def changing(change: Callable[[], None]) -> Callable[[Any], None]:
        def pressed(_viewer: Any) -> None:
            change()
            for layer in layers:
                layer.refresh()
            tell()

        return pressed

    for key, step in STEPS.items():
        viewer.bind_key(key, changing(partial(move, step)), overwrite=True)
    viewer.bind_key(UNDO, changing(lambda: nudges.undo(shown())), overwrite=True)
    viewer.bind_key(SAVE, changing(nudges.save), overwrite=True)
    viewer.dims.events.current_step.connect(tell)
    tell()
