"""What is read of a raw tilt series: which images, angles, pixel size and tilt axis hold.

Every source of angles is compared with every other. What the user gives comes first; then, for a series that was
aligned before, the angles that the alignment solved; then the .mdoc, the metadata of the file, names of files, and
files of angles of the same name. Where sources contradict each other, the images are asked, cheaply: neighbouring tilts
look alike. All contradictions become warnings.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomoseg.errors import InputError, shown
from tomoseg.io.angles import read_angles
from tomoseg.io.companions import Companions, companions_of, is_aligned
from tomoseg.io.exclusion import excluded_angles, excluded_views
from tomoseg.io.limits import reason_without
from tomoseg.io.mdoc import Mdoc, read_mdoc
from tomoseg.io.raw import open_raw
from tomoseg.io.series import Angles, AngleSource, RawSeries, choose_signal, size_of

# Smaller differences are rounding in headers and angle files.
ANGLE_TOLERANCE_DEG = 0.1
# An alignment refines the angles by an offset and some scatter: up to this much is no contradiction.
REFINED_DEG = 5.0
PIXEL_TOLERANCE = 0.01
_FEW = 8  # angles or images in a message


@dataclass(frozen=True)
class Wishes:
    """What the user gives instead of what the files say; see `tomoseg.io.parameters.ImportParameters`."""

    angles: Path | None = None
    angle_range: Angles | None = None
    pixel_size_nm: float | None = None
    tilt_axis: str = "auto"
    signal: str | None = None
    further_signals: tuple[str, ...] = ()
    exclude: str | None = None
    square_pixels: bool = False


@dataclass
class SeriesPlan:
    """An opened series with the images to import, their angles, pixel size and tilt axis.

    `further_signals` are the places of those to keep among the signals of the file.
    `images` are the places of the imported images in the file, in its order, and `angles_deg` theirs. The pixel size is
    NaN and the tilt axis 'unknown' where nothing tells them. `sources` are all sources of angles that fit the series;
    `notes` and `warnings` say where each value came from and what contradicts it.
    """

    raw: RawSeries
    images: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    angles_deg: Angles = field(default_factory=lambda: np.empty(0))
    further_signals: list[int] = field(default_factory=list)
    angles_source: str = ""
    sources: list[AngleSource] = field(default_factory=list)
    pixel_size_nm: float = math.nan
    pixel_size_source: str = "unknown"
    tilt_axis: str = "unknown"
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def plan_series(path: Path | None, wishes: Wishes, *, ask_images: bool = True) -> tuple[SeriesPlan | None, list[str]]:
    """Open the series and decide what holds for it, or list every reason why it cannot be used.

    The caller closes `plan.raw`. Without a `path`, only the angle file is checked. Unless `ask_images`, no image is
    read where sources of angles contradict each other.
    """
    raw: RawSeries | None = None
    problems: list[str] = []
    if path is not None:
        try:
            raw = open_raw(path, wishes.signal)
        except InputError as error:
            problems.append(str(error))
    if raw is None:
        try:
            _given(wishes)
        except InputError as error:
            problems.insert(0, str(error))
        return None, problems
    plan, problems = examined(raw, wishes, ask_images=ask_images)
    if problems:
        raw.close()
        return None, problems
    return plan, []


def examined(raw: RawSeries, wishes: Wishes, *, ask_images: bool) -> tuple[SeriesPlan, list[str]]:
    """Return what holds for an opened series, as far as it is known, and every reason why it cannot be used.

    The series is closed if anything but an `InputError` is raised.
    """
    problems: list[str] = []
    given: AngleSource | None = None
    plan = SeriesPlan(raw, notes=list(raw.notes), warnings=list(raw.warnings))
    try:
        given = _given(wishes)
    except InputError as error:
        problems.append(str(error))
    try:
        problems += _decide(plan, wishes, given, ask_images=ask_images and not problems)
    except InputError as error:
        problems.append(str(error))
    except BaseException:
        raw.close()
        raise
    return plan, problems


def _given(wishes: Wishes) -> AngleSource | None:
    if wishes.angles is not None:
        return AngleSource(wishes.angles.name, read_angles(wishes.angles))
    if wishes.angle_range is not None:
        return AngleSource("the range given", wishes.angle_range)
    return None


def _decide(plan: SeriesPlan, wishes: Wishes, given: AngleSource | None, *, ask_images: bool) -> list[str]:
    beside = companions_of(plan.raw.path)
    mdoc = _mdoc(plan, beside)
    plan.further_signals = _further_signals(plan.raw, wishes.further_signals)
    problems = []
    if wishes.angles is None or given is not None:
        problems += _decide_angles(plan, given, beside, mdoc, wishes.exclude, ask_images=ask_images)
    problems += _decide_pixel_size(plan, wishes, mdoc)
    _decide_tilt_axis(plan, wishes.tilt_axis, mdoc)
    return problems


def _mdoc(plan: SeriesPlan, beside: Companions) -> Mdoc | None:
    """Return the .mdoc of the series; one that cannot be read is set aside."""
    if beside.mdoc is None:
        return None
    try:
        mdoc = read_mdoc(beside.mdoc)
    except InputError as error:
        plan.raw.set_aside.append(f"{beside.mdoc.name} was set aside: {reason_without(error, beside.mdoc)}")
        return None
    plan.raw.metadata["mdoc"] = {"header": mdoc.header, "titles": list(mdoc.titles), "first_image": mdoc.images[0]}
    return mdoc


def _further_signals(raw: RawSeries, wanted: Sequence[str]) -> list[int]:
    """Return which other signals of a file to keep.

    Raises `InputError` if there is none like one that is wanted, or it does not have the same images.
    """
    if [name.casefold() for name in wanted] == ["all"]:
        alike = (s.n_images == raw.shape[0] and sorted(s.shape) == sorted(raw.shape) for s in raw.signals)
        return [i for i, fits in enumerate(alike) if fits and i != raw.signal]
    places = [choose_signal(raw.path, raw.signals, name)[0] for name in wanted] if raw.signals else []
    if wanted and not raw.signals:
        raise InputError(f"{raw.path} holds one signal: there are no others to keep (--further-signals)")
    for i in places:
        signal = raw.signals[i]
        if signal.n_images != raw.shape[0] or sorted(signal.shape) != sorted(raw.shape) or i == raw.signal:
            why = "is the tilt series itself" if i == raw.signal else f"has the shape {size_of(signal)}"
            raise InputError(
                f"signal '{shown(signal.name)}' of {raw.path} cannot be kept beside the tilt series of "
                f"{' x '.join(map(str, raw.shape))}: it {why}. One with another binning is imported into a project of "
                "its own, which takes the alignment of this one (tomoseg align --from)"
            )
    return list(dict.fromkeys(places))


# --- angles ---


def _decide_angles(
    plan: SeriesPlan,
    given: AngleSource | None,
    beside: Companions,
    mdoc: Mdoc | None,
    exclude: str | None,
    *,
    ask_images: bool,
) -> list[str]:
    """Set images and angles by the source that holds; or say why none does."""
    raw = plan.raw
    n = raw.shape[0]
    out = np.zeros(n, bool) if exclude is None else excluded_views(exclude, n)
    kept = np.flatnonzero(~out)
    plan.sources = _sources(raw, given, beside, mdoc, kept)
    if given is not None and (not plan.sources or plan.sources[0].name != given.name):
        return [_misfit(raw, given, out)]
    # One that says nothing of some images comes after one that does, unless the user chose it.
    if given is None:
        plan.sources.sort(key=lambda source: bool(np.isnan(source.angles_deg[kept]).any()))
    if not plan.sources:
        return [_no_angles(raw)]
    source = _chosen(plan, kept, given, ask_images=ask_images)
    angles = source.angles_deg
    if exclude is not None:
        out |= excluded_angles(exclude, angles)
    unknown = np.isnan(angles) & ~out
    if unknown.any():
        plan.warnings.append(
            f"{unknown.sum()} of {n} images are left out, because {source.name} has no angle for them: views "
            f"{_listed(np.flatnonzero(unknown) + 1)}"
        )
    plan.images = np.flatnonzero(~out & ~unknown)
    plan.angles_deg, plan.angles_source = angles[plan.images], source.name
    problems = _angle_problems(plan)
    if not problems:
        _describe_angles(plan, out)
    return problems


def _sources(
    raw: RawSeries, given: AngleSource | None, beside: Companions, mdoc: Mdoc | None, kept: NDArray[np.intp]
) -> list[AngleSource]:
    """Return all sources of angles that fit the series, in the order in which they count; say why others do not."""
    found: list[AngleSource] = []
    places = _mdoc_places(raw, mdoc, kept)

    def add(name: str, angles: Angles, *, is_solved: bool = False) -> None:
        fitted = _fitted(angles, raw.shape[0], kept, places)
        if fitted is None:
            n = len(angles)
            raw.set_aside.append(f"{name} was set aside: it has {n} angles, and the series {raw.shape[0]} images")
        else:
            found.append(AngleSource(name, fitted, is_solved))

    if given is not None:
        add(given.name, given.angles_deg)
    files: list[AngleSource] = []
    for path in beside.angles if given is None or beside.angles else ():
        try:
            files.append(AngleSource(path.name, read_angles(path), path.suffix.lower() in {".tlt", ".aln"}))
        except InputError as error:
            raw.set_aside.append(f"{path.name} was set aside: {reason_without(error, path)}")
    solved_first = is_aligned(raw.path)
    for file in files if solved_first else ():
        add(file.name, file.angles_deg, is_solved=file.is_solved)
    _add_mdoc(raw, mdoc, places, found)
    if raw.angles_deg is not None:
        add(raw.angles_source, raw.angles_deg)
    for more in raw.more_angles:
        add(more.name, more.angles_deg)
    for file in () if solved_first else files:
        add(file.name, file.angles_deg, is_solved=file.is_solved)
    return found


def _mdoc_places(raw: RawSeries, mdoc: Mdoc | None, kept: NDArray[np.intp]) -> NDArray[np.intp] | None:
    """Return the images of the stack that the sections of an .mdoc describe; None where they do not fit it."""
    n = raw.shape[0]
    if mdoc is None:
        return None
    numbers = np.array(mdoc.numbers, np.intp)
    if len(numbers) == n:
        return np.arange(n)
    if len(numbers) < n and numbers.max() < n:
        return numbers
    return kept if len(numbers) == len(kept) else None


def _add_mdoc(raw: RawSeries, mdoc: Mdoc | None, places: NDArray[np.intp] | None, found: list[AngleSource]) -> None:
    if mdoc is None:
        return
    if places is None:
        raw.set_aside.append(
            f"{mdoc.path.name} was set aside: it describes {len(mdoc.images)} images, the stack has {raw.shape[0]}"
        )
        return
    try:
        angles = mdoc.angles_deg()
    except InputError as error:
        raw.set_aside.append(f"the angles of {mdoc.path.name} were set aside: {reason_without(error, mdoc.path)}")
        return
    if not (np.isfinite(angles).all() and np.abs(angles).max() <= 180):
        raw.set_aside.append(f"the angles of {mdoc.path.name} were set aside: not all are between -180 and 180 degrees")
        return
    fitted = np.full(raw.shape[0], np.nan)
    fitted[places] = angles
    found.append(AngleSource(mdoc.path.name, fitted))


def _fitted(angles: Angles, n: int, kept: NDArray[np.intp], places: NDArray[np.intp] | None) -> Angles | None:
    """Return angles (n,) for all images of the series, NaN where there is none; None if they do not fit it."""
    if len(angles) == n:
        return angles
    # A list of those that are kept, or of those that the .mdoc describes.
    for images in (kept, places):
        if images is not None and len(images) == len(angles):
            fitted = np.full(n, np.nan)
            fitted[images] = angles
            return fitted
    return None


def _misfit(raw: RawSeries, given: AngleSource, out: NDArray[np.bool_]) -> str:
    kept = f", {(~out).sum()} of them without those left out" if out.any() else ""
    advice = " Views that are not in it can be left out (--exclude)." if len(given.angles_deg) < raw.shape[0] else ""
    return (
        f"{raw.path} has {raw.shape[0]} images{kept}, but {given.name} has {len(given.angles_deg)} tilt angles.{advice}"
    )


def _no_angles(raw: RawSeries) -> str:
    reasons = "; ".join(raw.set_aside)
    if not reasons:
        reasons = (
            f"the metadata ({raw.format}) have none, and there is no .mdoc, .rawtlt, .tlt, .aln or _TLT.txt of the "
            "same name beside it"
        )
    return (
        f"no tilt angles are known for {raw.path}: {reasons}. Give a file with one angle in degrees per line, or a "
        "range (--angles FILE or --angles=-68:68:2)"
    )


def _chosen(plan: SeriesPlan, kept: NDArray[np.intp], given: AngleSource | None, *, ask_images: bool) -> AngleSource:
    """Return the source to use, and warn of those that contradict it."""
    first, *others = plan.sources
    apart = {id(source): _difference(first, source, kept) for source in others}
    rivals = [source for source in others if apart[id(source)] > _tolerance(first, source)]
    for source in others:
        if source not in rivals and apart[id(source)] > ANGLE_TOLERANCE_DEG:
            plan.notes.append(
                f"the angles of {source.name} differ by up to {apart[id(source)]:.2g} deg from those of {first.name}, "
                "as solved angles do from recorded ones"
            )
    plan.warnings += plan.raw.set_aside
    if not rivals:
        return first
    supported = _supported(plan, kept, [first, *rivals]) if ask_images else None
    best = first if supported is None or (given is not None) else [first, *rivals][supported]
    for source in [first, *rivals]:
        if source is not best:
            difference = _difference(best, source, kept)
            plan.warnings.append(
                f"the angles of {source.name} differ by up to {difference:.4g} deg from those of {best.name}; "
                f"{best.name} is used, {_why(first, best, given, rivals, supported)}"
            )
    return best


def _why(
    first: AngleSource,
    best: AngleSource,
    given: AngleSource | None,
    rivals: Sequence[AngleSource],
    supported: int | None,
) -> str:
    """Say why a source is used, and what the images say."""
    favoured = None if supported is None else [first, *rivals][supported]
    if given is not None:
        if favoured is None:
            return "as given"
        return (
            "as given, and the images agree with it"
            if favoured is best
            else (
                f"as given, but the images agree with {favoured.name}: neighbouring tilts look more alike in its order"
            )
        )
    if favoured is best:
        return "because the images agree with it: neighbouring tilts look more alike in its order"
    return "which comes first; the images do not tell which is right. Give --angles to choose"


def _tolerance(first: AngleSource, other: AngleSource) -> float:
    return REFINED_DEG if first.is_solved != other.is_solved else ANGLE_TOLERANCE_DEG


def _difference(first: AngleSource, other: AngleSource, kept: NDArray[np.intp]) -> float:
    apart = np.abs(first.angles_deg - other.angles_deg)[kept]
    known = apart[np.isfinite(apart)]
    return float(known.max()) if known.size else 0.0


def _supported(plan: SeriesPlan, kept: NDArray[np.intp], sources: Sequence[AngleSource]) -> int | None:
    """Return which source the images support, None where they do not tell."""
    from tomoseg.io.order import prefers, similarity, thumbnails

    known = kept[np.isfinite([s.angles_deg[kept] for s in sources]).all(axis=0)]
    if len(known) < 3:
        return None
    alike = similarity(thumbnails(_Images(plan.raw, known)))
    return prefers(alike, [source.angles_deg[known] for source in sources])


class _Images:
    """Some images of a series, one by one (`tomoseg.arrays.ArraySource`)."""

    def __init__(self, raw: RawSeries, images: NDArray[np.intp]) -> None:
        self._raw, self._images = raw, images
        self.shape, self.dtype = (len(images), *raw.shape[1:]), raw.dtype

    def __getitem__(self, i: int) -> NDArray[np.generic]:
        return np.asarray(self._raw.read([int(self._images[i])])[0])


def _angle_problems(plan: SeriesPlan) -> list[str]:
    """Say why the angles cannot be those of a tilt series."""
    n, angles = len(plan.images), plan.angles_deg
    if n < 2:
        return [f"{n} images of {plan.raw.path} are left; a tilt series needs at least two"]
    if len(np.unique(angles)) < 2:
        return [
            f"all {n} images of {plan.raw.path} are at {angles[0]:g} degrees according to {plan.angles_source}; a tilt "
            "series needs at least two different angles. If every tilt has its own file, give the folder that they "
            "are in"
        ]
    return []


def _describe_angles(plan: SeriesPlan, out: NDArray[np.bool_]) -> None:
    """Say what the angles are, and what is odd about them."""
    angles = plan.angles_deg
    n = len(angles)
    plan.notes.append(f"{n} tilts from {angles.min():g} to {angles.max():g} deg, from {plan.angles_source}")
    if out.any():
        plan.notes.append(f"left out as asked: views {_listed(np.flatnonzero(out) + 1)}")
    plan.notes += _repeated(angles)
    if n > 2 and np.abs(angles).max() < 2.0:
        plan.warnings.append(
            f"the angles span only {np.ptp(angles):.3g} degrees: if they are radians, convert them to degrees"
        )


def _listed(numbers: Sequence[int] | NDArray[np.integer]) -> str:
    listed = ", ".join(str(int(number)) for number in numbers[:_FEW])
    return listed + (f" and {len(numbers) - _FEW} more" if len(numbers) > _FEW else "")


def _repeated(angles: Angles) -> list[str]:
    """Say which angles occur more than once, and which show the same direction from the other side."""
    count = Counter(np.round(angles, 6).tolist())
    repeated = [f"{angle:g} ({times} times)" for angle, times in sorted(count.items()) if times > 1]
    opposite = [f"{a:g} and {a + 180:g}" for a in sorted(count) if a + 180 in count]
    notes = []
    if repeated:
        more = f" and {len(repeated) - _FEW} more" if len(repeated) > _FEW else ""
        notes.append(f"repeated angles, all images kept: {', '.join(repeated[:_FEW])}{more} deg")
    if opposite:
        notes.append(f"the same direction from both sides, all images kept: {', '.join(opposite[:_FEW])} deg")
    return notes


# --- pixel size and tilt axis ---


def _decide_pixel_size(plan: SeriesPlan, wishes: Wishes, mdoc: Mdoc | None) -> list[str]:
    found, given_nm = plan.raw.pixel_size, wishes.pixel_size_nm
    if found.nm is None and found.sides_nm is None and mdoc is not None:
        of_mdoc = mdoc.pixel_size()
        found = of_mdoc if of_mdoc.nm is not None else found
    if found.sides_nm is not None and not wishes.square_pixels:
        return [
            f"{plan.raw.path} cannot be used as it is: {found.doubt}, and a reconstruction needs square ones. Resample "
            "the images to square pixels or, if their metadata are wrong, add --square-pixels and the --pixel-size"
        ]
    if given_nm is not None:
        plan.pixel_size_nm, plan.pixel_size_source = given_nm, "given"
        plan.notes.append(f"pixel size {given_nm:.6g} nm, as given")
        if found.nm is not None and abs(found.nm - given_nm) > PIXEL_TOLERANCE * given_nm:
            plan.warnings.append(
                f"the given pixel size of {given_nm:.6g} nm is used; the {found.source} has {found.nm:.6g} nm"
            )
        if found.sides_nm is not None:
            plan.warnings.append(f"{found.doubt}; they are taken as square, as asked")
    elif found.nm is not None:
        plan.pixel_size_nm, plan.pixel_size_source = found.nm, found.source
        plan.notes.append(f"pixel size {found.nm:.6g} nm, from {found.source}")
    else:
        reason = found.doubt or f"the metadata ({plan.raw.format}) do not give it"
        plan.warnings.append(
            f"the pixel size is unknown: {shown(reason, 300)}. Sizes will be in pixels until it is given "
            "(--pixel-size, nm)"
        )
    return []


def _decide_tilt_axis(plan: SeriesPlan, given: str, mdoc: Mdoc | None) -> None:
    found = plan.raw.tilt_axis or (mdoc.tilt_axis() if mdoc is not None else None)
    plan.tilt_axis = given if given != "auto" else (found or "unknown")
    if given != "auto" and found is not None and found != given:
        plan.warnings.append(f"the tilt axis is taken along {given}, as given; the metadata say {found}")
    elif given == "auto" and found is not None:
        plan.notes.append(f"tilt axis along {found}, from the metadata")
