"""Reconstruction methods in one table: what each is called, does and takes.

A new method is one function in `methods`, and one row here with its name in `MethodName`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

MethodName = Literal["mlem", "osem", "sirt", "tv", "fbp", "gridrec"]
BackendName = Literal["auto", "cpu", "astra", "tomopy", "tomopy-astra"]

OWN_LOOP: tuple[BackendName, ...] = ("auto", "cpu", "astra")  # backends that run the functions in `methods`
EVERYWHERE: tuple[BackendName, ...] = (*OWN_LOOP, "tomopy", "tomopy-astra")


@dataclass(frozen=True)
class MethodRow:
    """A reconstruction method.

    Attributes
    ----------
    name : value of the parameter `method`
    description : what the method is, for `--help`
    function : name of its function in `methods`. A method that only TomoPy has names a function that stands in for it
        where the resolution is measured.
    options : keywords of the function, besides `voxel_mask` and what every iterative method takes
    backends : which compute it
    on_gpu_only : those of them that compute it on a GPU only
    usual_iterations : taken where there are too few tilts to hold some out; 0 for a direct method
    most_iterations : the largest number that `iterations: auto` tries; 0 for a direct method
    volumes : copies of a block's voxels held by a backend that updates a volume in place, the result among them
    sinograms : copies of a block's data: as read, without negatives or filtered (with its spectrum), measured, computed
    tomopy_volumes : copies of a block's voxels that TomoPy holds
    """

    name: MethodName
    description: str
    function: str
    options: tuple[str, ...] = ()
    backends: tuple[BackendName, ...] = OWN_LOOP
    on_gpu_only: tuple[BackendName, ...] = ()
    usual_iterations: int = 0
    most_iterations: int = 0
    volumes: int = 1
    sinograms: int = 4
    tomopy_volumes: int = 5

    @property
    def is_direct(self) -> bool:
        """Whether the method has no iterations."""
        return self.most_iterations == 0

    def load_function(self) -> Callable[..., Any]:
        """Return the function, importing compiled code only now."""
        from tomoseg.reconstruction import methods

        function: Callable[..., Any] = getattr(methods, self.function)
        return function


_ROWS = (
    MethodRow(
        "mlem",
        "maximum-likelihood expectation maximisation, the paper's method",
        function="mlem",
        backends=EVERYWHERE,
        on_gpu_only=("tomopy-astra",),
        usual_iterations=30,
        most_iterations=120,
    ),
    MethodRow(
        "osem",
        "the same with ordered subsets of the tilts, in fewer iterations",
        function="osem",
        options=("subsets",),
        backends=(*OWN_LOOP, "tomopy"),
        usual_iterations=5,
        most_iterations=20,
        volumes=2,  # and what a subset does not see
        sinograms=6,  # and the subsets' own
    ),
    MethodRow(
        "sirt",
        "simultaneous iterative reconstruction",
        function="sirt",
        options=("non_negative",),
        backends=EVERYWHERE,
        usual_iterations=100,
        most_iterations=240,
    ),
    MethodRow(
        "tv",
        "least squares with total variation, which suppresses noise and the missing wedge of objects with sharp "
        "surfaces",
        function="tv",
        options=("weight",),
        usual_iterations=60,
        most_iterations=120,
        volumes=5,  # and the previous one, the extrapolated one, both components of the dual field
    ),
    MethodRow(
        "fbp",
        "filtered back projection",
        function="fbp",
        options=("filter_name",),
        backends=EVERYWHERE,
        sinograms=10,
    ),
    MethodRow(
        "gridrec",
        "fbp by TomoPy's Fourier gridding, with backend tomopy",
        function="fbp",
        options=("filter_name",),
        backends=("tomopy",),
        sinograms=18,  # it doubles the width, up to the next power of two
        # A core has a complex grid of `gridrec_width` squared, at most 32 slices' worth, for each block of 16.
        tomopy_volumes=7,
    ),
)
METHODS: dict[str, MethodRow] = {row.name: row for row in _ROWS}


def describe_methods() -> str:
    """Return a description of every method, for `--help`."""
    return "; ".join(f"{row.name}: {row.description}" for row in _ROWS)


def methods_of(backend: str) -> list[str]:
    """Return the names of the methods that a backend computes."""
    return [row.name for row in _ROWS if backend in row.backends]
