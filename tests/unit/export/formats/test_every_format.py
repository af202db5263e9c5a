"""One asymmetric, chiral volume in every format, read back by other programs' readers: the same point, the same value.

A point of the array at (z, y, x) px lies at (x, -y, -z) h in the files of VTK, and at (z, y, x) h in those of napari,
Fiji and IMOD.
"""

import json
import os
import shutil
import subprocess

import mrcfile
import numpy as np
import pyarrow.parquet
import pytest
import tifffile
import zarr

from tests.unit.stages.test_export_stage import alignment
from tomoseg.arrays import MemoryInput, MemoryOutputs
from tomoseg.export.parameters import ExportParameters
from tomoseg.runtime import Runtime
from tomoseg.stages import measure
from tomoseg.stages.export import STAGE

SHAPE = (48, 60, 76)
NAMES, COLORS = ["vacuum", "γ-Al₂O₃", "Pt"], ["#000000", "#9a9a9a", "#c8191e"]
# A tripod of three unequal arms, along +x, +y and +z from its corner: no rotation makes it its mirror image.
CORNER = np.array([12, 16, 14])
ARMS = {"x": 40, "y": 28, "z": 22}  # from the corner to the end
TIPS = [(12, 16, 50), (12, 40, 14), (30, 16, 14)]
# The tips of its mirror images, and of the tripod with its axes exchanged.
NOT_THERE = [(12, 16, 6), (12, 6, 14), (5, 16, 14), (12, 52, 14), (36, 16, 14)]
HOLE = np.array([12, 16, 34])  # centre of a closed pore in the arm along x
PARTICLES = {5: (38, 45, 60), 4: (8, 50, 12), 3: (40, 8, 66)}  # radius: centre


def labelled():
    z, y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    for axis, length in ARMS.items():
        low, high = CORNER - 6, CORNER + 6
        high["zyx".index(axis)] = CORNER["zyx".index(axis)] + length
        labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    labels[(z - HOLE[0]) ** 2 + (y - HOLE[1]) ** 2 + (x - HOLE[2]) ** 2 <= 9] = 0
    for radius, (cz, cy, cx) in PARTICLES.items():
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = 2
    return labels


def grey():
    """Return a volume in which every voxel has a value of its own."""
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


@pytest.fixture(scope="module", params=[0.5, np.nan], ids=["half a nm", "size unknown"])
def exported(request, tmp_path_factory):
    """Return the folder with all formats, and the length of a voxel in its unit."""
    attrs = {"class_names": NAMES, "class_colors": COLORS, "voxel_size_nm": request.param}
    labels, volume = MemoryInput(labelled(), attrs), MemoryInput(grey(), {"voxel_size_nm": request.param})
    measured = MemoryOutputs()
    params = measure.MeasureParameters()
    measure.run(labels=labels, volume=volume, params=params, runtime=Runtime(), outputs=measured)
    names = ("class_table", "particle_table", "size_table", "measurement_info")
    info = MemoryInput(None, {"source": "raw.mrc", "source_sha256": "12ab", "pixel_size_nm": request.param})
    facets = np.array([(b"{111}", 0.25, 12.5), (b"{110}", 0.75, np.nan)], [("plane", "S5"), ("a", "f8"), ("b", "f8")])
    folder = tmp_path_factory.mktemp("all")
    STAGE.run(
        volume=volume,
        labels=labels,
        tilt_series_info=info,
        **{name: measured.as_input(name) for name in names},
        **alignment(),
        facet_table=MemoryInput(facets),
        reconstruction_info=MemoryInput(None, {"method": "mlem", "resolution_nm": np.float64(np.nan)}),
        params=ExportParameters(export_dir=str(folder), formats=("all",)),
        runtime=Runtime(),
        outputs=MemoryOutputs(),
    )
    return folder, 1.0 if np.isnan(request.param) else request.param


def world(points_px, h):
    """Return (X, Y, Z) of points (z, y, x), written out independently of the code."""
    return [(x * h, -y * h, -z * h) for z, y, x in np.asarray(points_px, float).reshape(-1, 3)]


def read(reader, path):
    complaints = []
    for event in ("ErrorEvent", "WarningEvent"):
        reader.AddObserver(event, lambda *_: complaints.append("x"))
    reader.SetFileName(str(path))
    reader.Update()
    assert not complaints
    return reader.GetOutput()


def image(path):
    from vtkmodules.vtkIOHDF import vtkHDFReader
    from vtkmodules.vtkIOXML import vtkXMLImageDataReader

    return read(vtkHDFReader() if path.suffix == ".vtkhdf" else vtkXMLImageDataReader(), path)


def surface(folder, stem, ending):
    from vtkmodules.vtkIOGeometry import vtkSTLReader
    from vtkmodules.vtkIOPLY import vtkPLYReader
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    if ending == "glb":
        return glb_surfaces(folder / "surfaces.glb")[stem]
    reader = {"vtp": vtkXMLPolyDataReader, "stl": vtkSTLReader, "ply": vtkPLYReader}[ending]()
    return read(reader, folder / f"{stem}.{ending}")


def glb_surfaces(path):
    """Return the surfaces of a .glb in its order, under the stems of the files of the other formats."""
    from vtkmodules.vtkCommonDataModel import vtkPolyData
    from vtkmodules.vtkIOGeometry import vtkGLTFReader

    scene = read(vtkGLTFReader(), path)
    found, iterator = [], scene.NewIterator()
    iterator.InitTraversal()
    while not iterator.IsDoneWithTraversal():
        data = vtkPolyData()
        data.DeepCopy(iterator.GetCurrentDataObject())
        found.append(data)
        iterator.GoToNextItem()
    return dict(zip(("surface_1_Al_O", "surface_2_Pt", "surface_pores"), found, strict=True))


SAMPLES = np.array([[0, 0, 0], [47, 59, 75], [0, 59, 0], [3, 5, 70], [20, 7, 31], [47, 0, 1], [12, 34, 56]])


@pytest.mark.parametrize("ending", ["vti", "vtkhdf"])
def test_vtk_reads_each_value_at_its_point(exported, ending):
    folder, h = exported
    for name, data in (("volume", grey()), ("labels", labelled())):
        found = image(folder / f"{name}.{ending}")
        assert found.GetBounds() == (0, 75 * h, -59 * h, 0, -47 * h, 0)
        assert found.GetSpacing() == (h, h, h)
        scalars = found.GetPointData().GetScalars()
        assert scalars.GetName() == name
        points = world(np.argwhere(np.ones(SHAPE))[::97], h)
        assert [scalars.GetTuple1(found.FindPoint(p)) for p in points] == data.ravel()[::97].tolist()


def test_arrays_keep_the_order_of_napari(exported):
    folder, h = exported
    for name, data in (("volume", grey()), ("labels", labelled())):
        with mrcfile.open(folder / f"{name}.mrc") as mrc:
            np.testing.assert_array_equal(mrc.data, data)
            assert mrc.voxel_size.z == pytest.approx(5 if h == 0.5 else 0)  # Å
        with tifffile.TiffFile(folder / f"{name}.ome.tif") as tiff:
            assert tiff.series[0].axes == "ZYX"
            assert tiff.series[0].dtype == data.dtype
            np.testing.assert_array_equal(tiff.asarray(), data)
    store = zarr.open_group(folder / "volume.ome.zarr", mode="r")
    np.testing.assert_array_equal(store["0"][:], grey())
    np.testing.assert_array_equal(store["labels/classes/0"][:], labelled())


def test_tiff_says_its_scale(exported):
    folder, h = exported
    with tifffile.TiffFile(folder / "volume.ome.tif") as tiff:
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        tags = tiff.pages[0].tags
        assert (pixels["SizeX"], pixels["SizeY"], pixels["SizeZ"]) == SHAPE[::-1]
        if h == 0.5:
            assert [pixels[f"PhysicalSize{axis}"] for axis in "XYZ"] == [0.5, 0.5, 0.5]
            assert {pixels[f"PhysicalSize{axis}Unit"] for axis in "XYZ"} == {"nm"}
            assert np.divide(*tags["XResolution"].value) == pytest.approx(2e7)  # px per cm
            assert tags["ResolutionUnit"].value == 3  # cm
        else:
            assert not any(key.startswith("PhysicalSize") for key in pixels)
            assert tags["ResolutionUnit"].value == 1  # none
        assert tags["Compression"].value == 8  # zlib, which every reader knows


def test_ome_zarr_is_valid_and_to_scale(exported):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.v05 import Image, ImageLabel

    folder, h = exported
    store = zarr.open_group(folder / "volume.ome.zarr", mode="r")
    assert isinstance(open_ome_zarr(store), Image)
    labels = open_ome_zarr(store["labels/classes"])
    assert isinstance(labels, ImageLabel)
    assert [c.rgba for c in labels.attributes.ome.image_label.colors][2] == (0xC8, 0x19, 0x1E, 255)
    assert [p["class"] for p in store["labels/classes"].attrs["ome"]["image-label"]["properties"]] == NAMES
    nodes = list(Reader(parse_url(folder / "volume.ome.zarr"))())
    assert [node.zarr.basename() for node in nodes] == ["volume.ome.zarr", "labels", "classes"]
    axes = nodes[0].metadata["axes"]
    assert [axis["name"] for axis in axes] == list("zyx")
    assert [axis.get("unit") for axis in axes] == ["nanometer" if h == 0.5 else None] * 3
    np.testing.assert_array_equal(np.asarray(nodes[0].data[0]), grey())
    assert nodes[0].metadata["coordinateTransformations"][0][0]["scale"] == [h, h, h]


ENDINGS = ["vtp", "stl", "ply", "glb"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_surfaces_are_the_objects_and_no_mirror_images(exported, ending):
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkPolyData
    from vtkmodules.vtkFiltersModeling import vtkSelectEnclosedPoints

    folder, h = exported
    inside, outside = TIPS, [*NOT_THERE, HOLE, *PARTICLES.values()]
    points, cloud, select = vtkPoints(), vtkPolyData(), vtkSelectEnclosedPoints()
    for point in world([*inside, *outside], h):
        points.InsertNextPoint(point)
    cloud.SetPoints(points)
    select.SetInputData(cloud)
    select.SetSurfaceData(surface(folder, "surface_1_Al_O", ending))
    select.Update()
    assert [bool(select.IsInside(i)) for i in range(len(inside) + len(outside))] == [True] * 3 + [False] * len(outside)


@pytest.mark.parametrize("ending", ENDINGS)
def test_triangles_face_outwards_and_enclose_the_voxels(exported, ending):
    from vtkmodules.util.numpy_support import vtk_to_numpy

    folder, h = exported
    voxels = np.bincount(labelled().ravel())
    for stem, wanted in (("surface_1_Al_O", voxels[1]), ("surface_2_Pt", voxels[2]), ("surface_pores", 123)):
        found = surface(folder, stem, ending)
        points = vtk_to_numpy(found.GetPoints().GetData()).astype(float)
        a, b, c = np.moveaxis(points[vtk_to_numpy(found.GetPolys().GetConnectivityArray()).reshape(-1, 3)], 1, 0)
        signed = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
        # Smoothing of a tripod's edges and of a pore of 3 voxels' radius.
        assert signed == pytest.approx(wanted * h**3, rel=0.03)


def test_formats_hold_the_same_surface(exported):
    from vtkmodules.util.numpy_support import vtk_to_numpy

    folder, _ = exported
    expected = surface(folder, "surface_2_Pt", "vtp")
    corners = vtk_to_numpy(expected.GetPoints().GetData())
    for ending in ENDINGS[1:]:
        found = surface(folder, "surface_2_Pt", ending)
        assert found.GetNumberOfPolys() == expected.GetNumberOfPolys()
        points = vtk_to_numpy(found.GetPoints().GetData())
        np.testing.assert_array_equal(np.unique(points, axis=0), np.unique(corners, axis=0))


def test_what_surfaces_say_of_themselves(exported):
    folder, h = exported
    unit = "nm" if h == 0.5 else "voxel (size unknown)"
    assert (folder / "surface_2_Pt.stl").read_bytes()[:80].rstrip(b" \0").decode() == f"tomoseg; unit of length: {unit}"
    assert f"comment tomoseg; unit of length: {unit}\n".encode() in (folder / "surface_2_Pt.ply").read_bytes()[:400]
    colors = surface(folder, "surface_2_Pt", "ply").GetPointData().GetArray("RGB")
    assert colors.GetTuple3(0) == (0xC8, 0x19, 0x1E)
    data = (folder / "surfaces.glb").read_bytes()
    assert (data[:4], int.from_bytes(data[8:12], "little")) == (b"glTF", len(data))
    scene = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    assert scene["asset"]["extras"]["unit_of_length"] == f"1 unit of the file = 1 {unit}, not 1 m"
    assert [node["name"] for node in scene["nodes"]] == [NAMES[1], NAMES[2], "closed pores of vacuum"]
    glass, particles, _ = scene["materials"]
    assert glass["alphaMode"] == "BLEND"
    assert glass["pbrMetallicRoughness"]["baseColorFactor"][3] < 0.5
    red, green, blue, alpha = particles["pbrMetallicRoughness"]["baseColorFactor"]
    # sRGB 200 is 0.578 of the light.
    assert red == pytest.approx(0.578, abs=1e-3)
    assert max(green, blue) < 0.05
    assert alpha == 1


def test_one_file_opens_all(exported):
    from vtkmodules.vtkCommonDataModel import vtkCompositeDataSet
    from vtkmodules.vtkIOXML import vtkXMLMultiBlockDataReader

    folder, h = exported
    top = read(vtkXMLMultiBlockDataReader(), folder / "all.vtm")
    found = {}
    for i in range(top.GetNumberOfBlocks()):
        block = top.GetBlock(i)
        for j in range(block.GetNumberOfBlocks()):
            name = block.GetMetaData(j).Get(vtkCompositeDataSet.NAME())
            found[top.GetMetaData(i).Get(vtkCompositeDataSet.NAME()), name] = block.GetBlock(j)
    assert list(found) == [
        ("surfaces", NAMES[1]),
        ("surfaces", NAMES[2]),
        ("surfaces", "closed pores of vacuum"),
        ("points", "particles as points"),
        ("images", "volume"),
        ("images", "labels"),
    ]
    assert found["images", "labels"].GetBounds() == (0, 75 * h, -59 * h, 0, -47 * h, 0)
    assert found["points", "particles as points"].GetNumberOfPoints() == 3


def test_particles_are_where_they_are(exported):
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    folder, h = exported
    points = read(vtkXMLPolyDataReader(), folder / "particles.vtp")
    for i, centre in enumerate(PARTICLES.values()):  # the largest first, in both
        assert points.GetPoint(i) == pytest.approx(world([centre], h)[0], abs=1e-4)


def test_tables_and_summary(exported):
    folder, h = exported
    table = pyarrow.parquet.read_table(folder / "particles.parquet")
    assert table.num_rows == 3
    field = table.schema.field("volume_nm3")
    assert field.metadata[b"unit"] == b"nm3"
    assert field.metadata[b"description"]
    assert table["volume_nm3"].null_count == (0 if h == 0.5 else 3)
    assert table["touches_border"].to_pylist() == [False] * 3
    facets = pyarrow.parquet.read_table(folder / "facets.parquet").to_pydict()
    assert facets == {"plane": ["{111}", "{110}"], "a": [0.25, 0.75], "b": [12.5, None]}
    assert (folder / "facets.csv").read_text().splitlines() == ["plane,a,b", "{111},0.25,12.5", "{110},0.75,"]
    classes = pyarrow.parquet.read_table(folder / "classes.parquet")
    assert classes["name"].to_pylist() == NAMES
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["voxel_size_nm"] == (0.5 if h == 0.5 else None)
    assert summary["reconstruction"] == {"method": "mlem", "resolution_nm": None}
    assert summary["measurement"]["n_particles"] == 3
    assert summary["tilt_series"]["source_sha256"] == "12ab"
    assert [row["name"] for row in summary["tables"]["classes"]] == NAMES
    assert summary["volume_zyx_px"] == list(SHAPE)


PVPYTHON = shutil.which("pvpython")
IN_PARAVIEW = """
import json, sys
from paraview.simple import *
from paraview import servermanager

folder, points = sys.argv[1], json.loads(sys.argv[2])
found = {}
readers = {name: OpenDataFile(folder + "/" + name) for name in ("volume.vti", "labels.vti", "particles.vtp")}
readers.update({name: VTKHDFReader(FileName=[folder + "/" + name]) for name in ("volume.vtkhdf", "labels.vtkhdf")})
for name, reader in readers.items():
    reader.UpdatePipeline()
    data = servermanager.Fetch(reader)
    found[name] = [list(data.GetBounds())]
    if not name.endswith(".vtp"):
        array = data.GetPointData().GetArray(0)
        found[name].append([array.GetTuple1(data.FindPoint(p)) for p in points])
index = OpenDataFile(folder + "/all.vtm")
index.UpdatePipeline()
found["all.vtm"] = [list(index.GetDataInformation().GetBounds()), index.GetDataInformation().GetNumberOfDataSets()]
surface = OpenDataFile(folder + "/surface_1_Al_O.vtp")
surface.UpdatePipeline()
found["surface"] = list(surface.GetDataInformation().GetBounds())
print("FOUND " + json.dumps(found))
"""


def pvpython(*arguments):
    # ParaView's own Python must not meet our packages.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [PVPYTHON, "--force-offscreen-rendering", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=clean).stdout


@pytest.mark.skipif(PVPYTHON is None, reason="ParaView (pvpython) is not installed")
def test_paraview_reads_the_same_values(exported, tmp_path):
    folder, h = exported
    (tmp_path / "look.py").write_text(IN_PARAVIEW)
    out = pvpython(tmp_path / "look.py", folder, json.dumps(world(SAMPLES, h)))
    found = json.loads(out.split("FOUND ")[1])
    whole = [0, 75 * h, -59 * h, 0, -47 * h, 0]
    for name, data in (("volume", grey()), ("labels", labelled())):
        for ending in ("vti", "vtkhdf"):
            assert found[f"{name}.{ending}"] == [whole, data[tuple(SAMPLES.T)].tolist()]
    assert found["all.vtm"] == [pytest.approx(whole), 6]
    # From the corner of the tripod, less 6 voxels, to the ends of its arms; half a voxel to the border.
    ends = [(8 - 0.5) * h, 53.5 * h, -43.5 * h, -9.5 * h, -33.5 * h, -5.5 * h]
    assert found["surface"] == pytest.approx(ends, abs=0.3 * h)


@pytest.mark.skipif(PVPYTHON is None, reason="ParaView (pvpython) is not installed")
@pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="Debian's ParaView draws only where there is an X server")
def test_the_script_draws_support_and_particles(exported, tmp_path):
    from PIL import Image

    folder, _ = exported
    pvpython(folder / "paraview_view.py", tmp_path / "picture.png")
    picture = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int)
    assert picture.shape == (1200, 1600, 3)
    r, g, b = np.moveaxis(picture, -1, 0)
    assert (picture[:20] == 255).all()  # white around it
    red, glass = (r > 2 * g) & (r > 2 * b) & (r > 100), (abs(r - g) < 8) & (abs(r - b) < 8) & (r > 120) & (r < 250)
    assert red.sum() > 5000
    assert glass.sum() > 50_000
    # The smallest particle, at the top right and in front in the array, is at the top right of the picture.
    assert red[:600, 800:].any()


def test_the_script_compiles(exported):
    folder, h = exported
    text = (folder / "paraview_view.py").read_text(encoding="utf-8")
    compile(text, "paraview_view.py", "exec")
    assert f'UNIT = "{"nm" if h == 0.5 else "voxels"}"' in text
    assert str(folder) not in text
