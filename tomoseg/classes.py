"""Names and colours of classes."""

import colorsys
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tomoseg.arrays import Input
from tomoseg.errors import InputError
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
    """Return the names of the classes that attributes of labels hold, or None."""
    stored = attrs.get("class_names")
    if stored is None or len(stored) == 0:
        return None
    return [name.decode() if isinstance(name, bytes) else str(name) for name in stored]


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
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        problems.append(f"class_names holds {', '.join(twice)} twice: names must differ")
    return problems


def problems_with_colors(colors: Sequence[str], n_classes: int) -> list[str]:
    """Return what is wrong with a list of class colours, a sentence each."""
    problems = []
    if len(colors) != n_classes:
        problems.append(f"class_colors has {len(colors)} colours for {n_classes} classes: give one per class")
    bad = [color for color in colors if not re.fullmatch(r"#[0-9a-fA-F]{6}", color)]
    if bad:
        problems.append(f"class_colors holds {', '.join(bad)}: write colours as #rrggbb")
    return problems
