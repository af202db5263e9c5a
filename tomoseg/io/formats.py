"""The table of file formats of images: how each is recognised, and what reads it."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tomoseg.io.sandbox import open_in_sandbox
from tomoseg.io.series import RawSeries

Reader = Callable[..., RawSeries]


@dataclass(frozen=True)
class Format:
    """A file format: the extensions of its files, how their content begins, and the module that reads them.

    `libraries` are those that the module needs; a module that needs any runs in the sandbox. A file that is `single`
    holds one image: a series is a folder of them.
    """

    name: str
    extensions: tuple[str, ...]
    module: str
    recognises: Callable[[bytes], bool]
    libraries: tuple[str, ...] = ()
    single: bool = False

    def open(self, path: Path, signal: str | None = None) -> RawSeries:
        """Open a file of this format."""
        if self.libraries:
            return open_in_sandbox(path, self.module, self.libraries, signal)
        return self.reader(path, signal)

    @property
    def reader(self) -> Reader:
        """The function that opens a file in this process."""
        read: Reader = importlib.import_module(f"tomoseg.io.readers.{self.module}").read
        return read


# The content decides, the extension only where content has no mark (FEI's older MRC files).
FORMATS: tuple[Format, ...] = (
    Format(
        "HDF5 (Velox or NCEM EMD, HyperSpy, DXchange)",
        (".emd", ".hspy", ".h5", ".hdf5", ".hdf"),
        "hdf5",
        lambda head: head.startswith(b"\x89HDF\r\n\x1a\n"),
        ("h5py", "hdf5plugin"),
    ),
    Format("HyperSpy's Zarr store", (".zspy",), "zspy", lambda _head: False, ("zarr", "rsciio.zspy", "dask.array")),
    Format(
        "TIFF",
        (".tif", ".tiff"),
        "tiff",
        lambda head: head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"},
        ("tifffile", "imagecodecs"),
    ),
    Format("TIA", (".ser", ".emi"), "ser", lambda head: head[:4] == b"II\x97\x01"),
    Format(
        "MRC", (".mrc", ".st", ".ali", ".rec", ".mrcs", ".map", ".preali"), "mrc", lambda head: head[208:211] == b"MAP"
    ),
    Format("Digital Micrograph", (".dm3", ".dm4"), "dm", lambda head: head[:4] in {b"\0\0\0\x03", b"\0\0\0\x04"}),
    Format("NumPy", (".npy",), "npy", lambda head: head.startswith(b"\x93NUMPY")),
    Format(
        "PNG, BMP or JPEG",
        (".png", ".bmp", ".jpg", ".jpeg"),
        "picture",
        lambda head: head.startswith((b"\x89PNG\r\n\x1a\n", b"BM", b"\xff\xd8\xff")),
        single=True,
    ),
)
IMAGE_EXTENSIONS = frozenset(extension for f in FORMATS for extension in f.extensions)


def supported() -> str:
    """Return the formats and their extensions in words."""
    return ", ".join(f"{f.name} ({' '.join(f.extensions)})" for f in FORMATS)
