"""What a loss is written as: terms joined by '+', each a name with a factor before it if that is not 1.

Light enough for the command line and for the check of settings; the losses themselves are in
`tomoseg.segmentation.networks.losses`.
"""

import math

from tomoseg.errors import InputError

LOSSES = ("focal", "cross-entropy", "dice", "tversky", "iou")


def loss_terms(text: str) -> list[tuple[float, str]]:
    """Return (factor, name) of each term of a loss such as 'focal', 'focal+dice' or '0.5*focal + 1*dice'.

    Raises
    ------
    InputError
        A name is not one of `LOSSES` or comes twice, or a factor is no number above 0.
    """
    terms = []
    for term in text.split("+"):
        factor, star, name = term.rpartition("*")
        terms.append((_factor(text, factor) if star else 1.0, name.strip()))
    names = [name for _, name in terms]
    unknown = [name for name in names if name not in LOSSES]
    if unknown or len(set(names)) < len(names):
        raise InputError(
            f"the loss '{text}' cannot be used: write one of {', '.join(LOSSES)}, or several different ones as in "
            "'focal+dice' or '0.5*focal+1*dice'"
        )
    return terms


def _factor(text: str, written: str) -> float:
    try:
        factor = float(written)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise InputError(f"the loss '{text}' cannot be used: '{written.strip()}' is no number above 0")
    return factor
