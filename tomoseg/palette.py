"""The colours of classes, curves and pictures, each stated once.

Most are those of Okabe & Ito (2008, jfly.uni-koeln.de/color), which remain distinct with every common kind of colour
blindness.
"""

from dataclasses import dataclass

BLACK, BLUE, ORANGE, GREEN = "#000000", "#0072b2", "#e69f00", "#009e73"
PURPLE, SKY_BLUE, VERMILLION, YELLOW = "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"
OKABE_ITO = (BLACK, BLUE, ORANGE, GREEN, PURPLE, SKY_BLUE, VERMILLION, YELLOW)  # of classes; the background is black

EXPORTED_CLASSES = (BLACK, "#9a9a9a", "#c8191e", "#3b78b8", "#2e8b57", "#d99a1c")  # if the labels name none
CLOSED_PORES = PURPLE  # their surfaces: told from support and particles

# Axes of the volume, in slices and at the surfaces; the tilt axis in tilt images.
AXES = {"x": VERMILLION, "y": GREEN, "z": SKY_BLUE}
TILT_AXIS = ORANGE
RESIDUAL = SKY_BLUE  # of a marker

INK, SOFT_INK = "#1c2127", "#59636e"  # text on white
ON_ANY_PAGE = "#7c838c"  # a grey that is readable on white and on black


@dataclass(frozen=True)
class PlotColors:
    """Colours of a plot: its text, its grid and up to three curves."""

    text: str
    grid: str
    first: str
    second: str
    third: str


LIGHT = PlotColors("#33383f", "#d5d9de", BLUE, VERMILLION, "#007a5a")
DARK = PlotColors("#c9cfd6", "#3a4048", SKY_BLUE, ORANGE, "#2bbf95")


def rgb(color: str) -> tuple[int, int, int]:
    """Return red, green and blue (0 to 255) of '#rrggbb'."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
