"""Error pages compared byte for byte with Werkzeug's."""

from __future__ import annotations

import inspect

import pytest
import werkzeug.exceptions
from hypothesis import given
from hypothesis import strategies as st

import hipflask.werkzeug.exceptions

ours, theirs = hipflask.werkzeug.exceptions, werkzeug.exceptions
NAMES = sorted(
    name
    for name, value in vars(theirs).items()
    if inspect.isclass(value) and issubclass(value, theirs.HTTPException)
)


def answer(module, name, *args, **kwargs):
    """What the exception shows of itself and what it sends."""
    error = getattr(module, name)(*args, **kwargs)
    response = error.get_response()
    headers = sorted((key, str(value)) for key, value in response.headers)
    return error.code, error.name, str(error), repr(error), response.status, headers, response.get_data()


@pytest.mark.parametrize("name", NAMES)
def test_default_page(name):
    assert answer(ours, name) == answer(theirs, name)


@pytest.mark.parametrize("name", NAMES)
def test_the_classes_derive_from_each_other_alike(name):
    lineage = [[base.__name__ for base in getattr(module, name).__mro__] for module in (ours, theirs)]
    assert lineage[0] == lineage[1]
    assert (
        inspect.signature(getattr(ours, name)).parameters.keys()
        == inspect.signature(getattr(theirs, name)).parameters.keys()
    )


@given(st.sampled_from(NAMES), st.one_of(st.none(), st.text(max_size=40)))
def test_any_description(name, description):
    assert answer(ours, name, description=description) == answer(theirs, name, description=description)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("MethodNotAllowed", {"valid_methods": ["GET", "POST"]}),
        ("MethodNotAllowed", {"valid_methods": []}),
        ("RequestedRangeNotSatisfiable", {"length": 5, "units": "items"}),
        ("TooManyRequests", {"retry_after": 0}),
        ("ServiceUnavailable", {"retry_after": 7}),
        ("BadRequestKeyError", {"arg": "k"}),
    ],
)
def test_arguments(name, kwargs):
    assert answer(ours, name, **kwargs) == answer(theirs, name, **kwargs)


def test_the_table_of_defaults():
    table = [{code: cls.__name__ for code, cls in m.default_exceptions.items()} for m in (ours, theirs)]
    assert table[0] == table[1]
