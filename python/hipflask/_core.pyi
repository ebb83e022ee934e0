"""The native half of Hipflask."""

from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, Literal, TypeVar, overload

from _typeshed.wsgi import WSGIEnvironment

from hipflask.werkzeug.datastructures import (
    CombinedMultiDict,
    FileStorage,
    Headers,
    ImmutableMultiDict,
    MultiDict,
)
from hipflask.werkzeug.sansio.multipart import Event, State

_R = TypeVar("_R", bound=RequestBase)
_F = TypeVar("_F", bound=Callable[..., Any])


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

# body.rs

class InputStream:
    @property
    def closed(self) -> bool: ...
    def read(self, size: int | None = -1, /) -> bytes: ...
    def read1(self, size: int | None = -1, /) -> bytes: ...
    def readall(self) -> bytes: ...
    def readline(self, size: int | None = -1, /) -> bytes: ...
    def readlines(self, hint: int | None = -1, /) -> list[bytes]: ...
    def readinto(self, buffer: bytearray | memoryview) -> int: ...
    def __iter__(self) -> InputStream: ...
    def __next__(self) -> bytes: ...
    def guarded(self, limit: int | None = None) -> InputStream: ...
    def tell(self) -> int: ...
    def close(self) -> None: ...
    def flush(self) -> None: ...
    def readable(self) -> bool: ...
    def writable(self) -> bool: ...
    def seekable(self) -> bool: ...
    def isatty(self) -> bool: ...
    def __enter__(self) -> InputStream: ...
    def __exit__(self, kind: object, error: object, trace: object, /) -> None: ...

# form.rs

def parse_urlencoded(data: bytes | bytearray) -> list[tuple[str, str]]: ...

class MultipartDecoder:
    def __init__(
        self, boundary: bytes, max_form_memory_size: int | None = None, *, max_parts: int | None = None
    ) -> None: ...
    @property
    def boundary(self) -> bytes: ...
    @property
    def max_form_memory_size(self) -> int | None: ...
    @property
    def max_parts(self) -> int | None: ...
    @property
    def state(self) -> State: ...
    @property
    def complete(self) -> bool: ...
    @property
    def buffer(self) -> bytearray: ...
    def receive_data(self, data: bytes | bytearray | None) -> None: ...
    def next_event(self) -> Event: ...

# request.rs

def _request_from_wire(cls: type[_R], head: bytes, body: bytes | None = None) -> _R: ...

class RequestBase:
    method: str
    scheme: str
    server: tuple[str, int | None] | None
    root_path: str
    path: str
    query_string: bytes
    headers: Headers
    remote_addr: str | None
    environ: WSGIEnvironment
    shallow: bool
    args: MultiDict[str, str]
    full_path: str
    url: str
    base_url: str
    root_url: str
    url_root: str
    host_url: str
    host: str
    cookies: ImmutableMultiDict[str, str]
    content_length: int | None
    stream: IO[bytes]
    data: bytes
    form: ImmutableMultiDict[str, str]
    files: ImmutableMultiDict[str, FileStorage]
    values: CombinedMultiDict[str, str]
    url_rule: Any
    view_args: dict[str, Any] | None
    routing_exception: Any
    @property
    def content_type(self) -> str | None: ...
    @property
    def mimetype(self) -> str: ...
    @property
    def is_json(self) -> bool: ...
    @property
    def is_secure(self) -> bool: ...
    @property
    def script_root(self) -> str: ...
    @property
    def want_form_data_parsed(self) -> bool: ...
    @property
    def json(self) -> Any: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def _bind_environ(self, environ: WSGIEnvironment, shallow: bool) -> None: ...
    def _load_form_data(self) -> None: ...
    def _get_stream_for_parsing(self) -> IO[bytes]: ...
    @overload
    def get_data(
        self, cache: bool = True, as_text: Literal[False] = False, parse_form_data: bool = False
    ) -> bytes: ...
    @overload
    def get_data(
        self, cache: bool = True, *, as_text: Literal[True], parse_form_data: bool = False
    ) -> str: ...
    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any: ...
    def close(self) -> None: ...

# response.rs

class ResponseBase:
    headers: Headers
    status_code: int
    response: Any
    direct_passthrough: bool
    @property
    def status(self) -> str: ...
    @status.setter
    def status(self, value: str | int) -> None: ...
    @property
    def is_sequence(self) -> bool: ...
    @property
    def is_streamed(self) -> bool: ...
    def __init__(
        self,
        response: Iterable[bytes] | bytes | Iterable[str] | str | None = None,
        status: int | str | None = None,
        headers: Mapping[str, str | Iterable[str]] | Iterable[tuple[str, str]] | None = None,
        mimetype: str | None = None,
        content_type: str | None = None,
        direct_passthrough: bool = False,
    ) -> None: ...
    def _init_head(
        self,
        status: int | str | None,
        headers: Mapping[str, str | Iterable[str]] | Iterable[tuple[str, str]] | None,
        mimetype: str | None,
        content_type: str | None,
    ) -> None: ...
    def call_on_close(self, func: _F) -> _F: ...
    def close(self) -> None: ...
    def set_data(self, value: bytes | str) -> None: ...
    @overload
    def get_data(self, as_text: Literal[False] = False) -> bytes: ...
    @overload
    def get_data(self, as_text: Literal[True]) -> str: ...
    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers: ...

# router.rs

class CompiledRule:
    trace: list[tuple[bool, str]]
    converters: dict[str, Any]
    def __init__(
        self,
        domain: str,
        path: str,
        merge: bool,
        defaults: Mapping[str, Any] | None,
        describe: Callable[[str, str | None, str | None], tuple[Any, ...]],
    ) -> None: ...
    def build(self, values: dict[str, Any], unknown: bool, map: Any) -> tuple[str, str]: ...

class MapBase:
    _remap: bool
    merge_slashes: bool
    host_matching: bool
    def __init__(self, *_arguments: object, **_options: object) -> None: ...
    def _compile(self, rules: list[Any], by_endpoint: dict[Any, list[Any]]) -> None: ...

class MapAdapterBase:
    map: MapBase
    server_name: str
    script_name: str
    subdomain: str | None
    url_scheme: str
    path_info: str
    default_method: str
    query_args: Mapping[str, Any] | str | None
    websocket: bool
    def __init__(
        self,
        map: MapBase,
        server_name: str,
        script_name: str,
        subdomain: str | None,
        url_scheme: str,
        path_info: str,
        default_method: str,
        query_args: Mapping[str, Any] | str | None = None,
    ) -> None: ...
    def _find(
        self, path_info: str | None = None, method: str | None = None, websocket: bool | None = None
    ) -> tuple[int, Any, Any]: ...
    def build(
        self,
        endpoint: Any,
        values: Mapping[str, Any] | None = None,
        method: str | None = None,
        force_external: bool = False,
        append_unknown: bool = True,
        url_scheme: str | None = None,
    ) -> str: ...

def redirect_url(scheme: str, host: str, script: str, path: str, query: str) -> str: ...
