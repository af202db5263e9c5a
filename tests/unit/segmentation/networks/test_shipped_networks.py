"""The networks in the package: light enough, with a card beside each, and scores that the card inside tells too."""

import re

import pytest

from tomoseg.segmentation.networks.card import read_card
from tomoseg.segmentation.networks.known_models import SHIPPED, find_model
from tomoseg.segmentation.parameters import SegmentParameters, check

NETWORKS = sorted(SHIPPED.glob("*.keras"))


def test_the_catalyst_network_is_there():
    assert find_model("gamma-alumina-pt") in NETWORKS
    assert check(SegmentParameters(model="gamma-alumina-pt")) == []


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_each_network_says_where_it_comes_from(path):
    assert path.stat().st_size <= 16e6
    card, beside = read_card(path), path.with_suffix(".md").read_text(encoding="utf-8")
    for fact in ("Scientific Reports", "licence", f"| {card.training['seed']} |", "tomoseg train", card.data_digest):
        assert fact in beside, fact
    if scores := card.scores.get("cross_validated"):
        for name in card.class_names:
            (row,) = re.findall(rf"^\| {re.escape(name)} \| ([\d.]+) ± ([\d.]+) \|", beside, re.MULTILINE)
            assert row == (f"{scores['dice'][name]:.3f}", f"{scores['dice_ci95'][name]:.3f}")
    else:
        told = ", ".join(f"{name} {card.scores[f'val_dice_{name}']:.3f}" for name in card.class_names)
        assert told in beside
