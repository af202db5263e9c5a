"""A script that shows an export in ParaView: support translucent grey, particles red, pores blue, a scale bar."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RED, GREY, BLUE = "#c8191e", "#a0a0a0", "#3b78b8"


@dataclass(frozen=True)
class Shown:
    """A surface in the picture: its file, name, colour #rrggbb, and opacity from 0 to 1."""

    file: str
    name: str
    color: str
    opacity: float


def write_script(path: Path, surfaces: Sequence[Shown], points: str | None, unit: str) -> None:
    """Write the script; it finds the files beside itself, wherever the folder is taken to.

    Parameters
    ----------
    path
        File to write, in the folder of the others.
    surfaces
        What is shown; those with an opacity below 1 as glass.
    points
        File of the particles as points: loaded, and hidden until it is asked for; None: there is none.
    unit
        Of lengths, for the scale bar.
    """
    text = _TEMPLATE.replace("@SURFACES@", json.dumps([asdict(s) for s in surfaces], indent=4))
    text = text.replace("@POINTS@", repr(points)).replace("@UNIT@", json.dumps(unit))
    path.write_text(text, encoding="utf-8")


_TEMPLATE = '''"""Shows what tomoseg exported in ParaView (5.9 or later): surfaces, upright, with a scale bar.

In ParaView: Tools > Python Shell > Run Script, or from a terminal

    paraview --script=paraview_view.py

A picture without a window:

    pvpython --force-offscreen-rendering paraview_view.py picture.png

The files must lie beside this script. Change what follows as you like.
"""

import math
import os
import sys

from paraview.simple import *

SURFACES = @SURFACES@
POINTS = @POINTS@
UNIT = @UNIT@
AZIMUTH_DEG, ELEVATION_DEG = 30, 20  # of the camera, from the view along the beam; y stays up
PICTURE_SIZE = [1600, 1200]


def main():
    folder = os.path.dirname(os.path.abspath(__file__))
    view = GetActiveViewOrCreate("RenderView")
    view.ViewSize = view.ViewSize if arguments() == [] else PICTURE_SIZE
    white(view)
    shown = [show(view, folder, **surface) for surface in SURFACES if exists(folder, surface["file"])]
    if POINTS and exists(folder, POINTS):
        points = OpenDataFile(os.path.join(folder, POINTS))
        RenameSource("particles as points", points)
        Hide(points, view)
    if shown:
        look(view, [surface.GetDataInformation().GetBounds() for surface in shown])
    Render(view)
    for picture in arguments()[:1]:
        SaveScreenshot(picture, view, ImageResolution=PICTURE_SIZE)


def arguments():
    """Return what stands on the command line after the script; ParaView itself leaves its own options there."""
    return [a for a in sys.argv[1:] if a.lower().endswith((".png", ".jpg", ".jpeg", ".tif", ".tiff"))]


def exists(folder, file):
    found = os.path.exists(os.path.join(folder, file))
    if not found:
        print(f"{file} is not in {folder}: not shown", file=sys.stderr)
    return found


def rgb(color):
    return [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def white(view):
    if hasattr(view, "UseColorPaletteForBackground"):
        view.UseColorPaletteForBackground = 0
    if hasattr(view, "BackgroundColorMode"):
        view.BackgroundColorMode = "Single Color"
    view.Background = [1, 1, 1]
    view.OrientationAxesLabelColor = [0, 0, 0]


def show(view, folder, file, name, color, opacity):
    surface = OpenDataFile(os.path.join(folder, file))
    RenameSource(name, surface)
    display = Show(surface, view)
    ColorBy(display, None)
    display.Representation = "Surface"
    display.AmbientColor = display.DiffuseColor = rgb(color)
    display.Opacity = opacity
    display.Specular, display.SpecularPower = 0.25, 30
    surface.UpdatePipeline()
    return surface


def look(view, bounds):
    """Point the camera, and lay a scale bar under what is seen; lengths are true, for there is no perspective."""
    low = [min(b[2 * i] for b in bounds) for i in range(3)]
    high = [max(b[2 * i + 1] for b in bounds) for i in range(3)]
    centre = [(a + b) / 2 for a, b in zip(low, high)]
    a, e = math.radians(AZIMUTH_DEG), math.radians(ELEVATION_DEG)
    towards = [math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)]
    right = [math.cos(a), 0, -math.sin(a)]
    up = [-math.sin(a) * math.sin(e), math.cos(e), -math.cos(a) * math.sin(e)]
    # Half the width, height and depth of the box as it is seen.
    half = [sum(abs(d) * (h - l) / 2 for d, h, l in zip(axis, high, low)) for axis in (right, up, towards)]
    width, height, depth = half

    def place(x, y, z=0.0):
        return [c + x * r + y * u + z * t for c, r, u, t in zip(centre, right, up, towards)]

    length = round_length(0.6 * width)
    below = -1.1 * height
    bar = Line(Point1=place(-length / 2, below), Point2=place(length / 2, below))
    RenameSource("scale bar", bar)
    line = Show(bar, view)
    ColorBy(line, None)
    line.AmbientColor = line.DiffuseColor = [0, 0, 0]
    line.LineWidth = 6
    text = Text(Text=f"{length:g} {UNIT}")
    RenameSource("length of the scale bar", text)
    label = Show(text, view)
    label.TextPropMode = "Billboard 3D Text"
    label.BillboardPosition = place(0, below - 0.04 * height)
    label.Justification, label.VerticalJustification = "Center", "Top"
    label.FontSize, label.Color = 28, [0, 0, 0]

    top, bottom = height, below - 0.25 * height
    aspect = view.ViewSize[0] / view.ViewSize[1]
    view.CameraParallelProjection = 1
    view.CameraParallelScale = 1.05 * max((top - bottom) / 2, width / aspect)
    view.CameraFocalPoint = view.CenterOfRotation = place(0, (top + bottom) / 2)
    view.CameraPosition = place(0, (top + bottom) / 2, 4 * max(half))
    view.CameraViewUp = [0, 1, 0]


def round_length(longest):
    """Return the largest of 1, 2 and 5 times a power of ten that is not longer."""
    power = 10 ** math.floor(math.log10(longest))
    return max(f * power for f in (1, 2, 5) if f * power <= longest * (1 + 1e-9))


main()
'''
