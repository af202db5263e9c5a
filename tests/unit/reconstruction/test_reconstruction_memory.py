"""How many slices are computed together."""

import numpy as np
import pytest

from tomoseg.reconstruction import slab_loop
from tomoseg.reconstruction.backends.choice import Choice
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.kernels import WIDE
from tomoseg.reconstruction.memory import MemoryNeed, cpu_block
from tomoseg.reconstruction.method_table import METHODS
from tomoseg.reconstruction.simd import LANES
from tomoseg.reconstruction.slab_loop import Work
from tomoseg.reconstruction.solver import Recipe
from tomoseg.runtime import make_runtime

PLENTY = 1 << 40


def need(side: int) -> MemoryNeed:
    return MemoryNeed(ParallelGeometry(np.linspace(-60, 60, 41), side, side, side), volumes=2, sinograms=3)


@pytest.mark.parametrize(("workers", "fewest"), [(1, 64), (2, 128), (16, 1024)])
def test_blocks_are_wide_where_all_threads_have_two_of_them(workers, fewest):
    assert cpu_block(fewest, need(256), workers, PLENTY) == WIDE
    assert cpu_block(fewest - 1, need(256), workers, PLENTY) == LANES


def test_blocks_are_narrow_where_wide_ones_do_not_fit_for_all_threads():
    # 32 slices of 1 MiB for each of two threads, twice, and half of the memory: 256 MiB and what is fixed.
    assert cpu_block(512, need(512), 2, 512 << 20) == WIDE
    assert cpu_block(512, need(512), 2, 256 << 20) == LANES


@pytest.mark.parametrize(("share", "block"), [(4096, WIDE), (512, LANES)])
def test_a_worker_of_a_cluster_plans_for_its_share(share, block):
    geometry = ParallelGeometry(np.linspace(-60, 60, 5), 16, 16, 16)
    recipe = Recipe(METHODS["mlem"], Choice("cpu", "cpu", ""), geometry, False, {})
    work = Work(recipe, 5, 0, (slice(0, 16), slice(0, 16)))
    runtime = make_runtime(workers=32, progress="none", max_memory="8G")
    assert slab_loop._plan_far(work, (4096, 0, share), runtime).block == block
