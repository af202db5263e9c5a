"""Engines that read a line of text: RapidOCR, which pip installs with its models, and the program tesseract."""

import functools
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

GreyImage = NDArray[np.uint8]  # a line (y, x), dark letters on white
Engine = Callable[[Sequence[GreyImage]], list[tuple[str, float]]]  # text and certainty 0..1 of each line

_TESSERACT_LETTERS = "0123456789.,nmupµμÅA "
_TESSERACT_SECONDS = 20.0
_TESSERACT_CERTAINTY = 0.8  # it gives none for a line


def engines() -> dict[str, Engine]:
    """Return the engines that are installed, by name, the more accurate first."""
    found: dict[str, Engine] = {}
    if find_spec("rapidocr") and find_spec("onnxruntime"):
        found["RapidOCR"] = _rapidocr
    if shutil.which("tesseract"):
        found["Tesseract"] = _tesseract
    return found


@functools.cache
def _rapidocr_reader() -> Any:
    """Load the network that reads lines: on one core, which is as fast for a line as many, and without messages."""
    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    settings = {
        "Global.log_level": "error",
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }
    return RapidOCR(params=settings)


def _rapidocr(lines: Sequence[GreyImage]) -> list[tuple[str, float]]:
    readings = []
    for line in lines:
        read = _rapidocr_reader()(np.repeat(line[..., None], 3, axis=2), use_det=False, use_cls=False, use_rec=True)
        texts, scores = read.txts or ("",), read.scores or (0.0,)
        readings.append((str(texts[0]), float(scores[0])))
    return readings


def _tesseract(lines: Sequence[GreyImage]) -> list[tuple[str, float]]:
    return [(_tesseract_line(line), _TESSERACT_CERTAINTY) for line in lines]


def _tesseract_line(line: GreyImage) -> str:
    """Read one line; an empty text if the program fails or takes too long."""
    height, width = line.shape
    picture = b"P5 %d %d 255\n" % (width, height) + np.ascontiguousarray(line).tobytes()
    command = ["tesseract", "stdin", "stdout", "--psm", "7", "--dpi", "150", "-l", "eng"]
    command += ["-c", f"tessedit_char_whitelist={_TESSERACT_LETTERS}"]
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    try:
        done = subprocess.run(
            command, input=picture, capture_output=True, timeout=_TESSERACT_SECONDS, env=environment, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        logging.getLogger(__name__).debug("tesseract failed: %s", error)
        return ""
    return re.sub(r"\s+", " ", done.stdout.decode("utf-8", "replace")).strip()
