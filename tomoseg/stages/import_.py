"""Import: bring a raw tilt series, its angles and its pixel size into the project."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tomoseg.arrays import Array, Outputs
from tomoseg.errors import InputError
from tomoseg.io.companions import angles_beside, mdoc_beside
from tomoseg.io.digest import sha256
from tomoseg.parameters import Field, InputFile, Parameters
from tomoseg.runtime import Runtime, slabs
from tomoseg.schema import ANGLES, TILT_SERIES, TILT_SERIES_INFO
from tomoseg.stages.base import Stage

if TYPE_CHECKING:
    from tomoseg.io.series import Angles, RawSeries

# An HDF5 attribute holds 64 KiB at most.
METADATA_CHARACTERS = 60_000
# Differences below these are rounding in headers and angle files.
ANGLE_TOLERANCE_DEG = 0.1
PIXEL_TOLERANCE = 0.01


class ImportParameters(Parameters):
    """What to import, and what to use instead of what the file says."""

    raw: InputFile | None = Field(
        None,
        description="File that holds the tilt series: MRC, DM3/DM4, Velox or NCEM EMD, TIA .ser/.emi, HyperSpy .hspy, "
        "TIFF stack or DXchange HDF5.",
    )
    angles: InputFile | None = Field(
        None,
        description="File with the tilt angles in degrees, in the order of the images: .rawtlt, .tlt, one per line, "
        "CSV or .mdoc. Default: a companion .mdoc, the raw file's own metadata, or a .rawtlt/.tlt of the same name.",
    )
    pixel_size: float | None = Field(
        None, gt=0, description="Pixel size in nm. Default: from the raw file's metadata, unknown if it has none."
    )
    tilt_axis: Literal["auto", "x", "y"] = Field(
        "auto",
        description="Nominal direction of the tilt axis in the raw image: x (horizontal) or y (vertical); auto takes "
        "it from the metadata, or leaves it to the alignment.",
    )

    def companions(self) -> dict[str, Path]:
        """Return the files beside the raw one that are looked at for what it does not say itself."""
        if self.raw is None:
            return {}
        found = {"mdoc": mdoc_beside(self.raw), "tilt angles": None if self.angles else angles_beside(self.raw)}
        return {name: path for name, path in found.items() if path is not None}


@dataclass
class _Plan:
    """What will be imported, decided from headers alone."""

    raw: "RawSeries"
    angles_deg: "Angles"
    angles_source: str
    pixel_size_nm: float
    pixel_size_source: str
    tilt_axis: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(params: ImportParameters) -> list[str]:
    """List everything that is wrong with the raw file and the angle file, from their headers."""
    plan, problems = _plan(params)
    if plan is not None:
        plan.raw.close()
    return problems


def run(*, params: ImportParameters, runtime: Runtime, outputs: Outputs) -> None:
    """Copy the series into the project, sorted by angle, in slabs.

    Raises
    ------
    InputError
        The files cannot be used, or an image holds NaN or infinite values.
    """
    if params.raw is None:
        raise InputError("there is no raw tilt series to import: name the file (tomoseg run RAW -o PROJECT.h5)")
    plan, problems = _plan(params)
    if plan is None:
        raise InputError.of(problems)
    with plan.raw:
        for note in plan.notes:
            runtime.say(note)
        for warning in plan.warnings:
            runtime.warn(warning)
        # A stable order keeps repeated exposures in the order they were taken.
        order = np.argsort(plan.angles_deg, kind="stable")
        sorted_deg = plan.angles_deg[order]
        _copy(plan.raw, order, sorted_deg, runtime, outputs)
        outputs.put("angles_deg", sorted_deg)
        outputs.set_attrs("tilt_series_info", _attrs(plan, params.raw, sha256(plan.raw.path)))


def _copy(raw: "RawSeries", order: Array, sorted_deg: Array, runtime: Runtime, outputs: Outputs) -> None:
    n, ny, nx = raw.shape
    sink = outputs.create("tilt_series", raw.shape, raw.dtype)
    # The images as they are read and as they are sorted, and a mask where they are checked.
    size = runtime.slab_size(ny * nx * (2 * raw.dtype.itemsize + 1), n)
    for slab in runtime.track(slabs(n, size), "importing"):
        images = raw.read(order[slab])
        if images.dtype.kind == "f":
            for image, index, angle in zip(images, order[slab], sorted_deg[slab], strict=True):
                bad = image.size - int(np.count_nonzero(np.isfinite(image)))
                if bad:
                    raise InputError(
                        f"{raw.path}: image {index + 1} of {n} (at {angle:g} degrees) has {bad} pixels that are NaN or "
                        "infinite; replace them by numbers before importing"
                    )
        sink[slab] = images


def _plan(params: ImportParameters) -> "tuple[_Plan | None, list[str]]":
    """Decide what will be imported, or collect every reason why it cannot be."""
    from tomoseg.io.angles import read_angles
    from tomoseg.io.raw import open_raw

    problems: list[str] = []
    given: Angles | None = None
    raw: RawSeries | None = None
    if params.angles is not None:
        try:
            given = read_angles(params.angles)
        except InputError as error:
            problems.append(str(error))
    if params.raw is not None:
        try:
            raw = open_raw(params.raw)
        except InputError as error:
            problems.append(str(error))
    if raw is None:
        return None, problems
    try:
        plan = _Plan(raw, np.empty(0), "", math.nan, "unknown", "unknown", list(raw.notes), list(raw.warnings))
        if params.angles is None or given is not None:
            problems += _decide_angles(plan, params.angles, given)
        _decide_pixel_size(plan, params.pixel_size)
        _decide_tilt_axis(plan, params.tilt_axis)
    except BaseException:
        raw.close()
        raise
    if problems:
        raw.close()
        return None, problems
    return plan, []


def _decide_angles(plan: _Plan, path: Path | None, given: "Angles | None") -> list[str]:
    """Set the angles: those given, else the metadata's, else those of a file of the same name; or say the problem."""
    from tomoseg.io.angles import read_angles

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
        _describe_angles(plan, given is not None)
    return problems


def _angle_problems(plan: _Plan) -> list[str]:
    """Say why the angles cannot belong to the images."""
    n, angles = plan.raw.shape[0], plan.angles_deg
    if len(angles) != n:
        return [f"{plan.raw.path} has {n} images, but there are {len(angles)} tilt angles in {plan.angles_source}"]
    if len(np.unique(angles)) < 2:
        return [
            f"all {n} images of {plan.raw.path} are at {angles[0]:g} degrees (by {plan.angles_source}); a tilt series "
            "needs at least two different angles. If every tilt has its own file, join the files into one stack first"
        ]
    return []


def _describe_angles(plan: _Plan, are_given: bool) -> None:
    """Say what the angles are, and what is odd about them."""
    raw, angles = plan.raw, plan.angles_deg
    n = len(angles)
    plan.notes.append(f"{n} tilts from {angles.min():g} to {angles.max():g} deg from {plan.angles_source}")
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


def _repeated(angles: "Angles") -> list[str]:
    """Say which angles occur more than once, and which are the same direction seen from the other side."""
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


def _decide_pixel_size(plan: _Plan, given_nm: float | None) -> None:
    found = plan.raw.pixel_size
    if given_nm is not None:
        plan.pixel_size_nm, plan.pixel_size_source = given_nm, "given"
        plan.notes.append(f"pixel size {given_nm:.6g} nm as given")
        if found.nm is not None and abs(found.nm - given_nm) > PIXEL_TOLERANCE * given_nm:
            plan.warnings.append(
                f"the given pixel size of {given_nm:.6g} nm is used; the {found.source} has {found.nm:.6g} nm"
            )
    elif found.nm is not None:
        plan.pixel_size_nm, plan.pixel_size_source = found.nm, found.source
        plan.notes.append(f"pixel size {found.nm:.6g} nm from {found.source}")
    else:
        reason = found.doubt or f"the {plan.raw.format} file does not say it"
        plan.warnings.append(
            f"the pixel size is unknown: {reason}. Sizes will be in pixels until it is given (--pixel-size, nm)"
        )


def _decide_tilt_axis(plan: _Plan, given: str) -> None:
    found = plan.raw.tilt_axis
    plan.tilt_axis = given if given != "auto" else (found or "unknown")
    if given != "auto" and found is not None and found != given:
        plan.warnings.append(f"the tilt axis is taken along {given} as given; the metadata say {found}")
    elif given == "auto" and found is not None:
        plan.notes.append(f"tilt axis along {found} from the metadata")


def _attrs(plan: _Plan, path: Path, digest: str) -> dict[str, Any]:
    return {
        "pixel_size_nm": float(plan.pixel_size_nm),
        "pixel_size_source": plan.pixel_size_source,
        "angles_source": plan.angles_source,
        "tilt_axis": plan.tilt_axis,
        "source": str(path.absolute()),
        "source_sha256": digest,
        "metadata": _json(plan.raw.format, plan.raw.metadata),
    }


def _json(kind: str, metadata: dict[str, Any]) -> str:
    """Return the metadata as JSON that fits an HDF5 attribute; the longest entries are left out if need be."""
    kept: dict[str, Any] = {"format": kind, **metadata}
    text = json.dumps(kept)
    while len(text) > METADATA_CHARACTERS:
        longest = max((key for key in kept if key != "left_out"), key=lambda key: len(json.dumps(kept[key])))
        del kept[longest]
        kept["left_out"] = [*kept.get("left_out", []), longest]
        text = json.dumps(kept)
    return text


STAGE = Stage(
    name="import",
    version=1,
    summary="bring a raw tilt series, its angles and its pixel size into the project",
    parameters=ImportParameters,
    reads=(),
    writes=(TILT_SERIES, ANGLES, TILT_SERIES_INFO),
    run=run,
    check=check,
    source="raw",
)
