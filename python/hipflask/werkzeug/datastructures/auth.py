"""``Authorization`` and ``WWW-Authenticate``.

Implements: werkzeug.datastructures.auth (3.1); RFC 9110 §11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..http import dump_header, parse_dict_header, quote_header_value
from .structures import CallbackDict

if TYPE_CHECKING:
    from typing_extensions import Self

# Parameters of a digest challenge that are always quoted (RFC 7616 §3.3).
_QUOTED = frozenset(("realm", "domain", "nonce", "opaque", "qop"))


def _split(value: str) -> tuple[str, str, dict[str, str | None] | None]:
    """Scheme, the rest, and the rest's parameters if it has any rather than being a token."""
    scheme, _, rest = value.partition(" ")
    rest = rest.strip()
    # A token may end in equals signs, as Base64 does.
    return scheme.lower(), rest, parse_dict_header(rest) if "=" in rest.rstrip("=") else None


class Authorization:
    """A client's credentials: parameters or a token.

    Parameters are attributes and items too, ``None`` if missing.

    Args:
        auth_type: The scheme, such as ``basic`` or ``bearer``.
        data: The parameters; ``username`` and ``password`` for the scheme ``basic``.
        token: The token, for schemes that have one.
    """

    def __init__(
        self,
        auth_type: str,
        data: dict[str, str | None] | None = None,
        token: str | None = None,
    ) -> None:
        self.type = auth_type
        self.parameters: dict[str, str | None] = {} if data is None else data
        self.token = token

    def __getattr__(self, name: str) -> str | None:
        if name == "parameters":
            # Asked before ``__init__`` ran, by ``copy`` or ``pickle``.
            raise AttributeError(name)
        return self.parameters.get(name)

    def __getitem__(self, name: str) -> str | None:
        return self.parameters.get(name)

    def get(self, key: str, default: str | None = None) -> str | None:
        """A parameter, or ``default``."""
        return self.parameters.get(key, default)

    def __contains__(self, key: str) -> bool:
        return key in self.parameters

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Authorization):
            return NotImplemented
        return (self.type, self.token, self.parameters) == (other.type, other.token, other.parameters)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_header(cls, value: str | None) -> Self | None:
        """Read an ``Authorization`` field; ``None`` if it is missing or its Base64 is broken."""
        if not value:
            return None
        scheme, rest, parameters = _split(value)
        if scheme != "basic":
            return cls(scheme, parameters, rest if parameters is None else None)

        import base64

        try:
            username, _, password = base64.b64decode(rest).decode().partition(":")
        except ValueError:
            # What Base64 and UTF-8 raise are both kinds of it.
            return None
        return cls(scheme, {"username": username, "password": password})

    def to_header(self) -> str:
        """The field's value."""
        if self.type == "basic":
            import base64

            text = f"{self.username}:{self.password}"
            return f"Basic {base64.b64encode(text.encode()).decode('ascii')}"
        return f"{self.type.title()} {dump_header(self.parameters) if self.token is None else self.token}"

    def __str__(self) -> str:
        return self.to_header()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.to_header()}>"


class WWWAuthenticate:
    """A server's challenge: parameters or a token. Parameters are attributes and items too.

    Args:
        auth_type: The scheme, such as ``basic`` or ``digest``.
        values: The parameters, such as ``realm``.
        token: The token, for schemes that have one.
    """

    _type: str
    _parameters: dict[str, str | None]
    _token: str | None
    _on_update: Callable[[WWWAuthenticate], None] | None

    def __init__(
        self,
        auth_type: str,
        values: dict[str, str | None] | None = None,
        token: str | None = None,
    ) -> None:
        self._on_update = None
        self._type = auth_type.lower()
        self._parameters = CallbackDict(values, self._parameters_changed)
        self._token = token

    def _parameters_changed(self, _: Any) -> None:
        self._trigger_on_update()

    def _trigger_on_update(self) -> None:
        if self._on_update is not None:
            self._on_update(self)

    @property
    def type(self) -> str:
        """The scheme."""
        return self._type

    @type.setter
    def type(self, value: str) -> None:
        self._type = value
        self._trigger_on_update()

    @property
    def parameters(self) -> dict[str, str | None]:
        """The parameters; changes of the dict are noticed."""
        return self._parameters

    @parameters.setter
    def parameters(self, value: dict[str, str | None]) -> None:
        self._parameters = CallbackDict(value, self._parameters_changed)
        self._trigger_on_update()

    @property
    def token(self) -> str | None:
        """The token."""
        return self._token

    @token.setter
    def token(self, value: str | None) -> None:
        self._token = value
        self._trigger_on_update()

    def __getitem__(self, key: str) -> str | None:
        return self.parameters.get(key)

    def __setitem__(self, key: str, value: str | None) -> None:
        if value is None:
            self.parameters.pop(key, None)
        else:
            self.parameters[key] = value
        self._trigger_on_update()

    def __delitem__(self, key: str) -> None:
        if key in self.parameters:
            del self.parameters[key]
            self._trigger_on_update()

    def __getattr__(self, name: str) -> str | None:
        if name == "_parameters":
            # Asked before ``__init__`` ran, by ``copy`` or ``pickle``.
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_type", "_parameters", "_token", "_on_update"):
            super().__setattr__(name, value)
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __contains__(self, key: str) -> bool:
        return key in self.parameters

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WWWAuthenticate):
            return NotImplemented
        return (self.type, self.token, self.parameters) == (other.type, other.token, other.parameters)

    __hash__ = None  # type: ignore[assignment]

    def get(self, key: str, default: str | None = None) -> str | None:
        """A parameter, or ``default``."""
        return self.parameters.get(key, default)

    @classmethod
    def from_header(cls, value: str | None) -> Self | None:
        """Read a ``WWW-Authenticate`` field; ``None`` if it is missing."""
        if not value:
            return None
        scheme, rest, parameters = _split(value)
        return cls(scheme, parameters, rest if parameters is None else None)

    def to_header(self) -> str:
        """The field's value."""
        if self.token is not None:
            text = self.token
        elif self.type == "digest":
            text = ", ".join(
                f"{key}={quote_header_value(value, allow_token=key not in _QUOTED)}"
                for key, value in self.parameters.items()
            )
        else:
            text = dump_header(self.parameters)
        return f"{self.type.title()} {text}"

    def __str__(self) -> str:
        return self.to_header()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.to_header()}>"
