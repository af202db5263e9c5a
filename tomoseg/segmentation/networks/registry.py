"""The networks and losses that `tomoseg train` knows, one row of a table for each.

A new network is a function in `tomoseg.segmentation.networks.builders` and a row of `ARCHITECTURES`; a new loss is a
row of `MAKERS` in `tomoseg.segmentation.networks.losses` and one of `LOSSES`. Choices, checks, help texts and
documentation follow from the tables. This module loads no Keras: the command line reads it.
"""

import math
from dataclasses import dataclass

from tomoseg.errors import InputError


@dataclass(frozen=True)
class Architecture:
    """A network that can be trained."""

    builder: str  # name of the function in `tomoseg.segmentation.networks.builders`
    description: str  # one line
    filters: int = 32  # usual number of channels of the first level
    depths: tuple[int, float] = (1, math.inf)  # fewest and most levels
    # public weights exist for its encoder, see `tomoseg.segmentation.networks.encoder_weights`
    pretrained: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "unet": Architecture("unet", "the U-Net of Genc, Kovarik & Fraser (2022)"),
    "attention-unet": Architecture("attention_unet", "U-Net with attention gates at its skip connections"),
    "attention-res-unet": Architecture("attention_res_unet", "attention U-Net with batch-normalised residual blocks"),
    "compact": Architecture("compact", "small residual network for a CPU", filters=16),
    "se-resnet34-unet": Architecture(
        "se_resnet34_unet", "U-Net on a squeeze-and-excitation ResNet-34", filters=64, depths=(3, 6), pretrained=True
    ),
}

LOSSES = {  # one line on each
    "focal": "weighted focal loss, equation 1 of Genc, Kovarik & Fraser (2022)",
    "cross-entropy": "weighted cross-entropy",
    "dice": "one minus the soft Dice index",
    "tversky": "one minus the Tversky index, which counts a missed pixel more than an invented one",
    "iou": "one minus the soft intersection over union",
}


def loss_terms(text: str) -> list[tuple[float, str]]:
    """Split a loss such as 'focal', 'focal+dice' or '0.5*focal + 1*dice' into (factor, name) of each term.

    Raises `InputError`: a name is not in `LOSSES` or comes twice, or a factor is not a number above 0.
    """
    terms = []
    for term in text.split("+"):
        factor, star, name = term.rpartition("*")
        terms.append((_factor(text, factor) if star else 1.0, name.strip()))
    names = [name for _, name in terms]
    if not LOSSES.keys() >= set(names) or len(set(names)) < len(names):
        raise InputError(
            f"the loss '{text}' cannot be used: give one of {', '.join(LOSSES)}, or a sum of different ones such as "
            "'focal+dice' or '0.5*focal+1*dice'"
        )
    return terms


def _factor(text: str, written: str) -> float:
    try:
        factor = float(written)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise InputError(f"the loss '{text}' cannot be used: '{written.strip()}' is not a number above 0")
    return factor
