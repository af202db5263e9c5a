"""What there is to report: artifacts by name, and the stages that made them."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomoseg.arrays import Array, ArraySource, Input
from tomoseg.report.record import StageRecord
from tomoseg.report.words import plain, show

# Okabe & Ito: told apart with every common kind of colour blindness. For labels that carry no colours of their own.
FALLBACK_COLORS = ("#000000", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")

# An image, words, the names of its axes (down, right), and the index of the same part in the volume.
Orthoslice = tuple[Array, str, tuple[str, str], tuple[Any, ...]]


@dataclass(frozen=True)
class LabelClass:
    """One class of the labels; its value in the array is `index`."""

    index: int
    name: str
    color: str


@dataclass(frozen=True)
class Contents:
    """Artifacts that may or may not be there, and what is known of the stages."""

    artifacts: Mapping[str, Input]
    stages: tuple[StageRecord, ...]
    title: str

    def get(self, name: str) -> Input | None:
        """Return an artifact, or None where it is absent or empty."""
        found = self.artifacts.get(name)
        return None if found is None or 0 in found.shape or not found.shape else found

    def rows(self, name: str) -> Array | None:
        """Return a small array or table in memory, or None."""
        found = self.get(name)
        return None if found is None else np.asarray(found[:])

    def attrs(self, name: str) -> Mapping[str, Any]:
        """Return the attributes of an artifact; none where it is absent."""
        found = self.artifacts.get(name)
        return {} if found is None else found.attrs

    def number(self, name: str, key: str) -> float:
        """Return an attribute as a number; NaN where it is none."""
        try:
            return float(plain(self.attrs(name).get(key, np.nan)))
        except (TypeError, ValueError):
            return float("nan")

    def text(self, name: str, key: str) -> str:
        """Return an attribute as text; empty where it is absent."""
        value = self.attrs(name).get(key)
        return "" if value is None else show(value)

    def stage(self, name: str) -> StageRecord | None:
        """Return what is known of a stage."""
        return next((s for s in self.stages if s.name == name), None)

    @property
    def pixel_size_nm(self) -> float:
        """Pixel size of the raw images in nm; NaN where unknown."""
        return _size(self.number("tilt_series_info", "pixel_size_nm"))

    @property
    def voxel_size_nm(self) -> float:
        """Voxel size in nm; NaN where unknown."""
        sizes = [_size(self.number(name, "voxel_size_nm")) for name in ("volume", "labels")]
        return next((s for s in sizes if np.isfinite(s)), float("nan"))

    @property
    def angles_deg(self) -> Array | None:
        """Tilt angles, or None."""
        angles = self.rows("angles_deg")
        return None if angles is None else angles.astype(float)

    @functools.cached_property
    def central(self) -> list[Orthoslice]:
        """The three central slices of the volume, read once."""
        return orthoslices(self.artifacts["volume"])

    @property
    def classes(self) -> list[LabelClass]:
        """Classes of the labels in class order; names and colours are made up where the labels carry none."""
        attrs = self.attrs("labels")
        names, colors = _texts(attrs.get("class_names")), _texts(attrs.get("class_colors"))
        found = []
        for i, name in enumerate(names):
            given = colors[i] if i < len(colors) and re.fullmatch(r"#[0-9a-fA-F]{6}", colors[i]) else None
            found.append(LabelClass(i, name, given or FALLBACK_COLORS[i % len(FALLBACK_COLORS)]))
        return found


def _size(value: float) -> float:
    return value if np.isfinite(value) and value > 0 else float("nan")


def _texts(value: Any) -> list[str]:
    return [] if value is None else [str(plain(v)) for v in np.atleast_1d(np.asarray(value, object))]


def orthoslices(volume: ArraySource) -> list[Orthoslice]:
    """Return the three central slices: image, words, names of the axes (down, right), and the index of the same."""
    z, y, x = (n // 2 for n in volume.shape)
    everything = slice(None)
    xy, xz, zy = (z, everything, everything), (everything, y, everything), (everything, everything, x)
    return [
        (np.asarray(volume[xy]), f"xy slice at z = {z}: along the beam at zero tilt", ("y", "x"), xy),
        (np.asarray(volume[zy]).T, f"zy slice at x = {x}: from the side", ("y", "z"), zy),
        (np.asarray(volume[xz]), f"xz slice at y = {y}: across the tilt axis, with the missing wedge", ("z", "x"), xz),
    ]
