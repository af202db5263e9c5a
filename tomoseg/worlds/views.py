"""How a sample is seen: a random tilt series with all that goes wrong in one, and a reconstruction of it."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import StageFailed
from tomoseg.reconstruction.api import reconstruct
from tomoseg.simulate import BACKGROUND, SUPPORT, acquire, project, tilt_angles
from tomoseg.worlds.samples import Sample, SampleRecipe, Shape, random_sample_recipe, sample

Floats = NDArray[np.float32]
Method = Literal["mlem", "sirt", "tv", "fbp"]
FILM_PX = 20.0  # that a reconstruction knows a film by; its depth is given
BEYOND = 60.0  # times the level of the support: where scaled volumes are clipped


@dataclass(frozen=True)
class ViewRecipe:
    """How a sample is seen.

    Parameters
    ----------
    max_tilt_deg, step_deg : tilts run from minus to plus the first
    dose : electrons per pixel of the object; `vacuum` those of vacuum, as a fraction
    jitter_px : standard deviation of what an alignment left of the shifts
    axis_deg, axis_px : what it left of direction and offset of the tilt axis
    hot : fraction of hot pixels
    offset : what was left of the detector's offset, as a fraction of the object's mean signal
    uneven : slow variation of the vacuum over an image, likewise
    method, iterations : of the reconstruction
    """

    max_tilt_deg: float = 70.0
    step_deg: float = 2.0
    dose: float = 200.0
    vacuum: float = 0.02
    jitter_px: float = 0.2
    axis_deg: float = 0.0
    axis_px: float = 0.0
    hot: float = 0.0
    offset: float = 0.0
    uneven: float = 0.0
    method: Method = "mlem"
    iterations: int = 25


@dataclass(frozen=True)
class World:
    """A volume as it would be reconstructed, with the truth.

    Attributes
    ----------
    volume : (z, y, x) f4, scaled as networks take it: 0 is the level of the background and 1 that of the support, the
        medians of what is either in truth
    labels : (z, y, x) u1, as in `tomoseg.simulate`
    particles : (n, 4) f8: z, y, x, diameter in px
    sample, view : how it was made
    """

    volume: Floats
    labels: NDArray[np.uint8]
    particles: NDArray[np.float64]
    sample: SampleRecipe
    view: ViewRecipe = field(default_factory=ViewRecipe)

    def described(self) -> dict[str, Any]:
        """Return how it was made, as JSON values."""
        return {"sample": asdict(self.sample), "view": asdict(self.view)}


def random_view_recipe(rng: np.random.Generator) -> ViewRecipe:
    """Draw how a sample is seen."""
    method = str(rng.choice(get_args(Method), p=(0.55, 0.2, 0.13, 0.12)))
    most = {"mlem": (6, 70), "sirt": (15, 150), "tv": (20, 60), "fbp": (1, 1)}[method]
    careless = rng.random() < 0.15  # misaligned by up to a pixel
    return ViewRecipe(
        max_tilt_deg=float(rng.uniform(50, 90)),
        step_deg=float(np.exp(rng.uniform(np.log(1.0), np.log(5.0)))),
        dose=float(np.exp(rng.uniform(np.log(12.0 if rng.random() < 0.15 else 40.0), np.log(1000.0)))),
        vacuum=float(rng.uniform(0, 0.08)),
        jitter_px=float(rng.uniform(0.4, 1.0) if careless else rng.uniform(0, 0.4)),
        axis_deg=float(rng.normal(0, 0.4) if careless else rng.normal(0, 0.1)),
        axis_px=float(rng.normal(0, 0.6) if careless else rng.normal(0, 0.15)),
        hot=float(10 ** rng.uniform(-5, -3.3)) if rng.random() < 0.2 else 0.0,
        offset=float(rng.normal(0, 0.03)) if rng.random() < 0.5 else 0.0,
        uneven=float(rng.uniform(0, 0.05)) if rng.random() < 0.3 else 0.0,
        method=method,  # type: ignore[arg-type]
        iterations=round(float(np.exp(rng.uniform(*np.log(most))))),
    )


def world(seed: int, shape: Shape = (128, 40, 128), workers: int = 1) -> World:
    """Return the world of a seed: a random sample, seen in a random way.

    The same seed gives the same world. Raises `StageFailed` where nothing can be reconstructed of what is drawn.
    """
    rng = np.random.default_rng(seed)
    sample_recipe, view_recipe = random_sample_recipe(rng, shape, shape[2]), random_view_recipe(rng)
    made = sample(sample_recipe, rng)
    return seen(made, sample_recipe, view_recipe, int(rng.integers(1 << 31)), workers)


def seen(made: Sample, sample_recipe: SampleRecipe, view: ViewRecipe, seed: int, workers: int = 1) -> World:
    """Return what a tilt series and a reconstruction show of a sample."""
    rng = np.random.default_rng(seed)
    angles = tilt_angles(view.max_tilt_deg, view.step_deg)
    width = sample_recipe.seen
    first = (made.density.shape[2] - width) // 2
    middle = slice(first, first + width)
    images = _images(project(made.density, angles, workers)[:, :, middle], view, rng)
    options: dict[str, Any] = {} if view.method == "fbp" else {"iterations": view.iterations}
    if sample_recipe.support == "film":
        options["film_thickness_px"] = FILM_PX
    volume = reconstruct(
        images, angles, method=view.method, z_size=made.density.shape[0], resolution=False, device="cpu",
        workers=workers, **options,
    ).volume  # fmt: skip
    particles = made.particles - [0, 0, first, 0]
    labels = made.labels[:, :, middle]
    return World(_scaled(volume, labels), labels, particles, sample_recipe, view)


def _images(projections: Floats, view: ViewRecipe, rng: np.random.Generator) -> Floats:
    """Return the aligned images of projections (n_tilt, y, x), less their background, as an alignment leaves them."""
    n_tilt, ny, nx = projections.shape
    shifts = rng.normal(0, view.jitter_px, (n_tilt, 2))
    raw = acquire(
        projections, shifts_px=shifts, tilt_axis_angle_deg=view.axis_deg, tilt_axis_offset_px=view.axis_px,
        dose=view.dose, vacuum=view.vacuum, counts_per_electron=1.0, black_level=0.0, dtype=np.float32,
        seed=int(rng.integers(1 << 31)),
    )  # fmt: skip
    if view.hot:
        bright = rng.random(raw.shape) < view.hot
        raw[bright] += np.float32(view.dose) * rng.uniform(1, 10, int(bright.sum())).astype(np.float32)
    background = np.full(projections.shape, view.dose * (view.vacuum + view.offset), np.float32)
    if view.uneven:
        y, x = np.linspace(-1, 1, ny)[:, None], np.linspace(-1, 1, nx)[None, :]
        slopes = rng.normal(0, view.uneven * view.dose, (n_tilt, 2, 1, 1))
        background += (slopes[:, 0] * y + slopes[:, 1] * x).astype(np.float32)
    return np.asarray(raw - background, np.float32)


def _scaled(volume: Floats, labels: NDArray[np.uint8]) -> Floats:
    """Return a volume on the scale of networks, by the levels of what is background and what is support in truth."""
    if not (labels == SUPPORT).any():
        raise StageFailed("none of the support is seen")
    background, support = (float(np.median(volume[labels == value])) for value in (BACKGROUND, SUPPORT))
    if not support > background:
        raise StageFailed(f"the support is no brighter ({support:.3g}) than the background ({background:.3g})")
    return np.asarray(np.clip((volume - background) / (support - background), -BEYOND, BEYOND), np.float32)
