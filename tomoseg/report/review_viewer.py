"""Micrographs and the labels of their particles in napari, one after the other, to be corrected by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import NotReady
from tomoseg.report.figures.images import grey_limits
from tomoseg.report.viewer import new_viewer

NEXT, PREVIOUS, SAVE, NEW = "Shift-Right", "Shift-Left", "Shift-S", "Shift-N"
HELP = (
    "Shift+N: paint a new particle; 0 or the eraser: delete; fill with 0: delete one\n"
    "Shift+S: save this image; Shift+left, right: to the next one, which saves too"
)


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
        return "\n".join(filter(None, [f"{names[self.index]} ({self.index + 1} of {len(names)})", self.said, HELP]))


def open_review(corrections: Corrections, *, block: bool = True) -> Reviewing:
    """Show images one after the other in napari; what is changed is saved on the way.

    Raises `NotReady` if there is no image, and `InputError` if napari is not installed.
    """
    if not corrections.names:
        raise NotReady("there is no measured image to look at")
    viewer = new_viewer("micrographs - tomoseg")
    state = Reviewing(corrections)
    image, labels = state.load(0)
    shown = viewer.add_image(image, name="image", colormap="gray")
    painted = viewer.add_labels(labels, name="particles", opacity=0.5)
    painted.contour = 2
    viewer.text_overlay.visible = True
    viewer.text_overlay.position = "top_left"

    def show(index: int) -> None:
        image, labels = state.load(index)
        shown.data, painted.data = image, labels
        limits = grey_limits([image])
        shown.contrast_limits = (limits.low, limits.high)
        viewer.reset_view()
        tell()

    def tell() -> None:
        viewer.text_overlay.text = state.words

    def go(step: int) -> None:
        state.save(painted.data)
        show(state.index + step)

    def save() -> None:
        state.save(painted.data)
        tell()

    def new() -> None:
        painted.selected_label = int(painted.data.max()) + 1
        painted.mode = "paint"

    actions: dict[str, Callable[[], None]] = {
        NEXT: lambda: go(1),
        PREVIOUS: lambda: go(-1),
        SAVE: save,
        NEW: new,
    }
    for key, action in actions.items():
        viewer.bind_key(key, _pressed(action), overwrite=True)
    show(0)
    if block:
        import napari

        napari.run()
        state.save(painted.data)
    return state


def _pressed(action: Callable[[], None]) -> Callable[[Any], None]:
    return lambda _viewer: action()
