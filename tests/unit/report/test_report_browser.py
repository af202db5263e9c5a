"""The page in a real browser: sliders move pictures, surfaces turn, tables sort, nothing is complained about."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.unit.report.test_report_page import HOSTILE, everything, records, with_assessment
from tomoseg.arrays import MemoryInput
from tomoseg.report.page.page import write_report
from tomoseg.report.results import Results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
        )
        yield opened
        opened.close()


def particles(n):
    """Return a table of particles whose order by diameter is neither that of the ids nor that of letters."""
    table = np.zeros(
        n, [("id", "i4"), ("diameter_nm", "f8"), ("diameter_px", "f8"), *((f"{a}_px", "f8") for a in "zyx")]
    )
    table["id"] = np.arange(1, n + 1)
    table["diameter_nm"] = 2.0 + (np.arange(n) * 7) % n
    table["diameter_nm"][3] = np.nan
    return table


def written(folder, artifacts, **more):
    path = folder / "report.html"
    command, surfaces_px = "tomoseg run a.mrc \\\n    -o b.h5", 200
    write_report(path, Results(artifacts, records(**more), more.get("text", "sample"), surfaces_px), command)
    return path


@pytest.fixture(scope="module")
def artifacts():
    """Return a small project with everything; its particles stand where they are."""
    made = with_assessment(everything())
    phantom_table = made["particle_table"].array
    table = particles(40)
    labels = made["labels"].array
    inside = np.argwhere(labels == 2)
    for i, (z, y, x) in enumerate(inside[np.linspace(0, len(inside) - 1, 40).astype(int)]):
        table["z_px"][i], table["y_px"][i], table["x_px"][i] = z, y, x
    table["diameter_px"] = phantom_table["diameter_px"].mean()
    return made | {"particle_table": MemoryInput(table)}


@pytest.fixture(scope="module")
def report(artifacts, tmp_path_factory):
    return written(tmp_path_factory.mktemp("page"), artifacts)


class Seen:
    """An open page, and what it complained about or asked for."""

    def __init__(self, browser, path, viewport=None, **options):
        self.context = browser.new_context(viewport=viewport or WIDE, **options)
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("dialog", lambda d: self.complaints.append(f"dialog: {d.message}"))
        self.page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            self.page.wait_for_function("document.querySelectorAll('.choice:not(.on)').length === 0")
            self.page.wait_for_timeout(300)

    def picture(self, selector):
        """Return what is seen of the first element that fits, (y, x, 3)."""
        return np.asarray(Image.open(io.BytesIO(self.page.locator(selector).first.screenshot())).convert("RGB"), int)

    def pixels(self, selector):
        """Return the content of a 2D canvas."""
        uri = self.page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), int)

    def move(self, selector, value):
        self.page.locator(selector).first.evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }",
            str(value),
        )
        self.page.wait_for_timeout(250)

    def shown(self, selector):
        return self.page.locator(selector).first.is_visible()


@pytest.fixture
def look(browser, report):
    """Return a function that opens the page; everything it opens must be without complaint and ask for nothing."""
    opened = []

    def opening(path=report, **options):
        opened.append(Seen(browser, path, **options))
        return opened[-1]

    yield opening
    for seen in opened:
        seen.context.close()
        assert seen.complaints == []
        assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []
        assert sum(url.startswith("file:") for url in seen.requests) == 1


def test_the_tilt_slider_turns_both_series(look):
    seen = look()
    slider = "[data-kind=tilts] input[type=range]"
    output = seen.page.locator("[data-kind=tilts] output")
    before = [seen.pixels(f"canvas[data-series={name}]") for name in ("raw", "aligned")]
    assert all(image.std() > 5 for image in before)
    seen.move(slider, 0)
    assert output.text_content().startswith("−68°")
    assert "shift x" in output.text_content()
    for name, image in zip(("raw", "aligned"), before, strict=True):
        assert np.abs(seen.pixels(f"canvas[data-series={name}]") - image).mean() > 2
    seen.page.locator(slider).focus()
    seen.page.keyboard.press("ArrowRight")
    seen.page.wait_for_timeout(200)
    assert output.text_content().startswith("−51°")


def test_the_series_plays_and_stops(look):
    seen = look()
    output = seen.page.locator("[data-kind=tilts] output")
    before = output.text_content()
    seen.page.locator("[data-kind=tilts] button").click()
    seen.page.wait_for_function(
        "before => document.querySelector('[data-kind=tilts] output').textContent !== before", arg=before
    )
    seen.page.locator("[data-kind=tilts] button").click()
    seen.page.wait_for_timeout(150)
    stopped = output.text_content()
    seen.page.wait_for_timeout(400)
    assert output.text_content() == stopped


@pytest.mark.parametrize(("plane", "axis"), [("xy", "z"), ("zy", "x"), ("xz", "y")])
def test_the_slice_sliders_move_their_slices(look, plane, axis):
    seen = look()
    panel = f"[data-overlay='0'] [data-plane={plane}]"
    before = seen.pixels(f"{panel} canvas")
    seen.move(f"{panel} input", 30)
    assert np.abs(seen.pixels(f"{panel} canvas") - before).mean() > 0.5
    assert seen.page.locator(f"{panel} output").text_content() == f"{axis} = 30 of 48 · 15\u00a0nm"


def test_a_slice_is_that_of_the_volume(look, artifacts):
    seen = look()
    seen.page.locator("[data-overlay='0'] [data-role=lines]").uncheck()
    for at in (10, 33):
        seen.move("[data-overlay='0'] [data-plane=xz] input", at)
        drawn = seen.pixels("[data-overlay='0'] [data-plane=xz] canvas").mean(axis=2)
        zoom = drawn.shape[0] // 48
        exact = artifacts["volume"].array[:, at].astype(float)
        exact = np.clip(exact, 0, np.percentile(artifacts["volume"].array, 99.5))
        part = (slice(8, 38), slice(8, 48))  # away from letters and scale bar
        found = drawn[zoom // 2 :: zoom, zoom // 2 :: zoom]
        assert np.corrcoef(found[part].ravel(), exact[part].ravel())[0, 1] > 0.95


def test_a_click_moves_the_other_slices(look):
    seen = look()
    canvas = seen.page.locator("[data-overlay='0'] [data-plane=xy] canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 10.5 / 48, "y": box["height"] * 40.5 / 48})
    seen.page.wait_for_timeout(200)
    outputs = [seen.page.locator(f"[data-overlay='0'] [data-plane={p}] output").text_content() for p in ("zy", "xz")]
    assert [text.split(" of")[0] for text in outputs] == ["x = 10", "y = 40"]


def test_classes_opacity_and_confidence(look):
    seen = look()
    root = "[data-overlay='1']"
    canvas = f"{root} [data-plane=xy] canvas"
    seen.page.locator(f"{root} [data-role=lines]").uncheck()

    def blue():
        image = seen.pixels(canvas)
        return int((image[..., 2] > image[..., 0] + 60).sum())

    painted = blue()
    assert painted > 1000
    seen.page.locator(f"{root} [data-class='1']").uncheck()
    seen.page.wait_for_timeout(200)
    assert blue() == 0
    seen.page.locator(f"{root} [data-class='1']").check()
    seen.move(f"{root} [data-role=opacity]", 1)
    opaque = seen.pixels(canvas)
    assert (np.abs(opaque - [0, 114, 178]).max(axis=2) <= 2).sum() >= painted
    seen.move(f"{root} [data-role=opacity]", 0)
    assert blue() == 0
    seen.page.locator(f"{root} [data-role=confidence]").check()
    seen.page.wait_for_timeout(200)
    certain = seen.pixels(canvas)[300:400, 300:400]  # 255 everywhere: yellow
    assert np.abs(certain - [254, 232, 56]).max() < 12


def turned(seen, action):
    before = seen.picture(".stage")
    action()
    seen.page.wait_for_timeout(400)
    return np.abs(seen.picture(".stage") - before).mean()


def test_the_surfaces_are_drawn_in_their_colors(look):
    picture = look().picture(".stage")
    orange = (picture[..., 0] > picture[..., 2] + 60).sum()
    bluish = (picture[..., 2] > picture[..., 0] + 8).sum()
    assert orange > 100
    assert bluish > 0.05 * picture[..., 0].size


def test_the_surfaces_turn_by_mouse_keys_and_buttons(look):
    seen = look()
    box = seen.page.locator(".gl").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag():
        seen.page.mouse.move(x, y)
        seen.page.mouse.down()
        seen.page.mouse.move(x + 90, y + 30, steps=6)
        seen.page.mouse.up()

    start = seen.picture(".stage")
    assert turned(seen, lambda: None) == 0
    assert turned(seen, drag) > 1
    seen.page.locator(".gl").focus()
    assert turned(seen, lambda: seen.page.keyboard.press("ArrowLeft")) > 0.5
    assert turned(seen, lambda: seen.page.keyboard.press("+")) > 0.5
    assert turned(seen, lambda: seen.page.mouse.wheel(0, -300)) > 0.5
    seen.page.locator("[data-does=reset]").click()
    seen.page.locator("h1").click()  # no outline of the focus in the picture
    seen.page.wait_for_timeout(400)
    assert np.abs(seen.picture(".stage") - start).mean() < 0.05


def test_the_surfaces_turn_by_themselves_only_when_asked(look):
    seen = look()
    seen.page.locator("[data-role=rotate]").check()
    assert turned(seen, lambda: seen.page.wait_for_timeout(300)) > 0.3
    seen.page.locator("[data-role=rotate]").uncheck()
    seen.page.wait_for_timeout(300)
    assert turned(seen, lambda: seen.page.wait_for_timeout(300)) == 0


def test_classes_of_the_surfaces_can_be_left_out(look):
    seen = look()
    seen.page.locator("[data-kind=surfaces] [data-class='2']").uncheck()
    seen.page.wait_for_timeout(300)
    picture = seen.picture(".stage")[:-120]  # above scale bar and axes
    assert (picture[..., 0] > picture[..., 2] + 60).sum() == 0
    seen.move("[data-kind=surfaces] [data-role=opacity]", 0)
    picture = seen.picture(".stage")[10:-120, 10:-10]
    assert np.ptp(picture.reshape(-1, 3), axis=0).max() == 0


def test_the_scale_bar_follows_the_zoom(look):
    seen = look()

    def bar():
        ink = seen.page.locator(".over").evaluate(
            """canvas => { const c = canvas.getContext("2d").getImageData(0, canvas.height - 10, canvas.width / 2, 1);
            return Array.from(c.data).filter((v, i) => i % 4 === 3 && v > 200).length; }"""
        )
        return ink / seen.page.locator(".stage").bounding_box()["width"]

    before = bar()
    assert 0.05 < before <= 0.25
    seen.page.locator("[data-does=closer]").click()
    seen.page.wait_for_timeout(200)
    after = bar()
    assert 0.05 < after <= 0.25
    # Lengths are 1, 2 or 5 times a power of ten: the bar is 1.25 times as long, or another length was taken.
    assert min(abs(after / before - 1.25 * step) for step in (1, 0.5, 0.4)) < 0.03


def test_a_click_on_a_particle_names_it_and_shows_its_row(look):
    seen = look()
    box = seen.page.locator(".gl").bounding_box()
    picked = seen.page.locator(".picked")
    for fx in np.linspace(0.15, 0.85, 15):
        for fy in np.linspace(0.15, 0.85, 15):
            if not picked.text_content():
                seen.page.mouse.click(box["x"] + fx * box["width"], box["y"] + fy * box["height"])
    text = picked.text_content()
    assert text.startswith("Particle ")
    assert "diameter" in text
    number = text.split()[1].rstrip(":")
    assert seen.page.locator("tr.chosen").get_attribute("data-id") == number
    seen.page.locator(".picked button").click()
    seen.page.wait_for_timeout(1500)
    seen.page.locator("tr.chosen").wait_for(state="visible")
    assert seen.page.locator("tr.chosen").evaluate(
        "row => { const b = row.getBoundingClientRect(); return b.top >= 0 && b.bottom <= innerHeight; }"
    )


def test_tables_sort_by_number(look):
    seen = look()
    table = seen.page.locator("#particle-rows table")
    header = table.locator("th", has_text="diameter (nm)")
    column = [th.text_content() for th in table.locator("th").all()].index("diameter (nm)")

    def shown():
        return [row.locator("td").nth(column).text_content() for row in table.locator("tbody tr").all()]

    header.locator("button").focus()
    seen.page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    values = shown()
    numbers = [float(v) for v in values[:-1]]
    assert values[-1] == "–"  # what is not known comes last
    assert numbers == sorted(numbers)
    assert numbers != sorted(numbers, key=str)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert [float(v) for v in shown()[:-1]] == numbers[::-1]
    assert shown()[-1] == "–"
    assert seen.page.locator("th[aria-sort]").count() == 1


def test_the_command_can_be_copied(look):
    seen = look(permissions=["clipboard-read", "clipboard-write"])
    seen.page.locator(".command button").click()
    seen.page.wait_for_timeout(200)
    assert seen.page.locator(".command button").text_content() == "Copied"
    assert seen.page.evaluate("navigator.clipboard.readText()") == "tomoseg run a.mrc \\\n    -o b.h5"


def test_a_dark_screen_gets_a_dark_page(look):
    light, dark = look(), look(color_scheme="dark")
    assert light.picture("h1").mean() > 200
    assert dark.picture("h1").mean() < 60
    assert dark.picture(".stage")[20:40, 20:40].mean() < 60
    assert dark.page.locator(".plot img").first.evaluate("image => image.currentSrc") != light.page.locator(
        ".plot img"
    ).first.evaluate("image => image.currentSrc")


def test_a_phone_shows_all_without_scrolling_sideways(look):
    seen = look(viewport=PHONE, device_scale_factor=2, has_touch=True, is_mobile=True)
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 360
    for selector in (".stage", "[data-kind=tilts] canvas", "[data-plane=xz] canvas"):
        box = seen.page.locator(selector).first.bounding_box()
        assert box["x"] >= 0
        assert 250 < box["width"] <= 360 - box["x"]


def test_paper_shows_the_still_pictures(look):
    seen = look()
    assert seen.shown(".live")
    assert not seen.shown(".still")
    assert not seen.shown(".paper")
    seen.page.emulate_media(media="print")
    assert seen.page.locator(".live:visible, button:not(th button):visible").count() == 0
    assert all(still.is_visible() for still in seen.page.locator(".still").all())
    assert seen.shown(".paper")
    assert seen.page.locator("#particle-rows tbody tr:visible").count() == 25
    assert seen.page.pdf().startswith(b"%PDF")


def test_without_script_the_still_pictures_stand(look):
    seen = look(java_script_enabled=False)
    assert all(still.is_visible() for still in seen.page.locator(".still").all())
    assert seen.page.locator(".live:visible").count() == 0
    assert seen.picture(".surface img").std() > 5


def test_without_webgl_the_picture_of_the_surfaces_stands(browser, report):
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.add_init_script(
        "const usual = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        " return kind === 'webgl' ? null : usual.call(this, kind, ...rest); };"
    )
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report.as_uri())
    page.wait_for_function("document.querySelectorAll('.choice.on').length === 3")
    assert page.locator(".hero .still").is_visible()
    assert not page.locator(".hero .live").is_visible()
    assert complaints == []
    context.close()


def test_hostile_names_do_nothing(look, tmp_path):
    hostile = everything(name=HOSTILE, text="</script><script>alert(2)</script>")
    path = written(tmp_path, hostile, text="</script><script>alert(3)</script><img src=x onerror=alert(4)>")
    seen = look(path)
    seen.page.wait_for_timeout(300)
    assert seen.page.locator("img[onerror]").count() == 0
    assert seen.page.locator("script:not([type])").count() == 1
    assert seen.page.locator("[data-kind=surfaces] label", has_text="alert('x')").count() == 1
    # What someone smuggled in after all would not run: the policy knows our script only.
    ran = seen.page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.smuggled = 1';"
        " document.body.append(s); return window.smuggled === 1; }"
    )
    assert ran is False
    assert any("Content Security Policy" in text for text in seen.complaints)
    seen.complaints.clear()
