"""Shifts from IMOD's .xf and from tables, and their fit to a series."""

import math

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.shifts import GivenAlignment, fitted, imod_turns, read_shifts, transforms, write_transforms

SHIFTS = np.array([[1.5, -2.25], [0.125, 4.0], [-3.0, 0.5]])
ANGLES = np.array([-10.0, 0.0, 10.0])


def written(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "angle_deg,dy_px,dx_px,outlier\n-10,1.5,-2.25,false\n0,0.125,4.0,false\n10,-3.0,0.5,true\n",
        "dx;dy;tilt\n0.5;-3.0;10\n4.0;0.125;0\n-2.25;1.5;-10\n",
        "Tilt angle (deg)\tshift_x\tshift_y\n-10\t-2.25\t1.5\n0\t4\t.125\n10\t.5\t-3\n",
    ],
)
def test_a_table_with_a_header_is_sorted_by_its_angles(tmp_path, text):
    found = read_shifts(written(tmp_path / "s.csv", text))
    np.testing.assert_array_equal(found.shifts_px, SHIFTS)
    np.testing.assert_array_equal(found.angles_deg, ANGLES)
    assert found.axis_angle_deg is None


def test_an_alignment_of_aretomo_is_that_of_its_xf(tmp_path):
    """AreTomo's (TX, TY) are taken from a pixel's coordinates before it is turned by ROT about the centre."""
    angle, moves = 85.0, np.array([[3.25, -1.5], [0.0, 0.0], [-2.0, 4.0]])
    rows = "".join(
        f"{i} {angle} 1.0 {tx} {ty} 1 1 1 0 {tilt}\n"
        for i, ((tx, ty), tilt) in enumerate(zip(moves, ANGLES, strict=True))
    )
    aln = written(tmp_path / "a.aln", f"# AreTomo Alignment\n# RawSize = 64 48 3\n{rows}")
    turn = math.radians(angle)
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    lines = [" ".join(map(repr, [*matrix.ravel().tolist(), *(-matrix @ move).tolist()])) for move in moves]
    xf = read_shifts(written(tmp_path / "a.xf", "\n".join(lines)))
    found = read_shifts(aln)
    np.testing.assert_allclose(found.shifts_px, xf.shifts_px, atol=1e-9)
    assert found.axis_angle_deg == pytest.approx(xf.axis_angle_deg)
    assert found.image_shape == (48, 64)
    np.testing.assert_array_equal(found.angles_deg, ANGLES)


def test_images_that_aretomo_left_out_are_told(tmp_path):
    text = "# DarkFrame = 0 1 -70.00\n1 10 1 0 0 1 1 1 0 -60\n2 10 1 1 2 1 1 1 0 0\n# Local Alignment\n0 0 1 2 3 4 1\n"
    notes = read_shifts(written(tmp_path / "a.aln", text)).notes
    assert any("1 images, at -70 degrees" in note for note in notes)
    assert any("local alignment" in note for note in notes)
    with pytest.raises(InputError, match=r"turns the images by 10\.00 to 14\.00"):
        read_shifts(written(tmp_path / "b.aln", text.replace("2 10 1", "2 14 1")))
    with pytest.raises(InputError, match="line 2"):
        read_shifts(written(tmp_path / "c.aln", text.replace("1 10 1", "1 x 1")))
    joined = text.replace("-60\n2", "-60\n1 10 1 0 0 1 1 1 0 -30 2")  # a line break is lost
    with pytest.raises(InputError, match="line 3: it holds 20 numbers, and the lines before it 10"):
        read_shifts(written(tmp_path / "d.aln", joined))


def test_two_columns_as_numpy_writes_them(tmp_path):
    np.savetxt(tmp_path / "a.txt", SHIFTS, header="dy dx")
    np.savetxt(tmp_path / "b.csv", SHIFTS, delimiter=",")
    for name in ("a.txt", "b.csv"):
        found = read_shifts(tmp_path / name)
        np.testing.assert_allclose(found.shifts_px, SHIFTS, rtol=1e-15)
        assert found.angles_deg is None


def test_an_xf_of_a_quarter_turn(tmp_path):
    """A tilt axis along x: (X, Y) = (10, 0) from the centre goes to (0, 10) and then by (2, 3)."""
    found = read_shifts(written(tmp_path / "q.xf", "0 -1 1 0 2 3\n" * 2))
    assert found.axis_angle_deg == 90
    assert found.axis_offset_px == 0
    # A (dx, dy) = (-dy, dx) = (2, 3)
    np.testing.assert_allclose(found.shifts_px, [[-2, 3]] * 2)


def test_an_xf_that_only_shifts_says_nothing_of_the_axis(tmp_path):
    found = read_shifts(written(tmp_path / "a.prexg", " 1.0 0.0 0.0 1.0 2.5 -1\n"))
    assert found.axis_angle_deg is None
    assert found.axis_offset_px is None
    np.testing.assert_array_equal(found.shifts_px, [[-1, 2.5]])


@pytest.mark.parametrize("angle", [-60.0, 0.5, 45.0, 84.0, 90.0])
@pytest.mark.parametrize("rows_up", [False, True])
def test_what_is_written_reads_back_as_the_same_moves(tmp_path, angle, rows_up):
    write_transforms(tmp_path / "a.xf", transforms(SHIFTS, angle, 7.5, rows_up=rows_up))
    found = read_shifts(tmp_path / "a.xf", rows_up=rows_up)
    assert found.axis_angle_deg == pytest.approx(angle, abs=1e-6)
    # The offset moved into the shifts: along (cos, -sin) of (x, y), which is across the axis.
    phi = math.radians(angle)
    across = np.array([-math.sin(phi), math.cos(phi)])
    np.testing.assert_allclose(found.shifts_px, SHIFTS - 7.5 * across, atol=1e-5)


def test_half_a_turn_of_the_frame_is_the_same_axis(tmp_path):
    phi = math.radians(184)
    c, s = math.cos(phi), math.sin(phi)
    found = read_shifts(written(tmp_path / "a.xf", f"{c} {-s} {s} {c} {2 * c} {2 * s}\n"))
    assert found.axis_angle_deg == pytest.approx(4)
    np.testing.assert_allclose(found.shifts_px, [[0, 2]], atol=1e-12)


def test_the_tlt_beside_tells_the_order(tmp_path):
    path = written(tmp_path / "a.xf", "".join(f"1 0 0 1 {x} 0\n" for x in (1, 2, 3)))
    written(tmp_path / "a.tlt", "9.5\n-0.5\n-10.5\n")
    found = read_shifts(path)
    np.testing.assert_array_equal(found.shifts_px[:, 1], [3, 2, 1])
    fitted(found, ANGLES, (10, 10), 1.0)  # tiltalign has moved all angles by half a degree
    with pytest.raises(InputError, match="other tilts"):
        fitted(found, [-10, 0, 14], (10, 10), 1.0)
    written(tmp_path / "a.tlt", "9.5\n-0.5\n")
    with pytest.raises(InputError, match="2 angles"):
        read_shifts(path)


def test_what_an_alignment_has_not_is_left_out_or_refused(tmp_path):
    found = read_shifts(written(tmp_path / "a.xf", "1.005 0 0 1.005 0 0\n"))
    assert "magnifies images by up to 0.50%" in found.notes[0]
    for line in ("1.05 0 0 1.05 0 0", "-1 0 0 1 0 0", "0 0 0 0 0 0"):
        with pytest.raises(InputError, match="more than shift and rotate"):
            read_shifts(written(tmp_path / "b.xf", f"{line}\n"))
    with pytest.raises(InputError, match="turns them by up to 2"):
        read_shifts(written(tmp_path / "c.xf", "1 0 0 1 0 0\n0.9976 -0.0698 0.0698 0.9976 0 0\n"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "dy,dx\n", "no shifts"),
        ("a.csv", "a,b\n1,2\n", "not clear which columns"),
        ("a.csv", "dy,dx\n1\n", "line 2: 2 columns are needed, not 1"),
        ("a.csv", "dy,dx\n1,nan\n", "line 2"),
        ("a.csv", "1,2\n3,4,5\n", "line 2"),
        ("a.csv", "1,2\n3,1_0\n", "line 2"),
        ("a.xf", "1 0 0 1 0\n", "line 1: .* must be 6 numbers"),
        ("a.xf", "1 0 0 1 0 inf\n", "line 1"),
    ],
)
def test_what_is_no_file_of_shifts(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_shifts(written(tmp_path / name, text))


def test_other_numbers_and_angles_are_refused():
    given = GivenAlignment("other.h5", SHIFTS, ANGLES)
    assert fitted(given, ANGLES + 0.04, (10, 10), 1.0) is given
    with pytest.raises(InputError, match=r"other\.h5 aligns 3 tilts, the series has 4"):
        fitted(given, np.arange(4), (10, 10), 1.0)
    with pytest.raises(InputError, match=r"at 10 degrees would be used for the image at 10\.06 degrees"):
        fitted(given, [-10, 0, 10.06], (10, 10), 1.0)


@pytest.mark.parametrize(
    ("other", "other_nm", "shape", "nm", "scale"),
    [
        ((1021, 1023), 0.5, (255, 255), 2.0, 0.25),
        ((255, 255), 2.0, (1021, 1023), 0.5, 4.0),
        ((1021, 1023), math.nan, (255, 255), 2.0, 0.25),
        ((300, 300), 1.0, (200, 200), 1.5, 1 / 1.5),
        ((300, 300), math.nan, (200, 200), math.nan, 2 / 3),
        ((64, 64), 1.0, (64, 64), 1.004, 1.0),
    ],
)
def test_shifts_and_offset_follow_the_binning(other, other_nm, shape, nm, scale):
    given = GivenAlignment("o", SHIFTS, ANGLES, False, 3.0, 8.0, other, other_nm)
    found = fitted(given, ANGLES, shape, nm)
    np.testing.assert_allclose(found.shifts_px, SHIFTS * scale)
    assert found.axis_offset_px == pytest.approx(8 * scale)
    assert found.axis_angle_deg == 3


@pytest.mark.parametrize(
    ("other", "other_nm", "shape", "nm"),
    [
        ((512, 512), 1.0, (512, 512), 2.0),
        ((512, 512), 1.0, (256, 256), 1.0),
        ((512, 512), math.nan, (512, 256), math.nan),
    ],
)
def test_another_field_of_view_is_refused(other, other_nm, shape, nm):
    given = GivenAlignment("o", SHIFTS, ANGLES, False, 3.0, 8.0, other, other_nm)
    with pytest.raises(InputError, match="another field of view"):
        fitted(given, ANGLES, shape, nm)


def test_which_files_imod_turns():
    assert imod_turns("/data/series.TIF")
    assert not imod_turns("/data/series.mrc")
