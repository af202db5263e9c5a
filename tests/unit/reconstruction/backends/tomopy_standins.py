"""Stand-ins for TomoPy, which is on conda only: what its sources say, with tomoseg's weights, or ASTRA itself."""

from functools import lru_cache

import astra
import numpy as np
from scipy import sparse
from scipy.special import pro_ang1

from tomoseg.reconstruction.backends.cpu import CpuOperator
from tomoseg.reconstruction.geometry import ParallelGeometry


@lru_cache(maxsize=64)
def weights(angles_deg, n_detector, nx, nz):
    """Return the weight of every voxel (z, x) on every ray (tilt, pixel) as a sparse matrix; no zeros are stored."""
    operator = CpuOperator(ParallelGeometry(np.array(angles_deg), n_detector, nx, nz))
    voxels = np.eye(nz * nx, dtype=np.float32).reshape(nz * nx, nz, nx)
    rows = []
    for start in range(0, len(voxels), operator.block):
        block = voxels[start : start + operator.block].transpose(1, 0, 2)
        seen = operator.unload_projections(operator.forward(operator.load_volume(block)), block.shape[1])
        rows.append(seen.transpose(1, 0, 2).reshape(block.shape[1], -1))
    matrix = np.concatenate(rows).T
    return sparse.csr_array(np.where(np.abs(matrix) > 1e-5, matrix, 0))


class Dividing:
    """TomoPy's own methods with tomoseg's weights: MLEM divides without a test, and changes what it is given in place.

    As in `osem.c`, `bart.c` and `fbp.c`, only the voxels that a ray meets get its share, so that one NaN does not
    spread to all others at once.
    """

    def __init__(self):
        self.calls, self.not_finite = [], 0

    def recon(self, tomo, theta, *, algorithm, num_gridx, num_gridy, **options):
        self.calls.append(algorithm)
        if algorithm == "gridrec":
            return Convention.recon(
                tomo, theta, algorithm=algorithm, num_gridx=num_gridx, num_gridy=num_gridy, **options
            )
        assert options["center"] == tomo.shape[-1] / 2
        assert options["sinogram_order"] is True
        assert options.get("num_iter", 1) == 1
        angles = tuple(np.round(np.rad2deg(theta), 9).tolist())
        matrix = weights(angles, tomo.shape[-1], num_gridy, num_gridx)
        slices, step = options["init_recon"], {"mlem": self.mlem, "sirt": self.sirt, "fbp": self.fbp}[algorithm]
        for data, one in zip(tomo, slices, strict=True):
            one[:] = step(matrix, data.ravel(), one[::-1].ravel()).reshape(one.shape)[::-1]
        self.not_finite += np.count_nonzero(~np.isfinite(slices))
        return slices

    @staticmethod
    def mlem(matrix, data, volume):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            update, sums = matrix.T @ (data / (matrix @ volume)), matrix.T @ np.ones_like(data)
            return np.where(sums != 0, volume * (update / np.where(sums != 0, sums, 1)), volume)

    @staticmethod
    def sirt(matrix, data, volume):
        squares, sums = matrix.power(2).sum(axis=1), matrix.T @ np.ones_like(data)
        ratio = np.where(squares != 0, (data - matrix @ volume) / np.where(squares != 0, squares, 1), 0)
        return volume + np.where(sums != 0, matrix.T @ ratio / np.where(sums != 0, sums, 1), 0)

    @staticmethod
    def fbp(matrix, data, volume):
        return volume + matrix.T @ data


def kernel(distance):
    """Return gridrec's kernel at a distance in grid points: nothing beyond 2."""
    values = pro_ang1(0, 0, 7.0, np.minimum(np.abs(distance) / 2, 1 - 1e-9))[0] / pro_ang1(0, 0, 7.0, 0.0)[0]
    return np.where(np.abs(distance) <= 2, values, 0)


def gridded(n, width):
    """Return how bright waves of every direction become along an axis of n voxels, by gridding them one by one.

    A wave exp(2 pi i f x) put on a grid of frequencies with the kernel, transformed back, and divided by the kernel as
    a function of x: what is left of it, on average. The filter's factor 2 and 1/1.44 belong to both axes.
    """
    x = np.arange(n) - (n + 1) // 2
    grid = np.arange(-8, 9)
    back = np.exp(2j * np.pi * grid * x[:, None] / width)
    waves = np.linspace(-3, 3, 60, endpoint=False)
    left = np.mean([(back @ kernel(f - grid)) * np.exp(-2j * np.pi * f * x / width) for f in waves], axis=0).real
    return left * np.sqrt(np.pi / 7) / 1.2 / kernel(4 * (x + 1) / (width - 1))


class Convention:
    """What TomoPy's sources say of the geometry, filters and scale of gridrec, by back projection."""

    @staticmethod
    def recon(tomo, theta, *, center, filter_name, filter_par, num_gridx, num_gridy, **options):
        assert options["algorithm"] == "gridrec"
        assert options["sinogram_order"] is True
        width = tomo.shape[-1]
        assert width & (width - 1) == 0
        f = np.abs(np.fft.fftfreq(width))
        windows = {"ramlak": np.ones(width), "shepp": np.sinc(f), "cosine": np.cos(np.pi * f)}
        windows["hann"] = 0.5 + 0.5 * np.cos(2 * np.pi * f / filter_par[0])
        windows["hamming"] = 0.54 + 0.46 * np.cos(2 * np.pi * f / filter_par[0])
        rows = np.fft.ifft(np.fft.fft(tomo) * f * windows[filter_name]).real * np.pi / len(theta)
        x, y = np.arange(num_gridy) - (num_gridy + 1) // 2, np.arange(num_gridx) - (num_gridx + 1) // 2
        seen = center + x * np.cos(theta)[:, None, None] + y[::-1, None] * np.sin(theta)[:, None, None]
        slices = [sum(np.interp(at, np.arange(width), row) for at, row in zip(seen, one, strict=True)) for one in rows]
        return np.array(slices * np.outer(gridded(num_gridx, width)[::-1], gridded(num_gridy, width)), np.float32)


class ThroughAstra:
    """What `tomopy.astra` does: `options` to ASTRA itself, by ASTRA's own interface and TomoPy's convention."""

    astra = "the function tomopy.astra"

    def __init__(self):
        self.options = []

    def recon(self, tomo, theta, *, center, init_recon, options, num_gridx, num_gridy, algorithm, **others):
        assert algorithm is self.astra
        assert center == tomo.shape[-1] / 2  # where TomoPy neither rolls the data nor moves the detector
        assert others == {"sinogram_order": True, "ncore": 1}
        assert set(options) <= {"method", "proj_type", "num_iter", "extra_options"}
        self.options.append(options)
        volume = astra.create_vol_geom(num_gridx, num_gridy)
        rays = astra.create_proj_geom("parallel", 1.0, tomo.shape[-1], theta)
        projector = astra.create_projector(options["proj_type"], rays, volume)
        slices = []
        for sinogram, start in zip(tomo, init_recon, strict=True):
            data = astra.data2d.create("-sino", rays, sinogram), astra.data2d.create("-vol", volume, start)
            settings = {**astra.astra_dict(options["method"]), "option": options.get("extra_options", {})}
            settings |= {"ProjectorId": projector, "ProjectionDataId": data[0], "ReconstructionDataId": data[1]}
            algorithm_id = astra.algorithm.create(settings)
            astra.algorithm.run(algorithm_id, options["num_iter"])
            slices.append(astra.data2d.get(data[1]))
            astra.algorithm.delete(algorithm_id)
            astra.data2d.delete(list(data))
        astra.projector.delete(projector)
        return np.array(slices, np.float32)
