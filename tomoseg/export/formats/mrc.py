"""Format `mrc`: volume and labels as MRC files, for IMOD, Chimera and others; the writer is `tomoseg.io.mrc`."""

from tomoseg.export.context import ExportContext
from tomoseg.export.formats.base import Format
from tomoseg.io.mrc import write_mrc


def _write(context: ExportContext) -> None:
    for name in ("labels", "volume"):
        with context.writing(f"{name}.mrc") as path:
            what, track = f"writing {name}.mrc", context.runtime.track
            write_mrc(
                path, context.arrays[name], context.voxel_size_nm, label=f"tomoseg {name}", what=what, track=track
            )


FORMAT = Format(
    name="mrc",
    description="volume and labels for IMOD, Chimera and others",
    files=lambda context: {f"{name}.mrc": context.raw_bytes[name] for name in ("labels", "volume")},
    write=_write,
    by_default=True,
)
