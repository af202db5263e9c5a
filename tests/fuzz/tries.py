"""One try: read a file as the user's command would, and judge what came of it."""

import contextlib
import gc
import json
import resource
import shutil
import sys
import traceback
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import bombs
from tests.fuzz.mutate import SHAPES_AND_VALUES, mutated, mutated_archive, mutated_project
from tests.fuzz.samples import EMI, STACK, ser
from tomoseg.errors import InputError, TomosegError

MEMORY_MB = 200  # more than this for a file of less than a megabyte is a bomb
SECONDS = 15.0  # of computing: a machine may be busy with other things
READER_MB = 60  # of a process that reads a sound little file
FORKED = ("project", "report")  # kinds whose reader is forked from the process that tries
BOMBS = 0.05  # of the tries with files that can be such
NETWORK_BYTES = 64 << 20  # allowed to a network


@dataclass(frozen=True)
class Outcome:
    """What became of one try: 'read', 'refused' (one clear error) or the name of a failure."""

    number: int
    sample: str
    result: str
    detail: str
    peak_mb: float
    seconds: float


def import_raw(path: Path) -> None:
    """Check and open a series as `tomoseg import` does."""
    from tomoseg.io.parameters import ImportParameters, check

    check(ImportParameters(raw=path))
    read_raw(path)


def read_raw(path: Path) -> None:
    """Open a series: metadata, the first images and the last one."""
    from tomoseg.io.raw import open_raw

    with open_raw(path) as series:
        json.dumps(series.metadata)
        _one_paragraph("".join([*series.notes, *series.warnings, series.pixel_size.doubt, series.angles_source]))
        n = series.shape[0]
        for part in (slice(0, min(n, 8)), slice(n - 1, n)):
            images = series.read(part)
            if images.shape[1:] != series.shape[1:] or images.dtype != series.dtype:
                raise AssertionError(f"{images.shape} {images.dtype} is not what was promised")
        if series.angles_deg is not None:
            np.asarray(series.angles_deg, np.float64)


def read_store(path: Path) -> None:
    """Unpack a Zarr store and read it as a series."""
    store = path.with_suffix(".zspy")
    shutil.rmtree(store, ignore_errors=True)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(store)
    read_raw(store)


def read_emi(path: Path) -> None:
    """Read a settings file beside a sound series."""
    path.with_suffix(".ser").write_bytes(ser(STACK))
    read_raw(path)


def read_mdoc_file(path: Path) -> None:
    """Read an .mdoc as angle file, and as the companion of a sound stack."""
    from tomoseg.io.angles import read_angles
    from tomoseg.io.mdoc import read_mdoc
    from tomoseg.io.mrc import write_mrc

    stack = path.with_suffix(".mrc")
    if not stack.exists():
        write_mrc(stack, STACK, None, kind="stack")
    both = []
    for use in (read_raw, read_angles, lambda p: (read_mdoc(p).pixel_size(), read_mdoc(p).tilt_axis())):
        try:
            use(stack if use is read_raw else path)
        except InputError as error:
            both.append(error)
    if both:
        raise both[0]


def read_angle_file(path: Path) -> None:
    """Read an angle file."""
    from tomoseg.io.angles import read_angles

    angles = read_angles(path)
    if not (np.isfinite(angles).all() and np.abs(angles).max() <= 180):
        raise AssertionError("angles that are none")


def read_slices(path: Path) -> None:
    """Read a slice as image and as labels, which few images are."""
    from tomoseg.io.slices import read_labels, read_slice

    read_slice(path)
    with contextlib.suppress(InputError):
        read_labels(path, 3)


def read_pipeline_file(path: Path) -> None:
    """Read a pipeline as `tomoseg check` does."""
    from tomoseg.config import as_raw, read_pipeline, resolve

    json.dumps(as_raw(resolve(read_pipeline(path))))


def read_model(path: Path) -> None:
    """Read a network's card, load it and apply it to a little slice, within the memory allowed."""
    from tomoseg.segmentation.inference.slice_prediction import SlicePredictor, fitted
    from tomoseg.segmentation.networks.card import read_card
    from tomoseg.segmentation.networks.keras_setup import keras
    from tomoseg.segmentation.networks.model_file import load_model

    read_card(path)
    model, card = load_model(path)
    predictor = SlicePredictor.of(model, card, card.scaling.trained)
    predictor = fitted(predictor, model, [(16, 16)], NETWORK_BYTES)
    predictor.probabilities(np.zeros((1, 16, 16, *[card.channels][: card.channels > 1]), np.float32))
    keras.backend.clear_session()


def read_project(path: Path) -> None:
    """Open a project and tell what is in it, as `tomoseg status --verbose` does, and read all of its arrays."""
    from tomoseg import config, engine
    from tomoseg.cli import render
    from tomoseg.project import Project

    with Project.read(path) as opened:
        states = engine.states(opened, config.resolve(opened.settings))
        render.status_lines(opened, states, verbose=True)
        json.loads(render.status_json(opened, states))
        opened.history()
        for artifact in opened.artifacts().values():
            dict(artifact.attrs)
            if artifact.shape and 0 not in artifact.shape:
                artifact[-1]


def write_page(path: Path) -> None:
    """Write the report of a project."""
    from tomoseg.cli.inspect import report

    with contextlib.redirect_stdout(None):
        report(path, path.with_suffix(".html"))


READERS: dict[str, Callable[[Path], None]] = {
    **{"mrc": import_raw, "tiff": read_raw, "dm": import_raw, "ser": import_raw, "hdf5": read_raw, "emi": read_emi},
    **{
        "zspy": read_store,
        "mdoc": read_mdoc_file,
        "angles": read_angle_file,
        "slices": read_slices,
        "pipeline": read_pipeline_file,
    },
    **{"keras": read_model, "project": read_project, "report": write_page},
}
PROJECTS = {"project", "report"}
TEXTS = {"mdoc", "angles", "pipeline", "emi"}


def damaged(kind: str, number: int, samples: list[Path]) -> tuple[str, bytes]:
    """Return the name of a sample and its content as try `number` damages it."""
    rng = np.random.default_rng([number, *kind.encode()])
    sample = samples[int(rng.integers(len(samples)))]
    content, donor = sample.read_bytes(), samples[int(rng.integers(len(samples)))].read_bytes()
    if rng.random() < BOMBS and (made := _bomb(kind, rng, samples)):
        return made
    if kind == "keras" and rng.random() < 0.8:
        names = ("config.json", "config.json", "config.json", "tomoseg.json", "model.weights.h5", "model.weights.h5")
        return sample.name, mutated_archive(content, rng, donor, names)
    if kind == "zspy":
        with zipfile.ZipFile(sample) as archive:
            names = archive.namelist()
        return sample.name, mutated_archive(content, rng, donor, names)
    if kind in PROJECTS and rng.random() < 0.7:
        return sample.name, mutated_project(content, rng, *([SHAPES_AND_VALUES] if kind == "report" else []))
    return sample.name, mutated(content, rng, donor, text=kind in TEXTS)


def _bomb(kind: str, rng: np.random.Generator, samples: list[Path]) -> tuple[str, bytes] | None:
    """Return the name and content of a file that unpacks to far more than it holds; None where no such kind is known.

    The name of the sample that it is made of comes first.
    """
    by_name = {path.name: path for path in samples}
    if kind in PROJECTS:
        name, make = _one_of(rng, bombs.PROJECTS)
        return f"own.h5, {name}.h5", make(by_name["own.h5"].read_bytes())
    if kind == "hdf5":
        name, (base, make) = _one_of(rng, bombs.SERIES)
        return f"{base}, {name}{Path(base).suffix}", make(by_name[base].read_bytes())
    if kind == "keras":
        name, layers = _one_of(rng, bombs.there_and_back(int(rng.choice((2, 16, 128, 500)))))
        return f"foreign.keras, {name}.keras", bombs.with_layers(by_name["foreign.keras"].read_bytes(), layers)
    return None


def _one_of(rng: np.random.Generator, table: dict[str, Any]) -> tuple[str, Any]:
    return list(table.items())[int(rng.integers(len(table)))]


def one_try(kind: str, number: int, samples: list[Path], folder: Path) -> Outcome:
    """Damage a sample, read it, and say what came of it."""
    name, content = damaged(kind, number, samples)
    path = folder / f"try{Path(name).suffix}"
    path.write_bytes(content)
    return attempt(kind, number, name, path)


def attempt(kind: str, number: int, name: str, path: Path) -> Outcome:
    """Read a file and say what came of it."""
    gc.collect()
    before, before_children, start = _reset_peak(), _peak_of_children_mb(), _cpu_seconds()
    result, detail = "read", ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
        try:
            READERS[kind](path)
        except TomosegError as error:
            result, detail = "refused", str(error)
            problem = _one_paragraph(detail) or _memory_behind(error)
            if problem:
                result, detail = problem, detail[:300]
        except Exception:
            result, detail = "exception", traceback.format_exc()
    seconds, peak = _cpu_seconds() - start, _peak_mb() - before
    # A process begins with the memory of the one that starts it, which counts for its peak; a forked one keeps it.
    if _peak_of_children_mb() > max(before_children, before + peak):
        peak = max(peak, _peak_of_children_mb() - (before if kind in FORKED else READER_MB))
    if result in {"read", "refused"}:
        if peak > MEMORY_MB:
            result, detail = "memory", f"{peak:.0f} MB; {detail[:300]}"
        elif seconds > SECONDS:
            result, detail = "slow", f"{seconds:.1f} s; {detail[:300]}"
        elif caught:
            result, detail = "warning", f"{caught[0].category.__name__}: {caught[0].message}; {detail[:200]}"
    return Outcome(number, name, result, detail, round(peak, 1), round(seconds, 2))


def _one_paragraph(text: str) -> str:
    """Say what is wrong with a message that should be one clear paragraph or a list of them."""
    if len(text) > 4000:
        return "endless message"
    if "Traceback" in text or "\0" in text:
        return "unclear message"
    return ""


def _memory_behind(error: BaseException | None) -> str:
    """Say whether memory ran out first: a lying size was believed."""
    while error is not None:
        if isinstance(error, MemoryError):
            return "memory"
        error = error.__cause__ or error.__context__
    return ""


def _reset_peak() -> float:
    """Forget the largest memory used so far (Linux); return the memory in use, MB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak_mb()
    return _status_mb("VmRSS")


def _peak_mb() -> float:
    try:
        return _status_mb("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)


def _peak_of_children_mb() -> float:
    """Return the largest memory that any process had which read a file for this one, MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)


def _cpu_seconds() -> float:
    """Return the computing time of this process, and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _status_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(key + ":"))


def warm_up(kind: str, samples: list[Path], folder: Path) -> None:
    """Load and compile what the first try of a kind would: its seconds and memory belong to no try."""
    if kind == "keras":
        read_model(samples[0])
    if kind == "report":
        write_page(Path(shutil.copy(samples[0], folder)))


def batch(kind: str, first: int, last: int, samples: list[Path], folder: Path) -> None:
    """Make tries first..last-1, one line of JSON before and one after each: what ends this process is then known."""
    warm_up(kind, samples, folder)
    in_use = _status_mb("VmSize") * 1e6
    limit = int(in_use + 6e9)  # far above what is allowed: protects the machine, not the verdict
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(first, last):
        print(json.dumps({"start": number}), flush=True)
        print(json.dumps(asdict(one_try(kind, number, samples, folder))), flush=True)


EMI_SAMPLE = EMI
