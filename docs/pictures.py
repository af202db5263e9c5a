"""Draw the pictures of the README: `python docs/pictures.py PROJECT.h5 PICTURE.png`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure

from tomoseg import schema
from tomoseg.project import Project
from tomoseg.report.figures.rendering import Surface, render
from tomoseg.report.sampling.fractions import fractions


def main() -> None:
    """Draw raw image, aligned sinogram, orthoslice, labels and surfaces in a row."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    figure = Figure(figsize=(17, 3.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 5)
    with Project.read(source) as project:
        raw, aligned = project.artifact(schema.TILT_SERIES), project.artifact(schema.ALIGNED)
        volume, labels = project.artifact(schema.VOLUME), project.artifact(schema.LABELS)
        angles = project.artifact(schema.ANGLES)[:]
        lowest = int(np.abs(angles).argmin())
        z, y, _ = (int(c.mean()) for c in np.nonzero(labels[:]))
        _grey(axes[0], raw[lowest], f"raw image at {angles[lowest]:.0f}°")
        _grey(axes[1], aligned[:, y], "aligned sinogram", stretched=True)
        _grey(axes[2], volume[z], "reconstruction, along the beam")
        _grey(axes[3], volume[z], "labels")
        colors = labels.attrs["class_colors"]
        palette = np.array([to_rgba(c, 0.6 if k else 0.0) for k, c in enumerate(colors)])
        axes[3].imshow(palette[labels[z]], interpolation="nearest")
        axes[4].imshow(render(fractions(labels, len(colors)), _surfaces(colors))[0])
        axes[4].set_title("surfaces")
    for one in axes:
        one.set_axis_off()
    figure.savefig(target, dpi=75)


def _grey(axes: Any, image: Any, title: str, stretched: bool = False) -> None:
    low, high = np.percentile(image, (1, 99.8))
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect="auto" if stretched else "equal")
    axes.set_title(title)


def _surfaces(colors: list[str]) -> list[Surface]:
    """Draw the last class solid, the others but the background as pale glass."""
    found = []
    for index, color in enumerate(colors[1:], 1):
        glass = index < len(colors) - 1
        r, g, b = (round(255 * (0.5 + 0.5 * c if glass else c)) for c in to_rgb(color))
        found.append(Surface(index, (r, g, b), glass))
    return found


if __name__ == "__main__":
    main()
