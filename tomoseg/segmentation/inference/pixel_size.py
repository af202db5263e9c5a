"""By how much slices are resampled, so that a network sees objects as large as those it was trained on."""

import math
from dataclasses import dataclass

from tomoseg.errors import InputError

SAME_PIXEL_SIZE = 1.05  # slices of a pixel size as close to the network's as this are not resampled
ODD_PIXEL_SIZE, IMPOSSIBLE_PIXEL_SIZE = 4.0, 16.0  # times smaller or larger: warned of, refused


@dataclass(frozen=True)
class NetworkZoom:
    """The factor by which slices are resampled, 1 for not at all; what is told of it, and whether that is a warning."""

    factor: float
    told: str = ""
    is_doubtful: bool = False


def network_zoom(voxel_size_nm: float, trained_nm: float | None, *, rescale: bool) -> NetworkZoom:
    """Return how slices are resampled for a network.

    The voxel size is NaN, the pixel size of the network's training slices None where unknown. Without `rescale` nothing
    is resampled. Raises `InputError`: the sizes differ by more than any resampling can mend.
    """
    if not trained_nm or not math.isfinite(voxel_size_nm):
        unknown = "pixel size of the network's training slices" if not trained_nm else "voxel size"
        return NetworkZoom(1.0, f"the {unknown} is unknown: slices are not resampled for the network")
    zoom = voxel_size_nm / trained_nm
    if 1 / SAME_PIXEL_SIZE <= zoom <= SAME_PIXEL_SIZE:
        return NetworkZoom(1.0)
    sizes = f"the network was trained on pixels of {trained_nm:.4g} nm, and the voxels are {voxel_size_nm:.4g} nm"
    if not rescale:
        told = f"{sizes}: to the network objects look {1 / zoom:.2g} times as large, and labels may be poor"
        return NetworkZoom(1.0, told, is_doubtful=True)
    if not 1 / IMPOSSIBLE_PIXEL_SIZE <= zoom <= IMPOSSIBLE_PIXEL_SIZE:
        raise InputError(
            f"{sizes}: these differ by a factor of {max(zoom, 1 / zoom):.3g}, too much to resample. Correct the pixel "
            "size (tomoseg import --pixel-size), choose another network, or turn segment.rescale off"
        )
    told = f"{sizes}: slices are resampled to {zoom:.3g} times as many pixels across"
    if 1 / ODD_PIXEL_SIZE <= zoom <= ODD_PIXEL_SIZE:
        return NetworkZoom(zoom, told)
    told += ". So large a difference is usually a mistake: check the pixel size of the series"
    return NetworkZoom(zoom, told, is_doubtful=True)
