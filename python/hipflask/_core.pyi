"""The native half of Hipflask."""

from collections.abc import Callable
from typing import Any

__version__: str

# json.rs

def json_dumps(
    obj: object,
    *,
    default: Callable[[Any], Any] | None = None,
    sort_keys: object = None,
    ensure_ascii: object = None,
    separators: object = None,
    indent: object = None,
) -> str | None: ...
def json_loads(s: object) -> Any: ...

# session.rs

def session_open(
    value: object, secret_key: object, fallbacks: object, salt: object, max_age: int, provider: object
) -> Any: ...
def session_seal(data: dict[str, Any], secret_key: object, salt: object, provider: object) -> str | None: ...
