import csv
import json

import numpy as np
import pytest

from tomoseg.export.formats.csv import write_csv
from tomoseg.export.formats.json import write_json
from tomoseg.export.formats.parquet import write_parquet
from tomoseg.export.tables import unit_of


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


TABLE = np.array(
    [("γ", True, 3, 0.25, (1.0, 2.0)), ("Pt", False, -1, np.nan, (np.nan, 4.0))],
    [("name", "U2"), ("touches_border", "?"), ("voxels", "i4"), ("diameter_nm", "f8"), ("axis_nm", "f4", (2,))],
)


def test_parquet_reads_back_with_units(tmp_path):
    from pyarrow import parquet

    write_parquet(tmp_path / "t.parquet", TABLE, {"raw_file": "raw.mrc"})
    found = parquet.read_table(tmp_path / "t.parquet")
    assert found.to_pydict() == {
        "name": ["γ", "Pt"],
        "touches_border": [True, False],
        "voxels": [3, -1],
        "diameter_nm": [0.25, None],
        "axis_nm_0": [1.0, None],
        "axis_nm_1": [2.0, 4.0],
    }
    field = found.schema.field("diameter_nm")
    assert field.metadata == {b"unit": b"nm", b"description": b"diameter of the sphere of equal volume"}
    assert found.schema.metadata[b"raw_file"] == b"raw.mrc"
    assert str(found.schema.field("voxels").type) == "int32"


def test_parquet_of_nothing_keeps_its_columns(tmp_path):
    from pyarrow import parquet

    write_parquet(tmp_path / "t.parquet", TABLE[:0])
    found = parquet.read_table(tmp_path / "t.parquet")
    assert found.num_rows == 0
    assert found.column_names[0] == "name"


def test_parquet_of_bytes_and_foreign_byte_order(tmp_path):
    from pyarrow import parquet

    table = np.array([("γ".encode(), 7, 0.5)], [("name", "S4"), ("n_rows", ">i4"), ("a_nm", ">f8")])
    write_parquet(tmp_path / "t.parquet", table)
    assert parquet.read_table(tmp_path / "t.parquet").to_pydict() == {"name": ["γ"], "n_rows": [7], "a_nm": [0.5]}


def test_csv_of_columns_of_several_numbers(tmp_path):
    write_csv(tmp_path / "t.csv", TABLE)
    lines = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "name,touches_border,voxels,diameter_nm,axis_nm_0,axis_nm_1"
    assert lines[2] == "Pt,false,-1,,,4.0"


def test_json_has_null_for_what_is_unknown(tmp_path):
    content = {"a_nm": np.nan, "b": [1, np.inf], "c": np.float32(0.5), "names": np.array(["γ"]), "t": TABLE[:1]}
    write_json(tmp_path / "s.json", {**content, "flag": np.bool_(True), "text": b"x"})
    text = (tmp_path / "s.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    found = json.loads(text)
    assert found["a_nm"] is None
    assert found["b"] == [1, None]
    assert (found["c"], found["names"], found["flag"], found["text"]) == (0.5, ["γ"], True, "x")
    row = {"name": "γ", "touches_border": True, "voxels": 3, "diameter_nm": 0.25, "axis_nm_0": 1.0, "axis_nm_1": 2.0}
    assert found["t"] == [row]


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("surface_area_nm2", "nm2"),
        ("volume_px3", "px3"),
        ("mean_curvature_per_nm", "1/nm"),
        ("specific_surface_m2_per_g", "m2/g"),
        ("elevation_deg", "degree"),
        ("volume_fraction", "1"),
        ("n_particles", "1"),
        ("voxels", "1"),
        ("mean_intensity", ""),
        ("name", ""),
    ],
)
def test_units_stand_in_names(name, unit):
    assert unit_of(name) == unit
