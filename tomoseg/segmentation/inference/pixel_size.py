"""The pixel size that a network was trained on, and that of a volume."""

import math

from tomoseg.errors import InputError
from tomoseg.runtime import Runtime

SAME_PIXEL_SIZE = 1.05  # slices of a pixel size as close to the network's as this are not resampled
ODD_PIXEL_SIZE, IMPOSSIBLE_PIXEL_SIZE = 4.0, 16.0  # times smaller or larger: warned of, refused


def zoom_to_network(voxel_size_nm: float, trained_nm: float | None, runtime: Runtime, *, rescale: bool) -> float:
    """Return the factor by which slices are resampled for a network, and report why; 1 for none.

    Raises `InputError`: the sizes differ by more than any resampling can mend.

    Parameters
    ----------
    voxel_size_nm : NaN where unknown
    trained_nm : pixel size of the network's training slices; None where unknown
    rescale : False to resample nothing, and warn where the sizes differ
    """
    if not trained_nm or not math.isfinite(voxel_size_nm):
        unknown = "pixel size of the network's training slices" if not trained_nm else "voxel size"
        runtime.say(f"the {unknown} is unknown: slices are not resampled for the network")
        return 1.0
    zoom = voxel_size_nm / trained_nm
    if 1 / SAME_PIXEL_SIZE <= zoom <= SAME_PIXEL_SIZE:
        return 1.0
    sizes = f"the network was trained on pixels of {trained_nm:.4g} nm, and the voxels are {voxel_size_nm:.4g} nm"
    if not rescale:
        runtime.warn(f"{sizes}: to the network objects look {1 / zoom:.2g} times as large, and labels may be poor")
        return 1.0
    if not 1 / IMPOSSIBLE_PIXEL_SIZE <= zoom <= IMPOSSIBLE_PIXEL_SIZE:
        raise InputError(
            f"{sizes}: these differ by a factor of {max(zoom, 1 / zoom):.3g}, too much to resample. Correct the pixel "
            "size (tomoseg import --pixel-size), choose another network, or turn segment.rescale off"
        )
    said = f"{sizes}: slices are resampled to {zoom:.3g} times as many pixels across"
    if 1 / ODD_PIXEL_SIZE <= zoom <= ODD_PIXEL_SIZE:
        runtime.say(said)
    else:
        runtime.warn(f"{said}. So large a difference is usually a mistake: check the pixel size of the series")
    return zoom
