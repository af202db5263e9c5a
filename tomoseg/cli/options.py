"""Options that several commands share, and options made from a model of parameters."""

import contextlib
import inspect
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from tomoseg import config
from tomoseg.errors import InputError, shown
from tomoseg.parameters import Parameters
from tomoseg.progress import Events
from tomoseg.runtime import Runtime, make_runtime

COMPUTING = "Computing"
LOADED = time.monotonic()
LONGEST_TIME = 366 * 86400.0  # seconds
TIME_TO_LEAVE = 10.0  # seconds kept of a time budget, or a fifth of a short one

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Hardware to compute on.", rich_help_panel=COMPUTING)
]
Workers = Annotated[
    int, typer.Option("--workers", help="Threads; 0: all CPUs of this job.", min=0, rich_help_panel=COMPUTING)
]
MaxMemory = Annotated[
    str,
    typer.Option("--max-memory", help="Memory to use, e.g. 8G; default: half of it.", rich_help_panel=COMPUTING),
]
ProgressKind = Annotated[
    Literal["auto", "bar", "plain", "none"],
    typer.Option("--progress", help="How to show progress.", rich_help_panel=COMPUTING),
]
StopBefore = Annotated[
    str,
    typer.Option(
        "--stop-before",
        metavar="TIME",
        help="Exit within this time of the start (55m, 1h30m, 2:30:00, 3300s), keeping what is needed to continue; "
        "exit code 130.",
        rich_help_panel=COMPUTING,
    ),
]
EventFile = Annotated[
    Path | None,
    typer.Option(
        "--events", metavar="FILE", help="Also write what happens as lines of JSON.", rich_help_panel=COMPUTING
    ),
]
ClusterText = Annotated[
    str,
    typer.Option(
        "--cluster",
        metavar="ADDRESS|slurm:N|pbs:N|lsf:N|local:N",
        help="Have the workers of a Dask scheduler compute what can be divided, of N jobs, or of N processes here.",
        rich_help_panel=COMPUTING,
    ),
]
SiteFile = Annotated[
    Path | None,
    typer.Option(
        "--site",
        metavar="FILE",
        help="What jobs of --cluster ask for, in place of ~/.config/tomoseg/site.yaml.",
        rich_help_panel=COMPUTING,
    ),
]
CLUSTER_OPTIONS: dict[str, tuple[Any, Any]] = {"cluster": ("", ClusterText), "site": (None, SiteFile)}
COMPUTING_OPTIONS: dict[str, tuple[Any, Any]] = {
    "device": ("auto", Device),
    "workers": (0, Workers),
    "max_memory": ("", MaxMemory),
    "progress": ("auto", ProgressKind),
    "stop_before": ("", StopBefore),
    "events": (None, EventFile),
}
BreakLock = Annotated[
    bool,
    typer.Option(
        "--break-lock",
        help="Take over the project's lock from a process on another host, which cannot be checked from here. Only if "
        "you know that it has ended.",
    ),
]
ProjectFile = Annotated[Path, typer.Argument(metavar="PROJECT", help="The project file (.h5).", show_default=False)]
OutputProject = Annotated[
    Path, typer.Option("--output", "-o", metavar="PROJECT", help="The project file to make.", show_default=False)
]
Pipeline = Annotated[
    str,
    typer.Option(
        "--pipeline", metavar="FILE|NAME", help="A pipeline file, or the name of one that ships with tomoseg."
    ),
]
Sets = Annotated[list[str], typer.Option("--set", metavar="STAGE.PARAM=VALUE", help="Set one parameter; repeatable.")]


def runtime_of(
    device: str, workers: int, max_memory: str, progress: str, stop_before: str = "", events: Path | None = None
) -> Runtime:
    """Return the runtime that the shared options ask for."""
    runtime = make_runtime(device, workers, max_memory, progress)
    if events is not None:
        try:
            runtime.progress = Events(runtime.progress, events)
        except OSError as error:
            raise InputError(f"--events {events}: {error.strerror}; name a file that can be written.") from error
    if stop_before:
        seconds = parse_time(stop_before)
        # What is left of the time is for writing the state and for leaving.
        runtime.stop_at = process_start() + seconds - min(TIME_TO_LEAVE, seconds / 5)
        runtime.budget = f"the time budget of {stop_before.strip()}"
    return runtime


def require_page(output: Path, what: str) -> None:
    """Raise `InputError` unless a file's name is that of an HTML page; `what` is to be written there."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"-o {output}: the {what} is an HTML page, so its name must end in .html.")


def process_start() -> float:
    """Return when this process started, in seconds of `time.monotonic`, or when this module was loaded.

    Loading Python and its packages can take many seconds where they lie on a busy network.
    """
    with contextlib.suppress(OSError, AttributeError, ValueError, IndexError):
        # proc_pid_stat(5): field 22, in clock ticks since boot; the second field is a name in brackets.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return min(time.monotonic() - age, LOADED)
    return LOADED


def parse_time(text: str) -> float:
    """Turn '55m', '1h30m', '2:30:00' (h:m:s), '55:00' (m:s), '3300s' or '3300' into seconds."""
    number = r"(\d+(?:\.\d+)?)"
    for pattern, seconds_of in (
        (rf"(?:{number}d)?(?:{number}h)?(?:{number}m)?(?:{number}s)?", (86400, 3600, 60, 1)),
        (r"(?:(\d+):)?(\d+):(\d+)", (3600, 60, 1)),
        (number, (1,)),
    ):
        match = re.fullmatch(pattern, text.strip())
        if match is not None:
            total = sum(unit * float(part) for unit, part in zip(seconds_of, match.groups("0"), strict=True))
            if 0 < total <= LONGEST_TIME:
                return total
    raise InputError(f"--stop-before {shown(text)}: give a time such as 55m, 1h30m, 2:30:00 or 3300s, at most 366d.")


def with_options(model: type[Parameters], command: Callable[..., None], hidden: tuple[str, ...]) -> Callable[..., None]:
    """Give a command one option per parameter of `model`, passed on as `options`: only those the user gave.

    The model is the only place where an option is described.
    """
    names = [name for name in model.model_fields if name not in hidden]

    def wrapped(**given: Any) -> None:
        values = {name: given.pop(_inner(name)) for name in names}
        values = {name: v for name, v in values.items() if v not in (None, [])}
        for name, value in values.items():
            text = _extra(model, name)["repeated"].join(value) if isinstance(value, list) else value
            values[name] = config.parse_value(text) if isinstance(text, str) else text
        command(**given, options=values)

    kind = inspect.Parameter.KEYWORD_ONLY
    made = [inspect.Parameter(_inner(name), kind, default=None, annotation=_option(model, name)) for name in names]
    return _disguised(wrapped, command, "options", made, first=True)


def computing(command: Callable[..., None], *, on_cluster: bool = False) -> Callable[..., None]:
    """Give a command the options of all computing commands, passed on as its `runtime`; also those of a cluster."""
    options = COMPUTING_OPTIONS | (CLUSTER_OPTIONS if on_cluster else {})

    def wrapped(**given: Any) -> None:
        runtime = runtime_of(**{name: given.pop(name) for name in COMPUTING_OPTIONS})
        with _on_cluster(runtime, **{name: given.pop(name) for name in options if name not in COMPUTING_OPTIONS}):
            command(**given, runtime=runtime)

    kind = inspect.Parameter.KEYWORD_ONLY
    made = [inspect.Parameter(name, kind, default=value, annotation=one) for name, (value, one) in options.items()]
    return _disguised(wrapped, command, "runtime", made)


@contextmanager
def _on_cluster(runtime: Runtime, cluster: str = "", site: Path | None = None) -> Iterator[None]:
    """Give a runtime the cluster that is asked for, if one is, and end afterwards what was started."""
    if not cluster:
        yield
        return
    from tomoseg.cluster import DaskCluster, asked_for

    workers = DaskCluster(asked_for(cluster, site))
    if workers.asked.kind in ("address", "file"):
        workers.connect(runtime)  # what does not answer is told before anything is computed
    runtime.cluster = workers
    with closing(workers):
        yield


def _disguised(
    wrapped: Callable[..., None],
    command: Callable[..., None],
    replaced: str,
    made: list[inspect.Parameter],
    *,
    first: bool = False,
) -> Callable[..., None]:
    """Give a wrapper the signature of a command, with other parameters in place of one; `first` in its help or last."""
    own = [p for p in inspect.signature(command).parameters.values() if p.name != replaced]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    parameters = made + own if first else own + made
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    wrapped.__doc__ = command.__doc__
    return wrapped


def _inner(name: str) -> str:
    return f"option_{name}"


def _option(model: type[Parameters], name: str) -> Any:
    field = model.model_fields[name]
    flag = "--" + name.replace("_", "-")
    extra = _extra(model, name)
    more = extra.get("flags", [])
    default = field.default
    written = ",".join(map(str, default)) if isinstance(default, (list, tuple)) else _shown(default)
    text = (field.description or "").replace("null: ", "if not given: ")
    text += "" if default in (None, "") else f" [default: {written}]"
    if field.annotation is bool:
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=text, show_default=False)]
    if "repeated" in extra:
        text = f"{text}; or repeat the option"
        return Annotated[
            list[str] | None, typer.Option(*more, flag, help=text, metavar=extra["metavar"], show_default=False)
        ]
    return Annotated[
        str | None, typer.Option(*more, flag, help=text, metavar=_metavar(field.annotation), show_default=False)
    ]


def _shown(default: Any) -> str:
    """Return a default as people write it."""
    return f"{default:.4g}" if isinstance(default, float) else str(default)


def _extra(model: type[Parameters], name: str) -> dict[str, Any]:
    """Return what a parameter says of its option: further `flags`, and what stands between `repeated` ones."""
    extra = model.model_fields[name].json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    names = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "FILE"}
    if annotation in names:
        return names[annotation]
    if get_origin(annotation) in (list, tuple):
        return "A,B" if len(get_args(annotation)) == 2 and ... not in get_args(annotation) else "A,B,..."
    if get_origin(annotation) is Annotated:
        return _metavar(get_args(annotation)[0])
    parts = [_metavar(a) for a in get_args(annotation) if a is not type(None)]
    return "|".join(dict.fromkeys(parts)) or "VALUE"
