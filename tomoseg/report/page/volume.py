"""The sections on the reconstructed volume and its labels."""

import numpy as np

from tomoseg.lengths import NYQUIST_PX
from tomoseg.report.figures.curves import reconstruction_curves
from tomoseg.report.figures.images import Limits, Panel, grey_picture, label_picture, volume_limits
from tomoseg.report.formatting import length, number
from tomoseg.report.html import Html, el, facts, figure, join
from tomoseg.report.page.interactive import choice, slices_control
from tomoseg.report.page.parts import curves, grey_note, legend
from tomoseg.report.results import Results
from tomoseg.report.sampling.slices import Orthoslice, orthoslices

METHODS = {"otsu": "intensity thresholds (otsu)", "unet": "trained network (U-Net)"}
CONFIDENCE_SLICES, UNSURE = 32, 0.5  # slices in which confidence is averaged; below which a voxel counts as unsure


def reconstruct_section(results: Results) -> Html:
    """Show the volume."""
    volume = results.artifacts["volume"]
    voxel, info = results.voxel_size_nm, "reconstruction_info"
    nz, ny, nx = volume.shape
    residuals = results.rows("residuals")
    computed = [text for text in (results.text(info, "backend"), results.text(info, "device")) if text]
    ends = None if residuals is None else f"{number(residuals[0])} at the start, {number(residuals[-1])} at the end"
    rows = [
        ("method", results.text(info, "method").upper()),
        ("computed by", " on ".join(computed)),
        ("volume", f"{nz} × {ny} × {nx} voxels (z × y × x)"),
        ("voxel size", length(voxel) if np.isfinite(voxel) else "unknown"),
        ("iterations", results.text(info, "iterations")),
        ("resolution", _resolution(results)),
        ("along x, y and z", _by_axis(results)),
        ("Crowther limit", _crowther(results)),
        ("relative residual", ends),
    ]
    limits = volume_limits(results)
    panels = [
        figure(grey_picture(_panel(results, one), limits, one.caption), f"{one.caption}.") for one in results.central
    ]
    return join(
        [
            facts(rows),
            choice(slices_control(results, overlay=False), el("div", *panels, class_="triple")),
            grey_note(limits, "counts per px"),
            curves(reconstruction_curves(results)),
        ]
    )


def _panel(results: Results, one: Orthoslice) -> Panel:
    return Panel(one.image, (one.plane.down, one.plane.right), results.voxel_size_nm)


def _resolution(results: Results) -> str | None:
    """Return the resolution by Fourier shell correlation, if it was computed."""
    px, nm = (results.number("reconstruction_info", f"resolution_{unit}") for unit in ("px", "nm"))
    if not np.isfinite(px):
        return None
    text = f"{number(px)} px" if not np.isfinite(nm) else f"{length(nm)} ({number(px)} px)"
    if px <= NYQUIST_PX:
        return f"at least as fine as the voxels show, {text}: the correlation never falls below 1/7"
    return f"{text}, where the correlation falls below 1/7"


def _by_axis(results: Results) -> str | None:
    values = [results.number("reconstruction_info", f"resolution_{axis}_px") for axis in "xyz"]
    if not np.isfinite(values).all():
        return None
    stretch = results.number("reconstruction_info", "elongation")
    why = f" (x times {number(stretch)}, the elongation by the missing wedge)" if stretch > 1 else ""
    return ", ".join(_length(results, px) for px in values) + why


def _crowther(results: Results) -> str | None:
    px = results.number("reconstruction_info", "crowther_px")
    return f"{_length(results, px)}, by the number of tilts alone" if np.isfinite(px) else None


def _length(results: Results, px: float) -> str:
    voxel = results.voxel_size_nm
    return length(px * voxel) if np.isfinite(voxel) else f"{number(px)} px"


def segment_section(results: Results) -> Html:
    """Show the labels over the volume."""
    labels, volume = results.artifacts["labels"], results.get("volume")
    classes = results.classes
    same = volume is not None and tuple(volume.shape) == tuple(labels.shape)
    limits = volume_limits(results) if same else Limits(0.0, 1e9, (0.0, 100.0))
    panels = []
    for one in results.central if same else orthoslices(labels):
        cut, alt = one.plane.cut(labels, one.position), f"labels, {one.caption}"
        picture = label_picture(_panel(results, one), cut, classes, limits, alt)
        panels.append(figure(picture, f"{one.caption}."))
    method = results.text("segmentation_info", "method")
    rows = [
        ("method", METHODS.get(method, method)),
        ("model", results.text("segmentation_info", "model")),
        ("thresholds", results.text("segmentation_info", "thresholds")),
        ("no network, since", results.text("segmentation_info", "no_network")),
        ("confidence, and share of unsure voxels (below 50 %)", _confidence(results)),
        ("Dice to expect, by its own probabilities", _of_classes(results, "expected_dice")),
        ("Dice between it and thresholds, in some slices", _of_classes(results, "agreement_with_thresholds")),
    ]
    still = join([legend(classes), el("div", *panels, class_="triple")])
    live = slices_control(results, overlay=True) if same else None
    return join([facts(rows), choice(live, still), grey_note(limits) if same else None])


def _of_classes(results: Results, key: str) -> str | None:
    """Return a figure of each class but the first, such as 'support 0.95, particles 0.9'."""
    values, classes = results.attrs("segmentation_info").get(key), results.classes
    if values is None or len(values) != len(classes):
        return None
    known = zip(classes[1:], values[1:], strict=True)
    return ", ".join(f"{label.name} {number(value, 2)}" for label, value in known)


def _confidence(results: Results) -> str | None:
    """Return how confident the network is of the voxels of each class, by some slices all over the volume."""
    confidence = results.confidence
    if confidence is None:
        return None
    labels, n = results.artifacts["labels"], len(results.classes)
    places = np.unique(np.linspace(0, confidence.shape[0] - 1, CONFIDENCE_SLICES).round().astype(int))
    total, unsure, count = np.zeros(n), np.zeros(n), np.zeros(n)
    for z in places:
        classes, values = np.asarray(labels[z]).ravel(), np.asarray(confidence[z], float).ravel() / 255
        total += np.bincount(classes, values, n)[:n]
        unsure += np.bincount(classes, values < UNSURE, n)[:n]
        count += np.bincount(classes, minlength=n)[:n]
    texts = [
        f"{label.name} {number(100 * total[k] / count[k])} %, {number(100 * unsure[k] / count[k], 2)} %"
        for k, label in enumerate(results.classes)
        if count[k]
    ]
    return f"{'; '.join(texts)} ({len(places)} slices)"
