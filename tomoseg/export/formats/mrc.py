"""Format `mrc`: volume and labels as MRC files, for IMOD, Chimera and others; the writer is `tomoseg.io.mrc`."""

from tomoseg.arrays import ArraySource
from tomoseg.export.context import ExportContext
from tomoseg.export.formats.base import Format
from tomoseg.io.mrc import write_mrc


def _write(context: ExportContext) -> None:
    for name, data in _volumes(context).items():
        with context.writing(f"{name}.mrc") as path:
            what, track = f"writing {name}.mrc", context.runtime.track
            write_mrc(path, data, context.voxel_size_nm, label=f"tomoseg {name}", what=what, track=track)


def _volumes(context: ExportContext) -> dict[str, ArraySource]:
    return {"labels": context.labels, "volume": context.volume, **context.signals}


FORMAT = Format(
    name="mrc",
    description="volume, labels and further signals for IMOD, Chimera and others",
    files=lambda context: {f"{name}.mrc": context.raw_bytes[name] for name in _volumes(context)},
    write=_write,
    by_default=True,
)
