"""Sound files of every kind, for the mutator to damage: small real ones, and some of our own making."""

import bz2
import gzip
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from tests.conftest import BY_THRESHOLDS, REAL_DATA

REAL = REAL_DATA / "formats"
DATA = Path(__file__).parents[1] / "data"
STACK = np.random.default_rng(11).integers(0, 4000, (5, 16, 20)).astype(np.uint16)
MODEL_CODE = """
import sys, warnings
warnings.simplefilter("ignore")
from tomoseg.segmentation.networks.keras_setup import keras
from tomoseg.segmentation.networks.card import ModelCard
from tomoseg.segmentation.networks.model_file import save_model
from tomoseg.segmentation.networks.builders import build
from tomoseg.segmentation.data.intensity_scaling import Scale, Scaling
from pathlib import Path
card = ModelCard(["vacuum", "oxide", "metal"], ["#000000", "#0072b2", "#e69f00"],
                 Scaling("levels", "uint8", Scale(4.0, 57.0, -0.1, 4.7)), patch=32, multiple=2)
save_model(build("unet", 3, depth=2, base_filters=2, seed=1), Path(sys.argv[1]) / "own.keras", card)
layers = keras.layers
keras.Sequential([keras.Input((16, 16, 1)), layers.Conv2D(2, 3, padding="same"), layers.BatchNormalization(),
                  layers.ReLU(), layers.Conv2D(2, 1, activation="softmax")]).save(Path(sys.argv[1]) / "foreign.keras")
"""


def write_samples(kind: str, folder: Path) -> list[Path]:
    """Write the sound files of one kind into `folder` and return them, in a fixed order."""
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[kind](folder)
    return sorted(path for path in folder.iterdir() if path.is_file())


def _copy_real(folder: Path, *names: str) -> None:
    for name in names:
        if (REAL_DATA / name).is_file():
            shutil.copyfile(REAL_DATA / name, folder / name.replace("/", "_"))


def _mrc(folder: Path) -> None:
    from tomoseg.io.mrc import write_mrc

    _copy_real(folder, "formats/mrc_FEI1_exthdr_64x64.mrc", "formats/mrc_FEI2_exthdr_64x64.mrc")
    write_mrc(folder / "own.mrc", STACK, 0.5, kind="stack")
    write_mrc(folder / "bytes.mrc", (STACK // 40).astype(np.int8), 0.5, kind="stack")
    (folder / "packed.mrc.gz").write_bytes(gzip.compress((folder / "own.mrc").read_bytes()))
    (folder / "packed.mrc.bz2").write_bytes(bz2.compress((folder / "own.mrc").read_bytes()))
    np.save(folder / "array.npy", STACK)
    half = bytearray((folder / "bytes.mrc").read_bytes())
    half[:4], half[12:16] = struct.pack("<i", 2 * STACK.shape[2]), struct.pack("<i", 101)
    (folder / "half.mrc").write_bytes(half)
    needle = REAL_DATA / "tilt-series/needle/HAADF.mrc"
    if needle.is_file():  # the first three images, with the header and the extended header that FEI wrote
        content = bytearray(needle.read_bytes()[: 1024 + 131072 + 3 * 256 * 256 * 2])
        content[8:12] = struct.pack("<i", 3)
        (folder / "needle.mrc").write_bytes(content)
    serialem = REAL_DATA / "tilt-series/serialem/test_000.mrc"
    if serialem.is_file():
        content = serialem.read_bytes()
        nx, ny = struct.unpack("<ii", content[:8])
        extended = struct.unpack("<i", content[92:96])[0]
        rows = 32  # of each image, whose number is kept
        head = bytearray(content[: 1024 + extended])
        head[4:8] = struct.pack("<i", rows)
        images = np.frombuffer(content, np.uint8, offset=1024 + extended).reshape(
            -1, ny, len(content[1024 + extended :]) // ny // struct.unpack("<i", content[8:12])[0]
        )
        (folder / "serialem.mrc").write_bytes(bytes(head) + images[:, :rows].tobytes())
        del nx


def _tiff(folder: Path) -> None:
    import tifffile
    from PIL import Image

    _copy_real(folder, "formats/tiff_dm_stack.tif", "formats/tiff_imagej_stack_scaled.tif")
    tifffile.imwrite(folder / "plain.tif", STACK, photometric="minisblack")
    tifffile.imwrite(folder / "deflate.tif", STACK, photometric="minisblack", compression="zlib", predictor=True)
    tifffile.imwrite(folder / "zstd.tif", STACK, photometric="minisblack", compression="zstd")
    tifffile.imwrite(folder / "tiles.tif", STACK, photometric="minisblack", tile=(16, 16), compression="zlib")
    tifffile.imwrite(folder / "big.tif", STACK, photometric="minisblack", bigtiff=True, byteorder=">")
    tifffile.imwrite(folder / "imagej.tif", STACK, imagej=True, metadata={"unit": "nm", "axes": "TYX"})
    ome = {"axes": "TYX", "PhysicalSizeX": 1.5, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 1.5}
    both = np.stack([STACK, STACK + 1], axis=1)
    tifffile.imwrite(folder / "channels.tif", both, imagej=True, metadata={"axes": "ZCYX"})
    tifffile.imwrite(folder / "series.ome.tif", STACK, photometric="minisblack", metadata=ome)
    pages = [Image.fromarray(image) for image in STACK]
    pages[0].save(folder / "lzw.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    pages[0].save(folder / "packbits.tif", save_all=True, append_images=pages[1:], compression="packbits")


def _dm(folder: Path) -> None:
    names = ("dm3_STEM_image.dm3", "dm3_stackbuilder_imagestack.dm3", "dm4_3D.dm4")
    _copy_real(folder, *(f"formats/{name}" for name in names))
    (folder / "own.dm3").write_bytes(dm3(STACK))


def dm3(stack: np.ndarray, tags: bytes = b"", n_tags: int = 0) -> bytes:
    """Return a little DM3 file with a uint16 stack; `tags` are `n_tags` more tags of the image."""

    def tag(name: str, *info: int, value: bytes) -> bytes:
        return (
            b"\x15"
            + struct.pack(">h", len(name))
            + name.encode()
            + b"%%%%"
            + struct.pack(f">{1 + len(info)}i", len(info), *info)
            + value
        )

    def group(name: str, *members: bytes, count: int | None = None) -> bytes:
        head = b"\x14" + struct.pack(">h", len(name)) + name.encode()
        return head + b"\0\0" + struct.pack(">i", len(members) if count is None else count) + b"".join(members)

    def number(name: str, value: int) -> bytes:
        return tag(name, 5, value=struct.pack("<I", value))

    def real(name: str, value: float) -> bytes:
        return tag(name, 6, value=struct.pack("<f", value))

    def text(name: str, value: str) -> bytes:
        return tag(name, 20, 4, len(value), value=value.encode("utf-16-le"))

    n, ny, nx = stack.shape
    axes = [
        group("", real("Origin", 0.0), real("Scale", scale), text("Units", unit))
        for scale, unit in ((2, "nm"), (2, "nm"), (1, "deg"))
    ]
    brightness = group("Brightness", real("Origin", 0.0), real("Scale", 1.0), text("Units", ""))
    data = group(
        "ImageData",
        group("Calibrations", brightness, group("Dimension", *axes)),
        tag("Data", 20, 4, stack.size, value=stack.astype("<u2").tobytes()),
        number("DataType", 10),
        group("Dimensions", number("", nx), number("", ny), number("", n)),
        number("PixelDepth", 2),
    )
    image = group("", data, group("ImageTags", tags, count=n_tags), text("Name", "series"))
    body = b"\0\0" + struct.pack(">i", 1) + group("ImageList", image)
    return struct.pack(">iii", 3, len(body) + 8, 1) + body + bytes(8)


def ser(stack: np.ndarray, **fields: int) -> bytes:
    """Return a TIA series; `fields` replace `valid`, `start`, `nx`, `ny` or `kind` of the header."""
    n, ny, nx = stack.shape
    valid, kind = fields.get("valid", n), fields.get("kind", 0x4122)
    head = struct.pack("<hhhiiii", 0x4949, 0x0197, 0x0210, kind, 0x4152, n, valid)
    image_head = struct.pack("<ddiddihii", 0, 2e-9, 0, 0, 2e-9, 0, 2, fields.get("nx", nx), fields.get("ny", ny))
    step = len(image_head) + ny * nx * 2
    first = len(head) + 4 + 4 * n
    offsets = np.arange(n, dtype="<u4") * step + first
    out = head + struct.pack("<i", fields.get("start", len(head) + 4)) + offsets.tobytes()
    return out + b"".join(image_head + image[::-1].astype("<u2").tobytes() for image in stack)


EMI = (
    b"junk<ObjectInfo><X><Root><Data><Label>Mode</Label><Value>STEM nP SA</Value><Unit></Unit></Data></Root></X>"
    b"</ObjectInfo>\0"
)


def _ser(folder: Path) -> None:
    _copy_real(folder, "formats/tia_64x64x5.ser")
    (folder / "own.ser").write_bytes(ser(STACK))


def _emi(folder: Path) -> None:
    _copy_real(folder, "formats/tia_64x64x5.emi")
    (folder / "own.emi").write_bytes(EMI)


def _hdf5(folder: Path) -> None:
    names = ("velox_tem_stack.emd", "ncem_example_image.emd", "ncem_example_signal.emd", "hspy_v3.1.hspy")
    _copy_real(folder, *(f"formats/{name}" for name in names))
    if (REAL / "velox_emd_v11.zip").is_file():
        with zipfile.ZipFile(REAL / "velox_emd_v11.zip") as archive:
            for entry in archive.infolist():
                (folder / f"zipped_{Path(entry.filename).name}").write_bytes(archive.read(entry))
    _own_velox(folder / "velox.emd")
    _own_ncem(folder / "ncem.emd")
    _own_hspy(folder / "own.hspy")
    _own_dxchange(folder / "dxchange.h5")


def _own_velox(path: Path) -> None:
    import h5py

    frame = {
        "Stage": {"AlphaTilt": "0.1"},
        "BinaryResult": {
            "Detector": "HAADF",
            "PixelSize": {"width": "1e-9", "height": "1e-9"},
            "PixelUnitX": "m",
            "PixelUnitY": "m",
        },
    }
    text = np.frombuffer(json.dumps(frame).encode().ljust(2000, b"\0"), np.uint8)
    with h5py.File(path, "w") as file:
        file["Version"] = [b'{"version": "11", "format": "Velox"}']
        group = file.create_group(f"Data/Image/{7:032x}")
        group.create_dataset("Data", data=STACK.transpose(1, 2, 0), chunks=(16, 20, 1), compression="gzip")
        group["Metadata"] = np.repeat(text[:, None], len(STACK), axis=1)


def _own_ncem(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("data/tomography")
        group.attrs["emd_group_type"] = 1
        group.create_dataset("data", data=STACK, chunks=(2, 16, 10), shuffle=True, compression="gzip", fletcher32=True)
        for i, (name, unit, n) in enumerate((("angles", "[deg]", 5), ("y", "[n_m]", 16), ("x", "[n_m]", 20))):
            vector = group.create_dataset(f"dim{i + 1}", data=np.arange(n, dtype=float))
            vector.attrs["name"], vector.attrs["units"] = name, unit
        file.create_group("microscope").attrs["voltage"] = 300


def _own_hspy(path: Path) -> None:
    import h5py
    import hdf5plugin

    with h5py.File(path, "w") as file:
        file.attrs["file_format"] = "HyperSpy"
        signal = file.create_group("Experiments/series")
        signal.create_dataset("data", data=STACK, chunks=(1, 16, 20), **hdf5plugin.Blosc())
        for i, (name, unit) in enumerate((("Tilt", "degrees"), ("y", "nm"), ("x", "nm"))):
            signal.create_group(f"axis-{i}").attrs.update(
                {"name": name, "units": unit, "scale": 2.0, "offset": -4.0, "size": STACK.shape[i], "navigate": i == 0}
            )
        signal.create_group("metadata/General").attrs["title"] = "HAADF"
        signal["metadata/Tomography/tilts"] = np.arange(5.0)
        signal["metadata/note"] = "a text of variable length"


def _own_dxchange(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("exchange/data", data=STACK, chunks=(1, 8, 20), compression="lzf")
        data.attrs["axes"] = "theta:y:x"
        file["exchange/theta"] = np.arange(5.0)
        file["exchange/theta"].attrs["units"] = "degrees"
        file["measurement/sample/name"] = "catalyst"


def _mdoc(folder: Path) -> None:
    _copy_real(folder, "formats/serialem_tilt_series.mdoc", "tilt-series/serialem/test_000.mrc.mdoc")
    sections = "".join(f"\n[ZValue = {i}]\nTiltAngle = {10 * i - 20}\nStagePosition = 1.5 2.5\n" for i in range(5))
    (folder / "own.mdoc").write_text(
        f"PixelSpacing = 5.4\n[T = SerialEM: Tilt axis angle = 86.1, binning = 1]\n{sections}"
    )


def _angles(folder: Path) -> None:
    _copy_real(folder, "tilt-series/needle/HAADF.rawtlt")
    (folder / "own.rawtlt").write_text("# degrees\n" + "\n".join(f"{a}.0" for a in range(-60, 61, 10)))
    (folder / "own.csv").write_text("image,angle (deg)\n" + "\n".join(f"{i},{10 * i - 60}" for i in range(13)))
    (folder / "order.txt").write_text("".join(f"{a:.2f}  {i}\n" for i, a in enumerate(range(-60, 61, 10), 1)))
    (folder / "line.txt").write_text(" ".join(f"{a},5" for a in range(-60, 61, 10)))
    (folder / "wide.tlt").write_bytes("\r\n".join(f"{a}" for a in range(-60, 61, 10)).encode("utf-16"))
    rows = "".join(f"{i} 85.1 1.0 {i}.5 -2.5 1 1 1 0 {a:.2f}\n" for i, a in enumerate(range(-60, 61, 10)))
    (folder / "own.aln").write_text(f"# AreTomo Alignment\n# RawSize = 20 16 14\n# DarkFrame = 1 13 70\n{rows}")
    (folder / "radians.csv").write_text("theta (rad);x\n" + "\n".join(f"{i / 10};{i}" for i in range(13)))


def _zspy(folder: Path) -> None:
    """A Zarr store as HyperSpy writes it, in an archive."""
    import zarr

    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "a.zspy"
        root = zarr.open_group(store, mode="w", zarr_format=2)
        root.attrs.update({"file_format": "ZSpy", "file_format_version": "3.3"})
        signal = root.create_group("Experiments/HAADF")
        array = signal.create_array("data", shape=STACK.shape, dtype=STACK.dtype, chunks=(2, 16, 20))
        array[:] = STACK
        for i, unit in enumerate(("deg", "nm", "nm")):
            facts = {"_type": "UniformDataAxis", "name": str(i), "size": STACK.shape[i], "scale": 2.0, "units": unit}
            signal.create_group(f"axis-{i}").attrs.update({**facts, "offset": 0.0, "navigate": i == 0})
        signal.create_group("original_metadata")
        signal.create_group("learning_results")
        signal.create_group("metadata/Signal").attrs.update({"signal_type": ""})
        signal.create_group("metadata/General").attrs.update({"title": "HAADF"})
        files = {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}
    (folder / "own.zip").write_bytes(archive_bytes(files))


def _slices(folder: Path) -> None:
    from PIL import Image

    _copy_real(folder, "gamma-alumina/labels/al_10000_00.tif", "images-2d/scalebar_bf/067_3_mask.png")
    labels = (STACK[0] % 3).astype(np.uint8)
    for name in ("labels.png", "labels.bmp", "labels.jpg"):
        Image.fromarray(labels).save(folder / name)
    palette = Image.fromarray(labels).convert("P")
    palette.save(folder / "palette.png")
    Image.fromarray(STACK[0]).save(folder / "deep.png")
    Image.fromarray(labels).save(folder / "lzw.tif", compression="tiff_lzw")
    Image.fromarray(labels).save(folder / "deflate.tif", compression="tiff_adobe_deflate")
    Image.fromarray(np.stack([labels] * 3, axis=-1)).save(folder / "grey_rgb.png")
    Image.fromarray(np.stack([labels] * 3, axis=-1)).save(folder / "grey_rgb.tif")
    np.save(folder / "labels.npy", labels)
    np.save(folder / "image.npy", STACK[0].astype(float))


def _pipeline(folder: Path) -> None:
    from tomoseg.config import default_pipeline_text, shipped_pipelines

    for path in shipped_pipelines().values():
        shutil.copyfile(path, folder / path.name)
    (folder / "all.yaml").write_text(default_pipeline_text())
    (folder / "short.yaml").write_text(
        "import:\n  pixel_size: 3.5\nreconstruct: {iterations: 12}\nexport:\n  formats: [vti, mrc]\n"
    )


def _keras(folder: Path) -> None:
    # In a process of its own: importing TensorFlow would weigh on this one.
    subprocess.run([sys.executable, "-c", MODEL_CODE, str(folder)], check=True, capture_output=True)


def _project(folder: Path) -> None:
    """Run the whole pipeline on a little series."""
    simulate = ("simulate", "-o", "series.mrc", "--size", "32", "--particles", "3", "--step", "20")
    run = ("run", "series.mrc", "-o", str(folder / "own.h5"), "--set", "reconstruct.iterations=2", *BY_THRESHOLDS)
    with tempfile.TemporaryDirectory() as elsewhere:
        for arguments in (simulate, (*run, "--export-dir", "out")):
            command = [sys.executable, "-W", "ignore", "-m", "tomoseg", *arguments]
            search = os.pathsep.join(map(str, (Path(__file__).parents[2], os.environ.get("PYTHONPATH", ""))))
            environment = {**os.environ, "PYTHONPATH": search}
            subprocess.run(command, check=True, capture_output=True, cwd=elsewhere, env=environment)
    (folder / "old.h5").write_bytes(gzip.decompress((DATA / "project_schema_1.h5.gz").read_bytes()))


WRITERS = {
    **{"mrc": _mrc, "tiff": _tiff, "dm": _dm, "ser": _ser, "emi": _emi, "hdf5": _hdf5, "mdoc": _mdoc},
    **{"angles": _angles, "zspy": _zspy, "slices": _slices, "pipeline": _pipeline, "keras": _keras},
    **{"project": _project, "report": _project},
}


def archive_bytes(entries: dict[str, bytes]) -> bytes:
    """Return a zip archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return target.getvalue()
