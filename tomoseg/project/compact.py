"""Compaction: giving back the space that re-run stages left in a project file."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py

from tomoseg.errors import StageFailed
from tomoseg.project import disk, layout, names
from tomoseg.project.file import Project
from tomoseg.project.journal import remove_beside
from tomoseg.runtime import on_abrupt_exit


def compact(path: Path, check: Callable[[], None], tell: Callable[[str], object], *, break_lock: bool) -> int:
    """Rewrite the project without gaps and put the new file in place of the old one; return the bytes saved.

    Nothing is decompressed or converted, and one chunk is in memory at a time. `check` is called between arrays and may
    raise; the old file is then as it was. Whoever reads the old file can go on with it. Raises `ProjectLocked` if
    another process is writing the project; `InputError` if the file has several names, of which one only would get the
    new file; `StageFailed` if there is not enough space for the new file beside the old one.
    """
    path = names.resolved(path)
    with Project.write(path, tell, break_lock=break_lock) as project:
        names.refuse_several(path, "and only this one would be given the compacted file")
        before = path.stat().st_size
        needed, free = before - project.free_bytes, shutil.disk_usage(path.parent).free
        if needed > free:
            raise StageFailed(
                f"Compacting {path} needs {needed / 1e9:.3g} GB of free space beside it, and {free / 1e9:.3g} GB are "
                "free. The project is unchanged; free some space and try again."
            )
        new = names.unborn_path(path)
        unregister = on_abrupt_exit(lambda: new.unlink(missing_ok=True))
        fd = disk.create(new, path)
        try:
            with h5py.File(new, "w", locking=False, **layout.FORMAT, **layout.NEW_FILE) as target:
                _copy(project.file, target, check)
            disk.sync(fd)
            disk.rename(new, path)
            disk.sync_folder(path.parent)
            remove_beside(names.journal_path(path))  # of what readers had kept out of the old file
        finally:
            os.close(fd)
            new.unlink(missing_ok=True)
            unregister()
    return before - path.stat().st_size


def _copy(source: h5py.Group, target: h5py.Group, check: Callable[[], None]) -> None:
    """Copy a group's attributes and members."""
    for name, value in source.attrs.items():
        target.attrs[name] = value
    for name, member in source.items():
        check()
        if isinstance(member, h5py.Group):
            _copy(member, target.create_group(name), check)
        else:
            source.copy(name, target)
