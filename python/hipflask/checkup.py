"""What `hipflask check` and `hipflask config` find out about an application and its server.

Looks at an application as it is after its import; sends it no request and changes nothing. Options of
gunicorn and uWSGI are translated by `hipflask.migration`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .app import Flask

#: RFC 2104 §3: a key shorter than the hash's output (SHA-1's here) weakens the signature.
_SHORTEST_KEY = 20

#: The engine's limit of a body, in bytes: `Limits::body` of the crate `hipflask-http`.
_ENGINES_BODY = 4 << 30

_GUESSABLE = {
    "dev",
    "development",
    "secret",
    "secret_key",
    "secret-key",
    "changeme",
    "change-me",
    "test",
    "key",
}

_MASKED = ("SECRET", "PASSWORD", "PASSWD", "TOKEN", "PRIVATE", "CREDENTIAL", "API_KEY", "DSN")


class Finding(NamedTuple):
    """One line of the report on settings."""

    level: str
    """`ok`, `advice` or `problem`."""
    name: str
    text: str


# What the application consists of.


def extensions(app: Flask) -> list[str]:
    """Name the extensions that are registered with the application, or imported, with their versions."""
    packages: dict[str, set[str]] = {}
    for key, value in app.extensions.items():
        value = value[0] if isinstance(value, list | tuple) and value else value
        module = value.__name__ if hasattr(value, "__path__") else type(value).__module__
        package = module.partition(".")[0]
        packages.setdefault(package if package.startswith("flask") else f"flask_{key}", set()).add(str(key))
    for name in list(sys.modules):
        if "." not in name and name.startswith(("flask_", "sentry_sdk")):
            packages.setdefault(name, set())
    return [_with_version(package) for package in sorted(packages)]


def _with_version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        module = sys.modules.get(package)
        own = getattr(module, "__version__", None)
        return f"{package} {own}" if isinstance(own, str) else package


def middleware(app: Flask) -> list[str]:
    """Name what is wrapped around `app.wsgi_app`, from the outside."""
    names = []
    layer = vars(app).get("wsgi_app")
    while layer is not None and getattr(layer, "__self__", None) is not app:
        kind = layer if hasattr(layer, "__qualname__") else type(layer)
        names.append(f"{kind.__module__}.{kind.__qualname__}")
        inner = (getattr(layer, name, None) for name in ("app", "wsgi_app", "application", "_app", "wrapped"))
        layer = next((value for value in inner if callable(value)), None)
    return names


def hooks(app: Flask) -> list[str]:
    """Name the functions that run around views, by kind and blueprint."""
    found = []
    kinds = {
        "before_request": "before_request_funcs",
        "after_request": "after_request_funcs",
        "teardown_request": "teardown_request_funcs",
        "url_value_preprocessor": "url_value_preprocessors",
        "url_defaults": "url_default_functions",
    }
    for kind, attribute in kinds.items():
        for scope, functions in getattr(app, attribute).items():
            where = f" ({scope})" if scope else ""
            found += [f"{kind} {_name(function)}{where}" for function in functions]
    found += [f"teardown_appcontext {_name(function)}" for function in app.teardown_appcontext_funcs]
    return found


def _name(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


# Settings that matter in production.


def findings(app: Flask) -> Iterator[Finding]:
    """Judge the settings, and the routes, for production."""
    yield _secret_key(app)
    yield from _switches(app)
    yield from _cookie(app)
    yield from _limits(app)
    views = app.view_functions
    for rule in app.url_map.iter_rules():
        if rule.endpoint not in views and not rule.build_only and rule.redirect_to is None:
            text = f"has no view: register one for the endpoint {rule.endpoint!r}, or requests for it fail."
            yield Finding("problem", rule.rule, text)


def _secret_key(app: Flask) -> Finding:
    key = app.secret_key
    how = """python -c 'import secrets; print(secrets.token_hex())' makes one."""
    if not key:
        return Finding("problem", "SECRET_KEY", f"is not set, so sessions and flash() fail: {how}")
    if str(key).lower() in _GUESSABLE:
        return Finding("problem", "SECRET_KEY", f"can be guessed, so anybody can forge sessions: {how}")
    length = len(key.encode() if isinstance(key, str) else key)
    if length < _SHORTEST_KEY:
        text = f"has {length} bytes, fewer than {_SHORTEST_KEY}, so it can be found by trying: {how}"
        return Finding("problem", "SECRET_KEY", text)
    return Finding("ok", "SECRET_KEY", f"has {length} bytes.")


def _switches(app: Flask) -> Iterator[Finding]:
    if app.debug:
        yield Finding("problem", "DEBUG", "is on: errors let visitors run code. Leave out --debug.")
    else:
        yield Finding("ok", "DEBUG", "is off.")
    if app.testing:
        yield Finding("problem", "TESTING", "is on: errors are raised instead of answered. Leave it out.")
    if os.environ.get("WERKZEUG_DEBUG_PIN") == "off":
        yield Finding("problem", "WERKZEUG_DEBUG_PIN", "is off: the debugger lets everybody in. Unset it.")
    for name in ("EXPLAIN_TEMPLATE_LOADING", "TEMPLATES_AUTO_RELOAD"):
        if app.config.get(name):
            yield Finding("advice", name, "is on, which costs time at each template.")


def _cookie(app: Flask) -> Iterator[Finding]:
    config = app.config
    if not config["SESSION_COOKIE_HTTPONLY"]:
        yield Finding("problem", "SESSION_COOKIE_HTTPONLY", "is off: scripts can read the session. Set it.")
    if config["SESSION_COOKIE_SECURE"]:
        yield Finding("ok", "SESSION_COOKIE_SECURE", "is on.")
    else:
        yield Finding("advice", "SESSION_COOKIE_SECURE", "is off: set it if the site is served by HTTPS.")
    if config["SESSION_COOKIE_SAMESITE"]:
        yield Finding("ok", "SESSION_COOKIE_SAMESITE", f"is {config['SESSION_COOKIE_SAMESITE']}.")
    else:
        text = "is not set: 'Lax' keeps other sites from sending the session along with their forms."
        yield Finding("advice", "SESSION_COOKIE_SAMESITE", text)


def _limits(app: Flask) -> Iterator[Finding]:
    if app.config.get("TRUSTED_HOSTS"):
        yield Finding("ok", "TRUSTED_HOSTS", f"is {', '.join(app.config['TRUSTED_HOSTS'])}.")
    else:
        text = "is not set: external URLs believe any Host that a client sends. List the site's names."
        yield Finding("advice", "TRUSTED_HOSTS", text)
    most = app.config["MAX_CONTENT_LENGTH"]
    if most is None:
        text = "is not set: a body may have up to 4 GiB, the engine's limit. Set the most that you need."
        yield Finding("advice", "MAX_CONTENT_LENGTH", text)
    elif most > _ENGINES_BODY:
        text = (
            f"is {most} bytes, but the engine refuses bodies above 4 GiB: set it to what you need below that."
        )
        yield Finding("advice", "MAX_CONTENT_LENGTH", text)
    else:
        yield Finding("ok", "MAX_CONTENT_LENGTH", f"is {most} bytes.")


# Settings and where they come from.


def app_settings(app: Flask) -> Iterator[tuple[str, str, str]]:
    """List the application's settings: name, value and source."""
    for name, value in sorted(app.config.items()):
        shown = repr(value)
        if value is not None and any(part in name for part in _MASKED):
            shown = "(hidden)"
        elif isinstance(value, str) and "@" in value and "://" in value:
            scheme, _, rest = value.partition("://")
            shown = repr(f"{scheme}://...@{rest.rpartition('@')[2]}")
        variable = f"FLASK_{name}"
        if variable in os.environ and value in (_parsed(os.environ[variable]), os.environ[variable]):
            source = f"environment {variable}"
        elif name == "DEBUG" and os.environ.get("FLASK_DEBUG"):
            source = "environment FLASK_DEBUG or --debug"
        elif name in app.default_config and app.default_config[name] == value:
            source = "default"
        else:
            source = "application"
        yield name, shown, source


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
