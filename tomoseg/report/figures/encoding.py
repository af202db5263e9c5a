"""Pictures as text for the page: data URIs, and series of small images that share a budget of bytes."""

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PNG_BYTES = 60_000  # larger pictures, of noisy images, are compressed with loss
QUALITIES = (82, 72, 60, 48, 36, 24, 12)  # of WebP; the first that fits the budget is taken


def data_uri(picture: Image.Image) -> str:
    """Return a picture as a data URI: lossless PNG where that is small, otherwise WebP of high quality."""
    data, kind = _encoded(picture, "PNG", compress_level=6), "png"
    if len(data) > PNG_BYTES:
        data, kind = _encoded(picture, "WEBP", quality=90, method=4), "webp"
    return f"data:image/{kind};base64,{_text(data)}"


def png(labels: NDArray[np.uint8]) -> str:
    """Encode class indices (rows, columns) without loss, in base64; the script colours them."""
    return _text(_encoded(Image.fromarray(labels.astype(np.uint8)), "PNG", compress_level=6))


def webp(images: Sequence[NDArray[np.uint8]], n_bytes: int) -> list[str]:
    """Encode grey images (rows, columns) u1 as WebP in base64.

    The quality is the best of `QUALITIES` with which all take `n_bytes` or less, or the lowest if none does.
    """
    sample = images[:: max(1, len(images) // 12)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for quality in QUALITIES:
            sizes = [len(data) for data in pool.map(lambda image, q=quality: _webp(image, q), sample)]
            if np.mean(sizes) * len(images) <= n_bytes:
                break
        return [_text(data) for data in pool.map(lambda image: _webp(image, quality), images)]


def _webp(image: NDArray[np.uint8], quality: int) -> bytes:
    return _encoded(Image.fromarray(image), "WEBP", quality=quality, method=2)


def _encoded(picture: Image.Image, file_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
