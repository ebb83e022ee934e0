"""The public names of Hipflask are Flask's and Werkzeug's, and take every call that theirs take.

The reference is what is installed: each public module, class, function and method of it is looked up in
Hipflask.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any, TypeVar

import flask
import pytest
import werkzeug
from werkzeug.local import LocalProxy

import hipflask

OURS = {"flask": "hipflask", "werkzeug": "hipflask.werkzeug"}

#: What the reference has and Hipflask has not (a name, or all below it), each with its reason.
ABSENT = {
    "werkzeug.debug.console": "how the debugger works inside; its documented class is DebuggedApplication",
    "werkzeug.debug.repr.DebugReprGenerator": "how the debugger works inside",
    "werkzeug.local.LocalProxy.__getattr__": "the native class has __getattribute__, which does its work",
    "werkzeug.routing.matcher": "states of a matcher in Python; ours is native",
    "werkzeug.routing.rules.RulePart": "what that matcher is built of",
    "werkzeug.routing.rules.Weighting": "what that matcher is built of",
    "werkzeug.serving.BaseWSGIServer": "the engine is the server; what callers use is there",
    "werkzeug.serving.ThreadedWSGIServer": "the same",
    "werkzeug.serving.DechunkedInput": "the engine decodes bodies",
    "werkzeug.serving.ForkingWSGIServer": "the engine has threads, not processes",
    "werkzeug.serving.WSGIRequestHandler": "the engine does its work; ours is for the log alone",
}

#: Classes of the standard library that the reference's servers inherit: theirs is not Werkzeug's API.
LIBRARY = ("http.server", "socketserver", "traceback", "io", "_io")

SIMPLE = (bool, int, float, str, bytes, tuple, type(None))

SPECIAL = [
    *("__bool__", "__call__", "__contains__", "__copy__", "__delitem__", "__enter__", "__exit__"),
    *("__getattr__", "__getitem__", "__iter__", "__len__", "__or__", "__reversed__", "__setitem__"),
]


def public_modules() -> Iterator[str]:
    for package in (flask, werkzeug):
        yield package.__name__
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if "._" not in module.name:
                yield module.name


def module_of_ours(name: str) -> ModuleType:
    top, dot, rest = name.partition(".")
    return importlib.import_module(OURS[top] + dot + rest)


def public_names(module: ModuleType) -> Iterator[str]:
    """What a module defines; for a package also what it takes from its modules to offer it."""
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, (ModuleType, TypeVar)):
            continue
        home = "flask.globals" if type(value) is LocalProxy else getattr(value, "__module__", "")
        if home == module.__name__ or hasattr(module, "__path__") and home.startswith(module.__name__):
            yield name


def is_absent(path: str) -> bool:
    """Whether a missing name has its reason."""
    return any(path == name or path.startswith(name + ".") for name in ABSENT)


def is_inherited(cls: type, name: str) -> bool:
    """Whether a class has a member from the standard library's servers alone."""
    return next((base.__module__ for base in cls.__mro__ if name in vars(base)), None) in LIBRARY


def signature_of(value: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(value)
    except (TypeError, ValueError):
        return None


def calls(signature: inspect.Signature) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Calls that a signature takes; each value is the name of the parameter that it is for."""
    parameters = signature.parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    only = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    fixed = [
        p
        for i, p in enumerate(positional)
        if p.kind is p.POSITIONAL_ONLY or i == 0 and p.name in ("self", "cls")
    ]
    named = [p for p in positional if p not in fixed]
    kinds = {p.kind for p in parameters}
    # By position and by name, with all parameters and with those that have no default.
    for needed in (False, True):

        def names(of: list[inspect.Parameter], needed: bool = needed) -> list[str]:
            return [p.name for p in of if p.default is p.empty or not needed]

        keywords = {name: name for name in names(only)}
        yield names(fixed) + names(named), keywords
        yield names(fixed), keywords | {name: name for name in names(named)}
    every, keywords = [p.name for p in positional], {p.name: p.name for p in only if p.default is p.empty}
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        yield [*every, "more"], keywords
    if inspect.Parameter.VAR_KEYWORD in kinds:
        yield every, {**keywords, "any_name": "any_name"}


def refused(theirs: Any, ours: Any) -> str:
    """A call or a default that the reference has and ours has not; empty if there is none."""
    wanted, given = signature_of(theirs), signature_of(ours)
    if wanted is None:
        return ""
    if given is None:
        return "has no signature"
    first = next(iter(wanted.parameters), None)
    for args, kwargs in calls(wanted):
        try:
            bound = given.bind(*args, **kwargs).arguments
        except TypeError as error:
            return f"{error}: ({', '.join(args)}; {', '.join(kwargs)})"
        for name, value in bound.items():
            parameter = given.parameters[name]
            misplaced = isinstance(value, str) and value not in (name, "more", "any_name")
            if misplaced and value != first and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                return f"{value} is taken for {name}"
    for name, parameter in wanted.parameters.items():
        default = parameter.default
        if name in given.parameters and isinstance(default, SIMPLE):
            other = given.parameters[name].default
            if other != default and isinstance(other, SIMPLE):
                return f"default of {name}: {other!r}, not {default!r}"
    return ""


def differences(theirs: Any, ours: Any, path: str) -> Iterator[str]:
    """What the reference has at a path and ours lacks."""
    if inspect.isclass(theirs):
        if not inspect.isclass(ours):
            yield f"{path}: no class"
            return
        names = [name for name in dir(theirs) if not name.startswith("_")]
        names += [name for name in SPECIAL if hasattr(theirs, name)]
        for name in names:
            member = inspect.getattr_static(theirs, name)
            if is_inherited(theirs, name) or inspect.ismemberdescriptor(member):
                continue
            if not hasattr(ours, name):
                yield f"{path}.{name}: missing"
            elif (
                name not in SPECIAL
                and inspect.isroutine(member)
                or isinstance(member, (staticmethod, classmethod))
            ):
                reason = refused(getattr(theirs, name), getattr(ours, name))
                if reason:
                    yield f"{path}.{name}: {reason}"
    if callable(theirs):
        reason = refused(theirs, ours)
        if reason:
            yield f"{path}: {reason}"


@pytest.mark.parametrize("name", list(public_modules()))
def test_a_module_has_the_names_of_the_reference(name: str) -> None:
    theirs = importlib.import_module(name)
    ours = module_of_ours(name)
    found = []
    for key in public_names(theirs):
        if not hasattr(ours, key):
            found.append(f"{name}.{key}: missing")
        elif type(getattr(theirs, key)) is not LocalProxy:
            found += differences(getattr(theirs, key), getattr(ours, key), f"{name}.{key}")
    assert [line for line in found if not is_absent(line.partition(":")[0])] == []


@pytest.mark.parametrize("name", list(public_modules()))
def test_a_star_import_takes_what_the_module_defines(name: str) -> None:
    theirs: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    exec(f"from {name} import *", theirs)
    exec(f"from {module_of_ours(name).__name__} import *", ours)
    wanted = {key for key in public_names(importlib.import_module(name)) if not is_absent(f"{name}.{key}")}
    assert wanted & set(theirs) <= set(ours)


def test_each_exported_name_is_in_dir() -> None:
    assert set(public_names(flask)) <= set(dir(hipflask))


def test_a_name_that_flask_has_not_is_not_found() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing_like_it'"):
        hipflask.nothing_like_it  # noqa: B018
