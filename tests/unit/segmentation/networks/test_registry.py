"""Every row of the tables of networks and losses is complete, and documented."""

from pathlib import Path

import pytest

from tomoseg.segmentation.networks import builders, losses
from tomoseg.segmentation.networks.registry import ARCHITECTURES, LOSSES
from tomoseg.segmentation.training.parameters import TrainParameters

DOCUMENTATION = Path(__file__).parents[4] / "docs" / "segmentation.md"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_network_has_a_builder_and_is_a_choice(name):
    row = ARCHITECTURES[name]
    assert callable(getattr(builders, row.builder))
    assert row.filters > 0
    assert 1 <= row.depths[0] <= 6 <= row.depths[1]  # the usual depth is one of them
    assert TrainParameters.of("train", {"architecture": name}).base_filters == row.filters
    assert name in TrainParameters.model_fields["architecture"].description


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_made_and_is_a_choice(name):
    assert isinstance(losses.MAKERS[name]((0.5, 0.5), 1.0), losses.keras.losses.Loss)
    assert TrainParameters.of("train", {"loss": f"2*{name}"}).loss == f"2*{name}"
    assert name in TrainParameters.model_fields["loss"].description


@pytest.mark.parametrize("name", [*ARCHITECTURES, *LOSSES])
def test_each_is_documented(name):
    if not DOCUMENTATION.exists():
        pytest.skip("not a source checkout")
    described = {**{known: row.description for known, row in ARCHITECTURES.items()}, **LOSSES}
    assert f"| `{name}` | {described[name]}" in DOCUMENTATION.read_text(encoding="utf-8")
