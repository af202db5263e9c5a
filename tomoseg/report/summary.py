"""The results of a project in a few sentences, four numbers, and what to be careful about."""

from collections.abc import Iterator

import numpy as np

from tomoseg.arrays import Array
from tomoseg.report.formatting import NOTHING, joined, length, number, with_spread
from tomoseg.report.results import Results, column
from tomoseg.words import count

LABELLED_BY = {"otsu": "Intensity thresholds", "unet": "A trained network"}
OUTDATED = {"stale": "the result shown is out of date", "partial": "the last run did not finish"}


def summary(results: Results) -> str:
    """Return what was done and found, in a few sentences."""
    sentences = []
    series, volume, labels = (results.get(name) for name in ("tilt_series", "volume", "labels"))
    if series is not None:
        size = results.pixel_size_nm
        pixel = f"the pixel size is {length(size)}" if np.isfinite(size) else "the pixel size is unknown"
        images = tilt_range(results.angles_deg) or count(series.shape[0], "image")
        sentences.append(f"The tilt series has {images}; {pixel}.")
    if results.get("aligned") is not None:
        given = results.text("alignment_info", "method") == "none"
        correlation = before_and_after(results, "correlation")
        told = f" (correlation of neighbouring tilts: {correlation})" if correlation else ""
        sentences.append("The images were taken as aligned already." if given else f"The images were aligned{told}.")
        error = alignment_error(results)
        if error:
            sentences.append(f"The estimated alignment error is {error}.")
    if volume is not None:
        method = results.text("reconstruction_info", "method").upper()
        shape = " × ".join(str(n) for n in volume.shape)
        sentences.append(f"The volume of {shape} voxels was reconstructed{f' with {method}' if method else ''}.")
    if labels is not None and results.classes:
        names = joined([label.name for label in results.classes])
        how = LABELLED_BY.get(results.text("segmentation_info", "method"))
        sentences.append(f"{how} labelled its voxels as {names}." if how else f"Its voxels were labelled as {names}.")
    if results.get("class_table") is not None:
        sentences.append(size_sentence(results))
    return " ".join(sentences) or "Nothing has been computed yet."


def tilt_range(angles: Array | None) -> str:
    """Return the number of tilts, their range and their step; '' where unknown."""
    if angles is None or len(angles) == 0:
        return ""
    text = f"{count(len(angles), 'image')} from {number(angles[0], 4)}° to {number(angles[-1], 4)}°"
    steps = np.diff(np.unique(angles))
    if len(steps) == 0:
        return text
    even = np.ptp(steps) < 0.05 * np.median(steps) + 1e-6
    return f"{text} in steps of {'' if even else 'typically '}{number(np.median(steps))}°"


def before_and_after(results: Results, quantity: str) -> str:
    """Return a quantity before and after alignment; '' where unknown."""
    before, after = (results.number("alignment_info", f"{quantity}_{when}") for when in ("before", "after"))
    if not np.isfinite(after):
        return ""
    return f"{before:.3f} before alignment, {after:.3f} after" if np.isfinite(before) else f"{after:.3f}"


def alignment_error(results: Results, pixel_nm: float = float("nan")) -> str:
    """Return the estimated alignment error, in nm as well if `pixel_nm` is known; '' where unknown."""
    rms = results.number("alignment_info", "estimated_error_px")
    if not np.isfinite(rms):
        return ""

    def shown(px: float) -> str:
        return f"{number(px, 2)} px" + (f" ({length(px * pixel_nm)})" if np.isfinite(pixel_nm) else "")

    tilts = results.rows("tilt_quality")
    errors, outlier = column(tilts, "error_px"), column(tilts, "is_outlier")
    if errors is not None and outlier is not None:  # the rms is over the other tilts
        errors = np.where(outlier, np.nan, errors)
    worst = np.nan if errors is None or np.isnan(errors).all() else float(np.nanmax(errors))
    return f"{shown(rms)} rms" + (f", {shown(worst)} at the worst tilt" if np.isfinite(worst) else "")


def size_sentence(results: Results) -> str:
    """Return how many particles there are and how large they are, in one sentence."""
    info = "measurement_info"
    n, name = results.number(info, "n_particles"), results.text(info, "particle_class")
    particles = results.rows("particle_table")
    if not np.isfinite(n):
        n = 0.0 if particles is None else float(len(particles))
    if n == 0:
        return f"No particles of class {name} were found." if name else "No particles were found."
    found = count(int(n), "particle") + (f" of class {name}" if name not in ("", "particle", "particles") else "")
    mean, spread, unit = _mean_diameter(results)
    text = f"{found} {'was' if n == 1 else 'were'} found"
    if mean != NOTHING:
        text += f", with a mean diameter of {mean}{'' if spread == NOTHING else f' ± {spread}'} {unit}"
        text += "" if spread == NOTHING else " (standard deviation)"
    return f"{text}."


def _mean_diameter(results: Results) -> tuple[str, str, str]:
    """Return mean diameter, standard deviation and unit."""
    unit = results.diameter_unit
    mean, spread = (results.number("measurement_info", f"{key}_diameter_{unit}") for key in ("mean", "std"))
    return *with_spread(mean, spread), unit


def key_numbers(results: Results) -> list[tuple[str, str, str | None]]:
    """Return the four numbers that readers look for first: name, value, and unit or spread."""
    voxel, angles = results.voxel_size_nm, results.angles_deg
    mean, spread, unit = _mean_diameter(results)
    of_size = unit if spread == NOTHING else f"± {spread} {unit}"  # one particle has no spread
    # The number of particles is unknown, not zero, until the stage has run.
    particles = number(results.number("measurement_info", "n_particles"), 6)
    return [
        ("tilts", NOTHING if angles is None else str(len(angles)), None),
        ("voxel size", number(voxel), "nm" if np.isfinite(voxel) else None),
        ("particles", particles, None),
        ("mean diameter", mean, None if mean == NOTHING else of_size),
    ]


def warnings_of(results: Results) -> Iterator[tuple[str, str]]:
    """Yield (stage, warning): results that are out of date, what the stages warned of, and an unknown pixel size."""
    for stage in results.stages:
        if stage.state in OUTDATED:
            why = f" ({'; '.join(stage.reasons)})" if stage.reasons else ""
            yield stage.name, f"{OUTDATED[stage.state]}{why}; run the stage again"
    said = [(stage.name, text) for stage in results.stages if stage.record for text in stage.record.warnings]
    yield from dict.fromkeys(said)
    size_known = np.isfinite(results.pixel_size_nm) or np.isfinite(results.voxel_size_nm)
    already = any("pixel size" in text or "voxel size" in text for _, text in said)
    if results.get("tilt_series") is not None and not size_known and not already:
        yield "import", "the pixel size is unknown, so lengths are in pixels (px)"
