"""Parameters of the reconstruction."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from tomoseg.parameters import Field, Parameters, Range
from tomoseg.reconstruction.method_table import METHODS, BackendName, MethodName, describe_methods, methods_of

MOST_ITERATIONS = 10_000
Filter = Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"]


def _count_or_auto(value: Any) -> Any:
    """Refuse anything but 'auto' and a sensible number of iterations."""
    if isinstance(value, str) and value.isdecimal():  # from the command line
        value = int(value)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_ITERATIONS
    if value != "auto" and not is_count:
        raise ValueError(f"must be auto, or a whole number from 1 to {MOST_ITERATIONS}")
    return value


class ReconstructParameters(Parameters):
    """How the volume is reconstructed."""

    method: MethodName = Field("mlem", description=describe_methods())
    iterations: Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)] = Field(
        "auto",
        description="iterations of mlem, osem, sirt and tv. auto: the number that best predicts held-out tilts, found "
        "on some slices",
    )
    subsets: int = Field(6, ge=1, le=1000, description="osem: number of subsets that the tilts are divided into")
    tv_weight: float = Field(
        0.02,
        ge=0,
        le=10,
        description="tv: weight of the total variation relative to the data; 0.01 keeps more detail, 0.05 suits few "
        "or noisy tilts",
    )
    signals: tuple[str, ...] = Field(
        (),
        json_schema_extra={"flags": ["--signal"]},
        description="further signals, kept by the import, to reconstruct beside the volume in the same way: names, or "
        "all",
    )
    resolution: bool = Field(
        True,
        description="estimate the resolution by Fourier shell correlation of some slices, reconstructed from the even "
        "and from the odd tilts",
    )
    backend: BackendName = Field(
        "auto",
        description="software that computes: cpu (tomoseg's own projector), astra (on a GPU, or its CPU projector), "
        "tomopy, tomopy-astra (ASTRA's own mlem, on a GPU, sirt and fbp, through TomoPy). auto: astra where a GPU may "
        "be used, else cpu",
    )
    binning: int = Field(
        1,
        ge=1,
        le=64,
        description="average this many aligned pixels in each direction; all sizes and ranges then count the larger "
        "voxels",
    )
    z_size: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="thickness along the beam, in voxels, that is reconstructed. It must contain everything that the "
        "images show. null: a third more than the thickness of a film that the alignment found, else the width of the "
        "images",
    )
    x_range: Range | None = Field(
        None,
        description="part of the volume to keep across the tilt axis: first voxel, and one past the last",
    )
    y_range: Range | None = Field(
        None, description="part of the volume to keep along the tilt axis; no other slices are computed"
    )
    z_range: Range | None = Field(None, description="part of the volume to keep along the beam, within z_size")
    filter: Filter = Field(
        "hann",
        description="window on the ramp filter of fbp and gridrec; hann is the smoothest, ramp the sharpest and "
        "noisiest",
    )
    non_negative: bool = Field(True, description="sirt: set negative voxels to 0 after each iteration")
    support: Literal["all", "cylinder"] = Field(
        "all",
        description="voxels that may hold density. all: also the corners, which leave the field of view at high tilt "
        "and are determined by the tilts that see them; cylinder: only voxels that every tilt sees, for an object "
        "that lies wholly within the images",
    )
    exclude_outliers: bool = Field(
        True,
        description="leave out images that the alignment marked as outliers: empty images, which would dim every "
        "voxel, and images that disagree with their neighbours",
    )


def check(params: ReconstructParameters) -> list[str]:
    """Return what is wrong with the backend asked for: it is not installed, or does not compute the method."""
    from tomoseg.reconstruction.backends.choice import why_missing

    problem = why_missing(params.backend)
    problems = [f"reconstruct.backend: {problem}"] if problem else []
    row = METHODS[params.method]
    if params.backend not in row.backends:
        others = " or ".join(row.backends)
        problems.append(
            f"reconstruct.method: backend {params.backend} does not compute {params.method}. Use backend {others}, or "
            f"one of the methods of backend {params.backend}: {', '.join(methods_of(params.backend))}"
        )
    return problems
