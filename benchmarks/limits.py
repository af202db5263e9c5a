"""What this machine could do at most in the projector's inner loop: multiply-adds of `LANES` numbers, all workers.

`registers` keeps everything in registers: the limit of arithmetic. `cache` takes a vector of data and a weight from the
first-level cache for each multiply-add, as projection and back projection must: the limit of the cache's bandwidth.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tomoseg.reconstruction.kernels import Floats, compiled
from tomoseg.reconstruction.simd import LANES, add, at, load, multiply_add, store, zero

VECTORS = 256  # 16 kB of data and 1 kB of weights: well within the first-level cache
PASSES = 100_000


@compiled()
def registers(data: Floats, weights: Floats, passes: int) -> None:
    w, x = at(weights, 0), load(data, 0)
    a, b, c, d, e, f, g, h = zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()
    for _ in range(passes * VECTORS // 8):
        a, b = multiply_add(w, x, a), multiply_add(w, x, b)
        c, d = multiply_add(w, x, c), multiply_add(w, x, d)
        e, f = multiply_add(w, x, e), multiply_add(w, x, f)
        g, h = multiply_add(w, x, g), multiply_add(w, x, h)
    store(data, 0, add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h))))


@compiled()
def cache(data: Floats, weights: Floats, passes: int) -> None:
    a, b, c, d = zero(), zero(), zero(), zero()
    for _ in range(passes):
        for k in range(0, VECTORS, 4):
            a = multiply_add(at(weights, k), load(data, k * LANES), a)
            b = multiply_add(at(weights, k + 1), load(data, k * LANES + LANES), b)
            c = multiply_add(at(weights, k + 2), load(data, k * LANES + 2 * LANES), c)
            d = multiply_add(at(weights, k + 3), load(data, k * LANES + 3 * LANES), d)
    store(data, 0, add(add(a, b), add(c, d)))


def multiply_adds_per_second(kernel: Callable[[Floats, Floats, int], None], workers: int, repeats: int = 5) -> float:
    """Return how many multiply-adds of single numbers all workers do in a second, the median of `repeats`."""
    data = [np.zeros(VECTORS * LANES, np.float32) for _ in range(workers)]
    weights = np.full(VECTORS, 1e-9, np.float32)
    kernel(data[0], weights, 1)
    found = []
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(repeats):
            began = time.perf_counter()
            list(pool.map(lambda own: kernel(own, weights, PASSES), data))
            found.append(workers * PASSES * VECTORS * LANES / (time.perf_counter() - began))
    return statistics.median(found)
