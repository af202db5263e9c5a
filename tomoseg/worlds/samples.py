"""Random samples: supports of many kinds with particles on and in them, as densities with exact labels.

All are unions of bodies given by their signed distance (px, negative inside), so that a voxel on a border holds the
part of it that is covered. Lengths are in voxels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.simulate import BACKGROUND, PARTICLE, SUPPORT, coverage

Floats = NDArray[np.float32]
Shape = tuple[int, int, int]
SupportKind = Literal["plates", "spheres", "rods", "aggregate", "film", "porous", "faceted"]
ParticleShape = Literal["sphere", "cuboctahedron", "rod", "raft", "core-shell"]
FAR = np.float32(1e6)
MOST_FILLED = 0.35  # of the volume of the support may be particles
MOST_CUT = 0.4  # of the volume of the support may be cavities, as they are drawn; they overlap
MOST_TEXTURE = 0.3  # of the difference between particles and support
TRIES = 40  # places that are tried for a particle


@dataclass(frozen=True)
class SampleRecipe:
    """What a sample is made of.

    Parameters
    ----------
    shape : voxels (z, y, x) of the box, which may be wider than what is seen of it
    seen : voxels along x that are seen, in the middle
    support : kind of the support
    reach : radius of the support from the middle, px
    pores : number of cavities, and `pore_px` their radius
    texture : relative variation of the support's density, over `texture_px`
    n_particles, diameter_px, spread : number, median diameter, standard deviation of its logarithm
    contrast : density of particles, that of the support being 1
    inside : fraction of the particles inside the support
    overlap : whether particles may overlap
    carbon : density of a thin film that counts as background; 0 for none
    dim : density of bodies beside the support that count as background; 0 for none
    neighbours : bodies like the support that are cut by the frame
    """

    shape: Shape = (128, 40, 128)
    seen: int = 128
    support: SupportKind = "plates"
    reach: float = 45.0
    pores: int = 10
    pore_px: float = 4.0
    texture: float = 0.05
    texture_px: float = 3.0
    particle_shape: ParticleShape = "sphere"
    n_particles: int = 30
    diameter_px: float = 8.0
    spread: float = 0.2
    contrast: float = 4.0
    inside: float = 0.2
    overlap: bool = False
    carbon: float = 0.0
    dim: float = 0.0
    neighbours: int = 0


@dataclass(frozen=True)
class Sample:
    """A sample: density (z, y, x), labels as in `tomoseg.simulate`, and particles (z, y, x, diameter), px."""

    density: Floats
    labels: NDArray[np.uint8]
    particles: NDArray[np.float64]


def random_sample_recipe(rng: np.random.Generator, shape: Shape, seen: int) -> SampleRecipe:
    """Draw a recipe of a sample, of which `seen` voxels along x are seen; `shape` is that of what is seen."""
    support = str(rng.choice(get_args(SupportKind), p=(0.17, 0.17, 0.14, 0.15, 0.07, 0.14, 0.16)))
    is_film = support == "film"
    neighbours = int(rng.integers(1, 4)) if rng.random() < 0.25 else 0
    width = 2 * seen if is_film else seen + seen // 2 if neighbours else seen
    diameter = float(np.exp(rng.uniform(np.log(3.0), np.log(30.0))))
    # From a few to crowded: so many that they would cover this part of a sphere of the support's size.
    reach = float(rng.uniform(0.2, 0.4) * seen)
    covered = float(np.exp(rng.uniform(np.log(0.01), np.log(0.6))))
    n_particles = int(np.clip(covered * 16 * reach**2 / diameter**2, 1, 400))
    contrast = float(np.exp(rng.uniform(np.log(1.3), np.log(10.0))))
    # A support that varied as much as particles differ from it would leave nothing to tell them by.
    texture = min(float(rng.uniform(0, 0.2)), MOST_TEXTURE * (contrast - 1)) if rng.random() < 0.7 else 0.0
    return SampleRecipe(
        shape=(shape[0], shape[1], width),
        seen=seen,
        support=support,  # type: ignore[arg-type]
        reach=reach,
        pores=int(rng.integers(3, 60)) if rng.random() < 0.6 else 0,
        pore_px=float(rng.uniform(1.5, 7.0)),
        texture=texture,
        texture_px=float(rng.uniform(1.0, 6.0)),
        particle_shape=str(rng.choice(get_args(ParticleShape), p=(0.4, 0.25, 0.12, 0.13, 0.1))),  # type: ignore[arg-type]
        n_particles=0 if rng.random() < 0.06 else n_particles,
        diameter_px=diameter,
        spread=float(rng.uniform(0.05, 0.45)),
        contrast=contrast,
        inside=float(rng.uniform(0, 1)) if rng.random() < 0.4 else 0.0,
        overlap=bool(rng.random() < 0.3),
        carbon=float(rng.uniform(0.03, 0.3)) if rng.random() < 0.35 and not is_film else 0.0,
        dim=float(rng.uniform(0.08, 0.35)) if rng.random() < 0.25 else 0.0,
        neighbours=neighbours,
    )


def sample(recipe: SampleRecipe, rng: np.random.Generator) -> Sample:
    """Return a sample made by a recipe."""
    shape = recipe.shape
    outside = np.full(shape, FAR, np.float32)
    SUPPORTS[recipe.support](outside, recipe, np.zeros(3), rng)
    solid = coverage(outside)
    support = solid.copy()
    if recipe.pores:
        _cut_pores(support, solid, recipe, rng)
    for _ in range(recipe.neighbours):
        _add_neighbour(support, recipe, rng)
    particles, covered, bright = _particles(support, recipe, rng)
    density = support * (1 + recipe.texture * _noise(shape, recipe.texture_px, rng) if recipe.texture else 1)
    density = np.maximum(density, 0) * (1 - covered) + bright
    labels = np.where(support >= 0.5, np.uint8(SUPPORT), np.uint8(BACKGROUND))
    labels[covered >= 0.5] = PARTICLE
    for level, kind in ((recipe.carbon, "carbon"), (recipe.dim, "dim")):
        if level:
            faint = coverage(_carbon(recipe, rng) if kind == "carbon" else _dim(recipe, rng))
            density += level * faint * (1 - np.clip(support + covered, 0, 1))
    return Sample(np.asarray(density, np.float32), labels, particles)


# --- bodies ---


def _near(shape: Shape, centre: NDArray[np.float64], radius: float) -> tuple[tuple[slice, ...], list[Floats]]:
    """Return the voxels within a cube around a place from the middle of a box, and their distances along each axis."""
    middle = centre + (np.array(shape) - 1) / 2
    low = np.clip(np.floor(middle - radius).astype(int), 0, shape)
    high = np.clip(np.ceil(middle + radius).astype(int) + 1, 0, shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    axes = [np.arange(s.start, s.stop, dtype=np.float32) - np.float32(m) for s, m in zip(box, middle, strict=True)]
    return box, [axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]]


def _add(outside: Floats, box: tuple[slice, ...], signed: Floats) -> None:
    np.minimum(outside[box], signed, out=outside[box])


def _ball(outside: Floats, centre: NDArray[np.float64], radius: float) -> None:
    box, (z, y, x) = _near(outside.shape, centre, radius + 2)
    _add(outside, box, np.sqrt(z**2 + y**2 + x**2) - np.float32(radius))


def _convex(
    outside: Floats, centre: NDArray[np.float64], normals: NDArray[np.float64], distances: NDArray[np.float64]
) -> None:
    """Add a convex body given by the normals (n, 3) of its faces and their distances (n,) from its centre."""
    reach = float(distances.max()) * 1.8 + 2
    box, (z, y, x) = _near(outside.shape, centre, reach)
    signed = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), -FAR, np.float32)
    for (nz, ny, nx), distance in zip(normals.astype(np.float32), distances, strict=True):
        np.maximum(signed, nz * z + ny * y + nx * x - np.float32(distance), out=signed)
    _add(outside, box, signed)


def _rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.asarray(np.linalg.qr(rng.standard_normal((3, 3)))[0])


CUBE = np.concatenate([np.eye(3), -np.eye(3)])
OCTAHEDRON = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) / np.sqrt(3)
HEXAGON = np.array([[0, np.cos(t), np.sin(t)] for t in np.arange(6) * np.pi / 3])
ENDS = np.array([[1.0, 0, 0], [-1.0, 0, 0]])


def _prism(outside: Floats, centre: NDArray[np.float64], half: float, radius: float, rng: np.random.Generator) -> None:
    """Add a six-sided prism of random direction: half its height, and the distance of its sides."""
    turn = _rotation(rng)
    distances = np.concatenate([[half, half], radius * rng.uniform(0.75, 1.0, 6)])
    _convex(outside, centre, np.concatenate([ENDS, HEXAGON]) @ turn, distances)


def _capsule(outside: Floats, centre: NDArray[np.float64], along: NDArray[np.float64], radius: float) -> None:
    """Add a rod with round ends: `along` is half of it."""
    half = float(np.linalg.norm(along))
    box, (z, y, x) = _near(outside.shape, centre, half + radius + 2)
    a = (along / max(half, 1e-9)).astype(np.float32)
    t = np.clip(a[0] * z + a[1] * y + a[2] * x, -half, half)
    signed = np.sqrt((z - t * a[0]) ** 2 + (y - t * a[1]) ** 2 + (x - t * a[2]) ** 2) - np.float32(radius)
    _add(outside, box, signed)


def _noise(shape: Shape, sigma: float, rng: np.random.Generator) -> Floats:
    """Return smooth noise of standard deviation 1."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="wrap")
    return np.asarray(field / max(float(field.std()), 1e-9), np.float32)


def _within(recipe: SampleRecipe, rng: np.random.Generator, share: float = 0.6) -> NDArray[np.float64]:
    """Draw a place within the reach of a support: along the tilt axis anywhere, as samples go on beyond the frame."""
    place = rng.normal(0, 0.45, 3) * recipe.reach * share
    place[1] = rng.uniform(-0.6, 0.6) * recipe.shape[1]
    return np.asarray(place)


# --- supports: each adds itself around a centre ---

Support = Callable[[Floats, SampleRecipe, NDArray[np.float64], np.random.Generator], None]


def _plates(outside: Floats, recipe: SampleRecipe, centre: NDArray[np.float64], rng: np.random.Generator) -> None:
    for _ in range(rng.integers(2, 9)):
        half = float(np.exp(rng.uniform(np.log(1.8), np.log(9.0))))
        _prism(outside, centre + _within(recipe, rng), half, recipe.reach * rng.uniform(0.4, 1.0), rng)


def _spheres(outside: Floats, recipe: SampleRecipe, centre: NDArray[np.float64], rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 7)):
        _ball(outside, centre + _within(recipe, rng), recipe.reach * rng.uniform(0.3, 0.8))


def _rods(outside: Floats, recipe: SampleRecipe, centre: NDArray[np.float64], rng: np.random.Generator) -> None:
    for _ in range(rng.integers(2, 12)):
        place, direction = centre + _within(recipe, rng), rng.standard_normal(3)
        along = direction / np.linalg.norm(direction) * recipe.reach * rng.uniform(0.5, 1.1)
        radius = recipe.reach * rng.uniform(0.06, 0.22)
        if rng.random() < 0.5:
            _capsule(outside, place, along, radius)
        else:
            _prism(outside, place, float(np.linalg.norm(along)), radius, rng)


def _aggregate(outside: Floats, recipe: SampleRecipe, centre: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Grow a chain-like aggregate: each ball touches one that is there."""
    radius = recipe.reach * rng.uniform(0.1, 0.25)
    places = [centre + _within(recipe, rng, 0.3)]
    for _ in range(int(rng.integers(15, 70))):
        direction = rng.standard_normal(3)
        step = direction / np.linalg.norm(direction) * radius * rng.uniform(1.3, 1.9)
        place = places[int(rng.integers(len(places)))] + step
        if np.hypot(place[0], place[2] - centre[2]) < recipe.reach:
            places.append(place)
    for place in places:
        _ball(outside, place, radius * rng.uniform(0.75, 1.2))


def _film(outside: Floats, recipe: SampleRecipe, _centre: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Lay a film through the box, nearly across the beam, with uneven faces."""
    half = float(rng.uniform(4, 14))
    slope = np.tan(np.deg2rad(rng.uniform(-6, 6, 2)))
    nz, ny, nx = outside.shape
    y, x = np.arange(ny)[:, None] - (ny - 1) / 2, np.arange(nx)[None, :] - (nx - 1) / 2
    level = slope[0] * y + slope[1] * x
    rough = rng.uniform(0, 2.5) * _noise((1, ny, nx), rng.uniform(4, 12), rng)[0]
    z = np.arange(nz)[:, None, None] - (nz - 1) / 2
    np.minimum(outside, np.asarray(np.abs(z - level) - half + rough, np.float32), out=outside)


def _porous(outside: Floats, recipe: SampleRecipe, centre: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Make a sponge: a body less a random field above a level."""
    body = np.full_like(outside, FAR)
    if rng.random() < 0.5:
        _spheres(body, recipe, centre, rng)
    else:
        _faceted(body, recipe, centre, rng)
    sigma = float(rng.uniform(2.0, 6.0))
    field = _noise(outside.shape, sigma, rng)
    # Near a level, a smooth field of this width changes by 1 over about sigma.
    holes = sigma * (np.float32(rng.uniform(-0.3, 0.7)) - field)
    np.minimum(outside, np.maximum(body, -holes), out=outside)


def _faceted(outside: Floats, recipe: SampleRecipe, centre: NDArray[np.float64], rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 5)):
        faces = CUBE if rng.random() < 0.5 else OCTAHEDRON
        faces = np.concatenate([CUBE, OCTAHEDRON]) if rng.random() < 0.3 else faces
        size = recipe.reach * rng.uniform(0.35, 0.8)
        distances = size * rng.uniform(0.8, 1.1, len(faces))
        _convex(outside, centre + _within(recipe, rng), faces @ _rotation(rng), distances)


SUPPORTS: dict[str, Support] = {
    "plates": _plates,
    "spheres": _spheres,
    "rods": _rods,
    "aggregate": _aggregate,
    "film": _film,
    "porous": _porous,
    "faceted": _faceted,
}


def _cut_pores(support: Floats, solid: Floats, recipe: SampleRecipe, rng: np.random.Generator) -> None:
    """Cut cavities into a support: balls, and channels of two balls and what lies between."""
    inside = np.argwhere(solid[::2, ::2, ::2] > 0.99) * 2
    if not len(inside):
        return
    middle = (np.array(solid.shape) - 1) / 2
    cavities = np.full(solid.shape, FAR, np.float32)
    most = int(MOST_CUT * float(solid.sum()) / (4 / 3 * np.pi * recipe.pore_px**3))
    for place in inside[rng.integers(len(inside), size=min(recipe.pores, max(most, 1)))] - middle:
        radius = recipe.pore_px * float(np.exp(rng.normal(0, 0.35)))
        if rng.random() < 0.3:
            direction = rng.standard_normal(3)
            _capsule(cavities, place, direction * radius * rng.uniform(0.5, 3) / np.linalg.norm(direction), radius)
        else:
            _ball(cavities, place, radius)
    support *= 1 - coverage(cavities)


def _add_neighbour(support: Floats, recipe: SampleRecipe, rng: np.random.Generator) -> None:
    """Add a body of the same kind that the frame cuts."""
    side = 1 if rng.random() < 0.5 else -1
    centre = np.array([rng.normal(0, 0.3) * recipe.reach, 0.0, side * recipe.seen * rng.uniform(0.45, 0.75)])
    outside = np.full(support.shape, FAR, np.float32)
    kind = "faceted" if recipe.support == "film" else recipe.support
    SUPPORTS[kind](outside, recipe, centre, rng)
    np.maximum(support, coverage(outside), out=support)


def _carbon(recipe: SampleRecipe, rng: np.random.Generator) -> Floats:
    """Return a thin film beside the support."""
    nz, ny, nx = recipe.shape
    slope = np.tan(np.deg2rad(rng.uniform(-15, 15, 2)))
    y, x = np.arange(ny)[:, None] - (ny - 1) / 2, np.arange(nx)[None, :] - (nx - 1) / 2
    level = slope[0] * y + slope[1] * x + rng.choice((-1, 1)) * recipe.reach * rng.uniform(0.5, 1.0)
    z = np.arange(nz)[:, None, None] - (nz - 1) / 2
    return np.asarray(np.abs(z - level) - rng.uniform(1.5, 5.0), np.float32)


def _dim(recipe: SampleRecipe, rng: np.random.Generator) -> Floats:
    """Return thin plates beside the support."""
    outside = np.full(recipe.shape, FAR, np.float32)
    for _ in range(rng.integers(1, 5)):
        place = rng.normal(0, 0.8, 3) * recipe.reach
        _prism(outside, place, float(rng.uniform(1.5, 6.0)), recipe.reach * rng.uniform(0.3, 0.9), rng)
    return outside


# --- particles ---


def _particles(
    support: Floats, recipe: SampleRecipe, rng: np.random.Generator
) -> tuple[NDArray[np.float64], Floats, Floats]:
    """Place particles; return them, the part of each voxel that they cover, and that times their density."""
    shape = recipe.shape
    covered, bright = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    placed: list[tuple[float, float, float, float]] = []
    surface = np.argwhere((support > 0.25) & (support < 0.75))
    deep = np.argwhere(support[::2, ::2, ::2] > 0.99) * 2
    if not len(surface) or not recipe.n_particles:
        return np.empty((0, 4)), covered, bright
    smooth = ndimage.gaussian_filter(support, 1.5)
    diameters = recipe.diameter_px * np.exp(recipe.spread * np.clip(rng.standard_normal(recipe.n_particles), -2, 2))
    room = MOST_FILLED * float(support.sum())
    for diameter in np.sort(diameters)[::-1]:
        for _ in range(TRIES):
            hidden = len(deep) > 0 and rng.random() < recipe.inside
            site = (deep if hidden else surface)[int(rng.integers(len(deep if hidden else surface)))].astype(float)
            if not hidden:
                site += _outwards(smooth, site) * diameter * rng.uniform(-0.25, 0.45)
            if recipe.overlap or _is_free(site, float(diameter), placed):
                break
        else:
            continue
        room -= 0.52 * float(diameter) ** 3
        if room < 0 and placed:
            break
        placed.append((*site, float(diameter)))
        _draw(covered, bright, site - (np.array(shape) - 1) / 2, float(diameter), recipe, rng)
    return np.array(placed).reshape(-1, 4), covered, bright


def _outwards(smooth: Floats, site: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the direction away from the support at a voxel."""
    at = site.astype(int)
    normal = np.zeros(3)
    for axis in range(3):
        low, high = at.copy(), at.copy()
        low[axis], high[axis] = max(at[axis] - 1, 0), min(at[axis] + 1, smooth.shape[axis] - 1)
        normal[axis] = float(smooth[tuple(low)] - smooth[tuple(high)])
    return normal / max(float(np.linalg.norm(normal)), 1e-9)


def _is_free(site: NDArray[np.float64], diameter: float, placed: list[tuple[float, float, float, float]]) -> bool:
    if not placed:
        return True
    others = np.array(placed)
    distance = np.linalg.norm(others[:, :3] - site, axis=1)
    return bool((distance >= (others[:, 3] + diameter) / 2 + 1.5).all())


def _draw(
    covered: Floats,
    bright: Floats,
    centre: NDArray[np.float64],
    diameter: float,
    recipe: SampleRecipe,
    rng: np.random.Generator,
) -> None:
    """Draw a particle of the recipe's shape and of this diameter (of a ball of the same volume, about)."""
    radius, kind = diameter / 2, recipe.particle_shape
    box, _ = _near(covered.shape, centre, 2.6 * radius + 3)
    outside = np.full(covered[box].shape, FAR, np.float32)
    if not outside.size:
        return
    place = centre + (np.array(covered.shape) - 1) / 2
    local = place - [s.start for s in box] - (np.array(outside.shape) - 1) / 2  # from the middle of the cube
    if kind == "cuboctahedron":
        faces = np.concatenate([CUBE, OCTAHEDRON])
        distances = radius * np.concatenate([np.full(6, 1.0), np.full(8, 0.92)]) * rng.uniform(0.92, 1.05, 14)
        _convex(outside, local, faces @ _rotation(rng), distances)
    elif kind == "rod":
        ratio, direction = rng.uniform(1.5, 3.0), rng.standard_normal(3)
        thin = radius * float((2 / (3 * ratio - 1)) ** (1 / 3))
        _capsule(outside, local, direction / np.linalg.norm(direction) * thin * (ratio - 1), thin)
    elif kind == "raft":
        half = max(1.0, 0.35 * radius)
        _prism(outside, local, half, radius * 1.2, rng)
    else:
        _ball(outside, local, radius)
    part = coverage(outside)
    density = recipe.contrast * float(rng.uniform(0.9, 1.1))
    level = np.full(part.shape, density, np.float32)
    if kind == "core-shell":
        core = np.full(part.shape, FAR, np.float32)
        _ball(core, local, 0.65 * radius)
        shell = max(1.25, density * float(rng.uniform(0.5, 0.8)))
        level = shell + (density - shell) * coverage(core)
    more = np.maximum(part - covered[box], 0)
    covered[box] += more
    bright[box] += more * level
