"""How well the scale of micrographs is read from their burnt-in scale bars, on images made for it and on real ones.

    python benchmarks/scale_bars.py --images 300 --seed 1000
    python benchmarks/scale_bars.py --images 300 --seed 1000 --held-out --show failures
    python benchmarks/scale_bars.py --images 0 --data FOLDER

`right` is the length of the label as written and that of the bar within 2 px or 2 %; `warned` is anything else that
came with a warning, `wrong` without one; `none` is no scale, but a warning, and `silent` not even that. `--held-out`
draws fonts, colours, bars and places of the label that the other images never have; `--fonts` adds font files to those.
As many images without a scale bar are looked at for `false`.
"""

import argparse
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scale_bar_images import Truth, fonts, random_image

from tomoseg.micrographs.scale_bar import ScaleBar, read_scale_bar

# What the labels of the real images say, and how many px wide their bars are, by eye.
REAL = {
    "067": (50.0, 386), "069": (50.0, 386), "070": (50.0, 386), "086": (100.0, 386), "115": (100.0, 386),
    "121": (100.0, 835),
}  # fmt: skip


def main() -> None:
    arguments = _arguments()
    if arguments.show:
        arguments.show.mkdir(parents=True, exist_ok=True)
    if arguments.images:
        _made(arguments)
    if arguments.data:
        _real(arguments.data / "images-2d" / "scalebar_bf")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the first image; the others follow")
    parser.add_argument("--held-out", action="store_true", help="fonts and styles the reader was not tuned on")
    parser.add_argument("--fonts", type=Path, help="folder of more font files, for --held-out")
    parser.add_argument("--show", type=Path, help="folder for pictures of the failures")
    parser.add_argument("--data", type=Path, help="folder of real data")
    return parser.parse_args()


def _made(arguments: argparse.Namespace) -> None:
    faces = fonts(arguments.held_out, arguments.fonts)
    counts, errors, seconds, false = Counter[str](), [], [], 0
    by_bar: dict[str, Counter[str]] = {}
    for seed in range(arguments.seed, arguments.seed + arguments.images):
        image, truth = random_image(seed, arguments.held_out, faces)
        assert truth is not None  # it was asked for
        start = time.perf_counter()
        found = read_scale_bar(image)
        seconds.append(time.perf_counter() - start)
        kind = outcome(found, truth)
        counts[kind] += 1
        by_bar.setdefault(truth.kinds["bar"], Counter())[kind] += 1
        if kind == "right":
            errors.append(abs(found.length_px - truth.length_px))
        elif arguments.show:
            _picture(image, found, truth).save(arguments.show / f"{kind}-{seed}.png")
        if kind != "right":
            true = f"'{truth.label}' {truth.length_px:.1f} px"
            print(f"{seed}: {kind}, {true}, read '{found.label}' {found.length_px:.1f} px")
        bare, _ = random_image(seed, arguments.held_out, faces, with_bar=False)
        nothing = read_scale_bar(bare)
        if nothing.box or nothing.warnings:
            false += 1
            print(f"{seed}: false, {nothing.warnings}")
            if arguments.show:
                _picture(bare, nothing, None).save(arguments.show / f"false-{seed}.png")
    _table(counts, errors, seconds, false, by_bar)


def outcome(found: ScaleBar, truth: Truth) -> str:
    """Return right, warned, wrong, none or silent."""
    if math.isnan(found.pixel_size_nm):
        return "none" if found.warnings else "silent"
    same_label = math.isclose(found.length_nm, truth.length_nm, rel_tol=1e-6)
    if same_label and abs(found.length_px - truth.length_px) <= max(2.0, 0.02 * truth.length_px):
        return "right"
    return "warned" if found.warnings else "wrong"


def _table(
    counts: Counter[str], errors: list[float], seconds: list[float], false: int, by_bar: dict[str, Counter[str]]
) -> None:
    names = ("right", "warned", "wrong", "none", "silent")
    print(f"\n{'':<14}" + "".join(f"{name:>8}" for name in names))
    for bar, of_bar in sorted(by_bar.items()):
        print(f"{bar:<14}" + "".join(f"{of_bar[name]:>8}" for name in names))
    total = max(1, sum(counts.values()))
    print(f"{'all':<14}" + "".join(f"{counts[name]:>8}" for name in names))
    print(f"{'all, %':<14}" + "".join(f"{100 * counts[name] / total:>8.1f}" for name in names))
    print(f"\nfalse bars on images without one: {false} of {total}")
    if errors:
        print(f"error of the length: median {np.median(errors):.2f} px, 95 % within {np.quantile(errors, 0.95):.2f} px")
    print(f"seconds for an image: median {np.median(seconds):.2f}, 95 % within {np.quantile(seconds, 0.95):.2f}")


def _picture(image: np.ndarray, found: ScaleBar, truth: Truth | None) -> Image.Image:
    """Return an image with what was found in red and the true boxes in green."""
    low, high = float(image.min()), float(image.max())
    levels = np.uint8(255 * (np.asarray(image, np.float32) - low) / max(high - low, 1e-9))
    picture = Image.fromarray(levels).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for boxes, colour in (
        ((found.box, found.label_box), "red"),
        ((truth.box, truth.label_box) if truth else (), "lime"),
    ):
        for y0, x0, y1, x1 in (box for box in boxes if box):
            draw.rectangle((x0 - 2, y0 - 2, x1 + 1, y1 + 1), outline=colour)
    return picture


def _real(folder: Path) -> None:
    print(f"\n{'real image':<14}{'label':>10}{'px':>9}{'nm/px':>9}{'sure':>6}")
    for path in sorted(folder.glob("*_img.png")):
        found = read_scale_bar(np.asarray(Image.open(path)))
        length_nm, length_px = REAL[path.name[:3]]
        right = math.isclose(found.length_nm, length_nm, rel_tol=1e-6) and abs(found.length_px - length_px) < 2
        verdict = "right" if right else "wrong"
        print(
            f"{path.name[:12]:<14}{found.label:>10}{found.length_px:>9.2f}{found.pixel_size_nm:>9.4f}"
            f"{found.confidence:>6.2f}  {verdict} {' '.join(found.warnings)}"
        )


if __name__ == "__main__":
    main()
