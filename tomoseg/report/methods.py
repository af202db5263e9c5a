"""How the results of a project were made, as a paragraph for an article, with what it should cite."""

from collections.abc import Iterator

import numpy as np

from tomoseg import __version__
from tomoseg.lengths import NYQUIST_PX
from tomoseg.report.formatting import NBSP, length, number
from tomoseg.report.results import Results
from tomoseg.report.summary import alignment_error, size_sentence, tilt_range
from tomoseg.words import count

WORKFLOW = (
    "Genc, A., Kovarik, L. & Fraser, H. L. A deep learning approach for semantic segmentation of unbalanced data in "
    "electron tomography of catalytic materials. Scientific Reports 12, 16267 (2022)."
)
METHODS = {  # of reconstruction: in words, and what to cite
    "mlem": (
        "maximum-likelihood expectation maximisation (MLEM)",
        "Shepp, L. A. & Vardi, Y. IEEE Transactions on Medical Imaging 1, 113-122 (1982).",
    ),
    "osem": (
        "expectation maximisation with ordered subsets (OSEM)",
        "Hudson, H. M. & Larkin, R. S. IEEE Transactions on Medical Imaging 13, 601-609 (1994).",
    ),
    "sirt": (
        "the simultaneous iterative reconstruction technique (SIRT)",
        "Gregor, J. & Benson, T. IEEE Transactions on Medical Imaging 27, 918-924 (2008).",
    ),
    "tv": (
        "least squares with total variation",
        "Beck, A. & Teboulle, M. IEEE Transactions on Image Processing 18, 2419-2434 (2009).",
    ),
    "fbp": ("filtered back-projection", ""),
    "gridrec": ("Fourier gridding (gridrec of TomoPy)", "Gürsoy, D. et al. J. Synchrotron Rad. 21, 1188-1193 (2014)."),
}
SHELL_CORRELATION = "Harauz, G. & van Heel, M. Optik 73, 146-156 (1986)."
HALVES = "Rosenthal, P. B. & Henderson, R. J. Mol. Biol. 333, 721-745 (2003)."
NETWORKS = "Ronneberger, O., Fischer, P. & Brox, T. U-Net. MICCAI 2015, LNCS 9351, 234-241."
OTSU = "Otsu, N. IEEE Transactions on Systems, Man, and Cybernetics 9, 62-66 (1979)."


def methods_text(results: Results, parameters: str) -> str:
    """Return a paragraph on methods, its references, and all parameters, as Markdown.

    Stages that did not run are not spoken of. `parameters` are those of a pipeline file.
    """
    sentences, references = [], [WORKFLOW]
    for sentence, sources in _told(results):
        for source in filter(None, sources):
            if source not in references:
                references.append(source)
        numbers = ", ".join(str(references.index(source) + 1) for source in filter(None, sources))
        sentences.append(f"{sentence} [{numbers}]." if numbers else f"{sentence}.")
    outdated = [stage.name for stage in results.stages if stage.state in ("stale", "partial")]
    note = [f"Out of date when this was written: {', '.join(outdated)}.", ""] if outdated else []
    return "\n".join(
        [
            *("## Methods", "", *note, " ".join(sentences).replace(NBSP, " "), ""),
            *("## References", "", *(f"{n}. {source}" for n, source in enumerate(references, start=1)), ""),
            *("## Parameters", "", "```yaml", parameters.strip(), "```", ""),
        ]
    )


def _told(results: Results) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield sentences without their full stops, and what each cites."""
    size, volume = results.pixel_size_nm, results.get("volume")
    if (series := results.get("tilt_series")) is not None:
        pixel = f" with a pixel size of {length(size)}" if np.isfinite(size) else ""
        images = tilt_range(results.angles_deg) or count(series.shape[0], "image")
        yield (
            f"A tilt series of {images}{pixel} was processed with tomoseg {__version__}, which implements the workflow "
            "of Genc, Kovarik & Fraser",
            (WORKFLOW,),
        )
    if results.get("aligned") is not None:
        how, error = results.text("alignment_info", "method"), alignment_error(results)
        if how == "none":
            yield "The images were taken as aligned", ()
        else:
            estimated = f"; the estimated alignment error is {error}" if error else ""
            yield f"The images were aligned by {how.replace('xcorr', 'cross-correlation')}{estimated}", ()
    if volume is not None:
        yield from _reconstructed(results, volume.shape)
    if results.get("labels") is not None and results.classes:
        yield _labelled(results)
    if results.get("class_table") is not None:
        yield size_sentence(results).removesuffix("."), ()


def _reconstructed(results: Results, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    name, iterations = (results.text("reconstruction_info", key) for key in ("method", "iterations"))
    words, source = METHODS.get(name, (name, ""))
    rounds = (
        f" in {count(int(iterations), 'iteration')}" if iterations.isdigit() and name not in ("fbp", "gridrec") else ""
    )
    voxel = f" of {length(results.voxel_size_nm)}" if np.isfinite(results.voxel_size_nm) else ""
    yield f"A volume of {' x '.join(map(str, shape))} voxels{voxel} was reconstructed by {words}{rounds}", (source,)
    px, nm = (results.number("reconstruction_info", f"resolution_{unit}") for unit in ("px", "nm"))
    if np.isfinite(px):
        value = length(nm) if np.isfinite(nm) else f"{number(px)} px"
        found = f"by 1/7 at {value}" if px > NYQUIST_PX else f"by more than 1/7 up to the limit of the voxels, {value}"
        yield (
            f"In Fourier shells, averaged over the directions measured, reconstructions from even and odd tilts "
            f"correlate {found}",
            (SHELL_CORRELATION, HALVES),
        )


def _labelled(results: Results) -> tuple[str, tuple[str, ...]]:
    names = ", ".join(label.name for label in results.classes)
    if results.text("segmentation_info", "method") == "unet":
        model, digest = (results.text("segmentation_info", key) for key in ("model", "model_sha256"))
        return f"A convolutional network ({model}, SHA-256 {digest[:12]}...) labelled its voxels as {names}", (
            NETWORKS,
        )
    return f"Thresholds on intensity labelled its voxels as {names}", (OTSU,)
