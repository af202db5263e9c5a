"""Names, colours and file names of the classes of a segmentation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tomoseg.palette import EXPORTED_CLASSES, SURFACE_GREY, SURFACE_RED

GLASS = 0.25  # opacity of the surfaces around the particles


@dataclass(frozen=True)
class Classes:
    """The classes of the labels: names, one #rrggbb each, and the index of the class whose objects are particles."""

    names: tuple[str, ...]
    colors: tuple[str, ...]
    particles: int

    @classmethod
    def of(cls, names: Sequence[str], colors: Sequence[str] = (), particle_class: str = "") -> "Classes":
        """Complete the colours where there is not one per class; the particles are the last class unless named."""
        if len(colors) != len(names):
            colors = [EXPORTED_CLASSES[k % len(EXPORTED_CLASSES)] for k in range(len(names))]
        particles = names.index(particle_class) if particle_class in names else len(names) - 1
        return cls(tuple(names), tuple(colors), particles)

    def stem(self, k: int) -> str:
        """Return the file name, without its ending, of the surface of class `k`."""
        return surface_stem(k, self.names[k])

    def appearance(self, k: int) -> tuple[str, float]:
        """Return colour and opacity of a surface: red particles; the rest glass, grey if it is a single class."""
        if k == self.particles:
            return SURFACE_RED, 1.0
        return SURFACE_GREY if len(self.names) <= 3 else self.colors[k], GLASS


def surface_stem(index: int, name: str) -> str:
    """Return a file name for the surface of a class; the index separates names that differ in odd characters only."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "class"
    return f"surface_{index}_{plain}"
