"""Evaluation of networks from Python: scores, comparison and figures in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomoseg.errors import InputError
from tomoseg.io.pairing import Pair
from tomoseg.runtime import Runtime
from tomoseg.segmentation.evaluation.comparison import Comparison, common_names, compare, require_same_classes
from tomoseg.segmentation.evaluation.detection import ObjectRule
from tomoseg.segmentation.evaluation.model_evaluation import EvaluatedImage, evaluate_model, validation_pairs
from tomoseg.segmentation.evaluation.pictures import Cases, plot_errors
from tomoseg.segmentation.evaluation.plots import plot_comparison, plot_evaluation
from tomoseg.segmentation.evaluation.scores import Evaluation
from tomoseg.segmentation.networks.card import ModelCard, read_card
from tomoseg.segmentation.networks.known_models import resolve_model


@dataclass(frozen=True)
class NetworkScores:
    """Scores of a network, and of others on the same slices."""

    evaluations: dict[str, Evaluation]  # by name of the network, in the order given
    comparison: Comparison | None  # of the others with the first; None for one network

    @property
    def first(self) -> Evaluation:
        """The scores of the first network."""
        return next(iter(self.evaluations.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return the scores of the first network as JSON types, with those of the others and the comparison."""
        (_, result), *others = ((name, evaluation.to_dict()) for name, evaluation in self.evaluations.items())
        if self.comparison is not None:
            result["against"] = dict(others)
            result["comparison"] = self.comparison.to_dict()
        return result


def evaluate(
    models: Sequence[Path | str],
    pairs: Sequence[Pair],
    *,
    held_out: bool = False,
    pixel_size_nm: float | None = None,
    objects: str = "",
    object_rule: ObjectRule | None = None,
    plots: Path | None = None,
    runtime: Runtime | None = None,
) -> NetworkScores:
    """Score networks on labelled slices, and compare them with the first.

    Parameters
    ----------
    models : sequence of Path or str
        `.keras` files, or names that `tomoseg models` lists.
    pairs : sequence of Pair
        Labelled slices, see `tomoseg.io.slices.find_pairs`.
    held_out : bool
        Score each network only on the slices it was validated on.
    pixel_size_nm : float, optional
        Pixel size of the slices in nm; by default the one stored with each network.
    objects : str
        Name or number of the class whose objects are counted; the last class by default.
    object_rule : ObjectRule, optional
        When an object counts, and when it is found.
    plots : Path, optional
        Folder for figures (PNG).
    runtime : Runtime, optional
        Device, threads and progress.

    Returns
    -------
    NetworkScores

    Raises
    ------
    InputError
        A network or slice cannot be used, a network is named twice, networks have different numbers of classes or no
        slice in common, or `held_out` leaves no slice.
    """
    paths = _by_name([resolve_model(model) for model in models])
    cards = {name: read_card(path) for name, path in paths.items()}
    chosen = {name: _held_out(path, pairs, cards[name]) if held_out else pairs for name, path in paths.items()}
    common_names([[pair.name for pair in each] for each in chosen.values()])
    require_same_classes({name: card.class_names for name, card in cards.items() if card is not None})
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
    main = next(iter(paths))
    card, cases = cards[main], Cases()

    def draw(image: EvaluatedImage) -> None:
        if plots is None:
            return
        cases.add(image)
        if card is not None:
            plot_errors(image, card.class_names, card.class_colors, plots / f"errors_{image.name}.png")

    given: dict[str, Any] = {"pixel_size_nm": pixel_size_nm, "objects": objects, "object_rule": object_rule}
    evaluations = {
        name: evaluate_model(path, chosen[name], runtime=runtime, on_image=draw if name == main else None, **given)
        for name, path in paths.items()
    }
    found = NetworkScores(evaluations, compare(evaluations) if len(evaluations) > 1 else None)
    if plots is not None:
        plot_evaluation(found.first, plots)
        cases.plot(found.first, chosen[main], plots / "cases.png")
        if found.comparison is not None:
            plot_comparison(found.comparison, plots / "comparison.png")
    return found


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the files by the shortest names that tell them apart."""
    if len(set(paths)) < len(paths):
        raise InputError("--against names a network twice: compare different ones.")
    stems = [path.stem for path in paths]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in paths}


def _held_out(model: Path, pairs: Sequence[Pair], card: ModelCard | None) -> list[Pair]:
    """Return the slices that the network was validated on."""
    held_out = validation_pairs(pairs, card) if card is not None else []
    if not held_out:
        raise InputError(f"--held-out: none of these slices is among those that {model} was validated on.")
    return held_out
