import csv

import numpy as np

from tomoseg.export.tables import write_csv


def test_columns_and_cells(tmp_path):
    table = np.array(
        [(1, 0.1, np.nan, True, 'γ, "x"'), (2, 1e-30, np.inf, False, "")],
        dtype=[("id", "i4"), ("a_nm", "f8"), ("b_nm", "f8"), ("touches", "?"), ("name", "U8")],
    )
    write_csv(tmp_path / "t.csv", table)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "a_nm", "b_nm", "touches", "name"]
    assert [float(r["a_nm"]) for r in rows] == [0.1, 1e-30]
    assert [r["b_nm"] for r in rows] == ["", "inf"]
    assert [r["touches"] for r in rows] == ["true", "false"]
    assert rows[0]["name"] == 'γ, "x"'


def test_text_as_the_project_file_gives_it_back(tmp_path):
    table = np.array([("γ".encode(),)], dtype=[("name", "S8")])
    write_csv(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "name\nγ\n"


def test_no_rows_is_a_line_of_names(tmp_path):
    write_csv(tmp_path / "t.csv", np.zeros(0, [("id", "i4"), ("a", "f8")]))
    assert (tmp_path / "t.csv").read_text() == "id,a\n"
