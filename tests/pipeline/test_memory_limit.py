"""The promise of `--max-memory`, stage by stage, for a volume of twice the limit."""

import importlib.util
from argparse import Namespace
from pathlib import Path

import h5py
import pytest

from tomoseg import schema

LIMIT_MIB = 128
SIZE = 408  # px: a volume of 259 MiB


def benchmark():
    """Return the module that writes the series and runs everything on them."""
    path = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    spec = importlib.util.spec_from_file_location("memory_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(3600)  # minutes on two CPUs, much longer on busy ones
def test_the_data_of_every_stage_fit_in_the_memory_allowed(tmp_path):
    memory, limit = benchmark(), f"{LIMIT_MIB}M"
    options = Namespace(tilts=12, particles=200, iterations=1, sets=[])
    for _ in range(2):  # once to compile what has not been compiled
        libraries = memory.measured(tmp_path, memory.TINY, limit, None, options)
    found = memory.measured(tmp_path, SIZE, limit, None, options)
    with h5py.File(tmp_path / f"{SIZE}_{limit}.h5") as file:
        assert file[schema.VOLUME.path].nbytes >= 2 * LIMIT_MIB * memory.MIB
        assert len(file[schema.PARTICLE_TABLE.path]) > 20
    assert set(found) == {"import", "align", "reconstruct", "segment", "measure", "export"}
    data = {stage: (peak - libraries[stage][0]) / memory.MIB for stage, (peak, _) in found.items()}
    print({stage: f"{mib:.0f} MiB in {found[stage][1]:.0f} s" for stage, mib in data.items()})
    assert {stage: mib for stage, mib in data.items() if mib > LIMIT_MIB} == {}
