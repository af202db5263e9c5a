"""Size distributions: histogram and summary numbers of the particles' diameters."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.measure.surface import FloatArray

SIZE_BIN = np.dtype(
    [
        ("from_nm", "f8"),
        ("to_nm", "f8"),
        ("from_px", "f8"),
        ("to_px", "f8"),
        ("count", "i8"),
        ("number_fraction", "f8"),
        ("volume_fraction", "f8"),
    ]
)
MOST_BINS = 60


def size_table(diameters_px: ArrayLike, voxel_size_nm: float, bin_width_nm: float | None = None) -> NDArray[np.void]:
    """Return the histogram of diameters, weighted by number and by volume.

    Parameters
    ----------
    diameters_px : (n,)
        Diameters of the spheres of equal volume, px.
    voxel_size_nm
        NaN where unknown: then the bins are px, and `bin_width_nm` is not used.
    bin_width_nm
        Width of a bin; None: by the rule of Freedman and Diaconis or of Sturges, whichever is finer, from the
        smallest to the largest diameter. With a width, the edges are multiples of it.

    Returns
    -------
    array of `SIZE_BIN`, (n_bins,)
        A bin holds diameters from its lower edge up to but not including its upper one (the last one includes it).
        `volume_fraction` is the part of all particles' volume that is in the bin. No bins without particles.
    """
    diameters = np.asarray(diameters_px, dtype=np.float64)
    if diameters.size == 0:
        return np.zeros(0, SIZE_BIN)
    edges = _edges(diameters, None if bin_width_nm is None or np.isnan(voxel_size_nm) else bin_width_nm / voxel_size_nm)
    count, _ = np.histogram(diameters, edges)
    volume, _ = np.histogram(diameters, edges, weights=diameters**3)
    table = np.zeros(len(count), SIZE_BIN)
    table["from_px"], table["to_px"] = edges[:-1], edges[1:]
    table["from_nm"], table["to_nm"] = edges[:-1] * voxel_size_nm, edges[1:] * voxel_size_nm
    table["count"] = count
    table["number_fraction"] = count / count.sum()
    table["volume_fraction"] = volume / volume.sum()
    return table


def size_summary(diameters: ArrayLike) -> dict[str, float]:
    """Return the summary numbers of a set of diameters, in their unit; NaN where there are none.

    Mean, standard deviation (of a sample, n - 1; NaN for one), median and the number-weighted percentiles d10, d50
    and d90; the volume-weighted mean d43 = sum d^4 / sum d^3 and percentiles dv10, dv50 and dv90: the diameter below
    which particles hold that part of the volume (ISO 9276-2).
    """
    d = np.sort(np.asarray(diameters, dtype=np.float64))
    names = ("mean", "std", "median", "d10", "d50", "d90", "d43", "dv10", "dv50", "dv90")
    if d.size == 0:
        return dict.fromkeys(names, float("nan"))
    d10, d50, d90 = np.quantile(d, (0.1, 0.5, 0.9))
    volume = d**3
    # Each particle's volume is centred on its diameter in the cumulative curve.
    dv10, dv50, dv90 = np.interp((0.1, 0.5, 0.9), (np.cumsum(volume) - volume / 2) / volume.sum(), d)
    std = d.std(ddof=1) if d.size > 1 else np.nan
    values = (d.mean(), std, d50, d10, d50, d90, (d**4).sum() / volume.sum(), dv10, dv50, dv90)
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _edges(diameters: FloatArray, width: float | None) -> FloatArray:
    low, high = float(diameters.min()), float(diameters.max())
    if width is not None:
        first, last = np.floor(low / width), np.floor(high / width) + 1
        return np.asarray(np.arange(first, last + 1) * width, dtype=np.float64)
    if high - low < 1e-9 * high:
        return np.array([low * 0.95, low * 1.05])
    edges = np.histogram_bin_edges(diameters, "auto")
    return edges if len(edges) <= MOST_BINS + 1 else np.linspace(low, high, MOST_BINS + 1)
