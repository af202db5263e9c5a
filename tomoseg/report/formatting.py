"""Numbers, units and stored values as text for readers."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

NOTHING = "–"
# Units as the names of columns and attributes end in them; longer ones first.
UNITS = {
    "m2_per_g": "m²/g",
    "m2_g": "m²/g",
    "g_per_cm3": "g/cm³",
    "g_cm3": "g/cm³",
    "per_nm2": "1/nm²",
    "per_px2": "1/px²",
    "per_nm": "1/nm",
    "per_px": "1/px",
    "nm2": "nm²",
    "nm3": "nm³",
    "nm": "nm",
    "px2": "px²",
    "px3": "px³",
    "px": "px",
    "deg": "°",
    "percent": "%",
}
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NBSP = "\u00a0"  # keeps a number and its unit on one line


def number(value: Any, digits: int = 3) -> str:
    """Return a number with this many significant digits, as a power of ten where it is very large or small."""
    value = float(value)
    if not math.isfinite(value):
        return NOTHING
    if value == int(value) and abs(value) < 1e6:
        text = f"{value:.0f}"
    elif value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-3):
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        text = f"{mantissa}{NBSP}×{NBSP}10{str(int(exponent)).translate(SUPERSCRIPT)}"
    else:
        text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


def with_spread(mean: float, spread: float) -> tuple[str, str]:
    """Return a mean and its standard deviation: two significant digits of the latter, and as many decimals in both."""
    if not (math.isfinite(mean) and math.isfinite(spread) and spread > 0):
        return number(mean), NOTHING
    decimals = max(0, 1 - math.floor(math.log10(spread)))
    return f"{mean:.{decimals}f}", f"{spread:.{decimals}f}"


def plus_minus(value: float, sigma: float) -> str:
    """Return a value and its uncertainty, '2.10 ± 0.36'; the value alone where that is unknown."""
    shown, spread = with_spread(value, sigma)
    return shown if spread == NOTHING else f"{shown} ± {spread}"


def length(nm: float) -> str:
    """Return a length (nm) with its unit, nm or µm."""
    return f"{number(nm / 1000)}{NBSP}µm" if nm >= 1000 else f"{number(nm)}{NBSP}nm"


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 100:
        return f"{number(seconds, 2)}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def memory(n_bytes: float) -> str:
    """Return an amount of memory in kB, MB or GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{number(n_bytes / size)}{NBSP}{unit}"
    return f"{number(n_bytes / 1e3)}{NBSP}kB"


def moment(text: str) -> str:
    """Return an ISO 8601 time to the second, with a space for the T; any other text unchanged."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(\+00:00)?", text)
    return text if found is None else f"{found[1]} {found[2]}{' UTC' if found[3] else ''}"


def aligned_column(values: Iterable[Any]) -> list[str]:
    """Return the values of one column as text, numbers of similar magnitude with the same number of decimals."""
    values = [plain(v) for v in values]
    sizes = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v) and v != 0]
    if not sizes or max(sizes) > 200 * min(sizes) or max(sizes) >= 1e5 or max(sizes) < 1e-3:
        return [show(v) for v in values]
    decimals = max(0, 3 - math.floor(math.log10(max(sizes))))
    return [
        f"{v:.{decimals}f}".replace("-", "−") if isinstance(v, float) and math.isfinite(v) else show(v) for v in values
    ]


def plain(value: Any) -> Any:
    """Convert a stored value to plain Python: bytes to text, arrays to lists, scalars to numbers."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
        return plain(value) if isinstance(value, bytes) else value
    return value


def show(value: Any) -> str:
    """Return any stored value as text."""
    value = plain(value)
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, 4)
    if isinstance(value, list | tuple):
        return ", ".join(show(v) for v in value) or NOTHING
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def cell(value: Any) -> str:
    """Return a value of a table: numbers as `number` writes them, a dash for nothing."""
    if isinstance(value, (float, np.floating)):
        return number(float(value)) if np.isfinite(value) else NOTHING
    return NOTHING if value in (None, "") else str(value)


def split_unit(name: str) -> tuple[str, str]:
    """Split a name such as 'surface_area_nm2' into words and unit ('surface area', 'nm²'); the unit may be ''."""
    for end, unit in UNITS.items():
        if name.endswith(f"_{end}"):
            return name[: -len(end) - 1].replace("_", " "), unit
    return name.replace("_", " "), ""


def uncertainty_of(name: str) -> str:
    """Return the name of a number's uncertainty: of 'mean_diameter_nm', 'mean_diameter_uncertainty_nm'."""
    unit = next((f"_{end}" for end in UNITS if name.endswith(f"_{end}")), "")
    return f"{name.removesuffix(unit)}_uncertainty{unit}"


def heading(name: str) -> str:
    """Turn a column name into a heading: 'surface_area_nm2' becomes 'surface area (nm²)'."""
    stem, unit = split_unit(name)
    return f"{stem} ({unit})" if unit else stem


def in_nm(name: str) -> str:
    """Return the name of the same quantity in nm if `name` is in px; otherwise `name` itself."""
    for end in UNITS:
        if "px" in end and name.endswith(f"_{end}"):
            return name[: -len(end)] + end.replace("px", "nm")
    return name


def joined(words: Sequence[str]) -> str:
    """Return 'a', 'a and b' or 'a, b and c'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def value_with_unit(value: Any, unit: str) -> str:
    """Return a stored value as text with its unit, if it has one."""
    text = show(value)
    if text == NOTHING or not unit:
        return text
    return f"{text}{unit}" if unit == "°" else f"{text}{NBSP}{unit}"
