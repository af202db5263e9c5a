"""How large the images are that an alignment is found from, and what memory that takes."""

import math

REDUCED_PX, REDUCED_PIXELS = 256, 180 * 256**2
SMALLEST_PX = 64  # however many tilts there are
LIVE_ARRAYS = 4.25  # f4, as large as the reduced series
WIDER = 1.6  # of the frame: how much of a sample that extends beyond it is reconstructed


def reduction_factor(shape: tuple[int, ...], longest_px: int) -> int:
    """Return the factor that brings the longer side of images of `shape` to at most `longest_px`."""
    return max(1, -(-max(shape[-2:]) // longest_px))


def reduction_of(shape: tuple[int, ...]) -> int:
    """Return how many raw pixels are averaged along each axis of a series of `shape` (n_tilt, y, x)."""
    longest = max(SMALLEST_PX, min(REDUCED_PX, int(math.sqrt(REDUCED_PIXELS / shape[0]))))
    return reduction_factor(shape, longest)


def memory_needed(shape: tuple[int, ...], factor: int, *, patch: bool) -> float:
    """Return about how many bytes finding an alignment takes, for a raw series of `shape` reduced by `factor`.

    Alive at once are the reduced images and their splines, and either the images in the aligned frame, a mask and what
    they are predicted to be, or a volume: 0.4 GB at most. A patch is at most as large as the images.
    """
    n, height, width = shape[0], shape[1] // factor, shape[2] // factor
    longest = max(height, width)
    return 4 * ((LIVE_ARRAYS + patch) * n * height * width + longest * (WIDER * longest) ** 2)
