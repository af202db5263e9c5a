import numpy as np
import pytest
import tifffile
from PIL import Image

from tomoseg.errors import InputError
from tomoseg.io.slices import paired_files, read_image, read_labels

RNG = np.random.default_rng(6)
GREY8 = RNG.integers(0, 256, (20, 30)).astype(np.uint8)
GREY16 = RNG.integers(0, 65536, (20, 30)).astype(np.uint16)
FLOATS = RNG.normal(size=(20, 30)).astype(np.float32)
LABELS = RNG.integers(0, 3, (20, 30)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("a.png", lambda p: Image.fromarray(GREY8).save(p), GREY8),
        ("a.png", lambda p: Image.fromarray(GREY16).save(p), GREY16),
        ("a.PNG", lambda p: Image.fromarray(np.dstack([GREY8] * 3)).save(p), GREY8),
        ("a.png", lambda p: Image.fromarray(np.dstack([GREY8] * 3 + [GREY8 // 2])).save(p), GREY8),
        ("a.png", lambda p: Image.fromarray(GREY8).convert("P").save(p), GREY8),
        ("a.tif", lambda p: tifffile.imwrite(p, GREY16), GREY16),
        ("a.tif", lambda p: tifffile.imwrite(p, GREY16, byteorder=">"), GREY16),
        ("a.tiff", lambda p: tifffile.imwrite(p, FLOATS), FLOATS),
        ("a.tif", lambda p: tifffile.imwrite(p, GREY8, photometric="miniswhite"), 255 - GREY8),
        ("a.tif", lambda p: Image.fromarray(GREY8).save(p, compression="tiff_lzw"), GREY8),
        ("a.tif", lambda p: Image.fromarray(GREY16).save(p, compression="tiff_lzw"), GREY16),
        ("a.tif", lambda p: tifffile.imwrite(p, np.dstack([GREY8] * 3), photometric="rgb"), GREY8),
    ],
)
def test_images_of_every_kind(tmp_path, name, write, expected):
    write(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == expected.dtype
    assert image.dtype.isnative
    np.testing.assert_array_equal(image, expected)


def test_jpeg_is_read_with_its_losses(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    # JPEG at quality 95 keeps a linear ramp to within 2 grey levels
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth).max() <= 2


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.png", lambda p: Image.fromarray(np.dstack([GREY8, GREY8, 255 - GREY8])).save(p), "colour"),
        ("a.tif", lambda p: tifffile.imwrite(p, np.zeros((3, 5, 5), np.uint8), photometric="minisblack"), "3 images"),
        ("a.tif", lambda p: tifffile.imwrite(p, np.where(GREY8 > 9, np.nan, FLOATS)), "NaN"),
        ("a.png", lambda p: p.write_bytes(b"no image"), "cannot be read"),
        ("a.tif", lambda p: p.write_bytes(b"no image"), "cannot be read"),
        ("a.png", lambda p: None, "does not exist"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / name)


def _palette(path):
    image = Image.fromarray(LABELS).convert("P")
    image = Image.fromarray(LABELS, mode=None)
    image = image.convert("L")
    paletted = Image.new("P", image.size)
    paletted.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    paletted.putdata(LABELS.ravel().tolist())
    paletted.save(path)


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("a.png", lambda p: Image.fromarray(LABELS).save(p), LABELS),
        ("a.png", _palette, LABELS),
        ("a.tif", lambda p: tifffile.imwrite(p, LABELS.astype(np.int32)), LABELS),
        ("a.tif", lambda p: tifffile.imwrite(p, LABELS.astype(np.float32)), LABELS),
        ("a.tif", lambda p: Image.fromarray(LABELS).save(p, compression="tiff_lzw"), LABELS),
        ("a.png", lambda p: Image.fromarray(np.uint8(255) * (LABELS > 0)).save(p), LABELS > 0),
        ("a.png", lambda p: Image.fromarray(LABELS > 0).save(p), LABELS > 0),  # 1-bit
        ("a.png", lambda p: Image.fromarray(np.zeros((20, 30), np.uint8)).save(p), np.zeros((20, 30))),
        ("a.png", lambda p: Image.fromarray(np.full((20, 30), 255, np.uint8)).save(p), np.ones((20, 30))),
        ("a.png", lambda p: Image.fromarray(np.dstack([LABELS] * 3)).save(p), LABELS),
    ],
)
def test_labels_become_class_indices(tmp_path, name, write, expected):
    write(tmp_path / name)
    labels = read_labels(tmp_path / name, 3)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(read_labels(tmp_path / name), expected)


@pytest.mark.parametrize(
    ("values", "n_classes", "message"),
    [
        ([0, 127, 255], None, "0, 127, 255"),
        ([0, 1, 255], None, "0, 1, 255"),
        ([0, 1, 2], 2, "0, 1, 2; expected are 0 to 1"),
        ([0, 85, 170, 255], 4, "0, 85, 170, 255; expected are 0 to 3"),
        ([-1, 0, 1], None, "-1, 0, 1"),
        ([0, 0.5, 1], None, r"0, 0\.5, 1"),
    ],
)
def test_other_values_are_shown(tmp_path, values, n_classes, message):
    labels = np.resize(np.array(values, np.float32), (20, 30))
    tifffile.imwrite(tmp_path / "a.tif", labels)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "a.tif", n_classes)


def test_labels_spoilt_by_jpeg(tmp_path):
    Image.fromarray(100 * LABELS).save(tmp_path / "a.jpg", quality=50)
    with pytest.raises(InputError, match="JPEG changes values"):
        read_labels(tmp_path / "a.jpg", 3)


def _folders(tmp_path, images, labels):
    for folder, names in (("images", images), ("labels", labels)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(b"")
    return tmp_path / "images", tmp_path / "labels"


def test_pairs_by_name(tmp_path):
    images, labels = _folders(
        tmp_path, ["b_02.tif", "a_01.PNG", "notes.txt", ".hidden.png"], ["a_01.png", "b_02.tiff", "Thumbs.db"]
    )
    assert paired_files(images, labels) == [
        ("a_01", images / "a_01.PNG", labels / "a_01.png"),
        ("b_02", images / "b_02.tif", labels / "b_02.tiff"),
    ]


@pytest.mark.parametrize(
    ("images", "labels", "parts"),
    [
        (["a.png", "b.png", "c.png"], ["a.png", "d.png"], ["2 images", "b, c", "1 label images", ": d"]),
        (["a.png"], ["b.png"], [": a", ": b"]),
        (["a.png", "a.tif"], ["a.png"], ["same name"]),
        ([], ["a.png"], ["no images"]),
        ([f"{i:02d}.png" for i in range(15)], ["99.png"], ["09 and 5 more"]),
    ],
)
def test_unmatched_names_are_listed(tmp_path, images, labels, parts):
    with pytest.raises(InputError) as caught:
        paired_files(*_folders(tmp_path, images, labels))
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="nowhere does not exist"):
        paired_files(tmp_path / "images", tmp_path / "nowhere")


def test_the_papers_slices(shared_data):
    pairs = paired_files(shared_data / "gamma-alumina/images", shared_data / "gamma-alumina/labels")
    assert len(pairs) == 45
    name, image_path, label_path = pairs[0]
    assert name == "al_10000_00"
    image, labels = read_image(image_path), read_labels(label_path, 3)
    assert image.shape == labels.shape == (512, 512)
    assert image.dtype == np.uint8
    # platinum is brighter than alumina, alumina brighter than pores, in every slice that has all three
    for _, image_path, label_path in pairs[1:4]:
        image, labels = read_image(image_path), read_labels(label_path, 3)
        means = [image[labels == c].mean() for c in np.unique(labels)]
        assert means == sorted(means)


def test_real_masks_and_photographs(shared_data):
    mask = read_labels(shared_data / "images-2d/scalebar_bf/067_3_mask.png")
    assert set(np.unique(mask)) == {0, 1}
    assert read_image(shared_data / "images-2d/Pd1.jpg").shape == (640, 640)
