"""Speed of MLEM: tomoseg's projector against the same MLEM through ASTRA's on the CPU, TomoPy's, and a GPU.

With TomoPy also FBP against its gridrec, and with ETSpy SIRT against its own.

    python benchmarks/reconstruction.py --width 192 512 --tilts 69

Every number is a median over repeats, in ms per slice and iteration, on `--workers` cores; peers run in the same
process right after, so the ratio means the same on any machine. A peer that is not installed is named and left out.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
from limits import cache, multiply_adds_per_second, registers

from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry
from tomoseg.reconstruction.kernels import WIDE
from tomoseg.reconstruction.methods import fbp, in_blocks, mlem, sirt
from tomoseg.runtime import available_cpus

PEERS = {
    "astra": "pip install astra-toolbox",
    "tomopy": "conda install -c conda-forge tomopy",
    "etspy": "pip install etspy",
}


def projections(geometry: ParallelGeometry, n_slices: int) -> np.ndarray:
    """Return projections of random spheres' cross-sections, (n_tilt, n_slices, n_detector)."""
    rng = np.random.default_rng(0)
    z, x = np.meshgrid(geometry.z, geometry.x, indexing="ij")
    volume = np.zeros((geometry.nz, n_slices, geometry.nx), np.float32)
    for i in range(n_slices):
        for _ in range(8):
            cz, cx = rng.uniform(-0.3, 0.3, 2) * geometry.nx
            volume[:, i] += (z - cz) ** 2 + (x - cx) ** 2 < (rng.uniform(0.02, 0.1) * geometry.nx) ** 2
    operator = CpuOperator(geometry)
    parts = []
    for start in range(0, n_slices, operator.block):
        block = volume[:, start : start + operator.block]
        part = operator.unload_projections(operator.forward(operator.load_volume(block)), block.shape[1])
        parts.append(np.array(part))
    return np.concatenate(parts, axis=1)


def median_ms(compute: Callable[[], object], n: int, repeats: int) -> float:
    """Return the median time of `compute` in ms, divided by `n`; it is called once before, to warm up."""
    compute()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        compute()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times) / n


def time_operator(operator, data: np.ndarray, iterations: int, workers: int, repeats: int) -> float:
    """Return ms per slice and iteration of MLEM with `operator`."""
    method = partial(mlem, iterations=iterations)
    ms = median_ms(lambda: in_blocks(operator, method, data, workers), data.shape[1] * iterations, repeats)
    operator.close()
    return ms


def time_tomopy(geometry: ParallelGeometry, data: np.ndarray, iterations: int, workers: int, repeats: int) -> float:
    """Return ms per slice and iteration of TomoPy's own MLEM, all iterations in one call."""
    import tomopy

    from tomoseg.reconstruction.backends.tomopy import rotation_centre, to_sinograms

    sinograms = to_sinograms(np.maximum(data, 1e-3))
    theta = np.deg2rad(geometry.angles_deg)

    def compute() -> None:
        tomopy.recon(
            sinograms, theta, center=rotation_centre(geometry), sinogram_order=True, algorithm="mlem",
            num_iter=iterations, ncore=workers,
        )  # fmt: skip

    return median_ms(compute, data.shape[1] * iterations, repeats)


def time_direct(geometry: ParallelGeometry, data: np.ndarray, workers: int, repeats: int) -> tuple[float, float]:
    """Return ms per slice of tomoseg's FBP and of TomoPy's gridrec as the stage calls it, each with its residual."""
    from tomoseg.reconstruction.backends.tomopy import reconstruct

    operator, method = CpuOperator(geometry, WIDE), partial(fbp, filter_name="hann")
    ours = median_ms(lambda: in_blocks(operator, method, data, workers), data.shape[1], repeats)
    theirs = partial(reconstruct, data, geometry, "gridrec", filter_name="hann", workers=workers)
    return ours, median_ms(theirs, data.shape[1], repeats)


def time_etspy(geometry: ParallelGeometry, data: np.ndarray, iterations: int, workers: int, repeats: int) -> float:
    """Return ms per slice and iteration of ETSpy's SIRT, which is ASTRA's: the whole call, on all cores."""
    from etspy.base import TomoStack, TomoTilts

    # Its tilt axis lies along the last axis of the images.
    stack = TomoStack(np.ascontiguousarray(data.transpose(0, 2, 1)), tilts=TomoTilts(geometry.angles_deg[:, None]))

    def compute() -> None:
        stack.reconstruct("SIRT", iterations, constrain=True, cuda=False, show_progressbar=False, ncores=workers)

    return median_ms(compute, data.shape[1] * iterations, repeats)


def row(width: int, limit: float, options: argparse.Namespace) -> None:
    """Measure one width and print its line of the table; `limit` is in multiply-adds per second."""
    geometry = ParallelGeometry(np.linspace(-68, 68, options.tilts), width, width, width)
    data = projections(geometry, options.workers * WIDE)
    ours = time_operator(CpuOperator(geometry, WIDE), data, options.iterations, options.workers, options.repeats)
    # A multiply-add for each of two taps: along each ray in every row, and in every voxel from every tilt.
    rate = 4 * options.tilts * width**2 / (ours / 1e3)
    line = f"{options.tilts:4d} x {width:4d}   tomoseg {ours:8.3f}, {rate / 1e9:5.1f} G/s = {rate / limit:4.0%}"
    few = data[:, : options.workers]  # a slice per worker: the peers take their time
    if find_spec("astra") is not None:
        from tomoseg.reconstruction.backends.astra import AstraCpuOperator

        operator = AstraCpuOperator(geometry)
        operator.block = 1
        astra = time_operator(operator, few, options.iterations, options.workers, options.repeats)
        line += f"   ASTRA (CPU) {astra:9.2f} = {astra / ours:5.1f} x"
    if find_spec("tomopy") is not None:
        tomopy = time_tomopy(geometry, few, options.iterations, options.workers, options.repeats)
        line += f"   TomoPy {tomopy:9.2f} = {tomopy / ours:5.1f} x"
        direct, gridrec = time_direct(geometry, data, options.workers, options.repeats)
        line += f"   FBP {direct:8.3f}, gridrec {gridrec:8.3f} = {gridrec / direct:5.1f} x"
    if find_spec("etspy") is not None:
        sirt = time_sirt(geometry, data, options)
        some = data[:, : 8 * options.workers]  # so that the start of its threads does not count much
        theirs = time_etspy(geometry, some, options.iterations, options.workers, options.repeats)
        line += f"   SIRT {sirt:8.3f}, ETSpy {theirs:9.2f} = {theirs / sirt:5.1f} x"
    print(line, flush=True)
    if options.gpu:
        print(gpu_line(geometry, data, ours, options), flush=True)


def gpu_line(geometry: ParallelGeometry, data: np.ndarray, ours: float, options: argparse.Namespace) -> str:
    """Return the line of a GPU."""
    from tomoseg.reconstruction.backends.astra import AstraCudaOperator

    operator = AstraCudaOperator(geometry)
    way = "EM_CUDA" if operator.keeps_mlem else "3D kernels"
    n_slices, mlem_ms, kernels_ms, sirt_ms = time_gpu(operator, data, options.iterations, options.repeats)
    operator.close()
    return (
        f"              GPU, {n_slices} slices at a time: MLEM ({way}) {mlem_ms:8.3f}, the CPU takes "
        f"{ours / mlem_ms:5.1f} x; MLEM (3D kernels) {kernels_ms:8.3f}; SIRT {sirt_ms:8.3f}"
    )


def time_gpu(operator, data: np.ndarray, iterations: int, repeats: int) -> tuple[int, float, float, float]:
    """Return the slices in a slab, and ms per slice and iteration of MLEM, of MLEM through the 3D kernels, and of SIRT.

    MLEM is done as the stage does it; OSEM and TV, too, use the 3D kernels.
    """
    slab = np.ascontiguousarray(np.tile(data, (1, -(-operator.block // data.shape[1]), 1))[:, : operator.block])
    n, weights = slab.shape[1] * iterations, np.ones((slab.shape[0], slab.shape[2]), np.float32)
    steps = (
        lambda: mlem(operator, slab, iterations),
        lambda: mlem(operator, slab, iterations, weights=weights),
        lambda: sirt(operator, slab, iterations),
    )
    return slab.shape[1], *(median_ms(step, n, repeats) for step in steps)


def gpu_found() -> bool:
    """Say which GPU is measured, or why none is."""
    if find_spec("astra") is None:
        print("no GPU is measured: that needs the ASTRA toolbox")
        return False
    from tomoseg.reconstruction.backends.astra import cuda_available
    from tomoseg.reconstruction.backends.gpu import usable, why_unused

    if not cuda_available():
        print(f"no GPU is measured: {why_unused() or 'there is none'}")
        return False
    import astra

    found = usable()
    print(
        f"{max(1, len(found.numbers))} x {str(astra.get_gpu_info()).strip()}; {found.free / 2**30:.1f} GiB free, "
        f"according to {found.source}"
    )
    return True


def time_sirt(geometry: ParallelGeometry, data: np.ndarray, options: argparse.Namespace) -> float:
    """Return ms per slice and iteration of tomoseg's SIRT."""
    operator, method = CpuOperator(geometry, WIDE), partial(sirt, iterations=options.iterations)
    return median_ms(lambda: in_blocks(operator, method, data, options.workers), data.shape[1] * options.iterations, 3)


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, nargs="+", default=[192, 512], help="detector pixels = slice size")
    parser.add_argument("--tilts", type=int, default=69)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=available_cpus())
    options = parser.parse_args()
    print(f"MLEM, ms per slice and iteration, {options.workers} workers (tilts x width)")
    for name, how in (
        ("astra", "pip install astra-toolbox"),
        ("tomopy", "conda install -c conda-forge tomopy"),
        ("etspy", "pip install etspy"),
    ):
        if find_spec(name) is None:
            print(f"{name} is not installed and left out ({how})")
    fastest, bound = (multiply_adds_per_second(kernel, options.workers) for kernel in (registers, cache))
    print(f"this machine: {fastest / 1e9:.1f} G multiply-adds/s in registers, {bound / 1e9:.1f} with a load for each")
    options.gpu = gpu_found()
    for width in options.width:
        row(width, bound, options)


if __name__ == "__main__":
    main()
