"""Reconstruction methods in one table: what each is called, does and takes.

A new method is one function in `methods`, and one row here with its name in `MethodName`.
"""

from dataclasses import dataclass
from typing import Literal

MethodName = Literal["mlem", "osem", "sirt", "tv", "fbp", "gridrec"]
BackendName = Literal["auto", "cpu", "astra", "tomopy", "tomopy-astra"]

OWN: tuple[BackendName, ...] = ("auto", "cpu", "astra")  # backends that run the functions in `methods`
ALL: tuple[BackendName, ...] = (*OWN, "tomopy", "tomopy-astra")


@dataclass(frozen=True)
class MethodRow:
    """A reconstruction method: its name, its description for `--help`, and what follows.

    Copies of voxels are of a block of slices, the result among them, in a backend that updates a volume in place.
    Copies of data are: as read, without negatives or filtered (with its spectrum), measured, computed.
    """

    name: MethodName
    description: str
    function: str  # in `methods`; for a method that only TomoPy has, the one that stands in to measure the resolution
    options: tuple[str, ...] = ()  # keywords of the function besides `voxel_mask` and what all iterative methods take
    backends: tuple[BackendName, ...] = OWN  # that compute it
    on_gpu_only: tuple[BackendName, ...] = ()  # those that compute it on a GPU only
    usual_iterations: int = 0  # where there are too few tilts to hold some out
    most_iterations: int = 0  # that `iterations: auto` tries; 0 for a direct method
    volumes: int = 1  # copies of the voxels
    sinograms: int = 4  # copies of the data
    tomopy_volumes: int = 5  # copies of the voxels that TomoPy holds

    @property
    def is_direct(self) -> bool:
        """Whether the method has no iterations."""
        return self.most_iterations == 0


_ROWS = (
    MethodRow(
        "mlem", "maximum-likelihood expectation maximisation, the paper's method", function="mlem",
        backends=ALL, on_gpu_only=("tomopy-astra",), usual_iterations=30, most_iterations=120,
    ),
    MethodRow(
        "osem", "the same with ordered subsets of the tilts, in fewer iterations", function="osem",
        options=("subsets",), backends=(*OWN, "tomopy"), usual_iterations=5, most_iterations=20,
        volumes=2,  # and the voxels that a subset does not see
        sinograms=6,  # and those of the subsets
    ),
    MethodRow(
        "sirt", "simultaneous iterative reconstruction", function="sirt",
        options=("non_negative",), backends=ALL, usual_iterations=100, most_iterations=240,
    ),
    MethodRow(
        "tv",
        "least squares with total variation, which suppresses noise and the missing wedge of objects with sharp "
        "surfaces", function="tv",
        options=("weight",), usual_iterations=60, most_iterations=120,
        volumes=5,  # and the previous one, the extrapolated one, both components of the dual field
    ),
    MethodRow(
        "fbp", "filtered back projection", function="fbp", options=("filter_name",), backends=ALL, sinograms=10
    ),
    MethodRow(
        "gridrec", "fbp by TomoPy's Fourier gridding, with backend tomopy", function="fbp",
        options=("filter_name",), backends=("tomopy",),
        sinograms=18,  # it doubles the width, up to the next power of two
        # A core has a complex grid of `gridrec_width` squared, at most 32 slices' worth, for each block of 16.
        tomopy_volumes=7,
    ),
)  # fmt: skip
METHODS: dict[str, MethodRow] = {row.name: row for row in _ROWS}


def describe_methods() -> str:
    """Return a description of every method, for `--help`."""
    return "; ".join(f"{row.name}: {row.description}" for row in _ROWS)


def methods_of(backend: str) -> list[str]:
    """Return the names of the methods that a backend computes."""
    return [row.name for row in _ROWS if backend in row.backends]
