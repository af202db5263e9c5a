"""Segmentation of a volume, as a function: a class for every voxel, by a trained network or by thresholds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.arrays import ArraySource, MemoryOutputs, Outputs
from tomoseg.errors import InputError
from tomoseg.keywords import takes_parameters
from tomoseg.lengths import size_or_nan
from tomoseg.runtime import Runtime
from tomoseg.schema import CONFIDENCE, LABELS
from tomoseg.segmentation.labelling import LabelSummary
from tomoseg.segmentation.networks.known_models import resolve_model
from tomoseg.segmentation.parameters import DEFAULT_MODEL, SegmentParameters, check


@dataclass(frozen=True)
class Segmentation:
    """A labelled volume.

    Attributes
    ----------
    labels : (z, y, x) u1 array
        Class of each voxel, 0 for the first (background).
    confidence : (z, y, x) u1 array or None
        Largest probability of each voxel times 255; None for labels by thresholds.
    class_names, class_colors : list of str
        In class order; colours as #rrggbb.
    class_fractions : list of float
        Fraction of the voxels in each class.
    info : dict
        How the labels were made: 'method' ('otsu' or 'unet'); 'thresholds' and 'class_levels' in the unit of the
        volume, or 'model', 'engine', 'plane', 'patch_px', 'zoom', 'intensity_zero', 'intensity_one', ...
    notes, warnings : list of str
        What was said on the way.
    """

    labels: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None
    class_names: list[str]
    class_colors: list[str]
    class_fractions: list[float]
    info: dict[str, Any]
    notes: list[str]
    warnings: list[str]


@takes_parameters("segment", SegmentParameters, check)
def segment(
    volume: ArrayLike | ArraySource,
    *,
    voxel_size_nm: float | None = None,
    params: SegmentParameters,
    runtime: Runtime,
) -> Segmentation:
    """Give every voxel of a volume a class, by a trained network or by intensity thresholds.

    Parameters
    ----------
    volume : (z, y, x) array of numbers, or a handle that is read by slicing
        Reconstruction: y along the tilt axis, z along the beam at zero tilt.
    voxel_size_nm : float, optional
        Edge length of a voxel in nm, by which a network's slices are resampled to its pixel size. Default: the
        attribute `voxel_size_nm` of a handle; unknown otherwise, and slices are not resampled.

    Returns
    -------
    Segmentation
        `labels` (z, y, x) u1, `confidence` (z, y, x) u1 or None, `class_names`, `class_colors`, `class_fractions`,
        `info`, `notes` and `warnings`.

    Raises
    ------
    InputError
        Wrong options, a model file that cannot be used, or an array that is no volume.
    StageFailed
        The volume holds NaN or a single value, or its intensities do not separate into that many classes.

    Notes
    -----
    Thresholds lie half-way between the levels of the classes, which start from a multi-level Otsu criterion on the
    logarithm of the histogram (Otsu, IEEE Trans. SMC 9, 1979), so that rare bright particles are found. A network
    predicts overlapping patches of slices, blended with a squared spline window, as in Genc, Kovarik & Fraser,
    Sci. Rep. 12, 16267 (2022).

    Examples
    --------
    A ball of support with a bright particle in its middle:

    >>> import numpy as np
    >>> import tomoseg as ts
    >>> radius = np.linalg.norm(np.indices((32, 32, 32)) - 15.5, axis=0)
    >>> truth = np.where(radius < 5, 2, np.where(radius < 12, 1, 0))
    >>> volume = np.float32([0, 75, 300])[truth]
    >>> segmentation = ts.segment(volume, method="otsu")
    >>> segmentation.class_names
    ['background', 'support', 'particles']
    >>> bool(np.all(segmentation.labels == truth))
    True

    With a trained network, here the one that ships with tomoseg: ``segment(volume, model="gamma-alumina-pt",
    voxel_size_nm=0.25)``.
    """
    source: ArraySource = volume if hasattr(volume, "dtype") else np.asarray(volume)  # type: ignore[assignment]
    if voxel_size_nm is None:
        voxel_size_nm = size_or_nan(getattr(source, "attrs", {}).get("voxel_size_nm"))
    outputs = MemoryOutputs()
    summary = segment_volume(source, voxel_size_nm, params, runtime, outputs)
    return Segmentation(
        labels=outputs.arrays[LABELS.name],
        confidence=outputs.arrays.get(CONFIDENCE.name),
        class_names=summary.class_names,
        class_colors=summary.class_colors,
        class_fractions=summary.class_fractions,
        info=summary.info,
        notes=list(runtime.notes),
        warnings=list(runtime.warnings),
    )


def segment_volume(
    volume: ArraySource, voxel_size_nm: float, params: SegmentParameters, runtime: Runtime, outputs: Outputs
) -> LabelSummary:
    """Label a volume slab by slab; labels, and with a network confidence, go to `outputs`.

    Parameters
    ----------
    volume : (z, y, x)
    voxel_size_nm : NaN where unknown
    outputs : receives 'labels' and 'confidence' (z, y, x) u1, and a checkpoint after each slab
    """
    if len(volume.shape) != 3 or min(volume.shape) < 1 or volume.dtype.kind not in "fiu":
        raise InputError(
            f"a volume is a (z, y, x) array of numbers, not one of {volume.dtype} and shape {volume.shape}"
        )
    no_network = ""
    began_by_thresholds = "thresholds" in (outputs.resumed or {})
    if params.tries_default_network and not began_by_thresholds:
        from tomoseg.segmentation.inference.label_volume import Unlike, label_with_network

        named = params.model_copy(update={"model": resolve_model(DEFAULT_MODEL)})
        try:
            return label_with_network(volume, voxel_size_nm, named, runtime, outputs, only_alike=True)
        except Unlike as unlike:
            no_network = f"the volume is unlike those that {DEFAULT_MODEL} was trained on ({unlike})"
    if params.uses_network:
        from tomoseg.segmentation.inference.label_volume import label_with_network

        return label_with_network(volume, voxel_size_nm, params, runtime, outputs)
    from tomoseg.segmentation.thresholds.label_volume import label_by_thresholds

    return label_by_thresholds(volume, voxel_size_nm, params, runtime, outputs, no_network)
