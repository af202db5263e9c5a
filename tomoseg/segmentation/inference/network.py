"""A network ready to label the slices of one volume: here, or on a worker that is sent its file."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tomoseg.io.digest import sha256
from tomoseg.runtime import Runtime
from tomoseg.segmentation.inference.engines import engine_for
from tomoseg.segmentation.inference.pixel_size import network_zoom
from tomoseg.segmentation.inference.slice_prediction import WHOLE_SLICE, SlicePredictor, fitted
from tomoseg.segmentation.inference.test_time_augmentation import N_COPIES, augmented
from tomoseg.segmentation.inference.volume_planes import batch_shapes, plane_shape, planes_of, slab_size
from tomoseg.segmentation.networks.card import ModelCard
from tomoseg.segmentation.parameters import SegmentParameters


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
        found = network_zoom(self.voxel_size_nm, card.pixel_size_nm, rescale=params.rescale)
        if found.told:
            (runtime.warn if found.is_doubtful else runtime.say)(found.told)
        zoom = found.factor
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
