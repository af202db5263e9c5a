"""The parameters of alignment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from tomoseg.errors import InputError
from tomoseg.io.exclusion import parts_of_tilts
from tomoseg.io.regular import status_of
from tomoseg.io.set_shifts import as_text, parse_shifts
from tomoseg.io.shifts import read_shifts, tilts_beside
from tomoseg.parameters import Field, InputFile, OtherProject, Parameters, Range


class AlignParameters(Parameters):
    """How the tilt series is brought into register."""

    method: Literal["auto", "xcorr", "com", "common-line", "reprojection", "markers", "none"] = Field(
        "auto",
        description="how shifts are found. auto: common-line for a sample that is whole in the frame across the axis; "
        "for one that is not, markers where there are enough, else as a film, if it is one, else reprojection; xcorr: "
        "cross-correlation of neighbouring tilts and no further step, rough; com: centre of mass in both directions, "
        "for a sample that is whole in the frame; common-line: centre of mass across the axis and, along it, the "
        "images' projections onto the axis; reprojection: comparison with reprojections of a quick reconstruction; "
        "markers: particles that are followed through the tilts; none: the series is aligned already, shifts are 0 and "
        "the axis is as given",
    )
    tilt_axis_angle: float | None = Field(
        None,
        gt=-90,
        le=90,
        description="direction of the tilt axis in degrees from the raw image's vertical, counter-clockwise as "
        "displayed; null: found from the images, in the whole half circle. The nominal direction that the import may "
        "know is a hint then: another one has to explain the images clearly better",
    )
    tilt_axis_offset: float | None = Field(
        None,
        description="distance of the tilt axis from the image centre in px after rotation, positive to the right; "
        "null: found from the images, or 0 with method none",
    )
    background: Literal["auto", "none"] | float = Field(
        "auto",
        description="counts of vacuum to subtract: auto (the darkest flat part of each image), none, or a number for "
        "all images",
    )
    contrast: Literal["auto", "dark-field", "bright-field"] = Field(
        "auto",
        description="dark-field: mass is bright (HAADF); bright-field: mass is dark, images are made into mass "
        "thickness -ln(I / I0), with background, if it is a number, the counts without a beam; auto: the images tell, "
        "dark-field where they do not",
    )
    despike: Literal["auto", "off"] = Field(
        "auto",
        description="auto: replace X-ray spikes, hot and dead pixels and defective columns and rows by what surrounds "
        "them; off: only pixels without a number (NaN)",
    )
    normalise: Literal["auto", "on", "off"] = Field(
        "auto",
        description="even out the brightness of the images. auto: where it changes in a way that the sample cannot "
        "(beam current, exposure, gain), before anything is compared; on: by every difference, and once more after "
        "alignment; off: not at all",
    )
    low_frequency: float | None = Field(
        None, gt=0, lt=0.5, description="lower limit of the band-pass in cycles per raw pixel; null: 3 cycles per image"
    )
    high_frequency: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="upper limit of the band-pass in cycles per raw pixel; null: a quarter of a cycle per pixel of the "
        "reduced images (at most 256 px on a side)",
    )
    max_shift: float = Field(
        1 / 3,
        gt=0,
        le=0.5,
        description="largest step between neighbouring tilts, as a fraction of the longer image side",
    )
    x_range: Range | None = Field(
        None,
        description="patch to align by: columns of the image at the lowest tilt in raw px, first and one past the "
        "last. Shifts and axis are found from this patch, which has a soft edge and is followed through the tilts; "
        "null: all",
    )
    y_range: Range | None = Field(None, description="patch to align by: rows, as for x_range")
    mask: InputFile | None = Field(
        None,
        description="grey image (TIFF, MRC, NPY, PNG) of the size of the raw images, or a stack with one for each tilt "
        "by ascending angle: pixels of 0 (a probe, dirt, a scale bar burnt in) are ignored, and become background in "
        "the aligned series",
    )
    refine: tuple[Literal["rotation", "magnification", "tilt-angle"], ...] = Field(
        (),
        description="image corrections to find after the shifts: rotation (in addition to the tilt axis angle), "
        "magnification, tilt-angle. They are kept if the tilts then predict each other better. For unsteady stages, "
        "and lenses that are refocused between images",
    )
    level: Literal["auto", "off"] = Field(
        "auto",
        description="auto: the inclination of a film about the tilt axis is taken from all tilt angles, so that it "
        "lies level in the volume; off: tilt angles stay as recorded, or as refined",
    )
    shifts_file: InputFile | None = Field(
        None,
        description="file of shifts to apply unchanged instead of finding them: an IMOD .xf (with a .tlt or .rawtlt "
        "beside it if its lines are not by ascending angle), or a table with columns dy and dx in raw px, to add to a "
        "raw image's coordinates, and optionally the tilt angle. Direction and offset of the axis are as given, else "
        "from an .xf that rotates, else found for these shifts",
    )
    set_shift: str | None = Field(
        None,
        json_schema_extra={"repeated": "; ", "metavar": "TILT=DY,DX"},
        description="shifts set by hand, in place of those found or given: TILT=DY,DX, the tilt in degrees and what to "
        "add to the raw image's coordinates in raw px (as in /alignment/shifts_px), such as 30=1.5,-2; several with "
        "semicolons between them. All other images, and the tilt axis, stay where they were found",
    )
    exclude_tilt: str | None = Field(
        None,
        description="images that take no part: tilts in degrees and ranges of them, such as 60,-70..-62. They are 0 in "
        "the aligned series, and the reconstruction leaves them out",
    )
    from_project: OtherProject | None = Field(
        None,
        json_schema_extra={"flags": ["--from"]},
        description="another project (.h5) whose shifts and tilt axis are applied unchanged, for another channel (an "
        "EDX map, a second detector) recorded at the same tilts over the same area; the binning may differ. Only the "
        "alignment of that file counts: the next run repeats this stage if the other series was aligned anew, and not "
        "if later stages ran there",
    )

    @field_validator("normalise", "despike", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """Take true and false for on and off, as settings of earlier versions and YAML have them."""
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        if isinstance(value, bool):
            return "off" if not value else "on"
        return value

    @field_validator("set_shift", mode="before")
    @classmethod
    def _shifts(cls, value: Any) -> Any:
        """Take {30: (1.5, -2)}, as Python has it, for '30=1.5,-2'."""
        return as_text(value) if isinstance(value, Mapping) else value

    @field_validator("set_shift", mode="after")
    @classmethod
    def _sets_shifts(cls, text: str | None) -> str | None:
        return None if text is None else as_text(parse_shifts(text))

    @field_validator("exclude_tilt", mode="after")
    @classmethod
    def _names_tilts(cls, text: str | None) -> str | None:
        if text is not None:
            parts_of_tilts(text)
        return text

    def companions(self) -> dict[str, Path]:
        """Return the tilt angles beside an .xf, which give the order of its lines."""
        beside = None if self.shifts_file is None else tilts_beside(self.shifts_file.expanduser())
        return {} if beside is None else {"tilt angles of the shifts": beside}


def check(params: AlignParameters) -> list[str]:
    """Return what is wrong with the parameters in combination, and with the files they name."""
    problems = []
    low, high = params.low_frequency, params.high_frequency
    if low is not None and high is not None and low >= high:
        problems.append(f"align.low_frequency {low:g} must be below align.high_frequency {high:g} cycles per pixel")
    sources = {"shifts_file": params.shifts_file, "from_project": params.from_project}
    named = [f"align.{name}" for name, value in sources.items() if value is not None]
    named += ["align.method none"] if named and params.method == "none" else []
    if len(named) > 1:
        problems.append(f"{' and '.join(named)} contradict each other: each gives the shifts; keep one of them")
    if params.refine and (taken := named or (["align.method none"] if params.method == "none" else [])):
        problems.append(f"align.refine and {taken[0]} contradict each other: image corrections need shifts to be found")
    if params.shifts_file is not None:
        try:
            read_shifts(params.shifts_file.expanduser())
        except InputError as error:
            problems.append(f"align.shifts_file: {error}")
    if params.from_project is not None and not status_of(params.from_project.expanduser()):
        problems.append(f"align.from_project: there is no project {params.from_project}")
    if params.mask is not None:
        from tomoseg.io.masks import open_mask

        try:
            with open_mask(params.mask.expanduser()):
                pass
        except InputError as error:
            problems.append(f"align.mask: {error}")
    return problems
