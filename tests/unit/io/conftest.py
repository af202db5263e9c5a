"""MRC files put together byte by byte, independently of the code that reads them."""

import struct

import numpy as np
import pytest

MODES = {"i1": 0, "u1": 0, "i2": 1, "f4": 2, "c8": 4, "u2": 6, "f2": 12}


def mrc_bytes(
    images,
    order="<",
    cell_angstrom=(0.0, 0.0, 0.0),
    extended=b"",
    exttyp=b"\0\0\0\0",
    stamped=True,
    labels=(),
    extra=None,
    **fields,
):
    """Return an MRC file; `extra` maps byte offsets of the header to what stands there, `fields` replace numbers."""
    n, ny, nx = images.shape
    f = {
        "nx": nx,
        "ny": ny,
        "nz": n,
        "mode": MODES[f"{images.dtype.kind}{images.dtype.itemsize}"],
        "nsymbt": len(extended),
        **fields,
    }
    head = struct.pack(f"{order}10i", f["nx"], f["ny"], f["nz"], f["mode"], 0, 0, 0, nx, ny, n)
    head += struct.pack(f"{order}6f3i", *cell_angstrom, 90, 90, 90, 1, 2, 3)
    head += struct.pack(f"{order}3f2i", images.real.min(), images.real.max(), images.real.mean(), 0, f["nsymbt"])
    head = bytearray(head.ljust(1024, b"\0"))
    head[104:112] = exttyp + struct.pack(f"{order}i", 20140)
    if stamped:
        head[208:216] = b"MAP " + (b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0")
    head[220:224] = struct.pack(f"{order}i", len(labels))
    for i, text in enumerate(labels):
        head[224 + 80 * i : 304 + 80 * i] = text.encode().ljust(80)
    for offset, content in (extra or {}).items():
        head[offset : offset + len(content)] = content
    return bytes(head) + extended + images.astype(images.dtype.newbyteorder(order)).tobytes()


@pytest.fixture
def images():
    """Five different images of 6 x 7 pixels, int16 with negative values."""
    return np.random.default_rng(1).integers(-32000, 32000, (5, 6, 7)).astype(np.int16)


@pytest.fixture
def mrc_file(tmp_path):
    """Write an MRC file from `mrc_bytes` arguments and return its path."""

    def write(images, name="series.mrc", **options):
        path = tmp_path / name
        path.write_bytes(mrc_bytes(images, **options))
        return path

    return write
