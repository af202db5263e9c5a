"""Names and colours of classes."""

import colorsys
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tomoseg.arrays import Input
from tomoseg.errors import InputError, printable, shown
from tomoseg.palette import OKABE_ITO

MAX_CLASSES = 255  # labels are u1, the last value is taken by IGNORE


def default_names(n_classes: int) -> list[str]:
    """Return names for `n_classes` classes in ascending order of intensity."""
    few = {2: ["background", "object"], 3: ["background", "support", "particles"]}
    return few.get(n_classes, ["background", *(f"class_{i}" for i in range(1, n_classes))])


def class_names(labels: Input) -> list[str]:
    """Return the names that are stored with labels, in class order; raise InputError if there are none."""
    names = names_in(labels.attrs)
    if names is None:
        raise InputError("the labels carry no class names (attribute class_names); segment again.")
    return names


def names_in(attrs: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the classes that attributes of labels hold, printable, or None."""
    return [printable(name) for name in _texts(attrs.get("class_names"))] or None


def colors_in(attrs: Mapping[str, Any], n_classes: int) -> list[str] | None:
    """Return the colours #rrggbb of the classes that attributes of labels hold, or None where one is none."""
    stored = _texts(attrs.get("class_colors"))
    return None if problems_with_colors(stored, n_classes) else stored


def _texts(stored: Any) -> list[str]:
    if isinstance(stored, (str, bytes)) or not hasattr(stored, "__iter__"):
        return []
    return [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in stored]


def default_colors(n_classes: int) -> list[str]:
    """Return one '#rrggbb' per class: colour-blind safe for up to eight, then hues spaced by the golden angle."""
    colors = list(OKABE_ITO[:n_classes])
    for i in range(len(colors), n_classes):
        red, green, blue = colorsys.hsv_to_rgb(0.618034 * i % 1.0, 0.55 + 0.15 * (i % 3), 0.6 + 0.2 * (i % 2))
        colors.append(f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}")
    return colors


def problems_with_names(names: Sequence[str]) -> list[str]:
    """Return what is wrong with a list of class names, a sentence each."""
    problems = []
    if not 2 <= len(names) <= MAX_CLASSES:
        problems.append(f"class_names has {len(names)} names: there must be 2 to {MAX_CLASSES} classes")
    if any(not name.strip() for name in names):
        problems.append("class_names holds an empty name: give every class one")
    odd = [shown(name) for name in names if not name.isprintable()]
    if odd:
        problems.append(f"class_names holds {', '.join(odd)}, with a character that cannot be shown: leave it out")
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        problems.append(f"class_names holds {', '.join(map(shown, twice))} twice: names must differ")
    return problems


def problems_with_colors(colors: Sequence[str], n_classes: int) -> list[str]:
    """Return what is wrong with a list of class colours, a sentence each."""
    problems = []
    if len(colors) != n_classes:
        problems.append(f"class_colors has {len(colors)} colours for {n_classes} classes: give one per class")
    bad = [f"'{shown(color)}'" for color in colors if not re.fullmatch(r"#[0-9a-fA-F]{6}", color)]
    if bad:
        problems.append(f"class_colors holds {', '.join(bad)}: write colours as #rrggbb, such as #d55e00")
    return problems
