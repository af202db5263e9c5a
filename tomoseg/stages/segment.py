"""The segment stage: a class for every voxel, by a trained network or by thresholds."""

from tomoseg.arrays import Input, Outputs
from tomoseg.errors import InputError
from tomoseg.lengths import size_or_nan
from tomoseg.runtime import Runtime
from tomoseg.schema import CONFIDENCE, LABELS, SEGMENTATION_INFO, VOLUME
from tomoseg.segmentation.api import segment_volume
from tomoseg.segmentation.parameters import SegmentParameters, check
from tomoseg.stages.base import Doubt, Prospect, Stage


def run(*, volume: Input, params: SegmentParameters, runtime: Runtime, outputs: Outputs) -> None:
    """Give every voxel a class."""
    if problems := check(params):
        raise InputError.of(problems)
    voxel_size_nm = size_or_nan(volume.attrs.get("voxel_size_nm"))
    summary = segment_volume(volume, voxel_size_nm, params, runtime, outputs)
    info = {**summary.info, "class_fractions": summary.class_fractions, "parameters": params.model_dump_json()}
    outputs.set_attrs(SEGMENTATION_INFO.name, info)


def foresee(params: SegmentParameters, prospect: Prospect) -> list[Doubt]:
    """Say where the voxels are too unlike the pixels that the network was trained on."""
    if not params.uses_network or params.model is None:
        return []
    from tomoseg.segmentation.inference.pixel_size import network_zoom
    from tomoseg.segmentation.networks.card import read_card
    from tomoseg.segmentation.networks.known_models import resolve_model

    card = read_card(resolve_model(params.model))
    if card is None:
        return []
    try:
        zoom = network_zoom(prospect.voxel_size_nm, card.pixel_size_nm, rescale=params.rescale)
    except InputError as error:
        return [Doubt(f"segment: {error}", stops=True)]
    return [Doubt(f"segment: {zoom.told}", stops=False)] if zoom.is_doubtful else []


STAGE = Stage(
    name="segment",
    version=6,
    summary="give every voxel a class, by a trained network or by thresholds",
    parameters=SegmentParameters,
    reads=(VOLUME,),
    writes=(LABELS, CONFIDENCE, SEGMENTATION_INFO),
    run=run,
    check=check,
    foresee=foresee,
)
