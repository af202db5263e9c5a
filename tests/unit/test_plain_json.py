"""JSON of strangers: depth and numbers within limits, everything else as it is."""

import pytest

from tomoseg import plain_json


def nested(levels, kind="[]"):
    return kind[0] * levels + kind[1] * levels if kind == "[]" else '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    "text", [nested(5), nested(plain_json.MOST_LEVELS), nested(50, "{}"), '{"a": [1.5, null, "x"]}']
)
def test_what_is_reasonable_is_read(text):
    import json

    assert plain_json.load(text) == json.loads(text)
    assert plain_json.load(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (nested(plain_json.MOST_LEVELS + 1), "nested too deep"),
        (nested(100_000), "nested too deep"),
        (nested(100_000, "{}"), "nested too deep"),
        ("[" * 100_000, "nested too deep"),
        ("1" + "0" * 400, "128 bits"),
        ('{"a": [-1' + "0" * 60 + "]}", "128 bits"),
        ("9" * 10_000, "."),
        ("{", "."),
    ],
    ids=lambda value: value[:12],
)
def test_what_is_not_is_a_value_error(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        plain_json.load(text)
    assert len(str(caught.value)) < 500
