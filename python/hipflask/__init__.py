"""Flask's API on a Rust engine.

The names are imported when first used: a program pays for what it needs only.
"""

from __future__ import annotations

import os as _os

from .alias import install_as_flask as install_as_flask

# Taken now: the submodule `globals` will hide the function.
_names = globals()

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import json as json
    from .app import Flask as Flask
    from .blueprints import Blueprint as Blueprint
    from .channel import Channel as Channel
    from .channel import Channels as Channels
    from .config import Config as Config
    from .ctx import after_response as after_response
    from .ctx import after_this_request as after_this_request
    from .ctx import copy_current_request_context as copy_current_request_context
    from .ctx import has_app_context as has_app_context
    from .ctx import has_request_context as has_request_context
    from .globals import current_app as current_app
    from .globals import g as g
    from .globals import request as request
    from .globals import session as session
    from .helpers import abort as abort
    from .helpers import flash as flash
    from .helpers import get_flashed_messages as get_flashed_messages
    from .helpers import get_template_attribute as get_template_attribute
    from .helpers import make_response as make_response
    from .helpers import redirect as redirect
    from .helpers import send_early_hints as send_early_hints
    from .helpers import send_file as send_file
    from .helpers import send_from_directory as send_from_directory
    from .helpers import stream_request_body as stream_request_body
    from .helpers import stream_with_context as stream_with_context
    from .helpers import url_for as url_for
    from .json import jsonify as jsonify
    from .signals import appcontext_popped as appcontext_popped
    from .signals import appcontext_pushed as appcontext_pushed
    from .signals import appcontext_tearing_down as appcontext_tearing_down
    from .signals import before_render_template as before_render_template
    from .signals import got_request_exception as got_request_exception
    from .signals import message_flashed as message_flashed
    from .signals import request_finished as request_finished
    from .signals import request_started as request_started
    from .signals import request_tearing_down as request_tearing_down
    from .signals import template_rendered as template_rendered
    from .sse import EventStream as EventStream
    from .sse import ServerSentEvent as ServerSentEvent
    from .templating import render_template as render_template
    from .templating import render_template_string as render_template_string
    from .templating import stream_template as stream_template
    from .templating import stream_template_string as stream_template_string
    from .wrappers import Request as Request
    from .wrappers import Response as Response

_EXPORTS = {
    name: module
    for module, names in {
        "app": "Flask",
        "blueprints": "Blueprint",
        "channel": "Channel Channels",
        "config": "Config",
        "ctx": "after_response after_this_request copy_current_request_context has_app_context"
        " has_request_context",
        "globals": "current_app g request session",
        "helpers": "abort flash get_flashed_messages get_template_attribute make_response redirect"
        " send_early_hints send_file send_from_directory stream_request_body stream_with_context url_for",
        "json": "jsonify",
        "signals": "appcontext_popped appcontext_pushed appcontext_tearing_down before_render_template"
        " got_request_exception message_flashed request_finished request_started request_tearing_down"
        " template_rendered",
        "sse": "EventStream ServerSentEvent",
        "templating": "render_template render_template_string stream_template stream_template_string",
        "wrappers": "Request Response",
    }.items()
    for name in names.split()
}

# What `import flask` loads, so that `flask.sessions.SecureCookieSessionInterface` needs no import of its own.
_SUBMODULES = frozenset(
    {
        "app",
        "background",
        "channel",
        "blueprints",
        "cli",
        "config",
        "ctx",
        "debughelpers",
        "globals",
        "helpers",
        "json",
        "logging",
        "sansio",
        "sessions",
        "signals",
        "sse",
        "templating",
        "testing",
        "typing",
        "views",
        "werkzeug",
        "wrappers",
    }
)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _EXPORTS:
        value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    elif name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    elif name == "__all__":
        # For `from hipflask import *`, which takes what `import flask` has loaded.
        return sorted({*_EXPORTS, *_SUBMODULES})
    elif name == "__version__":
        from importlib.metadata import version
        from warnings import warn

        warn(
            "The '__version__' attribute is deprecated. Use feature detection or"
            " 'importlib.metadata.version(\"flask\")' instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        return version("flask")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _names[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_names, *_EXPORTS, "json"})


if _os.environ.get("HIPFLASK_AS_FLASK", "0") not in ("", "0"):
    install_as_flask()
