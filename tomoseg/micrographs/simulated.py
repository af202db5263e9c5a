"""Simulated micrographs with known truth: particles on a support, as HAADF-STEM or bright-field TEM shows them.

A `Recipe` says what is in the picture; `random_recipe` draws one, `simulated_micrograph` renders it. Lengths are in px,
thicknesses too (a sphere of diameter d is d px thick in its middle).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.arrays import Array, BoolArray, FloatArray
from tomoseg.errors import InputError
from tomoseg.micrographs.supports import Support, smooth_noise, support_thickness

Mode = Literal["HAADF", "BF"]
Shape = Literal["round", "faceted", "elongated", "mixed"]
SUPPORTS: tuple[Support, ...] = ("film", "clouds", "plates", "grains", "crumpled", "holey")
SHAPES: tuple[Shape, ...] = ("round", "faceted", "elongated", "mixed")
SMALLEST_PX, LARGEST_PX = 3.0, 60.0
FINE = 4  # points per px and axis at which outlines are rendered
LEAST_SEEN = 0.55  # part of its outline that a particle shows when others lie over it
ROSE = 6.0  # signal-to-noise ratio of the faintest particle; A. Rose found that 5 is needed to see one
LEAST_COUNTS = 5.0  # per px of the support
TRIES = 60  # places tried for a particle before it is given up
PARTICLE = np.dtype([("y", "f8"), ("x", "f8"), ("diameter_px", "f8"), ("touches_border", "?"), ("snr", "f8")])


@dataclass(frozen=True)
class Recipe:
    """What is in a simulated micrograph.

    Attributes
    ----------
    n_particles : asked for; fewer are placed where there is no room
    median_px, spread : of the log-normal diameters: median, and standard deviation of the logarithm
    crowded : part of the particles that are put beside another one, where they touch or overlap
    overlap : distance of such a neighbour's centre from the other's, in sums of their radii: 1 touches
    contrast : of a particle per px of thickness, to that of the support
    step : thickness that the edge of a particle has at once, as a part of its radius: 0 for a sphere
    texture : standard deviation of the support's fine structure, as a part of its thickness
    least_snr : the dose is such that the smaller particles (10th percentile) have this ratio to the noise of counts,
        and the support `LEAST_COUNTS` per px
    blur_px : standard deviation of the blur of scan or camera, before noise
    fringe : strength of the bright rim by defocus (BF)
    diffraction : standard deviation of the logarithm of a particle's darkness (BF)
    uneven : relative range of the illumination across the image
    support_scale : size of the support's structures, relative to the plain ones
    depth_blur : standard deviation of the blur of particles that lie out of focus, as a part of their diameter
    fainter : standard deviation of the logarithm by which particles are thinner than their outline says
    grain, grain_px : standard deviation of the phase contrast of amorphous material (BF), as a part of its brightness,
        and width of its structures
    faintest : signal-to-noise ratio below which particles are left out, as nobody could say where they are
    pitch : distance of the particles of a layer in which they are packed, in median diameters; 0 for no such layer.
        `n_particles`, `crowded` and `overlap` say nothing of a layer
    """

    mode: Mode = "HAADF"
    shape: tuple[int, int] = (512, 512)
    support: Support = "film"
    particle_shape: Shape = "round"
    n_particles: int = 80
    median_px: float = 14.0
    spread: float = 0.25
    crowded: float = 0.1
    overlap: float = 0.95
    contrast: float = 6.0
    step: float = 0.3
    texture: float = 0.05
    least_snr: float = 20.0
    blur_px: float = 0.8
    fringe: float = 0.0
    diffraction: float = 0.0
    uneven: float = 0.0
    support_scale: float = 1.0
    depth_blur: float = 0.0
    fainter: float = 0.0
    grain: float = 0.0
    grain_px: float = 3.0
    faintest: float = ROSE
    pitch: float = 0.0


@dataclass(frozen=True)
class SimulatedMicrograph:
    """A micrograph and its truth.

    Attributes
    ----------
    image : (y, x) f4, counts
    labels : (y, x) i4, the particle that each pixel shows, 0 where none; where two overlap, the thicker one
    particles : structured array of `PARTICLE`, row k of label k + 1: centre, diameter of the circle of the area of the
        whole outline (also of what lies under another or beyond the frame), and the signal-to-noise ratio: mean
        contrast over the scatter of counts and of the support's structure, both averaged over its area
    polarity : whether particles are brighter or darker than the support
    """

    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    particles: NDArray[Any]
    polarity: Literal["bright", "dark"]
    recipe: Recipe


@dataclass(frozen=True)
class _Stamp:
    """A particle: its thickness (h, w) and the part of each px that its outline covers, at `top`, `left`."""

    top: int
    left: int
    thickness: FloatArray
    covered: FloatArray
    y: float
    x: float
    diameter_px: float
    darkness: float


def random_recipe(seed: int, mode: Mode | None = None, shape: tuple[int, int] = (512, 512)) -> Recipe:
    """Draw a recipe; the same seed gives the same one. `mode` is drawn too unless it is given."""
    rng = np.random.default_rng([seed, 1])
    drawn: Mode = "HAADF" if rng.random() < 0.5 else "BF"
    median = float(np.exp(rng.uniform(np.log(6), np.log(32))))
    coverage = rng.uniform(0.02, 0.14)
    n = int(np.clip(coverage * shape[0] * shape[1] / (np.pi / 4 * median**2), 12, 400))
    return Recipe(
        mode=mode or drawn,
        shape=shape,
        support=SUPPORTS[rng.integers(len(SUPPORTS))],
        particle_shape=SHAPES[rng.integers(len(SHAPES))],
        n_particles=n,
        median_px=median,
        spread=float(rng.uniform(0.12, 0.35)),
        crowded=float(rng.uniform(0, 0.3)),
        overlap=float(rng.uniform(0.75, 1.05)),
        contrast=float(np.exp(rng.uniform(np.log(3), np.log(15)))),
        step=float(rng.uniform(0, 0.8)),
        texture=float(rng.uniform(0.01, 0.08)),
        least_snr=float(np.exp(rng.uniform(np.log(9), np.log(90)))),
        blur_px=float(rng.uniform(0.5, 1.2)),
        fringe=float(rng.uniform(0, 0.6)),
        diffraction=float(rng.uniform(0, 0.35)),
        uneven=float(rng.uniform(0, 0.3)),
    )


def simulated_micrograph(recipe: Recipe, seed: int = 0) -> SimulatedMicrograph:
    """Render a recipe; the same seed gives the same image.

    Raises
    ------
    InputError
        The image is smaller than 32 px, or a diameter is not positive.
    """
    if min(recipe.shape) < 32 or recipe.median_px <= 0:
        raise InputError(
            f"An image of {recipe.shape[0]} x {recipe.shape[1]} px with particles of {recipe.median_px} px cannot be "
            "simulated; use 32 px or more, and diameters above 0."
        )
    support = _support(recipe, seed)
    place = _packed if recipe.pitch > 0 else _placed
    stamps = place(recipe, support, np.random.default_rng([seed, 3]))
    stamps = _in_depth(recipe, stamps, np.random.default_rng([seed, 7]))
    labels = _seen(stamps, recipe.shape)
    signal = _signal(recipe, support, stamps, seed)
    bare = _signal(recipe, support, [], seed)
    smooth = _signal(replace(recipe, texture=0.0), support, [], seed)
    least = LEAST_COUNTS / float(np.median(bare))
    dose, snr = _dose(recipe, _contrasts(signal, bare, bare - smooth, labels, len(stamps)), least)
    if not (snr >= recipe.faintest).all():
        stamps = [stamp for stamp, ratio in zip(stamps, snr, strict=True) if ratio >= recipe.faintest]
        snr = snr[snr >= recipe.faintest]
        labels = _seen(stamps, recipe.shape)
        signal = _signal(recipe, support, stamps, seed)
    counts = np.random.default_rng([seed, 4]).poisson(np.maximum(signal, 0) * dose).astype(np.float32)
    polarity: Literal["bright", "dark"] = "bright" if recipe.mode == "HAADF" else "dark"
    return SimulatedMicrograph(counts, labels, _table(stamps, recipe.shape, snr), polarity, recipe)


def support_alone(recipe: Recipe, seed: int = 0, dose: float = 100.0) -> NDArray[np.float32]:
    """Return an image (y, x) f4 of the support of a recipe without particles, at `dose` counts per unit of signal."""
    support = _support(recipe, seed)
    signal = _signal(recipe, support, [], seed)
    return np.random.default_rng([seed, 4]).poisson(np.maximum(signal, 0) * dose).astype(np.float32)


# ------------------------------------------------------------------------------------------------ particles


def _support(recipe: Recipe, seed: int) -> FloatArray:
    return support_thickness(recipe.support, recipe.shape, recipe.support_scale, np.random.default_rng([seed, 2]))


def _placed(recipe: Recipe, support: FloatArray, rng: np.random.Generator) -> list[_Stamp]:
    """Place particles on the support, the largest first; some touch or overlap, the others keep 2 px apart."""
    spread = np.clip(rng.standard_normal(recipe.n_particles), -2.5, 2.5) * recipe.spread
    diameters = np.sort(np.clip(recipe.median_px * np.exp(spread), SMALLEST_PX, LARGEST_PX))[::-1]
    there = support > 0.15 * float(np.percentile(support, 95))
    stamps: list[_Stamp] = []
    shown: list[float] = []
    labels = np.zeros(recipe.shape, np.int32)
    thickest = np.zeros(recipe.shape)
    for diameter in diameters:
        beside = rng.random() < recipe.crowded and len(stamps) > 0
        for _ in range(TRIES):
            y, x = _a_place(recipe, diameter, stamps if beside else [], rng)
            gap = recipe.overlap - 0.02 if beside else 1.0
            if not (_on(there, y, x) and _free(stamps, y, x, diameter, gap, 0.0 if beside else 3.0)):
                continue
            stamp = _stamp(recipe, y, x, diameter, rng)
            if _shown(stamp, recipe.shape) and not _hides(stamp, len(stamps), labels, thickest, shown):
                _add(stamp, len(stamps), labels, thickest, shown)
                stamps.append(stamp)
                break
    return stamps


def _packed(recipe: Recipe, support: FloatArray, rng: np.random.Generator) -> list[_Stamp]:
    """Place particles in a hexagonal layer with faults, which covers a part of the frame."""
    apart = recipe.pitch * recipe.median_px
    n = int(np.ceil(np.hypot(*recipe.shape) / apart)) + 1
    i, j = (k.ravel() for k in np.mgrid[-n : n + 1, -n : n + 1])
    angle = rng.uniform(0, np.pi / 3)
    u, v = apart * (j + 0.5 * (i % 2)), apart * np.sqrt(0.75) * i
    sites = np.stack([v * np.cos(angle) + u * np.sin(angle), u * np.cos(angle) - v * np.sin(angle)], axis=1)
    sites += np.array(recipe.shape) / 2 + rng.normal(0, 0.05 * apart, sites.shape)
    reach = recipe.median_px / 2
    sites = sites[((sites > -reach) & (sites < np.array(recipe.shape) + reach)).all(axis=1)]
    covered = smooth_noise(recipe.shape, 12 * apart, rng) > rng.uniform(-2, 0.8)
    there = covered & (support > 0.15 * float(np.percentile(support, 95)))
    stamps: list[_Stamp] = []
    shown: list[float] = []
    labels = np.zeros(recipe.shape, np.int32)
    thickest = np.zeros(recipe.shape)
    for y, x in sites:
        size = recipe.median_px * np.exp(recipe.spread * np.clip(rng.standard_normal(), -2.5, 2.5))
        stamp = _stamp(recipe, float(y), float(x), float(np.clip(size, SMALLEST_PX, LARGEST_PX)), rng)
        is_there = rng.random() > 0.05 and _on(there, y, x) and _shown(stamp, recipe.shape)
        if is_there and not _hides(stamp, len(stamps), labels, thickest, shown):
            _add(stamp, len(stamps), labels, thickest, shown)
            stamps.append(stamp)
    return stamps


def _a_place(recipe: Recipe, diameter: float, others: list[_Stamp], rng: np.random.Generator) -> tuple[float, float]:
    if not others:
        y, x = (rng.uniform(-0.4 * diameter, n - 1 + 0.4 * diameter) for n in recipe.shape)
        return y, x
    other = others[rng.integers(len(others))]
    reach, angle = recipe.overlap * (diameter + other.diameter_px) / 2, rng.uniform(0, 2 * np.pi)
    return other.y + reach * np.sin(angle), other.x + reach * np.cos(angle)


def _on(there: BoolArray, y: float, x: float) -> bool:
    row, column = (int(np.clip(round(v), 0, n - 1)) for v, n in zip((y, x), there.shape, strict=True))
    return bool(there[row, column])


def _free(stamps: list[_Stamp], y: float, x: float, diameter: float, part: float, gap_px: float) -> bool:
    """Tell whether no centre is nearer than `part` of the sum of the radii, and `gap_px` (faceted: outlines vary)."""
    if not stamps:
        return True
    places = np.array([(s.y, s.x, s.diameter_px) for s in stamps])
    distance = np.hypot(places[:, 0] - y, places[:, 1] - x)
    wider = 1.0 if gap_px == 0 else 1.25
    return bool((distance >= part * wider * (places[:, 2] + diameter) / 2 + gap_px).all())


def _stamp(recipe: Recipe, y: float, x: float, diameter: float, rng: np.random.Generator) -> _Stamp:
    """Render a particle at `FINE` points per px; its thickness is that of its shape plus the step at its edge."""
    kind = recipe.particle_shape
    if kind == "mixed":
        kind = SHAPES[rng.integers(3)]
    reach = int(np.ceil(diameter)) + 2
    top, left = int(np.floor(y)) - reach, int(np.floor(x)) - reach
    points = (np.arange((2 * reach + 1) * FINE) + 0.5) / FINE - 0.5
    dy, dx = points[:, None] + top - y, points[None, :] + left - x
    turn = rng.uniform(0, np.pi)
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    radius = diameter / 2
    if kind == "faceted":
        height = _faceted(u, v, radius, rng)
    else:
        aspect = rng.uniform(1.4, 2.2) if kind == "elongated" else rng.uniform(1, 1.12)
        inside = 1 - (u / radius / np.sqrt(aspect)) ** 2 - (v / radius * np.sqrt(aspect)) ** 2
        height = 2 * radius / np.sqrt(aspect) * np.sqrt(np.maximum(inside, 0))
    outline = height > 0
    area = outline.sum() / FINE**2
    darkness = float(np.exp(recipe.diffraction * np.clip(rng.standard_normal(), -2, 2)))
    height = height + recipe.step * radius * outline
    return _Stamp(top, left, _binned(height), _binned(outline), y, x, float(np.sqrt(4 * area / np.pi)), darkness)


def _in_depth(recipe: Recipe, stamps: list[_Stamp], rng: np.random.Generator) -> list[_Stamp]:
    """Return the particles thinner, and blurred as those are that lie out of focus; their outlines stay."""
    out = []
    for stamp in stamps:
        thinner, far = np.exp(-recipe.fainter * abs(rng.standard_normal())), min(abs(rng.standard_normal()), 2)
        sigma = recipe.depth_blur * far * stamp.diameter_px
        thickness = stamp.thickness * thinner
        out.append(replace(stamp, thickness=ndimage.gaussian_filter(thickness, sigma) if sigma > 0 else thickness))
    return out


def _faceted(u: FloatArray, v: FloatArray, radius: float, rng: np.random.Generator) -> FloatArray:
    """Return the thickness of a truncated pyramid of five to eight sides with a flat top, of about this radius."""
    sides = int(rng.integers(5, 9))
    inside = np.full(np.broadcast_shapes(u.shape, v.shape), np.inf)
    for angle in np.arange(sides) * 2 * np.pi / sides:
        np.minimum(inside, radius * rng.uniform(0.85, 1.05) - u * np.cos(angle) - v * np.sin(angle), out=inside)
    slope = rng.uniform(2, 5)  # facets at 55 degrees above and below: 2 tan(55 degrees) = 2.9
    return np.asarray(np.where(inside > 0, np.minimum(slope * inside, 1.4 * radius), 0.0))


def _binned(fine: Array) -> FloatArray:
    n, m = (k // FINE for k in fine.shape)
    return np.asarray(fine.reshape(n, FINE, m, FINE).mean(axis=(1, 3), dtype=np.float64))


def _windows(stamp: _Stamp, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a stamp lies in an image, and the part of the stamp that does."""
    image, part = [], []
    for start, n, size in zip((stamp.top, stamp.left), stamp.covered.shape, shape, strict=True):
        low, high = max(start, 0), max(min(start + n, size), start, 0)
        image.append(slice(low, high))
        part.append(slice(low - start, high - start))
    return (image[0], image[1]), (part[0], part[1])


def _shown(stamp: _Stamp, shape: tuple[int, int]) -> bool:
    """Tell whether enough of a particle lies in the frame to be seen."""
    _, part = _windows(stamp, shape)
    return bool((stamp.covered[part] >= 0.5).sum() >= max(4, 0.15 * stamp.covered.sum()))


def _hides(stamp: _Stamp, n: int, labels: Array, thickest: Array, shown: list[float]) -> bool:
    """Tell whether a particle would hide too much of another one, or be hidden itself."""
    where, part = _windows(stamp, labels.shape)
    outline = stamp.covered[part] >= 0.5
    wins = outline & (stamp.thickness[part] > thickest[where])
    if wins.sum() < LEAST_SEEN * outline.sum():
        return True
    lost = np.bincount(labels[where][wins], minlength=n + 1)[1:]
    return any(lost[k] and shown[k] - lost[k] < LEAST_SEEN * _area_in(labels, k, shown) for k in range(n))


def _area_in(labels: Array, k: int, shown: list[float]) -> float:
    return max(shown[k], float((labels == k + 1).sum()))


def _add(stamp: _Stamp, n: int, labels: Array, thickest: Array, shown: list[float]) -> None:
    where, part = _windows(stamp, labels.shape)
    wins = (stamp.covered[part] >= 0.5) & (stamp.thickness[part] > thickest[where])
    labels[where][wins] = n + 1
    np.maximum(thickest[where], stamp.thickness[part], out=thickest[where])
    shown.append(float((stamp.covered[part] >= 0.5).sum()))


def _seen(stamps: list[_Stamp], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Return the labels (y, x): of the thickest particle at each px."""
    labels, thickest, shown = np.zeros(shape, np.int32), np.zeros(shape), list[float]()
    for k, stamp in enumerate(stamps):
        _add(stamp, k, labels, thickest, shown)
    return labels


def _table(stamps: list[_Stamp], shape: tuple[int, int], snr: FloatArray) -> NDArray[Any]:
    table = np.zeros(len(stamps), PARTICLE)
    for row, stamp, ratio in zip(table, stamps, snr, strict=True):
        _, part = _windows(stamp, shape)
        row["y"], row["x"], row["diameter_px"], row["snr"] = stamp.y, stamp.x, stamp.diameter_px, ratio
        whole = stamp.covered >= 0.5
        inner = whole[part].sum()
        rows, columns = np.nonzero(whole)
        y, x = rows + stamp.top, columns + stamp.left
        at_edge = (y <= 0) | (x <= 0) | (y >= shape[0] - 1) | (x >= shape[1] - 1)
        row["touches_border"] = inner < whole.sum() or bool(at_edge.any())
    return table


# ------------------------------------------------------------------------------------------------ images


def _textured(recipe: Recipe, support: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Add the fine structure of amorphous material, a few px wide, to the thickness of the support."""
    fine = smooth_noise(recipe.shape, 2.0, rng) + 0.5 * smooth_noise(recipe.shape, 5.0, rng)
    return np.asarray(np.maximum(support + recipe.texture * support * fine, 0))


def _haadf(recipe: Recipe, support: FloatArray, stamps: list[_Stamp], rng: np.random.Generator) -> FloatArray:
    """Return the signal (y, x): it grows with the thickness, of particles by a factor more, over a dark level."""
    thickness = np.zeros(recipe.shape)
    for stamp in stamps:
        where, part = _windows(stamp, recipe.shape)
        thickness[where] += stamp.thickness[part]
    return np.asarray(3.0 + _textured(recipe, support, rng) + recipe.contrast * thickness)


def _bright_field(recipe: Recipe, support: FloatArray, stamps: list[_Stamp], rng: np.random.Generator) -> FloatArray:
    """Return the signal (y, x): it falls with the thickness by Beer's law, with the rim that defocus adds."""
    absorbed = 0.004 * _textured(recipe, support, rng)
    middle = max(recipe.median_px, SMALLEST_PX)
    for stamp in stamps:
        where, part = _windows(stamp, recipe.shape)
        absorbed[where] += 0.05 * recipe.contrast * stamp.darkness * stamp.thickness[part] / middle
    through = np.exp(-absorbed)
    if recipe.grain > 0:
        width = recipe.grain_px
        fine = smooth_noise(recipe.shape, width, rng) - 0.6 * smooth_noise(recipe.shape, 7 / 3 * width, rng)
        through *= np.maximum(1 + recipe.grain * fine * np.tanh(absorbed / 0.1), 0)
    if recipe.fringe > 0:
        width = 1.5
        through += recipe.fringe * (through - ndimage.gaussian_filter(through, width, mode="reflect"))
    return np.asarray(through)


def _illumination(recipe: Recipe, rng: np.random.Generator) -> FloatArray:
    """Return the relative brightness (y, x) of a tilted, vignetted illumination."""
    y, x = np.ogrid[-1 : 1 : recipe.shape[0] * 1j, -1 : 1 : recipe.shape[1] * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    tilt = (y * np.sin(angle) + x * np.cos(angle)) / 2
    return np.asarray(1 + recipe.uneven * (0.5 * tilt - 0.25 * (y**2 + x**2)))


def _signal(recipe: Recipe, support: FloatArray, stamps: list[_Stamp], seed: int) -> FloatArray:
    """Return the signal (y, x) before noise; structure and illumination do not depend on the particles."""
    make = _haadf if recipe.mode == "HAADF" else _bright_field
    rng = np.random.default_rng([seed, 5])
    signal = ndimage.gaussian_filter(make(recipe, support, stamps, rng), recipe.blur_px, mode="reflect")
    return np.asarray(signal * _illumination(recipe, np.random.default_rng([seed, 6])))


def _contrasts(signal: FloatArray, bare: FloatArray, structure: FloatArray, labels: Array, n: int) -> FloatArray:
    """Return contrast, level, area and the scatter of the support's structure (n, 4) of each particle.

    The scatter is that of the structure averaged over discs of the particle's area, around it.
    """
    out = np.ones((n, 4))
    for k, box in enumerate(ndimage.find_objects(labels, n)):
        if box is None:
            continue
        inside = labels[box] == k + 1
        area = float(inside.sum())
        margin = int(3 * np.sqrt(area))
        around = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in box)
        averaged = ndimage.gaussian_filter(structure[around], np.sqrt(area / (4 * np.pi)), mode="reflect")
        difference = abs(float((signal[box][inside] - bare[box][inside]).mean()))
        out[k] = difference, float(bare[box][inside].mean()), area, float(averaged.std())
    return out


def _dose(recipe: Recipe, contrasts: FloatArray, least: float) -> tuple[float, FloatArray]:
    """Return the counts per unit of signal, `least` or more, that give the smaller particles the ratio asked for.

    And the ratio of each.
    """
    if len(contrasts) == 0:
        return max(100.0, least), np.zeros(0)
    difference, level, area, structure = contrasts.T
    of_one = difference * np.sqrt(area / np.maximum(level, 1e-6))
    dose = max((recipe.least_snr / max(float(np.percentile(of_one, 10)), 1e-9)) ** 2, least)
    return dose, np.asarray(difference / np.sqrt(level / dose / area + structure**2))


def with_changes(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with some of its attributes changed."""
    return replace(recipe, **changes)
