"""Stage `align`: background, shifts, tilt axis, and every raw image resampled once into the aligned frame."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg import schema
from tomoseg.arrays import Array, Input, Outputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.runtime import Runtime, slabs
from tomoseg.stages.base import Field, Parameters, Stage

if TYPE_CHECKING:
    from tomoseg.align.background import Backgrounds, VacuumFit
    from tomoseg.align.copies import Copies
    from tomoseg.align.estimate import Alignment
    from tomoseg.align.trust import Judgement

NOMINAL_DEG = {"y": 0.0, "x": 90.0}
# Shifts and axis are estimated on copies of at most this side and, for very many tilts, this many pixels in all: the
# same whatever the memory allowed, so that the result is. Alive at once are the copies, the copies in the aligned frame
# with a mask, what they are predicted to be, and blocks of fixed size: 0.2 GB at most.
COPY_PX, COPY_PIXELS = 256, 180 * 256**2
COPY_ARRAYS = 3.25
QUALITY_DTYPE = np.dtype(
    [
        ("angle_deg", "f8"),
        ("background", "f8"),
        ("scale", "f8"),
        ("correlation_before", "f8"),
        ("correlation_after", "f8"),
        ("is_outlier", "u1"),
        ("residual_before", "f8"),
        ("residual_after", "f8"),
        ("error_px", "f8"),
        ("error_uncertainty_px", "f8"),
    ]
)


class AlignParameters(Parameters):
    """How the tilt series is brought into register."""

    method: Literal["auto", "xcorr", "none"] = Field(
        "auto",
        description="auto, xcorr: cross-correlation of neighbouring tilts, then common line and centre of mass where "
        "the sample is whole in the frame, or comparison with reprojections where it is not; none: the series is "
        "aligned already, shifts are zero and the axis is as given",
    )
    tilt_axis_angle: float | None = Field(
        None,
        gt=-90,
        le=90,
        description="direction of the tilt axis in degrees from the raw image's vertical, counter-clockwise as "
        "displayed; null: found from the images, within 20 degrees of the nominal direction where the import knows one",
    )
    tilt_axis_offset: float | None = Field(
        None,
        description="distance of the tilt axis from the image centre in px after rotation, positive to the right; "
        "null: found from the images, or 0 with method none",
    )
    background: Literal["auto", "none"] | float = Field(
        "auto",
        description="counts of vacuum to subtract: auto (darkest flat part of each image), none, or a number for all",
    )
    normalise: bool = Field(
        False,
        description="scale each aligned image so that its brightness agrees with the others. Off by default: beam "
        "currents are mostly steady, and a sample that the frame cuts is rightly brighter at high tilt",
    )
    low_frequency: float | None = Field(
        None, gt=0, lt=0.5, description="lower limit of the band-pass in cycles per raw pixel; null: 3 cycles per image"
    )
    high_frequency: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="upper limit of the band-pass in cycles per raw pixel; null: a quarter of a cycle per pixel of the "
        "copy worked on (of at most 256 px)",
    )
    max_shift: float = Field(
        1 / 3, gt=0, le=0.5, description="largest step between neighbouring tilts, as a part of the longer image side"
    )


def check(params: AlignParameters) -> list[str]:
    """Say which parameters contradict each other."""
    low, high = params.low_frequency, params.high_frequency
    if low is not None and high is not None and low >= high:
        return [f"align.low_frequency {low:g} must be below align.high_frequency {high:g} cycles per pixel"]
    return []


def run(
    *,
    tilt_series: Input,
    angles_deg: Input,
    tilt_series_info: Input,
    params: AlignParameters,
    runtime: Runtime,
    outputs: Outputs,
) -> None:
    """Align `tilt_series`; see `tomoseg.align.warp` for what the numbers mean."""
    from tomoseg.align.trust import judge

    angles = _angles(tilt_series, angles_deg)
    survey, copies = _survey(tilt_series, angles, params, runtime)
    nominal = NOMINAL_DEG.get(str(tilt_series_info.attrs.get("tilt_axis", "unknown")))
    if params.method == "none":
        alignment = _as_given(copies, nominal, params, runtime)
    else:
        alignment = _estimated(copies, nominal, params, runtime)
    scales = _scales(copies, alignment, params)
    outliers = _outliers(survey, alignment)
    for _ in runtime.track([0], "judging the alignment"):
        judgement = judge(copies, alignment, scales, outliers, tilt_series.shape[1:])
    del copies  # the memory is wanted for the images at full size
    _write_aligned(tilt_series, survey, alignment, scales, runtime, outputs)
    outputs.put("shifts_px", alignment.shifts_px)
    table = _quality_table(angles, survey, alignment, scales, outliers)
    judgement.fill(table)
    outputs.put("tilt_quality", table)
    outputs.set_attrs("alignment_info", _info(alignment, params) | judgement.attrs())
    if (shown := judgement.preview) is not None:
        outputs.put("alignment_preview", shown.slices, {"voxel_size_px": float(shown.factor), "row": shown.row})
    _report(angles, survey, alignment, outliers, params, runtime)
    _report_judgement(judgement, params, runtime)


@dataclass(frozen=True)
class _Survey:
    """What one reading of the whole series says of each tilt."""

    usable: NDArray[np.bool_]
    levels: NDArray[np.float64]
    how: str
    trusted: bool


def _angles(tilt_series: Input, angles_deg: Input) -> NDArray[np.float64]:
    """Return the angles, or refuse a series that is none."""
    angles = np.asarray(angles_deg[:], np.float64)
    if len(tilt_series.shape) != 3 or tilt_series.shape[0] != len(angles):
        raise InputError(
            f"the tilt series has the shape {tuple(tilt_series.shape)} and there are {len(angles)} angles: "
            "one angle is needed for each image; import the series again with the right angles"
        )
    if min(tilt_series.shape[1:]) < 8:
        raise InputError(f"images of {tilt_series.shape[2]} x {tilt_series.shape[1]} pixels are too small to align")
    return angles


def _survey(
    tilt_series: Input, angles: NDArray[np.float64], params: AlignParameters, runtime: Runtime
) -> "tuple[_Survey, Copies]":
    """Read every image once: its background, and a reduced copy."""
    from tomoseg.align.background import fit_vacuum
    from tomoseg.align.copies import Copies, reduce, reduction_factor
    from tomoseg.align.intensity import usable_tilts
    from tomoseg.align.reproject import BLOCK_BYTES

    n, *shape = tilt_series.shape
    factor = reduction_factor(tuple(shape), _longest_copy(n))
    needed = BLOCK_BYTES + 4 * COPY_ARRAYS * n * (shape[0] // factor) * (shape[1] // factor)
    if needed > runtime.max_memory:
        runtime.warn(f"alignment needs about {needed / 2**20:.0f} MB of memory, more than the limit given")
    fits: list[VacuumFit] = []
    finite = np.zeros(n, bool)
    images = np.empty((0, 0, 0), np.float32)
    for i, image in _images(tilt_series, runtime, "reading the tilt series"):
        known = np.isfinite(image)
        finite[i] = known.mean() > 0.99
        fits.append(fit_vacuum(np.where(known, image, image[known].min() if known.any() else 0)))
        small = reduce(_filled(image, fits[i].level), factor)
        if i == 0:
            images = np.empty((n, *small.shape), np.float32)
        images[i] = small
    usable = usable_tilts(np.array([f.signal for f in fits]), finite)
    if not usable.any():
        raise StageFailed(
            "every image of the tilt series is empty: no image holds anything brighter than its background. Check the "
            "raw file in another viewer and import it again."
        )
    found = _levels(fits, usable, angles, params)
    images -= found.levels[:, None, None].astype(np.float32)
    images[~usable] = 0
    # One scale for all: correlations do not depend on it.
    images /= max(float(np.quantile(images[usable], 0.999, overwrite_input=True)), 1e-30)
    copies = Copies(images, angles, usable, factor, runtime.workers, runtime.check)
    return _Survey(usable, found.levels, found.how, found.trusted), copies


def _longest_copy(n_tilt: int) -> int:
    """Return the longest side in px of the copies that the alignment is estimated on."""
    return max(64, min(COPY_PX, int(np.sqrt(COPY_PIXELS / n_tilt))))


def _images(tilt_series: Input, runtime: Runtime, what: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield index and image, reading as many at once as memory allows."""
    n, height, width = tilt_series.shape
    size = runtime.slab_size(height * width * 40, n)  # raw, f4, and the f8 copies of one image at a time
    for slab in runtime.track(slabs(n, min(size, 16)), what):
        for i, image in enumerate(tilt_series[slab], slab.start):
            runtime.check()
            yield i, np.asarray(image, np.float32)


def _filled(image: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """Return an image with pixels that are no number at the background level."""
    return np.where(np.isfinite(image), image, np.float32(level))


def _levels(
    fits: "list[VacuumFit]", usable: NDArray[np.bool_], angles: NDArray[np.float64], params: AlignParameters
) -> "Backgrounds":
    """Return the level of every tilt, as asked for."""
    from tomoseg.align.background import Backgrounds, combine_levels

    if isinstance(params.background, float):
        return Backgrounds(
            np.full(len(fits), params.background), f"{params.background:g} counts as given", trusted=True
        )
    if params.background == "none":
        return Backgrounds(np.zeros(len(fits)), "nothing subtracted, as asked", trusted=True)
    known = np.flatnonzero(usable)
    found = combine_levels([fits[i] for i in known], angles[known])
    return Backgrounds(np.interp(np.arange(len(fits)), known, found.levels), found.how, found.trusted)


def _as_given(copies: "Copies", nominal: float | None, params: AlignParameters, runtime: Runtime) -> "Alignment":
    """Return the alignment of a series that is aligned already."""
    from tomoseg.align.consistency import is_whole, row_window
    from tomoseg.align.estimate import Alignment
    from tomoseg.align.quality import measure_quality

    angle = params.tilt_axis_angle if params.tilt_axis_angle is not None else nominal
    if angle is None:
        angle = 0.0
        runtime.warn(
            "method none and the direction of the tilt axis is unknown: taken as the raw image's vertical; say "
            "--tilt-axis-angle 90 if it is horizontal"
        )
    offset = params.tilt_axis_offset or 0.0
    moves = np.zeros((copies.n_tilt, 2))
    before = measure_quality(copies, moves, angle)
    moves[:, 1] = -offset / copies.factor
    after = measure_quality(copies, moves, angle)
    aligned, seen = copies.warped(moves, angle)
    whole = is_whole(aligned, seen, row_window(seen, copies.usable), copies.usable)
    return Alignment(np.zeros((copies.n_tilt, 2)), angle, offset, before, after, whole, float("nan"))


def _estimated(copies: "Copies", nominal: float | None, params: AlignParameters, runtime: Runtime) -> "Alignment":
    """Find shifts and axis from the images."""
    from tomoseg.align.estimate import estimate_alignment
    from tomoseg.align.track import Band

    for _ in runtime.track([0], "finding shifts and tilt axis"):
        found = estimate_alignment(
            copies,
            axis_angle_deg=params.tilt_axis_angle,
            axis_near_deg=nominal,
            axis_offset_px=params.tilt_axis_offset,
            band=Band(params.low_frequency, params.high_frequency),
            max_shift=params.max_shift,
        )
    return found


def _scales(copies: "Copies", alignment: "Alignment", params: AlignParameters) -> NDArray[np.float64]:
    """Return the factor for the brightness of each tilt."""
    from tomoseg.align.intensity import intensity_scales

    if not params.normalise:
        return np.ones(copies.n_tilt)
    moves = alignment.moves_px / copies.factor
    return intensity_scales(copies, moves, alignment.axis_angle_deg, whole=alignment.whole)


def _write_aligned(
    tilt_series: Input,
    survey: _Survey,
    alignment: "Alignment",
    scales: NDArray[np.float64],
    runtime: Runtime,
    outputs: Outputs,
) -> None:
    """Resample each raw image once: background, scale, shift, rotation and offset together."""
    from tomoseg.align.warp import aligned_shape, warp_image

    n, *raw_shape = tilt_series.shape
    shape = aligned_shape(tuple(raw_shape), alignment.axis_angle_deg)
    aligned = outputs.create("aligned", (n, *shape))

    def one(i: int, image: Array) -> NDArray[np.float32]:
        runtime.check()
        if not survey.usable[i]:
            return np.zeros(shape, np.float32)
        level = survey.levels[i]
        # In f8: counts near -32000 in f4 would lose a part of a faint signal's last digits.
        data = (_filled(image, level).astype(np.float64) - level) * scales[i]
        return warp_image(data, alignment.shifts_px[i], alignment.axis_angle_deg, alignment.axis_offset_px)

    workers = max(1, runtime.workers)
    size = runtime.slab_size(raw_shape[0] * raw_shape[1] * 48, n)
    with ThreadPoolExecutor(workers) as pool:
        for slab in runtime.track(slabs(n, min(size, 4 * workers)), "resampling"):
            raw = np.asarray(tilt_series[slab])
            done = np.empty((len(raw), *shape), np.float32)
            for i, image in enumerate(pool.map(one, range(slab.start, slab.stop), raw)):
                done[i] = image
            aligned[slab] = done


def _outliers(survey: _Survey, alignment: "Alignment") -> NDArray[np.bool_]:
    """Say which tilts are empty, or agree with their neighbours far less than the others do."""
    after = alignment.after.neighbours
    odd = ~survey.usable
    known = np.isfinite(after)
    if known.sum() >= 5:
        usual = np.median(after[known])
        scatter = 1.5 * np.median(np.abs(after[known] - usual))
        odd[known] |= after[known] < usual - max(0.15, 8 * scatter)
    return np.asarray(odd)


def _quality_table(
    angles: NDArray[np.float64],
    survey: _Survey,
    alignment: "Alignment",
    scales: NDArray[np.float64],
    outliers: NDArray[np.bool_],
) -> Array:
    """Return the table of figures per tilt; correlations of empty tilts are 0."""
    table = np.zeros(len(angles), QUALITY_DTYPE)
    table["angle_deg"], table["background"], table["scale"] = angles, survey.levels, scales
    table["correlation_before"] = np.nan_to_num(alignment.before.neighbours)
    table["correlation_after"] = np.nan_to_num(alignment.after.neighbours)
    table["is_outlier"] = outliers
    return table


def _info(alignment: "Alignment", params: AlignParameters) -> dict[str, str | float]:
    """Return the attributes stored with the alignment."""
    found = "xcorr, centre of mass and common line" if alignment.whole else "xcorr, reprojection"
    if not np.isfinite(alignment.residual):
        found = "xcorr"
    return {
        "tilt_axis_angle_deg": alignment.axis_angle_deg,
        "tilt_axis_offset_px": alignment.axis_offset_px,
        "method": "none" if params.method == "none" else found,
        "correlation_before": alignment.before.median,
        "correlation_after": alignment.after.median,
        "common_line_before": alignment.before.common_line,
        "common_line_after": alignment.after.common_line,
    }


def _report(
    angles: NDArray[np.float64],
    survey: _Survey,
    alignment: "Alignment",
    outliers: NDArray[np.bool_],
    params: AlignParameters,
    runtime: Runtime,
) -> None:
    """Tell what was found, and whether it should be trusted."""
    (runtime.say if survey.trusted else runtime.warn)(f"background: {survey.how}")
    source = "given" if params.tilt_axis_angle is not None else "as imported" if params.method == "none" else "found"
    before, after = alignment.before, alignment.after
    runtime.say(
        f"tilt axis {alignment.axis_angle_deg:.2f} degrees from the vertical ({source}), "
        f"{alignment.axis_offset_px:+.1f} px from the centre; shifts up to {np.abs(alignment.shifts_px).max():.1f} px; "
        f"correlation of neighbouring tilts {before.median:.3f} -> {after.median:.3f}, "
        f"common line {before.common_line:.3f} -> {after.common_line:.3f}"
    )
    for note in alignment.notes:
        runtime.say(note)
    for warning in alignment.warnings:
        runtime.warn(warning)
    if outliers.any():
        listed = ", ".join(f"{a:g}" for a in angles[outliers][:10]) + (" ..." if outliers.sum() > 10 else "")
        runtime.warn(
            f"{outliers.sum()} of {len(angles)} images do not agree with their neighbours or are empty (tilt {listed} "
            "degrees): look at them, and leave them out of the series if they are bad. Empty images are 0 in the "
            "aligned series and their shifts lie between those of their neighbours."
        )
    _warn_of_poor_agreement(alignment, params, runtime)


def _warn_of_poor_agreement(alignment: "Alignment", params: AlignParameters, runtime: Runtime) -> None:
    """Warn where the figures say that the alignment did not work."""
    before, after = alignment.before.median, alignment.after.median
    if params.method != "none" and np.isfinite(after) and after < before - 0.02:
        runtime.warn(
            f"neighbouring tilts agree less after alignment ({after:.3f}) than before ({before:.3f}): do not trust it. "
            "If the series is aligned already use method none; else set the axis angle or the band-pass."
        )
    elif np.isfinite(after) and after < 0.5:
        runtime.warn(
            f"neighbouring tilts hardly resemble each other (correlation {after:.2f}): the alignment is not to be "
            "trusted. The images may be too noisy, the tilt steps too large, or the angles wrong."
        )


def _report_judgement(judgement: "Judgement", params: AlignParameters, runtime: Runtime) -> None:
    """Tell how well the tilts predict each other, and where that casts doubt on the alignment."""
    if note := judgement.note():
        runtime.say(note)
    # Of few tilts: nothing was asked for with method none, and fewer than five have had their warning.
    if judgement.enough or (params.method != "none" and np.sum(~judgement.outliers) >= 5):
        for words in judgement.doubts():
            runtime.warn(words)


STAGE = Stage(
    name="align",
    version=2,
    summary="Bring the tilt series into register: background, shifts, tilt axis.",
    parameters=AlignParameters,
    reads=(schema.TILT_SERIES, schema.ANGLES, schema.TILT_SERIES_INFO),
    writes=(schema.SHIFTS, schema.ALIGNMENT_INFO, schema.TILT_QUALITY, schema.ALIGNED, schema.ALIGNMENT_PREVIEW),
    run=run,
    check=check,
)
