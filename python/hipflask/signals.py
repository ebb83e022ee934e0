"""The signals that an app sends.

Implements `flask.signals` (3.1) on blinker. A signal is made when somebody first asks for it by name, so
blinker is imported only by programs that listen: while `_made` is empty, nobody does.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from blinker import NamedSignal, Namespace

    from .app import Flask

    _signals: Namespace
    template_rendered: NamedSignal
    before_render_template: NamedSignal
    request_started: NamedSignal
    request_finished: NamedSignal
    request_tearing_down: NamedSignal
    got_request_exception: NamedSignal
    appcontext_tearing_down: NamedSignal
    appcontext_pushed: NamedSignal
    appcontext_popped: NamedSignal
    message_flashed: NamedSignal

_NAMES = {
    "template_rendered": "A template was rendered; receivers get `template` and `context`.",
    "before_render_template": "A template is about to be rendered; receivers get `template` and `context`.",
    "request_started": "The context of a request is there; no hook has run yet.",
    "request_finished": "A response is about to be sent; receivers get `response`.",
    "request_tearing_down": "A request's context is going; receivers get the error as `exc`, or None.",
    "got_request_exception": "An error is about to become a 500; receivers get it as `exception`.",
    "appcontext_tearing_down": "An app's context is going; receivers get the error as `exc`, or None.",
    "appcontext_pushed": "An app's context was bound.",
    "appcontext_popped": "An app's context was unbound.",
    "message_flashed": "A message was flashed; receivers get `message` and `category`.",
}

# The signals that exist so far. The native dispatcher holds this dict too: it is changed, never replaced.
_made: dict[str, NamedSignal] = {}


def __getattr__(name: str) -> Any:
    if name == "_signals":
        from blinker import Namespace

        value: Any = Namespace()
    elif name in _NAMES:
        namespace = globals().get("_signals")
        if namespace is None:
            namespace = __getattr__("_signals")
        value = _made[name] = namespace.signal(name.replace("_", "-"), doc=_NAMES[name])
    elif name == "__all__":
        return list(_NAMES)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})


def send(name: str, app: Flask, **values: Any) -> None:
    """Send the signal called `name` from `app` if anybody listens to it.

    Args:
        name: The signal's attribute name in this module.
        app: The sender.
        values: What the receivers get.
    """
    signal = _made.get(name)
    if signal is not None and signal.receivers:
        signal.send(app, _async_wrapper=app.ensure_sync, **values)
