import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.io.angles import angles_of_range, read_angles


def _write(tmp_path, text, name="a.rawtlt"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.rawtlt", " -60.00\n 0\n  60.5\n"),
        ("a.tlt", "-60\r\n0\r\n60.5"),
        ("a.txt", "# stage tilt\n\n-6e1\n0.0\n+60.5\n\n"),
        ("a.rawtlt", "\ufeff-60\n0\n60.5\n"),
        ("a.csv", "-60\n0\n60.5\n"),
        ("a.csv", "tilt\n-60\n0\n60.5\n"),
        ("a.csv", "image,Tilt angle (deg),exposure\n1,-60,1\n2,0,1\n3, 60.5 ,1\n"),
        ("a.csv", "image;angle\n1;-60\n2;0\n3;60.5\n"),
        ("a.tsv", "image\ttheta\n1\t-60\n2\t0\n3\t60.5\n"),
        ("a.csv", "theta_rad\n-1.0471975511965976\n0\n1.0559241974565693\n"),
        ("a.txt", "-60.0 3\n0.0 1\n60.5 2\n"),  # with the order of acquisition
        ("a_TLT.txt", "  -60.00   3   1.20\n    0.00   1   1.20\n   60.50   2   1.20\n"),  # and the dose
        ("a.txt", "1 -60 0.1\n2 0 0.2\n3 60.5 0.3\n"),
        ("a.txt", "-60 0 60.5\n"),
        ("a.txt", "-60, 0, 60.5\n"),
        ("a.txt", "-60,0 0,0 60,5\n"),
        ("a.rawtlt", "-60,0\n0,0\n60,5\n"),
        ("a.csv", "image;angle\n1;-60,0\n2;0,0\n3;60,5\n"),
        ("a.tlt", "-60   # image 0\n0 // image 1\n60.5 % image 2\n"),
        ("a.txt", "tilt\n-60\n0\n60.5\n"),
        ("a.txt", "image angle\n1 -60\n2 0\n3 60.5\n"),
        ("a.csv", "1,-60\n2,0\n3,60.5\n"),
        ("a.mdoc", "[ZValue = 1]\nTiltAngle = 0\n[ZValue = 0]\nTiltAngle = -60\n[ZValue = 2]\nTiltAngle = 60.5\n"),
    ],
)
def test_every_way_to_write_angles(tmp_path, name, text):
    # 1e-12: rounding of the radians
    np.testing.assert_allclose(read_angles(_write(tmp_path, text, name)), [-60, 0, 60.5], atol=1e-12)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "latin-1"])
def test_every_encoding(tmp_path, encoding):
    (tmp_path / "a.tlt").write_bytes("-60.0\r\n0.0\r\n60.5\r\n".encode(encoding))
    assert read_angles(tmp_path / "a.tlt").tolist() == [-60, 0, 60.5]


def test_angles_and_running_numbers_behind_a_comma(tmp_path):
    assert read_angles(_write(tmp_path, "-60,1\n-58,2\n-56,3\n", "a.txt")).tolist() == [-60, -58, -56]
    assert read_angles(_write(tmp_path, "-60,5\n-58,5\n-56,5\n", "a.txt")).tolist() == [-60.5, -58.5, -56.5]


ALN = """# AreTomo Alignment / Priims bprmMn
# RawSize = 512 480 5
# NumPatches = 1
# DarkFrame =    1    3  -30.00
# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT
    2    85.0000    1.00000      3.250     -1.500     1.00     1.00     1.00     0.00    -60.00
    1    85.0000    1.00000      0.000      0.000     1.00     1.00     1.00     0.00      0.00
    0    85.0000    1.00000     -2.000      4.000     1.00     1.00     1.00     0.00     30.25
    4    85.0000    1.00000      1.000      1.000     1.00     1.00     1.00     0.00     60.50
# Local Alignment
   0   0     1.0     2.0     0.1    -0.1   1.0
"""


def test_an_alignment_of_aretomo(tmp_path):
    assert read_angles(_write(tmp_path, ALN, "a.aln")).tolist() == [30.25, 0, -60, -30, 60.5]


@pytest.mark.parametrize(
    ("text", "angles"),
    [("-4:4:2", [-4, -2, 0, 2, 4]), ("60:-60:-60", [60, 0, -60]), (" 0 : 1 : .5 ", [0, 0.5, 1]), ("3:3:1", [3])],
)
def test_ranges(text, angles):
    assert angles_of_range(text).tolist() == angles


@pytest.mark.parametrize("text", ["0:5:2", "0:4:-2", "0:4:0", "-200:200:2", "0:1e9:1e-3", "0:100000000:1"])
def test_ranges_that_lead_nowhere(text):
    try:
        found = angles_of_range(text)
    except InputError:
        return
    assert found is None


def test_what_is_no_range():
    assert angles_of_range("C:/a.tlt") is None
    assert angles_of_range("angles.tlt") is None
    assert angles_of_range("1:2") is None


def test_order_and_repeats_are_kept(tmp_path):
    path = _write(tmp_path, "2\n-2\n0\n0\n2\n")
    assert read_angles(path).tolist() == [2, -2, 0, 0, 2]


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("a.rawtlt", "-60\n-58\nabc\n", ["a.rawtlt, line 3", "'abc'"]),
        ("a.rawtlt", "-60\n\n# note\n5O\n", ["line 4", "'5O'"]),
        ("a.rawtlt", "-60\n-58 1.0\n", ["line 2", "'-58 1.0'"]),
        ("a.txt", "-60 -61\n-58 -59\n", ["which column", "2 columns and no header"]),
        ("a.txt", "0 1\n1 2\n2 3\n", ["which column"]),
        ("a.txt", "-60 1\n-58\n", ["line 2"]),
        ("a.rawtlt", "1_0\n", ["line 1", "'1_0'"]),
        ("a.rawtlt", "-60\nnan\n", ["line 2", "finite"]),
        ("a.tlt", "-60\ninf\n", ["line 2", "finite"]),
        ("a.rawtlt", "-60\n180.5\n", ["line 2", "-180 to 180"]),
        ("a.rawtlt", "", ["holds no number"]),
        ("a.rawtlt", "\n  \n# only a comment\n", ["holds no number"]),
        ("a.csv", "angle\n", ["no tilt angles"]),
        ("a.csv", "number,exposure\n1,2\n", ["which column", "number, exposure"]),
        ("a.csv", "tilt,angle\n1,2\n", ["which column"]),
        ("a.csv", "number,angle\n1,-60\n2\n", ["line 3", "column 2"]),
        ("a.csv", "number,angle\n1,-60\n2,x\n", ["line 3", "'x'"]),
        ("a.mdoc", "[ZValue = 0]\nTiltAngle = x\n", ["a.mdoc", "ZValue = 0", "'x'"]),
        ("a.mdoc", "[ZValue = 0]\nDefocus = 1\n", ["TiltAngle", "missing"]),
        ("a.mdoc", "PixelSpacing = 1\n", ["no image"]),
        ("a.mdoc", "[ZValue = 0]\nTiltAngle = 200\n", ["ZValue = 0", "-180 to 180"]),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, name, text, parts):
    with pytest.raises(InputError) as caught:
        read_angles(_write(tmp_path, text, name))
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_angles(tmp_path / "none.tlt")
    (tmp_path / "raw.tlt").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(InputError, match="line 1"):
        read_angles(tmp_path / "raw.tlt")
    (tmp_path / "big.tlt").write_bytes(bytes(2_000_000))
    with pytest.raises(InputError, match="has more than 1 MB"):
        read_angles(tmp_path / "big.tlt")


def test_real_angle_files(real_data):
    np.testing.assert_array_equal(read_angles(real_data / "tilt-series/needle/HAADF.rawtlt"), np.arange(-76, 77, 2))
    dust = read_angles(real_data / "tilt-series/dust-particle/idp_haadf.rawtlt")
    np.testing.assert_array_equal(dust, np.arange(-40, 36, 5))
    mdoc = read_angles(real_data / "formats/serialem_tilt_series.mdoc")
    assert len(mdoc) == 41
    # as acquired: 0, 3, -3, -6 ... in steps of 3, to the stage's accuracy of some hundredths of a degree
    np.testing.assert_allclose(np.sort(mdoc), np.arange(-60, 61, 3), atol=0.1)
    assert mdoc[1] == 3.00113
    multi = read_angles(real_data / "tilt-series/serialem/MultiTilt_test_000.mdoc")
    assert multi.tolist() == [-0.000488, -0.000488]


@pytest.mark.parametrize("text", ["", "\n\n", ";", " ; ;\n;\n", "# nothing\n", "\t\n"])
def test_a_file_without_any_number_is_refused(tmp_path, text):
    (tmp_path / "a.tlt").write_text(text)
    with pytest.raises(InputError):
        read_angles(tmp_path / "a.tlt")
