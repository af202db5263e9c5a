"""Format `mrc`: volume and labels as MRC files, for IMOD, Chimera and others; the writer is `tomoseg.io.mrc`."""

from collections.abc import Iterable, Sequence
from functools import partial

from tomoseg.export.context import ExportContext
from tomoseg.export.formats.base import Format
from tomoseg.io.mrc import write_mrc
from tomoseg.runtime import Runtime, T


def _write(context: ExportContext) -> None:
    for name in ("labels", "volume"):
        with context.writing(f"{name}.mrc") as path:
            track = partial(_track, context.runtime, f"writing {name}.mrc")
            write_mrc(path, context.arrays[name], context.voxel_size_nm, label=f"tomoseg {name}", track=track)


def _track(runtime: Runtime, what: str, items: Sequence[T], _what: str, /) -> Iterable[T]:
    """Show another text than that of the writer, which knows the temporary name only."""
    return runtime.track(items, what)


FORMAT = Format(
    name="mrc",
    description="volume and labels for IMOD, Chimera and others",
    file_names=lambda _: ["labels.mrc", "volume.mrc"],
    expected_bytes=lambda context: {f"{name}.mrc": size for name, size in context.raw_bytes.items()},
    write=_write,
    by_default=True,
)
