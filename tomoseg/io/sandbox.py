"""The sandbox: a process of its own that reads files, with limits on its memory and computing time for each.

HDF5 and TIFF are read by large libraries, which a damaged file can make crash, loop or take all memory. None of that
can be foreseen from the file's first bytes. In the sandbox it ends that process only, and becomes one clear error here.

The two processes exchange JSON lines and raw pixels over pipes: nothing that is executed when it is read. A request is
answered by one line, {"answer": ...}, {"refused": message} (an `InputError`) or {"failed": reason}, followed by the
pixels where they were asked for.
"""

import contextlib
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NoReturn

import numpy as np

from tomoseg.arrays import Array
from tomoseg.errors import InputError
from tomoseg.io.limits import reason_of
from tomoseg.io.series import RawSeries, Signal
from tomoseg.io.units import PixelSize

MEMORY_BYTES = 128 << 20  # what a library may take on top of the pixels that were asked for
CPU_SECONDS = 5  # waiting for a slow disk does not count
BYTES_PER_CPU_SECOND = 2_000_000  # the slowest decoders manage ten times as much


class Sandbox:
    """The process that reads files with a reader module, one at a time, seen from the one that started it."""

    def __init__(self, module: str, libraries: tuple[str, ...]) -> None:
        # -P: what lies in the working folder, beside the file to be read, is not imported.
        command = [sys.executable, "-P", "-m", __name__, module, *libraries]
        self._opened: tuple[Path, str | None] | None = None
        package = str(Path(__file__).parents[2])
        search = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH", "")) if p)
        # One pool of memory for all threads, so that the limit on address space measures what is used. In a session
        # of its own it gets no Ctrl-C: this process does, and ends it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": search, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: IO[bytes] = self._process.stdin
        self._stdout: IO[bytes] = self._process.stdout

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Return the answer to a request.

        Raises `InputError` if the reader refuses the file; `OSError` if the reader failed, or its process ended.
        """
        try:
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()
        except BrokenPipeError:
            self._explain_end()
        line = self._stdout.readline()
        if not line.endswith(b"\n"):
            self._explain_end()
        reply = json.loads(line)
        if "refused" in reply:
            raise InputError(reply["refused"])
        if "failed" in reply:
            raise OSError(reply["failed"])
        return reply["answer"]

    def open(self, path: Path, signal: str | None = None) -> RawSeries:
        """Open a series; its pixels are fetched from here as long as this is not closed.

        Raises `InputError` if the reader refuses the file; `OSError` if the reader fails, crashes, or takes too much
        time or memory.
        """
        known = self._describe(path, signal)
        shape, dtype = tuple(known.pop("shape")), np.dtype(known.pop("dtype"))
        angles = known.pop("angles_deg")

        def fetch(part: slice) -> Array:
            if self._opened != (path, signal):
                self._describe(path, signal)
            return self._images(slice(*part.indices(shape[0])[:2]), shape, dtype)

        return RawSeries(
            path=Path(known.pop("path")),
            shape=shape,
            dtype=dtype,
            fetch=fetch,
            angles_deg=None if angles is None else np.array(angles, np.float64),
            pixel_size=_pixel_size(known.pop("pixel_size")),
            signals=[Signal(**{**one, "shape": tuple(one["shape"])}) for one in known.pop("signals")],
            **known,
        )

    def _describe(self, path: Path, signal: str | None) -> dict[str, Any]:
        self._opened = None
        known: dict[str, Any] = self.ask({"open": str(path), "signal": signal})
        self._opened = (path, signal)
        return known

    def _images(self, part: slice, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return images part.start..part.stop of the series opened last."""
        self.ask({"start": part.start, "stop": part.stop})
        images = np.empty((part.stop - part.start, *shape[1:]), dtype)
        view, done = memoryview(images.reshape(-1).view(np.uint8)), 0  # type: ignore[arg-type] # it is a buffer
        while done < len(view):
            got = self._stdout.readinto(view[done:])  # type: ignore[attr-defined] # a BufferedReader has it
            if not got:
                self._explain_end()
            done += got
        return images

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _explain_end(self) -> NoReturn:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)  # its pipes are closed: it is about to end, and how it ends tells why
        self.close()
        code = self._process.returncode
        name = signal.Signals(-code).name if code < 0 else ""
        reasons = {"SIGXCPU": "reading it took too long", "SIGKILL": "the process that reads it was killed"}
        raise OSError(reasons.get(name, "the library that reads it crashed"))


def open_in_sandbox(path: Path, module: str, libraries: tuple[str, ...], signal: str | None = None) -> RawSeries:
    """Open a series with a reader module that runs in the sandbox; pixels are fetched from there.

    Raises `InputError` if the reader refuses the file; `OSError` if the reader fails, crashes, or takes too much time
    or memory.
    """
    sandbox = Sandbox(module, libraries)
    try:
        series = sandbox.open(path, signal)
    except BaseException:
        sandbox.close()
        raise
    series.close = sandbox.close
    return series


def _pixel_size(known: dict[str, Any]) -> PixelSize:
    sides = known.pop("sides_nm")
    return PixelSize(**known, sides_nm=None if sides is None else (sides[0], sides[1]))


def copy_numbers(source: Path, target: Path) -> int:
    """Copy all arrays of numbers in an HDF5 file to a new one, in the sandbox; return how many numbers there are.

    Raises `InputError` if the file refers to others, claims more than is stored, or holds something else than numbers;
    `OSError` if it is damaged.
    """
    sandbox = Sandbox("weights", ("h5py",))
    try:
        return int(sandbox.ask({"copy": str(source), "to": str(target)}))
    finally:
        sandbox.close()


def _described(series: RawSeries) -> dict[str, Any]:
    """Return the attributes of a series, by name, as JSON can hold them."""
    as_they_are = ("format", "shape", "angles_source", "tilt_axis", "metadata", "notes", "warnings", "signal")
    return {name: getattr(series, name) for name in as_they_are} | {
        "path": str(series.path),
        "dtype": series.dtype.str,
        "angles_deg": None if series.angles_deg is None else series.angles_deg.tolist(),
        "pixel_size": vars(series.pixel_size),
        "signals": [vars(signal) for signal in series.signals],
    }


def main() -> None:
    """Serve one file after the other: what runs in the sandbox."""
    module, *libraries = sys.argv[1:]
    # A library's prints must not get into the answers.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    reader = importlib.import_module(f"tomoseg.io.readers.{module}")
    for library in libraries:  # before the limits, which are for the file
        importlib.import_module(library)
    threading.stack_size(1 << 20)  # of the threads that decode, which would take 8 MB of address space each
    series: RawSeries | None = None
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            pixels = None
            if "copy" in request:
                path = Path(request["copy"])
                size = path.stat().st_size
                _limit(size, size)
                answer: Any = reader.copy(path, Path(request["to"]))
            elif "open" in request:
                if series is not None:
                    series.close()
                    series = None
                path = Path(request["open"])
                _limit(0, path.stat().st_size)
                series = reader.read(path, request["signal"])
                answer = _described(series)
            elif series is None:
                raise OSError("no file is open")
            else:
                part = slice(request["start"], request["stop"])
                n_bytes = (part.stop - part.start) * series.shape[1] * series.shape[2] * series.dtype.itemsize
                _limit(n_bytes + series.scratch_bytes, n_bytes + series.scratch_bytes)
                pixels, answer = series.fetch(part), True
            reply = {"answer": answer}
        except InputError as error:
            reply = {"refused": str(error)}
        except MemoryError:
            reply = {"failed": "reading it takes far more memory than its size suggests"}
        except Exception as error:  # the libraries raise anything on a damaged file
            reply = {"failed": reason_of(error)}
        replies.write(json.dumps(reply).encode() + b"\n")
        if "answer" in reply and pixels is not None and series is not None:
            for image in pixels:
                replies.write(np.ascontiguousarray(image, series.dtype).data)
        replies.flush()


def _limit(pixel_bytes: int, work_bytes: int) -> None:
    """Limit memory and computing time from now on, by the bytes to return and to decode, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = _used(resource)
    limits = {resource.RLIMIT_CPU: used[resource.RLIMIT_CPU] + CPU_SECONDS + work_bytes // BYTES_PER_CPU_SECOND}
    if used[resource.RLIMIT_AS]:  # elsewhere than on Linux the address space in use is not told, or not limited
        # As read, decoded and turned: three times the pixels.
        limits[resource.RLIMIT_AS] = used[resource.RLIMIT_AS] + MEMORY_BYTES + 3 * pixel_bytes
    for which, value in limits.items():
        _, hard = resource.getrlimit(which)
        resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def import_beyond_limits(library: str) -> None:
    """Import a library that few files need, in the sandbox or outside: what that takes does not count for the file."""
    if library in sys.modules:
        return
    try:
        import resource
    except ImportError:  # Windows: nothing is limited
        importlib.import_module(library)
        return
    limited = {which: resource.getrlimit(which) for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS)}
    for which, (_, hard) in limited.items():
        resource.setrlimit(which, (hard, hard))
    before = _used(resource)
    try:
        importlib.import_module(library)
    finally:
        for which, (soft, hard) in limited.items():
            if soft != hard:
                more = soft + _used(resource)[which] - before[which]
                resource.setrlimit(which, (more if hard == resource.RLIM_INFINITY else min(more, hard), hard))


def _used(resource: ModuleType) -> dict[int, int]:
    """Return computing time in whole seconds, at least those used, and the address space in bytes; 0 if not told."""
    usage, statm = resource.getrusage(resource.RUSAGE_SELF), Path("/proc/self/statm")
    pages = int(statm.read_text().split()[0]) if statm.exists() else 0  # Linux only
    return {
        resource.RLIMIT_CPU: math.ceil(usage.ru_utime + usage.ru_stime),
        resource.RLIMIT_AS: pages * resource.getpagesize(),
    }


if __name__ == "__main__":
    main()
