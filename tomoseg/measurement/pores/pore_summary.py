"""Numbers that sum up the pores of a volume: porosity, connectivity, tortuosity."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.measurement.common.columns import in_nm_and_px
from tomoseg.measurement.pores.pore_space import (
    SMALLEST_PORE,
    PoreSpace,
    box_within,
    connected_sides,
    euler_number,
    porosity_with_gaps,
)
from tomoseg.measurement.pores.pore_table import mean_pore_diameter_px
from tomoseg.measurement.pores.tortuosity import tortuosity


def pore_summary(
    space: PoreSpace,
    pores: NDArray[np.void],
    sizes: NDArray[np.void],
    voxel_size_nm: float,
    closing_nm: float | None,
    checkpoint: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the numbers that sum up the pores, by their names in the project file; `pores` and `sizes` are the tables.

    `closing_nm` is the radius of the ball that told what a pore is, None where none did. `checkpoint` is called between
    long computations; it may raise to stop.
    """
    cell_px3 = float(space.side) ** 3
    here = space.in_volume()
    pore_cells, body_cells = int(space.pores[here].sum()), int(space.body[here].sum())
    pore_px3, body_px3 = pore_cells * cell_px3, body_cells * cell_px3
    closed_px3 = float(pores["volume_px3"][pores["closed"]].sum())
    ball_px = float(pores["inscribed_diameter_px"].max(initial=0)) / 2
    porosity = pore_cells / max(body_cells, 1)
    known = ~pores["touches_border"] & ~pores["below_resolution"]
    unresolved_px3 = pore_px3 - float(pores["volume_px3"][~pores["below_resolution"]].sum())
    return {
        "n_pores": len(pores),
        "n_open_pores": int((known & ~pores["closed"]).sum()),
        "n_closed_pores": int((known & pores["closed"]).sum()),
        "n_pores_touching_border": int(pores["touches_border"].sum()),
        "n_pores_below_resolution": int((pores["below_resolution"] & ~pores["touches_border"]).sum()),
        "unresolved_porosity": unresolved_px3 / max(body_px3, 1),
        "least_pore_voxels": SMALLEST_PORE * space.side**3,
        "pore_closing_nm": math.nan if closing_nm is None else closing_nm,
        "porosity": porosity,
        "closed_porosity": closed_px3 / max(body_px3, 1),
        "open_porosity": (pore_px3 - closed_px3) / max(body_px3, 1),
        "largest_pore_share": float(pores["volume_px3"].max(initial=0) / pore_px3) if pore_px3 else math.nan,
        "pore_euler_number": euler_number(space),
        "porosity_with_gaps": porosity_with_gaps(space, ball_px / space.side) if ball_px else porosity,
        **in_nm_and_px("gap_ball", ball_px, voxel_size_nm),
        **{f"pores_join_sides_{axis}": joined for axis, joined in zip("zyx", connected_sides(space), strict=True)},
        **_tortuosities(space, checkpoint),
        **in_nm_and_px("pore_volume", pore_px3, voxel_size_nm, 3),
        **in_nm_and_px("body_volume", body_px3, voxel_size_nm, 3),
        **in_nm_and_px("mean_pore_diameter", mean_pore_diameter_px(sizes), voxel_size_nm),
    }


def _tortuosities(space: PoreSpace, checkpoint: Callable[[], None]) -> dict[str, Any]:
    box = box_within(space)
    part = np.zeros((1, 1, 1), bool) if box is None else space.pores[box]
    found: dict[str, Any] = {"tortuosity_box_px": [0, 0, 0] if box is None else [n * space.side for n in part.shape]}
    for axis, name in enumerate("zyx"):
        checkpoint()
        found[f"tortuosity_{name}"] = tortuosity(part, axis)
    return found
