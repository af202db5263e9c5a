"""Parameters of the import: the files of a raw tilt series, and what to use instead of what they say."""

from pathlib import Path
from typing import Literal

from tomoseg.io.angles import angles_beside
from tomoseg.io.mdoc import mdoc_beside
from tomoseg.lengths import Nanometres
from tomoseg.parameters import Field, InputFile, Parameters


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
        "CSV or .mdoc. Default: a companion .mdoc, the metadata of the raw file, or a .rawtlt/.tlt of the same name.",
    )
    pixel_size: Nanometres | None = Field(
        None, description="Pixel size in nm. Default: from the metadata of the raw file; unknown if it has none."
    )
    tilt_axis: Literal["auto", "x", "y"] = Field(
        "auto",
        description="Nominal direction of the tilt axis in the raw image: x (horizontal) or y (vertical). auto takes "
        "it from the metadata, or leaves it to the alignment.",
    )

    def companions(self) -> dict[str, Path]:
        """Return the files beside the raw one that supply what it does not say itself."""
        if self.raw is None or not self.raw.name:
            return {}
        found = {"mdoc": mdoc_beside(self.raw), "tilt angles": None if self.angles else angles_beside(self.raw)}
        return {name: path for name, path in found.items() if path is not None}


def check(params: ImportParameters) -> list[str]:
    """List everything that is wrong with the raw file and the angle file, from their headers."""
    from tomoseg.io.plan import plan_series

    plan, problems = plan_series(params.raw, params.angles, params.pixel_size, params.tilt_axis)
    if plan is not None:
        plan.raw.close()
    return problems
