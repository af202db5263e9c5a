"""Networks and thresholds on simulated worlds that no network was trained on.

    python benchmarks/worlds.py --worlds 40 --models particles-on-support gamma-alumina-pt
    python benchmarks/worlds.py --worlds 40 --models NET.keras --pictures FOLDER  # with pictures
    python benchmarks/worlds.py --catalysts 24                                      # of another simulator

Worlds are those of `tomoseg train --simulated`, with other seeds. Catalysts come from the simulator behind `tomoseg
simulate`, which no network is trained on: faceted plates with pores and spheres, contrast 1.8 to 8, spheres of 4 to 14
px, tilts of up to 52 to 75 degrees in steps of 1 to 3, 40 to 500 electrons per pixel, misaligned by 0.3 px, MLEM of 12
to 50 iterations.

Each volume is labelled without any training on it. Dice is that of the support and of the particles over a volume;
particles of more than 4 voxels in diameter count as found where a labelled one overlaps by an IoU of 0.5, and labelled
ones that overlap no true one by more than a tenth are invented. Worlds without particles count for the support only.
Calibration is told by the voxels labelled as a class: how sure the network is of them on average, and how many are
right.
"""

import argparse
import csv
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

import tomoseg as ts
from tomoseg import simulate
from tomoseg.errors import InputError, TomosegError
from tomoseg.runtime import Runtime
from tomoseg.segmentation.api import Segmentation
from tomoseg.worlds import read_world, write_worlds

FIRST_SEED = 910_000  # trainings begin at 0; 900,000 to 900,039 were looked at while the network was made
SHAPE = (128, 48, 128)
LEAST_PX, FOUND, INVENTED = 4.0, 0.5, 0.1
SUPPORT, PARTICLES = 1, 2
Case = tuple[str, NDArray[np.float32], NDArray[np.uint8], dict[str, Any]]  # name, volume, truth, how it was made


def worlds(n: int, folder: Path) -> Iterator[Case]:
    """Yield worlds of the kind that networks are trained on, with seeds of their own."""
    for path in write_worlds(folder, range(FIRST_SEED, FIRST_SEED + n), SHAPE, Runtime()):
        volume, truth, _, described = read_world(path)
        yield path.stem, volume.astype(np.float32), truth, described


def catalysts(n: int) -> Iterator[Case]:
    """Yield catalysts of another simulator; seeds whose particles find no place are passed over."""
    seed, made = 0, 0
    while made < n:
        rng, seed = np.random.default_rng(7000 + seed), seed + 1
        size, contrast = int(rng.integers(80, 150)), float(rng.uniform(1.8, 8))
        diameter = float(np.exp(rng.uniform(np.log(4), np.log(14))))
        pores, plates, particles = int(rng.integers(0, 80)), int(rng.integers(2, 8)), int(rng.integers(4, 80))
        try:
            phantom = simulate.catalyst(
                size, particles, seed, n_plates=plates, n_pores=pores, mean_diameter_px=diameter,
                particle_density=contrast,
            )  # fmt: skip
        except InputError:
            continue
        angles = simulate.tilt_angles(float(rng.uniform(52, 75)), float(rng.choice([1.0, 2.0, 3.0])))
        dose = float(np.exp(rng.uniform(np.log(40), np.log(500))))
        raw = simulate.acquire(
            simulate.project(phantom.density, angles), shifts_px=rng.normal(0, 0.3, (len(angles), 2)), dose=dose,
            vacuum=0.0, counts_per_electron=1.0, black_level=0.0, dtype=np.float32, seed=seed,
        )  # fmt: skip
        iterations = int(rng.integers(12, 50))
        volume = ts.reconstruct(raw, angles, method="mlem", iterations=iterations, resolution=False).volume
        described = {
            "sample": {"support": "catalyst", "contrast": contrast},
            "view": {"dose": dose, "method": "mlem"},
        }
        yield f"catalyst-{seed - 1:02d}", volume, phantom.labels, described
        made += 1


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


def measured(case: Case, method: str) -> dict[str, Any]:
    """Return the scores of a method on a volume."""
    name, volume, truth, described = case
    expected: list[float] = [np.nan] * 3
    found, confidence = np.zeros_like(truth), None
    try:
        made = labels_by(method, volume)
        found, confidence = made.labels, made.confidence
        expected = made.info.get("expected_dice", expected)
    except TomosegError as error:
        print(f"{name} {method}: {error}")
    n, hit, ours, invented, ratio = detection(truth, found)
    row: dict[str, Any] = {
        "world": name, "method": method, "true": n, "found": hit, "labelled": ours, "invented": invented,
        "diameter_ratio": ratio, "kind": described["sample"]["support"], "contrast": described["sample"]["contrast"],
        "dose": described["view"]["dose"], "reconstruction": described["view"]["method"],
    }  # fmt: skip
    has_particles = bool((truth == PARTICLES).sum() > np.pi / 6 * LEAST_PX**3)
    for key, k, counts in (("support", SUPPORT, True), ("particles", PARTICLES, has_particles)):
        ours_of_class = found == k
        row |= {
            key: dice(truth == k, ours_of_class) if counts else np.nan,
            f"expected_{key}": expected[k],
            f"voxels_{key}": int(ours_of_class.sum()),
            f"right_{key}": int((ours_of_class & (truth == k)).sum()),
            f"sure_{key}": float(confidence[ours_of_class].sum() / 255) if confidence is not None else np.nan,
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=0)
    parser.add_argument("--catalysts", type=int, default=0)
    parser.add_argument("--models", nargs="+", default=["particles-on-support"])
    parser.add_argument("--folder", type=Path, help="where worlds are kept")
    parser.add_argument(
        "--pictures", type=Path, help="folder for pictures of the first four volumes and of the three worst"
    )
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    methods = ("thresholds", *options.models)
    with tempfile.TemporaryDirectory() as temporary:
        if options.worlds:
            compare(worlds(options.worlds, options.folder or Path(temporary)), methods, options)
        if options.catalysts:
            compare(catalysts(options.catalysts), methods, options)


def compare(cases: Iterator[Case], methods: tuple[str, ...], options: argparse.Namespace) -> None:
    """Score methods on volumes; print a table, and keep what is asked for."""
    rows: list[dict[str, Any]] = []
    worst: dict[str, list[tuple[float, Case]]] = {method: [] for method in methods}
    first: list[Case] = []
    for case in cases:
        first = [*first, case][:4]
        for method in methods:
            row = measured(case, method)
            rows.append(row)
            both = float(row["support"] + np.nan_to_num(row["particles"], nan=1.0))
            worst[method] = sorted([*worst[method], (both, case)], key=lambda one: one[0])[:3]
    _report(rows, methods)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    if options.pictures:
        for method in methods:
            _draw(first, method, options.pictures / f"first-{Path(method).stem}.png")
            _draw([case for _, case in worst[method]], method, options.pictures / f"worst-{Path(method).stem}.png")


def _report(rows: list[dict[str, Any]], methods: tuple[str, ...]) -> None:
    def of(method: str, name: str) -> NDArray[np.float64]:
        return np.array([row[name] for row in rows if row["method"] == method], float)

    n = len(rows) // len(methods)
    print(
        f"{n} volumes: mean, and median of Dice; particles of more than 4 voxels; expected: mean error of expected Dice"
    )
    print("method                      support  particles  found  invented  diameter  better than thresholds  expected")
    for method in methods:
        both = of(method, "support") + np.nan_to_num(of(method, "particles"))
        other = of("thresholds", "support") + np.nan_to_num(of("thresholds", "particles"))
        better = float(np.mean(both > other))
        found, invented = of(method, "found").sum() / of(method, "true").sum(), of(method, "invented").sum()
        errors = [np.abs(of(method, f"expected_{k}") - of(method, k)) for k in ("support", "particles")]
        off = ", ".join(f"{np.nanmean(error):.3f}" for error in errors if np.isfinite(error).any())
        bias = np.nanmedian(of(method, "diameter_ratio")) - 1
        print(
            f"{Path(method).stem:26}  {of(method, 'support').mean():7.3f}  {np.nanmean(of(method, 'particles')):9.3f}  "
            f"{found:5.1%}  {invented / max(of(method, 'labelled').sum(), 1):8.1%}  {bias:+8.1%}  {better:22.0%}  {off}"
        )
        print(f"{'':26}  {np.median(of(method, 'support')):7.3f}  {np.nanmedian(of(method, 'particles')):9.3f}")
        for key in ("support", "particles"):
            sure = of(method, f"sure_{key}")
            known = np.isfinite(sure)
            if known.any():
                voxels, right = (of(method, f"{what}_{key}")[known].sum() for what in ("voxels", "right"))
                told = f"sure of {sure[known].sum() / voxels:.1%}, right {right / voxels:.1%}"
                print(f"{'':26}  voxels labelled as {key}: {told}")


def _draw(cases: list[Case], method: str, picture: Path) -> None:
    """Draw volumes: of each the slice with most particles, the truth and the labels."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    picture.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(len(cases), 3, figsize=(10, 3.4 * len(cases)), squeeze=False)
    for k, (name, volume, truth, described) in enumerate(cases):
        found = labels_by(method, volume).labels
        scores = [dice(truth == one, found == one) for one in (SUPPORT, PARTICLES)]
        y = int(np.argmax((truth > 0).sum(axis=(0, 2)) + 20 * (truth == PARTICLES).sum(axis=(0, 2))))
        level = float(np.median(volume[truth == SUPPORT]))
        axes[k, 0].imshow(volume[:, y], cmap="gray", vmin=-0.3 * level, vmax=2.5 * level)
        axes[k, 0].set_title(f"{name} {described['sample']['support']} {described['view']['method']}", fontsize=8)
        axes[k, 1].imshow(truth[:, y], vmin=0, vmax=2)
        axes[k, 1].set_title("truth", fontsize=8)
        axes[k, 2].imshow(found[:, y], vmin=0, vmax=2)
        axes[k, 2].set_title(f"support {scores[0]:.2f}, particles {scores[1]:.2f}", fontsize=8)
    for one in axes.ravel():
        one.axis("off")
    figure.tight_layout()
    figure.savefig(picture, dpi=80)


if __name__ == "__main__":
    main()
