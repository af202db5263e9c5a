"""Numbers that sum up the particles, and what is said about them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tomoseg.arrays import BoolArray
from tomoseg.measurement.common.columns import in_nm_and_px
from tomoseg.measurement.particles.dispersion import atom_diameter_of, dispersion
from tomoseg.measurement.particles.objects import CountedParticles, Limits
from tomoseg.measurement.particles.particle_table import Table
from tomoseg.measurement.particles.sizes import confidence_intervals, half_voxel_changes, size_summary
from tomoseg.missing_wedge import MissingWedge, more_than_chance
from tomoseg.words import count

HUGE_FRACTION = 0.05  # of the volume: an object that fills more may be a support rather than a particle
HUGE_SHARE = 0.2  # of the sample, in one particle
LEAST_PARTICLES = 5  # of known size, for statistics of sizes
MANY_ELONGATED = 0.1  # of the particles, along the missing wedge: worth a warning


def particle_summary(
    table: Table,
    counted: CountedParticles,
    particle_class: str,
    min_voxels: int,
    atom_diameter_nm: float | None,
    voxel_size_nm: float,
) -> dict[str, Any]:
    """Return the numbers that sum up the particles, by their names in the project file.

    `particle_class` is the name of their class. `atom_diameter_nm`: None for that of the metal of this name.
    """
    counts = in_size_statistics(table)
    summary: dict[str, Any] = {
        "particle_class": particle_class,
        "n_particles": len(table),
        "n_touching_border": int(table["touches_border"].sum()),
        "n_below_resolution": int((table["below_resolution"] & ~table["touches_border"]).sum()),
        "n_in_size_statistics": int(counts.sum()),
        "n_excluded_small": counted.n_small,
        "n_objects_cut": int(counted.n_cut),
        "n_elongated_along_beam": int(table["elongated_along_beam"].sum()),
        "min_voxels": min_voxels,
        **_sizes(table[counts if counts.sum() >= LEAST_PARTICLES else []], voxel_size_nm),
    }
    atom = atom_diameter_nm or atom_diameter_of(particle_class)
    return summary | {
        "atom_diameter_nm": atom,
        "dispersion": dispersion(summary["d32_nm"], atom),
        "dispersion_ci95_low": dispersion(summary["d32_ci95_high_nm"], atom),
        "dispersion_ci95_high": dispersion(summary["d32_ci95_low_nm"], atom),
    }


def in_size_statistics(table: Table) -> BoolArray:
    """Return which particles (n,) have a known size: the border does not cut them, and they are resolved."""
    return np.asarray(~table["touches_border"] & ~table["below_resolution"])


def _sizes(whole: Table, voxel_size_nm: float) -> dict[str, float]:
    """Return the numbers that sum up the sizes of these particles, in nm and in px."""
    diameters = whole["diameter_px"]
    numbers = {_name(key): value for key, value in size_summary(diameters).items()}
    for key, (low, high) in confidence_intervals(diameters).items():
        numbers |= {f"{_name(key)}_ci95_low": low, f"{_name(key)}_ci95_high": high}
    for key, change in half_voxel_changes(diameters, whole["diameter_half_voxel_px"]).items():
        numbers[f"{_name(key)}_half_voxel"] = change
    return {
        name: number
        for key, value in numbers.items()
        for name, number in in_nm_and_px(key, value, voxel_size_nm).items()
    }


def _name(key: str) -> str:
    return f"{key}_diameter" if key in ("mean", "std", "median") else key


def particle_remarks(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was counted, in words."""
    yield (
        f"{count(summary['n_particles'], 'particle')} of class {summary['particle_class']!r}; left out of the size "
        f"statistics: {summary['n_touching_border']} cut by the border of the volume, {summary['n_below_resolution']} "
        "below the resolution"
    )
    if summary["n_excluded_small"]:
        yield (
            f"not counted: {count(summary['n_excluded_small'], 'object')} of fewer than {summary['min_voxels']} voxels "
            "(min_voxels)"
        )
    if summary["n_objects_cut"]:
        yield f"cut into touching particles: {count(summary['n_objects_cut'], 'object')} (separate_touching)"
    if 0 < summary["n_in_size_statistics"] < LEAST_PARTICLES:
        yield (
            f"no size statistics: {count(summary['n_in_size_statistics'], 'particle')} with a known size, and "
            f"{LEAST_PARTICLES} are needed; the table has the size of each"
        )
    if summary["n_in_size_statistics"] < LEAST_PARTICLES:
        return
    unit = "px" if np.isnan(summary["voxel_size_nm"]) else "nm"
    mean, low, high, half = (
        summary[f"mean_diameter{what}_{unit}"] for what in ("", "_ci95_low", "_ci95_high", "_half_voxel")
    )
    interval = "" if np.isnan(low) else f" (95% confidence interval {low:.4g} to {high:.4g})"
    median, d32 = summary[f"median_diameter_{unit}"], summary[f"d32_{unit}"]
    yield f"mean diameter {mean:.4g} {unit}{interval}, median {median:.4g} {unit}, d32 {d32:.4g} {unit}"
    if np.isfinite(summary["dispersion"]):
        yield f"dispersion {summary['dispersion']:.2g}, from d32 and atoms of {summary['atom_diameter_nm']:g} nm"
    resolution = summary[f"resolution_{unit}"]
    known = f"; the resolution by shell correlation is {resolution:.3g} {unit}" if np.isfinite(resolution) else ""
    yield f"with the surface half a voxel further out, the mean diameter is {half:.2g} {unit} larger{known}"


def particle_warnings(
    summary: Mapping[str, Any],
    table: Table,
    counted: CountedParticles,
    missing_wedge: MissingWedge | None,
    wanted_class: str,
    limits: Limits,
    sample_voxels: int,
    other_voxels: int,
) -> Iterator[str]:
    """Yield what needs care in the numbers, in words; `wanted_class` is what `measure.particle_class` was given as.

    `sample_voxels` are those of all classes but the background, `other_voxels` those of them that hold no particles.
    """
    if summary["n_particles"] and not summary["n_in_size_statistics"]:
        yield (
            "every particle is cut by the border of the volume or below the resolution: there are no size statistics"
        )
    if missing_wedge is not None:
        yield from _elongation_warnings(table[in_size_statistics(table)], missing_wedge)
    if counted.n_uncut:
        yield (
            f"{counted.n_uncut} objects of more than {limits.cut_fraction:.1%} of the volume were not cut: they are "
            "bodies rather than clusters of touching particles (separate_touching)"
        )
    if counted.largest_fraction > HUGE_FRACTION:
        yield (
            f"one object of class {summary['particle_class']!r} fills {counted.largest_fraction:.0%} of the volume: "
            f"it may be a support rather than a particle; choose another measure.particle_class (now {wanted_class!r})"
        )
    elif len(table) and other_voxels:  # where all is particles, they are the sample
        share = float(table["voxels"].max()) / sample_voxels
        if share > HUGE_SHARE:
            yield (
                f"one object of class {summary['particle_class']!r} makes up {share:.0%} of the sample: it may be a "
                "layer or a part of the sample that is as bright as particles; look at the labels"
            )


def _elongation_warnings(whole: Table, missing_wedge: MissingWedge) -> Iterator[str]:
    """Yield a warning where many particles, and more than by chance, are elongated along the missing wedge."""
    n, n_long = int(whole["elongated_along_beam"].sum()), int(missing_wedge.elongated(whole["elongation"]).sum())
    if n >= MANY_ELONGATED * len(whole) and more_than_chance(n, n_long):
        yield (
            f"{n} of {len(whole)} particles are elongated along the direction that the tilts did not measure (a gap of "
            f"{missing_wedge.gap_deg:.0f} degrees), out of {n_long} that are elongated in any direction: the missing "
            "wedge may have made their shape and part of their size (elongated_along_beam)"
        )
