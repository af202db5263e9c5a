"""Tilt series with known truth: phantoms, their projections, and the raw images a microscope would have made of them.

Three independent steps: a phantom (`catalyst`), its perfect aligned projections (`project`), and the raw series with
shifts, a tilted and off-centre axis, noise and a black level (`acquire`). `simulate_series` does all three. The
projector differs from that of `tomoseg.reconstruction` on purpose: it integrates a cubic spline exactly, so that a
reconstruction is never tested against its own discretisation.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from tomoseg.arrays import Array, FloatArray
from tomoseg.errors import InputError

BACKGROUND, SUPPORT, PARTICLE = 0, 1, 2
CLASS_NAMES = ("background", "support", "particle")
PARTICLE_DTYPE = np.dtype([("z", "f8"), ("y", "f8"), ("x", "f8"), ("diameter_px", "f8")])

LARGEST_MOVE_PX, LARGEST_DOSE = 1e5, 1e9  # electrons per pixel

# Lengths below are given for a volume of this many voxels across and scale with the size asked for.
REFERENCE_SIZE = 192.0
# Plates and whole object stay in balls of these radii (fraction of the size), so that no tilt and no in-plane rotation
# moves anything out of the field of view and 8 % of vacuum is left on each side for jitter and drift.
PLATE_RADIUS = 0.37
OBJECT_RADIUS = 0.42


@dataclass(frozen=True)
class Phantom:
    """An object with known truth.

    Attributes
    ----------
    density : (z, y, x) f4, per px; voxels on a border hold the mean over their extent (anti-aliased)
    labels : (z, y, x) u1, index into `class_names`
    particles : structured array, one row per particle: centre `z`, `y`, `x` and `diameter_px`, all in px
    class_names : one per class
    """

    density: NDArray[np.float32]
    labels: NDArray[np.uint8]
    particles: NDArray[Any]
    class_names: tuple[str, ...] = CLASS_NAMES


@dataclass(frozen=True)
class SeriesTruth:
    """The result that a perfect analysis of a simulated series would give.

    `shifts_px` (n_tilt, 2) holds (dy, dx) to ADD to a raw image's coordinates to bring it into register, as `align`
    stores it; their mean is zero. Any alignment may differ by a translation of the object: a constant along the axis
    and x0 cos(t) + z0 sin(t) across it.
    """

    phantom: Phantom
    shifts_px: NDArray[np.float64]
    tilt_axis_angle_deg: float
    tilt_axis_offset_px: float


@dataclass(frozen=True)
class SimulatedSeries:
    """A raw tilt series (n_tilt, y, x) with its angles, pixel size and truth."""

    raw: Array
    angles_deg: NDArray[np.float64]
    pixel_size_nm: float
    truth: SeriesTruth


# ------------------------------------------------------------------------------------------------ phantoms


def catalyst(
    size: int = 192,
    n_particles: int = 60,
    seed: int = 0,
    *,
    n_plates: int = 6,
    n_pores: int = 60,
    mean_diameter_px: float | None = None,
    diameter_spread: float = 0.2,
    min_gap_px: float = 3.0,
    particle_density: float = 4.5,
) -> Phantom:
    """Return a supported catalyst: overlapping faceted plates with pores, and bright spheres on their surfaces.

    Parameters
    ----------
    size : int
        Voxels along each side of the cubic volume.
    seed : int
        The same seed gives the same phantom.
    mean_diameter_px : float, optional
        Median diameter of the log-normal distribution in px; 8.5 px in a volume of 192 and in proportion by default.
    diameter_spread : float
        Standard deviation of the logarithm of the diameter; diameters are kept within two of them.
    min_gap_px : float
        Smallest distance in px between the surfaces of two particles.
    particle_density : float
        Density of a particle; the support has density 1. The default 4.5 is the contrast of Pt and alumina in
        reconstructed HAADF volumes, which is below the Z**1.7 of single atoms.

    Raises
    ------
    InputError
        The particles do not all fit on the support.
    """
    if size < 32:
        raise InputError(f"A phantom of {size} voxels is too small for plates and particles; use 32 or more.")
    rng = np.random.default_rng(seed)
    unit = size / REFERENCE_SIZE  # px per reference px
    solid = _plates(size, n_plates, rng)
    support = _with_pores(solid, n_pores, unit, rng)
    median = 8.5 * unit if mean_diameter_px is None else mean_diameter_px
    spread = np.clip(rng.standard_normal(n_particles), -2, 2) * diameter_spread
    # Largest first: the crowded places are filled while there is still room.
    diameters = np.sort(median * np.exp(spread))[::-1]
    particles = _place_particles(solid, support, diameters, min_gap_px, rng)
    return _compose(support, particles, particle_density)


def _plates(size: int, n_plates: int, rng: np.random.Generator) -> FloatArray:
    """Return the coverage (0..1) of each voxel by a union of irregular six-sided plates."""
    centred = (np.arange(size) - (size - 1) / 2).astype(np.float32)
    z, y, x = np.meshgrid(centred, centred, centred, indexing="ij", sparse=True)
    ball = size * PLATE_RADIUS
    outside = np.full((size, size, size), np.inf, np.float32)
    for frame in _plate_frames(n_plates, rng):
        centre = rng.normal(0, 0.19, 3) * ball
        reach = ball - float(np.linalg.norm(centre))
        signed = np.full_like(outside, -np.inf)
        for normal, distance in _plate_faces(frame, reach, ball, rng):
            face = normal[0] * z + normal[1] * y + normal[2] * x
            np.maximum(signed, face - np.float32(distance + normal @ centre), out=signed)
        np.minimum(outside, signed, out=outside)
    np.maximum(outside, np.sqrt(z**2 + y**2 + x**2) - np.float32(ball), out=outside)
    return coverage(outside)


def coverage(signed_distance: FloatArray) -> FloatArray:
    """Return the covered fraction of a voxel at a signed distance (px, negative inside): a ramp one px wide."""
    return np.asarray(np.clip(0.5 - signed_distance, 0, 1), np.float32)


def _plate_frames(n_plates: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Return an orthonormal frame (rows: normal, two in-plane directions) per plate, loosely stacked."""
    common = rng.standard_normal(3)
    common /= np.linalg.norm(common)
    frames = []
    for _ in range(n_plates):
        directions = np.stack([common + rng.normal(0, 0.45, 3), rng.standard_normal(3), rng.standard_normal(3)])
        frames.append(np.linalg.qr(directions.T)[0].T)
    return frames


def _plate_faces(
    frame: FloatArray, reach: float, ball: float, rng: np.random.Generator
) -> list[tuple[FloatArray, float]]:
    """Return (outward normal, distance from the plate's centre in px) of the eight faces of one plate."""
    half_thickness = ball * rng.uniform(0.08, 0.14)
    faces = [(frame[0], half_thickness), (-frame[0], half_thickness)]
    for k in range(6):
        turn = np.pi / 3 * k + rng.normal(0, 0.12)
        normal = np.cos(turn) * frame[1] + np.sin(turn) * frame[2]
        # A regular hexagon's corners are 1 / cos(30 deg) = 1.15 times as far as its sides.
        faces.append((normal, reach * rng.uniform(0.68, 0.95)))
    return faces


def _with_pores(solid: FloatArray, n_pores: int, unit: float, rng: np.random.Generator) -> FloatArray:
    """Return the coverage of the plates after cutting ellipsoidal pores centred in their inside."""
    support = solid.copy()
    inside = np.argwhere(ndimage.minimum_filter(solid, size=max(3, round(5 * unit))) > 0.99)
    if len(inside) == 0:
        return support
    for centre in inside[rng.integers(len(inside), size=n_pores)]:
        semi_axes = unit * np.exp(rng.normal(np.log(4.5), 0.35, 3))
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        box, grid = _neighbourhood(centre.astype(float), semi_axes.max() + 1, solid.shape)
        q = np.tensordot(rotation, grid, axes=1)
        # First-order distance to an ellipsoid: k0 (k0 - 1) / k1, k0 = |q / a|, k1 = |q / a**2|.
        a = semi_axes[:, None, None, None]
        k0 = np.sqrt(((q / a) ** 2).sum(0))
        k1 = np.sqrt(((q / a**2) ** 2).sum(0)).clip(1e-6)
        support[box] *= 1 - coverage(k0 * (k0 - 1) / k1 - 1e-3)
    return support


def _neighbourhood(
    centre: FloatArray, radius: float, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], NDArray[np.float64]]:
    """Return the slices of the voxels within a cube around `centre` (px), and their (3, ...) offsets from it."""
    low = np.maximum(np.floor(centre - radius).astype(int), 0)
    high = np.minimum(np.ceil(centre + radius).astype(int) + 1, shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij")).astype(float)
    return box, grid - np.asarray(centre, float)[:, None, None, None]


def _place_particles(
    solid: FloatArray, support: FloatArray, diameters: FloatArray, min_gap_px: float, rng: np.random.Generator
) -> NDArray[Any]:
    """Place spheres on the surface of the support, a third of them on pore walls, none closer than `min_gap_px`."""
    size = solid.shape[0]
    wall = np.argwhere((support > 0.25) & (support < 0.75))
    in_pore = solid[tuple(wall.T)] > 0.99
    outer, inner = rng.permutation(wall[~in_pore]), rng.permutation(wall[in_pore])
    normals = np.stack(np.gradient(-ndimage.gaussian_filter(support, 1.5)))  # away from the support
    placed = np.zeros(len(diameters), PARTICLE_DTYPE)
    for i, diameter in enumerate(diameters):
        sites = inner if i % 3 == 2 and len(inner) else outer
        for site in np.concatenate([sites[rng.permutation(len(sites))[:2000]], outer]):
            normal = normals[(slice(None), *site)]
            normal = normal / max(float(np.linalg.norm(normal)), 1e-9)
            centre = site + normal * diameter * rng.uniform(0.0, 0.3)
            if _fits(centre, diameter, placed[:i], min_gap_px, size):
                placed[i] = (*centre, diameter)
                break
        else:
            raise InputError(
                f"Only {i} of {len(diameters)} particles with a gap of {min_gap_px:g} px fit on the support of a "
                f"phantom of {size} voxels; ask for fewer or smaller particles, or a larger size."
            )
    return placed


def _fits(centre: FloatArray, diameter: float, others: NDArray[Any], min_gap_px: float, size: int) -> bool:
    """Return whether a sphere stays in the field of view and clear of the `others`."""
    if np.linalg.norm(centre - (size - 1) / 2) + diameter / 2 > size * OBJECT_RADIUS:
        return False
    distance = np.sqrt(sum((others[axis] - c) ** 2 for axis, c in zip("zyx", centre, strict=True)))
    return bool(np.all(distance >= (others["diameter_px"] + diameter) / 2 + min_gap_px))


def _compose(support: FloatArray, particles: NDArray[Any], particle_density: float) -> Phantom:
    """Render spheres into the support: density with partial volumes, labels by the class that fills most of a voxel."""
    covered = np.zeros(support.shape, np.float32)
    for p in particles:
        radius = p["diameter_px"] / 2
        box, grid = _neighbourhood(np.array([p["z"], p["y"], p["x"]]), radius + 1, support.shape)
        np.maximum(covered[box], coverage(np.sqrt((grid**2).sum(0)) - radius), out=covered[box])
    labels = np.where(support >= 0.5, np.uint8(SUPPORT), np.uint8(BACKGROUND))
    labels[covered >= 0.5] = PARTICLE
    density = support * (1 - covered) + np.float32(particle_density) * covered
    return Phantom(density.astype(np.float32), labels, particles)


# --------------------------------------------------------------------------------------------- projections


def project(volume: FloatArray, angles_deg: FloatArray, workers: int | None = None) -> NDArray[np.float32]:
    """Project a volume along the beam at each tilt, without noise.

    The volume is taken as the cubic spline through its voxels and integrated exactly along the rays through the
    centres of the detector pixels: the projection of a tensor-product B-spline b(x) b(z) at tilt t is the convolution
    of b(u / |cos t|) / |cos t| and b(u / |sin t|) / |sin t| (Entezari, Nilchian & Unser, IEEE Trans. Med. Imaging 31,
    2012), which is tabulated once per tilt and splatted at u = x cos t + z sin t for each voxel.

    Parameters
    ----------
    volume : (z, y, x) array, density per px; zero outside
    angles_deg : (n_tilt,) array
    workers : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    (n_tilt, y, x) f4 array: density times length in px, the tilt axis along y through x = (nx - 1) / 2
    """
    angles = np.deg2rad(np.atleast_1d(np.asarray(angles_deg, float)))
    if volume.ndim != 3:
        raise InputError(f"Only a volume (z, y, x) can be projected, not an array of shape {volume.shape}.")
    _, ny, nx = volume.shape
    columns, x, z = _spline_columns(volume)
    projections = np.empty((len(angles), ny, nx), np.float32)

    def one(i: int) -> None:
        sin, cos = np.sin(angles[i]), np.cos(angles[i])
        table, half_width = _footprint(abs(cos), abs(sin))
        image = np.zeros((nx, ny), np.float32)
        _splat(columns, x * cos + z * sin + (nx - 1) / 2, table, half_width, image)
        projections[i] = image.T

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        list(pool.map(one, range(len(angles))))
    return projections


def _spline_columns(volume: FloatArray) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return the non-zero columns along y of the cubic B-spline coefficients in (z, x), and their x and z in px.

    The volume is padded with zeros so that its edges are edges of the object and not mirrored.
    """
    pad = 8  # the coefficients fall off by a factor 3.7 per px: 3e-5 at the end of the padding
    nz, _, nx = volume.shape
    coefficients = np.pad(np.asarray(volume, np.float32).transpose(0, 2, 1), ((pad, pad), (pad, pad), (0, 0)))
    for axis in (0, 1):
        ndimage.spline_filter1d(coefficients, order=3, axis=axis, output=coefficients)
    size = np.abs(coefficients).max(axis=2)
    k, i = np.nonzero(size > 1e-6 * size.max())
    return coefficients[k, i], i - pad - (nx - 1) / 2, k - pad - (nz - 1) / 2


SAMPLES_PER_PX = 256


def _footprint(cos: float, sin: float) -> tuple[NDArray[np.float32], float]:
    """Tabulate the projection of a B-spline voxel from -half_width to half_width, `SAMPLES_PER_PX` per px.

    Computed in Fourier space, where it is sinc(f cos)**4 sinc(f sin)**4 with f in cycles per px.
    """
    half_width = 2 * (cos + sin)
    n_px = 16  # period of the Fourier series; more than the widest footprint of 5.7 px
    f = np.fft.rfftfreq(n_px * SAMPLES_PER_PX, 1 / SAMPLES_PER_PX)
    spectrum = np.sinc(f * cos) ** 4 * np.sinc(f * sin) ** 4
    response = np.fft.fftshift(np.fft.irfft(spectrum)) * SAMPLES_PER_PX
    middle, reach = n_px * SAMPLES_PER_PX // 2, int(np.ceil(half_width * SAMPLES_PER_PX)) + 1
    return response[middle - reach : middle + reach + 1].astype(np.float32), reach / SAMPLES_PER_PX


def _splat_columns(
    columns: NDArray[np.float32],
    u: NDArray[np.float64],
    table: NDArray[np.float32],
    half_width: float,
    image: NDArray[np.float32],
) -> None:
    """Add each column of voxels, seen at `u` px, to the rows of `image` (u, y) within reach of its footprint."""
    n_u, n_y = image.shape
    for c in range(len(u)):
        first = max(int(np.ceil(u[c] - half_width)), 0)
        last = min(int(np.floor(u[c] + half_width)), n_u - 1)
        for j in range(first, last + 1):
            at = (j - u[c] + half_width) * SAMPLES_PER_PX
            k = min(int(at), len(table) - 2)
            weight = np.float32(table[k] + (at - k) * (table[k + 1] - table[k]))
            for y in range(n_y):
                image[j, y] += weight * columns[c, y]


_splat = numba.njit(nogil=True, cache=True)(_splat_columns)


# ---------------------------------------------------------------------------------------------- acquisition


def acquire(
    projections: FloatArray,
    *,
    shifts_px: FloatArray | None = None,
    tilt_axis_angle_deg: float = 0.0,
    tilt_axis_offset_px: float = 0.0,
    dose: float | None = 400.0,
    vacuum: float = 0.02,
    counts_per_electron: float | None = None,
    black_level: float = 1000.0,
    dtype: DTypeLike = np.uint16,
    seed: int = 0,
) -> Array:
    """Return the raw series that a microscope would record of perfect aligned projections.

    A raw pixel p = (x, y), from the image centre, looks at the aligned image where alignment would put it: registered
    p_s = p + (dx, dy); rotated x' = cos(phi) x_s - sin(phi) y_s, y' = sin(phi) x_s + cos(phi) y_s; aligned
    x'' = x' - offset, y'' = y'. Each image is resampled once, by a cubic spline, with vacuum outside.

    Parameters
    ----------
    projections : (n_tilt, y, x) array, tilt axis along y through x = (nx - 1) / 2
    shifts_px : (n_tilt, 2) array, optional
        (dy, dx) that an alignment should find, to ADD to raw coordinates.
    tilt_axis_angle_deg, tilt_axis_offset_px : float
        As stored by `align`: angle from the vertical, counter-clockwise as displayed; offset towards +x after rotation.
    dose : float or None
        Mean number of electrons detected per pixel in the shadow of the object (pixels above 5 % of the brightest one
        of the whole series), which sets the Poisson noise. None: no noise, and one count per unit of projection.
    vacuum : float
        Electrons per pixel of vacuum, as a fraction of `dose`.
    counts_per_electron : float, optional
        Gain; by default 10, or less where an integer `dtype` would saturate.
    black_level : float
        Counts of a pixel that no electron reached.
    dtype : numpy dtype
        Of the raw series; integers are rounded and clipped to its range.
    seed : int
        The same seed gives the same noise.
    """
    perfect = np.asarray(projections, np.float32)
    shifts = np.zeros((len(perfect), 2)) if shifts_px is None else np.asarray(shifts_px, float)
    if perfect.ndim != 3 or shifts.shape != (len(perfect), 2):
        raise InputError(
            f"Projections of shape {perfect.shape} and shifts of shape {shifts.shape} do not fit: (n_tilt, y, x) and "
            "(n_tilt, 2) are needed."
        )
    scale, background = _exposure(perfect, dose, vacuum)
    gain = _gain(perfect.max() * scale + background, counts_per_electron, black_level, dtype, noisy=dose is not None)
    rng = np.random.default_rng(seed)
    raw = np.empty(perfect.shape, dtype)
    for i, image in enumerate(perfect):
        electrons = scale * _misalign(image, shifts[i], tilt_axis_angle_deg, tilt_axis_offset_px) + background
        counted = electrons if dose is None else rng.poisson(np.maximum(electrons, 0))
        counts = black_level + gain * counted
        if raw.dtype.kind in "iu":
            limits = np.iinfo(raw.dtype)
            counts = np.clip(np.rint(counts), limits.min, limits.max)
        raw[i] = counts.astype(raw.dtype)
    return raw


def _exposure(perfect: FloatArray, dose: float | None, vacuum: float) -> tuple[float, float]:
    """Return electrons per unit of projection, and electrons per pixel of vacuum."""
    if dose is None:
        return 1.0, 0.0
    shadow = perfect[perfect > 0.05 * perfect.max()]
    if dose <= 0 or shadow.size == 0:
        raise InputError(
            f"A dose of {dose:g} electrons per pixel cannot be simulated: it must be above 0, and the projections must "
            "show an object."
        )
    return dose / float(shadow.mean(dtype=float)), vacuum * dose


def _gain(brightest: float, wanted: float | None, black_level: float, dtype: DTypeLike, *, noisy: bool) -> float:
    """Return counts per electron such that the brightest pixel, noise included, stays in the range of `dtype`."""
    if wanted is not None:
        return float(wanted)
    if not noisy:
        return 1.0
    if np.dtype(dtype).kind not in "iu":
        return 10.0
    room = float(np.iinfo(np.dtype(dtype)).max) - black_level
    return float(min(10.0, room / (1.2 * brightest + 6 * np.sqrt(brightest) + 1)))


def _misalign(image: FloatArray, shift: FloatArray, angle_deg: float, offset_px: float) -> FloatArray:
    """Resample one aligned image (y, x) to where the raw pixels are; see `acquire` for the formula."""
    phi = np.deg2rad(angle_deg)
    # (y, x) in, (y'', x'') out.
    rotation = np.array([[np.cos(phi), np.sin(phi)], [-np.sin(phi), np.cos(phi)]])
    centre = (np.array(image.shape) - 1) / 2
    start = rotation @ (np.asarray(shift) - centre) + centre - np.array([0.0, offset_px])
    return np.asarray(ndimage.affine_transform(image, rotation, start, order=3, mode="constant"), np.float32)


def tilt_angles(max_tilt_deg: float = 68.0, step_deg: float = 2.0) -> NDArray[np.float64]:
    """Return equally spaced tilts from -max_tilt_deg to max_tilt_deg."""
    if not (step_deg > 0 and 0 <= max_tilt_deg <= 90):
        raise InputError(
            f"Tilts of +-{max_tilt_deg:g} degrees in steps of {step_deg:g} are not possible: at most 90 degrees, and "
            "steps above 0."
        )
    n = int(np.floor(2 * max_tilt_deg / step_deg + 1e-9)) + 1
    return np.asarray((np.arange(n) - (n - 1) / 2) * step_deg, np.float64)


def stage_motion(n_tilt: int, jitter_px: float, drift_px: float, seed: int = 0) -> NDArray[np.float64]:
    """Return (n_tilt, 2) shifts (dy, dx) of mean zero: random jitter plus a smooth, slightly bent drift.

    `jitter_px` is the standard deviation per axis, `drift_px` the distance from the first to the last image.
    """
    rng = np.random.default_rng(seed)
    heading = rng.uniform(0, 2 * np.pi)
    time = np.linspace(-0.5, 0.5, n_tilt)[:, None] if n_tilt > 1 else np.zeros((1, 1))
    along, across = np.array([np.sin(heading), np.cos(heading)]), np.array([np.cos(heading), -np.sin(heading)])
    drift = drift_px * (time * along + 0.4 * time**2 * across)
    shifts = drift + rng.normal(0, jitter_px, (n_tilt, 2))
    return np.asarray(shifts - shifts.mean(axis=0))


def simulate_series(
    size: int = 192,
    n_particles: int = 60,
    *,
    max_tilt_deg: float = 68.0,
    tilt_step_deg: float = 2.0,
    jitter_px: float = 2.0,
    drift_px: float = 8.0,
    tilt_axis_angle_deg: float = 3.0,
    tilt_axis_offset_px: float = 2.5,
    dose: float = 400.0,
    pixel_size_nm: float = 0.25,
    black_level: float = 1000.0,
    dtype: DTypeLike = np.uint16,
    seed: int = 0,
    phantom: Phantom | None = None,
    workers: int | None = None,
) -> SimulatedSeries:
    """Simulate the raw tilt series of a supported catalyst, or of the `phantom` given, with known truth.

    See `catalyst`, `stage_motion` and `acquire` for the parameters. The phantom depends on `size`, `n_particles` and
    `seed` only, so the same object can be seen under different conditions. The object reaches 42 % of `size` from the
    centre; larger shifts than the rest move its rim out of view, as happens in practice.
    """
    moves = {"jitter_px": jitter_px, "drift_px": drift_px, "tilt_axis_offset_px": tilt_axis_offset_px}
    for name, pixels in moves.items():
        if not abs(pixels) <= LARGEST_MOVE_PX or (name == "jitter_px" and pixels < 0):
            raise InputError(
                f"{name} is {pixels:g}: it must be at most {LARGEST_MOVE_PX:g} px, and jitter not negative."
            )
    if not abs(tilt_axis_angle_deg) <= 360:
        raise InputError(f"tilt_axis_angle_deg is {tilt_axis_angle_deg:g}: it must be at most 360 degrees.")
    if not 0 < dose <= LARGEST_DOSE:
        raise InputError(f"dose is {dose:g}: it must be above 0 and at most {LARGEST_DOSE:g} electrons per pixel.")
    truth = catalyst(size, n_particles, seed) if phantom is None else phantom
    angles_deg = tilt_angles(max_tilt_deg, tilt_step_deg)
    shifts_px = stage_motion(len(angles_deg), jitter_px, drift_px, seed + 1)
    raw = acquire(
        project(truth.density, angles_deg, workers),
        shifts_px=shifts_px,
        tilt_axis_angle_deg=tilt_axis_angle_deg,
        tilt_axis_offset_px=tilt_axis_offset_px,
        dose=dose,
        black_level=black_level,
        dtype=dtype,
        seed=seed + 2,
    )
    return SimulatedSeries(
        raw, angles_deg, pixel_size_nm, SeriesTruth(truth, shifts_px, tilt_axis_angle_deg, tilt_axis_offset_px)
    )
