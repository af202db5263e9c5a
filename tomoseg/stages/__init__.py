"""One file per stage: its parameters, what it reads and writes, and its run()."""

from tomoseg.stages import align, export, import_, measure, reconstruct, segment
from tomoseg.stages.base import Stage

STAGES: tuple[Stage, ...] = (
    import_.STAGE,
    align.STAGE,
    reconstruct.STAGE,
    segment.STAGE,
    measure.STAGE,
    export.STAGE,
)
BY_NAME: dict[str, Stage] = {stage.name: stage for stage in STAGES}
