"""What is kept of a measured micrograph: its row, its particles and its pictures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tomoseg.io.atomic import atomic_path
from tomoseg.micrographs.api import MeasuredMicrograph
from tomoseg.micrographs.overlay import overlay_picture
from tomoseg.micrographs.records import Record, columns_of

SIZES = ("mean", "std", "d10", "d50", "d90", "d32", "dv50")
LABELS, OVERLAYS = "labels", "overlays"  # folders
FOUND, ADDED, CHANGED, DELETED = "found", "added by hand", "changed by hand", "deleted by hand"


def row_of(
    found: MeasuredMicrograph,
    name: str,
    mark: str,
    where: Mapping[str, str],
    warnings: Sequence[str],
    origins: Sequence[str] | None = None,
) -> Record:
    """Return the record of an image; `origins` (n,) say of each particle whether it was found or added by hand."""
    height, width = found.labels.shape
    bar = found.scale_bar
    row: dict[str, Any] = {
        **where,
        "pixel_size_nm": found.pixel_size_nm,
        "scale_source": found.calibration.source,
        "scale_confidence": found.calibration.confidence,
        "scale_bar_px": bar.length_px,
        "scale_bar_nm": bar.length_nm,
        "scale_bar_label": bar.label,
        "height_px": height,
        "width_px": width,
        "polarity": found.polarity,
        "polarity_by": found.evidence,
        "n_particles": int(found.counted.sum()),
        "n_cut_by_border": int((~found.counted).sum()),
    }
    nm = found.pixel_size_nm
    sizes = found.sizes  # in nm where that is known
    for key in SIZES:
        in_px = sizes[key] / nm if found.unit == "nm" else sizes[key]
        row[f"{key}_nm"], row[f"{key}_px"] = in_px * nm, in_px
    area_px2 = float((~found.left_out).sum())
    row["particles_per_um2"] = row["n_particles"] / (area_px2 * (nm / 1000) ** 2) if found.unit == "nm" else np.nan
    row["covered_share"] = float((found.labels > 0).sum()) / area_px2
    row["notes"], row["warnings"] = "; ".join(found.notes), "; ".join(warnings)
    particles = columns_of(found.table)
    particles["origin"] = list(origins or [FOUND] * len(found.table))
    return Record(name, mark, row, particles)


def write_pictures(
    found: MeasuredMicrograph, place: Callable[[str, str], Path], added: NDArray[np.bool_] | None = None
) -> None:
    """Write labels (PNG of 16 bits) and outlines; `place` (folder, ending) says where.

    `added` (n,) are particles that were added by hand.
    """
    marks = np.zeros(len(found.table), bool) if added is None else added
    cut = np.concatenate([[False], ~found.counted])
    by_hand = np.concatenate([[False], marks])
    _save(Image.fromarray(found.labels.astype(np.uint16)), place(LABELS, ".png"))
    picture = overlay_picture(found.grey, found.labels, cut, found.left_out, by_hand)
    _save(picture, place(OVERLAYS, ".png"))


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=3)
