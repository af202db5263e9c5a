"""A network ready to label the slices of one volume: here, or on a worker that is sent its file."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tomoseg.errors import NotReady
from tomoseg.io.digest import sha256
from tomoseg.runtime import Runtime
from tomoseg.segmentation.inference.engines import ConvertedEngine, Engine, Shape, engine_for, kept_engine
from tomoseg.segmentation.inference.kept_plans import KeptPlan, computes_on_cpu
from tomoseg.segmentation.inference.pixel_size import NetworkZoom, network_zoom
from tomoseg.segmentation.inference.slice_prediction import WHOLE_SLICE, SlicePredictor, batch_bytes_in, fitted
from tomoseg.segmentation.inference.test_time_augmentation import N_COPIES, augmented
from tomoseg.segmentation.inference.volume_planes import batch_shapes, plane_shape, planes_of, slab_size
from tomoseg.segmentation.networks.card import ModelCard, read_card
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
        params, digest = self.params, sha256(path) if path.is_file() else ""  # of one that is gone, `load_model` tells
        plan = self._plan(digest, runtime) if digest else None
        if plan is not None and (card := read_card(path)) is not None and (ready := self._kept(plan, card, runtime)):
            return ready
        from tomoseg.segmentation.networks.keras_setup import prepare
        from tomoseg.segmentation.networks.model_file import load_model

        prepare(runtime)
        model, card = load_model(path)
        zoom = self._zoom(card)
        _tell(zoom, runtime)
        predictor = SlicePredictor.of(model, card, card.scaling.trained, params.patch, params.overlap, zoom.factor)
        slices = [plane_shape(self.shape, plane) for plane in planes_of(params.plane)]
        predictor = fitted(predictor, model, slices, runtime.max_memory, _smaller_patch(predictor, model))
        engine = engine_for(
            params.engine, model, digest, self._batches(predictor), runtime, self._n_pixels(predictor.zoom)
        )
        if plan is not None and isinstance(engine, ConvertedEngine):
            plan.write(predictor.bytes_per_pixel)
        return self._ready(predictor, engine, card, digest, runtime)

    def _kept(self, plan: KeptPlan, card: ModelCard, runtime: Runtime) -> tuple[SlicePredictor, Facts] | None:
        """Return what a plan and converted copies make without Keras; None where something is missing."""
        params, n_bytes = self.params, plan.read()
        if n_bytes is None:
            return None
        zoom, scale = self._zoom(card), card.scaling.trained
        predictor = SlicePredictor.described(
            needs_engine, card, scale, params.patch, params.overlap, zoom.factor, n_bytes
        )
        predictor = replace(predictor, batch_bytes=batch_bytes_in(runtime.max_memory))
        n_pixels = self._n_pixels(predictor.zoom)
        engine = kept_engine(params.engine, plan.digest, self._batches(predictor), runtime, n_pixels)
        if engine is None:
            return None
        _tell(zoom, runtime)
        runtime.device_used = engine.device
        return self._ready(predictor, engine, card, plan.digest, runtime)

    def _plan(self, digest: str, runtime: Runtime) -> KeptPlan | None:
        """Return where a plan for this volume is kept; None where only Keras knows what computes."""
        params = self.params
        if not computes_on_cpu(runtime) or params.engine == "keras":
            return None
        how = (params.engine, params.patch, params.overlap, params.plane, params.tta, params.rescale)
        return KeptPlan(digest, (*how, tuple(self.shape), self.voxel_size_nm, runtime.max_memory))

    def _zoom(self, card: ModelCard) -> NetworkZoom:
        return network_zoom(self.voxel_size_nm, card.pixel_size_nm, rescale=self.params.rescale)

    def _batches(self, predictor: SlicePredictor) -> list[Shape]:
        return batch_shapes(self.shape, predictor, self.params.plane, transposed=self.params.tta == "dihedral")

    def _n_pixels(self, zoom: float) -> float:
        """Return how many pixels the network is to see, copies and resampling counted, overlap not."""
        params = self.params
        return math.prod(self.shape) * zoom**2 * len(planes_of(params.plane)) * N_COPIES[params.tta]

    def _ready(
        self, predictor: SlicePredictor, engine: Engine, card: ModelCard, digest: str, runtime: Runtime
    ) -> tuple[SlicePredictor, Facts]:
        params, planes = self.params, planes_of(self.params.plane)
        slices = [plane_shape(self.shape, plane) for plane in planes]
        patches = [predictor.patch_shape(one) for one in slices]
        facts = Facts(
            card,
            digest,
            f"{engine.name} {engine.version}",
            engine.device,
            max(patches, key=math.prod),
            predictor.zoom,
            {plane: slab_size(self.shape, predictor, plane, runtime) for plane in planes},
        )
        return replace(predictor, predict_batch=augmented(engine, params.tta)), facts


def _tell(zoom: NetworkZoom, runtime: Runtime) -> None:
    if zoom.told:
        (runtime.warn if zoom.is_doubtful else runtime.say)(zoom.told)


def needs_engine(_patches: Any) -> Any:
    """Stand in for an engine until there is one."""
    raise NotReady("the network has no engine yet")


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
