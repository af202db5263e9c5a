"""Parameters of the measurement of micrographs."""

from typing import Literal

from tomoseg.parameters import Field, Parameters


class MicrographParameters(Parameters):
    """How particles of micrographs are found and measured."""

    pixel_size_nm: float | None = Field(
        None, gt=0, description="Pixel size in nm of all images, in place of what metadata or scale bars say"
    )
    scale_bar: Literal["auto", "off"] = Field(
        "auto",
        description="'auto': look for a burnt-in scale bar, read its label where the metadata give no pixel size, and "
        "leave bar, label and footer out; 'off': images have none",
    )
    polarity: Literal["auto", "bright", "dark"] = Field(
        "auto", description="Whether particles are brighter or darker than what is around them; 'auto': the images say"
    )
    split: bool = Field(True, description="Cut touching particles at narrow necks")
    neck_ratio: float = Field(
        0.92,
        gt=0,
        le=1,
        description="A neck is cut where it is narrower than this part of the smaller of the two particles; not with "
        "--model auto",
    )
    smallest_px: float = Field(3.0, ge=0, description="Particles of a smaller equivalent diameter in px are dropped")
    largest_px: float = Field(200.0, gt=3, description="Largest diameter in px that is looked for with --model none")
    model: str = Field(
        "auto",
        description="What finds the particles: 'auto', the network that ships with tomoseg, trained on simulated "
        "micrographs; 'none', blobs that stand out from what is around them; or a network of yours, by its name or its "
        ".keras file",
    )
    particle_class: str = Field("", description="Class of the network that is measured; default: its last one")
    border_correction: bool = Field(
        True,
        description="Weight particles by how often one of their size lies inside the frame (Miles & Lantuejoul), since "
        "large ones are cut by its border more often",
    )

    @property
    def has_own_network(self) -> bool:
        """Whether a network finds the particles that is not the one for micrographs that ships with tomoseg."""
        return self.model not in ("auto", "none")
