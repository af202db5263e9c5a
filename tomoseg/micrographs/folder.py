"""Many micrographs: measured side by side, each kept as soon as it is done, so that a run can be continued.

Each process measures one image at a time and writes its outlines, its labels and its record. What is there already, of
the same file and the same parameters, is not measured again. An image that cannot be measured is listed with the
reason; nothing that one file does stops the others.
"""

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tomoseg import __version__, plain_json
from tomoseg.errors import InputError, TomosegError
from tomoseg.io.atomic import atomic_path
from tomoseg.io.digest import sha256
from tomoseg.io.limits import reason_of
from tomoseg.io.micrographs import micrograph_files, read_micrograph
from tomoseg.io.regular import open_regular
from tomoseg.micrographs.parameters import MicrographParameters
from tomoseg.micrographs.records import Record, fingerprint
from tomoseg.runtime import Runtime, be_a_helper
from tomoseg.segmentation.networks.known_models import resolve_model

RECORDS, SETTINGS = "records", "tomoseg-images.json"
BYTES_PER_PROCESS = 400 << 20  # of an image of 2048 x 2048 px, with the libraries
WAITING = 2  # images per process that are handed out in advance


@dataclass(frozen=True)
class Task:
    """An image to be measured: its file, its name in the tables (with folders, '/'), and the sample it belongs to."""

    path: Path
    name: str
    sample: str

    def in_folder(self, folder: Path, part: str, ending: str) -> Path:
        """Return where a file about this image lies."""
        return folder / part / f"{self.name}{ending}"


def tasks_of(sources: Sequence[Path], *, recursive: bool = False) -> list[Task]:
    """Return all images of files and folders; samples are named by the folder that an image lies in.

    Raises `InputError`: a source does not exist, or a folder holds no image.
    """
    files = [path.absolute() for path in micrograph_files(sources, recursive=recursive)]
    common = Path(os.path.commonpath([path.parent for path in files]))
    tasks = []
    for path in files:
        inside = path.parent.relative_to(common)
        sample = inside.as_posix() if inside.parts else common.name
        tasks.append(Task(path, path.relative_to(common).as_posix(), sample))
    return tasks


def measure_files(
    tasks: Sequence[Task], folder: Path, params: MicrographParameters, runtime: Runtime, *, force: bool = False
) -> list[Record]:
    """Measure images and return a record of each, in their order; what is known already is taken from `folder`.

    Parameters
    ----------
    folder : where overlays, labels and records go; must exist
    force : measure again what is there, and what was corrected by hand as well

    Raises `InputError`: there is no such network.
    """
    network = ""
    n_processes = max(1, min(runtime.workers, runtime.max_memory // BYTES_PER_PROCESS, len(tasks)))
    if params.has_own_network:
        path = resolve_model(params.model)
        if not path.is_file():
            raise InputError(f"--model {path}: there is no such file; give a .keras file, or the name of a network")
        network = sha256(path)
        n_processes = 1  # it takes all cores
    work = partial(measured, folder=folder, params=params, network=network, force=force)
    records: dict[str, Record] = {}
    done = _side_by_side(tasks, work, n_processes) if len(tasks) > 1 else ((t, work(t)) for t in tasks)
    for _, (task, record) in zip(runtime.track(tasks, "measuring images"), done, strict=True):
        records[task.name] = record
    return [records[task.name] for task in tasks]


def measured(
    task: Task, *, folder: Path, params: MicrographParameters, network: str = "", force: bool = False
) -> Record:
    """Measure one image, or take what is known of it; whatever is wrong with it is told in its record.

    `network` is the digest of the file of a network that is not part of tomoseg.
    """
    path = task.in_folder(folder, RECORDS, ".json")
    mark = ""
    try:
        with open_regular(task.path) as file:
            mark = fingerprint(file.read(), {**params.model_dump(mode="json"), "network": network}, __version__)
        known = None if force else Record.read(path)
        is_known = known is not None and known.name == task.name and not known.skipped  # what failed is tried again
        if known is not None and is_known and (known.fingerprint == mark or known.reviewed):
            return known
        record = _measure(task, folder, params, mark)
    except InputError as error:
        record = _skipped(task, mark, str(error))
    except TomosegError:
        raise
    except MemoryError:
        record = _skipped(task, mark, "there is not enough memory for this image")
    except Exception as error:  # a fault in one image must not cost the other thousands
        record = _skipped(task, mark, f"it could not be measured: {type(error).__name__}: {reason_of(error)}")
    record.write(path)
    return record


def _measure(task: Task, folder: Path, params: MicrographParameters, mark: str) -> Record:
    from tomoseg.micrographs.api import measured_micrograph
    from tomoseg.micrographs.results import row_of, write_pictures

    image = read_micrograph(task.path)
    found = measured_micrograph(image.image, params, image.pixel_size.nm)
    write_pictures(found, partial(task.in_folder, folder))
    doubts = [*image.warnings, *([image.pixel_size.doubt] if image.pixel_size.doubt else []), *found.warnings]
    return row_of(found, task.name, mark, _where(task), doubts)


def _skipped(task: Task, mark: str, reason: str) -> Record:
    return Record(task.name, mark, _where(task), skipped=reason)


def _where(task: Task) -> dict[str, str]:
    return {"image": task.name, "sample": task.sample, "path": str(task.path)}


def _side_by_side(tasks: Sequence[Task], work: "partial[Record]", n_processes: int) -> Iterator[tuple[Task, Record]]:
    """Yield each task with its record as it is done; a task whose process dies is listed with that reason."""
    left = list(tasks)
    context = multiprocessing.get_context("spawn")
    while left:
        pool = ProcessPoolExecutor(n_processes, context, be_a_helper)
        running: dict[Future[Record], Task] = {}
        try:
            while left or running:
                while left and len(running) < WAITING * n_processes:
                    task = left.pop(0)
                    running[pool.submit(work, task)] = task
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    record = future.result()
                    yield running.pop(future), record
        except BrokenProcessPool:
            yield from _one_by_one(list(running.values()), work, context)
        finally:
            pool.shutdown(cancel_futures=True)


def _one_by_one(
    tasks: Sequence[Task], work: "partial[Record]", context: multiprocessing.context.SpawnContext
) -> Iterator[tuple[Task, Record]]:
    """Yield tasks with their records, each done by a process of its own: one of them made a process die."""
    for task in tasks:
        with ProcessPoolExecutor(1, context, be_a_helper) as pool:
            try:
                yield task, pool.submit(work, task).result()
            except BrokenProcessPool:
                reason = "the process that measured it was killed, most likely for want of memory: give --max-memory"
                yield task, _skipped(task, "", reason)


def prepare_folder(folder: Path, params: MicrographParameters) -> None:
    """Make the folder of the results, or check that it is one; note the parameters in it.

    Raises `InputError`: it holds other things, or cannot be written.
    """
    settings = folder / SETTINGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = not settings.exists() and any(folder.iterdir())
    except OSError as error:
        raise InputError(f"-o {folder}: {error.strerror}; name a folder that can be written") from error
    if foreign:
        raise InputError(f"-o {folder} holds other files: name a new folder, or that of an earlier run")
    with atomic_path(settings) as temporary:
        content = {"written by": f"tomoseg images {__version__}", "parameters": params.model_dump(mode="json")}
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def known_records(folder: Path) -> tuple[list[Record], MicrographParameters]:
    """Return the records and parameters of an earlier run. Raises `InputError` if the folder holds none."""
    try:
        content = plain_json.load((folder / SETTINGS).read_text(encoding="utf-8"))
        params = MicrographParameters.of("images", content["parameters"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"-o {folder} holds no results of `tomoseg images`: measure images first") from error
    found = [Record.read(path) for path in sorted((folder / RECORDS).rglob("*.json"))]
    records = [record for record in found if record is not None]
    if not records:
        raise InputError(f"-o {folder} holds no measured image")
    return records, params
