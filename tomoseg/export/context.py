"""The context of an export: the data, their units and classes, and the folder, as every format is given them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from tomoseg.arrays import Array, ArraySource
from tomoseg.export import sizes
from tomoseg.export.classes import Classes
from tomoseg.export.facts import Facts
from tomoseg.export.manifest import Manifest
from tomoseg.runtime import Runtime

# Of the memory allowed: how much of a volume is read at once.
READING_SHARE = 0.125
PORES = "surface_pores"  # stem of the surface of closed pores
# Image corrections, and the values that change nothing.
NO_CORRECTIONS = {"rotation_deg": 0.0, "magnification": 1.0, "tilt_error_deg": 0.0}


@dataclass(frozen=True)
class AlignmentRecord:
    """The alignment of a series as it is exported, one value per tilt by ascending angle.

    Attributes
    ----------
    angles_deg : (n_tilt,) nominal tilt angles
    shifts_px : (n_tilt, 2) (dy, dx) to add to the coordinates of a raw image
    tilt_axis_angle_deg, tilt_axis_offset_px : direction and offset of the tilt axis, see `tomoseg.io.shifts`
    aligned_shape : (height, width) of the aligned images
    outliers : (n_tilt,) bool, images left out of the reconstruction; None: none
    refined_angles_deg : (n_tilt,) refined tilt angles; None: they were not refined
    image_corrections : (n_tilt,) each of rotation_deg, magnification and tilt_error_deg, as far as known
    """

    angles_deg: ArrayLike
    shifts_px: ArrayLike
    tilt_axis_angle_deg: float
    tilt_axis_offset_px: float
    aligned_shape: tuple[int, int]
    outliers: ArrayLike | None = None
    refined_angles_deg: ArrayLike | None = None
    image_corrections: Mapping[str, ArrayLike] = field(default_factory=dict)

    @classmethod
    def of(cls, series: Any) -> "AlignmentRecord":
        """Return the record of an aligned series as `tomoseg.alignment.api.align` returns it."""
        return cls(
            series.table["angle_deg"],
            series.shifts_px,
            series.tilt_axis_angle_deg,
            series.tilt_axis_offset_px,
            series.aligned.shape[1:],
            series.outliers,
            series.angles_deg,
            corrections_in(series.table),
        )


def corrections_in(table: Array) -> dict[str, Array]:
    """Return the image corrections among the columns of a table of tilts; older projects have none."""
    return {name: table[name] for name in NO_CORRECTIONS if name in (table.dtype.names or ())}


@dataclass(frozen=True)
class SurfacePlan:
    """How a surface is meshed: on cells of `factor`^3 voxels, into at most `triangles` triangles."""

    factor: int
    triangles: int


@dataclass(frozen=True)
class Surface:
    """A surface: the stem of its files, its name, colour #rrggbb, opacity, and VTK poly data until it is written."""

    stem: str
    name: str
    color: str
    opacity: float
    data: Any = None


@dataclass
class ExportContext:
    """An export under way.

    Attributes
    ----------
    manifest : the folder and the files written so far
    volume, labels : array or handle, (z, y, x)
    voxel_size_nm : NaN if unknown
    classes : of the labels
    tables : structured arrays or handles, by file name without ending
    records : numbers for the summary, by topic ("tilt_series", "reconstruction", ...)
    alignment : None: there is none
    formats : names of the formats that are written
    runtime : memory, progress and messages
    planned : how the surface of each class is meshed, by class index
    surfaces : the surfaces written so far, without their data
    """

    manifest: Manifest
    volume: ArraySource
    labels: ArraySource
    voxel_size_nm: float
    classes: Classes
    tables: Mapping[str, ArraySource]
    records: Mapping[str, Mapping[str, Any]]
    alignment: AlignmentRecord | None
    formats: Sequence[str]
    runtime: Runtime
    planned: Mapping[int, SurfacePlan] = field(default_factory=dict)
    surfaces: list[Surface] = field(default_factory=list)

    @property
    def arrays(self) -> dict[str, ArraySource]:
        """Volume and labels, by name."""
        return {"volume": self.volume, "labels": self.labels}

    @property
    def size_is_known(self) -> bool:
        """Whether the voxel size is known."""
        return math.isfinite(self.voxel_size_nm)

    @property
    def voxel_size(self) -> float:
        """Voxel size in `unit`."""
        return self.voxel_size_nm if self.size_is_known else 1.0

    @property
    def unit(self) -> str:
        """Unit of length of the files."""
        return "nm" if self.size_is_known else "voxel (size unknown)"

    @property
    def facts(self) -> Facts:
        """Texts that each file carries, where its format can."""
        source = self.records.get("tilt_series", {})
        return {
            "unit_of_length": self.unit,
            "pixel_size_source": str(source.get("pixel_size_source", "unknown")),
            "raw_file": str(source.get("source", "unknown")),
            "class_names": list(self.classes.names),
        }

    @property
    def has_points(self) -> bool:
        """Whether there is a table of particles with their positions."""
        columns = self.tables["particles"].dtype.names if "particles" in self.tables else None
        return {"z_px", "y_px", "x_px"} <= set(columns or ())

    @property
    def writing_options(self) -> dict[str, Any]:
        """Options that the writers of volumes share: how much is read at once, and how progress is shown."""
        return {"slab_bytes": int(READING_SHARE * self.runtime.max_memory), "track": self.runtime.track}

    @property
    def surface_stems(self) -> list[str]:
        """Stems of the files of all surfaces that may be written."""
        return [*(self.classes.stem(k) for k in range(1, len(self.classes.names))), PORES]

    @cached_property
    def raw_bytes(self) -> dict[str, int]:
        """Bytes of volume and labels without compression."""
        return {name: sizes.raw_bytes(data) for name, data in self.arrays.items()}

    @cached_property
    def compressed_bytes(self) -> dict[str, int]:
        """Estimated bytes of volume and labels with compression."""
        return {name: sizes.compressed_bytes(data) for name, data in self.arrays.items()}

    def surface_bytes(self, ending: str, triangle_bytes: int) -> dict[str, int]:
        """Return the expected bytes of the file of each class's surface."""
        return {f"{self.classes.stem(k)}.{ending}": p.triangles * triangle_bytes for k, p in self.planned.items()}

    def writing(self, name: str, detail: str = "") -> AbstractContextManager[Path]:
        """Yield a temporary path for a file; on leaving without an error the file gets its name, which is said."""
        return self._said(self.manifest.writing(name), detail)

    def writing_folder(self, name: str) -> AbstractContextManager[Path]:
        """Yield a temporary empty folder, as `writing` does a file."""
        return self._said(self.manifest.writing_folder(name), "")

    @contextmanager
    def _said(self, writing: AbstractContextManager[Path], detail: str) -> Iterator[Path]:
        with writing as path:
            yield path
        entry = self.manifest.written[-1]
        size = sizes.as_text(entry["bytes"])
        self.runtime.say(f"wrote {self.manifest.directory / entry['name']} ({size}{detail})")
