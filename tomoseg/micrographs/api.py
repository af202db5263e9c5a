"""Measure one micrograph: `measure_image`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.keywords import takes_parameters
from tomoseg.micrographs.calibration import Calibration, calibrated
from tomoseg.micrographs.distribution import confidence_intervals, weighted_sizes
from tomoseg.micrographs.learned import learned_particles
from tomoseg.micrographs.parameters import MicrographParameters
from tomoseg.micrographs.particles import Particles, find_particles
from tomoseg.micrographs.pixels import grey_and_overlay
from tomoseg.micrographs.scale_bar import ScaleBar, read_scale_bar
from tomoseg.micrographs.shapes import PARTICLE, particle_table
from tomoseg.runtime import Runtime

if TYPE_CHECKING:
    import pandas as pd

MANY_CUT = 0.3  # part of the particles that the border cuts, above which sizes are uncertain
NO_BAR = ScaleBar()


@dataclass(frozen=True, eq=False)
class MeasuredMicrograph:
    """What was found in a micrograph.

    Attributes
    ----------
    labels : (y, x) i4
        Particles 1..n, those that the border cuts as well; 0 elsewhere.
    table : (n,) rows of `tomoseg.micrographs.shapes.PARTICLE`
    grey : (y, x) f4
        The image that was measured.
    left_out : (y, x) bool
        No part of the micrograph: scale bar, label, footer, coloured marks.
    calibration : Calibration
        Pixel size in nm, NaN if unknown, and where it comes from.
    scale_bar : ScaleBar
        What was read in the image.
    polarity : str
        Whether particles are 'bright' or 'dark', by `evidence`.
    notes, warnings : list of str
    """

    labels: NDArray[np.int32]
    table: NDArray[np.void]
    grey: NDArray[np.float32]
    left_out: NDArray[np.bool_]
    calibration: Calibration
    scale_bar: ScaleBar
    polarity: str
    evidence: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    weighted: bool = True

    @property
    def pixel_size_nm(self) -> float:
        """Pixel size in nm; NaN where unknown."""
        return self.calibration.pixel_size_nm

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which particles count in the sizes, (n,): those that the border does not cut."""
        return ~self.table["touches_border"]

    @property
    def unit(self) -> str:
        """Unit of the sizes: 'nm', or 'px' where no pixel size is known."""
        return "nm" if np.isfinite(self.pixel_size_nm) else "px"

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weights of the particles that count, (m,)."""
        weights = self.table["weight"][self.counted]
        return np.asarray(weights if self.weighted else np.ones_like(weights))

    @property
    def sizes(self) -> dict[str, float]:
        """Numbers of the size distribution, in `unit`."""
        return weighted_sizes(self.table[f"diameter_{self.unit}"][self.counted], self.weights)

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % confidence intervals of `sizes`."""
        return confidence_intervals(self.table[f"diameter_{self.unit}"][self.counted], self.weights)

    @property
    def particles(self) -> "pd.DataFrame":
        """The table as a pandas DataFrame."""
        from tomoseg.tables import data_frame

        return data_frame(self.table)


@takes_parameters("images", MicrographParameters)
def measure_image(image: Array, *, params: MicrographParameters, runtime: Runtime) -> MeasuredMicrograph:
    """Find and measure the particles of a micrograph.

    Parameters
    ----------
    image : (y, x) array of any real dtype, or (y, x, 3) with colours
        Coloured marks are left out, as are scale bar, label and footer.

    Returns
    -------
    MeasuredMicrograph
        Labels, the table of particles, sizes with confidence intervals, the scale and what is doubtful.

    Raises
    ------
    InputError
        The image has another shape, is too small or constant; the model is missing or does not fit.

    Examples
    --------
    Nine bright discs of 24 px on a noisy support:

    >>> import numpy as np
    >>> import tomoseg as ts
    >>> y, x = np.indices((256, 256))
    >>> image = np.random.default_rng(0).normal(100, 6, y.shape)
    >>> image[((y - 40) % 85 - 20) ** 2 + ((x - 40) % 85 - 20) ** 2 < 12**2] += 90
    >>> found = ts.measure_image(image, pixel_size_nm=0.5)
    >>> int(found.counted.sum()), found.polarity
    (9, 'bright')
    >>> bool(abs(found.sizes["mean"] - 12) < 0.3)  # nm
    True
    """
    found = measured_micrograph(np.asarray(image), params, None)
    runtime.warnings.extend(found.warnings)
    return found


def measured_micrograph(image: Array, params: MicrographParameters, metadata_nm: float | None) -> MeasuredMicrograph:
    """Measure a micrograph whose metadata give a pixel size in nm, or None."""
    scene = _looked_at(image, params, metadata_nm)
    if params.has_own_network:
        from tomoseg.micrographs.network import labelled_by

        labels, polarity, evidence, doubts = labelled_by(
            params, scene.grey, scene.left_out, scene.calibration.pixel_size_nm
        )
        notes = [f"labelled by {params.model}"]
    else:
        found = _found(scene, params)
        labels, polarity, evidence, doubts = found.labels, found.polarity, found.evidence, found.warnings
        notes = [f"{found.n_split} particles were cut from objects of several"] if found.n_split else []
    table = particle_table(labels, scene.grey, scene.calibration.pixel_size_nm, scene.left_out)
    labels, table = _large_enough(labels, table, params.smallest_px)
    cut = table["touches_border"].mean() if len(table) else 0.0
    if cut > MANY_CUT:
        doubts = [*doubts, f"the border cuts {cut:.0%} of the particles: sizes of large ones are uncertain"]
    return replace(
        scene,
        labels=labels,
        table=table,
        polarity=polarity,
        evidence=evidence,
        notes=notes,
        warnings=[*scene.warnings, *doubts],
    )


def _found(scene: MeasuredMicrograph, params: MicrographParameters) -> Particles:
    """Return the particles of a micrograph by the network that ships, or without one."""
    mask = scene.left_out if scene.left_out.any() else None
    if params.model == "auto":
        return learned_particles(scene.grey, polarity=params.polarity, split=params.split, mask=mask)
    return find_particles(
        scene.grey,
        polarity=params.polarity,
        split=params.split,
        mask=mask,
        largest_px=params.largest_px,
        neck_ratio=params.neck_ratio,
    )


def with_labels(
    image: Array,
    labels: NDArray[np.int32],
    params: MicrographParameters,
    metadata_nm: float | None,
    known: Mapping[str, Any],
) -> MeasuredMicrograph:
    """Measure a micrograph with labels (y, x) i4 from elsewhere; polarity and its reason are those `known`."""
    scene = _looked_at(image, params, metadata_nm)
    labels = np.where(scene.left_out, 0, labels)
    table = particle_table(labels, scene.grey, scene.calibration.pixel_size_nm, scene.left_out)
    labels, table = _large_enough(labels, table, 0.0)
    return replace(scene, labels=labels, table=table, polarity=known["polarity"], evidence=known["polarity_by"])


def _looked_at(image: Array, params: MicrographParameters, metadata_nm: float | None) -> MeasuredMicrograph:
    """Return what is known of a micrograph before particles are looked for: scale, and what is to be left out."""
    grey, marks = grey_and_overlay(image)
    if not np.ptp(grey) > 0:
        raise InputError("the image is constant: it shows nothing")
    bar = read_scale_bar(image) if params.scale_bar == "auto" else NO_BAR
    calibration = calibrated(params.pixel_size_nm, metadata_nm, bar.pixel_size_nm, bar.confidence, bar.label)
    left_out = marks | bar.mask if bar.furniture else marks
    if left_out.all():
        raise InputError("nothing of the image is left beside scale bar, footer and coloured marks")
    told = bar.warnings if calibration.source in ("scale bar", "none") else ()
    nothing = np.zeros(grey.shape, np.int32)
    return MeasuredMicrograph(
        nothing,
        np.zeros(0, PARTICLE),
        grey,
        left_out,
        calibration,
        bar,
        "unknown",
        "",
        warnings=[*calibration.warnings, *told],
        weighted=params.border_correction,
    )


def _large_enough(
    labels: NDArray[np.int32], table: NDArray[np.void], smallest_px: float
) -> tuple[NDArray[np.int32], NDArray[np.void]]:
    """Return labels and table without particles below a diameter, numbered from 1."""
    kept = table[table["diameter_px"] >= smallest_px]
    numbers = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    numbers[kept["label"]] = np.arange(1, len(kept) + 1)
    kept["label"] = np.arange(1, len(kept) + 1)
    return numbers[labels], kept
