"""tomoseg: from a raw electron-tomography tilt series to a measured, segmented 3D volume.

>>> import tomoseg as ts
>>> raw = ts.read_series("HAADF.mrc", angles="HAADF.rawtlt")  # doctest: +SKIP
>>> al = ts.align(raw.images, raw.angles_deg)  # doctest: +SKIP
>>> rec = ts.reconstruct(al.aligned, al.angles_deg, iterations=30)  # doctest: +SKIP
>>> seg = ts.segment(rec.volume, classes=3)  # doctest: +SKIP
>>> mes = ts.measure(seg.labels, rec.volume, voxel_size_nm=raw.pixel_size_nm)  # doctest: +SKIP

`run` takes a series through all of it into a project file, and `open_project` reads one. `measure_image` finds and
measures the particles of a single micrograph.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tomoseg.alignment.api import align as align
    from tomoseg.api import open_project as open_project
    from tomoseg.api import run as run
    from tomoseg.io.api import read_series as read_series
    from tomoseg.measurement.api import measure as measure
    from tomoseg.micrographs.api import measure_image as measure_image
    from tomoseg.reconstruction.api import reconstruct as reconstruct
    from tomoseg.segmentation.api import segment as segment

__version__ = "0.1.0"

# Loaded when they are first used: importing tomoseg takes milliseconds.
_FUNCTIONS = {
    "read_series": "tomoseg.io.api",
    "align": "tomoseg.alignment.api",
    "reconstruct": "tomoseg.reconstruction.api",
    "segment": "tomoseg.segmentation.api",
    "measure": "tomoseg.measurement.api",
    "measure_image": "tomoseg.micrographs.api",
    "run": "tomoseg.api",
    "open_project": "tomoseg.api",
}
__all__ = [
    "__version__",
    "align",
    "measure",
    "measure_image",
    "open_project",
    "read_series",
    "reconstruct",
    "run",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'tomoseg' has no attribute '{name}'")
    return getattr(import_module(_FUNCTIONS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUNCTIONS})
