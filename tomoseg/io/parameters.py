"""Parameters of the import: the files of a raw tilt series, and what to use instead of what they say."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator, model_validator

from tomoseg.io.companions import companions_of
from tomoseg.io.exclusion import parts_of
from tomoseg.lengths import Nanometres
from tomoseg.parameters import Field, InputFile, Parameters

if TYPE_CHECKING:
    from tomoseg.io.plan import Wishes


class ImportParameters(Parameters):
    """What to import, and what to use instead of what the file says."""

    raw: InputFile | None = Field(
        None,
        description="File that holds the tilt series: MRC, DM3/DM4, Velox or NCEM EMD, TIA .ser/.emi, HyperSpy .hspy "
        "or .zspy, TIFF stack, DXchange HDF5 or .npy; or a folder with one file per tilt, or a pattern of their names.",
    )
    angles: InputFile | None = Field(
        None,
        description="File with the tilt angles in degrees, in the order of the images: .rawtlt, .tlt, .aln, a list, a "
        "table, CSV or .mdoc; or a range start:stop:step (--angles=-68:68:2). Default: a companion .mdoc, the metadata "
        "of the raw file, the names of its files, or an angle file of the same name.",
    )
    angle_range: str | None = Field(
        None,
        description="tilt angles in degrees as start:stop:step, in the order of the images, instead of a file; also "
        "understood by --angles",
    )
    signal: str | None = Field(
        None,
        description="the signal to read where a file holds several (detectors, channels, datasets): its name, part of "
        "it, or its number from 1. Default: a HAADF signal that is a series, else the one with the most images; "
        "tomoseg inspect FILE lists them",
    )
    further_signals: tuple[str, ...] = Field(
        (),
        description="other signals of the file to keep beside it (elemental maps, a second detector): names or "
        "numbers, or all. They get the alignment of the one that is read, and are reconstructed where "
        "reconstruct.signals asks for them",
    )
    exclude: str | None = Field(
        None,
        description="views to leave out: numbers from 1 in the order of the file and ranges of them (3,17-19), or "
        "angles (60deg, -70..-62deg)",
    )
    pixel_size: Nanometres | None = Field(
        None, description="Pixel size in nm. Default: from the metadata of the raw file; unknown if it has none."
    )
    square_pixels: bool = Field(
        False, description="take pixels as square whatever the metadata say; otherwise others are refused"
    )
    tilt_axis: Literal["auto", "x", "y"] = Field(
        "auto",
        description="Nominal direction of the tilt axis in the raw image: x (horizontal) or y (vertical). auto takes "
        "it from the metadata, or leaves it to the alignment.",
    )

    @model_validator(mode="before")
    @classmethod
    def _range_of_angles(cls, values: Any) -> Any:
        """Take a range that was given as the file of angles for what it is."""
        from tomoseg.io.angles import angles_of_range

        given = values.get("angles") if isinstance(values, dict) else None
        if isinstance(given, (str, Path)) and angles_of_range(str(given)) is not None:
            return {**values, "angles": None, "angle_range": str(given)}
        return values

    @field_validator("angle_range", mode="after")
    @classmethod
    def _is_range(cls, text: str | None) -> str | None:
        from tomoseg.io.angles import angles_of_range

        if text is not None and angles_of_range(text) is None:
            raise ValueError("must be three numbers start:stop:step, such as -68:68:2")
        return text

    @field_validator("exclude", mode="after")
    @classmethod
    def _names_views(cls, text: str | None) -> str | None:
        if text is not None:
            parts_of(text)
        return text

    def companions(self) -> dict[str, Path]:
        """Return the files beside the raw one that supply what it does not say itself."""
        if self.raw is None or not self.raw.name:
            return {}
        beside = companions_of(self.raw)
        found = {} if beside.mdoc is None else {"mdoc": beside.mdoc}
        if self.angles is None and self.angle_range is None:
            found |= {f"tilt angles ({path.name})": path for path in beside.angles}
        return found

    def wishes(self) -> "Wishes":
        """Return what the user gives instead of what the files say."""
        from tomoseg.io.angles import angles_of_range
        from tomoseg.io.plan import Wishes

        return Wishes(
            angles=self.angles,
            angle_range=None if self.angle_range is None else angles_of_range(self.angle_range),
            pixel_size_nm=self.pixel_size,
            tilt_axis=self.tilt_axis,
            signal=self.signal,
            further_signals=self.further_signals,
            exclude=self.exclude,
            square_pixels=self.square_pixels,
        )


def check(params: ImportParameters) -> list[str]:
    """List everything that is wrong with the raw file and the angle file, from their headers."""
    from tomoseg.io.plan import plan_series

    plan, problems = plan_series(params.raw, params.wishes(), ask_images=False)
    if plan is not None:
        plan.raw.close()
    return problems
