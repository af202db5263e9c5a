"""Dispersion of a metal: the part of its atoms that are at the surface of the particles."""

import numpy as np

# Distance of nearest neighbours in the metal, nm (C. Kittel, Introduction to Solid State Physics, 8th ed., ch. 1, table
# 4): the face-centred cubic metals that catalysts are made of.
ATOM_DIAMETERS_NM = {
    "Ag": 0.289,
    "Au": 0.288,
    "Cu": 0.256,
    "Ir": 0.271,
    "Ni": 0.249,
    "Pd": 0.275,
    "Pt": 0.277,
    "Rh": 0.269,
}
# Where the two branches are used, and where the second one ends.
LARGE_DISPERSION, MOST_DISPERSION = 0.2, 0.92


def dispersion(d32_nm: float, atom_diameter_nm: float) -> float:
    """Return the dispersion of particles from their surface-weighted mean diameter d32.

    With d_rel = d32 / d_at, d_rel = 5.01 / D for D < 0.2 and d_rel = 3.32 / D^1.23 for 0.2 <= D <= 0.92
    (A. Borodzinski & M. Bonarowska, Langmuir 13, 1997, 5613-5620); the branches meet at D = 0.2 within 4% of d_rel,
    and D is 0.2 in between. Within 3% of the atoms counted in cuboctahedra of 147 to 6500 atoms,
    within 9% where the branches meet. NaN beyond a dispersion of 0.92, below 3.7 atomic diameters, and where a number
    is missing.
    """
    relative = d32_nm / atom_diameter_nm
    if not relative > 0:
        return float("nan")
    small = float((3.32 / relative) ** (1 / 1.23))
    if small > MOST_DISPERSION:
        return float("nan")
    return small if small >= LARGE_DISPERSION else float(min(5.01 / relative, LARGE_DISPERSION))


def atom_diameter_of(class_name: str) -> float:
    """Return the diameter of the atoms of a class that is named by the symbol of a metal, nm; NaN for other names."""
    return ATOM_DIAMETERS_NM.get(class_name.strip(), float(np.nan))
