"""Projects side by side: figures, differences of sizes, the page and the table."""

import csv
import shutil

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from tomoseg.cli.app import app
from tomoseg.report.compare import FIGURES, Compared, _holm, differences, named


def sample(name, diameters, unit="nm"):
    return Compared(name, {column: np.nan for _, _, column in FIGURES}, np.sort(diameters), unit)


def test_samples_of_one_population_do_not_differ_and_others_do():
    rng = np.random.default_rng(0)
    same = [sample(str(i), rng.lognormal(1, 0.3, 200)) for i in range(2)]
    larger = sample("larger", 1.2 * rng.lognormal(1, 0.3, 200))
    none, *found = differences([*same, larger])
    assert none.p_location > 0.05
    assert none.low < 0 < none.high
    for difference in found:
        assert difference.p_location < 0.01
        assert difference.p_distribution < 0.01
        assert 0 < difference.low < difference.of_means < difference.high
    assert found[0].of_means == pytest.approx(larger.diameters.mean() - same[0].diameters.mean())


def test_the_interval_holds_the_true_difference_in_95_percent():
    rng = np.random.default_rng(1)
    held = [
        d.low <= 0.5 <= d.high
        for _ in range(400)
        for d in differences([sample("a", rng.normal(5, 1, 30)), sample("b", rng.normal(5.5, 2, 60))])
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


def test_too_few_particles_and_other_units_are_not_compared():
    rng = np.random.default_rng(2)
    a, few, px = (sample(n, rng.normal(5, 1, k), u) for n, k, u in (("a", 9, "nm"), ("b", 4, "nm"), ("c", 9, "px")))
    assert differences([a, few, px]) == []


def test_values_are_corrected_for_their_number():
    # Holm by hand: 3 x 0.01; 2 x 0.02, which may not be below the one before; 1 x 0.6.
    assert _holm([0.02, 0.01, 0.6]) == pytest.approx([0.04, 0.03, 0.6])
    assert _holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])


def test_names_tell_files_of_one_name_apart(tmp_path):
    assert list(named([tmp_path / "a" / "p.h5", tmp_path / "b" / "p.h5", tmp_path / "q.h5"])) == ["a/p", "b/p", "q"]


def test_page_and_table_of_projects(project, tmp_path):
    other = tmp_path / "other.h5"
    shutil.copy(project, other)
    with h5py.File(other, "r+") as file:
        file["measurement"].attrs["n_particles_uncertainty"] = 1.5
        n = int(file["measurement"].attrs["n_particles"])
    page = tmp_path / "compare.html"
    done = CliRunner().invoke(app, ["compare", str(project), str(other), "-o", str(page)])
    assert done.exception is None, done.exception
    text = page.read_text()
    assert "2 projects compared" in text
    assert f"{n}.0 ± 1.5" in text
    assert "script-src" in text
    with (tmp_path / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["project"] for row in rows] == [project.stem, "other"]
    assert float(rows[0]["n_particles"]) == n
    assert (rows[0]["n_particles_uncertainty"], rows[1]["n_particles_uncertainty"]) == ("", "1.5")


@pytest.mark.parametrize(("words", "told"), [(["-o", "c.html"], "two projects or more"), (["-o", "c.txt"], "html")])
def test_what_cannot_be_compared_is_said(project, words, told):
    projects = [str(project)] * (1 if "two" in told else 2)
    done = CliRunner().invoke(app, ["compare", *projects, *words])
    assert told in str(done.exception)
