"""Format `paraview`: a script that shows the surfaces, the support translucent, with a scale bar."""

import json
from collections.abc import Sequence
from pathlib import Path

from tomoseg.errors import printable
from tomoseg.export.context import ExportContext, Surface
from tomoseg.export.formats.base import Format


def write_script(path: Path, surfaces: Sequence[Surface], points: str | None, unit: str) -> None:
    """Write the script; it finds the .vtp files beside itself, so the folder can be moved.

    `points` is the file of the particles as points, loaded but hidden; None: there is none.
    """
    shown = [
        {"file": f"{s.stem}.vtp", "name": printable(s.name), "color": s.color, "opacity": s.opacity} for s in surfaces
    ]
    # Not as escapes: those of JSON for characters beyond 16 bits are two characters in Python.
    listed = json.dumps(shown, indent=4, ensure_ascii=False)
    text = _TEMPLATE.replace("@POINTS@", repr(points)).replace("@UNIT@", json.dumps(unit))
    text = text.replace("@SURFACES@", listed)  # last: a name may be anything
    path.write_text(text, encoding="utf-8")


_TEMPLATE = '''"""Shows what tomoseg exported in ParaView (5.9 or later): surfaces, upright, with a scale bar.

In ParaView: Tools > Python Shell > Run Script, or from a terminal

    paraview --script=paraview_view.py

A picture without a window:

    pvpython --force-offscreen-rendering paraview_view.py picture.png

(on a machine without a screen some builds of ParaView need `xvfb-run -a` before that). The files must lie beside this
script. Change what follows as you like.
"""

import math
import os
import sys

import paraview.simple
from paraview.simple import *

SURFACES = @SURFACES@
POINTS = @POINTS@
UNIT = @UNIT@
AZIMUTH_DEG, ELEVATION_DEG = 30, 20  # of the camera, from the view along the beam; y stays up
PICTURE_SIZE = [1600, 1200]


def main():
    folder = os.path.dirname(os.path.abspath(__file__))
    paraview.simple._DisableFirstRenderCameraReset()
    view = GetActiveViewOrCreate("RenderView")
    view.ViewSize = view.ViewSize if arguments() == [] else PICTURE_SIZE
    white(view)
    shown = [show(view, folder, **surface) for surface in SURFACES if exists(folder, surface["file"])]
    if POINTS and exists(folder, POINTS):
        points = OpenDataFile(os.path.join(folder, POINTS))
        RenameSource("particles as points", points)
        Hide(points, view)
    if shown:
        look(view, shown)
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
    if hasattr(view, "MaximumNumberOfPeels"):
        view.MaximumNumberOfPeels = 16  # layers of glass that are told apart


def show(view, folder, file, name, color, opacity):
    surface = OpenDataFile(os.path.join(folder, file))
    RenameSource(name, surface)
    display = Show(surface, view)
    display.ColorArrayName = [None, ""]
    display.Representation = "Surface"
    display.AmbientColor = display.DiffuseColor = rgb(color)
    display.Opacity = opacity
    display.Specular, display.SpecularPower = 0.25, 30
    surface.UpdatePipeline()
    return surface


def look(view, surfaces):
    """Point the camera, and lay a scale bar under what is seen; lengths are true, for there is no perspective."""
    a, e = math.radians(AZIMUTH_DEG), math.radians(ELEVATION_DEG)
    right = [math.cos(a), 0, -math.sin(a)]
    up = [-math.sin(a) * math.sin(e), math.cos(e), -math.cos(a) * math.sin(e)]
    towards = [math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)]
    left_end, right_end, bottom, top, far, near = bounds_as_seen(surfaces)
    middle, width, height = (left_end + right_end) / 2, right_end - left_end, top - bottom

    def place(x, y, z=(far + near) / 2):
        return [x * r + y * u + z * t for r, u, t in zip(right, up, towards)]

    length = round_length(0.3 * max(width, height))
    below = bottom - 0.08 * height
    bar = Line(Point1=place(middle - length / 2, below), Point2=place(middle + length / 2, below))
    RenameSource("scale bar", bar)
    line = Show(bar, view)
    line.ColorArrayName = [None, ""]
    line.AmbientColor = line.DiffuseColor = [0, 0, 0]
    line.LineWidth = 6
    text = Text(Text=f"{length:g} {UNIT}")
    RenameSource("length of the scale bar", text)
    label = Show(text, view)
    label.TextPropMode = "Billboard 3D Text"
    label.BillboardPosition = place(middle - length / 2, below - 0.045 * height)
    label.FontSize, label.Color = 28, [0, 0, 0]

    lowest = below - 0.1 * height
    aspect = view.ViewSize[0] / view.ViewSize[1]
    focus = middle, (top + lowest) / 2
    view.CameraParallelProjection = 1
    view.CameraParallelScale = 1.05 * max((top - lowest) / 2, width / 2 / aspect)
    view.CameraFocalPoint = view.CenterOfRotation = place(*focus)
    view.CameraPosition = place(*focus, near + 2 * max(width, height))
    view.CameraViewUp = [0, 1, 0]


def bounds_as_seen(surfaces):
    """Return the bounds along the picture's axes: to the right, up, and towards the camera."""
    found = []
    for surface in surfaces:
        turned = Transform(Input=surface)
        turned.Transform.Rotate = [ELEVATION_DEG, -AZIMUTH_DEG, 0]  # first about y, then about x
        turned.UpdatePipeline()
        found.append(turned.GetDataInformation().GetBounds())
        Delete(turned)
    return [(min, max)[i % 2](b[i] for b in found) for i in range(6)]


def round_length(longest):
    """Return the largest of 1, 2 and 5 times a power of ten that is not longer."""
    power = 10 ** math.floor(math.log10(longest))
    return max(f * power for f in (1, 2, 5) if f * power <= longest * (1 + 1e-9))


main()
'''


def _write(context: ExportContext) -> None:
    points = "particles.vtp" if context.has_points else None
    with context.writing("paraview_view.py", ", for ParaView: Tools > Python Shell > Run Script") as path:
        write_script(path, context.surfaces, points, "nm" if context.size_is_known else "voxels")


FORMAT = Format(
    name="paraview",
    description="a script that shows the surfaces of vtp in ParaView",
    files=lambda _: {"paraview_view.py": 0},
    write=_write,
    refers_to=("vtp",),
    by_default=True,
)
