"""The uncertainty of a project: its halves are made as the whole was."""

import json

import numpy as np
import pytest

from tomoseg import simulate
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.errors import InputError
from tomoseg.runtime import Runtime
from tomoseg.stages import halves, measure, reconstruct, segment

ANGLES = np.arange(-66.0, 67, 4)
OUTLIER = 5


@pytest.fixture(scope="module")
def made():
    """Return what the stages up to segment left of a small catalyst, by artifact."""
    phantom = simulate.catalyst(72, 12, seed=2)
    clean = simulate.project(phantom.density, ANGLES)
    scale = clean.max() / 400
    images = (np.random.default_rng(0).poisson(np.maximum(clean, 0) / scale) * scale).astype(np.float32)
    quality = np.zeros(len(ANGLES), [("is_outlier", "?")])
    quality["is_outlier"][OUTLIER] = True
    inputs = {
        "aligned": MemoryInput(images),
        "angles_deg": MemoryInput(ANGLES),
        "tilt_quality": MemoryInput(quality),
        "tilt_series_info": MemoryInput(None, {"pixel_size_nm": 0.5}),
    }
    outputs = MemoryOutputs()
    params = reconstruct.STAGE.parameters(iterations=15)
    reconstruct.STAGE.run(**inputs, params=params, runtime=Runtime(device="cpu"), outputs=outputs)
    volume = outputs.as_input("volume")
    params = segment.STAGE.parameters(method="otsu", smooth=0.6)
    segment.STAGE.run(volume=volume, params=params, runtime=Runtime(), outputs=outputs)
    names = ("volume", "labels", "reconstruction_info", "segmentation_info")
    del inputs["tilt_series_info"]
    return inputs | {name: outputs.as_input(name) for name in names}


def measured(made, **changed):
    outputs, runtime = MemoryOutputs(), Runtime(device="cpu")
    params = measure.STAGE.parameters(uncertainty=True, measure_support=False)
    measure.STAGE.run(**(made | changed), params=params, runtime=runtime, outputs=outputs)
    return outputs, runtime


def watched(monkeypatch):
    """Return a list to which the series and the parameters of each reconstruction are added."""
    seen, reconstructed = [], halves.Series.reconstruct

    def watch(series, params, *rest):
        seen.append((series, params))
        return reconstructed(series, params, *rest)

    monkeypatch.setattr(halves.Series, "reconstruct", watch)
    return seen


def test_outliers_that_the_whole_was_made_with_are_in_the_halves(made, monkeypatch):
    attrs = made["reconstruction_info"].attrs
    parameters = json.dumps({**json.loads(attrs["parameters"]), "exclude_outliers": False})
    seen = watched(monkeypatch)
    measured(made, reconstruction_info=MemoryInput(None, {**attrs, "parameters": parameters}))
    assert set.union(*(set(np.flatnonzero(~series.is_outlier)) for series, _ in seen)) == set(range(len(ANGLES)))


def test_halves_are_reconstructed_and_labelled_as_the_whole(made, monkeypatch):
    seen = watched(monkeypatch)
    outputs, runtime = measured(made)
    kept = [set(np.flatnonzero(~series.is_outlier)) for series, _ in seen]
    assert kept[0] | kept[1] == set(range(len(ANGLES))) - {OUTLIER}
    assert not kept[0] & kept[1]
    assert seen[0][1].iterations == 15
    table, info = outputs.arrays["particle_table"], outputs.attrs["measurement_info"]
    assert info["n_particles_in_both_halves"] >= 0.8 * len(table) > 6
    sigma = table["diameter_uncertainty_px"]
    assert np.isfinite(sigma).all()
    assert ((sigma > 0.05) & (sigma < 1.5)).all()
    assert any("standard uncertainty of a particle's diameter" in note for note in runtime.notes)
    # What was said of the halves is not said of the whole.
    assert not any("iterations" in note for note in runtime.notes)


def test_a_project_that_does_not_say_how_it_was_made_is_refused(made):
    attrs = {k: v for k, v in made["segmentation_info"].attrs.items() if k != "parameters"}
    with pytest.raises(InputError, match="run segment again"):
        measured(made, segmentation_info=MemoryInput(None, attrs))
    with pytest.raises(InputError, match="run reconstruct again"):
        measured(made, reconstruction_info=MemoryInput(None, {"method": "mlem"}))


def test_without_the_wish_nothing_more_is_computed(made, monkeypatch):
    monkeypatch.setattr(measure, "labelled_halves", lambda *_: pytest.fail("no uncertainty was asked for"))
    outputs = MemoryOutputs()
    params = measure.STAGE.parameters(measure_support=False)
    measure.STAGE.run(**made, params=params, runtime=Runtime(device="cpu"), outputs=outputs)
    assert "diameter_uncertainty_px" not in outputs.arrays["particle_table"].dtype.names
