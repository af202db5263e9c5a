"""Draw the pictures of the README: `python docs/pictures.py PROJECT.h5 PICTURE.png`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from tomoseg import schema
from tomoseg.project import Project
from tomoseg.report.surfaces import surface_picture


def main() -> None:
    """Draw raw image, aligned image, orthoslice, labels and surfaces in a row."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    figure = Figure(figsize=(17, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 5)
    with Project.read(source) as project:
        raw, aligned = project.artifact(schema.TILT_SERIES), project.artifact(schema.ALIGNED)
        volume, labels = project.artifact(schema.VOLUME), project.artifact(schema.LABELS)
        angles = project.artifact(schema.ANGLES)[:]
        low = int(np.abs(angles).argmin())
        middle = volume.shape[1] // 2
        _grey(axes[0], raw[low], f"raw image at {angles[low]:.0f}°")
        _grey(axes[1], aligned[:, middle], "aligned sinogram, middle row")
        _grey(axes[2], volume[:, middle], "reconstruction, xz slice")
        _grey(axes[3], volume[:, middle], "labels")
        colors = [to_rgba(c, 0.55 if k else 0.0) for k, c in enumerate(labels.attrs["class_colors"])]
        axes[3].imshow(np.array(colors)[labels[:, middle]], interpolation="nearest")
        axes[4].imshow(surface_picture(labels), interpolation="bilinear")
        axes[4].set_title("surfaces")
    for a in axes:
        a.set_axis_off()
    figure.savefig(target, dpi=80)


def _grey(axes: Any, image: Any, title: str) -> None:
    low, high = np.percentile(image, (1, 99.8))
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect="auto" if "sinogram" in title else "equal")
    axes.set_title(title)


if __name__ == "__main__":
    main()
