"""Functions that take parameters as keywords: what a stage does, callable from a script or a notebook."""

import inspect
import textwrap
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from tomoseg.errors import InputError, TomosegWarning
from tomoseg.lengths import require_size
from tomoseg.parameters import Parameters
from tomoseg.runtime import make_runtime

R = TypeVar("R")

_RUNTIME_KEYWORDS = {"device": "auto", "workers": None, "max_memory": None, "progress": None}
_SIZES = ("pixel_size_nm", "voxel_size_nm")
_RUNTIME_DOC = """\
device : {'auto', 'cpu', 'cuda'}
    What to compute on.
workers : int, optional
    Threads; by default one for each CPU that this process may use.
max_memory : int or str, optional
    Bytes to work in, or a text such as '8G'; by default half of what it may use. What is returned comes on top.
progress : {'auto', 'bar', 'plain', 'none'} or tomoseg.runtime.Progress, optional
    Where progress is shown; by default nowhere.
"""


def takes_parameters(
    section: str, model: type[Parameters], check: Callable[[Any], list[str]] | None = None
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Make a function of (arrays, ..., *, params, runtime) one whose keywords are the parameters of `model`.

    The names, defaults and descriptions of the keywords are those of the model, and so are the errors. `device`,
    `workers`, `max_memory` and `progress` become the `runtime`. A parameter that names another project is handed over
    as the alignment that it holds. What the function warns of is a `TomosegWarning`.

    Parameters
    ----------
    section : name of the parameters in messages ('reconstruct')
    model : the parameters
    check : returns what is wrong with valid parameters in combination, and with the files that they name
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        made = {"params", "runtime", *model.other_project_fields()}
        own = [p for p in inspect.signature(function).parameters.values() if p.name not in made]

        @wraps(function)
        def called(*arguments: Any, **keywords: Any) -> R:
            settings = {name: keywords.pop(name, default) for name, default in _RUNTIME_KEYWORDS.items()}
            named = {p.name for p in own}
            options = {name: keywords.pop(name) for name in list(keywords) if name not in named}
            params = model.of(section, options)
            for name in _SIZES:
                size = keywords.get(name)
                require_size(name, None if size is None or np.isnan(size) else size)  # NaN: unknown
            if problems := check(params) if check else []:
                raise InputError.of(problems)
            runtime = make_runtime(**settings)
            if model.other_project_fields():
                from tomoseg.project.other_project import read_alignments

                keywords |= read_alignments(params)
            result = function(*arguments, **keywords, params=params, runtime=runtime)
            for text in runtime.warnings:
                warnings.warn(text, TomosegWarning, stacklevel=2)
            return result

        called.__signature__ = _signature(function, own, model)  # type: ignore[attr-defined]
        called.__doc__ = _documented(function.__doc__ or "", model)
        return called

    return decorate


def _signature(
    function: Callable[..., Any], own: list[inspect.Parameter], model: type[Parameters]
) -> inspect.Signature:
    kind = inspect.Parameter.KEYWORD_ONLY
    options = {name: field.default for name, field in model.model_fields.items()} | _RUNTIME_KEYWORDS
    made = [inspect.Parameter(name, kind, default=default) for name, default in options.items()]
    return inspect.Signature(own + made, return_annotation=inspect.signature(function).return_annotation)


def _documented(text: str, model: type[Parameters]) -> str:
    """Put the parameters of the model into a numpydoc text, before the section 'Returns'."""
    text = inspect.cleandoc(text)
    before, heading, after = text.partition("\nReturns\n-------\n")
    lines = ["Other Parameters", "----------------"]
    for name, field in model.model_fields.items():
        default = "optional" if field.default is None else f"default {field.default!r}"
        lines.append(f"{name} : {default}")
        lines += textwrap.wrap(f"{field.description}.", 110, initial_indent="    ", subsequent_indent="    ")
    options = "\n".join(lines)
    return f"{before}\n{options}\n{_RUNTIME_DOC}{heading}{after}" if heading else f"{text}\n\n{options}\n{_RUNTIME_DOC}"
