"""Random views of labelled slices for training."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, FloatArray


@dataclass(frozen=True)
class Augmentation:
    """How far views may differ from the slices; each quantity is drawn uniformly from minus to plus its value.

    The values are those of Genc et al. (2022), except that their shear of 0.1 degree is taken as a slope of 0.1.

    Attributes
    ----------
    rotation_deg : rotation, degree
    flip : mirror left-right and up-down, each with probability 1/2
    zoom : relative change of scale, per axis
    shear : slope of the shear
    shift : shift as a fraction of the patch
    """

    rotation_deg: float = 45.0
    flip: bool = True
    zoom: float = 0.1
    shear: float = 0.1
    shift: float = 0.1


NO_AUGMENTATION = Augmentation(rotation_deg=0.0, flip=False, zoom=0.0, shear=0.0, shift=0.0)


def random_view(
    augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw one composed affine map.

    Returns
    -------
    matrix : (2, 2) array
        From (y, x) offsets in the patch to (y, x) offsets in the image, px.
    shift : (2,) array
        (y, x) offset of the centre as a fraction of the patch.
    """
    a = augmentation
    turn = np.deg2rad(rng.uniform(-a.rotation_deg, a.rotation_deg))
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    shear = np.array([[1.0, 0.0], [rng.uniform(-a.shear, a.shear), 1.0]])
    zoom = np.diag(1 / (1 + rng.uniform(-a.zoom, a.zoom, 2)))
    mirror = np.diag(np.where(rng.random(2) < 0.5, -1.0, 1.0)) if a.flip else np.eye(2)
    return rotation @ shear @ zoom @ mirror, rng.uniform(-a.shift, a.shift, 2)


def sample_patch(
    image: Array, labels: Array, patch: int, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut one randomly placed and transformed patch out of a labelled slice.

    Image and labels go through the same map in one interpolation each: the image linearly, the labels to the nearest
    pixel, because a class number in between two others would be a class that is not there. What lies beyond the slice
    is its mirror image.

    Parameters
    ----------
    image, labels : (h, w) arrays, of any size; smaller than the patch is fine
    patch : side of the patch, px

    Returns
    -------
    (patch, patch) f4 image in the units of `image`, and (patch, patch) u1 labels
    """
    matrix, shift = random_view(augmentation, rng)
    centre = _random_centre(image.shape, patch, rng) + shift * patch
    offset = centre - matrix @ np.full(2, (patch - 1) / 2)
    image, labels, offset = _nearby(image, labels, matrix, offset, patch)
    view = {"offset": offset, "output_shape": (patch, patch), "mode": "reflect"}
    seen = ndimage.affine_transform(np.asarray(image, np.float32), matrix, order=1, **view)
    classes = ndimage.affine_transform(np.asarray(labels, np.uint8), matrix, order=0, **view)
    return seen, classes


def _random_centre(shape: tuple[int, ...], patch: int, rng: np.random.Generator) -> FloatArray:
    """Return (y, x) of the centre of a whole-pixel patch inside the image, or the image centre where it is smaller."""
    room = np.array(shape) - patch
    start = np.where(room > 0, rng.integers(0, np.maximum(room, 0) + 1), -(-room // 2))
    return np.asarray(start + (patch - 1) / 2)


def _nearby(
    image: Array, labels: Array, matrix: FloatArray, offset: FloatArray, patch: int
) -> tuple[Array, Array, FloatArray]:
    """Cut a large slice down to what the patch can see, so that interpolation does not convert all of it."""
    corners = np.array([[0, 0], [0, patch - 1], [patch - 1, 0], [patch - 1, patch - 1]]) @ matrix.T + offset
    low, high = np.floor(corners.min(axis=0)).astype(int) - 1, np.ceil(corners.max(axis=0)).astype(int) + 2
    if (low < 0).any() or (high > image.shape).any():
        return image, labels, offset  # the mirror image beyond the border needs the border where it is
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    return image[box], labels[box], offset - low
