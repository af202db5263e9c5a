"""Uncertainty of what is measured, by the even and the odd tilts, and by labels and intensity.

Noise, and what a reconstruction makes of few tilts, differ between reconstructions of the even and of the odd tilts: of
a number q, half the difference |q_even - q_odd| / 2 estimates the standard deviation of the mean of both, and so of the
whole series. What both halves share, where a network or thresholds draw the border, does not show in them. It shows in
the volume of particles by their intensity (`tomoseg.measurement.particles.intensity_size`). An uncertainty is the
half-width around the number that holds 68 % of what such an offset and such a scatter make of it (`half_width`). How
often it holds the truth of simulated series is in docs/measurement.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.arrays import Array, FloatArray
from tomoseg.words import count

EACH_PX = 0.05  # by which the border of one particle is off by itself, along its normal (simulated series)
UNKNOWN_PX = 0.1  # by which borders are off where no intensity tells
LEAST_KNOWN = 5  # particles whose volume by intensity is known, to tell it
COVERED, ONE_SIDED = 0.6827, 0.4753  # of a normal distribution within one standard deviation; its one-sided quantile
DISAGREEMENT = 0.05  # of the mean diameter, by which labels and intensity differ, worth a warning
POOLED = 15  # particles next in size on either side whose differences are averaged: one difference says little
LEAST_POOLED = 3
NEAR = 0.5  # of a particle's diameter, within which the same particle lies in the halves


@dataclass(frozen=True)
class Border:
    """How far the labels' borders of particles are off along their normals.

    `offset_px` is half of what diameters by labels exceed those by intensity (median), NaN where too few are known;
    `labels_px` and `intensity_px` are the means of both diameters.
    """

    offset_px: float
    labels_px: float = float("nan")
    intensity_px: float = float("nan")

    @classmethod
    def of(cls, particles: Array, by_intensity_px3: Array) -> "Border":
        """Compare diameters of particles (n,) by labels with those of their volumes (n,) by intensity."""
        labels, intensity = particles["diameter_px"], np.cbrt(6 / np.pi * by_intensity_px3)
        known = np.isfinite(intensity)
        if known.sum() < LEAST_KNOWN:
            return cls(float("nan"))
        labels, intensity = labels[known], intensity[known]
        return cls(float(np.median(labels - intensity)) / 2, float(labels.mean()), float(intensity.mean()))

    @property
    def shared_px(self) -> float:
        """By how much all borders are off along their normals."""
        return UNKNOWN_PX if np.isnan(self.offset_px) else abs(self.offset_px)

    def warnings(self, voxel_size_nm: float) -> Iterator[str]:
        """Yield a warning where labels and intensity disagree about the size of particles."""
        if abs(2 * self.offset_px) > DISAGREEMENT * self.labels_px:
            size, unit = (voxel_size_nm, "nm") if np.isfinite(voxel_size_nm) else (1.0, "px")
            yield (
                f"two measures of the particles' mean diameter disagree: {self.labels_px * size:.3g} {unit} by the "
                f"labels, {self.intensity_px * size:.3g} {unit} by how much brighter they are than what is around "
                "them; the uncertainty holds both"
            )


def half_width(offset: ArrayLike, scatter: ArrayLike) -> FloatArray:
    """Return the half-width of the interval that holds 68 % of normal errors of this mean and standard deviation.

    With x the half-width, Phi((x - offset) / scatter) - Phi((-x - offset) / scatter) = 0.68: the quantile of a folded
    normal distribution (Leone, Nelson & Nottingham, Technometrics 3, 543, 1961). Without scatter it is the offset, and
    without an offset the scatter.
    """
    from scipy.stats import foldnorm

    centre, spread = np.broadcast_arrays(np.abs(np.asarray(offset, float)), np.abs(np.asarray(scatter, float)))
    width = np.where(np.isfinite(spread), centre, np.nan)
    # Beyond some 20, the folded side is empty, and the quantile that of one side.
    one_sided = centre + ONE_SIDED * spread
    ratio = centre / np.where(spread > 0, spread, 1)
    folded = (spread > 0) & (ratio < 20)
    width = np.where(spread > 0, one_sided, width)
    width[folded] = foldnorm.ppf(COVERED, ratio[folded], scale=spread[folded])
    return np.asarray(width)


def particle_uncertainties(
    table: Array, halves: Sequence[Array], border: Border, voxel_size_nm: float
) -> dict[str, Array]:
    """Return columns (n,) for the table of particles: `in_halves` (0 to 2), uncertainty of diameter and volume.

    The differences of the `2 POOLED` particles next in size are averaged. NaN where fewer than `LEAST_POOLED` particles
    were found in both halves.
    """
    diameter = table["diameter_px"]
    partners = [_partners(table, half) for half in halves]
    seen = np.stack([partner >= 0 for partner in partners])
    both = np.flatnonzero(seen.all(axis=0) & ~table["touches_border"])
    random = np.full(len(table), np.nan)
    if len(both) >= LEAST_POOLED:
        even, odd = (half["diameter_px"][partner[both]] for half, partner in zip(halves, partners, strict=True))
        by_size = np.argsort(diameter[both], kind="stable")
        squares = ((even - odd) ** 2 / 4)[by_size]
        place = np.searchsorted(diameter[both][by_size], diameter)
        total = np.concatenate([[0.0], np.cumsum(squares)])
        first, last = np.clip(place - POOLED, 0, None), np.clip(place + POOLED, None, len(both))
        first, last = np.minimum(first, len(both) - LEAST_POOLED), np.maximum(last, LEAST_POOLED)
        random = np.sqrt((total[last] - total[first]) / (last - first))
    sigma = half_width(2 * border.shared_px, np.hypot(random, 2 * EACH_PX))
    volume = 3 * table["voxels"] / diameter * sigma
    return {
        "in_halves": seen.sum(axis=0).astype(np.int8),
        "diameter_uncertainty_nm": sigma * voxel_size_nm,
        "diameter_uncertainty_px": sigma,
        "volume_uncertainty_nm3": volume * voxel_size_nm**3,
        "volume_uncertainty_px3": volume,
    }


def _partners(table: Array, half: Array) -> NDArray[np.int64]:
    """Return the index (n,) of the particle in a half that is each particle; -1 where it was not found there."""
    from scipy.spatial import cKDTree

    if not len(table) or not len(half):
        return np.full(len(table), -1)
    here, there = (np.stack([t[f"{a}_px"] for a in "zyx"], axis=1) for t in (table, half))
    distance, partner = cKDTree(there).query(here)
    _, back = cKDTree(here).query(there)
    is_same = (distance <= NEAR * table["diameter_px"]) & (back[partner] == np.arange(len(table)))
    return np.where(is_same, partner, -1)


def class_uncertainties(
    table: Array, halves: Sequence[Array], border: Border, voxel_size_nm: float
) -> dict[str, Array]:
    """Return columns (n,) for the table of classes: uncertainty of volume and of surface area."""
    even, odd = halves
    volume = half_width(border.shared_px * table["surface_area_px2"], (even["voxels"] - odd["voxels"]) / 2)
    area = np.abs(even["surface_area_px2"] - odd["surface_area_px2"]) / 2
    return {
        "volume_uncertainty_nm3": volume * voxel_size_nm**3,
        "volume_uncertainty_px3": volume,
        "surface_area_uncertainty_nm2": area * voxel_size_nm**2,
        "surface_area_uncertainty_px2": area,
    }


def summary_uncertainties(
    summary: Mapping[str, Any], halves: Sequence[Mapping[str, Any]], particles: Array, border: Border
) -> dict[str, Any]:
    """Return the uncertainties of counts and sizes, by their names in the project file; `particles` have theirs.

    That of a diameter comes from the difference of the halves and from the offset of all borders.
    """
    even, odd = halves
    n = summary["n_particles"]
    changes = np.array([half["n_particles"] - n for half in (even, odd)], float)
    in_halves = particles["in_halves"]
    numbers: dict[str, Any] = {
        "border_offset_px": border.offset_px,
        "mean_diameter_by_intensity_nm": border.intensity_px * summary["voxel_size_nm"],
        "mean_diameter_by_intensity_px": border.intensity_px,
        "n_particles_uncertainty": float(np.sqrt((changes**2).mean() / 2)),
        "n_particles_in_both_halves": int((in_halves == 2).sum()),
        "n_particles_in_no_half": int((in_halves == 0).sum()),
    }
    for key in ("mean_diameter", "median_diameter", "d32", "d43"):
        for unit, scale in (("nm", summary["voxel_size_nm"]), ("px", 1.0)):
            name = f"{key}_{unit}"
            sigma = _of_halves(even, odd, name, 2 * border.shared_px * scale)
            numbers[f"{key}_uncertainty_{unit}"] = sigma if np.isfinite(summary[name]) else float("nan")
    return numbers


def support_uncertainties(
    support: Mapping[str, Any], halves: Sequence[Mapping[str, Any]], border: Border
) -> dict[str, float]:
    """Return the uncertainties of porosity, volumes and areas of the support; none where there is none."""
    even, odd = halves
    if not (support and even and odd):
        return {}
    moved = (support["porosity_half_voxel_out"] - support["porosity_half_voxel_in"]) / 2  # by half a voxel
    numbers = {"porosity_uncertainty": _of_halves(even, odd, "porosity", moved * border.shared_px / 0.5)}
    for key in (
        *("pore_volume_nm3", "pore_volume_px3", "exposed_area_nm2", "exposed_area_px2", "covered_area_nm2"),
        *("covered_area_px2", "specific_area_m2_g"),
    ):
        stem = key.removesuffix("_m2_g") if key.endswith("_m2_g") else key.rsplit("_", 1)[0]
        numbers[key.replace(stem, f"{stem}_uncertainty")] = _of_halves(even, odd, key, 0.0)
    return numbers


def _of_halves(even: Mapping[str, Any], odd: Mapping[str, Any], key: str, shared: float) -> float:
    return float(half_width(shared, (even[key] - odd[key]) / 2))


def uncertainty_remarks(summary: Mapping[str, Any], particles: Array) -> list[str]:
    """Return what was found, in words."""
    n, both, none = (summary[f"n_particles{what}"] for what in ("", "_in_both_halves", "_in_no_half"))
    texts = [
        f"{both} of {count(n, 'particle')} were found in the reconstructions of the even and of the odd tilts, "
        f"{none} in neither; standard uncertainty of their number {summary['n_particles_uncertainty']:.2g}"
    ]
    sigmas, diameters = particles["diameter_uncertainty_px"], particles["diameter_px"]
    known = np.isfinite(sigmas)
    if known.any():
        texts.append(
            f"standard uncertainty of a particle's diameter: {np.median(sigmas[known]):.2g} px, "
            f"{np.median(sigmas[known] / diameters[known]):.1%} of it (medians)"
        )
    return texts
