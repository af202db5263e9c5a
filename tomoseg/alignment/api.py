"""Align a tilt series: `align` on arrays, `align_series` on handles."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.alignment.extent import memory_needed, reduction_of
from tomoseg.alignment.finding.by_hand import with_shifts
from tomoseg.alignment.finding.consistency import intensity_scales
from tomoseg.alignment.finding.estimate import PARTS, Alignment, Placement, can_show_axis, estimate_alignment
from tomoseg.alignment.finding.given import apply_given, keep_as_is
from tomoseg.alignment.finding.patch import Patch
from tomoseg.alignment.finding.track import Band
from tomoseg.alignment.images.background import Backgrounds
from tomoseg.alignment.images.brightness import Brightness, even_out
from tomoseg.alignment.images.conditioning import ConditionedSeries, Conditioning, condition
from tomoseg.alignment.images.reduced_series import ReducedSeries
from tomoseg.alignment.images.resample import resample_series
from tomoseg.alignment.images.survey import survey_series
from tomoseg.alignment.images.warp import aligned_shape
from tomoseg.alignment.judging.assessment import Preview
from tomoseg.alignment.judging.frame import frame_warnings, part_in_frame, require_in_frame
from tomoseg.alignment.judging.markers import MarkerFit
from tomoseg.alignment.judging.quality import AlignmentQuality, assess_alignment, outliers_of
from tomoseg.alignment.judging.warnings import (
    agreement_warnings,
    listed,
    order_warnings,
    outlier_warnings,
    prediction_warnings,
    summary,
)
from tomoseg.alignment.parameters import AlignParameters, check
from tomoseg.arrays import Array, ArraySource, Input, MemoryOutputs, Outputs, Part, signal_names
from tomoseg.errors import InputError
from tomoseg.io.exclusion import excluded_tilts
from tomoseg.io.masks import Mask, MaskedSeries, open_mask, require_fit
from tomoseg.io.set_shifts import set_shifts
from tomoseg.io.shifts import GivenAlignment, ImageCorrections, fitted, imod_turns, read_shifts
from tomoseg.keywords import takes_parameters
from tomoseg.runtime import Runtime

if TYPE_CHECKING:
    import pandas as pd

NOMINAL_DEG = {"y": 0.0, "x": 90.0}
LEAST_PX = 8  # of an image's side
QUALITY_COLUMNS = (
    *("angle_deg", "n_replaced", "background", "scale", "correlation_before", "correlation_after", "is_outlier"),
    *("residual_before", "residual_after", "error_px", "error_uncertainty_px"),
    *("rotation_deg", "magnification", "tilt_error_deg"),
)
KINDS = {"is": "u1", "n": "i8"}  # by what a column's name begins with
QUALITY_DTYPE = np.dtype([(name, KINDS.get(name.split("_")[0], "f8")) for name in QUALITY_COLUMNS])


@dataclass(frozen=True, eq=False)
class AlignmentSummary:
    """What is known of an aligned series, but for its images.

    Attributes
    ----------
    angles_deg : (n_tilt,) f8
        Tilt angles in degrees: refined ones where they were sought and found, else as recorded.
    shifts_px : (n_tilt, 2) f8
        (dy, dx) to add to a raw image's coordinates to bring it into register, before rotation.
    tilt_axis_angle_deg : float
        Direction of the tilt axis from the raw image's vertical, counter-clockwise as displayed, in (-90, 90].
    tilt_axis_offset_px : float
        Distance of the tilt axis from the image centre after rotation, towards +x.
    outliers : (n_tilt,) bool
        Images that are empty or do not agree with the others.
    method : str
        How the shifts were found.
    table : (n_tilt,) structured array
        Figures per tilt, see `quality`.
    figures : dict of str to float
        Figures for the series: ``correlation_before`` and ``correlation_after`` of neighbouring tilts,
        ``common_line_...``, ``residual_...`` of the prediction of held-out tilts, ``estimated_error_px``, ...
    preview : Preview or None
        Slice across the tilt axis before and after alignment, ``slices`` (2, z, x); None for too few tilts.
    markers : MarkerFit or None
        Particles that served as markers, where they were seen and how far from where they must be.
    """

    angles_deg: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    tilt_axis_angle_deg: float
    tilt_axis_offset_px: float
    outliers: NDArray[np.bool_]
    method: str
    table: Array
    figures: dict[str, float]
    preview: Preview | None
    markers: MarkerFit | None

    @property
    def has_refined_angles(self) -> bool:
        """Whether tilt angles were refined."""
        return bool(self.table["tilt_error_deg"].any())

    @property
    def quality(self) -> "pd.DataFrame":
        """Figures per tilt, a row for each image in the order of the images; NaN where unknown.

        ``angle_deg`` as recorded, ``n_replaced`` pixels, ``background`` (counts), brightness ``scale``,
        ``correlation_before`` and ``_after`` with the neighbour, ``is_outlier``, ``residual_before`` and ``_after`` of
        the prediction by the other tilts, estimated ``error_px`` and its uncertainty, and the image corrections:
        ``rotation_deg``, ``magnification``, ``tilt_error_deg``.
        """
        import pandas as pd

        return pd.DataFrame(self.table).astype({"is_outlier": bool})

    @property
    def estimated_error_px(self) -> float:
        """Estimated alignment error in raw px per direction, rms over the tilts; NaN for too few tilts."""
        return self.figures["estimated_error_px"]

    @property
    def film_thickness_px(self) -> float:
        """Thickness in raw px of a film that extends beyond the frame, with what lies on it; NaN for other samples."""
        return self.figures["film_thickness_px"]


@dataclass(frozen=True, eq=False)
class AlignedSeries(AlignmentSummary):
    """An aligned tilt series, and how it was aligned.

    Arrays are in the order of the images given. In addition to the attributes of `AlignmentSummary`:

    Attributes
    ----------
    aligned : (n_tilt, y, x) f4
        Counts above background, or mass thickness of bright field. The tilt axis is vertical, through x = (nx - 1)/2.
        Height and width change places where the axis is nearer to the raw image's x.
    notes, warnings : list of str
        What was found, and what needs care.
    """

    aligned: NDArray[np.float32]
    notes: list[str]
    warnings: list[str]


@takes_parameters("align", AlignParameters, check)
def align(
    images: ArrayLike | ArraySource,
    angles_deg: ArrayLike,
    *,
    tilt_axis: Literal["x", "y", "unknown"] | None = None,
    pixel_size_nm: float | None = None,
    source: str | None = None,
    from_project: GivenAlignment | None = None,
    params: AlignParameters,
    runtime: Runtime,
) -> AlignedSeries:
    """Align a raw tilt series: find shifts and tilt axis, and resample each image once.

    Parameters
    ----------
    images : array, shape (n_tilt, y, x)
        Raw images in counts, or a handle that is read by slicing. NaN and infinite pixels are replaced by what
        surrounds them, larger parts become background.
    angles_deg : array, shape (n_tilt,)
        Tilt angles in degrees, in any order.
    tilt_axis : {'y', 'x'}, optional
        Nominal direction of the tilt axis in the images: vertical or horizontal. A hint: the direction is sought in the
        whole half circle, and one that is not near the nominal direction is taken, with a warning, only if it explains
        the images clearly better.
    pixel_size_nm : float, optional
        Pixel size in nm, by which an alignment of another binning is scaled (`from_project`).
    source : str, optional
        Name of the raw file: IMOD turns TIFF files upside down, which matters for its .xf (`shifts_file`).

    Returns
    -------
    AlignedSeries
        ``aligned``, ``angles_deg``, ``shifts_px``, ``tilt_axis_angle_deg``, ``tilt_axis_offset_px``, ``outliers``,
        ``quality`` and more, in the order of `images`. Files that go by ascending angle, such as a stack of masks, are
        matched by angle.

    Raises
    ------
    InputError
        A parameter, a file or an array cannot be used.
    StageFailed
        Every image is empty, or the shifts found move an image out of the frame.

    Notes
    -----
    With p = (x, y) a raw pixel from the image centre, (dy, dx) its shift, phi the angle and o the offset of the axis,
    the aligned pixel lies at ``R(phi) (p + (dx, dy)) - (o, 0)``.

    Before that, raw images are conditioned: spikes and defective pixels are replaced, borders without data left out,
    bright field made into mass thickness, and brightness evened out where it changes as no sample can.

    Neighbouring tilts are registered by cross-correlation. A sample that is whole in the frame is then placed by centre
    of mass and common line; images and volume are finally improved together, as in Gursoy et al., Sci. Rep. 7, 11818
    (2017). The estimated error comes from predicting each tilt by a reconstruction from the others.

    Examples
    --------
    >>> import tomoseg as ts
    >>> from tomoseg.simulate import simulate_series
    >>> raw = simulate_series(32, 4, tilt_step_deg=10, jitter_px=1, seed=0)
    >>> series = ts.align(raw.raw, raw.angles_deg, tilt_axis="y", tilt_axis_angle=3, method="common-line")
    >>> series.aligned.shape, series.shifts_px.shape
    ((14, 32, 32), (14, 2))
    >>> series.estimated_error_px < 0.1
    True
    >>> list(series.quality.columns[:4])
    ['angle_deg', 'n_replaced', 'background', 'scale']
    """
    raw = cast(ArraySource, images if hasattr(images, "dtype") else np.asarray(images))
    angles = np.asarray(angles_deg, np.float64)
    _require_series(raw, angles)
    order = np.argsort(angles, kind="stable")
    is_sorted = bool((order == np.arange(len(order))).all())
    outputs = MemoryOutputs()
    found = align_series(
        raw if is_sorted else _Reordered(raw, order),
        angles[order],
        tilt_axis=tilt_axis,
        pixel_size_nm=pixel_size_nm,
        source=source or "",
        given=from_project,
        params=params,
        runtime=runtime,
        outputs=outputs,
    )
    aligned = outputs.arrays["aligned"]
    if not is_sorted:
        back = np.argsort(order)
        aligned = aligned[back]
        per_tilt = {name: getattr(found, name)[back] for name in ("angles_deg", "shifts_px", "outliers", "table")}
        found = replace(found, **per_tilt, markers=None if found.markers is None else found.markers.reordered(back))
    return AlignedSeries(**vars(found), aligned=aligned, notes=list(runtime.notes), warnings=list(runtime.warnings))


def align_series(
    tilt_series: ArraySource,
    angles_deg: ArrayLike,
    *,
    tilt_axis: str | None = None,
    pixel_size_nm: float | None = None,
    source: str = "",
    given: GivenAlignment | None = None,
    params: AlignParameters,
    runtime: Runtime,
    outputs: Outputs,
) -> AlignmentSummary:
    """Align a tilt series slab by slab, as `align` does; `outputs` receive 'aligned', (n_tilt, y, x) f4.

    The angles are ascending; `given` is the alignment of `params.from_project`.
    """
    angles = np.asarray(angles_deg, np.float64)
    _require_series(tilt_series, angles)
    shape = tuple(tilt_series.shape)
    given = _given(given, angles, shape, source, pixel_size_nm, params)
    left_out = excluded_tilts(params.exclude_tilt, angles)
    by_hand = None if params.set_shift is None else set_shifts(params.set_shift, angles, shape[1:])
    patch = _patch(shape[1:], params) if given is None and params.method != "none" else None
    needed = memory_needed(shape, reduction_of(shape), patch=patch is not None)
    if needed > runtime.max_memory:
        allowed = runtime.max_memory
        runtime.warn(
            f"the alignment needs about {needed / 2**20:.0f} MB of memory, and {allowed / 2**20:.0f} MB are allowed"
        )
    with ExitStack() as stack:
        mask = None
        if params.mask is not None:
            mask = stack.enter_context(open_mask(params.mask.expanduser()))
            require_fit(mask, shape)
        conditioning = _conditioning(tilt_series, angles, mask, params, runtime)
        raw = tilt_series if conditioning.changes_nothing else ConditionedSeries(tilt_series, conditioning)
        raw = raw if mask is None else MaskedSeries(raw, mask)
        background = params.background if conditioning.bright_field is None else "auto"
        backgrounds, series = survey_series(raw, angles, background, runtime, mask, conditioning, left_out)
        brightness = _brightness(series, conditioning, params, runtime)
        usable = series.usable
        find = partial(_found, nominal_deg=NOMINAL_DEG.get(str(tilt_axis)), patch=patch, given=given, params=params)
        alignment, placement = find(series, runtime=runtime)
        if given is None and params.method != "none":
            alignment, placement = _without_outliers(series, alignment, placement, find, runtime)
        if by_hand is not None:
            alignment, placement = with_shifts(alignment, placement, by_hand, angles, series.factor)
        shown = part_in_frame(alignment, shape[1:])
        offset_px = params.tilt_axis_offset or 0.0  # beyond half of the frame, it is what moves the images out
        was_found = given is None and abs(offset_px) < max(shape[1:]) / 2
        if not was_found:
            require_in_frame(shown, angles, usable, found=False)
        scales = np.ones(len(angles))
        if params.normalise == "on":
            scales = intensity_scales(
                series.corrected(alignment.corrections),
                alignment.moves_px / series.factor,
                alignment.axis_angle_deg,
                whole=alignment.whole,
            )
        for _ in runtime.track([0], "align 4/5: assessing the alignment"):
            quality = replace(assess_alignment(series, alignment, placement, scales, shape[1:]), left_out=left_out)
        if was_found:
            require_in_frame(shown, angles, ~quality.outliers, found=True)
        del series, placement  # the memory is wanted for the images at full size
        resample_series(
            raw,
            outputs.create("aligned", (shape[0], *aligned_shape(shape, alignment.axis_angle_deg))),
            usable=usable,
            levels=backgrounds.levels,
            scales=scales * brightness.factors,
            shifts_px=alignment.shifts_px,
            axis_angle_deg=alignment.axis_angle_deg,
            axis_offset_px=alignment.axis_offset_px,
            corrections=alignment.corrections,
            runtime=runtime,
            extend=alignment.film is not None,
        )
    _report(backgrounds, alignment, quality, params, given, runtime)
    for warning in frame_warnings(shown, angles, usable):
        runtime.warn(warning)
    corrections = alignment.corrections or ImageCorrections.none(len(angles))
    columns = {
        "angle_deg": angles,
        "n_replaced": conditioning.n_replaced,
        "background": backgrounds.levels,
        "scale": scales * brightness.factors,
        "is_outlier": quality.outliers,
    }
    table = np.zeros(len(angles), QUALITY_DTYPE)
    for name, values in (columns | quality.columns | vars(corrections)).items():
        table[name] = values
    return AlignmentSummary(
        angles_deg=angles + corrections.tilt_error_deg,
        shifts_px=alignment.shifts_px,
        tilt_axis_angle_deg=alignment.axis_angle_deg,
        tilt_axis_offset_px=alignment.axis_offset_px,
        outliers=quality.outliers,
        method=alignment.method,
        table=table,
        figures=quality.figures,
        preview=quality.preview,
        markers=quality.markers,
    )


def align_signals(signals: Input, found: AlignmentSummary, *, runtime: Runtime, outputs: Outputs) -> None:
    """Bring further signals (n_tilt, n_signal, y, x) into register as the tilt series was.

    `outputs` receive 'aligned_signals', (n_tilt, n_signal, y', x') f4. Counts of elemental maps are few and near 0:
    nothing is subtracted, scaled or replaced, and pixels are interpolated linearly.
    """
    n, n_signals, *shape = signals.shape
    names = signal_names(signals, 1)
    corrections = ImageCorrections(
        found.table["rotation_deg"], found.table["magnification"], found.table["tilt_error_deg"]
    )
    height, width = aligned_shape((n, *shape), found.tilt_axis_angle_deg)
    sink = outputs.create("aligned_signals", (n, n_signals, height, width), attrs={"names": names})
    for k, name in enumerate(names):
        resample_series(
            Part(signals, 1, k),
            Part(sink, 1, k),
            usable=np.ones(n, bool),
            levels=np.zeros(n),
            scales=np.ones(n),
            shifts_px=found.shifts_px,
            axis_angle_deg=found.tilt_axis_angle_deg,
            axis_offset_px=found.tilt_axis_offset_px,
            corrections=corrections,
            runtime=runtime,
            order=1,
            what=f"resampling {name}",
        )
    runtime.say(f"further signals brought into register: {', '.join(names)}")


def _given(
    given: GivenAlignment | None,
    angles: NDArray[np.float64],
    shape: tuple[int, ...],
    source: str,
    pixel_size_nm: float | None,
    params: AlignParameters,
) -> GivenAlignment | None:
    """Return the alignment that a file or another project gives, in px of this series; None where none does."""
    if params.shifts_file is not None:
        given = read_shifts(params.shifts_file.expanduser(), rows_up=imod_turns(source))
    if given is None:
        return None
    return fitted(given, angles, shape[1:], np.nan if pixel_size_nm is None else float(pixel_size_nm))


def _conditioning(
    tilt_series: ArraySource,
    angles: NDArray[np.float64],
    mask: Mask | None,
    params: AlignParameters,
    runtime: Runtime,
) -> Conditioning:
    """Decide what is done to raw images, and tell it."""
    # A channel that takes the alignment of another project may be a map of a few counts: nothing is judged by it.
    is_channel = params.from_project is not None
    done = condition(
        tilt_series,
        angles,
        despike="off" if is_channel else params.despike,
        contrast="dark-field" if is_channel and params.contrast == "auto" else params.contrast,
        background=params.background,
        runtime=runtime,
        mask=mask,
    )
    for note in done.notes:
        runtime.say(note)
    for warning in done.warnings:
        runtime.warn(warning)
    return done


def _brightness(
    series: ReducedSeries, conditioning: Conditioning, params: AlignParameters, runtime: Runtime
) -> Brightness:
    """Even out the brightness of a series in place, where that is wanted, and tell it."""
    # Mass thickness is relative to the beam in each image already.
    is_even = params.from_project is not None or conditioning.bright_field is not None
    if params.normalise == "off" or (params.normalise == "auto" and is_even):
        return Brightness(np.ones(series.n_tilt), "")
    found = even_out(series, forced=params.normalise == "on")
    series.images[:] *= found.factors[:, None, None].astype(np.float32)
    if found.told:
        runtime.say(found.told)
    return found


def _found(
    series: ReducedSeries,
    *,
    nominal_deg: float | None,
    patch: Patch | None,
    given: GivenAlignment | None,
    params: AlignParameters,
    runtime: Runtime,
) -> tuple[Alignment, Placement]:
    """Find the alignment, or take it from what is given."""
    angle_deg, offset_px = params.tilt_axis_angle, params.tilt_axis_offset
    axis = {"axis_angle_deg": angle_deg, "axis_near_deg": nominal_deg, "axis_offset_px": offset_px}
    band = Band(params.low_frequency, params.high_frequency)
    if given is not None:
        for _ in runtime.track([0], "align 3/5: applying the given shifts"):
            found = apply_given(series, given, **axis, band=band)
    elif params.method == "none":
        found = keep_as_is(series, **axis)
    else:
        with runtime.parts(PARTS, "align 3/5: finding shifts and tilt axis") as advance:
            found = estimate_alignment(
                series,
                **axis,
                band=band,
                max_shift=params.max_shift,
                method=params.method,
                patch=patch,
                correct=params.refine,
                level=params.level == "auto",
                advance=advance,
            )
    return found


def _without_outliers(
    series: ReducedSeries,
    alignment: Alignment,
    placement: Placement,
    find: Callable[..., tuple[Alignment, Placement]],
    runtime: Runtime,
) -> tuple[Alignment, Placement]:
    """Find the alignment once more without images that turn out to be outliers, if any took part in it.

    A bad image may have misled the others: the images beyond it by its place, all by what it adds to the volume.
    """
    used = series.usable if alignment.unpredicted is None else series.usable & ~alignment.unpredicted
    bad = used & outliers_of(series, alignment, placement)
    if not bad.any() or not can_show_axis(replace(series, usable=used & ~bad)):
        return alignment, placement
    runtime.say(f"shifts and tilt axis once more without {bad.sum()} images that do not agree with the others")
    again, placement = find(replace(series, usable=series.usable & ~bad), runtime=runtime)
    unpredicted = bad if again.unpredicted is None else bad | again.unpredicted
    return replace(again, unpredicted=unpredicted), placement


def _report(
    backgrounds: Backgrounds,
    alignment: Alignment,
    quality: AlignmentQuality,
    params: AlignParameters,
    given: GivenAlignment | None,
    runtime: Runtime,
) -> None:
    """Tell what was found, and warn where it is unreliable."""
    (runtime.say if backgrounds.certain else runtime.warn)(f"background: {backgrounds.how}")
    is_given = params.tilt_axis_angle is not None or (given is not None and given.axis_angle_deg is not None)
    origin = "given" if is_given else "as imported" if params.method == "none" else "found"
    before, after = quality.raw_agreement, quality.aligned_agreement
    runtime.say(
        f"tilt axis {alignment.axis_angle_deg:.2f} degrees from the vertical ({origin}), "
        f"{alignment.axis_offset_px:+.1f} px from the centre; shifts up to {np.abs(alignment.shifts_px).max():.1f} px; "
        f"correlation of neighbouring tilts {before.median:.3f} before alignment, {after.median:.3f} after; common "
        f"line {before.common_line:.3f} before, {after.common_line:.3f} after"
    )
    notes = ([str(alignment.corrections)] if alignment.corrections is not None else []) + alignment.notes
    was_found = given is None and params.method != "none"
    warnings = [
        *alignment.warnings,
        *order_warnings(quality),
        *outlier_warnings(quality),
        *agreement_warnings(before, after, given=given is not None, found=was_found),
    ]
    if quality.left_out is not None and quality.left_out.any():
        notes.append(f"left out as asked: {listed(quality.angles_deg[quality.left_out])}")
    if quality.markers is not None:
        notes.append(quality.markers.summary)
    # The prediction is that of the whole frame, which is not what a patch was chosen for.
    if params.x_range is None and params.y_range is None:
        notes.append(summary(quality))
        # Of few tilts: nothing was asked for with method none, and fewer than five have had their warning.
        if quality.can_predict or (params.method != "none" and np.sum(~quality.outliers) >= 5):
            warnings += prediction_warnings(quality)
    for note in filter(None, notes):
        runtime.say(note)
    for warning in warnings:
        runtime.warn(warning)


# --- inputs ---


def _require_series(tilt_series: ArraySource, angles: NDArray[np.float64]) -> None:
    """Raise InputError unless there is a series of images with an angle for each."""
    shape = tuple(tilt_series.shape)
    if len(shape) != 3 or angles.shape != shape[:1]:
        raise InputError(
            f"the tilt series has the shape {shape} and there are {angles.size} angles: it must be (n_tilt, y, x), "
            "with one angle for each image"
        )
    if tilt_series.dtype.kind not in "fiub":
        raise InputError(f"the images are of type {tilt_series.dtype}: they must be real numbers")
    if min(shape[1:]) < LEAST_PX:
        raise InputError(
            f"images of {shape[2]} x {shape[1]} px are too small to align: at least {LEAST_PX} px are needed in each "
            "direction"
        )
    if not np.isfinite(angles).all():
        raise InputError(f"the tilt angle of image {int(np.argmin(np.isfinite(angles))) + 1} is not a finite number")


def _patch(raw_shape: tuple[int, ...], params: AlignParameters) -> Patch | None:
    """Return the patch of the frame to align by; None for all of it."""
    if params.x_range is None and params.y_range is None:
        return None
    height, width = raw_shape
    rows, columns = params.y_range or (0, height), params.x_range or (0, width)
    for name, limits, n in (("y_range", rows, height), ("x_range", columns, width)):
        if limits[1] > n:
            raise InputError(f"align.{name} is {limits[0]},{limits[1]}, but the images are {width} x {height} px.")
    return Patch(rows, columns, (height, width))


class _Reordered:
    """Images of a series in another order."""

    def __init__(self, series: ArraySource, order: NDArray[np.intp]) -> None:
        self._series, self._order = series, order
        self.shape, self.dtype = tuple(series.shape), series.dtype

    def __getitem__(self, part: slice) -> Any:
        return np.stack([np.asarray(self._series[int(i)]) for i in self._order[part]])
