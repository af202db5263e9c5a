"""The volume of a particle by intensity: what is brighter there than around it, by how much brighter its inside is.

Blur moves intensity across a surface but keeps its sum, so this volume depends neither on the resolution nor on where
labels draw the border. It scatters more from particle to particle than that of labels, and its mean is nearly right:
both together tell how far the labels' borders are off.
"""

import numpy as np

from tomoseg.arrays import Array, BoolArray

REACH_PX = 2.5  # from the border of the labels, within which blur moves intensity
AROUND_PX = 4.0  # what surrounds a particle lies between both
CORE = 0.6  # of the depth, from which on a small particle counts as its inside


def volume_by_intensity_px3(values: Array, mask: BoolArray, others: BoolArray) -> float:
    """Return the volume of a particle in px^3; NaN where nothing around it, or nothing in it, tells its brightness.

    `values`, the `mask` of the particle and that of the `others` of its class are (z, y, x), with a margin of 5 px
    around the particle as far as the volume goes.
    """
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    apart = ndimage.distance_transform_edt(~others) if others.any() else np.full(mask.shape, np.inf)
    core = inside >= min(REACH_PX, CORE * float(inside.max()))
    around = (outside >= REACH_PX) & (outside <= AROUND_PX) & (apart > AROUND_PX)
    if not core.any() or not around.any():
        return float("nan")
    bright, dark = float(values[core].mean()), float(values[around].mean())
    if not bright > dark:
        return float("nan")
    counted = (outside <= REACH_PX) & (apart > REACH_PX)
    return max(0.0, float((values[counted].astype(np.float64) - dark).sum() / (bright - dark)))
