"""Networks and thresholds on simulated worlds that no network was trained on.

    python benchmarks/worlds.py --worlds 40 --models particles-on-support gamma-alumina-pt
    python benchmarks/worlds.py --worlds 40 --models NET.keras --pictures FOLDER    # also the worst worlds, as pictures

Each volume is labelled without any training on it. Dice is that of the support and of the particles over a volume;
particles of more than 4 voxels in diameter count as found where a labelled one overlaps by an IoU of 0.5, and labelled
ones that overlap no true one by more than a tenth are invented. Worlds without particles count for the support only.
"""

import argparse
import csv
import tempfile
import warnings
from pathlib import Path

import cc3d
import numpy as np
from numpy.typing import NDArray

import tomoseg as ts
from tomoseg.errors import TomosegError
from tomoseg.runtime import Runtime
from tomoseg.segmentation.api import Segmentation
from tomoseg.worlds import read_world, write_worlds

FIRST_SEED = 900_000  # trainings begin at 0
SHAPE = (128, 48, 128)
LEAST_PX, FOUND, INVENTED = 4.0, 0.5, 0.1
SUPPORT, PARTICLES = 1, 2


def labels_by(method: str, volume: NDArray[np.float32]) -> Segmentation:
    """Label a volume by thresholds or by a network."""
    if method == "thresholds":
        return ts.segment(volume, method="otsu", classes=3)
    return ts.segment(volume, model=method, rescale=False, device="cpu")


def dice(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Return Dice; 1 where both are empty."""
    total = int(truth.sum()) + int(found.sum())
    return 2 * int((truth & found).sum()) / total if total else 1.0


def detection(truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> tuple[int, int, int, int, float]:
    """Return true particles, those found, labelled ones, those invented, and the ratio of mean diameters."""
    true, made = (cc3d.connected_components(one == PARTICLES, connectivity=26) for one in (truth, found))
    sizes, made_sizes = (np.bincount(one.ravel()).astype(float) for one in (true, made))
    pairs, counts = np.unique(np.stack([true.ravel(), made.ravel()])[:, (true.ravel() > 0) & (made.ravel() > 0)],
                              axis=1, return_counts=True)  # fmt: skip
    least = np.pi / 6 * LEAST_PX**3
    counted, ours = np.flatnonzero(sizes[1:] > least) + 1, np.flatnonzero(made_sizes[1:] > least) + 1
    iou, seen = np.zeros(len(sizes)), np.zeros(len(made_sizes))
    for (a, b), n in zip(pairs.T, counts, strict=True):
        iou[a] = max(iou[a], n / (sizes[a] + made_sizes[b] - n))
        seen[b] += n
    invented = int((seen[ours] < INVENTED * made_sizes[ours]).sum())
    means = [float(np.mean(np.cbrt(6 / np.pi * s))) if len(s) else np.nan for s in (sizes[counted], made_sizes[ours])]
    return len(counted), int((iou[counted] > FOUND).sum()), len(ours), invented, means[1] / means[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--models", nargs="+", default=["gamma-alumina-pt"])
    parser.add_argument("--folder", type=Path, help="where worlds are kept")
    parser.add_argument("--pictures", type=Path, help="folder for the three worst worlds of each method")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        paths = write_worlds(folder, range(FIRST_SEED, FIRST_SEED + options.worlds), SHAPE, Runtime())
        rows: list[dict[str, object]] = []
        for path in paths:
            volume, truth, _, described = read_world(path)
            for method in ("thresholds", *options.models):
                expected = [np.nan] * 3
                try:
                    made = labels_by(method, volume.astype(np.float32))
                    found, expected = made.labels, made.info.get("expected_dice", expected)
                except TomosegError as error:
                    print(f"{path.stem} {method}: {error}")
                    found = np.zeros_like(truth)
                n, hit, ours, invented, ratio = detection(truth, found)
                has = bool((truth == PARTICLES).sum() > np.pi / 6 * LEAST_PX**3)
                rows.append(
                    {
                        "world": path.stem, "method": method, "support": dice(truth == SUPPORT, found == SUPPORT),
                        "particles": dice(truth == PARTICLES, found == PARTICLES) if has else np.nan,
                        "expected_support": expected[1], "expected_particles": expected[2],
                        "true": n, "found": hit, "labelled": ours, "invented": invented, "diameter_ratio": ratio,
                        "kind": described["sample"]["support"], "contrast": described["sample"]["contrast"],
                        "dose": described["view"]["dose"], "reconstruction": described["view"]["method"],
                    }
                )  # fmt: skip
        _report(rows, ("thresholds", *options.models))
        if options.csv:
            with options.csv.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        if options.pictures:
            for method in ("thresholds", *options.models):
                _draw(rows, method, folder, options.pictures)


def _report(rows: list[dict[str, object]], methods: tuple[str, ...]) -> None:
    def of(method: str, name: str) -> NDArray[np.float64]:
        return np.array([row[name] for row in rows if row["method"] == method], float)

    print(
        "mean, and median over worlds of Dice; particles of more than 4 voxels; expected: mean error of expected Dice"
    )
    print("method                      support  particles  found  invented  diameter  better than thresholds  expected")
    for method in methods:
        both = of(method, "support") + np.nan_to_num(of(method, "particles"))
        other = of("thresholds", "support") + np.nan_to_num(of("thresholds", "particles"))
        better = float(np.mean(both > other))
        found, invented = of(method, "found").sum() / of(method, "true").sum(), of(method, "invented").sum()
        errors = [np.abs(of(method, f"expected_{k}") - of(method, k)) for k in ("support", "particles")]
        known = [error[np.isfinite(error)] for error in errors]
        off = ", ".join(f"{error.mean():.3f}" for error in known if len(error))
        bias = np.nanmedian(of(method, "diameter_ratio")) - 1
        print(
            f"{Path(method).stem:26}  {of(method, 'support').mean():7.3f}  {np.nanmean(of(method, 'particles')):9.3f}  "
            f"{found:5.1%}  {invented / max(of(method, 'labelled').sum(), 1):8.1%}  {bias:+8.1%}  {better:22.0%}  {off}"
        )
        print(f"{'':26}  {np.median(of(method, 'support')):7.3f}  {np.nanmedian(of(method, 'particles')):9.3f}")


def _draw(rows: list[dict[str, object]], method: str, folder: Path, pictures: Path) -> None:
    """Draw the three worlds with the least sum of Dice: volume, truth and labels of the slice with most particles."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    pictures.mkdir(parents=True, exist_ok=True)
    own = [row for row in rows if row["method"] == method]
    worst = sorted(own, key=lambda row: float(row["support"]) + float(np.nan_to_num(row["particles"], nan=1.0)))[:3]
    figure, axes = plt.subplots(3, 3, figsize=(10, 10))
    for k, row in enumerate(worst):
        volume, truth, _, _ = read_world(folder / f"{row['world']}.npz")
        found = labels_by(method, volume.astype(np.float32)).labels
        y = int(np.argmax((truth > 0).sum(axis=(0, 2)) + 20 * (truth == PARTICLES).sum(axis=(0, 2))))
        axes[k, 0].imshow(volume[:, y].astype(float), cmap="gray", vmin=-0.3, vmax=2.5)
        axes[k, 0].set_title(f"{row['world']} {row['kind']} {row['reconstruction']}", fontsize=8)
        axes[k, 1].imshow(truth[:, y], vmin=0, vmax=2)
        axes[k, 1].set_title("truth", fontsize=8)
        axes[k, 2].imshow(found[:, y], vmin=0, vmax=2)
        axes[k, 2].set_title(f"support {row['support']:.2f}, particles {row['particles']:.2f}", fontsize=8)
    for one in axes.ravel():
        one.axis("off")
    figure.tight_layout()
    figure.savefig(pictures / f"worst-{Path(method).stem}.png", dpi=80)


if __name__ == "__main__":
    main()
