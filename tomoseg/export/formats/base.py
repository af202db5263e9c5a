"""What an export format declares."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tomoseg.export.context import ExportContext, Surface

SurfaceWriter = Callable[[ExportContext], AbstractContextManager[Callable[[Surface], None]]]


def _no_sizes(_context: ExportContext) -> Mapping[str, int]:
    return {}


def _write_nothing(_context: ExportContext) -> None:
    pass


@dataclass(frozen=True)
class Format:
    """An export format.

    A new format is a module in `tomoseg.export.formats` that ends with `FORMAT = Format(...)`, and a row in the table
    of `tomoseg.export.formats`. Heavy libraries are imported inside the functions: the command line loads the table.

    Attributes
    ----------
    name : as the user gives it
    description : what it holds, on one line, for the help text
    file_names : returns the names of all files that it may write
    write : writes files that hold no surfaces
    surface_writer : opens a function that is called with each surface in turn; None: the format holds no surfaces
    expected_bytes : estimates the size of each large file, by name
    refers_to : formats whose files it refers to. At least one of them must be written too, and before it
    by_default : whether it is written unless the user chooses formats
    """

    name: str
    description: str
    file_names: Callable[[ExportContext], list[str]]
    write: Callable[[ExportContext], None] = _write_nothing
    surface_writer: SurfaceWriter | None = None
    expected_bytes: Callable[[ExportContext], Mapping[str, int]] = _no_sizes
    refers_to: tuple[str, ...] = ()
    by_default: bool = False


def one_file_per_surface(ending: str, write: Callable[[Path, Surface, ExportContext], None]) -> SurfaceWriter:
    """Return the `surface_writer` of a format that has a file for each surface."""

    @contextmanager
    def opened(context: ExportContext) -> Iterator[Callable[[Surface], None]]:
        def write_surface(surface: Surface) -> None:
            detail = f", {surface.data.GetNumberOfPolys()} triangles"
            with context.writing(f"{surface.stem}.{ending}", detail) as path:
                write(path, surface, context)

        yield write_surface

    return opened
