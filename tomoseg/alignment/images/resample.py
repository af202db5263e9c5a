"""The aligned series: every raw image resampled exactly once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from tomoseg.alignment.images.survey import fill_missing
from tomoseg.alignment.images.warp import aligned_shape, correction_matrices, warp_image
from tomoseg.arrays import Array, ArraySink, ArraySource, FloatArray
from tomoseg.io.shifts import ImageCorrections
from tomoseg.runtime import Runtime, slabs

BYTES_PER_PIXEL = 48  # of an image in work: raw, f8, its spline, the aligned one


def resample_series(
    tilt_series: ArraySource,
    aligned: ArraySink,
    *,
    usable: NDArray[np.bool_],
    levels: FloatArray,
    scales: FloatArray,
    shifts_px: FloatArray,
    axis_angle_deg: float,
    axis_offset_px: float,
    corrections: ImageCorrections | None,
    runtime: Runtime,
    order: int = 3,
    extend: bool = False,
    what: str = "align 5/5: resampling",
) -> None:
    """Fill `aligned`: background, scale, image correction, shift, rotation and offset in one resampling per image.

    `aligned` (n_tilt, y', x') f4 has the (y', x') of `aligned_shape`. Tilts that are not `usable` become 0, pixels that
    are not finite the background, `levels` (n_tilt,) in counts, which is subtracted; then `scales` (n_tilt,) multiply.
    `order` is that of the interpolating spline: 1 makes no negative values of counts near 0. Outside the raw frame,
    images are 0 or, to `extend` them, repeat their border.
    """
    n, *raw_shape = tilt_series.shape
    shape = aligned_shape(tuple(raw_shape), axis_angle_deg)
    matrices = [None] * n if corrections is None else correction_matrices(corrections)

    def one(i: int, image: Array) -> NDArray[np.float32]:
        runtime.check()
        if not usable[i]:
            return np.zeros(shape, np.float32)
        level = levels[i]
        # In f8: counts near -32000 in f4 would lose a part of a faint signal's last digits.
        data = (fill_missing(image, level).astype(np.float64) - level) * scales[i]
        return warp_image(
            data, shifts_px[i], axis_angle_deg, axis_offset_px, order, correction=matrices[i], extend=extend
        )

    workers = max(1, runtime.workers)
    size = runtime.slab_size(raw_shape[0] * raw_shape[1] * BYTES_PER_PIXEL, n)
    with ThreadPoolExecutor(workers) as pool:
        for slab in runtime.track(slabs(n, min(size, 4 * workers)), what):
            raw = np.asarray(tilt_series[slab])
            done = np.empty((len(raw), *shape), np.float32)
            for i, image in enumerate(pool.map(one, range(slab.start, slab.stop), raw)):
                done[i] = image
            aligned[slab] = done
