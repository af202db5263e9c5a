"""Which angles, images and pixel size an import uses, where several sources say something."""

from contextlib import contextmanager

import numpy as np
import pytest

from tests.unit.io.conftest import mrc_bytes
from tomoseg.errors import InputError
from tomoseg.io.plan import Wishes, plan_series

SORTED = np.arange(-60.0, 61.0, 8.0)
# As acquired from 0 outwards, two tilts to each side in turn.
SYMMETRIC = np.array([0, 8, -8, -16, 16, 24, -24, -32, 32, 40, -40, -48, 48, 56, -56, -60.0])


def particles(angles_deg, seed=3, size=96):
    """Return projections (n, y, x) u2 of blobs that turn about the vertical axis, with noise."""
    rng = np.random.default_rng(seed)
    x0, z0, y0 = rng.uniform(-30, 30, (3, 40))
    bright, sigma = rng.uniform(300, 900, 40), rng.uniform(1.5, 4, 40)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    images = []
    for angle in np.deg2rad(angles_deg):
        at = x0 * np.cos(angle) + z0 * np.sin(angle)
        square = (x[..., None] - at) ** 2 + (y[..., None] - y0) ** 2
        images.append((bright * np.exp(-square / (2 * sigma**2))).sum(axis=-1) + rng.normal(100, 10, x.shape))
    return np.clip(np.array(images), 0, 65535).astype(np.uint16)


def mdoc(path, angles, numbers=None, head=""):
    numbers = range(len(angles)) if numbers is None else numbers
    sections = (f"[ZValue = {z}]\nTiltAngle = {a}\n\n" for z, a in zip(numbers, angles, strict=True))
    path.write_text(f"PixelSpacing = 2.5\n\n{head}\n\n" + "".join(sections))


def angle_file(path, angles):
    path.write_text("".join(f"{a:.2f}\n" for a in angles))


@pytest.fixture
def stack(tmp_path):
    def write(angles, name="ts.mrc"):
        path = tmp_path / name
        path.write_bytes(mrc_bytes(particles(angles)))
        return path

    return write


@contextmanager
def planned(path, **wishes):
    plan, problems = plan_series(path, Wishes(**wishes))
    assert problems == []
    with plan.raw:
        yield plan


def refused(path, **wishes):
    plan, problems = plan_series(path, Wishes(**wishes))
    assert plan is None
    return " ".join(problems)


# --- sources that contradict each other


@pytest.mark.parametrize(("order", "right"), [(SORTED, "ts.rawtlt"), (SYMMETRIC, "ts.mrc.mdoc")])
def test_the_images_decide_between_contradicting_sources(stack, order, right):
    path = stack(order)
    angle_file(path.with_suffix(".rawtlt"), SORTED)
    mdoc(path.with_name("ts.mrc.mdoc"), SYMMETRIC)
    with planned(path) as plan:
        np.testing.assert_array_equal(plan.angles_deg, order)
        assert plan.angles_source == right
        (warning,) = [text for text in plan.warnings if "differ" in text]
        assert "ts.rawtlt" in warning
        assert "ts.mrc.mdoc" in warning
        assert "the images agree with it" in warning


def test_angles_that_are_given_are_used_and_the_images_contradict_them(stack, tmp_path):
    path = stack(SORTED)
    mdoc(path.with_name("ts.mrc.mdoc"), SORTED)
    angle_file(tmp_path / "wrong.txt", SYMMETRIC)
    with planned(path, angles=tmp_path / "wrong.txt") as plan:
        np.testing.assert_array_equal(plan.angles_deg, SYMMETRIC)
        assert any("but the images agree with ts.mrc.mdoc" in text for text in plan.warnings)


def test_images_that_do_not_tell_leave_the_usual_order_and_a_warning(tmp_path):
    path = tmp_path / "ts.mrc"
    noise = np.random.default_rng(1).normal(1000, 100, (len(SORTED), 32, 32)).astype(np.int16)
    path.write_bytes(mrc_bytes(noise))
    angle_file(path.with_suffix(".rawtlt"), SORTED)
    mdoc(path.with_name("ts.mrc.mdoc"), SYMMETRIC)
    with planned(path) as plan:
        assert plan.angles_source == "ts.mrc.mdoc"
        assert any("the images do not tell which is right" in text for text in plan.warnings)


def test_rounding_and_refined_angles_are_no_contradiction(stack):
    path = stack(SORTED)
    angle_file(path.with_suffix(".rawtlt"), SORTED)
    angle_file(path.with_suffix(".tlt"), SORTED + 1.5 + 0.01 * np.arange(len(SORTED)))
    mdoc(path.with_name("ts.mdoc"), SORTED + 0.03)
    with planned(path) as plan:
        assert plan.angles_source == "ts.mdoc"
        assert plan.warnings == []
        assert any("ts.tlt" in note and "solved" in note for note in plan.notes)


@pytest.mark.parametrize("name", ["ts_ali.mrc", "ts.ali", "TS_ALI.MRC"])
def test_an_aligned_series_has_the_solved_angles(stack, name):
    path = stack(SORTED, name)
    angle_file(path.with_name("ts.rawtlt"), SORTED)
    angle_file(path.with_name("ts.tlt"), SORTED - 0.7)
    with planned(path) as plan:
        np.testing.assert_allclose(plan.angles_deg, SORTED - 0.7, atol=0.006)
        assert plan.angles_source == "ts.tlt"


@pytest.mark.parametrize("name", ["ts.rawtlt", "TS.RAWTLT", "ts_TLT.txt", "Ts.Tlt"])
def test_companions_by_any_name(stack, name):
    path = stack(SORTED)
    angle_file(path.with_name(name), SORTED)
    with planned(path) as plan:
        assert plan.angles_source == name


def test_an_alignment_of_aretomo_gives_its_angles(stack):
    path = stack(SORTED)
    rows = "".join(f"{i + 1} 85.1 1.0 3.5 -2.5 1 1 1 0 {a:.2f}\n" for i, a in enumerate(SORTED))
    path.with_suffix(".aln").write_text(f"# AreTomo Alignment\n# RawSize = 96 96 16\n# SEC ROT ...\n{rows}")
    with planned(path) as plan:
        np.testing.assert_array_equal(plan.angles_deg, SORTED)


# --- companions that are of no use


def broken(path):
    mdoc(path, SORTED)
    path.write_text(path.read_text().replace("TiltAngle = 4.0", "Defocus = 4.0"))


def of_another(path):
    mdoc(path, np.arange(50.0))


def binary(path):
    path.write_bytes(bytes(range(256)) * 9)


@pytest.mark.parametrize("spoil", [broken, of_another, binary])
def test_a_companion_of_no_use_blocks_nothing_and_is_told(stack, spoil):
    path = stack(SORTED)
    spoil(path.with_name("ts.mrc.mdoc"))
    assert "ts.mrc.mdoc was set aside" in refused(path) or "ts.mrc.mdoc were set aside" in refused(path)
    assert "there is no .mdoc" not in refused(path)
    angle_file(path.with_suffix(".rawtlt"), SORTED)
    with planned(path) as plan:
        np.testing.assert_array_equal(plan.angles_deg, SORTED)
        assert any("set aside" in text for text in plan.warnings)
    with planned(path, angle_range=SORTED) as plan:
        assert plan.angles_source == "the range given"


def test_the_section_without_an_angle_is_named(stack):
    path = stack(SORTED)
    broken(path.with_name("ts.mrc.mdoc"))
    assert "[ZValue = 8]" in refused(path)


# --- views that are left out


def test_views_are_left_out_by_number_and_angle(stack):
    path = stack(SORTED)
    angle_file(path.with_suffix(".rawtlt"), SORTED)
    with planned(path, exclude="3,5-6,60deg,-60..-50deg") as plan:
        assert plan.images.tolist() == [3, 6, 7, 8, 9, 10, 11, 12, 13, 14]
        np.testing.assert_array_equal(plan.angles_deg, SORTED[plan.images])
        assert any("views 1, 2, 3, 5, 6, 16" in note for note in plan.notes)


@pytest.mark.parametrize("wrong", ["0", "17", "5-3", "90deg", "x", "", "1..3"])
def test_views_that_are_none_are_refused(stack, wrong):
    path = stack(SORTED)
    angle_file(path.with_suffix(".rawtlt"), SORTED)
    with pytest.raises(InputError, match="view"):
        raise InputError(refused(path, exclude=wrong))


def test_angles_of_the_kept_views_only(stack):
    path = stack(SORTED)
    angle_file(path.with_suffix(".rawtlt"), np.delete(SORTED, [2, 9]))
    assert "14 angles, and the series 16 images" in refused(path)
    with planned(path, exclude="3,10") as plan:
        np.testing.assert_array_equal(plan.angles_deg, np.delete(SORTED, [2, 9]))


def test_the_mdoc_says_which_images_are_there(stack):
    path = stack(SORTED)
    kept = np.delete(np.arange(16), [2, 9])
    mdoc(path.with_name("ts.mrc.mdoc"), SORTED[kept], kept)
    angle_file(path.with_suffix(".rawtlt"), SORTED[kept])
    with planned(path) as plan:
        np.testing.assert_array_equal(plan.images, kept)
        np.testing.assert_array_equal(plan.angles_deg, SORTED[kept])
        assert any("2 of 16 images are left out" in text for text in plan.warnings)


# --- pixels


def test_pixels_that_are_not_square_are_refused_unless_asked_for(tmp_path):
    path = tmp_path / "ts.mrc"
    path.write_bytes(mrc_bytes(particles(SORTED), cell_angstrom=(96 * 5.0, 96 * 2.5, 16.0)))
    angle_file(path.with_suffix(".rawtlt"), SORTED)
    assert "0.25 nm high, 0.5 nm wide" in refused(path)
    assert "not square" in refused(path, pixel_size_nm=0.3)
    with planned(path, pixel_size_nm=0.3, square_pixels=True) as plan:
        assert plan.pixel_size_nm == 0.3
        assert any("as square, as asked" in text for text in plan.warnings)
