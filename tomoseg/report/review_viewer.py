"""Images and their labels in napari, one after the other, to be corrected or painted by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import NotReady
from tomoseg.palette import rgb
from tomoseg.report.figures.images import grey_limits
from tomoseg.report.viewer import new_viewer

NEXT, PREVIOUS, SAVE, NEW = "Shift-Right", "Shift-Left", "Shift-S", "Shift-N"
HELP = (
    "Shift+N: paint a new particle; 0 or the eraser: delete; fill with 0: delete one\n"
    "Shift+S: save this image; Shift+left, right: to the next one, which saves too"
)
PAINT_HELP = (
    "The number of a class paints it; only slices that you change are taken\n"
    "Shift+S: save this slice; Shift+left, right: to the next one, which saves too\nClose the window when done"
)
MOST_KEYS = 9


class Corrections(Protocol):
    """What is looked at and corrected."""

    names: Sequence[str]

    def load(self, index: int) -> tuple[Array, NDArray[np.int32]]:
        """Return an image (y, x) and the labels of its particles."""

    def save(self, index: int, labels: NDArray[np.int32]) -> str:
        """Keep labels that were corrected, and say what changed."""


@dataclass
class Reviewing:
    """Which image is shown, and whether its labels were changed since."""

    corrections: Corrections
    help: str = HELP
    index: int = 0
    loaded: NDArray[np.int32] | None = None
    said: str = ""

    def load(self, index: int) -> tuple[Array, NDArray[np.int32]]:
        """Show another image; beyond the ends the first and the last stay."""
        self.index = int(np.clip(index, 0, len(self.corrections.names) - 1))
        image, labels = self.corrections.load(self.index)
        self.loaded = labels.copy()
        return image, labels

    def save(self, labels: NDArray[np.int32]) -> None:
        """Keep the labels if they were changed."""
        if self.loaded is not None and not np.array_equal(labels, self.loaded):
            self.said = self.corrections.save(self.index, np.array(labels, np.int32))
            self.loaded = np.array(labels)

    @property
    def words(self) -> str:
        """What is shown, and what was done last."""
        names = self.corrections.names
        return "\n".join(
            filter(None, [f"{names[self.index]} ({self.index + 1} of {len(names)})", self.said, self.help])
        )


def open_review(corrections: Corrections, *, block: bool = True) -> Reviewing:
    """Show images one after the other in napari; what is changed is saved on the way.

    Raises `NotReady` if there is no image, and `InputError` if napari is not installed.
    """
    if not corrections.names:
        raise NotReady("there is no measured image to look at")
    window = _Window(new_viewer("micrographs - tomoseg"), Reviewing(corrections), "particles")
    window.layer.contour = 2
    return window.run({NEW: lambda: window.paint_with(int(window.layer.data.max()) + 1)}, block=block)


def open_painting(
    corrections: Corrections, class_names: Sequence[str], class_colors: Sequence[str], *, block: bool = True
) -> Reviewing:
    """Show slices one after the other in napari to paint classes on; what is painted is saved on the way.

    Labels are 0 where nobody painted, and 1 more than the number of a class elsewhere. Raises `InputError` if napari
    is not installed.
    """
    viewer = new_viewer("painting - tomoseg")
    from napari.utils.colormaps import DirectLabelColormap

    classes = [f"{k}: {name}" for k, name in enumerate(class_names, start=1)]
    window = _Window(viewer, Reviewing(corrections, f"{', '.join(classes)}; 0: not painted\n{PAINT_HELP}"), "classes")
    colors: dict[int | None, Array] = {None: np.zeros(4), 0: np.zeros(4)}
    colors |= {k: np.array([*(c / 255 for c in rgb(color)), 1.0]) for k, color in enumerate(class_colors, start=1)}
    window.layer.colormap = DirectLabelColormap(color_dict=colors)
    window.paint_with(len(class_names))
    keys = {str(k): partial(window.paint_with, k) for k in range(min(len(class_names), MOST_KEYS) + 1)}
    return window.run(keys, block=block)


class _Window:
    """A window of napari with one image and its labels at a time."""

    def __init__(self, viewer: Any, state: Reviewing, name: str) -> None:
        self.viewer, self.state = viewer, state
        image, labels = state.load(0)
        self.image = viewer.add_image(image, name="image", colormap="gray")
        self.layer = viewer.add_labels(labels, name=name, opacity=0.5)
        viewer.text_overlay.visible = True
        viewer.text_overlay.position = "top_left"

    def run(self, actions: Mapping[str, Callable[[], None]], *, block: bool) -> Reviewing:
        """Bind keys, show the first image, and return when the window is closed; at once unless `block`."""
        walk = {NEXT: lambda: self.go(1), PREVIOUS: lambda: self.go(-1), SAVE: self.save}
        for key, action in {**walk, **actions}.items():
            for bound in (self.viewer, self.layer):  # napari's own keys of a layer, such as 2 for a brush, come first
                bound.bind_key(key, _pressed(action), overwrite=True)
        self.show(0)
        if block:
            import napari

            napari.run()
            self.state.save(self.layer.data)
        return self.state

    def paint_with(self, label: int) -> None:
        """Let the mouse paint a label."""
        self.layer.selected_label = label
        self.layer.mode = "paint"

    def show(self, index: int) -> None:
        """Show an image, its labels, and what is said of them."""
        image, labels = self.state.load(index)
        self.image.data, self.layer.data = image, labels
        limits = grey_limits([image])
        self.image.contrast_limits = (limits.low, limits.high)
        self.viewer.reset_view()
        self.tell()

    def tell(self) -> None:
        """Say which image is shown, and what was done last."""
        self.viewer.text_overlay.text = self.state.words

    def go(self, step: int) -> None:
        """Save, and go to another image."""
        self.state.save(self.layer.data)
        self.show(self.state.index + step)

    def save(self) -> None:
        """Save what is shown."""
        self.state.save(self.layer.data)
        self.tell()


def _pressed(action: Callable[[], None]) -> Callable[[Any], None]:
    return lambda _viewer: action()
