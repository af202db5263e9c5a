"""Text in a picture, by RapidOCR: where there is some, and what a line says. Its networks come with its wheel."""

import functools
import logging
import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tomoseg.micrographs.scale.picture import Box, Picture
from tomoseg.segmentation.networks.openvino_setup import forbid_telemetry, n_threads

GreyImage = NDArray[np.uint8]  # (y, x)
_SIDE_PX = 640  # longest side in which text is looked for
_ENLARGED = 2.0  # at most, so that small images have letters large enough
_COLOURFUL = 0.3  # from which on something in an image is in colour
_MARGIN = 0.2  # of the height of a box around text: letters do not reach its edges


@dataclass(frozen=True)
class Text:
    """A line of text: a box somewhat larger than its letters, what was read, and how sure that is, 0 to 1."""

    box: Box
    text: str
    certainty: float

    @property
    def letters_box(self) -> Box:
        """The box of the letters, about."""
        y0, x0, y1, x1 = self.box
        pad = round(_MARGIN * (y1 - y0))
        return y0 + pad, x0 + pad, y1 - pad, x1 - pad


def is_installed() -> bool:
    """Return whether text can be read."""
    return find_spec("rapidocr") is not None and find_spec("openvino") is not None


@functools.cache
def _reader() -> Any:
    """Load the networks, without messages, which RapidOCR writes to the terminal."""
    forbid_telemetry()
    from rapidocr import EngineType, RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    settings = {
        "Global.log_level": "error",
        "Global.text_score": 0.0,
        "Global.max_side_len": 4 * _SIDE_PX,
        "EngineConfig.openvino.inference_num_threads": n_threads(),
        "EngineConfig.openvino.performance_hint": "LATENCY",
        "EngineConfig.openvino.enable_cpu_pinning": False,  # threads that may not move wait for others
        **{f"{network}.engine_type": EngineType.OPENVINO for network in ("Det", "Cls", "Rec")},
        "Det.limit_type": "max",
        "Det.limit_side_len": _SIDE_PX,
    }
    return RapidOCR(params=settings)


def find_texts(picture: Picture, window: Box) -> list[Text]:
    """Return the lines of text in a window of a picture; in colour, those that stand out by colour come first."""
    y0, x0, y1, x1 = window
    part = picture.values[y0:y1, x0:x1]
    texts = []
    if part.shape[2] == 3:
        colourful = 2 * np.abs(part[..., 1:]).max(axis=2)
        texts += _texts(picture, window, colourful) if float(colourful.max()) > _COLOURFUL else []
    return texts + _texts(picture, window, part[..., 0])


def _texts(picture: Picture, window: Box, values: NDArray[np.float32]) -> list[Text]:
    """Return the lines of text in the values (y, x), 0 to 1, of a window."""
    grey, zoom = _levels(values)
    found = _reader()(np.repeat(grey[..., None], 3, axis=2), use_det=True, use_cls=False, use_rec=True)
    if found.boxes is None:
        return []
    texts = []
    for corners, text, certainty in zip(found.boxes, found.txts, found.scores, strict=True):
        (x0, y0), (x1, y1) = corners.min(axis=0) / zoom, corners.max(axis=0) / zoom
        box = picture.clipped((y0 + window[0], x0 + window[1], y1 + window[0], x1 + window[1]))
        texts.append(Text(box, str(text), float(certainty)))
    return texts


def read_line(line: GreyImage) -> tuple[str, float]:
    """Return what a picture of one line says, and how sure that is, 0 to 1."""
    read = _reader()(np.repeat(line[..., None], 3, axis=2), use_det=False, use_cls=False, use_rec=True)
    return (str(read.txts[0]), float(read.scores[0])) if read.txts else ("", 0.0)


def _levels(values: NDArray[np.float32]) -> tuple[GreyImage, float]:
    """Return values (y, x), 0 to 1, as grey levels in a size that text is found in, and the magnification."""
    levels = np.asarray(np.clip(values, 0, 1) * 255, np.uint8)
    zoom = min(_ENLARGED, _SIDE_PX / max(values.shape))
    if math.isclose(zoom, 1.0):
        return levels, 1.0
    size = (max(1, round(levels.shape[1] * zoom)), max(1, round(levels.shape[0] * zoom)))
    method = Image.Resampling.BOX if zoom < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(levels).resize(size, method)), zoom
