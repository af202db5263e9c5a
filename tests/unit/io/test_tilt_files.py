"""Tilt series in a folder with one file per tilt."""

import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.unit.io.test_angle_sources import angle_file, mdoc, particles, planned, refused
from tomoseg.errors import InputError
from tomoseg.io.input_files import as_one, extent_of, sha256, tilt_files
from tomoseg.io.raw import open_raw
from tomoseg.io.tilt_files import angles_in_names

ANGLES = np.array([-60.0, -30, -4, 0, 4, 30, 60])
IMAGES = particles(ANGLES, size=24)


def tiff(path, image):
    tifffile.imwrite(path, image)


def mrc(path, image):
    with mrcfile.new(path) as file:
        file.set_data(image)
        file.voxel_size = 2.5


def png(path, image):
    Image.fromarray((image >> 3).astype(np.uint8)).save(path)


NAMES = [
    lambda i, a: f"tilt_{'n' if a < 0 else 'p'}{abs(a):04.1f}",
    lambda i, a: f"pos_003[{a:.2f}]_x",
    lambda i, a: f"img_{a:.0f}",
    lambda i, a: f"TS01_{i:03d}_{a:+.1f}_Sep12_10.34.5{i}",
    lambda i, a: f"2024-01-12 scan {i + 1} {a:g}deg",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("suffix", "write"), [(".tif", tiff), (".mrc", mrc), (".png", png)])
def test_angles_from_the_names(tmp_path, suffix, write, name):
    for i, (angle, image) in enumerate(zip(ANGLES, IMAGES, strict=True)):
        write(tmp_path / f"{name(i, angle)}{suffix}", image)
    (tmp_path / "notes.txt").write_text("not an image")
    with planned(tmp_path) as plan:
        assert plan.angles_source == "the file names"
        order = np.argsort(plan.angles_deg)
        np.testing.assert_array_equal(plan.angles_deg[order], ANGLES)
        expected = IMAGES if suffix != ".png" else (IMAGES >> 3).astype(np.uint8)
        np.testing.assert_array_equal(plan.raw.read(plan.images[order]), expected)
        assert len(plan.raw.table) == len(ANGLES) + 1


def test_running_numbers_are_no_angles(tmp_path):
    for i, image in enumerate(IMAGES, 9):
        tiff(tmp_path / f"scan{i}.tif", image)
    with planned(tmp_path, angle_range=ANGLES) as plan:  # in natural order: 9 before 10
        np.testing.assert_array_equal(plan.raw.read(slice(None)), IMAGES)
    assert "no tilt angles are known" in refused(tmp_path)
    assert angles_in_names([f"tilt_{k:03d}.tif" for k in (1, 2, 3, 5, 6, 7, 8)])[0] is None  # one is missing


def test_two_numbers_that_may_be_angles_are_not_chosen_between():
    found, why = angles_in_names([f"a{x:.1f}_b{y:.1f}.tif" for x, y in ((1.5, -3), (2.5, -4), (4.5, 2))])
    assert found.tolist() == [-3, -4, 2]  # the one with signs
    found, why = angles_in_names([f"a{x:.1f}_b{y:.1f}.tif" for x, y in ((-1.5, -3), (2.5, 4), (4.5, 2))])
    assert found is None
    assert "2 numbers" in why


def test_a_hyphen_before_all_numbers_is_no_sign():
    assert angles_in_names([f"a-{x}.tif" for x in (0, 10, 20, 40)])[0].tolist() == [0, 10, 20, 40]
    assert angles_in_names([f"a-{x}.tif" for x in (-10, 0, 20)])[0].tolist() == [-10, 0, 20]
    assert "are taken as tilt angles" in angles_in_names([f"a-{x}.tif" for x in (0, 10, 20, 40)])[1]


def test_an_angle_file_in_the_folder_and_a_contradiction(tmp_path):
    for i, image in enumerate(IMAGES):
        tiff(tmp_path / f"scan_{i:02d}.tif", image)
    angle_file(tmp_path / "series.rawtlt", ANGLES)
    with planned(tmp_path) as plan:
        assert plan.angles_source == "series.rawtlt"
        np.testing.assert_array_equal(plan.angles_deg, ANGLES)


def test_the_mdoc_of_each_file_and_two_frames_in_each(tmp_path):
    for i, (angle, image) in enumerate(zip(ANGLES, IMAGES, strict=True)):
        with mrcfile.new(tmp_path / f"t_{i:03d}.mrc") as file:
            file.set_data(np.stack([image, image + 1]))
            file.set_image_stack()
        mdoc(tmp_path / f"t_{i:03d}.mrc.mdoc", [angle, angle], head="[T = Tilt axis angle = 88.1, binning = 1]")
    with planned(tmp_path, pixel_size_nm=1.0) as plan:
        np.testing.assert_array_equal(plan.angles_deg, np.repeat(ANGLES, 2))
        assert plan.tilt_axis == "x"
        np.testing.assert_array_equal(plan.raw.read([5, 4]), [IMAGES[2] + 1, IMAGES[2]])


def test_one_mdoc_for_all_files_by_the_names_of_their_frames(tmp_path):
    shuffled = np.array([3, 0, 6, 1, 5, 2, 4])
    sections = []
    for z, i in enumerate(shuffled):
        tiff(tmp_path / f"frame_{i:02d}.tif", IMAGES[i])
        path = rf"D:\\Frames\\day 1\\Frame_{i:02d}.tif"
        sections.append(f"[ZValue = {z}]\nTiltAngle = {ANGLES[i]}\nSubFramePath = {path}\n")
    (tmp_path / "ts.mrc.mdoc").write_text("PixelSpacing = 2.5\n\n" + "\n".join(sections))
    with planned(tmp_path, pixel_size_nm=1.0) as plan:
        np.testing.assert_array_equal(plan.angles_deg, ANGLES)
        assert plan.angles_source == "ts.mrc.mdoc"
    (tmp_path / "ts.mrc.mdoc").write_text("\n".join(sections[1:]))
    assert "do not name 1 of the 7 files" in refused(tmp_path)


def test_a_pattern_of_names(tmp_path):
    for angle, image in zip(ANGLES, IMAGES, strict=True):
        tiff(tmp_path / f"a[{angle:g}].tif", image)
        tiff(tmp_path / f"b[{angle:g}].tif", image[:20])
    assert "do not form one series" in refused(tmp_path)
    with planned(tmp_path / "a*.tif") as plan:
        np.testing.assert_array_equal(np.sort(plan.angles_deg), ANGLES)
    assert "matches no images" in refused(tmp_path / "c*.tif")
    assert "one image, a[60].tif" in refused(tmp_path / "a?60*.tif")


def test_files_that_a_shell_made_of_a_pattern(tmp_path):
    for angle, image in zip(ANGLES, IMAGES, strict=True):
        tiff(tmp_path / f"a_{angle:g}.tif", image)
    files = sorted(tmp_path.iterdir())
    assert as_one(files[:1]) == files[0]
    assert as_one(files) == tmp_path
    tiff(tmp_path / "b_0.tif", IMAGES[0])
    assert as_one(files) == tmp_path / "a_*.tif"
    with pytest.raises(InputError, match="6 files are named"):
        as_one(files[:3] + files[4:])


def test_one_damaged_file_is_named(tmp_path):
    for angle, image in zip(ANGLES, IMAGES, strict=True):
        tiff(tmp_path / f"a_{angle:g}.tif", image)
    (tmp_path / "a_30.tif").write_bytes((tmp_path / "a_30.tif").read_bytes()[:200])
    assert "a_30.tif" in refused(tmp_path)


def test_a_folder_without_images_and_one_with_a_single_image(tmp_path):
    assert "holds no images" in refused(tmp_path)
    tiff(tmp_path / "a.tif", IMAGES[0])
    assert "one image, a.tif" in refused(tmp_path)
    with pytest.raises(InputError, match="single 2D image"):
        open_raw(tmp_path / "a.tif")


def test_the_digest_of_a_folder_is_that_of_its_series(tmp_path):
    for angle, image in zip(ANGLES, IMAGES, strict=True):
        tiff(tmp_path / f"a_{angle:g}.tif", image)
    before, extent = sha256(tmp_path), extent_of(tmp_path)
    (tmp_path / "p.h5").write_bytes(b"a project")
    assert (sha256(tmp_path), extent_of(tmp_path)) == (before, extent)
    tiff(tmp_path / "a_30.tif", IMAGES[0])
    assert sha256(tmp_path) != before
    (tmp_path / "a_30.tif").unlink()
    assert extent_of(tmp_path) != extent
    assert len(tilt_files(tmp_path)) == len(ANGLES) - 1
    assert extent_of(tmp_path / "none") is None
