"""The geometry of alignment: where a raw pixel lies in the aligned frame, and resampling each image once.

With p = (x, y) a raw pixel from the centre of the raw image, (dy, dx) its tilt's shift, phi the angle of the tilt axis
and o its offset:

    registered  p_s = p + (dx, dy)
    rotated     x' = cos(phi) x_s - sin(phi) y_s,   y' = sin(phi) x_s + cos(phi) y_s
    aligned     x'' = x' - o,                       y'' = y'

The tilt axis has the direction (sin phi, cos phi) in the raw image: vertical at 0, along x at 90 degrees.

Image corrections come first: an image is magnified m times and turned by the angle a about its centre,
p_s = m R(a) p + (dx, dy), with R the rotation above. The axis of such an image has the angle phi + a.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, FloatArray
from tomoseg.io.shifts import ImageCorrections

# A translation this close to whole pixels is one: far below any accuracy of alignment, far above rounding errors.
WHOLE_PX = 1e-6


def rotation_matrix(axis_angle_deg: float) -> NDArray[np.float64]:
    """Return R with (y', x') = R (y_s, x_s); exact for multiples of 90 degrees."""
    phi = np.deg2rad(axis_angle_deg)
    quarters = axis_angle_deg / 90
    cos, sin = np.cos(phi), np.sin(phi)
    if quarters == round(quarters):
        cos, sin = np.round(cos), np.round(sin)
    return np.array([[cos, sin], [-sin, cos]])


def swaps_sides(axis_angle_deg: float) -> bool:
    """Return whether the tilt axis is nearer to the raw image's x, so that height and width change places."""
    return abs(axis_angle_deg) > 45


def aligned_shape(raw_shape: tuple[int, ...], axis_angle_deg: float) -> tuple[int, int]:
    """Return (height, width) of an aligned image made from a raw image of `raw_shape` (height, width)."""
    height, width = raw_shape[-2:]
    return (width, height) if swaps_sides(axis_angle_deg) else (height, width)


def wrap_axis_angle(angle_deg: float) -> float:
    """Return the same line's angle in (-90, 90]."""
    return float(90 - (90 - angle_deg) % 180)


def rotate_vectors(vectors: FloatArray, axis_angle_deg: float) -> NDArray[np.float64]:
    """Return (..., 2) vectors (dy, dx) of the raw frame as (dy', dx') of the rotated frame."""
    return np.asarray(vectors @ rotation_matrix(axis_angle_deg).T)


def unrotate_vectors(vectors: FloatArray, axis_angle_deg: float) -> NDArray[np.float64]:
    """Return (..., 2) vectors (dy', dx') of the rotated frame as (dy, dx) of the raw frame."""
    return np.asarray(vectors @ rotation_matrix(axis_angle_deg))


def correction_matrices(corrections: ImageCorrections) -> NDArray[np.float64]:
    """Return m R(a) of the module's text for every image, (n_tilt, 2, 2), for vectors (y, x)."""
    turns = np.stack([rotation_matrix(a) for a in corrections.rotation_deg])
    return np.asarray(corrections.magnification[:, None, None] * turns)


def sampling(
    raw_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    shift_px: FloatArray,
    axis_angle_deg: float,
    offset_px: float,
    correction: FloatArray | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (A, b) such that aligned pixel i = (row, column) shows the raw image at A i + b.

    Parameters
    ----------
    raw_shape, out_shape : (height, width)
    shift_px : (dy, dx) of this tilt, to add to raw coordinates
    axis_angle_deg, offset_px : float
        Angle and offset of the tilt axis, see the module's text.
    correction : (2, 2) array, optional
        Rotation and magnification of this image, one of `correction_matrices`; none by default.
    """
    # Inverse of the module's formula: M p = R^T (q + (0, o)) - shift, with q from the centre of the aligned image.
    matrix, shift = rotation_matrix(axis_angle_deg).T, np.asarray(shift_px, float)
    if correction is not None:
        back = np.linalg.inv(correction)
        matrix, shift = back @ matrix, back @ shift
    raw_centre = (np.asarray(raw_shape[-2:], float) - 1) / 2
    out_centre = (np.asarray(out_shape[-2:], float) - 1) / 2
    start = raw_centre - shift + matrix @ (np.array([0.0, offset_px]) - out_centre)
    return matrix, start


def warp_image(
    image: Array,
    shift_px: FloatArray,
    axis_angle_deg: float,
    offset_px: float,
    order: int = 3,
    correction: FloatArray | None = None,
    *,
    extend: bool = False,
) -> NDArray[np.float32]:
    """Bring one raw image, background already 0, into the aligned frame in a single resampling.

    Parameters
    ----------
    image : (y, x) array
    shift_px, axis_angle_deg, offset_px
        See the module's text. Where they amount to a move by whole pixels and a quarter turn or none, pixel values
        are copied and none is changed.
    order : int
        Of the interpolating spline.
    correction : (2, 2) array, optional
        Rotation and magnification of this image, one of `correction_matrices`; none by default.
    extend : bool
        Repeat border pixels outwards rather than fill with 0, for samples that go on outside the frame.

    Returns
    -------
    (y, x) f4 array of `aligned_shape`; 0 where the raw image does not reach, unless it is to `extend`.
    """
    data = np.asarray(image, np.float32)
    out_shape = aligned_shape(data.shape, axis_angle_deg)
    matrix, start = sampling(data.shape, out_shape, shift_px, axis_angle_deg, offset_px, correction)
    whole = np.round(start)
    if not extend and np.isin(np.abs(matrix), (0, 1)).all() and np.abs(start - whole).max() < WHOLE_PX:
        return _copy_whole(data, out_shape, matrix.astype(int), whole.astype(int))
    return np.asarray(
        ndimage.affine_transform(
            data, matrix, start, out_shape, np.float32, order=order, mode="nearest" if extend else "constant", cval=0.0
        )
    )


def _copy_whole(
    image: NDArray[np.float32], out_shape: tuple[int, int], matrix: NDArray[np.int_], start: NDArray[np.int_]
) -> NDArray[np.float32]:
    """Copy pixels where the aligned pixel i shows the raw pixel `matrix` i + `start` exactly."""
    rows, columns = np.arange(out_shape[0]), np.arange(out_shape[1])
    y = matrix[0, 0] * rows[:, None] + matrix[0, 1] * columns + start[0]
    x = matrix[1, 0] * rows[:, None] + matrix[1, 1] * columns + start[1]
    inside = (y >= 0) & (y < image.shape[0]) & (x >= 0) & (x < image.shape[1])
    out = np.zeros(out_shape, np.float32)
    out[inside] = image[y[inside], x[inside]]
    return out
