"""The results of a project as the report reads them: artifacts by name, and the state of each stage."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomoseg.arrays import Array, Input
from tomoseg.classes import names_in
from tomoseg.errors import printable
from tomoseg.lengths import is_possible
from tomoseg.palette import CLOSED_PORES, OKABE_ITO
from tomoseg.project.provenance import StageState
from tomoseg.report.formatting import number, plain, show
from tomoseg.report.sampling.fractions import Fractions, fractions, with_closed_pores
from tomoseg.report.sampling.slices import Orthoslice, orthoslices


@dataclass(frozen=True)
class LabelClass:
    """One class of the labels; its value in the array is `index`."""

    index: int
    name: str
    color: str


@dataclass(frozen=True)
class Body(LabelClass):
    """What is drawn in three dimensions: a class or the closed pores, whose `index` follows; solid, or as glass."""

    solid: bool


@dataclass(frozen=True)
class Results:
    """Artifacts, by their names in `tomoseg.schema`, any of which may be absent; the stages in order, and a title.

    `surfaces_px` is the side of the picture of the surfaces.
    """

    artifacts: Mapping[str, Input]
    stages: Sequence[StageState]
    title: str
    surfaces_px: int = 900

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", printable(self.title))

    def get(self, name: str) -> Input | None:
        """Return an artifact, or None where it is absent or empty."""
        found = self.artifacts.get(name)
        return None if found is None or 0 in found.shape or not found.shape else found

    def rows(self, name: str) -> Array | None:
        """Return a small array or table in memory, or None."""
        found = self.get(name)
        return None if found is None else np.asarray(found[:])

    def attrs(self, name: str) -> Mapping[str, Any]:
        """Return the attributes of an artifact, empty where it is absent."""
        found = self.artifacts.get(name)
        return {} if found is None else found.attrs

    def number(self, name: str, key: str) -> float:
        """Return an attribute as a number, NaN where it is not one."""
        try:
            return float(plain(self.attrs(name).get(key, np.nan)))
        except (TypeError, ValueError):
            return float("nan")

    def text(self, name: str, key: str) -> str:
        """Return an attribute as text, empty where it is absent."""
        value = self.attrs(name).get(key)
        return "" if value is None else printable(show(value))

    def stage(self, name: str) -> StageState | None:
        """Return what is known of a stage."""
        return next((s for s in self.stages if s.name == name), None)

    def stack(self, name: str) -> Input | None:
        """Return an artifact with three axes (a series or a volume), or None."""
        found = self.get(name)
        return found if found is not None and len(found.shape) == 3 else None

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

    def tilt_name(self, i: int) -> str:
        """Return the angle of a tilt, or its number where the angle is unknown."""
        angles = self.angles_deg
        return f"{number(angles[i])}°" if angles is not None and i < len(angles) else f"image {i + 1}"

    @functools.cached_property
    def central(self) -> list[Orthoslice]:
        """The three central slices of the volume, read once."""
        return orthoslices(self.artifacts["volume"])

    @property
    def classes(self) -> list[LabelClass]:
        """Classes of the labels in order of their values, with a default colour where the labels state none."""
        attrs = self.attrs("labels")
        names, colors = names_in(attrs) or [], _texts(attrs.get("class_colors"))
        found = []
        for i, name in enumerate(names):
            given = colors[i] if i < len(colors) and re.fullmatch(r"#[0-9a-fA-F]{6}", colors[i]) else None
            found.append(LabelClass(i, name, given or OKABE_ITO[i % len(OKABE_ITO)]))
        return found

    @property
    def particle_class(self) -> int:
        """The value of the class that was counted as particles; the last one where that is unknown."""
        names = [label.name for label in self.classes]
        counted = self.text("measurement_info", "particle_class")
        return names.index(counted) if counted in names[1:] else len(names) - 1

    @property
    def diameter_unit(self) -> str:
        """The unit of particle diameters: nm where the voxel size is known, otherwise px."""
        return "nm" if np.isfinite(self.number("measurement_info", "mean_diameter_nm")) else "px"

    @property
    def labels_fit_volume(self) -> bool:
        """Whether there are labels of the same shape as the volume."""
        return self._same_shape("volume", "labels") and len(self.classes) > 1

    @property
    def confidence(self) -> Input | None:
        """The confidence of the labels, or None where there is none that fits them."""
        return self.get("confidence") if self._same_shape("confidence", "labels") else None

    @functools.cached_property
    def class_fractions(self) -> Fractions | None:
        """The share of each class in each part of the volume, counted once; None without labelled classes."""
        labels = self.stack("labels")
        if labels is None or len(self.classes) < 2:
            return None
        found = fractions(labels, len(self.classes))
        # Whether there are pores is told by the measurement, which knows those that are noise.
        return with_closed_pores(found) if self.number("support_info", "n_closed_pores") > 0 else found

    @functools.cached_property
    def bodies(self) -> list[Body]:
        """What is drawn in three dimensions: the classes but the background, and closed pores where there are any."""
        found, solid = self.class_fractions, self.particle_class
        if found is None:
            return []
        bodies = [Body(c.index, c.name, c.color, c.index == solid) for c in self.classes[1:]]
        if len(found.of) == len(bodies) + 1:
            bodies.append(Body(len(bodies) + 1, f"closed pores of {self.classes[1].name}", CLOSED_PORES, solid=True))
        return bodies

    def _same_shape(self, first: str, second: str) -> bool:
        one, other = self.get(first), self.get(second)
        return one is not None and other is not None and tuple(one.shape) == tuple(other.shape)


def column(rows: Array | None, *parts: str) -> Array | None:
    """Return the first column of a table whose name contains all `parts`, as numbers; None where there is none."""
    names = [n for n in (() if rows is None else rows.dtype.names or ()) if all(part in n for part in parts)]
    return None if rows is None or not names else rows[names[0]].astype(float)


def _size(value: float) -> float:
    return value if is_possible(value) else float("nan")


def _texts(value: Any) -> list[str]:
    return [] if value is None else [str(plain(v)) for v in np.atleast_1d(np.asarray(value, object))]
