"""Stage `align`: background, shifts, tilt axis, and every raw image resampled once into the aligned frame."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg import schema
from tomoseg.arrays import Array, Input, Outputs
from tomoseg.errors import InputError, StageFailed
from tomoseg.io.shifts import GivenAlignment, fitted, imod_turns, read_shifts, tilts_beside
from tomoseg.parameters import Field, InputFile, OtherProject, Parameters, Range
from tomoseg.runtime import Runtime, slabs
from tomoseg.stages.base import Stage

if TYPE_CHECKING:
    from tomoseg.alignment.finding.estimate import Alignment
    from tomoseg.alignment.finding.patch import Patch
    from tomoseg.alignment.images.background import Backgrounds, VacuumFit
    from tomoseg.alignment.images.reduced_series import Copies
    from tomoseg.alignment.judging.warnings import Judgement

NOMINAL_DEG = {"y": 0.0, "x": 90.0}
# Shifts and axis are estimated on copies of at most this side and, for very many tilts, this many pixels in all: the
# same whatever the memory allowed, so that the result is. Alive at once are the copies and their splines, and either
# the copies in the aligned frame, a mask and what they are predicted to be, or a volume: 0.4 GB at most.
COPY_PX, COPY_PIXELS = 256, 180 * 256**2
COPY_ARRAYS = 4.25
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
        ("rotation_deg", "f8"),
        ("magnification", "f8"),
        ("tilt_error_deg", "f8"),
    ]
)


class AlignParameters(Parameters):
    """How the tilt series is brought into register."""

    method: Literal["auto", "xcorr", "com", "common-line", "reprojection", "none"] = Field(
        "auto",
        description="what follows the cross-correlation of neighbouring tilts. auto: common-line where the sample is "
        "whole in the frame across the axis, reprojection where it is not; xcorr: nothing, rough; com: the centre of "
        "mass is brought onto the axis and, along it, to one height, for a sample that is whole in all directions; "
        "common-line: centre of mass across the axis, and along it the images' projections onto the axis are brought "
        "together; reprojection: comparison with reprojections of a quick reconstruction; none: the series is aligned "
        "already, shifts are zero and the axis is as given",
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
    x_range: Range | None = Field(
        None,
        description="columns of the image at the lowest tilt, in raw px: first, and one past the last. Shifts and axis "
        "are found from what lies between, with a soft edge, followed through the tilts; null: all",
    )
    y_range: Range | None = Field(None, description="rows, likewise")
    mask: InputFile | None = Field(
        None,
        description="grey image (TIFF, MRC, NPY, PNG) of the size of the raw images, or a stack with one for each tilt "
        "by ascending angle: pixels of 0 (a probe, dirt, a scale bar burnt in) are not looked at, and are background "
        "in the aligned series",
    )
    refine: tuple[Literal["rotation", "magnification", "tilt-angle"], ...] = Field(
        (),
        description="what is found for each image besides its shift, after all else, and kept if the tilts then "
        "predict each other better: rotation (on top of the direction of the tilt axis), magnification, tilt-angle. "
        "For stages that are not steady, and lenses that are refocused between images",
    )
    shifts_file: InputFile | None = Field(
        None,
        description="file of shifts that are applied as they are, instead of finding them: an IMOD .xf (with a .tlt "
        "or .rawtlt beside it where its lines are not by ascending angle), or a table with columns dy and dx in raw "
        "px, to add to a raw image's coordinates, and perhaps the tilt angle. Direction and offset of the axis: as "
        "given, else from an .xf that turns, else found for these shifts",
    )
    from_project: OtherProject | None = Field(
        None,
        json_schema_extra={"flags": ["--from"]},
        description="another project (.h5) whose shifts and tilt axis are applied as they are, for another channel "
        "(an EDX map, a second detector) recorded at the same tilts and over the same area, perhaps binned "
        "differently. Of that file only the alignment counts: this result goes stale when the other series is aligned "
        "anew, and not when later stages run there",
    )

    def companions(self) -> dict[str, Path]:
        """Return the angles beside an .xf, which tell the order of its lines."""
        beside = None if self.shifts_file is None else tilts_beside(self.shifts_file.expanduser())
        return {} if beside is None else {"tilt angles of the shifts": beside}


def check(params: AlignParameters) -> list[str]:
    """Say which parameters contradict each other, and what is wrong with the files they name."""
    problems = []
    low, high = params.low_frequency, params.high_frequency
    if low is not None and high is not None and low >= high:
        problems.append(f"align.low_frequency {low:g} must be below align.high_frequency {high:g} cycles per pixel")
    sources = {"shifts_file": params.shifts_file, "from_project": params.from_project}
    named = [f"align.{name}" for name, value in sources.items() if value is not None]
    named += ["align.method none"] if named and params.method == "none" else []
    if len(named) > 1:
        problems.append(f"{' and '.join(named)} contradict each other: each says what the shifts are; keep one")
    if params.refine and (taken := named or (["align.method none"] if params.method == "none" else [])):
        problems.append(f"align.refine and {taken[0]} contradict each other: one finds what the other says is known")
    if params.shifts_file is not None:
        try:
            read_shifts(params.shifts_file.expanduser())
        except InputError as error:
            problems.append(f"align.shifts_file: {error}")
    if params.from_project is not None and not params.from_project.expanduser().is_file():
        problems.append(f"align.from_project: there is no project {params.from_project}")
    if params.mask is not None:
        from tomoseg.io.masks import open_mask

        try:
            with open_mask(params.mask.expanduser()):
                pass
        except InputError as error:
            problems.append(f"align.mask: {error}")
    return problems


def run(
    *,
    tilt_series: Input,
    angles_deg: Input,
    tilt_series_info: Input,
    params: AlignParameters,
    runtime: Runtime,
    outputs: Outputs,
    from_project: GivenAlignment | None = None,
) -> None:
    """Align `tilt_series`; see `tomoseg.alignment.images.warp` for what the numbers mean."""
    angles = _angles(tilt_series, angles_deg)
    given = _given(tilt_series, angles, tilt_series_info, params, from_project)
    with _masked(tilt_series, params) as series:
        _align(series, angles, tilt_series_info, given, params, runtime, outputs)


def _align(
    tilt_series: Input,
    angles: NDArray[np.float64],
    tilt_series_info: Input,
    given: GivenAlignment | None,
    params: AlignParameters,
    runtime: Runtime,
    outputs: Outputs,
) -> None:
    from tomoseg.alignment.judging.warnings import judge

    survey, copies = _survey(tilt_series, angles, params, runtime)
    nominal = NOMINAL_DEG.get(str(tilt_series_info.attrs.get("tilt_axis", "unknown")))
    if given is not None:
        alignment = _applied(copies, given, nominal, params, runtime)
    elif params.method == "none":
        alignment = _aligned_already(copies, nominal, params, runtime)
    else:
        alignment = _estimated(copies, nominal, params, _patch(tilt_series.shape, params), runtime)
    scales = _scales(copies, alignment, params)
    outliers = _outliers(survey, alignment)
    for _ in runtime.track([0], "judging the alignment"):
        judgement = judge(copies, alignment, scales, outliers, tilt_series.shape[1:])
    del copies  # the memory is wanted for the images at full size
    _write_aligned(tilt_series, survey, alignment, scales, runtime, outputs)
    outputs.put("shifts_px", alignment.shifts_px)
    if alignment.adjustments is not None and alignment.adjustments.tilt_error_deg.any():
        outputs.put("refined_angles_deg", angles + alignment.adjustments.tilt_error_deg)
    table = _quality_table(angles, survey, alignment, scales, outliers)
    judgement.fill(table)
    outputs.put("tilt_quality", table)
    outputs.set_attrs("alignment_info", _info(alignment) | judgement.attrs())
    if (shown := judgement.preview) is not None:
        outputs.put("alignment_preview", shown.slices, {"voxel_size_px": float(shown.factor), "row": shown.row})
    _report(angles, survey, alignment, outliers, params, given, runtime)
    # The figures are of the whole frame, which is not what a patch was chosen for.
    if params.x_range is None and params.y_range is None:
        _report_judgement(judgement, params, runtime)


@contextmanager
def _masked(tilt_series: Input, params: AlignParameters) -> Iterator[Input]:
    """Yield the series, NaN where the mask is 0."""
    if params.mask is None:
        yield tilt_series
        return
    from tomoseg.io.masks import MaskedSeries, open_mask, require_fit

    with open_mask(params.mask.expanduser()) as mask:
        require_fit(mask, tuple(tilt_series.shape))
        yield MaskedSeries(tilt_series, mask)


def _used_part(tilt_series: Input, i: int) -> float:
    """Return the part of an image that its mask leaves, of 1."""
    mask = getattr(tilt_series, "mask", None)
    return 1.0 if mask is None else float(mask.used(slice(i, i + 1)).mean())


def _patch(shape: tuple[int, ...], params: AlignParameters) -> "Patch | None":
    """Return the part of the frame to look at; None for all of it."""
    from tomoseg.alignment.finding.patch import Patch

    if params.x_range is None and params.y_range is None:
        return None
    height, width = shape[1:]
    rows, columns = params.y_range or (0, height), params.x_range or (0, width)
    for name, limits, n in (("y_range", rows, height), ("x_range", columns, width)):
        if limits[1] > n:
            raise InputError(f"align.{name} is {limits[0]},{limits[1]}, but the images are {width} x {height} px.")
    return Patch(rows, columns, (height, width))


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


def _given(
    tilt_series: Input,
    angles: NDArray[np.float64],
    tilt_series_info: Input,
    params: AlignParameters,
    elsewhere: GivenAlignment | None,
) -> GivenAlignment | None:
    """Return the alignment given by a file or another project, in pixels of this series; None where there is none."""
    attrs = tilt_series_info.attrs
    if params.shifts_file is not None:
        found = read_shifts(params.shifts_file.expanduser(), rows_up=imod_turns(str(attrs.get("source", ""))))
    elif elsewhere is not None:
        found = elsewhere
    else:
        return None
    return fitted(found, angles, tuple(tilt_series.shape[1:]), float(attrs.get("pixel_size_nm", np.nan)))


def _survey(
    tilt_series: Input, angles: NDArray[np.float64], params: AlignParameters, runtime: Runtime
) -> "tuple[_Survey, Copies]":
    """Read every image once: its background, and a reduced copy."""
    from tomoseg.alignment.finding.intensity import usable_tilts
    from tomoseg.alignment.finding.joint import WIDER
    from tomoseg.alignment.images.background import fit_vacuum
    from tomoseg.alignment.images.gaps import reduce_with_gaps
    from tomoseg.alignment.images.reduced_series import Copies, reduce, reduction_factor

    n, *shape = tilt_series.shape
    factor = reduction_factor(tuple(shape), _longest_copy(n))
    height, width = (side // factor for side in shape)
    arrays = COPY_ARRAYS + (params.x_range is not None or params.y_range is not None)  # the patch, at most as large
    needed = 4 * (arrays * n * height * width + max(height, width) * (WIDER * max(height, width)) ** 2)
    if needed > runtime.max_memory:
        runtime.warn(f"alignment needs about {needed / 2**20:.0f} MB of memory, more than the limit given")
    fits: list[VacuumFit] = []
    finite = np.zeros(n, bool)
    images = np.empty((0, 0, 0), np.float32)
    for i, image in _images(tilt_series, runtime, "reading the tilt series"):
        known = np.isfinite(image)
        used = _used_part(tilt_series, i)
        finite[i] = known.mean() > max(0.99 * used, 0.05)
        # Where much may be masked, its filling must not pass for vacuum.
        filling = np.min if used == 1 else np.median
        fits.append(fit_vacuum(np.where(known, image, filling(image[known]) if known.any() else 0)))
        small = reduce(_filled(image, fits[i].level), factor) if used == 1 else reduce_with_gaps(image, factor)
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
    from tomoseg.alignment.images.background import Backgrounds, combine_levels

    if isinstance(params.background, float):
        return Backgrounds(
            np.full(len(fits), params.background), f"{params.background:g} counts as given", trusted=True
        )
    if params.background == "none":
        return Backgrounds(np.zeros(len(fits)), "nothing subtracted, as asked", trusted=True)
    known = np.flatnonzero(usable)
    found = combine_levels([fits[i] for i in known], angles[known])
    return Backgrounds(np.interp(np.arange(len(fits)), known, found.levels), found.how, found.trusted)


def _aligned_already(copies: "Copies", nominal: float | None, params: AlignParameters, runtime: Runtime) -> "Alignment":
    """Return the alignment of a series that is aligned already."""
    from tomoseg.alignment.finding.consistency import is_whole, row_window
    from tomoseg.alignment.finding.estimate import Alignment
    from tomoseg.alignment.finding.quality import measure_quality

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


def _applied(
    copies: "Copies", given: GivenAlignment, nominal: float | None, params: AlignParameters, runtime: Runtime
) -> "Alignment":
    """Apply shifts from elsewhere; what is given by itself takes precedence, and what nobody gave is found."""
    from tomoseg.alignment.finding.given import apply_given
    from tomoseg.alignment.finding.track import Band
    from tomoseg.alignment.images.warp import Adjustments

    for note in given.notes:
        runtime.warn(note)
    angle, offset = params.tilt_axis_angle, params.tilt_axis_offset
    for _ in runtime.track([0], "applying the shifts given"):
        found = apply_given(
            copies,
            given.shifts_px,
            f"as in {Path(given.source).name}",
            axis_angle_deg=given.axis_angle_deg if angle is None else angle,
            axis_near_deg=nominal,
            axis_offset_px=given.axis_offset_px if offset is None else offset,
            band=Band(params.low_frequency, params.high_frequency),
            adjustments=None if given.besides is None else Adjustments(*given.besides.T.copy()),
        )
    runtime.say(f"shifts as in {given.source}")
    return found


def _estimated(
    copies: "Copies", nominal: float | None, params: AlignParameters, patch: "Patch | None", runtime: Runtime
) -> "Alignment":
    """Find shifts and axis from the images."""
    assert params.method != "none"
    method = params.method
    from tomoseg.alignment.finding.estimate import estimate_alignment
    from tomoseg.alignment.finding.track import Band

    for _ in runtime.track([0], "finding shifts and tilt axis"):
        found = estimate_alignment(
            copies,
            axis_angle_deg=params.tilt_axis_angle,
            axis_near_deg=nominal,
            axis_offset_px=params.tilt_axis_offset,
            band=Band(params.low_frequency, params.high_frequency),
            max_shift=params.max_shift,
            method=method,
            patch=patch,
            adjusting=params.refine,
        )
    return found


def _scales(copies: "Copies", alignment: "Alignment", params: AlignParameters) -> NDArray[np.float64]:
    """Return the factor for the brightness of each tilt."""
    from tomoseg.alignment.finding.intensity import intensity_scales

    if not params.normalise:
        return np.ones(copies.n_tilt)
    moves = alignment.moves_px / copies.factor
    return intensity_scales(
        copies.adjusted(alignment.adjustments), moves, alignment.axis_angle_deg, whole=alignment.whole
    )


def _write_aligned(
    tilt_series: Input,
    survey: _Survey,
    alignment: "Alignment",
    scales: NDArray[np.float64],
    runtime: Runtime,
    outputs: Outputs,
) -> None:
    """Resample each raw image once: background, scale, shift, rotation and offset together."""
    from tomoseg.alignment.images.warp import aligned_shape, warp_image

    n, *raw_shape = tilt_series.shape
    shape = aligned_shape(tuple(raw_shape), alignment.axis_angle_deg)
    aligned = outputs.create("aligned", (n, *shape))
    own = [None] * n if alignment.adjustments is None else alignment.adjustments.matrices

    def one(i: int, image: Array) -> NDArray[np.float32]:
        runtime.check()
        if not survey.usable[i]:
            return np.zeros(shape, np.float32)
        level = survey.levels[i]
        # In f8: counts near -32000 in f4 would lose a part of a faint signal's last digits.
        data = (_filled(image, level).astype(np.float64) - level) * scales[i]
        axis = (alignment.axis_angle_deg, alignment.axis_offset_px)
        return warp_image(data, alignment.shifts_px[i], *axis, own=own[i])

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
    """Say which tilts are empty, not predicted by the others, or agree with their neighbours far less than those do."""
    after = alignment.after.neighbours
    odd = ~survey.usable if alignment.stray is None else ~survey.usable | alignment.stray
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
    table["magnification"] = 1
    if (found := alignment.adjustments) is not None:
        table["rotation_deg"], table["magnification"] = found.rotation_deg, found.magnification
        table["tilt_error_deg"] = found.tilt_error_deg
    return table


def _info(alignment: "Alignment") -> dict[str, str | float]:
    """Return the attributes stored with the alignment."""
    return {
        "tilt_axis_angle_deg": alignment.axis_angle_deg,
        "tilt_axis_offset_px": alignment.axis_offset_px,
        "method": alignment.how,
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
    given: GivenAlignment | None,
    runtime: Runtime,
) -> None:
    """Tell what was found, and whether it should be trusted."""
    (runtime.say if survey.trusted else runtime.warn)(f"background: {survey.how}")
    is_given = params.tilt_axis_angle is not None or (given is not None and given.axis_angle_deg is not None)
    source = "given" if is_given else "as imported" if params.method == "none" else "found"
    before, after = alignment.before, alignment.after
    runtime.say(
        f"tilt axis {alignment.axis_angle_deg:.2f} degrees from the vertical ({source}), "
        f"{alignment.axis_offset_px:+.1f} px from the centre; shifts up to {np.abs(alignment.shifts_px).max():.1f} px; "
        f"correlation of neighbouring tilts {before.median:.3f} -> {after.median:.3f}, "
        f"common line {before.common_line:.3f} -> {after.common_line:.3f}"
    )
    if alignment.adjustments is not None:
        runtime.say(alignment.adjustments.words)
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
    _warn_of_poor_agreement(alignment, params, runtime, shifts_given=given is not None)


def _warn_of_poor_agreement(
    alignment: "Alignment", params: AlignParameters, runtime: Runtime, *, shifts_given: bool
) -> None:
    """Warn where the figures say that the alignment did not work."""
    before, after = alignment.before.median, alignment.after.median
    if shifts_given:  # channels too noisy to align by themselves are what shifts from elsewhere are for
        if np.isfinite(after) and after < before - 0.02:
            runtime.warn(
                f"neighbouring tilts agree less with the shifts given ({after:.3f}) than without ({before:.3f}): are "
                "they those of this series, in its order, in px, and with the signs that are meant?"
            )
        return
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
    writes=(
        schema.SHIFTS,
        schema.ALIGNMENT_INFO,
        schema.TILT_QUALITY,
        schema.REFINED_ANGLES,
        schema.ALIGNED,
        schema.ALIGNMENT_PREVIEW,
    ),
    run=run,
    check=check,
)
