"""Scores as text."""

import math
from collections.abc import Mapping

import numpy as np

from tomoseg.errors import printable
from tomoseg.segmentation.evaluation.calibration import Calibration
from tomoseg.segmentation.evaluation.comparison import Comparison
from tomoseg.segmentation.evaluation.detection import Detection
from tomoseg.segmentation.evaluation.scores import METRICS, Evaluation, Values


def scores_table(evaluation: Evaluation, counted: str = "images", more: Mapping[str, Values] | None = None) -> str:
    """Return mean and 95 % confidence interval of each metric, one class a line.

    Parameters
    ----------
    counted : heading of the number of images
    more : further columns by heading, (C,) each
    """
    summary, more = evaluation.summary(), more or {}
    width = max(len(name) for name in evaluation.classes)
    headings = "".join(f"{metric:<19}" for metric in METRICS)
    lines = [f"{'class':<{width}}  {headings}{counted:<8}" + "".join(f"{heading:<10}" for heading in more)]
    for c, name in enumerate(evaluation.classes):
        cells = "".join(f"{_with_interval(s.mean[c], s.ci95[c]):<19}" for s in summary.values())
        columns = "".join(f"{values[c]:<10.4f}" for values in more.values())
        lines.append(f"{name:<{width}}  {cells}{summary['dice'].n[c]:<8d}{columns}")
    return "\n".join(printable(line).rstrip() for line in lines)


def _with_interval(mean: float, ci95: float) -> str:
    """Return a mean and its interval, which one image does not have."""
    return f"{mean:.4f} ± {ci95:.4f}" if math.isfinite(ci95) else f"{mean:.4f}"


def calibration_line(calibration: Calibration, classes: list[str]) -> str:
    """Return the calibration error of all pixels and of those predicted as each class, and the Brier score."""
    facts = calibration.to_dict()
    if facts["ece"] is None:
        return "calibration: no pixel has both a label and probabilities"
    lean = "overconfident" if facts["overconfidence"] > 0 else "underconfident"
    each = zip(classes, facts["per_class"]["ece"], strict=True)
    by_class = ", ".join(f"{name} {error:.4f}" for name, error in each if error is not None)
    return (
        f"calibration: expected error {facts['ece']:.4f} ({by_class}), {lean} by {abs(facts['overconfidence']):.4f}, "
        f"Brier score {facts['brier']:.4f}"
    )


def detection_line(detection: Detection) -> str:
    """Return how many objects were found, missed, invented, split and merged."""
    facts = detection.scores()
    scores = ", ".join(f"{name} {facts[name.lower()]:.4f}" for name in ("precision", "recall", "F1"))
    return (
        f"objects of class {detection.class_name} from {detection.rule.min_size} px (IoU >= {detection.rule.iou:g}): "
        f"{facts['found']} of {facts['true']} found, {facts['missed']} missed ({facts['untouched']} without any "
        f"overlap), {facts['invented']} invented, {facts['split']} split, {facts['merged']} merged; {scores}"
    )


def sizes_table(detection: Detection) -> str:
    """Return counts, recall and precision of the objects by size, one bin a line."""
    sizes = detection.by_size()
    spans = [f"{low:g} to {high:g}" for low, high in zip(sizes["from"], sizes["to"], strict=True)]
    heading = f"diameter ({detection.unit})"
    width = max(map(len, (*spans, heading)))
    counts, ratios = ("true", "found", "missed", "predicted", "invented"), ("recall", "precision")
    lines = [f"{heading:<{width}}  " + "".join(f"{name:<11}" for name in (*counts, *ratios))]
    for k, span in enumerate(spans):
        cells = [f"{sizes[name][k]:.0f}" for name in counts]
        cells += ["-" if np.isnan(sizes[name][k]) else f"{sizes[name][k]:.4f}" for name in ratios]
        lines.append(f"{span:<{width}}  " + "".join(f"{cell:<11}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def comparison_table(comparison: Comparison) -> str:
    """Return the mean Dice of each network and its difference from that of the first, one class a line."""
    models, classes = list(comparison.means), comparison.classes
    width, depth = max(len(name) for name in (*models, "network")), max(len(name) for name in (*classes, "class"))
    lines = [
        f"Dice on the {len(comparison.names)} images that all networks have in common, in {comparison.n_groups} groups "
        f"of neighbouring slices; differences from {comparison.baseline}, * where both intervals exclude 0",
        f"{'network':<{width}}  {'class':<{depth}}  mean    difference  95 % by groups       95 % by images  images",
    ]
    for model in models:
        for c, name in enumerate(classes):
            line = f"{model:<{width}}  {name:<{depth}}  {comparison.means[model]['dice'][c]:.4f}"
            if model != comparison.baseline:
                d = comparison.differences[model]["dice"]
                sure = "*" if d.is_sure()[c] else " "
                ends = f"{d.low[c]:+.4f} to {d.high[c]:+.4f}"
                line += f"  {d.mean[c]:+.4f} {sure}   {ends:<19}  ± {d.ci95[c]:.4f}        {int(d.n[c])}"
            lines.append(line)
    return "\n".join(map(printable, [*lines, *filter(None, [comparison.note()])]))
