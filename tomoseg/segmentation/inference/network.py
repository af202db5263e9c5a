"""A network ready to label the slices of one volume: here, or on a worker that is sent its file."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tomoseg.errors import InputError
from tomoseg.io.digest import sha256
from tomoseg.runtime import Runtime
from tomoseg.segmentation.inference.engines import engine_for
from tomoseg.segmentation.inference.slice_prediction import WHOLE_SLICE, SlicePredictor, fitted
from tomoseg.segmentation.inference.test_time_augmentation import N_COPIES, augmented
from tomoseg.segmentation.inference.volume_planes import batch_shapes, plane_shape, planes_of, slab_size
from tomoseg.segmentation.networks.card import ModelCard
from tomoseg.segmentation.parameters import SegmentParameters

SAME_PIXEL_SIZE = 1.05  # slices of a pixel size as close to the network's as this are not resampled
ODD_PIXEL_SIZE, IMPOSSIBLE_PIXEL_SIZE = 4.0, 16.0  # times smaller or larger: warned of, refused


@dataclass(frozen=True)
class Facts:
    """What is known of a network that is ready.

    `engine` and `device` compute; `patch` is the height and width of the largest patches, `zoom` the factor by which
    slices are resampled, `slab` the number of slices to label together for each plane.
    """

    card: ModelCard
    digest: str
    engine: str
    device: str
    patch: tuple[int, int]
    zoom: float
    slab: Mapping[str, int]


class Network:
    """A network in its file, the volume (of `shape`, z, y, x) that it is to label, and how.

    It is opened when it is first used. Sent to a worker, it takes along the content of its file, and is opened there.
    """

    def __init__(self, path: Path, params: SegmentParameters, shape: tuple[int, ...], voxel_size_nm: float) -> None:
        self.path, self.params, self.shape, self.voxel_size_nm = path, params, shape, voxel_size_nm
        self._content: bytes | None = None
        self._opened: tuple[SlicePredictor, Facts] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to a worker."""
        return self.__dict__ | {"_content": self._content or self.path.read_bytes(), "_opened": None}

    def opened(self, runtime: Runtime) -> tuple[SlicePredictor, Facts]:
        """Return what labels slices, but for its intensity scale, and what is known of it."""
        if self._opened is None:
            if self._content is None:
                self._opened = self._open(self.path, runtime)
            else:
                with tempfile.TemporaryDirectory(prefix="tomoseg-") as folder:
                    path = Path(folder, self.path.name)
                    path.write_bytes(self._content)
                    self._opened = self._open(path, runtime)
        return self._opened

    def _open(self, path: Path, runtime: Runtime) -> tuple[SlicePredictor, Facts]:
        from tomoseg.segmentation.networks.keras_setup import prepare
        from tomoseg.segmentation.networks.model_file import load_model

        params, shape = self.params, self.shape
        prepare(runtime)
        model, card = load_model(path)
        digest = sha256(path)
        zoom = zoom_to_network(self.voxel_size_nm, card.pixel_size_nm, runtime, rescale=params.rescale)
        predictor = SlicePredictor.of(model, card, card.scaling.trained, params.patch, params.overlap, zoom=zoom)
        planes = planes_of(params.plane)
        slices = [plane_shape(shape, plane) for plane in planes]
        predictor = fitted(predictor, model, slices, runtime.max_memory, _smaller_patch(predictor, model))
        shapes = batch_shapes(shape, predictor, params.plane, transposed=params.tta == "dihedral")
        # Of the network, copies and resampling counted, overlap not.
        n_pixels = math.prod(shape) * zoom**2 * len(planes) * N_COPIES[params.tta]
        engine = engine_for(params.engine, model, digest, shapes, runtime, n_pixels)
        patches = [predictor.patch_shape(one) for one in slices]
        facts = Facts(
            card,
            digest,
            f"{engine.name} {engine.version}",
            engine.device,
            max(patches, key=math.prod),
            zoom,
            {plane: slab_size(shape, predictor, plane, runtime) for plane in planes},
        )
        return replace(predictor, predict_batch=augmented(engine, params.tta)), facts


def facts_of(network: Network, _nothing: None, runtime: Runtime) -> Facts:
    """Return what is known of a network once it is open."""
    return network.opened(runtime)[1]


def _smaller_patch(predictor: SlicePredictor, model: Any) -> str:
    """Say what else helps where memory is short: nothing where the network takes patches of one size only."""
    if model.input_shape[1] is not None or predictor.patch == predictor.multiple:
        return ""
    if predictor.patch == WHOLE_SLICE:
        return ", or cut slices into patches (segment.patch)"
    return f", or a segment.patch of less than {predictor.patch} px"


def zoom_to_network(voxel_size_nm: float, trained_nm: float | None, runtime: Runtime, *, rescale: bool) -> float:
    """Return the factor by which slices are resampled for a network, and report why; 1 for none.

    The voxel size is NaN, the pixel size of the network's training slices None where unknown. Without `rescale` nothing
    is resampled. Raises `InputError`: the sizes differ by more than any resampling can mend.
    """
    if not trained_nm or not math.isfinite(voxel_size_nm):
        unknown = "pixel size of the network's training slices" if not trained_nm else "voxel size"
        runtime.say(f"the {unknown} is unknown: slices are not resampled for the network")
        return 1.0
    zoom = voxel_size_nm / trained_nm
    if 1 / SAME_PIXEL_SIZE <= zoom <= SAME_PIXEL_SIZE:
        return 1.0
    sizes = f"the network was trained on pixels of {trained_nm:.4g} nm, and the voxels are {voxel_size_nm:.4g} nm"
    if not rescale:
        runtime.warn(f"{sizes}: to the network objects look {1 / zoom:.2g} times as large, and labels may be poor")
        return 1.0
    if not 1 / IMPOSSIBLE_PIXEL_SIZE <= zoom <= IMPOSSIBLE_PIXEL_SIZE:
        raise InputError(
            f"{sizes}: these differ by a factor of {max(zoom, 1 / zoom):.3g}, too much to resample. Correct the pixel "
            "size (tomoseg import --pixel-size), choose another network, or turn segment.rescale off"
        )
    said = f"{sizes}: slices are resampled to {zoom:.3g} times as many pixels across"
    if 1 / ODD_PIXEL_SIZE <= zoom <= ODD_PIXEL_SIZE:
        runtime.say(said)
    else:
        runtime.warn(f"{said}. So large a difference is usually a mistake: check the pixel size of the series")
    return zoom
