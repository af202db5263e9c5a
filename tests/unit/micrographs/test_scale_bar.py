"""Scale bars drawn into small micrographs: where they are, how long, and what their labels say."""

import math
import warnings

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from tomoseg.errors import InputError
from tomoseg.micrographs import scale_bar
from tomoseg.micrographs.scale import rulers
from tomoseg.micrographs.scale.bars import Bar, Ink, find_bars
from tomoseg.micrographs.scale.ends import bar_ends, blends
from tomoseg.micrographs.scale.labels import Label, _doubts, letters_ink
from tomoseg.micrographs.scale.lengths import parse_label, roundness
from tomoseg.micrographs.scale.letters import Letters
from tomoseg.micrographs.scale.pairing import Pair, pairs, placing
from tomoseg.micrographs.scale.picture import Picture, as_picture
from tomoseg.micrographs.scale.texts import Text, is_installed

FONT = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"

needs_engine = pytest.mark.skipif(not is_installed(), reason="rapidocr and openvino are not installed")


@pytest.fixture(autouse=True)
def _others_warnings():
    """RapidOCR's own dependencies use what Python deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def micrograph(shape=(300, 400), level=0.35, noise=0.04, seed=0):
    """Return a noisy micrograph (y, x) with a few round particles, 0 to 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, level)
    for _ in range(6):
        cy, cx, r = rng.uniform(20, shape[0] / 2), rng.uniform(20, shape[1] - 20), rng.uniform(5, 15)
        image[np.hypot(y - cy, x - cx) < r] = 0.7
    return image + noise * rng.standard_normal(shape)


def burnt(image, text, bar=(250, 40, 257, 190), ink=1.0, label_at=None, size=26):
    """Return the image, 8 bit, with a bar (y0, x0, y1, x1) and a label above it."""
    picture = Image.fromarray(np.uint8(np.clip(image, 0, 1) * 255))
    draw = ImageDraw.Draw(picture)
    y0, x0, y1, x1 = bar
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=round(255 * ink))
    if text:
        font = ImageFont.truetype(FONT, size)
        draw.text(label_at or ((x0 + x1) / 2, y0 - 8), text, fill=round(255 * ink), font=font, anchor="mb")
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("text", "nm"),
    [
        ("50 nm", 50),
        ("0.2 um", 200),
        ("0,5 µm", 500),
        ("2 μm", 2000),
        ("5 Å", 0.5),
        ("5 A", 0.5),
        ("1000nm", 1000),
        ("500 pm", 0.5),
        ("1 mm", 1e6),
        ("Scale bar: 20 nm", 20),
    ],
)
def test_a_label_is_a_number_and_a_unit_of_length(text, nm):
    assert parse_label(text).nm == pytest.approx(nm)


@pytest.mark.parametrize("text", ["HV 200 kV", "50", "nm", "50 kx", "12/3/2021", "HFW 2.5 µm", "50 nm 20 kV", ""])
def test_other_text_is_no_label(text):
    assert parse_label(text) is None


@pytest.mark.parametrize("text", ["05 µm", "1,000 nm", "0 nm"])
def test_a_number_that_cannot_be_meant_is_doubted(text):
    assert parse_label(text).doubt


def test_a_letter_read_for_a_digit_is_repaired_and_told():
    length = parse_label("1O0 nm")
    assert length.nm == 100
    assert length.repaired


def test_bars_have_round_lengths():
    assert [roundness(v) for v in (0.02, 2.5, 500)] == [1, 1, 1]
    assert roundness(30) < 1
    assert roundness(37) < roundness(30)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_depth_is_brought_to_one_scale(dtype):
    image = (micrograph() * 200).astype(dtype)
    values = as_picture(image).values
    assert values.shape == (300, 400, 1)
    assert np.median(values) == pytest.approx(np.median(as_picture(micrograph()).values), abs=0.05)


def test_what_is_no_image_is_refused():
    with pytest.raises(InputError, match="not a micrograph"):
        scale_bar.read_scale_bar(np.zeros((5, 40, 40, 3)))
    with pytest.raises(InputError, match="too small"):
        scale_bar.read_scale_bar(np.zeros((10, 400)))


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 0.8])
def test_ends_of_an_antialiased_bar_are_found_to_a_part_of_a_pixel(shift):
    image = micrograph(noise=0.01)
    coverage = np.clip(np.arange(400) - (40 + shift) + 1, 0, 1) * np.clip(190.5 - np.arange(400), 0, 1)
    image[250:257] += coverage * (1 - image[250:257])
    ends = bar_ends(picture := as_picture(image), find_bars(picture)[0])
    assert (ends.left, ends.right) == pytest.approx((40 + shift, 190.5), abs=0.15)


def test_a_bar_with_ticks_is_measured_between_their_middles():
    image = micrograph(noise=0.01)
    image[250:254, 40:190] = 1
    for x in (40, 190):
        image[242:262, x - 1 : x + 2] = 1
    picture = as_picture(image)
    ends = bar_ends(picture, next(bar for bar in find_bars(picture) if bar.length > 100))
    assert ends.length == pytest.approx(150, abs=0.5)
    assert ends.tick == pytest.approx(3, abs=0.6)


def test_segments_are_one_bar():
    image = micrograph(noise=0.01)
    for i in range(5):
        image[250:258, 40 + 30 * i : 70 + 30 * i] = 1.0 if i % 2 == 0 else 0.0
    bars = find_bars(as_picture(image))
    assert any(bar.kind == "segmented" and (bar.box[1], bar.box[3]) == (40, 190) for bar in bars)


def test_a_ground_like_the_ink_is_no_segment():
    image = micrograph(noise=0.0, level=0.4)
    image[240:270, 35:300] = 1.0
    for x in range(40, 190, 36):
        image[250:256, x : x + 18] = 0.0
    image[244:262, 20:35] = 0.4
    bars = find_bars(as_picture(image), Ink(np.float32([0.25]), 0.75))  # small letters are not quite black
    assert all(bar.box[1] >= 40 for bar in bars if bar.kind == "segmented" and bar.contrast > 0.5)


def test_an_ink_bar_ends_where_it_runs_into_something_of_another_colour():
    image = micrograph(noise=0.0)
    image[230:275, 20:60] = 0.8
    image[250:257, 40:190] = 1.0
    picture = as_picture(image)
    bars = find_bars(picture, Ink(np.float32([picture.values.max()]), 0.65))
    assert any(bar.box[1::2] == (40, 190) for bar in bars)


def test_a_bar_that_runs_into_something_of_its_colour_is_told():
    image = micrograph(noise=0.0)
    image[250:254, 40:190] = 1.0
    picture = as_picture(image)
    bar = next(bar for bar in find_bars(picture) if bar.length > 100)
    assert not blends(picture, bar, bar_ends(picture, bar))
    image[230:254, 40:70] = 1.0
    picture = as_picture(image)
    assert blends(picture, bar, bar_ends(picture, bar))


def test_an_outline_tells_a_bar_from_a_ground_of_its_colour():
    image = micrograph(noise=0.0)
    image[230:275, 20:210] = 0.9
    image[249:258, 39:191] = 0.0
    image[250:257, 40:190] = 1.0
    picture = as_picture(image)
    bar = next(bar for bar in find_bars(picture) if bar.box == (250, 40, 257, 190))
    assert not blends(picture, bar, bar_ends(picture, bar))


def test_a_cut_row_of_a_thin_bar_does_not_rival_it():
    image = micrograph(noise=0.0, level=0.1)
    image[250, 40:150] = image[251, 40:190] = 1.0
    picture = as_picture(image)
    best = pairs(picture, find_bars(picture), (215, 80, 240, 150), Ink(np.float32([1.0]), 1.0))[0]
    assert best.bar.length == 150
    assert not best.rivalled


@pytest.mark.parametrize(("length", "doubted"), [(150, False), (146, True)])
def test_ends_that_are_seen_only_where_it_is_smooth_are_doubted(length, doubted, monkeypatch):
    box = (250, 40, 252, 190)
    faint = Bar((250, 40, 252, 40 + length), np.float32([1.0]), 0.2, "solid", ((250, 40, 252, 40 + length),))
    clear = Bar(box, np.float32([1.0]), 0.9, "solid", (box,))
    monkeypatch.setattr(scale_bar, "_ways_to_find", lambda *_: iter([[faint], [clear]]))
    picture = as_picture(micrograph())
    pair = scale_bar._pair(picture, (215, 80, 240, 150), Ink(np.float32([1.0]), 1.0))
    assert pair.bar is clear
    assert pair.rivalled is doubted


@pytest.mark.parametrize("text", ["50 rm", "T0.050m", "0:00m"])
def test_a_misread_label_is_told(text):
    image = as_picture(micrograph())
    assert text in scale_bar._unread(image, [Text((215, 80, 240, 150), text, 0.9)]).warnings[0]


def test_other_words_are_no_misread_label():
    image = as_picture(micrograph())
    assert not scale_bar._unread(image, [Text((215, 80, 240, 150), "50 kx", 0.9)]).warnings


@pytest.mark.parametrize("hollow", [True, False])
def test_an_outline_is_the_bar_only_where_nothing_fills_it(hollow):
    image = micrograph(noise=0.0, level=0.1)
    image[250:264, 40:190] = 1.0
    image[253:261, 43:187] = 0.1 if hollow else 0.5
    label = (215, 80, 240, 150)
    image[220:236:3, 82:148] = 1.0 if hollow else 0.5
    picture = as_picture(image)
    best = pairs(picture, find_bars(picture), label, Ink(np.float32([1.0]), 1.0))[0]
    assert best.bar.box == ((250, 40, 264, 190) if hollow else (253, 43, 261, 187))
    assert not best.rivalled


def test_a_line_of_an_outline_is_not_the_bar():
    image = micrograph(noise=0.0, level=0.1)
    image[250:270, 40:190] = 1.0
    image[255:265, 45:185] = 0.5
    image[220:236:3, 82:148] = 0.5
    picture = as_picture(image)
    best = pairs(picture, find_bars(picture), (215, 80, 240, 150), Ink(np.float32([1.0]), 1.0))[0]
    assert best.bar.box == (255, 45, 265, 185)


def test_an_outline_of_the_letters_colour_is_in_doubt():
    image = micrograph(noise=0.0, level=0.1)
    image[250:264, 40:190] = 1.0
    image[253:261, 43:187] = 0.5
    picture = as_picture(image)
    assert pairs(picture, find_bars(picture), (215, 80, 240, 150), Ink(np.float32([1.0]), 1.0))[0].rivalled


def test_a_bar_interrupted_by_its_label_may_lie_on_something_bright():
    image = micrograph(noise=0.0, level=0.1)
    image[230:270, 75:100] = 0.8
    image[250:252, 40:90] = image[250:252, 140:190] = 1.0
    bars = find_bars(as_picture(image))
    assert next(bar for bar in bars if bar.kind == "interrupted" and bar.length == 150).contrast > 0.4


def test_segments_may_lie_on_something_bright():
    image = micrograph(noise=0.0, level=0.1)
    image[230:270, 95:140] = 0.8
    for i in range(5):
        image[250:258, 40 + 30 * i : 70 + 30 * i] = 1.0 if i % 2 == 0 else 0.0
    bars = find_bars(as_picture(image))
    assert next(bar for bar in bars if bar.kind == "segmented" and bar.length == 150).contrast > 0.4


@pytest.mark.parametrize(("points", "refused"), [((1,), True), ((1, 3), False)])
def test_more_points_than_one_are_noise(points, refused):
    boxes = np.array([(0, 20 * i, 30, 20 * i + 15) for i in range(5)])
    letters = Letters(np.zeros((40, 110), bool), boxes, points, 30.0, 30.0, 1.0)
    assert _doubts(parse_label("500 nm"), letters)[1] is refused


def test_feet_of_letters_are_no_row_of_a_segmented_bar():
    image = micrograph(noise=0.0, level=0.0)
    for x in (40, 80, 120):
        image[262:270, x : x + 20] = 1.0
    for x in range(90, 160, 13):
        image[225:250, x : x + 6] = 1.0
        image[250, x : x + 6] = 0.6
    bars = find_bars(as_picture(image))
    assert [bar.box[1::2] for bar in bars if bar.kind == "segmented" and bar.box[2] > 260] == [(40, 140)]


@pytest.mark.parametrize(
    ("label", "fits"),
    [((240, 95, 262, 135), True), ((240, 110, 262, 120), False), ((240, 70, 262, 120), False)],
)
def test_a_label_fills_the_gap_of_its_bar(label, fits):
    parts = ((250, 40, 252, 90), (250, 140, 252, 190))
    bar = Bar((250, 40, 252, 190), np.float32([1.0]), 1.0, "interrupted", parts)
    assert (placing(label, bar) is not None) is fits


def test_a_bar_that_goes_on_behind_its_label_is_in_doubt():
    image = micrograph(noise=0.0, level=0.1)
    image[227:229, 20:70] = 1.0
    picture = as_picture(image)
    ink, label = Ink(np.float32([1.0]), 1.0), (215, 80, 240, 150)
    assert not pairs(picture, find_bars(picture), label, ink)[0].rivalled
    image[227:230, 160:205] = 1.0
    picture = as_picture(image)
    bars = [bar for bar in find_bars(picture) if bar.box == (227, 20, 229, 70)]
    assert pairs(picture, bars, label, ink)[0].rivalled


def test_a_blurred_row_does_not_make_its_bar_a_ground():
    image = micrograph(noise=0.0, level=0.1)
    image[250:257, 40:190] = 1.0
    image[249, 45:185] = 0.5
    picture = as_picture(image)
    rows = [((250, 40, 257, 190), 0.9), ((249, 45, 250, 185), 0.4)]
    bars = [Bar(box, np.float32([1.0]), contrast, "solid", (box,)) for box, contrast in rows]
    assert pairs(picture, bars, (215, 80, 240, 150), Ink(np.float32([1.0]), 1.0))[0].bar is bars[0]


def test_a_stroke_of_the_label_does_not_part_an_interrupted_bar():
    image = micrograph(noise=0.0, level=0.1)
    image[250:252, 40:90] = image[250:252, 140:190] = image[250:252, 110:120] = 1.0
    bars = find_bars(as_picture(image))
    assert any(bar.kind == "interrupted" and bar.length == 150 for bar in bars)


@pytest.mark.parametrize("third", [False, True])
def test_parts_of_an_interrupted_bar_are_neighbours(third):
    image = micrograph(noise=0.0, level=0.1)
    image[250:252, 40:70] = image[250:252, 210:240] = 1.0
    if third:
        image[250:252, 120:140] = 1.0
    bars = find_bars(as_picture(image))
    assert any(bar.kind == "interrupted" and bar.length == 200 for bar in bars) is not third


def test_what_lies_beyond_a_narrow_box_is_not_the_ground_of_a_bar_in_colour():
    image = np.repeat(micrograph(noise=0.0, level=0.2)[..., None], 3, axis=2)
    image[240:280, 37:193] = 1.0
    image[250:257, 40:190] = (0.2, 0.9, 0.2)
    picture = as_picture(image)
    bar = next(bar for bar in find_bars(picture) if bar.box == (250, 40, 257, 190))
    assert bar_ends(picture, bar).length == pytest.approx(150, abs=0.5)


def test_blurred_ends_in_colour_are_not_taken_for_a_narrow_ground():
    image = np.repeat(micrograph(noise=0.0, level=0.3)[..., None], 3, axis=2)
    image[250:257, 40:190] = (0.9, 0.1, 0.1)
    image = ndimage.gaussian_filter(image, (0, 1.5, 0))
    picture = as_picture(image)
    box = (250, 43, 257, 187)
    bar = Bar(box, picture.values[253, 115], 0.4, "solid", (box,))
    assert bar_ends(picture, bar).length == pytest.approx(150, abs=0.7)


@pytest.mark.parametrize("strip", ["beside", "around"])
def test_what_is_left_of_a_box_beside_its_bar_is_not_the_bar(strip):
    image = micrograph(noise=0.0, level=0.4)
    image[205:262, 35:195] = 1.0
    image[254:256, 40:190] = 0.0
    if strip == "around":  # close to the upper edge, the label below
        image = np.roll(image, -45, axis=0)
        image[200:213] = 0.4
        image[213:262, 35:195] = 1.0
        image[215:216, 40:190] = 0.0
    label = (220, 80, 240, 150)
    picture = as_picture(image)
    best = pairs(picture, find_bars(picture, Ink(np.float32([0.0]), 1.0)), label, Ink(np.float32([0.0]), 1.0))[0]
    assert best.bar.length == 150


def test_the_ink_of_letters_is_not_what_lies_beyond_their_box():
    image = micrograph(noise=0.0, level=0.0)
    image[200:240] = 1.0
    image[212:226:2, 60:140] = 0.6
    ink = letters_ink(as_picture(image), (205, 50, 242, 150))
    assert ink.contrast == pytest.approx(0.4, abs=0.05)


def test_a_faint_bar_is_used_in_doubt(monkeypatch):
    box = (250, 40, 252, 190)
    faint = Bar(box, np.float32([1.0]), 0.3, "solid", (box,))
    monkeypatch.setattr(scale_bar, "_ways_to_find", lambda *_: iter([[faint]]))
    pair = scale_bar._pair(as_picture(micrograph()), (215, 80, 240, 150), Ink(np.float32([1.0]), 1.0))
    assert pair.bar is faint
    assert pair.rivalled


@pytest.mark.parametrize(("contrast", "doubted"), [(0.15, True), (0.4, False)])
def test_a_bar_that_hardly_stands_out_is_in_doubt(contrast, doubted, monkeypatch):
    box = (250, 40, 252, 190)
    bar = Bar(box, np.float32([0.6]), contrast, "solid", (box,))
    monkeypatch.setattr(scale_bar, "_ways_to_find", lambda *_: iter([[bar]]))
    pair = scale_bar._pair(as_picture(micrograph()), (215, 80, 240, 150), Ink(np.float32([0.6]), 0.3))
    assert pair.rivalled is doubted


@pytest.mark.parametrize(
    ("clearer", "doubted"),
    [
        ((244, 37, 250, 194), True),  # right above, and longer: the bar itself, which runs into something
        ((244, 40, 250, 190), False),  # its ends are the same
        ((230, 37, 236, 194), False),  # another bar, further away
        ((244, 60, 250, 194), False),  # one that begins elsewhere
    ],
)
def test_the_blurred_edge_of_a_clearer_bar_is_in_doubt(clearer, doubted, monkeypatch):
    boxes = ((250, 40, 251, 190), clearer)
    edge, bar = (Bar(box, np.float32([1.0]), c, "solid", (box,)) for box, c in zip(boxes, (0.5, 0.9), strict=True))
    monkeypatch.setattr(scale_bar, "_ways_to_find", lambda *_: iter([[edge, bar]]))
    monkeypatch.setattr(scale_bar, "pairs", lambda *_: [Pair(edge, (215, 80, 240, 150), 0.0, "above")])
    pair = scale_bar._pair(as_picture(micrograph()), (215, 80, 240, 150), Ink(np.float32([1.0]), 0.5))
    assert pair.rivalled is doubted


@pytest.mark.timeout(20)
@pytest.mark.parametrize("step", [2, 3, 4, 7])
def test_a_ruler_of_close_ticks_is_completed_and_ends(step):
    values = np.zeros((30, 120), np.float32)
    values[10:20, 20 : 20 + 12 * step : step] = 1.0
    parts = tuple((10, x, 20, x + 1) for x in range(20 + 2 * step, 20 + 8 * step, step))  # two at one end, four missing
    ink = Ink(np.float32([1.0]), 1.0)
    ruler = Bar((10, parts[0][1], 20, parts[-1][3]), ink.colour, 1.0, "ruler", parts)
    found = rulers._completed(Picture(values[..., None]), ruler, ink)
    middles = [part[1] for part in found.parts]
    assert len(set(middles)) == len(middles)
    if step > 3:  # closer ones cannot be told from a grey area
        assert middles == list(range(20, 20 + 12 * step, step))


@pytest.mark.timeout(20)
def test_a_ruler_whose_last_tick_is_all_there_is_ends():
    values = np.zeros((30, 120), np.float32)
    values[10:20, [20, 22, 24, 26, 28, 30]] = 1.0
    parts = tuple((10, x, 20, x + 1) for x in (20, 22, 24, 26, 28, 30))
    ink = Ink(np.float32([1.0]), 1.0)
    ruler = Bar((10, 20, 20, 31), ink.colour, 1.0, "ruler", parts)
    assert rulers._completed(Picture(values[..., None]), ruler, ink).parts == parts


def test_a_segmented_bar_in_the_box_of_its_label_is_no_stroke():
    parts = tuple((222, 45 + 40 * i, 226, 65 + 40 * i) for i in range(4))
    bar = Bar((222, 45, 226, 185), np.float32([1.0]), 1.0, "segmented", parts)
    picture = as_picture(micrograph())
    assert pairs(picture, [bar], (220, 40, 262, 190), Ink(np.float32([1.0]), 1.0))


def test_a_clear_bar_is_in_doubt_where_a_faint_one_is_likelier(monkeypatch):
    parts = ((227, 20, 229, 70), (227, 160, 229, 210))
    around = Bar((227, 20, 229, 210), np.float32([1.0]), 0.3, "interrupted", parts)
    box = (227, 240, 229, 290)  # a stroke of what is written next to it
    stroke = Bar(box, np.float32([1.0]), 0.9, "solid", (box,))
    monkeypatch.setattr(scale_bar, "_ways_to_find", lambda *_: iter([[around, stroke]]))
    pair = scale_bar._pair(as_picture(micrograph()), (215, 80, 240, 180), Ink(np.float32([1.0]), 1.0))
    assert pair.bar is stroke
    assert pair.rivalled


@needs_engine
def test_a_label_found_in_one_box_with_its_bar_is_read():
    image = micrograph(noise=0.0, level=0.0)
    for x0, x1 in ((40, 110), (220, 290)):
        image[250:252, x0:x1] = 1.0
    picture = Image.fromarray(np.uint8(255 * np.clip(image, 0, 1)))
    ImageDraw.Draw(picture).text((165, 251), "50 nm", fill=255, font=ImageFont.truetype(FONT, 26), anchor="mm")
    found = scale_bar._between_bars(as_picture(np.asarray(picture)), [Text((235, 38, 267, 292), "T50nmT", 0.9)])
    assert [text.text.replace(" ", "") for text in found] == ["50nm"]
    assert found[0].box[1] >= 110
    assert found[0].box[3] <= 220


def test_mm_that_no_micrograph_has_are_nm_in_doubt():
    label = Label(parse_label("2 mm"), 1.0, (), False, Ink(np.float32([1.0]), 1.0))
    meant = scale_bar._with_possible_unit(label, 60.0)
    assert meant.length.nm == 2
    assert meant.confidence < 0.6
    assert scale_bar._with_possible_unit(label, 1e4) is label


def test_a_dash_before_a_number_is_the_bar():
    assert parse_label("一50 nm").nm == 50


def test_a_box_behind_bar_and_label_is_not_the_bar():
    image = micrograph()
    image[200:280, 20:210] = 0.0
    picture = as_picture(burnt(image, ""))
    assert pairs(picture, find_bars(picture), (215, 80, 240, 150), Ink(np.float32([1.0]), 1.0))[0].bar.box == (
        250,
        40,
        257,
        190,
    )


@needs_engine
@pytest.mark.parametrize(
    ("text", "nm"), [("50 nm", 50), ("0,5 µm", 500), ("2 µm", 2000), ("1000nm", 1000), ("2.5 nm", 2.5)]
)
def test_the_scale_is_read(text, nm):
    found = scale_bar.read_scale_bar(burnt(micrograph(), text))
    assert found.length_nm == pytest.approx(nm)
    assert found.length_px == pytest.approx(150, abs=0.3)
    assert found.pixel_size_nm == pytest.approx(nm / 150, rel=0.003)
    assert found.confidence > 0.6
    assert not found.warnings


@needs_engine
def test_a_label_seen_only_from_near_its_bar_is_read(monkeypatch):
    find_texts = scale_bar.find_texts
    monkeypatch.setattr(
        scale_bar, "find_texts", lambda picture, box: find_texts(picture, box) if box[3] - box[1] < 260 else []
    )
    found = scale_bar.read_scale_bar(burnt(micrograph((600, 800)), "50 nm"))
    assert found.length_nm == 50
    assert not found.warnings


@needs_engine
def test_bar_and_label_are_furniture():
    found = scale_bar.read_scale_bar(burnt(micrograph(), "50 nm"))
    assert found.mask[250:257, 40:190].all()
    y0, x0, y1, x1 = found.label_box
    assert found.mask[y0:y1, x0:x1].all()
    assert found.mask.mean() < 0.15


@needs_engine
def test_a_footer_strip_is_furniture_whole():
    image = micrograph()
    image[230:] = 0.0
    found = scale_bar.read_scale_bar(burnt(image, "50 nm", bar=(284, 40, 290, 190)))
    assert found.length_nm == 50
    assert found.mask[230:].all()
    assert not found.mask[:225].any()


@needs_engine
@pytest.mark.parametrize("colour", [(255, 255, 0), (255, 0, 0)])
def test_a_bar_in_colour_is_read(colour):
    image = np.repeat(burnt(micrograph(), "")[..., None], 3, axis=2)
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((40, 250, 189, 256), fill=colour)
    draw.text((115, 242), "20 nm", fill=colour, font=ImageFont.truetype(FONT, 26), anchor="mb")
    found = scale_bar.read_scale_bar(np.asarray(picture))
    assert (found.length_nm, found.length_px) == (20, pytest.approx(150, abs=0.5))


@needs_engine
@pytest.mark.parametrize("seed", range(3))
def test_a_micrograph_without_a_bar_has_none(seed):
    image = micrograph(seed=seed, noise=[0.0, 0.05, 0.1][seed])
    image[60:70, 100:300] = 1.0  # a saturated stripe
    found = scale_bar.read_scale_bar(image)
    assert found.box is None
    assert math.isnan(found.pixel_size_nm)
    assert not found.warnings
    assert not found.mask.any()


@needs_engine
def test_a_label_without_a_bar_gives_no_scale():
    image = burnt(micrograph(), "50 nm", bar=(290, 200, 292, 203), label_at=(200, 200))
    found = scale_bar.read_scale_bar(image)
    assert math.isnan(found.pixel_size_nm)
    assert "no scale bar" in found.warnings[0]


@needs_engine
def test_a_unit_beside_a_bar_tells_that_there_is_one():
    found = scale_bar.read_scale_bar(burnt(micrograph(), "nm"))
    assert math.isnan(found.pixel_size_nm)
    assert "seems to have a scale bar of 150.0 px" in found.warnings[0]
    assert found.mask[253, 100]


@needs_engine
def test_two_bars_that_disagree_are_told():
    one = burnt(micrograph(), "50 nm", bar=(250, 40, 257, 140))
    both = burnt(one / 255, "20 nm", bar=(250, 260, 257, 360))
    found = scale_bar.read_scale_bar(both)
    assert len(found.others) == 1
    assert any("disagree" in text for text in found.warnings)
    assert found.confidence < 0.5


def test_without_an_engine_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr(scale_bar, "is_installed", lambda: False)
    found = scale_bar.read_scale_bar(burnt(micrograph(), "50 nm"))
    assert math.isnan(found.pixel_size_nm)
    assert "not installed" in found.warnings[0]


@needs_engine
@pytest.mark.parametrize(("name", "nm"), [("067", 50), ("070", 50), ("086", 100)])
def test_real_scale_bars(real_data, name, nm):
    image = np.asarray(Image.open(real_data / f"images-2d/scalebar_bf/{name}_3_img.png"))
    found = scale_bar.read_scale_bar(image)
    assert found.length_nm == nm
    assert found.length_px == pytest.approx(386, abs=1)
    assert not found.warnings
