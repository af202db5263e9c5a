"""What is read of a raw tilt series, decided from headers alone: which angles, pixel size and tilt axis hold.

What the user gives comes first, then the metadata of the file and its .mdoc, then an angle file of the same name.
Contradictions among them become warnings.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tomoseg.errors import InputError
from tomoseg.io.angles import angles_beside, read_angles
from tomoseg.io.raw import open_raw
from tomoseg.io.series import Angles, RawSeries

# Smaller differences are rounding in headers and angle files.
ANGLE_TOLERANCE_DEG = 0.1
PIXEL_TOLERANCE = 0.01


@dataclass
class SeriesPlan:
    """An opened series with the angles (in the order of its images), pixel size and tilt axis to use for it.

    The pixel size is NaN and the tilt axis 'unknown' where nothing tells them. `notes` and `warnings` say where each
    value came from and what contradicts it.
    """

    raw: RawSeries
    angles_deg: Angles = field(default_factory=lambda: np.empty(0))
    angles_source: str = ""
    pixel_size_nm: float = math.nan
    pixel_size_source: str = "unknown"
    tilt_axis: str = "unknown"
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def plan_series(
    path: Path | None, angles: Path | None = None, pixel_size_nm: float | None = None, tilt_axis: str = "auto"
) -> tuple[SeriesPlan | None, list[str]]:
    """Open the series and decide what holds for it, or list every reason why it cannot be used.

    The caller closes `plan.raw`. Without a `path`, only the angle file is checked.
    """
    problems: list[str] = []
    given: Angles | None = None
    raw: RawSeries | None = None
    if angles is not None:
        try:
            given = read_angles(angles)
        except InputError as error:
            problems.append(str(error))
    if path is not None:
        try:
            raw = open_raw(path)
        except InputError as error:
            problems.append(str(error))
    if raw is None:
        return None, problems
    try:
        plan = SeriesPlan(raw, notes=list(raw.notes), warnings=list(raw.warnings))
        if angles is None or given is not None:
            problems += _decide_angles(plan, angles, given)
        _decide_pixel_size(plan, pixel_size_nm)
        _decide_tilt_axis(plan, tilt_axis)
    except BaseException:
        raw.close()
        raise
    if problems:
        raw.close()
        return None, problems
    return plan, []


def _decide_angles(plan: SeriesPlan, path: Path | None, given: Angles | None) -> list[str]:
    """Set the angles: those given, else the metadata's, else those of a file of the same name; or say the problem."""
    raw = plan.raw
    if path is not None and given is not None:
        plan.angles_deg, plan.angles_source = given, path.name
    elif raw.angles_deg is not None:
        plan.angles_deg, plan.angles_source = raw.angles_deg, raw.angles_source
    else:
        sibling = angles_beside(raw.path)
        if sibling is None:
            return [
                f"no tilt angles are known for {raw.path}: the {raw.format} file has none, and there is no .mdoc, "
                ".rawtlt or .tlt of the same name beside it; give a file with one angle in degrees per line "
                "(--angles FILE)"
            ]
        try:
            plan.angles_deg, plan.angles_source = read_angles(sibling), f"{sibling.name} beside the raw file"
        except InputError as error:
            return [str(error)]
    problems = _angle_problems(plan)
    if not problems:
        _describe_angles(plan, are_given=given is not None)
    return problems


def _angle_problems(plan: SeriesPlan) -> list[str]:
    """Say why the angles cannot belong to the images."""
    n, angles = plan.raw.shape[0], plan.angles_deg
    if len(angles) != n:
        return [f"{plan.raw.path} has {n} images, but {plan.angles_source} has {len(angles)} tilt angles"]
    if len(np.unique(angles)) < 2:
        return [
            f"all {n} images of {plan.raw.path} are at {angles[0]:g} degrees according to {plan.angles_source}; a tilt "
            "series needs at least two different angles. If every tilt has its own file, join the files into one "
            "stack first"
        ]
    return []


def _describe_angles(plan: SeriesPlan, *, are_given: bool) -> None:
    """Say what the angles are, and what is odd about them."""
    raw, angles = plan.raw, plan.angles_deg
    n = len(angles)
    plan.notes.append(f"{n} tilts from {angles.min():g} to {angles.max():g} deg, from {plan.angles_source}")
    plan.notes += _repeated(angles)
    if are_given and raw.angles_deg is not None and len(raw.angles_deg) == n:
        difference = float(np.abs(angles - raw.angles_deg).max())
        if difference > ANGLE_TOLERANCE_DEG:
            plan.warnings.append(
                f"the angles of {plan.angles_source} differ by up to {difference:.4g} deg from those in the "
                f"{raw.angles_source}; {plan.angles_source} is used"
            )
    if n > 2 and np.abs(angles).max() < 2.0:
        plan.warnings.append(
            f"the angles span only {np.ptp(angles):.3g} degrees: if they are radians, convert them to degrees"
        )


def _repeated(angles: Angles) -> list[str]:
    """Say which angles occur more than once, and which show the same direction from the other side."""
    count = Counter(np.round(angles, 6).tolist())
    repeated = [f"{angle:g} ({times} times)" for angle, times in sorted(count.items()) if times > 1]
    opposite = [f"{a:g} and {a + 180:g}" for a in sorted(count) if a + 180 in count]
    notes = []
    if repeated:
        more = f" and {len(repeated) - 8} more" if len(repeated) > 8 else ""
        notes.append(f"repeated angles, all images kept: {', '.join(repeated[:8])}{more} deg")
    if opposite:
        notes.append(f"the same direction from both sides, all images kept: {', '.join(opposite[:8])} deg")
    return notes


def _decide_pixel_size(plan: SeriesPlan, given_nm: float | None) -> None:
    found = plan.raw.pixel_size
    if given_nm is not None:
        plan.pixel_size_nm, plan.pixel_size_source = given_nm, "given"
        plan.notes.append(f"pixel size {given_nm:.6g} nm, as given")
        if found.nm is not None and abs(found.nm - given_nm) > PIXEL_TOLERANCE * given_nm:
            plan.warnings.append(
                f"the given pixel size of {given_nm:.6g} nm is used; the {found.source} has {found.nm:.6g} nm"
            )
    elif found.nm is not None:
        plan.pixel_size_nm, plan.pixel_size_source = found.nm, found.source
        plan.notes.append(f"pixel size {found.nm:.6g} nm, from {found.source}")
    else:
        reason = found.doubt or f"the {plan.raw.format} file does not give it"
        plan.warnings.append(
            f"the pixel size is unknown: {reason}. Sizes will be in pixels until it is given (--pixel-size, nm)"
        )


def _decide_tilt_axis(plan: SeriesPlan, given: str) -> None:
    found = plan.raw.tilt_axis
    plan.tilt_axis = given if given != "auto" else (found or "unknown")
    if given != "auto" and found is not None and found != given:
        plan.warnings.append(f"the tilt axis is taken along {given}, as given; the metadata say {found}")
    elif given == "auto" and found is not None:
        plan.notes.append(f"tilt axis along {found}, from the metadata")
