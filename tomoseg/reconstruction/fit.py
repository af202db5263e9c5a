"""Whether a volume explains the images at all: one that does not is a failure, whatever computed it.

An iterative method has to bring the residual below that of its start, and of an empty volume. A direct method has no
start, and from few or unevenly spread tilts its scale may be far off, and with it the residual: a back projection that
correlates with the images by 0.9 can leave a residual of 2. There the correlation counts, which no scale changes. In a
slab much thinner than wide even that may be anything, since most of what the images show lies outside; there a volume
that is not uniform is all that can be asked for.
"""

import math

from tomoseg.errors import StageFailed
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.method_table import MethodRow
from tomoseg.reconstruction.slab_loop import Checkpoint

ROUNDING = 1e-4  # relative; a residual that is no larger leaves nothing to be explained
LEAST_CORRELATION = 0.01  # simulated series have 0.22 and more, however few electrons and tilts
THICK = 0.25  # of the width: slabs from here on are asked for it
COUNTS = ("mlem", "osem")  # methods for which negative pixels are 0
REMEDIES = {  # what usually makes a method fail so; others have only the common remedies
    "osem": "fewer subsets, or method mlem",
    "sirt": "non_negative false if the images are mostly negative",
}


def refuse_unexplained(done: Checkpoint, row: MethodRow, geometry: ParallelGeometry) -> None:
    """Raise `StageFailed` where the images are blank, or the volume explains them no better than none would."""
    if done.amount == 0:
        raise StageFailed(
            f"The aligned images are blank: each of the {done.pixels} pixels that were to be reconstructed is 0. Look "
            "at the raw images, at the alignment and at reconstruct.y_range."
        )
    if done.power == 0 and row.name in COUNTS and done.negative_amount == done.amount:
        raise StageFailed(
            f"None of the {done.pixels} aligned pixels that were to be reconstructed is positive, and {row.name} "
            "counts negative ones as 0. Check the background that the alignment subtracted, or use method sirt with "
            "non_negative false."
        )
    if done.power == 0:
        raise StageFailed(
            f"The aligned images are too faint: their pixels are {done.amount / done.pixels:.1e} on average, and "
            "squares of such numbers are 0 in single precision. Multiply the images by a constant before they are "
            "imported."
        )
    problem = _unexplained_by_direct(done, geometry) if row.is_direct else _unexplained_by_iterative(done)
    if problem:
        remedies = [REMEDIES[row.name]] if row.name in REMEDIES else []
        others = [] if done.backend == "cpu" else ["backend cpu, to see whether the backend is to blame"]
        raise StageFailed(
            f"The volume that {row.name} gave on backend {done.backend} does not explain the images: {problem}. Check "
            "the alignment and the tilt angles, and that z_size holds all that the images show. Try "
            f"{'; or '.join([*remedies, 'support all', *others])}."
        )


def _unexplained_by_iterative(done: Checkpoint) -> str:
    """Return why the volume of an iterative method explains nothing, or an empty string."""
    first, last = done.residuals[0], done.residuals[-1]
    if last < min(first, 1) or last <= ROUNDING:
        return ""
    n = f"{done.iterations} iteration{'s' if done.iterations > 1 else ''}"
    uniform = ", and each slice is uniform" if done.uniform else ""
    return f"its relative residual is {last:.4f} after {n}, {first:.4f} at the start and 1 without any volume{uniform}"


def _unexplained_by_direct(done: Checkpoint, geometry: ParallelGeometry) -> str:
    """Return why the volume of a direct method explains nothing, or an empty string."""
    residual = f"relative residual {done.residuals[-1]:.3f}"
    if done.uniform and geometry.nz * geometry.nx > 1:
        return f"each slice is uniform ({residual})"
    # |p - q|**2 = |p|**2 + |q|**2 - 2 p.q
    product = (done.power + done.computed_power - done.misfit[-1]) / 2
    correlation = product / math.sqrt(done.power * max(done.computed_power, 1e-300))
    if correlation >= LEAST_CORRELATION or geometry.nz < THICK * geometry.n_detector:
        return ""
    return f"its projections correlate with them by {correlation:.3f} ({residual})"
