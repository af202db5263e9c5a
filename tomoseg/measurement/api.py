"""Numbers from labels: classes, particles and their sizes, the support and its pores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.arrays import Array, ArraySource
from tomoseg.classes import MAX_CLASSES, default_names
from tomoseg.errors import InputError
from tomoseg.keywords import takes_parameters
from tomoseg.measurement.common.class_table import measure_classes
from tomoseg.measurement.parameters import MeasureParameters
from tomoseg.measurement.particles.objects import LIMITS, CountedParticles, Limits, Separate, count_particles
from tomoseg.measurement.particles.particle_summary import (
    LEAST_PARTICLES,
    in_size_statistics,
    particle_remarks,
    particle_summary,
    particle_warnings,
)
from tomoseg.measurement.particles.particle_table import (
    Scene,
    in_table_order,
    particle_table,
    resolved_from_px,
    with_columns,
)
from tomoseg.measurement.particles.separation import separate_by_distance, separate_by_intensity
from tomoseg.measurement.particles.sizes import size_table
from tomoseg.measurement.pores.pore_space import PoreSpace, find_pores
from tomoseg.measurement.pores.pore_table import PORE, PORE_SIZE
from tomoseg.measurement.support.layers import layer_remark, layer_table
from tomoseg.measurement.support.particle_environment import CURVATURE, FACET
from tomoseg.measurement.support.support_measurement import SupportMeasurement, measure_support
from tomoseg.measurement.support.support_surface import SupportClasses, SupportSurface
from tomoseg.measurement.uncertainty import (
    Border,
    class_uncertainties,
    particle_uncertainties,
    summary_uncertainties,
    support_uncertainties,
    uncertainty_remarks,
)
from tomoseg.missing_wedge import MissingWedge
from tomoseg.runtime import Runtime, slabs
from tomoseg.tables import data_frame

if TYPE_CHECKING:
    from pandas import DataFrame

# An array that takes no more than this part of the memory allowed, and bytes, is read once and held; of a larger one,
# boxes are read as they are wanted, which is no slower.
HELD_SHARE, HELD_BYTES = 1 / 8, 512 << 20


def _frame(name: str, text: str, row: Any = None) -> "cached_property[DataFrame]":
    """Return a property, described by a text, that holds a table as a DataFrame; empty rows where it is missing."""
    made = cached_property(lambda self: data_frame(self.tables.get(name, np.zeros(0, row))))
    made.__doc__ = text
    return made


@dataclass(frozen=True)
class Measurement:
    """What is measured of a labelled volume. The columns of all tables are described in docs/measurement.md.

    Attributes
    ----------
    tables : dict of structured arrays, as they are stored
        `class_table`, `particle_table`, `size_table`, and where there is a support `facet_table`, `curvature_table`,
        `pore_table` and `pore_size_table`.
    summary : dict
        Counts, sizes with confidence intervals, dispersion, and what limits them.
    support : dict
        Volume, areas, porosity, tortuosity and crystal of the support; empty where there is none.
    orientation_map : (2, 129, 129) float32, or None where there is no support
        Density of the normals of the support's exposed surface, 1/sr, in Lambert's equal-area projection.
    notes, warnings : list of str
        What was found, and what needs care, in words.
    """

    tables: Mapping[str, Array]
    summary: dict[str, Any]
    support: dict[str, Any]
    orientation_map: NDArray[np.float32] | None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    classes = _frame("class_table", "Volume and surface area of each class.")
    particles = _frame("particle_table", "One row per particle, largest first.")
    size_distribution = _frame("size_table", "Histogram of the particles' diameters, by number, surface and volume.")
    facets = _frame(
        "facet_table",
        "Families of crystal planes and facets of the support's surface, and the particles on each.",
        FACET,
    )
    curvature = _frame(
        "curvature_table",
        "Histogram of the mean curvature of the support's surface, and of that around particles.",
        CURVATURE,
    )
    pores = _frame("pore_table", "One row per pore, largest first.", PORE)
    layers = _frame("layer_table", "One row per layer along the tilt axis; none where the sample has no layers.")
    pore_sizes = _frame("pore_size_table", "Volume of the pores by their width.", PORE_SIZE)


@takes_parameters("measure", MeasureParameters)
def measure(
    labels: Any,
    volume: Any,
    *,
    voxel_size_nm: float | None = None,
    class_names: Sequence[str] | None = None,
    angles_deg: ArrayLike | None = None,
    resolution_px: float | None = None,
    halves: Sequence[tuple[Any, Any]] | None = None,
    params: MeasureParameters,
    runtime: Runtime,
) -> Measurement:
    """Measure the classes of a labelled volume, the particles of one of them, and the support that they sit on.

    Parameters
    ----------
    labels : array_like or ArraySource, (z, y, x), whole numbers from 0 to 254
        Class of each voxel; 0 is the background. A handle that holds uint8, such as an HDF5 dataset, is read part by
        part.
    volume : array_like or ArraySource, (z, y, x)
        Intensities, of the same shape.
    voxel_size_nm : float, optional
        Without it the columns in nm are NaN, and those in px are right.
    class_names : sequence of str, optional
        One per class, in class order; by default background, support, particles for three classes and the like.
    angles_deg : (n_tilts,), optional
        Tilts in degrees that the volume was reconstructed from: they give the missing wedge, along which particles come
        out too long. Without them no particle is suspected of that.
    resolution_px : float, optional
        Resolution of the volume in px: what is smaller is counted apart.
    halves : two pairs of labels and volume, optional
        The same of reconstructions of the even and of the odd tilts, for the uncertainty of all numbers.

    Returns
    -------
    Measurement
        Tables as pandas DataFrames (`.particles`, `.classes`, `.size_distribution`, `.pores`, `.pore_sizes`, `.facets`,
        `.curvature`), numbers that sum them up (`.summary`, `.support`), `.orientation_map`, `.notes`, `.warnings`.

    Raises
    ------
    InputError
        A parameter is wrong, or labels, volume and names do not fit each other.
    StageFailed
        An object is too large to be cut in the memory allowed.

    Notes
    -----
    The diameter of a particle is that of the sphere of the same number of voxels, (6 V / pi)^(1/3). Surface areas are
    those of the smoothed labels at the level that encloses as many voxels. All definitions and their sources are in
    docs/measurement.md.

    Examples
    --------
    >>> import numpy as np
    >>> import tomoseg as ts
    >>> z, y, x = np.indices((32, 32, 48))
    >>> labels = np.zeros(z.shape, np.uint8)
    >>> for centre, radius in ((14, 6), (33, 8)):
    ...     labels[(z - 16) ** 2 + (y - 16) ** 2 + (x - centre) ** 2 <= radius**2] = 1
    >>> found = ts.measure(labels, labels.astype(float), voxel_size_nm=0.5, class_names=["vacuum", "Pt"])
    >>> found.particles[["diameter_nm", "x_nm"]].round(2)
       diameter_nm  x_nm
    0         7.96  16.5
    1         6.04   7.0
    >>> found.summary["n_particles"], found.summary["mean_diameter_nm"]  # of sizes there are statistics from five on
    (2, nan)
    """
    if params.uncertainty and halves is None:
        raise InputError("uncertainty needs halves: labels and volume of the even and of the odd tilts.")
    labels = _as_labels(labels)
    names = list(class_names) if class_names is not None else default_names(max(2, _highest(labels, runtime) + 1))
    size, resolution = (np.nan if v is None else float(v) for v in (voxel_size_nm, resolution_px))
    known: dict[str, Any] = {"angles_deg": angles_deg, "resolution_px": resolution, "resolution_nm": resolution * size}
    volume = volume if hasattr(volume, "dtype") else np.asarray(volume)
    both = [(_as_labels(half), v if hasattr(v, "dtype") else np.asarray(v)) for half, v in halves or ()]
    return measure_labels(labels, volume, names, size, params, runtime, halves=both, **known)


def measure_labels(
    labels: ArraySource,
    volume: ArraySource,
    class_names: Sequence[str],
    voxel_size_nm: float,
    params: MeasureParameters,
    runtime: Runtime,
    *,
    angles_deg: ArrayLike | None = None,
    resolution_px: float = np.nan,
    resolution_nm: float = np.nan,
    halves: Sequence[tuple[ArraySource, ArraySource]] = (),
    limits: Limits = LIMITS,
) -> Measurement:
    """Measure labels (z, y, x) u1 and the particles in them, with intensities from a volume of the same shape.

    See `measure`; here numbers are NaN where unknown, and `halves` empty. What memory is allowed changes no bit of the
    result, but for the side of the cells that pores are looked for in.
    """
    if not np.isfinite(voxel_size_nm):
        voxel_size_nm = np.nan
        runtime.warn(
            "the voxel size is unknown: the columns in nm are NaN, those in px are right. "
            "Give it at import (--pixel-size NM)."
        )
    if tuple(labels.shape) != tuple(volume.shape):
        raise InputError(
            f"labels {tuple(labels.shape)} and volume {tuple(volume.shape)} differ in shape; segment again."
        )
    k = _class_to_count(class_names, params.particle_class)
    labels = _in_memory(labels, runtime)
    counted = CountedParticles()
    if k is not None:  # before the pores are looked for: they and the volume are not held at the same time
        scene = Scene(_in_memory(volume, runtime), labels, k, by_intensity=bool(halves))
        separate = _separation(params, runtime)
        counted = count_particles(scene, params.connectivity, params.min_voxels, separate, runtime, limits)
        del scene
    support = SupportClasses.of(class_names, k)
    space = _pore_space(labels, support, voxel_size_nm, params, runtime) if params.measure_support else None
    surface = None if space is None else SupportSurface(support, space)
    strip_bytes = limits.reading * runtime.max_memory
    classes = measure_classes(labels, class_names, voxel_size_nm, strip_bytes, runtime, surface)
    layers = layer_table(labels, list(class_names), voxel_size_nm, resolved_from_px(resolution_px), runtime)
    del labels
    wedge = None if angles_deg is None or not np.size(angles_deg) else MissingWedge.of(angles_deg)
    particles = particle_table(counted.rows, counted.gaps_px, voxel_size_nm, k or 0, wedge, resolution_px)
    measured: SupportMeasurement | None = None
    if space is not None and surface is not None:
        n_voxels = int(classes["voxels"][list(support.indices)].sum())
        limit_px = resolved_from_px(resolution_px, space.side)
        measured = measure_support(
            surface.elements(), space, support.names, n_voxels, particles, voxel_size_nm, limit_px, params, runtime
        )
        particles = with_columns(particles, measured.particle_columns)
    name = "" if k is None else class_names[k]
    summary = particle_summary(particles, counted, name, params.min_voxels, params.atom_diameter_nm, voxel_size_nm)
    summary |= {"voxel_size_nm": voxel_size_nm, "resolution_nm": resolution_nm, "resolution_px": resolution_px}
    summary["missing_wedge_deg"] = np.nan if wedge is None else wedge.gap_deg
    for text in particle_remarks(summary):
        runtime.say(text)
    sample = [int(n) for n in classes["voxels"][1:]]
    n_others = sum(sample) - (0 if k is None else sample[k - 1])
    for text in particle_warnings(
        summary, particles, counted, wedge, params.particle_class, limits, sum(sample), n_others
    ):
        runtime.warn(text)
    diameters = particles["diameter_px"][in_size_statistics(particles)]
    tables = {
        "class_table": classes,
        "particle_table": particles,
        "size_table": size_table(
            diameters if len(diameters) >= LEAST_PARTICLES else [], voxel_size_nm, params.size_bin_nm
        ),
    }
    found = Measurement(tables, summary, {}, None)
    if measured is not None:
        found = Measurement(tables | measured.tables, summary, measured.summary, measured.orientation_map)
    if len(layers):
        runtime.say(layer_remark(layers))
        found = replace(found, tables={**found.tables, "layer_table": layers})
    if halves:
        by_intensity_px3 = in_table_order(counted.rows)["intensity_volume_px3"]
        others = _measured_halves(halves, class_names, voxel_size_nm, params, runtime, angles_deg, resolution_px)
        found = _with_uncertainty(found, others, by_intensity_px3, voxel_size_nm, runtime)
    return replace(found, notes=list(runtime.notes), warnings=list(runtime.warnings))


def _measured_halves(
    halves: Sequence[tuple[ArraySource, ArraySource]],
    class_names: Sequence[str],
    voxel_size_nm: float,
    params: MeasureParameters,
    runtime: Runtime,
    angles_deg: ArrayLike | None,
    resolution_px: float,
) -> list[Measurement]:
    """Measure the halves in the same way; what is said of them is not kept."""
    known: dict[str, Any] = {"angles_deg": angles_deg, "resolution_px": resolution_px}
    return [
        measure_labels(*half, class_names, voxel_size_nm, params, replace(runtime, notes=[], warnings=[]), **known)
        for half in halves
    ]


def _with_uncertainty(
    found: Measurement, halves: Sequence[Measurement], by_intensity_px3: Array, voxel_size_nm: float, runtime: Runtime
) -> Measurement:
    """Add what the differences of the halves tell, and those of labels and intensity."""
    tables = dict(found.tables)
    particles, classes = tables["particle_table"], tables["class_table"]
    border = Border.of(particles, by_intensity_px3)
    of_particles = particle_uncertainties(
        particles, [h.tables["particle_table"] for h in halves], border, voxel_size_nm
    )
    of_classes = class_uncertainties(classes, [h.tables["class_table"] for h in halves], border, voxel_size_nm)
    tables["particle_table"] = particles = with_columns(particles, of_particles)
    tables["class_table"] = with_columns(classes, of_classes)
    of_sizes = summary_uncertainties(found.summary, [half.summary for half in halves], particles, border)
    of_support = support_uncertainties(found.support, [half.support for half in halves], border)
    summary = found.summary | of_sizes
    for text in uncertainty_remarks(summary, particles):
        runtime.say(text)
    for text in border.warnings(voxel_size_nm):
        runtime.warn(text)
    return replace(found, tables=tables, summary=summary, support=found.support | of_support)


def _as_labels(labels: Any) -> ArraySource:
    """Return labels as u1; what is u1 already, such as a handle, is not read."""
    if getattr(labels, "dtype", None) == np.uint8:
        return labels  # type: ignore[no-any-return]
    values = np.asarray(labels[:] if hasattr(labels, "dtype") else labels)
    if values.dtype.kind not in "bui" or (values.size and not 0 <= values.min() <= values.max() < MAX_CLASSES):
        raise InputError(f"labels must be whole numbers from 0 to {MAX_CLASSES - 1}, one class each.")
    return values.astype(np.uint8)


def _highest(labels: ArraySource, runtime: Runtime) -> int:
    """Return the highest class that occurs."""
    size = runtime.slab_size(int(np.prod(labels.shape[1:])), labels.shape[0])
    return max((int(np.max(labels[z], initial=0)) for z in slabs(labels.shape[0], size)), default=0)


def _class_to_count(names: Sequence[str], wanted: str) -> int | None:
    """Return the index of the class to count; None where there is nothing but background."""
    if wanted in names:
        return list(names).index(wanted)
    if wanted == "last":
        return len(names) - 1 if len(names) > 1 else None
    raise InputError(
        f"measure.particle_class: there is no class {wanted!r}; the labels have {', '.join(map(repr, names))}. "
        "'last' stands for the highest index."
    )


def _in_memory(source: ArraySource, runtime: Runtime) -> ArraySource:
    """Return the whole array where it is small beside the memory allowed, else the handle."""
    n_bytes = int(np.prod(source.shape)) * source.dtype.itemsize
    held: ArraySource = source[:] if n_bytes <= min(HELD_SHARE * runtime.max_memory, HELD_BYTES) else source
    return held


def _pore_space(
    labels: ArraySource, support: SupportClasses, voxel_size_nm: float, params: MeasureParameters, runtime: Runtime
) -> PoreSpace | None:
    """Find the pores of the support; None, and a remark, where there is no support."""
    missing = "no class is between the background and the particles"
    if support.indices:
        space = find_pores(labels, support.kind_of_class, voxel_size_nm, params.pore_closing_nm, runtime)
        if space is not None:
            return space
        missing = f"no voxel is of {' or '.join(support.names)}"
    runtime.say(f"no support, pores or facets: {missing}")
    return None


def _separation(params: MeasureParameters, runtime: Runtime) -> Separate | None:
    """Return how objects are cut into touching particles; None where they are not."""
    if not params.separate_touching:
        return None

    if params.separate_by == "distance":
        return lambda sparse, _: separate_by_distance(sparse, params.neck_ratio, runtime.check)
    return lambda sparse, scene: separate_by_intensity(
        sparse, scene.volume, scene.outside, params.saddle_ratio, runtime.check
    )
