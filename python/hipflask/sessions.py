"""Sessions: what they are, how one is opened and saved, and the default that keeps them in a signed cookie.

The cookie is Flask's to the byte: `itsdangerous` with a timestamp, HMAC-SHA-1, and tagged JSON. An interface
whose signing is not customised signs and verifies natively; any other goes through `itsdangerous` in Python.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from ._core import session_open, session_seal
from .werkzeug.datastructures import CallbackDict

if TYPE_CHECKING:
    from datetime import datetime

    from itsdangerous import URLSafeTimedSerializer

    from .app import Flask
    from .json.tag import TaggedJSONSerializer
    from .wrappers import Request, Response

    session_json_serializer: TaggedJSONSerializer


class SessionMixin(MutableMapping[str, Any]):
    """What a session has beside its items.

    Implements: flask.sessions.SessionMixin (3.1).
    """

    @property
    def permanent(self) -> bool:
        """Whether the session outlives the browser's; stored under the key `_permanent`."""
        value: bool = self.get("_permanent", False)
        return value

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self["_permanent"] = bool(value)

    #: Whether the session was made by this request. A back end that cannot know says False.
    new = False
    #: Whether the session was changed. A back end that cannot know says True.
    modified = True
    #: Whether the request looked at the session in any way, so that its answer depends on the cookie.
    #: The request context sets it, on every use of `session`.
    accessed = False


class SecureCookieSession(CallbackDict[str, Any], SessionMixin):
    """The session of the default interface: a dictionary that notes changes.

    Changes inside of a value, such as appending to a list, are not seen: set `modified` then.

    Implements: flask.sessions.SecureCookieSession (3.1).
    """

    modified = False

    def __init__(self, initial: Mapping[str, Any] | None = None) -> None:
        super().__init__(initial, _mark_modified)

    def __setitem__(self, key: str, value: Any) -> None:
        if self.on_update is _mark_modified:
            # The same as below, in fewer steps.
            dict.__setitem__(self, key, value)
            self.modified = True
        else:
            super().__setitem__(key, value)


def _mark_modified(session: SecureCookieSession) -> None:
    session.modified = True


class NullSession(SecureCookieSession):
    """The session of an application without a secret key: it can be read, is empty, and refuses to be
    changed.

    Implements: flask.sessions.NullSession (3.1).
    """

    def _fail(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            "The session is unavailable because no secret key was set."
            " Set the secret_key on the application to something unique and secret."
        )

    __setitem__ = __delitem__ = clear = pop = popitem = update = setdefault = _fail
    del _fail


class SessionInterface:
    """How sessions are opened and saved.

    Subclass it, write `open_session` and `save_session`, and set `app.session_interface`.

    Implements: flask.sessions.SessionInterface (3.1).
    """

    #: Made when there is no session, for instance for want of a secret key.
    null_session_class = NullSession
    #: Whether sessions are pickled; extensions ask.
    pickle_based = False

    def make_null_session(self, app: Flask) -> NullSession:
        """Make the session that stands in when `open_session` returns None."""
        return self.null_session_class()

    def is_null_session(self, obj: object) -> bool:
        """Tell whether a session is such a stand-in, which is not saved."""
        return isinstance(obj, self.null_session_class)

    def get_cookie_name(self, app: Flask) -> str:
        """Return the cookie's name: `SESSION_COOKIE_NAME`."""
        name: str = app.config["SESSION_COOKIE_NAME"]
        return name

    def get_cookie_domain(self, app: Flask) -> str | None:
        """Return the cookie's domain: `SESSION_COOKIE_DOMAIN`. None binds it to the exact host."""
        domain: str | None = app.config["SESSION_COOKIE_DOMAIN"]
        return domain

    def get_cookie_path(self, app: Flask) -> str:
        """Return the cookie's path: `SESSION_COOKIE_PATH`, else `APPLICATION_ROOT`."""
        path: str = app.config["SESSION_COOKIE_PATH"] or app.config["APPLICATION_ROOT"]
        return path

    def get_cookie_httponly(self, app: Flask) -> bool:
        """Tell whether scripts are kept from the cookie: `SESSION_COOKIE_HTTPONLY`."""
        httponly: bool = app.config["SESSION_COOKIE_HTTPONLY"]
        return httponly

    def get_cookie_secure(self, app: Flask) -> bool:
        """Tell whether the cookie is for HTTPS alone: `SESSION_COOKIE_SECURE`."""
        secure: bool = app.config["SESSION_COOKIE_SECURE"]
        return secure

    def get_cookie_samesite(self, app: Flask) -> str | None:
        """Return `"Strict"`, `"Lax"`, `"None"` or None: `SESSION_COOKIE_SAMESITE`."""
        samesite: str | None = app.config["SESSION_COOKIE_SAMESITE"]
        return samesite

    def get_cookie_partitioned(self, app: Flask) -> bool:
        """Tell whether the cookie is kept apart for each embedding site: `SESSION_COOKIE_PARTITIONED`."""
        partitioned: bool = app.config["SESSION_COOKIE_PARTITIONED"]
        return partitioned

    def get_expiration_time(self, app: Flask, session: SessionMixin) -> datetime | None:
        """Return when a permanent session ends, None for one that ends with the browser's."""
        if not session.permanent:
            return None
        from datetime import datetime, timezone

        return datetime.now(timezone.utc) + app.permanent_session_lifetime

    def should_set_cookie(self, app: Flask, session: SessionMixin) -> bool:
        """Tell whether the answer carries the cookie.

        It does if the session was changed, or is permanent and `SESSION_REFRESH_EACH_REQUEST` is set.
        """
        return session.modified or (session.permanent and app.config["SESSION_REFRESH_EACH_REQUEST"])

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        """Open the session at the start of a request, before its URL is matched.

        Returns:
            A session, or None: then there is a null session.
        """
        raise NotImplementedError

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save the session when the response is made. Not called for null sessions."""
        raise NotImplementedError


def _lazy_sha1(string: bytes = b"") -> Any:
    """Start a SHA-1, imported only now: a Python built for FIPS has none, and can use another digest."""
    from hashlib import sha1

    return sha1(string)


class _LazySerializer:
    """The class attribute `serializer`: tagged JSON is loaded when somebody asks for it."""

    def __get__(self, instance: object, owner: type | None = None) -> TaggedJSONSerializer:
        return _shared_serializer()


def _shared_serializer() -> TaggedJSONSerializer:
    """Return the serializer that all interfaces share unless they have their own."""
    serializer: TaggedJSONSerializer | None = globals().get("session_json_serializer")
    if serializer is None:
        from .json.tag import TaggedJSONSerializer

        serializer = globals().setdefault("session_json_serializer", TaggedJSONSerializer())
    return serializer


def __getattr__(name: str) -> Any:
    if name == "session_json_serializer":
        return _shared_serializer()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class SecureCookieSessionInterface(SessionInterface):
    """Keeps sessions in a cookie, signed with the application's secret key.

    What is in the session can be read by its owner, but not changed.

    Implements: flask.sessions.SecureCookieSessionInterface (3.1).
    """

    #: Sets these signatures apart from others made with the same key.
    salt = "cookie-session"
    #: The hash function of the signature.
    digest_method = staticmethod(_lazy_sha1)
    #: How `itsdangerous` makes the signing key from the secret key and the salt.
    key_derivation = "hmac"
    #: Writes and reads the payload.
    serializer = _LazySerializer()
    session_class = SecureCookieSession

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        """Make the serializer that signs and verifies, None if the application has no secret key.

        `SECRET_KEY_FALLBACKS` verify only.
        """
        if not app.secret_key:
            return None
        from itsdangerous import URLSafeTimedSerializer

        # itsdangerous signs with the last key and verifies with each.
        keys = [*(app.config["SECRET_KEY_FALLBACKS"] or ()), app.secret_key]
        return URLSafeTimedSerializer(
            keys,
            salt=self.salt,
            serializer=self.serializer,
            signer_kwargs={"key_derivation": self.key_derivation, "digest_method": self.digest_method},
        )

    def _signs_natively(self) -> bool:
        """Tell whether nobody has changed how sessions are written and signed."""
        kind = type(self)
        if (
            kind.get_signing_serializer is not _SIGNING_SERIALIZER
            or self.digest_method is not _lazy_sha1
            or self.key_derivation != "hmac"
        ):
            return False
        own = vars(self)
        if "get_signing_serializer" in own or "serializer" in own:
            return False
        for base in kind.__mro__:
            if "serializer" in vars(base):
                if not isinstance(vars(base)["serializer"], _LazySerializer):
                    return False
                break
        tags = sys.modules.get("hipflask.json.tag")
        # Whoever has loaded the tags may have registered one more with the shared serializer.
        return tags is None or tuple(type(tag) for tag in _shared_serializer().order) == tags.NATIVE_TAGS

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Read the session from its cookie.

        Returns:
            An empty session if the cookie is missing, forged, expired or broken; None if there is no secret
            key.
        """
        if (
            type(self).get_signing_serializer is _SIGNING_SERIALIZER
            and "get_signing_serializer" not in self.__dict__
            and app.secret_key
            and not request.cookies.get(self.get_cookie_name(app))
        ):
            return self.session_class()
        native = self._signs_natively()
        serializer = None
        if not native:
            serializer = self.get_signing_serializer(app)
            if serializer is None:
                return None
        elif not app.secret_key:
            return None
        value = request.cookies.get(self.get_cookie_name(app))
        if not value:
            return self.session_class()
        max_age = int(app.permanent_session_lifetime.total_seconds())
        if native:
            data = session_open(
                value, app.secret_key, app.config["SECRET_KEY_FALLBACKS"], self.salt, max_age, app.json
            )
            if data is not NotImplemented:
                return self._session_of(data)
            serializer = self.get_signing_serializer(app)
            assert serializer is not None
        from itsdangerous import BadData

        try:
            return self._session_of(serializer.loads(value, max_age=max_age))  # type: ignore[union-attr]
        except BadData:
            # Also a payload that is signed but cannot be read: better an empty session than an error page
            # that only deleting the cookie helps against.
            return self.session_class()

    def _session_of(self, data: Any) -> SecureCookieSession:
        """Make a session of a payload; an empty one if it is, for instance, a number."""
        try:
            return self.session_class(data)
        except (TypeError, ValueError):
            return self.session_class()

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Write the session to its cookie if it was changed; delete the cookie of one that was emptied."""
        if session.accessed:
            _vary_by_cookie(response)
        if not session and not session.modified:
            return
        name = self.get_cookie_name(app)
        attributes: dict[str, Any] = {
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "secure": self.get_cookie_secure(app),
            "httponly": self.get_cookie_httponly(app),
            "samesite": self.get_cookie_samesite(app),
            "partitioned": self.get_cookie_partitioned(app),
        }
        if not session:
            response.delete_cookie(name, **attributes)
            _vary_by_cookie(response)
        elif self.should_set_cookie(app, session):
            expires = self.get_expiration_time(app, session)
            response.set_cookie(name, self._seal(app, session), expires=expires, **attributes)
            _vary_by_cookie(response)

    def _seal(self, app: Flask, session: SessionMixin) -> str:
        if self._signs_natively() and app.secret_key:
            value = session_seal(dict(session), app.secret_key, self.salt, app.json)
            if value is not None:
                return value
        serializer = self.get_signing_serializer(app)
        assert serializer is not None, "a session is saved only if there is a secret key"
        return serializer.dumps(dict(session))


def _vary_by_cookie(response: Response) -> None:
    """Add `Cookie` to `Vary`. Most responses have no such header or just this one: those are quick."""
    vary = response.headers.get("Vary")
    if vary is None:
        response.headers["Vary"] = "Cookie"
    elif vary != "Cookie":
        response.vary.add("Cookie")


_SIGNING_SERIALIZER = SecureCookieSessionInterface.get_signing_serializer
