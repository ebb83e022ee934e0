"""The proxies to the current app and request.

Implements `flask.globals` (3.1). The two variables are slots of one native context variable.
"""

from __future__ import annotations

from ._core import LocalProxy, app_slot, request_slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._core import SlotVar
    from .app import Flask
    from .ctx import AppContext, RequestContext, _AppCtxGlobals
    from .sessions import SessionMixin
    from .wrappers import Request

# Tests of apps and extensions compare the first line, so it is Flask's.
_no_app_msg = """\
Working outside of application context.

The code that ran needs to know the current app. Push a context around it, for example
with "with app.app_context():" in a script or a test.\
"""
_no_req_msg = """\
Working outside of request context.

The code that ran needs an HTTP request. It belongs in a view function or a hook; in a
test, push a context around it with "with app.test_request_context():".\
"""

_cv_app: SlotVar[AppContext] = app_slot
app_ctx: AppContext = LocalProxy(_cv_app, unbound_message=_no_app_msg)  # type: ignore[assignment]
"""The context of the current app."""
current_app: Flask = LocalProxy(_cv_app, "app", unbound_message=_no_app_msg)  # type: ignore[assignment]
"""The app that answers the request, or whose context was pushed. Imports of the app itself are not needed."""
g: _AppCtxGlobals = LocalProxy(_cv_app, "g", unbound_message=_no_app_msg)  # type: ignore[assignment]
"""A place for values that live as long as the app context: during one request, one command."""

_cv_request: SlotVar[RequestContext] = request_slot
request_ctx: RequestContext = LocalProxy(_cv_request, unbound_message=_no_req_msg)  # type: ignore[assignment]
"""The context of the current request."""
request: Request = LocalProxy(_cv_request, "request", unbound_message=_no_req_msg)  # type: ignore[assignment]
"""The request that is being answered."""
session: SessionMixin = LocalProxy(_cv_request, "session", unbound_message=_no_req_msg)  # type: ignore[assignment]
"""The user's session: a dictionary that is kept between requests, in a signed cookie unless set otherwise."""
