"""Pipeline files, --set and options become typed parameters, and every problem is reported at once."""

import pytest

from tomoseg import config
from tomoseg.errors import InputError
from tomoseg.stages import STAGES


def test_later_layers_win():
    settings = config.resolve(
        {"reconstruct": {"iterations": 10, "method": "sirt"}}, {"reconstruct": {"iterations": 20}}, {}
    )
    assert settings["reconstruct"].iterations == 20
    assert settings["reconstruct"].method == "sirt"


def test_all_problems_are_reported_at_once():
    with pytest.raises(InputError) as caught:
        config.resolve(
            {"reconstruct": {"iterations": -3, "itterations": 2}, "segmnt": {}, "align": {"method": "magic"}}
        )
    text = str(caught.value)
    assert "4 problems" in text
    for part in ("segmnt", "reconstruct.iterations", "reconstruct.itterations", "align.method"):
        assert part in text


def test_set_values_are_typed_by_their_parameter():
    layer = config.parse_sets(["reconstruct.iterations=40", "reconstruct.z-size=null", "export.formats=[vti, mrc]"])
    settings = config.resolve(layer)
    assert settings["reconstruct"].iterations == 40
    assert settings["reconstruct"].z_size is None
    assert list(settings["export"].formats) == ["vti", "mrc"]


@pytest.mark.parametrize("text", ["iterations=40", "reconstruct.iterations", "reconstruct.=3", "="])
def test_a_malformed_set_is_explained(text):
    with pytest.raises(InputError, match=r"STAGE\.PARAM=VALUE"):
        config.parse_sets([text])


@pytest.mark.parametrize("content", ["[1, 2]", "reconstruct: 3", "reconstruct: {a: [}", "!!python/object:os.system {}"])
def test_a_pipeline_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(InputError):
        config.read_pipeline(path)


def test_paths_in_a_pipeline_are_relative_to_it(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("segment:\n  model: net.keras\n")
    assert config.read_pipeline(path)["segment"]["model"] == str(tmp_path / "net.keras")


def test_an_unknown_pipeline_names_those_that_ship():
    with pytest.raises(InputError, match="default, genc2022"):
        config.read_pipeline("nonsense")


def test_the_default_pipeline_file_states_every_default():
    """`pipelines/default.yaml` is the text made from the parameter models, so it cannot fall behind them."""
    assert config.pipeline_path("default").read_text() == config.default_pipeline_text()
    assert config.resolve(config.read_pipeline("default")) == config.resolve()


def test_the_papers_pipeline_holds_the_papers_settings():
    """Genc, Kovarik & Fraser 2022: MLEM, and the U-Net on xz slices in 512 px patches."""
    settings = config.resolve(config.read_pipeline("genc2022"))
    assert settings["reconstruct"].method == "mlem"
    assert settings["segment"].patch == 512
    assert settings["segment"].plane == "xz"
    assert settings["segment"].class_names == ["background", "alumina", "Pt"]


def test_every_shipped_pipeline_is_valid():
    assert {"catalyst", "default", "genc2022", "quick"} <= set(config.shipped_pipelines())
    for name in config.shipped_pipelines():
        assert set(config.resolve(config.read_pipeline(name))) == {s.name for s in STAGES}


def bomb(levels: int) -> str:
    """Return a mapping that has ten to the power of `levels` values once its aliases are followed."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("export:\n  formats: !!python/object/apply:os.system ['touch RAN']", "could not determine a constructor"),
        ("export: !!python/name:os.system", "could not determine a constructor"),
        ("export: {formats: !!python/object/new:os.system ['touch RAN']}", "could not determine a constructor"),
        (bomb(9), "once its aliases are followed"),
        (bomb(9).replace("[", "{<<: [").replace("]", "]}"), "once its aliases are followed"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a\n  b: *a", "contains itself"),
        ("[" * 50_000, "nested too deep"),
        ("a: {" * 20_000, "nested too deep"),
        ("reconstruct: {iterations: 3}\nreconstruct: {iterations: 4}", "'reconstruct' stands twice"),
        ("reconstruct:\n  iterations: 3\n  iterations: 4", "'iterations' stands twice, the second time in line 3"),
        ('segment: {model: "a\\0b.keras"}', "NUL character in line 1"),
        ('segment: {model: "a\\ud800.keras"}', "not valid YAML"),
        ("reconstruct: {iterations: !!timestamp x}", "not valid YAML"),
        ("reconstruct: {iterations: !!int x}", "not valid YAML"),
        ("reconstruct: {iterations: " + "9" * 5000 + "}", "not valid YAML"),
        ("reconstruct: {? [a] : 3}", "not valid YAML|must hold one section"),
        ("reconstruct: {3: 3}", "must hold one section"),
        ("# " + "x" * 300_000, "more than 262144 bytes"),
        ("a: \x07", "not valid YAML"),
        ("a: \ud800", "cannot be read"),
    ],
    ids=lambda value: value[:30] if len(value) < 200 else f"{value[:10]}...",
)
def test_a_hostile_pipeline_is_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "p.yaml"
    path.write_text(content, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(InputError, match=message) as caught:
        config.read_pipeline(path)
    assert len(str(caught.value)) < 1000
    assert [p.name for p in tmp_path.iterdir()] == ["p.yaml"]


def test_aliases_within_reason_are_followed(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("import: &shared {pixel_size: 2.5}\nexport:\n  formats: &f [vti, mrc]\n")
    assert config.read_pipeline(path) == {"import": {"pixel_size": 2.5}, "export": {"formats": ["vti", "mrc"]}}


@pytest.mark.parametrize(
    "text", ["export.formats=[!!python/object/apply:os.getcwd []]", "export.formats=" + "[" * 9000]
)
def test_a_hostile_value_is_refused(text):
    with pytest.raises(InputError):
        config.resolve(config.parse_sets([text]))


def test_what_a_message_repeats_of_a_file_is_short_and_printable():
    with pytest.raises(InputError) as caught:
        config.resolve({"\x1b[31m" + "x" * 5000: {}, "align": {"\x1b]0;" + "y" * 5000: 1, "method": "\x1b" * 5000}})
    assert len(str(caught.value)) < 2000
    assert "\x1b" not in str(caught.value)
    with pytest.raises(InputError, match="and 71 problems more"):
        config.resolve({f"s{i}": {} for i in range(101)})


def test_lists_may_be_written_with_commas():
    made = config.resolve(config.parse_sets(["export.formats=vti, mrc", "reconstruct.y_range=3,9"]))
    assert made["export"].formats == ("vti", "mrc")
    assert made["reconstruct"].y_range == (3, 9)
    with pytest.raises(InputError, match="nonsense"):
        config.resolve(config.parse_sets(["export.formats=vti,nonsense"]))


def test_parameters_that_do_not_go_together_are_told_without_all_the_others():
    with pytest.raises(InputError) as caught:
        config.resolve({"measure": {"crystal_along_z": [1, 0, 0]}})
    assert str(caught.value) == "measure: crystal_along_z and crystal_along_x are given together or not at all"
