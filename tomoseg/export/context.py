"""The context of an export: the data, their units and classes, and the folder, as every format is given them."""

import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tomoseg.arrays import Array, ArraySource
from tomoseg.classes import problems_with_colors
from tomoseg.errors import printable
from tomoseg.export.manifest import Atomic, Manifest
from tomoseg.io.atomic import atomic_path
from tomoseg.palette import EXPORTED_CLASSES
from tomoseg.runtime import Runtime
from tomoseg.words import bytes_as_text

# Short texts that exported files carry about the data: unit of length, raw file, names of classes.
Facts = Mapping[str, str | Sequence[str]]

READING_SHARE = 0.125  # of the memory allowed: how much of a volume is read at once
READING_BYTES = 128 << 20  # read at once, at most: the next part is read while this one is written
LONGEST_STEM = 60  # characters of a class name in a file name
PORES = "surface_pores"  # stem of the surface of closed pores
GLASS = 0.25  # opacity of the surfaces around the particles
# Compressors differ, and so do planes: estimated sizes are this much above what the sampled planes took.
MARGIN, SAMPLED_PLANES = 1.25, 3
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
        """Return the record of what `tomoseg.alignment.api.align` returns."""
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


def as_texts(facts: Facts) -> dict[str, str]:
    """Return one text per fact, for formats that cannot hold lists."""
    return {key: text if isinstance(text, str) else ", ".join(text) for key, text in facts.items()}


def signal_stem(index: int, name: str) -> str:
    """Return a file name for the volume of a further signal, its index before its name without odd characters."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:LONGEST_STEM].strip("._-") or "signal"
    return f"signal_{index}_{plain}"


def surface_stem(index: int, name: str) -> str:
    """Return a file name for the surface of a class; the index separates names that differ in odd characters only."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:LONGEST_STEM].strip("._-") or "class"
    return f"surface_{index}_{plain}"


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
    class_names : in class order
    class_colors : one #rrggbb per class; replaced by those of the palette if they are not
    particle_class : name of the class whose objects are particles; the last class unless it is one of the names
    tables : structured arrays or handles, by file name without ending
    records : numbers for the summary, by topic ("tilt_series", "reconstruction", ...)
    alignment : None: there is none
    formats : names of the formats that are written
    runtime : memory, progress and messages
    planned : how the surface of each class is meshed, by class index
    surfaces : the surfaces written so far, without their data
    signals : volumes of further signals (z, y, x), by file name without ending
    """

    manifest: Manifest
    volume: ArraySource
    labels: ArraySource
    voxel_size_nm: float
    class_names: Sequence[str]
    class_colors: Sequence[str]
    particle_class: str
    tables: Mapping[str, ArraySource]
    records: Mapping[str, Mapping[str, Any]]
    alignment: AlignmentRecord | None
    formats: Sequence[str]
    runtime: Runtime
    planned: Mapping[int, SurfacePlan] = field(default_factory=dict)
    surfaces: list[Surface] = field(default_factory=list)
    signals: Mapping[str, ArraySource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.class_names = [printable(name) for name in self.class_names]
        n = len(self.class_names)
        if problems_with_colors(self.class_colors, n):
            self.class_colors = [EXPORTED_CLASSES[k % len(EXPORTED_CLASSES)] for k in range(n)]
        names, particles = list(self.class_names), printable(self.particle_class)
        self.particles = names.index(particles) if particles in names else n - 1

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
            "pixel_size_source": printable(source.get("pixel_size_source", "unknown")),
            "raw_file": printable(source.get("source", "unknown")),
            "class_names": list(self.class_names),
        }

    @property
    def has_points(self) -> bool:
        """Whether there is a table of particles with their positions."""
        columns = self.tables["particles"].dtype.names if "particles" in self.tables else None
        return {"z_px", "y_px", "x_px"} <= set(columns or ())

    @property
    def writing_options(self) -> dict[str, Any]:
        """Options that the writers of volumes share: how much is read at once, and how progress is shown."""
        most = min(READING_SHARE * self.runtime.max_memory, READING_BYTES)
        return {"slab_bytes": int(most), "track": self.runtime.track}

    @cached_property
    def raw_bytes(self) -> dict[str, int]:
        """Bytes of volume, labels and volumes of further signals without compression."""
        every = {**self.arrays, **self.signals}
        return {name: math.prod(int(n) for n in data.shape) * data.dtype.itemsize for name, data in every.items()}

    @cached_property
    def compressed_bytes(self) -> dict[str, int]:
        """Estimated bytes of volume and labels compressed with shuffled bytes, from a few of their planes."""
        found = {}
        for name, data in self.arrays.items():
            planes = ((2 * i + 1) * data.shape[0] // (2 * SAMPLED_PLANES) for i in range(SAMPLED_PLANES))
            share = sum(_compressed_share(data, z) for z in planes) / SAMPLED_PLANES
            found[name] = int(min(1.0, MARGIN * share) * self.raw_bytes[name])
        return found

    def stem(self, k: int) -> str:
        """Return the file name, without its ending, of the surface of class `k`."""
        return surface_stem(k, self.class_names[k])

    def appearance(self, k: int) -> tuple[str, float]:
        """Return colour and opacity of a surface: that of its class, as everywhere; all but the particles are glass."""
        return self.class_colors[k], 1.0 if k == self.particles else GLASS

    def surface_files(self, ending: str, triangle_bytes: int) -> dict[str, int]:
        """Return the names of the files of all surfaces that may be written, with the bytes to expect where planned."""
        sizes = {self.stem(k): 0 for k in range(1, len(self.class_names))} | {PORES: 0}
        sizes |= {self.stem(k): plan.triangles * triangle_bytes for k, plan in self.planned.items()}
        return {f"{stem}.{ending}": size for stem, size in sizes.items()}

    @contextmanager
    def writing(self, name: str, detail: str = "", atomic: Atomic = atomic_path) -> Iterator[Path]:
        """Yield a temporary path; on leaving without an error the file gets its name, which is said with the detail."""
        with self.manifest.writing(name, atomic) as path:
            yield path
        size = bytes_as_text(self.manifest.written[-1]["bytes"])
        self.runtime.say(f"wrote {self.manifest.directory / name} ({size}{detail})")


def _compressed_share(data: ArraySource, z: int) -> float:
    plane = np.ascontiguousarray(data[z : z + 1]).view(np.uint8).reshape(-1, data.dtype.itemsize)
    return len(zlib.compress(plane.T.tobytes(), 1)) / plane.size
