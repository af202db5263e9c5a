"""What strangers' files may do: a sample of the fuzz campaign, and lies made by hand.

The whole campaign is `python -m tests.fuzz.campaign`; docs/hostile-files.md has its figures.
"""

import gzip
import io
import json
import struct
import zlib

import h5py
import numpy as np
import pytest

from tests.conftest import REAL_DATA
from tests.fuzz import bombs
from tests.fuzz.campaign import KINDS, outcomes
from tests.fuzz.samples import STACK, dm3, ser, write_samples
from tests.fuzz.tries import attempt
from tomoseg.io.mrc import write_mrc

TRIES = {"tiff": 15, "zspy": 8, "hdf5": 15, "emi": 10, "keras": 10, "project": 15, "report": 3}
SLOW = {"keras", "report", "project", "zspy"}  # to start with


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow if k in SLOW else ()) for k in KINDS])
def test_damaged_files_are_read_or_refused(kind, tmp_path):
    write_samples(kind, tmp_path)
    found = list(outcomes(kind, 7_000_000, TRIES.get(kind, 50), tmp_path))
    assert len(found) == TRIES.get(kind, 50)
    failed = [o for o in found if o["result"] not in {"read", "refused"}]
    assert not failed, f"repeat with --only {kind} --again NUMBER: {failed}"
    if kind in {"mrc", "mdoc", "hdf5", "project"}:  # the damage is neither too little nor too much to tell anything
        assert {o["result"] for o in found} == {"read", "refused"}


def refused(kind, path, content):
    """Write a file, read it as tomoseg does, and return the message of its refusal."""
    path.write_bytes(content)
    outcome = attempt(kind, 0, path.name, path)
    assert outcome.result == "refused", outcome
    return outcome.detail


def harmless(kind, path, content):
    """Write a file and read it as tomoseg does: what is damaged may be refused, or not matter."""
    path.write_bytes(content)
    outcome = attempt(kind, 0, path.name, path)
    assert outcome.result in {"read", "refused"}, outcome


# MRC -----------------------------------------------------------------------------------------------------------------


def mrc(tmp_path, extra=b"", **fields):
    write_mrc(tmp_path / "sound.mrc", STACK, 0.5, kind="stack")
    content = bytearray((tmp_path / "sound.mrc").read_bytes())
    places = {"nx": 0, "ny": 4, "nz": 8, "mode": 12, "mx": 28, "nsymbt": 92}
    for name, value in fields.items():
        content[places[name] : places[name] + 4] = struct.pack("<i", value)
    return bytes(content[:1024]) + extra + bytes(content[1024:])


@pytest.mark.parametrize(
    "fields",
    [
        {"nx": 30_000, "ny": 30_000, "nz": 3},
        {"nx": 1_000_000, "ny": 1_000_000, "nz": 1_000_000},
        {"nx": 2**31 - 1, "ny": 2**31 - 1, "nz": 2**31 - 1},
        {"nx": -20, "ny": -16},
        {"nz": 1_000_000},
        {"nsymbt": 2**31 - 1},
        {"nsymbt": 63 << 20},
        {"nsymbt": -1024},
    ],
    ids=str,
)
def test_mrc_headers_that_lie(tmp_path, fields):
    refused("mrc", tmp_path / "a.mrc", mrc(tmp_path, **fields))


@pytest.mark.parametrize("stamp", [b"FEI1", b"FEI2", b"SERI"])
def test_mrc_extended_headers_that_lie(tmp_path, stamp):
    # The first number of FEI's records is how long one is.
    for length in (0, 1, -1, 2**31 - 1):
        extended = struct.pack("<i", length).ljust(256, b"\xff")
        content = bytearray(mrc(tmp_path, extended, nsymbt=256))
        content[104:108] = stamp
        harmless("mrc", tmp_path / "a.mrc", content)


# TIFF ----------------------------------------------------------------------------------------------------------------


def tiff(*directories, data=b""):
    """Return a TIFF of directories, each ({tag: (type, count, value)}, place of the next); data are at byte 8."""
    out = b"II*\0" + struct.pack("<I", 8 + len(data)) + data
    for tags, following in directories:
        out += struct.pack("<H", len(tags))
        out += b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
        out += struct.pack("<I", following(len(out) + 4) if callable(following) else following)
    return out


def page(**changes):
    tags = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "description": 270}
    tags |= {"offsets": 273, "samples": 277, "rows": 278, "counts": 279}
    tags |= {"tile_width": 322, "tile_height": 323, "tile_offsets": 324, "tile_counts": 325}
    values = {"width": (4, 1, 20), "height": (4, 1, 16), "bits": (3, 1, 16), "compression": (3, 1, 1)}
    values |= {"photometric": (3, 1, 1), "offsets": (4, 1, 8), "samples": (3, 1, 1), "rows": (4, 1, 16)}
    values |= {"counts": (4, 1, 640)} | changes
    return {tags[name]: value for name, value in values.items()}


PIXELS = STACK[0].astype("<u2").tobytes()


def chained(n, **changes):
    """Return directories that lead to the next one each."""
    return [(page(**changes), lambda end: end)] * (n - 1) + [(page(**changes), 0)]


def test_the_tiff_that_the_lies_are_made_from_is_read(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(*chained(3), data=PIXELS))
    assert attempt("tiff", 0, "a.tif", tmp_path / "a.tif").result == "read"


ZEROS = zlib.compress(bytes(100 << 20), 9)
TIFFS = {
    "directory that leads to itself": tiff((page(), 8 + 640), data=PIXELS),
    "directory far outside": tiff((page(), 2**32 - 2), data=PIXELS),
    "65535 entries that are not there": b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(30),
    "huge pages": tiff(*chained(3, width=(4, 1, 2**32 - 1), height=(4, 1, 2**32 - 1)), data=PIXELS),
    "strip far outside": tiff(*chained(3, offsets=(4, 1, 2**32 - 2)), data=PIXELS),
    "strip of 4 GB": tiff(*chained(3, counts=(4, 1, 2**32 - 1), height=(4, 1, 10**8)), data=PIXELS),
    "a billion strips": tiff(*chained(3, offsets=(4, 10**9, 8), counts=(4, 10**9, 8), rows=(4, 1, 1)), data=PIXELS),
    "no rows in a strip": tiff(*chained(3, rows=(4, 1, 0), height=(4, 1, 10**9)), data=PIXELS),
    "description of 4 GB": tiff(*chained(3, width=(4, 1, 0), description=(2, 2**32 - 1, 8)), data=PIXELS),
    "strip that unpacks to far more": tiff(
        *chained(3, width=(4, 1, 100_000), height=(4, 1, 100_000), compression=(3, 1, 8), counts=(4, 1, len(ZEROS))),
        data=ZEROS,
    ),
    "big TIFF outside": b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63),
}


@pytest.mark.parametrize("what", TIFFS)
def test_tiffs_that_lie(tmp_path, what):
    refused("tiff", tmp_path / "a.tif", TIFFS[what])


def test_a_tiff_whose_description_multiplies_itself(tmp_path):
    entities = "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 10))
    text = f"<?xml version='1.0'?><!DOCTYPE OME [<!ENTITY a0 'x'>{entities}]><OME><Image Name='&a9;'/></OME>"
    data = PIXELS + text.encode() + b"\0"
    content = tiff(*chained(3, description=(2, len(text) + 1, 8 + 640)), data=data)
    for name in ("a.tif", "a.ome.tif"):
        harmless("tiff", tmp_path / name, content)


def test_a_tiff_whose_directories_go_in_a_circle(tmp_path):
    harmless("tiff", tmp_path / "a.tif", tiff((page(), lambda end: end), (page(), 8 + 640), data=PIXELS))


def test_a_tiff_of_huge_tiles(tmp_path):
    tiles = {"tile_width": (4, 1, 2**31), "tile_height": (4, 1, 2**31)}
    tiles |= {"tile_offsets": (4, 1, 8), "tile_counts": (4, 1, 640)}
    harmless("tiff", tmp_path / "a.tif", tiff(*chained(3, **tiles), data=PIXELS))


# Digital Micrograph and TIA ------------------------------------------------------------------------------------------


def group_head(n):
    return b"\x14" + struct.pack(">h", 0) + b"\0\0" + struct.pack(">i", n)


def array_tag(*info):
    return b"\x15" + struct.pack(">h", 1) + b"a%%%%" + struct.pack(f">{1 + len(info)}i", len(info), *info)


DM3S = {
    "groups without end": (group_head(1) * 5000, 1),
    "two billion tags": (group_head(2**31 - 1), 1),
    "minus one tags": (group_head(-1), 1),
    "an array of two billion": (array_tag(20, 4, 2**31 - 1), 1),
    "an array of minus one": (array_tag(20, 4, -1), 1),
    "an array of arrays of arrays": (array_tag(*[20] * 2000, 4, 1), 1),
    "a structure of two billion fields": (array_tag(15, 0, 2**31 - 1), 1),
    "an array of empty structures": (array_tag(20, 15, 0, 0, 2**31 - 1), 1),
    "info of two billion": (b"\x15" + struct.pack(">h", 0) + b"%%%%" + struct.pack(">i", 2**31 - 1), 1),
    "a type that is none": (array_tag(99), 1),
}


@pytest.mark.parametrize("what", DM3S)
def test_dm3_tags_that_lie(tmp_path, what):
    harmless("dm", tmp_path / "a.dm3", dm3(STACK, *DM3S[what]))


@pytest.mark.parametrize("shape", [(100_000, 100_000, 5), (0, 0, 0), (2**31, 2**31, 2**31)])
def test_dm3_dimensions_that_lie(tmp_path, shape):
    content = dm3(STACK)
    for wanted, there in zip(shape, STACK.shape[::-1], strict=True):
        tag = b"%%%%" + struct.pack(">ii", 1, 5)
        assert content.count(tag + struct.pack("<I", there)) == 1
        content = content.replace(tag + struct.pack("<I", there), tag + struct.pack("<I", wanted))
    refused("dm", tmp_path / "a.dm3", content)


def test_dm4_that_lies(tmp_path):
    sound = REAL_DATA / "formats/dm4_3D.dm4"
    if not sound.is_file():
        pytest.skip("real data not present")
    content = sound.read_bytes()
    head, rest = content[:16], content[26:]
    # After the header of 16 bytes: sorted, open, and how many tags there are.
    for n in (2**63 - 1, -1, 2**40):
        refused("dm", tmp_path / "a.dm4", head + b"\0\0" + struct.pack(">q", n) + rest[: len(rest) // 2])
    for length in (20, 100, 1000):
        refused("dm", tmp_path / "a.dm4", content[:length])


@pytest.mark.parametrize(
    "fields", [{"nx": 2**31 - 1}, {"nx": -1}, {"nx": 60_000, "ny": 60_000}, {"start": 2**31 - 1}], ids=str
)
def test_tia_series_that_lie(tmp_path, fields):
    refused("ser", tmp_path / "a.ser", ser(STACK, **fields))


# HDF5 ----------------------------------------------------------------------------------------------------------------


def exchange(make):
    """Return an HDF5 file in which `make` puts the data."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        make(file)
        file["exchange"].require_group("process")
    return memory.getvalue()


def zeros(file):
    data = file.create_dataset("exchange/data", (100, 8192, 8192), "u2", chunks=(1, 8192, 8192), compression="gzip")
    packed = zlib.compress(bytes(2 * 8192 * 8192), 9)
    for i in range(100):
        data.id.write_direct_chunk((i, 0, 0), packed)


def claims(shape, **keywords):
    return lambda file: file.create_dataset("exchange/data", shape, "u2", **keywords)


def circle(file):
    file["exchange/data/a"] = STACK
    file["exchange/data/b"] = file["exchange"]


HDF5S = {
    "nothing stored": claims((10**6, 10**6, 10**6), chunks=(1, 64, 64)),
    "nothing stored in one piece": claims((100, 1000, 1000)),
    "unpacks to far more": zeros,
    "stored elsewhere": claims((3, 10, 10), external=[("/etc/passwd", 0, 600)]),
    "leads elsewhere": lambda file: file.update({"exchange/data": h5py.ExternalLink("/etc/passwd", "/")}),
    "leads nowhere": lambda file: file.update({"exchange/data": h5py.SoftLink("/exchange/data")}),
    "a circle of groups": circle,
    "of texts": lambda file: file.update({"exchange/data": np.full((3, 10, 10), b"text")}),
    "of objects": lambda file: file.create_dataset("exchange/data", (3, 10, 10), h5py.string_dtype()),
    "of references": lambda file: file.create_dataset("exchange/data", (3, 10, 10), h5py.ref_dtype),
    "of many dimensions": claims((1,) * 32),
    "of none": lambda file: file.update({"exchange/data": h5py.Empty("u2")}),
}


@pytest.mark.parametrize("what", HDF5S)
def test_hdf5_that_lies(tmp_path, what):
    refused("hdf5", tmp_path / "a.h5", exchange(HDF5S[what]))


@pytest.mark.parametrize("what", bombs.SERIES)
def test_series_that_unpack_to_far_more_than_they_are(tmp_path, what):
    base, make = bombs.SERIES[what]
    sound = {path.name: path for path in write_samples("hdf5", tmp_path / "sound")}[base]
    detail = refused("hdf5", tmp_path / base, make(sound.read_bytes()))
    assert any(words in detail for words in ("not unpacked for safety", "cannot be read")), detail


def test_a_series_may_be_compressed_in_every_way_that_programs_use(tmp_path):
    import hdf5plugin

    ways = [
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf", "shuffle": True},
        {"scaleoffset": 0, "compression": "gzip"},
        {**hdf5plugin.Bitshuffle()},
        {**hdf5plugin.Zstd()},
    ]
    for way in ways:
        content = exchange(lambda file, way=way: file.create_dataset("exchange/data", data=STACK, **way))
        (tmp_path / "a.h5").write_bytes(content)
        assert attempt("hdf5", 0, "a.h5", tmp_path / "a.h5").result == "read"


def test_metadata_of_great_size_are_left_out(tmp_path):
    from tomoseg.io.raw import open_raw

    texts = {f"measurement/sample/{name}": "x" * (3 << 20) for name in ("name", "other")}
    texts |= {"measurement/instrument/name": "y" * (3 << 20)}
    (tmp_path / "a.h5").write_bytes(exchange(lambda file: file.update({"exchange/data": STACK} | texts)))
    with open_raw(tmp_path / "a.h5") as series:
        assert series.metadata == {}
        assert any("metadata of a.h5 are not kept" in warning for warning in series.warnings)


# Text ----------------------------------------------------------------------------------------------------------------

JUNK = {
    "empty": b"",
    "binary": bytes(range(256)) * 40,
    "zeros": bytes(5000),
    "a text": b"These are no angles.\n" * 50,
    "not finite": b"1\nnan\n3\n",
    "too large": b"1\n2\n1e999\n",
    "beyond the circle": b"-400\n0\n400\n",
    "one endless line": b"9" * 3_000_000,
    "endless lines": b"1\n" * 1_000_000,
    "compressed": gzip.compress(b"1\n2\n3\n"),
    "formula": b"=cmd|' /C calc'!A0\n__import__('os')\n",
}


@pytest.mark.parametrize("what", JUNK)
@pytest.mark.parametrize("name", ["a.rawtlt", "a.csv", "a.mdoc", "a.txt"])
def test_angle_files_of_junk(tmp_path, name, what):
    refused("angles", tmp_path / name, JUNK[what])


MDOCS = {
    "numbers of nothing": "PixelSpacing = nan\n[ZValue = x]\nTiltAngle = x\n",
    "huge numbers": f"PixelSpacing = 1e400\n[ZValue = {'9' * 5000}]\nTiltAngle = {'9' * 5000}\n",
    "many sections": "[ZValue = 0]\nTiltAngle = 1\n" * 50_000,
    "brackets": "[" * 100_000,
    "signs": "=" * 100_000 + "\n" + "a = " * 50_000,
}


@pytest.mark.parametrize("what", MDOCS)
def test_mdoc_of_junk(tmp_path, what):
    harmless("mdoc", tmp_path / "a.mdoc", MDOCS[what].encode())


def test_pipelines_that_run_code_or_multiply_themselves(tmp_path):
    ran = tmp_path / "ran"
    code = f"import: !!python/object/apply:os.system ['touch {ran}']\n"
    assert "not valid YAML" in refused("pipeline", tmp_path / "a.yaml", code.encode())
    assert not ran.exists()
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "aliases" in refused("pipeline", tmp_path / "a.yaml", "\n".join(levels).encode())


def test_metadata_is_kept_as_text_of_json(tmp_path):
    """What a file says of itself goes on as JSON: it can be no object, and no number that JSON does not know."""
    from tomoseg.io.raw import open_raw

    memory = exchange(
        lambda file: file.update({"exchange/data": STACK, "measurement/a": np.nan, "measurement/b": b"\xff"})
    )
    (tmp_path / "a.h5").write_bytes(memory)
    with open_raw(tmp_path / "a.h5") as series:
        assert "NaN" not in json.dumps(series.metadata)
