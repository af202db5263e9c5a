"""Which series `run --many` and `submit` mean: names, patterns and lists."""

import pytest

from tomoseg.batch.series import series_of
from tomoseg.errors import InputError


@pytest.fixture
def raws(tmp_path):
    folder = tmp_path / "day 1"
    folder.mkdir()
    for name in ("b.mrc", "a.mrc", "notes.txt"):
        (folder / name).write_bytes(b"x")
    return folder


def listed(raws, text, name="list.csv"):
    path = raws / name
    path.write_text(text, encoding="utf-8")
    return series_of([path], raws / "out")


def test_a_pattern_is_all_files_that_match_in_order(raws):
    found = series_of([raws / "*.mrc"], raws / "out")
    assert [one.name for one in found] == ["a", "b"]
    assert found[0].project == raws / "out" / "a.h5"
    assert found[0].arguments == [str(raws / "a.mrc"), "-o", str(raws / "out" / "a.h5")]


def test_a_pattern_without_a_match_is_refused(raws):
    with pytest.raises(InputError, match=r"No file matches .*\.dm3"):
        series_of([raws / "*.dm3"], raws / "out")


def test_a_file_that_is_missing_is_kept_so_that_its_turn_tells_why(raws):
    assert [one.name for one in series_of([raws / "a.mrc", raws / "gone.mrc"], raws)] == ["a", "gone"]


def test_a_list_gives_each_series_its_own_options(raws):
    (raws / "a.rawtlt").write_text("0\n")
    first, second = listed(
        raws,
        "# of Monday\nraw,name,angles,pixel_size,reconstruct.iterations,notes,options\n"
        "a.mrc,needle,a.rawtlt,0.5,40,the good one,--exclude=3\n\nb.mrc,,-60:60:3,,,,\n",
    )
    assert (first.name, first.project) == ("needle", raws / "out" / "needle.h5")
    assert first.options == (
        f"--angles={raws / 'a.rawtlt'}",
        "--pixel-size=0.5",
        *("--set", "reconstruct.iterations=40"),
        "--exclude=3",
    )
    assert (second.name, second.options) == ("b", ("--angles=-60:60:3",))


@pytest.mark.parametrize("text", ["raw;name\na.mrc;x\n", "raw\tname\na.mrc\tx\n", "\ufeffraw,name\na.mrc,x\n"])
def test_lists_of_spreadsheets_are_read(raws, text):
    assert [one.name for one in listed(raws, text)] == ["x"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold a line of column names"),
        ("name\nx\n", "one column of raw files"),
        ("raw,file\na.mrc,b.mrc\n", "one column of raw files"),
        ("raw,raw\na.mrc,b.mrc\n", "more than once"),
        ("raw,angels\na.mrc,x\n", "column angels"),
        ("raw,name\na.mrc,x,y\n", "line 2 has 3 cells"),
        ("raw,name\na.mrc,x\n,y\n", "line 3: no raw file is named"),
        ("raw,reconstruct.iterations\na.mrc,many\n", "line 2: reconstruct.iterations"),
        ("raw,name\na.mrc,x\nb.mrc,x\n", "Several series have the project"),
        ("raw,name,project\na.mrc,x,one.h5\nb.mrc,x,two.h5\n", "Several series have the name x"),
    ],
)
def test_what_is_wrong_with_a_list_is_told_before_anything_runs(raws, text, words):
    with pytest.raises(InputError, match=words):
        listed(raws, text)


def test_all_lines_with_problems_are_told_at_once(raws):
    with pytest.raises(InputError) as refused:
        listed(raws, "raw,reconstruct.iterations\na.mrc,many\nb.mrc,few\n")
    assert [f"line {k}" in str(refused.value) for k in (2, 3)] == [True, True]
