"""What `import tomoseg` offers: names, signatures, documentation and errors that agree with the command line."""

import inspect
import subprocess
import sys

import pytest
from numpydoc.docscrape import FunctionDoc

import tomoseg as ts
from tomoseg.errors import InputError
from tomoseg.stages import BY_NAME

OF_STAGES = {"align": "align", "reconstruct": "reconstruct", "segment": "segment", "measure": "measure"}
RUNTIME = {"device", "workers", "max_memory", "progress"}


def test_importing_loads_nothing_heavy():
    heavy = {"numpy", "pydantic", "h5py", "scipy", "numba", "pandas", "tensorflow", "astra", "vtkmodules", "matplotlib"}
    code = f"import sys, tomoseg; assert set(tomoseg.__all__) <= set(dir(tomoseg)); print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'algin'"):
        ts.algin  # noqa: B018


@pytest.mark.parametrize(("name", "stage"), OF_STAGES.items())
def test_keywords_are_the_parameters_of_the_stage(name, stage):
    fields = BY_NAME[stage].parameters.model_fields
    parameters = inspect.signature(getattr(ts, name)).parameters
    assert fields.keys() | RUNTIME <= parameters.keys()
    assert {n: parameters[n].default for n in fields} == {n: field.default for n, field in fields.items()}
    assert all(parameters[n].kind is inspect.Parameter.KEYWORD_ONLY for n in fields)


@pytest.mark.parametrize("name", [n for n in ts.__all__ if n != "__version__"])
def test_every_argument_and_result_is_documented(name):
    function = getattr(ts, name)
    doc = FunctionDoc(function)
    assert doc["Summary"][0].endswith(".")
    described = {n.strip() for p in (*doc["Parameters"], *doc["Other Parameters"]) for n in p.name.split(",")}
    assert described == set(inspect.signature(function).parameters)
    assert all(" ".join(p.desc) for p in (*doc["Parameters"], *doc["Other Parameters"]))
    assert doc["Returns"]
    assert doc["Raises"]
    assert doc["Examples"]


@pytest.mark.parametrize("name", OF_STAGES)
def test_a_misspelt_keyword_is_the_sentence_of_the_command_line(name):
    function = getattr(ts, name)
    n_arrays = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in inspect.signature(function).parameters.values())
    with pytest.raises(InputError, match=rf"{name}\.itterations: there is no such parameter; {name} has "):
        function(*[None] * n_arrays, itterations=3)


def test_settings_by_stage_and_parameter():
    with pytest.raises(InputError, match=r"is not STAGE\.PARAM"):
        ts.run("raw.mrc", "p.h5", settings={"iterations": 40})
    with pytest.raises(InputError, match="the stages are import, align"):
        ts.run("raw.mrc", "p.h5", settings={"reconstuct.iterations": 40})


def test_the_runtime_keywords_are_checked():
    with pytest.raises(InputError, match="auto, cpu, cuda"):
        ts.reconstruct(None, None, device="gpu")
    with pytest.raises(InputError, match="64M to 1024T"):
        ts.reconstruct(None, None, max_memory="3")
