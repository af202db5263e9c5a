"""Shapes of particles against discs, ellipses and squares whose measures are known."""

import numpy as np
import pytest

from tomoseg.errors import InputError
from tomoseg.micrographs.shapes import contour_of, feret_diameters, measure_shapes


def disc(diameter, y, x, shape):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= diameter**2 / 4


@pytest.mark.parametrize("diameter", [10, 14, 25, 60])
def test_perimeter_and_circularity_of_discs(diameter):
    rng = np.random.default_rng(0)
    n = diameter + 8
    rows = []
    for y, x in n / 2 + rng.uniform(-0.5, 0.5, (40, 2)):
        mask = disc(diameter, y, x, (n, n))
        rows.append(measure_shapes(mask.astype(np.int32), mask.astype(float))[0])
    perimeters, circularities = (np.array([r[k] for r in rows]) for k in ("perimeter_px", "circularity"))
    assert abs(perimeters.mean() / (np.pi * diameter) - 1) < 0.01
    assert abs(circularities.mean() - 1) < 0.02
    assert np.abs([r["diameter_px"] / diameter - 1 for r in rows]).max() < 0.05
    for name in ("feret_max_px", "feret_min_px"):
        assert abs(np.mean([r[name] for r in rows]) / diameter - 1) < 0.03


@pytest.mark.parametrize("angle", [0, 25, 90, -40])
def test_ellipses(angle):
    rows, columns = np.mgrid[:90, :90]
    x, y = columns - 45, 45 - rows  # y upwards, as one sees it
    turn = np.radians(angle)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    mask = (u / 30) ** 2 + (v / 12) ** 2 <= 1
    (row,) = measure_shapes(mask.astype(np.int32), mask.astype(float))
    assert (row["orientation_deg"] - angle + 90) % 180 - 90 == pytest.approx(0, abs=1)
    assert row["feret_max_px"] == pytest.approx(60, rel=0.02)
    assert row["feret_min_px"] == pytest.approx(24, rel=0.03)
    assert row["area_px2"] == mask.sum()
    # Ramanujan's approximation of the circumference
    assert row["perimeter_px"] == pytest.approx(np.pi * (3 * 42 - np.sqrt((90 + 12) * (30 + 36))), rel=0.01)


def test_feret_diameters_of_a_rectangle():
    largest, smallest = feret_diameters(np.array([[0.0, 0], [0, 4], [3, 4], [3, 0], [1, 1]]))
    assert (largest, smallest) == (pytest.approx(5), pytest.approx(3))


def test_contours_enclose_the_area_of_the_mask():
    mask = disc(9, 7.2, 7.4, (15, 15)) | disc(7, 7.2, 12, (15, 19))[:, :15]
    _, points = contour_of(mask)
    assert len(points) > 20
    assert np.abs(points - points.mean(axis=0)).max() < 9


def test_neighbours_intensities_and_borders():
    labels = np.zeros((60, 90), np.int32)
    labels[disc(11, 30, 20, labels.shape)] = 1
    labels[disc(11, 30, 50, labels.shape)] = 2
    labels[disc(11, 30, 88, labels.shape)] = 5
    image = np.where(labels > 0, 30.0, 10.0)
    table = measure_shapes(labels, image, pixel_size_nm=0.5)
    assert table["label"].tolist() == [1, 2, 5]
    assert table["touches_border"].tolist() == [False, False, True]
    np.testing.assert_allclose(table["nearest_centre_px"][:2], 30)
    np.testing.assert_allclose(table["nearest_edge_px"][:2], 19)
    np.testing.assert_allclose(table["mean_intensity"], 30)
    np.testing.assert_allclose(table["contrast"], 20)
    np.testing.assert_allclose(table["diameter_nm"], table["diameter_px"] / 2)
    np.testing.assert_allclose(table["area_nm2"], table["area_px2"] / 4)
    mask = np.zeros(labels.shape, bool)
    mask[36:] = True
    assert measure_shapes(labels, image, mask=mask)["touches_border"].all()
    assert np.isnan(measure_shapes(labels, image)["diameter_nm"]).all()


def test_nothing_to_measure_and_what_does_not_fit():
    assert len(measure_shapes(np.zeros((9, 9), np.int32), np.zeros((9, 9)))) == 0
    with pytest.raises(InputError, match="same shape"):
        measure_shapes(np.zeros((9, 9), np.int32), np.zeros((9, 8)))
    with pytest.raises(InputError, match="above 0"):
        measure_shapes(np.zeros((9, 9), np.int32), np.zeros((9, 9)), pixel_size_nm=0)
