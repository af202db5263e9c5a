"""Densities of support materials."""

import math

# g/cm3, of the crystals without pores. gamma-alumina: Digne et al., J. Catal. 226 (2004) 54, and references there (3.6
# to 3.7); the others: CRC Handbook of Chemistry and Physics, 97th ed.
DENSITIES_G_CM3 = {
    "gamma-alumina": 3.65,
    "alpha-alumina": 3.97,
    "silica": 2.2,
    "anatase": 3.9,
    "rutile": 4.23,
    "ceria": 7.22,
    "zirconia": 5.68,
    "magnesia": 3.6,
    "graphite": 2.27,
}


def density_g_cm3(value: float | str | None) -> float:
    """Return a density that is given as a number or by the name of a material; NaN for None."""
    if value is None:
        return math.nan
    if isinstance(value, str) and value in DENSITIES_G_CM3:
        return DENSITIES_G_CM3[value]
    try:
        density = float(value)
    except ValueError:
        density = math.nan
    if not 0 < density < 30:
        raise ValueError(f"expected a density between 0 and 30 g/cm3, or one of {', '.join(DENSITIES_G_CM3)}")
    return density
