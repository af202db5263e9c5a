"""A movie of the surfaces of labelled classes, turning once about the tilt axis."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import InputError, NotReady
from tomoseg.io.atomic import atomic_path
from tomoseg.report.figures.rendering import render_views, surfaces_of
from tomoseg.report.results import Results
from tomoseg.runtime import Runtime

ENDINGS = (".mp4", ".gif")
FRAMES_PER_SECOND = {".mp4": 20, ".gif": 12}
WHITE, BLACK = 255, 0


def check_movie(path: Path) -> None:
    """Raise `InputError` where a file of this name cannot be written."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"-o {path}: the name of a movie must end in .mp4 or .gif.")
    if path.suffix.lower() == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError as error:
            raise InputError(
                "An .mp4 needs imageio-ffmpeg, which is not installed: pip install imageio-ffmpeg, or write a .gif."
            ) from error


def write_movie(path: Path, results: Results, seconds: float, side: int, *, dark: bool, runtime: Runtime) -> None:
    """Write the movie: one turn in `seconds`, pictures of `side` px, on white or, if `dark`, on black.

    Raises `NotReady` where nothing is labelled yet.
    """
    found = results.class_fractions
    if found is None or not results.bodies:
        raise NotReady("There are no labels to show: run segment first.")
    rate = FRAMES_PER_SECOND[path.suffix.lower()]
    yaws = np.linspace(0, 360, max(2, round(seconds * rate)), endpoint=False)
    side += side % 2  # the encoder wants even sides
    rendered = render_views(found, surfaces_of(results), list(yaws), side)
    frames = (_on(next(rendered)[0], BLACK if dark else WHITE) for _ in runtime.track(list(yaws), "turning"))
    with atomic_path(path) as temporary:
        write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
        write(temporary, frames, rate, side)


def _on(picture: NDArray[np.uint8], background: int) -> NDArray[np.uint8]:
    """Return a picture (side, side, 3) on a background."""
    opacity = picture[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(picture[..., :3] * opacity + background * (1 - opacity)), np.uint8)


def _write_gif(path: Path, frames: Iterator[NDArray[np.uint8]], rate: int, _side: int) -> None:
    from PIL import Image

    pictures = [Image.fromarray(frame).quantize(128) for frame in frames]
    pictures[0].save(path, format="GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / rate), loop=0)


def _write_mp4(path: Path, frames: Iterator[NDArray[np.uint8]], rate: int, side: int) -> None:
    import imageio_ffmpeg

    options = ["-f", "mp4", "-movflags", "+faststart"]  # the temporary file has no ending that tells the format
    writer = imageio_ffmpeg.write_frames(
        str(path), (side, side), fps=rate, quality=6, macro_block_size=2, output_params=options
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
