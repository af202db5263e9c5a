"""Painted labels are hours of work: whatever crashes while more are taken in, the old or the new ones are there."""

import numpy as np
import tifffile

from tests.crash.recorder import Recorder, interposed
from tests.crash.replay import crashes
from tests.crash.scenario import small_steps
from tomoseg.annotation.exchange import export_slices, import_slices, read_annotations
from tomoseg.project import Project
from tomoseg.runtime import Runtime


def paint(project, folder, value, **options):
    with Project.read(project) as opened:
        export_slices(opened, folder, Runtime(), **options)
    for file in (folder / "labels").iterdir():
        labels = tifffile.imread(file)
        labels[:, :9], labels[:, 9:12] = value, 0
        tifffile.imwrite(file, labels)


def take_in(project, folder, **options):
    with Project.write(project) as opened:
        import_slices(opened, folder, Runtime(), **options)


def held(project):
    """Return what is painted where, after the recovery that the next command begins with."""
    with Project.write(project) as opened:
        found = read_annotations(opened)
    return (
        None if found is None else (found.numbers, np.stack(found.labels).tobytes(), np.stack(found.images).tobytes())
    )


def test_any_crash_leaves_the_old_labels_or_the_new_ones(project, tmp_path):
    paint(project, tmp_path / "a", 1, n_slices=2)
    paint(project, tmp_path / "b", 2, n_slices=3)
    take_in(project, tmp_path / "a")
    old = held(project)
    disk = tmp_path / "disk"
    disk.mkdir()
    project = project.rename(disk / "p.h5")
    recorder = Recorder(disk)
    with small_steps(), interposed(recorder):
        take_in(project, tmp_path / "b", replace=True)
    new = held(project)
    assert old[1] != new[1]
    log, seen = recorder.log, []
    with small_steps():
        for point, kind, files in crashes(log.start, log.ops, range(len(log.ops) + 1), variants=1, seed=0):
            for file in disk.iterdir():
                file.unlink()
            for name, content in files.items():
                (disk / name).write_bytes(content)
            found = held(project)
            assert found in (old, new), f"lost at operation {point} of {len(log.ops)}: {kind}"
            seen.append(found == new)
    assert not seen[0]
    assert seen[-1]
