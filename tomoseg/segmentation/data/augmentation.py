"""Random views of labelled slices for training."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array, FloatArray
from tomoseg.parameters import Field, Parameters


class Augmentation(Parameters):
    """How far random views may differ from the slices.

    Each quantity is drawn uniformly from minus to plus its value unless told otherwise. The values are those of Genc,
    Kovarik & Fraser (2022), except that their shear of 0.1 degree is taken as a slope of 0.1. They do not vary
    intensities; those are in units of the scaled image, where 0 is the background and 1 the support.
    """

    rotation_deg: float = Field(45.0, ge=0, description="Rotation in degrees")
    flip: bool = Field(True, description="Mirror left-right and up-down, each with probability 1/2")
    zoom: float = Field(0.1, ge=0, lt=1, description="Relative change of scale along each axis")
    scale: float = Field(
        0.0,
        ge=0,
        description="Common change of scale of both axes: a factor drawn from 1 / (1 + this) to 1 + this, alike on a "
        "logarithmic scale, so that 1 is from half to twice the size",
    )
    shear: float = Field(0.1, ge=0, description="Slope of the shear")
    shift: float = Field(0.1, ge=0, description="Shift as a fraction of the patch")
    elastic_px: float = Field(
        0.0,
        ge=0,
        description="Smooth deformation: standard deviation in px of shifts of nodes a quarter of the patch apart",
    )
    grid_px: float = Field(
        0.0,
        ge=0,
        description="Piecewise linear deformation: standard deviation in px of shifts of nodes an eighth of the patch "
        "apart",
    )
    straight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of the views that are only mirrored, rotated by quarter turns and shifted by whole "
        "pixels, which keeps the grain of the image that interpolation smooths; no flips where `flip` is off, no "
        "quarter turns where `rotation_deg` is 0",
    )
    contrast: float = Field(0.0, ge=0, lt=1, description="Relative change of all intensities")
    gain: float = Field(
        0.0,
        ge=0,
        description="Common factor of all intensities, from 1 / (1 + this) to 1 + this, mostly near 1: the cube of a "
        "uniform number is its logarithm",
    )
    brightness: float = Field(0.0, ge=0, description="Offset added to all intensities")
    gamma: float = Field(
        0.0, ge=0, description="Logarithm of the power that intensities are raised to, with their sign kept"
    )
    noise: float = Field(0.0, ge=0, description="Standard deviation of white noise, drawn from 0 to this")
    blur_px: float = Field(0.0, ge=0, description="Standard deviation in px of a Gaussian blur, drawn from 0 to this")
    sharpen: float = Field(
        0.0, ge=0, description="Weight of the difference from a blur of 1 px that is added, drawn from 0 to this"
    )


def random_view(
    augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw an affine map: a (2, 2) matrix from (y, x) offsets in the patch to those in the image, px, and a shift.

    The shift (2,) is the (y, x) offset of the centre as a fraction of the patch.
    """
    a = augmentation
    turn = np.deg2rad(rng.uniform(-a.rotation_deg, a.rotation_deg))
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    shear = np.array([[1.0, 0.0], [rng.uniform(-a.shear, a.shear), 1.0]])
    zoom = np.diag(1 / (1 + rng.uniform(-a.zoom, a.zoom, 2)))
    mirror = np.diag(np.where(rng.random(2) < 0.5, -1.0, 1.0)) if a.flip else np.eye(2)
    shift = rng.uniform(-a.shift, a.shift, 2)
    matrix = rotation @ shear @ zoom @ mirror
    return matrix * (1 + a.scale) ** rng.uniform(-1, 1) if a.scale else matrix, shift


def straight_view(
    augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw a map like `random_view`, but one that takes pixels to pixels."""
    turns = int(rng.integers(4)) if augmentation.rotation_deg else 0
    quarter = np.linalg.matrix_power(np.array([[0.0, 1.0], [-1.0, 0.0]]), turns)
    mirror = np.diag(np.where(rng.random(2) < 0.5, -1.0, 1.0)) if augmentation.flip else np.eye(2)
    return quarter @ mirror, rng.uniform(-augmentation.shift, augmentation.shift, 2)


def sample_patch(
    image: Array,
    labels: Array,
    patch: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
    around: tuple[int, int] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut one randomly placed and transformed patch out of a labelled slice.

    Image and labels go through the same map with one interpolation each: linear for the image, nearest pixel for the
    labels, because an average of class numbers would be another class. The slice continues beyond its border as its
    mirror image.

    Image and labels (h, w) may be of any size, also smaller than the patch of `patch` px; the image may be
    (h, w, channels), of which all go through the same map. The pixel (y, x) `around` comes to lie in the middle half of
    the patch, which may be anywhere by default. Returns the image, f4 in its units, and the labels, u1.
    """
    from scipy import ndimage

    straight = augmentation.straight > 0 and rng.random() < augmentation.straight
    matrix, shift = straight_view(augmentation, rng) if straight else random_view(augmentation, rng)
    middle = (patch - 1) / 2
    if around is None:
        offset = _random_centre(labels.shape, patch, rng) + shift * patch - matrix @ np.full(2, middle)
    else:
        offset = np.asarray(around) - matrix @ (middle + rng.uniform(-patch / 4, patch / 4, 2))
    if straight:
        offset = np.round(offset)
    bend = None if straight else _bend(patch, augmentation, rng)
    margin = 0 if bend is None else int(np.ceil(np.abs(bend).max()))
    image, labels, offset = _nearby(image, labels, matrix, offset, patch, margin)
    image, labels = np.asarray(image, np.float32), np.asarray(labels, np.uint8)
    if bend is None:
        view = {"offset": offset, "output_shape": (patch, patch), "mode": "reflect"}
        seen = _by_channel(lambda plane: ndimage.affine_transform(plane, matrix, order=1, **view), image)
        return seen, ndimage.affine_transform(labels, matrix, order=0, **view)
    places = np.einsum("ij,jyx->iyx", matrix, np.indices((patch, patch))) + offset[:, None, None] + bend
    seen = _by_channel(lambda plane: ndimage.map_coordinates(plane, places, order=1, mode="reflect"), image)
    return seen, ndimage.map_coordinates(labels, places, order=0, mode="reflect")


def _by_channel(see: Callable[[Array], Array], image: Array) -> NDArray[np.float32]:
    """Apply a map of (h, w) images to an image that may have channels."""
    if image.ndim == 2:
        return see(image)
    return np.stack([see(plane) for plane in np.moveaxis(image, -1, 0)], axis=-1)


def vary_intensity(
    view: NDArray[np.float32], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Vary contrast, brightness, gamma, sharpness and noise of a scaled view (h, w), or (h, w, channels).

    All channels change alike, but each has its own noise.
    """
    from scipy import ndimage

    a = augmentation
    if a.blur_px:
        view = ndimage.gaussian_filter(view, rng.uniform(0, a.blur_px), axes=(0, 1))
    if a.sharpen:
        view = view + rng.uniform(0, a.sharpen) * (view - ndimage.gaussian_filter(view, 1.0, axes=(0, 1)))
    if a.gamma:
        view = np.sign(view) * np.abs(view) ** np.exp(rng.uniform(-a.gamma, a.gamma))
    if a.gain:
        view = view * np.float32((1 + a.gain) ** rng.uniform(-1, 1) ** 3)
    if a.contrast or a.brightness:
        view = view * (1 + rng.uniform(-a.contrast, a.contrast)) + rng.uniform(-a.brightness, a.brightness)
    if a.noise:
        view = view + rng.uniform(0, a.noise) * rng.standard_normal(view.shape, np.float32)
    return np.asarray(view, np.float32)


def _bend(patch: int, augmentation: Augmentation, rng: np.random.Generator) -> FloatArray | None:
    """Return random shifts (2, patch, patch) in px, smooth and piecewise linear; None if both are off."""
    kinds = [(augmentation.elastic_px, 5, 3), (augmentation.grid_px, 9, 1)]
    fields = [_shifts(patch, strength, nodes, order, rng) for strength, nodes, order in kinds if strength]
    return np.sum(fields, axis=0) if fields else None


def _shifts(patch: int, strength_px: float, n_nodes: int, order: int, rng: np.random.Generator) -> FloatArray:
    """Return shifts (2, patch, patch) in px between n_nodes x n_nodes nodes."""
    from scipy import ndimage

    nodes = rng.normal(0, strength_px, (2, n_nodes, n_nodes))
    at = np.linspace(0, n_nodes - 1, patch)
    where = np.meshgrid(at, at, indexing="ij")
    return np.stack([ndimage.map_coordinates(node, where, order=order, mode="nearest") for node in nodes])


def _random_centre(shape: tuple[int, ...], patch: int, rng: np.random.Generator) -> FloatArray:
    """Draw (y, x) of the centre of a patch on whole pixels inside the image; the image centre if it is smaller."""
    room = np.array(shape) - patch
    start = np.where(room > 0, rng.integers(0, np.maximum(room, 0) + 1), -(-room // 2))
    return np.asarray(start + (patch - 1) / 2)


def _nearby(
    image: Array, labels: Array, matrix: FloatArray, offset: FloatArray, patch: int, margin: int
) -> tuple[Array, Array, FloatArray]:
    """Crop a large slice to the region that the patch can reach, so that only that is converted."""
    corners = np.array([[0, 0], [0, patch - 1], [patch - 1, 0], [patch - 1, patch - 1]]) @ matrix.T + offset
    low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int) + 1
    low, high = low - margin - 1, high + margin + 1
    if (low < 0).any() or (high > labels.shape).any():
        return image, labels, offset  # the mirror image beyond the border needs the border where it is
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    return image[box], labels[box], offset - low
