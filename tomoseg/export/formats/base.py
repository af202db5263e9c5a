"""What an export format declares, and what several of them use."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tomoseg.errors import printable
from tomoseg.export.context import ExportContext, Surface

SurfaceWriter = Callable[[ExportContext], AbstractContextManager[Callable[[Surface], None]]]


@dataclass(frozen=True)
class Format:
    """An export format.

    A new format is a module in `tomoseg.export.formats` that ends with `FORMAT = Format(...)`, and a row in the table
    of `tomoseg.export.formats`. Heavy libraries are imported inside the functions: the command line loads the table.

    Attributes
    ----------
    name : as the user gives it
    description : what it holds, on one line, for the help text
    files : returns all files that it may write, by name, with the bytes to expect of each large one, else 0
    write : writes files that hold no surfaces; None: all of its files hold surfaces
    surface_writer : opens a function that is called with each surface in turn; None: the format holds no surfaces
    refers_to : formats whose files it refers to. At least one of them must be written too, and before it
    by_default : whether it is written unless the user chooses formats
    why_missing : returns why it cannot be written on this machine and what to install, or an empty string
    """

    name: str
    description: str
    files: Callable[[ExportContext], Mapping[str, int]]
    write: Callable[[ExportContext], None] | None = None
    surface_writer: SurfaceWriter | None = None
    refers_to: tuple[str, ...] = ()
    by_default: bool = False
    why_missing: Callable[[], str] = lambda: ""


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


def xml_attribute(text: str) -> str:
    """Return a text in quotes as the value of an attribute; characters that XML 1.0 does not allow become '?'."""
    from xml.sax.saxutils import quoteattr  # imports all of urllib

    return quoteattr(printable(text))
