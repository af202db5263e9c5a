"""Words, scale bars, grey levels, overlays, and the picture of the surfaces."""

import base64
import gzip
import io
import re

import numpy as np
import pytest
from PIL import Image

from tomoseg.arrays import MemoryInput
from tomoseg.report import formatting
from tomoseg.report.figures import images, rendering
from tomoseg.report.html import Html, el, table
from tomoseg.report.page import interactive
from tomoseg.report.results import LabelClass, Results
from tomoseg.report.sampling import fractions, mesh, slices


def decoded(picture):
    uri = re.search(r'src="data:image/png;base64,([^"]+)"', picture).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))))


# --- words ---


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.0, "3"),
        (0.25, "0.25"),
        (1.98765, "1.99"),
        (-68, "−68"),
        (12345.6, "12346"),
        (999.6, "1000"),
        (2.5e-7, "2.50\u00a0×\u00a010⁻⁷"),
        (1e9, "1.00\u00a0×\u00a010⁹"),
        (np.float32(0.1), "0.1"),
        (float("nan"), "–"),
    ],
)
def test_numbers_as_people_write_them(value, text):
    assert formatting.number(value) == text


def test_mean_and_spread_have_as_many_decimals():
    assert formatting.with_spread(1.98765, 0.384) == ("1.99", "0.38")
    assert formatting.with_spread(123.4, 21.0) == ("123", "21")
    assert formatting.with_spread(5.0, float("nan")) == ("5", "–")


def test_lengths_times_and_memory():
    assert formatting.length(1234) == "1.23\u00a0µm"
    assert formatting.duration(3725) == "1 h 2 min"
    assert formatting.memory(250e6) == "250\u00a0MB"


def test_columns_line_up_unless_values_differ_wildly():
    assert formatting.aligned_column([15.41, 9.781, float("nan")]) == ["15.41", "9.78", "–"]
    assert formatting.aligned_column([0.9433, 0.002481]) == ["0.9433", "0.002481"]
    assert formatting.aligned_column([True, False]) == ["yes", "no"]


# --- markup ---


def test_only_markup_is_markup():
    assert el("p", "<b>", Html("<i>"), class_='"x"') == '<p class="&quot;x&quot;">&lt;b&gt;<i></p>'


def test_numbers_of_a_table_are_right_aligned_and_names_are_not():
    markup = table(("name", "n"), [("a1", "−3.5"), ("b", "–")])
    assert '<td>a1</td><td class="number">−3.5</td>' in markup


# --- images ---


def test_grey_limits_leave_out_what_is_not_a_number():
    image = np.array([[0.0, 1.0], [2.0, np.nan]])
    limits = images.grey_limits([image], (0, 100))
    assert (limits.low, limits.high) == (0, 2)
    assert images.to_grey(image, limits).tolist() == [[0, 128], [255, 0]]


@pytest.mark.parametrize(
    ("limit", "nice"), [(1.0, 1), (1.99, 1), (2.0, 2), (49.9, 20), (50, 50), (0.07, 0.05), (999, 500)]
)
def test_scale_bars_are_round(limit, nice):
    assert images.nice_length(limit) == pytest.approx(nice)


@pytest.mark.parametrize(("pixel_nm", "bar_px"), [(0.5, 40), (float("nan"), 50), (3.36, 200 / 3.36)])
def test_scale_bar_is_as_long_as_it_says(pixel_nm, bar_px):
    # A quarter of 240 px is 60 px: 30 nm hold a bar of 20 nm = 40 px, 60 px one of 50, 201.6 nm one of 200.
    picture = decoded(
        images.grey_picture(images.Panel(np.zeros((240, 240)), None, pixel_nm), images.Limits(0, 1, (0, 100)), "")
    )
    zoom = picture.shape[1] / 240
    assert (picture[-20] == 255).all(axis=-1).sum() == pytest.approx(bar_px * zoom, abs=1)


def test_the_scale_bar_of_a_reduced_image_is_in_raw_pixels():
    # 240 px of two raw pixels each: a quarter of 480 raw pixels is 120, which holds a bar of 100 = 50 px.
    panel = images.Panel(np.zeros((240, 240)), None, float("nan"), pixel_px=2.0)
    picture = decoded(images.grey_picture(panel, images.Limits(0, 1, (0, 100)), ""))
    assert (picture[-20] == 255).all(axis=-1).sum() == pytest.approx(50 * picture.shape[1] / 240, abs=1)


def test_pictures_are_upright_and_small_ones_keep_their_pixels():
    image = np.zeros((30, 60))
    image[:10, 50:] = 1  # upper right
    panel = images.Panel(image, None, scale_bar=False)
    picture = decoded(images.grey_picture(panel, images.Limits(0, 1, (0, 100)), ""))
    assert picture.shape[:2] == (360, 720)
    assert (picture[:120, 600:] == 255).all()
    assert picture[120:].max() == picture[:, :600].max() == 0


def test_labels_are_painted_in_their_colors_and_background_is_not():
    labels = np.zeros((90, 90), np.uint8)
    labels[20:60, 30:70] = 2
    panel = images.Panel(np.full((90, 90), 0.4), None, scale_bar=False)
    classes = [LabelClass(0, "a", "#ff0000"), LabelClass(1, "b", "#00ff00"), LabelClass(2, "c", "#0000ff")]
    picture = decoded(images.label_picture(panel, labels, classes, images.Limits(0, 1, (0, 100)), ""))
    zoom = picture.shape[0] // 90
    assert picture[5, 5].tolist() == [102] * 3
    assert picture[40 * zoom, 50 * zoom].tolist() == [51, 51, 178]  # half grey, half blue
    assert picture[20 * zoom, 50 * zoom].tolist() == [0, 0, 255]  # outline


def test_large_images_are_averaged_not_skipped():
    image = np.zeros((2000, 2000))
    image[::2] = 1
    panel = images.Panel(image, None, scale_bar=False)
    picture = decoded(images.grey_picture(panel, images.Limits(0, 1, (0, 100)), ""))
    assert picture.shape[0] == 720
    assert abs(picture.mean() - 127.5) < 1


# --- surfaces ---


def ball(shape, centre, radius):
    return sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)) <= radius**2


def drawn(labels, glass=False):
    found = fractions.fractions(labels.astype(np.uint8), 2)
    picture, pixel = rendering.render(found, [rendering.Surface(1, (200, 100, 50), glass)], side=200)
    return picture[..., 3] / 255, pixel, picture


def test_a_ball_is_a_disc_of_its_size():
    opacity, pixel, _ = drawn(ball((60, 60, 60), (29.5,) * 3, 20))
    assert set(np.unique(opacity)) == {0.0, 1.0}
    # Smoothing moves a surface of radius 20 by sigma**2 / 20 = 0.02 voxels inwards; voxels make it rough by 0.2.
    assert np.sqrt((opacity * pixel**2).sum() / np.pi) == pytest.approx(20, abs=0.3)


def test_right_is_x_and_down_is_y():
    labels = (
        ball((60, 60, 60), (30, 30, 30), 5) | ball((60, 60, 60), (30, 30, 50), 8) | ball((60, 60, 60), (30, 52, 30), 3)
    )
    opacity, _, _ = drawn(labels)
    rows, columns = np.nonzero(opacity)
    right = columns > columns.max() - 25
    assert right.sum() > 100  # the large ball at +x
    bottom = rows > rows.max() - 8
    assert 0 < bottom.sum() < right.sum()  # the small one at +y


def test_glass_lets_the_inside_be_seen_and_solid_does_not():
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[ball(labels.shape, (30, 30, 30), 24)] = 1
    labels[ball(labels.shape, (30, 30, 30), 8)] = 2
    red, blue = (255, 0, 0), (0, 0, 255)

    def middle(glass):
        shown = [rendering.Surface(1, red, glass), rendering.Surface(2, blue, False)]
        picture, _ = rendering.render(fractions.fractions(labels, 3), shown, side=100)
        return picture[50, 50].astype(int)

    assert middle(glass=True)[2] > middle(glass=True)[0]
    assert middle(glass=False)[0] > middle(glass=False)[2]


def test_light_comes_from_the_upper_left():
    _, _, picture = drawn(ball((60, 60, 60), (29.5,) * 3, 20))
    brightness = picture[..., :3].sum(axis=-1, dtype=float)
    assert brightness[60:90, 60:90].mean() > 1.2 * brightness[110:140, 110:140].mean()


def test_an_object_cut_by_the_border_has_a_face_there():
    opacity, _, _ = drawn(np.ones((20, 20, 20), bool))
    assert (opacity == 1).mean() > 0.5


def test_nothing_to_draw_is_an_empty_picture():
    opacity, _, _ = drawn(np.zeros((10, 12, 14), bool))
    assert opacity.max() == 0


def test_large_labels_are_averaged_in_slabs_as_a_whole():
    labels = ball((30, 250, 430), (15, 120, 200), 14).astype(np.uint8)
    fields, reduction = rendering.coverage(fractions.fractions(labels, 2), [1])
    assert reduction == 3
    assert fields.shape == (1, 10 + 4, 84 + 4, 144 + 4)
    assert fields.sum() * 27 == pytest.approx(labels.sum(), rel=1e-3)  # smoothing keeps the sum, all inside the margin
    small, _ = rendering.coverage(fractions.fractions(labels, 2, slab_bytes=1), [1])
    assert np.array_equal(small, fields)


# --- one pass for all slices ---


@pytest.mark.parametrize("side", [100, 13])
@pytest.mark.parametrize("slab", [1, 1 << 20])
def test_slices_are_those_of_the_volume(side, slab):
    volume = np.random.default_rng(0).random((20, 37, 25)).astype(np.float32)
    found = slices.slices(volume, side, slab_bytes=slab)
    assert found.factor == -(-37 // side)
    f = found.factor
    for plane in slices.PLANES:
        for image, at in zip(found.images[plane.name], found.positions[plane.name], strict=True):
            exact = np.take(volume, at, axis="zyx".index(plane.cut_axis))
            exact = exact.T if plane.name == "zy" else exact
            assert np.array_equal(plane.cut(volume, at), exact)
            assert image[0, 0] == pytest.approx(exact[:f, :f].mean(), abs=1e-6)
            assert image[-1, -1] == pytest.approx(
                exact[(len(exact) - 1) // f * f :, (exact.shape[1] - 1) // f * f :].mean()
            )
            assert image.shape == (-(-exact.shape[0] // f), -(-exact.shape[1] // f)), plane


def test_slices_of_labels_hold_labels():
    labels = np.random.default_rng(0).choice(np.array([0, 7], np.uint8), (30, 30, 30))
    found = slices.slices(labels, 10, average=False)
    assert set(np.unique(found.images["zy"])) == {0, 7}
    assert np.array_equal(found.images["xz"][4], labels[1::3, found.positions["xz"][4], 1::3])


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_fractions_of_classes_add_up(factor):
    labels = np.random.default_rng(0).integers(0, 4, (30, 41, 22)).astype(np.uint8)
    n_cells = int(np.prod([-(-n // factor) for n in labels.shape]))
    found = fractions.fractions(labels, 4, most_cells=n_cells, slab_bytes=5000)
    assert found.factor == factor
    cell = labels[:factor, -(41 % factor or factor) :, :factor]
    for index in (1, 2, 3):
        exact = (cell == index).sum() / factor**3
        assert found.of[index - 1, 0, -1, 0] / found.full == pytest.approx(exact, abs=0.51 / found.full)
        total = found.of[index - 1].sum(dtype=float) * factor**3 / found.full
        assert total == pytest.approx((labels == index).sum(), rel=0.02)


# --- surfaces for the page ---


def volume_of(points, faces):
    """Return the volume that triangles enclose, positive where they are turned outwards."""
    a, b, c = (points[faces[:, i]].astype(float) for i in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


@pytest.mark.parametrize("most_cells", [10**8, 12_000])
@pytest.mark.parametrize("target", [10**6, 3000, 600])
def test_a_ball_stays_a_ball(most_cells, target):
    labels = ball((60, 64, 70), (28, 33, 31), 18).astype(np.uint8)
    found = mesh.surface(fractions.fractions(labels, 2, most_cells), 1, target)
    assert 100 < len(found.faces) <= target
    assert volume_of(found.points, found.faces) == pytest.approx(labels.sum(), rel=0.02)
    assert (found.points.min(0) + found.points.max(0)) / 2 == pytest.approx([31, 33, 28], abs=0.4)
    radii = np.linalg.norm(found.points - [31, 33, 28], axis=1)
    assert radii.mean() == pytest.approx(18, abs=0.4)


def test_an_object_cut_by_the_border_is_closed_there():
    found = mesh.surface(fractions.fractions(np.ones((12, 14, 16), np.uint8), 2), 1, 10**6)
    assert found.points.min(0) == pytest.approx([-0.5] * 3, abs=0.02)
    assert found.points.max(0) == pytest.approx([15.5, 13.5, 11.5], abs=0.02)
    assert volume_of(found.points, found.faces) == pytest.approx(12 * 14 * 16, rel=0.02)


def test_nothing_has_no_surface():
    assert len(mesh.surface(fractions.fractions(np.zeros((9, 9, 9), np.uint8), 2), 1, 100).faces) == 0


def decoded_mesh(packed):
    """Undo the packing, as the script of the page does."""
    raw = np.frombuffer(gzip.decompress(base64.b64decode(packed["data"])), np.uint8).astype(np.int64)
    n, m = packed["points"], 3 * packed["faces"]
    folded = (raw[: 3 * n] | raw[3 * n : 6 * n] << 8).reshape(3, n)
    steps = np.where(folded & 1, -((folded + 1) >> 1), folded >> 1)
    points = (np.cumsum(steps, axis=1) % 65536).T
    behind = raw[6 * n : 6 * n + m] | raw[6 * n + m : 6 * n + 2 * m] << 8 | raw[6 * n + 2 * m :] << 16
    corners, new = np.empty(m, np.int64), 0
    for i, b in enumerate(behind):
        corners[i] = new - b
        new += b == 0
    return points * packed["step"] - 0.5, corners.reshape(-1, 3)


def test_packed_surfaces_are_the_same_surfaces():
    labels = ball((50, 300, 40), (20, 200, 18), 15) | ball((50, 300, 40), (30, 20, 22), 12)
    found = mesh.surface(fractions.fractions(labels.astype(np.uint8), 2), 1, 4000)
    packed = mesh.encoded(found, labels.shape)
    points, faces = decoded_mesh(packed)
    assert len(faces) == len(found.faces) == packed["faces"]
    apart = points[faces] - found.points[found.faces]
    assert np.abs(apart).max() <= packed["step"] / 2 + 1e-4
    assert len(packed["data"]) < 8 * len(faces)


def hollow_balls(n=48):
    """Two balls with a hole in each: one closed, one joined to the outside by a channel. Also the closed hole."""
    z, y, x = np.indices((n, n, 2 * n)) - n // 2
    labels = np.zeros(z.shape, np.uint8)
    near, far = np.sqrt(z**2 + y**2 + x**2), np.sqrt(z**2 + y**2 + (x - n) ** 2)
    labels[(near < n * 0.45) | (far < n * 0.45)] = 1
    holes = (near < n * 0.2, far < n * 0.2)
    labels[holes[0] | holes[1]] = 0
    labels[(abs(z) < 2 * n // 16) & (abs(y) < 2 * n // 16) & (x - n > 0)] = 0
    return labels, holes[0]


@pytest.mark.parametrize("n_cells", [10**9, 48 * 48 * 96 // 8])
def test_closed_pores_are_a_further_body(n_cells):
    labels, hole = hollow_balls()
    found = fractions.with_closed_pores(fractions.fractions(labels, 2, most_cells=n_cells))
    assert len(found.of) == 2
    voxels = found.of[1].sum() / found.full * found.factor**3
    assert voxels == pytest.approx(hole.sum(), rel=0.02 if found.factor > 1 else 0)
    k = found.factor
    inside = np.argwhere(found.of[1] > 0) * k
    assert abs(inside.mean(axis=0) + (k - 1) / 2 - 24).max() < 1
    labels[24, 24, :24] = 0  # a way out as wide as a voxel
    if k == 1:
        assert len(fractions.with_closed_pores(fractions.fractions(labels, 2)).of) == 1


def test_closed_pores_are_drawn_where_the_measurement_counts_them():
    labels, _ = hollow_balls()
    held = MemoryInput(labels, {"class_names": ["vacuum", "support"], "voxel_size_nm": 1.0})
    for n_closed, names in ((1, ["support", "closed pores of support"]), (0, ["support"])):
        support = MemoryInput(attrs={"n_closed_pores": n_closed})
        results = Results({"labels": held, "support_info": support}, (), "balls")
        assert [body.name for body in results.bodies] == names
        drawn = interactive.surfaces_data(results)
        assert [mesh["index"] for mesh in drawn["classes"]] == list(range(1, len(names) + 1))
        assert "closed pores" in str(interactive.surfaces_control(results)) or n_closed == 0
