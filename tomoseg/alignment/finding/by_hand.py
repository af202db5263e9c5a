"""Shifts that are set by hand for single images, in place of those that were found or given."""

from dataclasses import replace

import numpy as np

from tomoseg.alignment.finding.estimate import Alignment, Placement
from tomoseg.alignment.images.warp import rotate_vectors
from tomoseg.arrays import FloatArray
from tomoseg.io.set_shifts import SetShifts


def with_shifts(
    alignment: Alignment, placement: Placement, chosen: SetShifts, angles_deg: FloatArray, factor: int
) -> tuple[Alignment, Placement]:
    """Return an alignment with the shifts of some images set; the others, and the tilt axis, stay as they were.

    An image whose shift is set is taken for good, though the others may not have predicted it where it was before.
    `factor` is how many raw pixels a pixel of the reduced series is wide.
    """
    shifts, by_hand = alignment.shifts_px.copy(), np.zeros(len(alignment.shifts_px), bool)
    shifts[chosen.images], by_hand[chosen.images] = chosen.shifts_px, True
    steps = rotate_vectors(shifts - alignment.shifts_px, alignment.axis_angle_deg) / factor
    told = [
        f"tilt {angles_deg[i]:g} degrees {dy:g},{dx:g} px (before: {alignment.shifts_px[i, 0]:.2f},"
        f"{alignment.shifts_px[i, 1]:.2f})"
        for i, (dy, dx) in zip(chosen.images, chosen.shifts_px, strict=True)
    ]
    unpredicted = None if alignment.unpredicted is None else alignment.unpredicted & ~by_hand
    moved = replace(
        alignment,
        shifts_px=shifts,
        notes=[*alignment.notes, f"shifts set by hand: {'; '.join(told)}"],
        unpredicted=unpredicted,
        by_hand=by_hand,
    )
    return moved, replace(placement, aligned_moves_px=placement.aligned_moves_px + steps)
