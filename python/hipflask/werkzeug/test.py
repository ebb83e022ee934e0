"""Requests without a server: build a WSGI environ, call an application with it, look at the answer.

Three layers. `EnvironBuilder` describes one request and turns it into an environ. `run_wsgi_app` calls an
application with an environ. `Client` does both again and again, keeps cookies in between, and follows
redirects.

Does not import anything of a test framework, and does not imitate a browser beyond cookies and redirects.

Implements: werkzeug.test (3.1); PEP 3333 for the environ; RFC 6265 §5.1.3 and §5.1.4 for cookies.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import chain
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from .._core import EventBody, Subscription
from ._internal import _get_environ, _wsgi_decoding_dance, _wsgi_encoding_dance
from .datastructures import (
    Authorization,
    CallbackDict,
    CombinedMultiDict,
    EnvironHeaders,
    FileMultiDict,
    Headers,
    MultiDict,
)
from .http import dump_cookie, dump_options_header, parse_cookie, parse_date, parse_options_header
from .urls import _urlencode, iri_to_uri
from .utils import cached_property, get_content_type
from .wrappers.request import Request
from .wrappers.response import Response
from .wsgi import ClosingIterator, get_current_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment


class EnvironBuilder:
    """A request in the making, to be turned into a WSGI environ or a request object.

    Args:
        path: The path of the URL, with a query string if `query_string` is not given.
        base_url: Scheme, host and the path under which the application is mounted.
        query_string: The query, as text or as a mapping.
        method: The request's method.
        input_stream: A finished body. Excludes `data`, `form` and `files`.
        content_type: The body's type; found out from the data if not given.
        content_length: The body's length; measured if not given.
        errors_stream: Where the application writes its errors.
        multithread: Value of `wsgi.multithread`.
        multiprocess: Value of `wsgi.multiprocess`.
        run_once: Value of `wsgi.run_once`.
        headers: Header fields.
        data: The body as text or bytes, a file that is read, or a mapping of form fields in which files, and
            tuples of a file with its name and type, become uploads. A list sends a field several times.
        environ_base: Keys that the environ starts from.
        environ_overrides: Keys that are put into the finished environ.
        mimetype: The body's type without parameters; text gets a charset.
        json: A value to send as JSON; excludes `data`.
        auth: Credentials; a pair of name and password means Basic.
    """

    #: The version of HTTP that the environ claims.
    server_protocol = "HTTP/1.1"
    #: The version of WSGI that the environ claims.
    wsgi_version = (1, 0)
    #: What `get_request` makes.
    request_class = Request
    #: What turns the `json` argument into text.
    json_dumps = staticmethod(json.dumps)

    _args: MultiDict[str, str] | None
    _query_string: str | None
    _input_stream: IO[bytes] | None
    _form: MultiDict[str, str] | None
    _files: FileMultiDict | None

    def __init__(
        self,
        path: str = "/",
        base_url: str | None = None,
        query_string: Mapping[str, str] | str | None = None,
        method: str = "GET",
        input_stream: IO[bytes] | None = None,
        content_type: str | None = None,
        content_length: int | None = None,
        errors_stream: IO[str] | None = None,
        multithread: bool = False,
        multiprocess: bool = False,
        run_once: bool = False,
        headers: Headers | Iterable[tuple[str, str]] | None = None,
        data: IO[bytes] | str | bytes | Mapping[str, Any] | None = None,
        environ_base: Mapping[str, Any] | None = None,
        environ_overrides: Mapping[str, Any] | None = None,
        mimetype: str | None = None,
        json: Any = None,
        auth: Authorization | tuple[str, str] | None = None,
    ) -> None:
        # Set first, since the destructor looks at them even if a check below raises.
        self.closed = False
        self.input_stream = input_stream

        url = urlsplit(path)
        if "?" in path:
            if query_string is not None:
                raise ValueError("Query string is defined in the path and as an argument")
            query_string = url.query
        self.request_uri = path
        self.path = iri_to_uri(url.path)
        self.base_url = None if base_url is None else iri_to_uri(base_url)
        if isinstance(query_string, str):
            self.query_string = query_string
        else:
            self.args = query_string if isinstance(query_string, MultiDict) else MultiDict(query_string or ())

        self.method = method
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.errors_stream = sys.stderr if errors_stream is None else errors_stream
        self.multithread = multithread
        self.multiprocess = multiprocess
        self.run_once = run_once
        self.environ_base = environ_base
        self.environ_overrides = environ_overrides
        if content_type is not None:
            self.content_type = content_type
        self.content_length = content_length
        if auth is not None:
            if isinstance(auth, tuple):
                auth = Authorization("basic", {"username": auth[0], "password": auth[1]})
            self.headers.set("Authorization", auth.to_header())

        if json is not None:
            if data is not None:
                raise TypeError("can't provide both json and data")
            data = self.json_dumps(json)
            if self.content_type is None:
                self.content_type = "application/json"
        if data:
            if input_stream is not None:
                raise TypeError("can't provide input stream and data")
            self._take_data(data)
        if mimetype is not None:
            self.mimetype = mimetype

    def _take_data(self, data: Any) -> None:
        """Turn the `data` argument into a body, or into form fields and files."""
        if hasattr(data, "read"):
            data = data.read()
        if isinstance(data, str):
            data = data.encode()
        if isinstance(data, bytes):
            self.input_stream = BytesIO(data)
            if self.content_length is None:
                self.content_length = len(data)
            return
        for key, value in _iter_data(data):
            if isinstance(value, (tuple, dict)) or hasattr(value, "read"):
                self._add_file_from_data(key, value)
            else:
                self.form.setlistdefault(key).append(value)

    def _add_file_from_data(self, key: str, value: Any) -> None:
        """Add an upload, given as a file or as a tuple of a file with its name and type."""
        self.files.add_file(key, *(value if isinstance(value, tuple) else (value,)))

    @classmethod
    def from_environ(cls, environ: WSGIEnvironment, **kwargs: Any) -> EnvironBuilder:
        """A builder that describes the request of an environ.

        Args:
            environ: The environ. Its input is taken over, not copied.
            kwargs: Arguments of the constructor that replace what the environ says.
        """
        headers = Headers(EnvironHeaders(environ))
        described = {
            "path": _wsgi_decoding_dance(environ["PATH_INFO"]),
            "base_url": cls._make_base_url(
                environ["wsgi.url_scheme"],
                headers.pop("Host"),
                _wsgi_decoding_dance(environ["SCRIPT_NAME"]),
            ),
            "query_string": _wsgi_decoding_dance(environ["QUERY_STRING"]),
            "method": environ["REQUEST_METHOD"],
            "input_stream": environ["wsgi.input"],
            "content_type": headers.pop("Content-Type", None),
            "content_length": headers.pop("Content-Length", None),
            "errors_stream": environ["wsgi.errors"],
            "multithread": environ["wsgi.multithread"],
            "multiprocess": environ["wsgi.multiprocess"],
            "run_once": environ["wsgi.run_once"],
            "headers": headers,
        }
        return cls(**{**described, **kwargs})

    @staticmethod
    def _make_base_url(scheme: str, host: str, script_root: str) -> str:
        return urlunsplit((scheme, host, script_root, "", "")).rstrip("/") + "/"

    @property
    def base_url(self) -> str:
        """Scheme, host and mount point of the application, ending with a slash."""
        return self._make_base_url(self.url_scheme, self.host, self.script_root)

    @base_url.setter
    def base_url(self, value: str | None) -> None:
        scheme, host, root, query, fragment = urlsplit("http://localhost" if value is None else value)
        if query or fragment:
            raise ValueError("base url must not contain a query string or fragment")
        self.url_scheme = scheme
        self.host = host
        self.script_root = root.rstrip("/")

    @property
    def content_type(self) -> str | None:
        """The `Content-Type`, or what the form and files will be sent as. Kept in `headers`."""
        given: str | None = self.headers.get("Content-Type")
        if given is None and not self._input_stream:
            if self._files:
                return "multipart/form-data"
            if self._form:
                return "application/x-www-form-urlencoded"
        return given

    @content_type.setter
    def content_type(self, value: str | None) -> None:
        self._set_header("Content-Type", value)

    @property
    def mimetype(self) -> str | None:
        """The content type without parameters. Setting it gives text a charset."""
        content_type = self.content_type
        return content_type.partition(";")[0].strip() if content_type else None

    @mimetype.setter
    def mimetype(self, value: str) -> None:
        self.content_type = get_content_type(value, "utf-8")

    @property
    def mimetype_params(self) -> Mapping[str, str]:
        """The parameters of the content type, as a dict that writes changes back."""

        def write_back(params: CallbackDict[str, str]) -> None:
            self.headers["Content-Type"] = dump_options_header(self.mimetype, params)

        params = parse_options_header(self.headers.get("Content-Type", ""))[1]
        return CallbackDict(params, write_back)

    @property
    def content_length(self) -> int | None:
        """The `Content-Length`, if it is set. Kept in `headers`."""
        length: int | None = self.headers.get("Content-Length", type=int)
        return length

    @content_length.setter
    def content_length(self, value: int | None) -> None:
        self._set_header("Content-Length", None if value is None else str(value))

    def _set_header(self, name: str, value: str | None) -> None:
        if value is None:
            self.headers.pop(name, None)
        else:
            self.headers[name] = value

    @property
    def form(self) -> MultiDict[str, str]:
        """The form's fields. Not available while there is an input stream."""
        self._refuse_stream()
        if self._form is None:
            self._form = MultiDict()
        return self._form

    @form.setter
    def form(self, value: MultiDict[str, str]) -> None:
        self._input_stream = None
        self._form = value

    @property
    def files(self) -> FileMultiDict:
        """The files to upload. Not available while there is an input stream."""
        self._refuse_stream()
        if self._files is None:
            self._files = FileMultiDict()
        return self._files

    @files.setter
    def files(self, value: FileMultiDict) -> None:
        self._input_stream = None
        self._files = value

    def _refuse_stream(self) -> None:
        if self._input_stream is not None:
            raise AttributeError("an input stream is defined")

    @property
    def input_stream(self) -> IO[bytes] | None:
        """The finished body. Setting it drops form and files."""
        return self._input_stream

    @input_stream.setter
    def input_stream(self, value: IO[bytes] | None) -> None:
        self._input_stream = value
        self._form = None
        self._files = None

    @property
    def query_string(self) -> str:
        """The query as text. Setting it makes `args` unavailable."""
        if self._query_string is not None:
            return self._query_string
        return _urlencode(self._args) if self._args is not None else ""

    @query_string.setter
    def query_string(self, value: str | None) -> None:
        self._query_string = value
        self._args = None

    @property
    def args(self) -> MultiDict[str, str]:
        """The query as a mapping. Not available if it was given as text."""
        if self._query_string is not None:
            raise AttributeError("a query string is defined")
        if self._args is None:
            self._args = MultiDict()
        return self._args

    @args.setter
    def args(self, value: MultiDict[str, str] | None) -> None:
        self._query_string = None
        self._args = value

    @property
    def server_name(self) -> str:
        """The host without its port."""
        return self.host.partition(":")[0]

    @property
    def server_port(self) -> int:
        """The host's port, or the scheme's usual one."""
        port = self.host.partition(":")[2]
        try:
            return int(port)
        except ValueError:
            return 443 if self.url_scheme == "https" else 80

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def close(self) -> None:
        """Close the files that would be uploaded. Does nothing the second time."""
        if self.closed:
            return
        self.closed = True
        if self._input_stream is None and self._files is not None:
            for file in self._files.values():
                with suppress(Exception):
                    file.close()

    def get_environ(self) -> WSGIEnvironment:
        """The environ that describes the request, its body encoded."""
        body, length, content_type = self._encode_body()
        raw_uri = _wsgi_encoding_dance(self.request_uri)
        environ: WSGIEnvironment = dict(self.environ_base or ())
        environ.update(
            {
                "REQUEST_METHOD": self.method,
                "SCRIPT_NAME": _wsgi_encoding_dance(unquote(self.script_root)),
                "PATH_INFO": _wsgi_encoding_dance(unquote(self.path)),
                "QUERY_STRING": _wsgi_encoding_dance(self.query_string),
                # What uWSGI and gunicorn call the target as it stood in the request line.
                "REQUEST_URI": raw_uri,
                "RAW_URI": raw_uri,
                "SERVER_NAME": self.server_name,
                "SERVER_PORT": str(self.server_port),
                "HTTP_HOST": self.host,
                "SERVER_PROTOCOL": self.server_protocol,
                "wsgi.version": self.wsgi_version,
                "wsgi.url_scheme": self.url_scheme,
                "wsgi.input": body,
                "wsgi.errors": self.errors_stream,
                "wsgi.multithread": self.multithread,
                "wsgi.multiprocess": self.multiprocess,
                "wsgi.run_once": self.run_once,
            }
        )
        if content_type is not None:
            environ["CONTENT_TYPE"] = content_type
        if length is not None:
            environ["CONTENT_LENGTH"] = str(length)
        environ.update(self._header_keys())
        environ.update(self.environ_overrides or ())
        return environ

    def _encode_body(self) -> tuple[IO[bytes], int | None, str | None]:
        """The body as a stream, its length and its type."""
        stream, length, content_type = self._input_stream, self.content_length, self.content_type
        if stream is not None:
            start = stream.tell()
            length = stream.seek(0, 2) - start
            stream.seek(start)
            return stream, length, content_type

        mimetype = self.mimetype
        if mimetype == "multipart/form-data":
            stream, length, boundary = stream_encode_multipart(CombinedMultiDict([self.form, self.files]))
            return stream, length, f'{mimetype}; boundary="{boundary}"'
        if mimetype == "application/x-www-form-urlencoded":
            encoded = _urlencode(self.form).encode("ascii")
            return BytesIO(encoded), len(encoded), content_type
        return BytesIO(), length, content_type

    def _header_keys(self) -> dict[str, str]:
        """The headers under their CGI names; repeated ones are joined as RFC 9110 §5.3 allows."""
        keys: dict[str, str] = {}
        for name, value in self.headers:
            key = "HTTP_" + name.upper().replace("-", "_")
            if key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
                continue
            keys[key] = f"{keys[key]}, {value}" if key in keys else value
        return keys

    def get_request(self, cls: type[Request] | None = None) -> Request:
        """A request object over the environ.

        Args:
            cls: Its class; `request_class` if not given.
        """
        return (self.request_class if cls is None else cls)(self.get_environ())


class ClientRedirectError(Exception):
    """The redirects that a client follows lead round in a circle."""


class TestResponse(Response):
    """What a test client returns: the response and how it came about.

    Args:
        request: The request that was answered.
        history: The redirects that led to it.
    """

    #: The type comes from the application or not at all.
    default_mimetype = None
    #: Keeps pytest from collecting the class.
    __test__ = False

    request: Request
    history: tuple[TestResponse, ...]
    #: The fields of each 103 (Early Hints) that was sent before.
    early_hints: Sequence[Headers] = ()

    def __init__(
        self,
        response: Iterable[bytes],
        status: str,
        headers: Headers,
        request: Request,
        history: tuple[TestResponse, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(response, status, headers, **kwargs)
        self.request = request
        self.history = history

    def _take_trailers(self, source: Any) -> None:
        """Have what the application gives as trailers asked for when the body has been read to its end."""
        from hipflask._core import checked_trailers

        def take() -> None:
            for name, value in checked_trailers(source):
                self.trailers.add(name.decode("latin1"), value.decode("latin1"))

        if self.is_sequence:
            take()
        else:
            self.response = _Followed(self.response, take)

    @cached_property
    def text(self) -> str:
        """The body as text."""
        return self.get_data(as_text=True)


class _Followed:
    """A body's pieces; after the last a function is called."""

    def __init__(self, pieces: Iterable[bytes], function: Callable[[], None]) -> None:
        self._pieces = pieces
        self._iterator = iter(pieces)
        self._function: Callable[[], None] | None = function

    def __iter__(self) -> _Followed:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._iterator)
        except StopIteration:
            function, self._function = self._function, None
            if function is not None:
                function()
            raise

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()


@dataclass
class Cookie:
    """A cookie that a test client keeps. Read its attributes; do not make your own."""

    #: Name and value as they travel.
    key: str
    value: str
    #: Name and value as the application knows them.
    decoded_key: str
    decoded_value: str
    expires: datetime | None
    max_age: int | None
    #: The host that the cookie belongs to.
    domain: str
    #: Whether subdomains do not get it; so if the header had no `Domain`.
    origin_only: bool
    path: str
    secure: bool | None
    http_only: bool | None
    same_site: str | None

    @classmethod
    def _from_response_header(cls, server_name: str, path: str, header: str) -> Cookie:
        """The cookie of a `Set-Cookie` field that came from this host and path."""
        pair, *attributes = header.split(";")
        key, _, value = pair.partition("=")
        decoded_key, decoded_value = next(iter(parse_cookie(pair).items()))
        params: dict[str, str | None] = {}
        for attribute in attributes:
            name, equals, text = attribute.partition("=")
            params[name.strip().lower()] = text.strip() if equals else None
        return cls(
            key=key.strip(),
            value=value.strip(),
            decoded_key=decoded_key,
            decoded_value=decoded_value,
            expires=parse_date(params.get("expires")),
            max_age=int(params["max-age"] or 0) if "max-age" in params else None,
            domain=params.get("domain") or server_name,
            origin_only="domain" not in params,
            path=params.get("path") or path.rpartition("/")[0] or "/",
            secure="secure" in params,
            http_only="httponly" in params,
            same_site=params.get("samesite"),
        )

    def _matches_request(self, server_name: str, path: str) -> bool:
        """Whether a request to this host and path carries the cookie."""
        same_host = server_name == self.domain or (
            not self.origin_only and server_name.endswith(f".{self.domain}")
        )
        return same_host and (path == self.path or path.startswith(self.path.rstrip("/") + "/"))

    def _to_request_header(self) -> str:
        return f"{self.key}={self.value}"

    @property
    def _storage_key(self) -> tuple[str, str, str]:
        return self.domain, self.path, self.decoded_key

    @property
    def _should_delete(self) -> bool:
        return self.max_age == 0 or (self.expires is not None and self.expires.timestamp() == 0)


class Client:
    """Sends requests to a WSGI application in the same process, like a very plain browser.

    Args:
        application: The application.
        response_wrapper: The class of the responses; mixed with `TestResponse` if it does not derive from it.
        use_cookies: Keep cookies from one request to the next.
        allow_subdomain_redirects: Follow redirects to subdomains of the first host.
    """

    def __init__(
        self,
        application: WSGIApplication,
        response_wrapper: type[Response] | None = None,
        use_cookies: bool = True,
        allow_subdomain_redirects: bool = False,
    ) -> None:
        self.application = application
        self.response_wrapper: type[TestResponse] = _test_response(response_wrapper)  # type: ignore[arg-type]
        self.allow_subdomain_redirects = allow_subdomain_redirects
        self._cookies: dict[tuple[str, str, str], Cookie] | None = {} if use_cookies else None

    def _jar(self) -> dict[tuple[str, str, str], Cookie]:
        if self._cookies is None:
            raise TypeError("Cookies are disabled. Create a client with 'use_cookies=True'.")
        return self._cookies

    def get_cookie(self, key: str, domain: str = "localhost", path: str = "/") -> Cookie | None:
        """The cookie with this name, domain and path, or None."""
        return self._jar().get((domain, path, key))

    def set_cookie(
        self,
        key: str,
        value: str = "",
        *,
        domain: str = "localhost",
        origin_only: bool = True,
        path: str = "/",
        **kwargs: Any,
    ) -> None:
        """Keep a cookie as if an answer had set it.

        Args:
            key: Its name.
            value: Its value.
            domain: The host that gets it.
            origin_only: Keep it from subdomains.
            path: The path, and everything below, that gets it.
            kwargs: Handed to `dump_cookie`.
        """
        self._jar()
        header = dump_cookie(key, value, domain=domain, path=path, **kwargs)
        cookie = Cookie._from_response_header(domain, "/", header)
        cookie.origin_only = origin_only
        self._keep(cookie)

    def delete_cookie(self, key: str, *, domain: str = "localhost", path: str = "/") -> None:
        """Forget a cookie, if it is there."""
        self._jar().pop((domain, path, key), None)

    def _keep(self, cookie: Cookie) -> None:
        jar = self._jar()
        if cookie._should_delete:
            jar.pop(cookie._storage_key, None)
        else:
            jar[cookie._storage_key] = cookie

    def _add_cookies_to_wsgi(self, environ: WSGIEnvironment) -> None:
        """Put the cookies for the environ's host and path into it."""
        if self._cookies is None:
            return
        pairs = []
        if self._cookies:
            host, path = _host_and_path(environ)
            pairs = [c._to_request_header() for c in self._cookies.values() if c._matches_request(host, path)]
        if pairs:
            environ["HTTP_COOKIE"] = "; ".join(pairs)
        else:
            environ.pop("HTTP_COOKIE", None)

    def _update_cookies_from_response(self, server_name: str, path: str, headers: list[str]) -> None:
        """Keep the cookies of an answer's `Set-Cookie` fields."""
        if self._cookies is not None:
            for header in headers:
                self._keep(Cookie._from_response_header(server_name, path, header))

    def run_wsgi_app(
        self, environ: WSGIEnvironment, buffered: bool = False
    ) -> tuple[Iterable[bytes], str, Headers]:
        """Call the application with an environ; cookies go in and come out."""
        self._add_cookies_to_wsgi(environ)
        body, status, headers = run_wsgi_app(self.application, environ, buffered=buffered)
        set_cookies = headers.getlist("Set-Cookie")
        if set_cookies:
            self._update_cookies_from_response(*_host_and_path(environ), set_cookies)
        return body, status, headers

    def resolve_redirect(self, response: TestResponse, buffered: bool = False) -> TestResponse:
        """Send the request that a redirect asks for.

        Raises:
            RuntimeError: If it leads to a host that the client may not follow to.
        """
        scheme, netloc, path, query, _ = urlsplit(response.location)
        builder = EnvironBuilder.from_environ(response.request.environ, path=path, query_string=query)
        if netloc:
            self._check_redirect_host(builder.server_name, netloc.partition(":")[0])
            builder.url_scheme = scheme
            builder.host = netloc

        root = builder.script_root
        if path == root or path.startswith(f"{root}/"):
            builder.path = path[len(root) :]
        else:
            builder.path = path
            builder.script_root = ""

        # RFC 9110 §15.4: only 307 and 308 keep method and body; HEAD stays HEAD in any case.
        if response.status_code not in (307, 308):
            if builder.method != "HEAD":
                builder.method = "GET"
            if builder.input_stream is not None:
                builder.input_stream.close()
                builder.input_stream = None
            builder.content_type = None
            builder.content_length = None
            builder.headers.pop("Transfer-Encoding", None)
        return self.open(builder, buffered=buffered)

    def _check_redirect_host(self, origin: str, target: str) -> None:
        if target == origin:
            return
        if not target.endswith(f".{origin}"):
            raise RuntimeError("Following external redirects is not supported.")
        if not self.allow_subdomain_redirects:
            raise RuntimeError("Following subdomain redirects is not enabled.")

    def open(
        self, *args: Any, buffered: bool = False, follow_redirects: bool = False, **kwargs: Any
    ) -> TestResponse:
        """Send a request.

        Args:
            args: A builder, a request or an environ; or, like `kwargs`, arguments of `EnvironBuilder`.
            buffered: Read the whole answer before returning.
            follow_redirects: Send further requests until an answer is no redirect; `history` keeps the
                others.

        Raises:
            ClientRedirectError: If a redirect is met for the second time.
        """
        request = self._make_request(args, kwargs)
        response = self.response_wrapper(
            *self.run_wsgi_app(request.environ, buffered=buffered), request=request
        )
        if not follow_redirects:
            return response

        history: list[TestResponse] = []
        met = set()
        while response.status_code in (301, 302, 303, 305, 307, 308):
            # Middleware may do its work when the body has been read and closed.
            if not buffered:
                response.make_sequence()
                response.close()
            step = (response.location, response.status_code)
            if step in met:
                raise ClientRedirectError(
                    f"Loop detected: A {step[1]} redirect to {step[0]} was already made."
                )
            met.add(step)
            response.history = tuple(history)
            history.append(response)
            response = self.resolve_redirect(response, buffered=buffered)

        response.history = tuple(history)
        response.call_on_close(request.environ["wsgi.input"].close)
        return response

    @staticmethod
    def _make_request(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
        if len(args) == 1 and not kwargs:
            (given,) = args
            if isinstance(given, EnvironBuilder):
                return given.get_request()
            if isinstance(given, dict):
                return EnvironBuilder.from_environ(given).get_request()
            if isinstance(given, Request):
                return given
        builder = EnvironBuilder(*args, **kwargs)
        try:
            return builder.get_request()
        finally:
            builder.close()

    def get(self, *args: Any, **kw: Any) -> TestResponse:
        """Send a GET request; arguments as for `open`."""
        return self.open(*args, **{**kw, "method": "GET"})

    def post(self, *args: Any, **kw: Any) -> TestResponse:
        """Send a POST request; arguments as for `open`."""
        return self.open(*args, **{**kw, "method": "POST"})

    def put(self, *args: Any, **kw: Any) -> TestResponse:
        """Send a PUT request; arguments as for `open`."""
        return self.open(*args, **{**kw, "method": "PUT"})

    def delete(self, *args: Any, **kw: Any) -> TestResponse:
        """Send a DELETE request; arguments as for `open`."""
        return self.open(*args, **{**kw, "method": "DELETE"})

    def patch(self, *args: Any, **kw: Any) -> TestResponse:
        """Send a PATCH request; arguments as for `open`."""
        return self.open(*args, **{**kw, "method": "PATCH"})

    def options(self, *args: Any, **kw: Any) -> TestResponse:
        """Send an OPTIONS request; arguments as for `open`."""
        return self.open(*args, **{**kw, "method": "OPTIONS"})

    def head(self, *args: Any, **kw: Any) -> TestResponse:
        """Send a HEAD request; arguments as for `open`."""
        return self.open(*args, **{**kw, "method": "HEAD"})

    def trace(self, *args: Any, **kw: Any) -> TestResponse:
        """Send a TRACE request; arguments as for `open`."""
        return self.open(*args, **{**kw, "method": "TRACE"})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.application!r}>"


def create_environ(*args: Any, **kwargs: Any) -> WSGIEnvironment:
    """A WSGI environ; arguments as for `EnvironBuilder`."""
    builder = EnvironBuilder(*args, **kwargs)
    try:
        return builder.get_environ()
    finally:
        builder.close()


def run_wsgi_app(
    app: WSGIApplication, environ: WSGIEnvironment, buffered: bool = False
) -> tuple[Iterable[bytes], str, Headers]:
    """Call a WSGI application.

    Args:
        app: The application.
        environ: Its environ, which is copied: what the application changes stays unseen.
        buffered: Read the body to its end and close it at once.

    Returns:
        The body, the status line and the headers. Not buffered, the body has been read as far as it took to
        get the status; close it, if it can be closed.

    Raises:
        RuntimeError: If the application ends without having started a response.
    """
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        if exc_info:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        started[:] = [(status, headers)]
        return written.append

    result = app(_get_environ(environ).copy(), start_response)
    close = getattr(result, "close", None)
    body: Iterable[bytes]
    if buffered:
        try:
            rest = list(result)
        finally:
            if close is not None:
                close()
        body = [*written, *rest]
    else:
        iterator = iter(result)
        # The first event of a stream may come only when the caller has gone on.
        if not (started and isinstance(result, (Subscription, EventBody))):
            for item in iterator:
                written.append(item)
                if started:
                    break
        body = chain(written, iterator) if written else iterator
        if close is not None and body is not result:
            body = ClosingIterator(body, close)

    if not started:
        raise RuntimeError("the application did not call start_response")
    status, headers = started[0]
    return body, status, Headers(headers)


def stream_encode_multipart(
    data: Mapping[str, Any],
    use_tempfile: bool = True,
    threshold: int = 1024 * 500,
    boundary: str | None = None,
) -> tuple[IO[bytes], int, str]:
    """Encode form fields and files as `multipart/form-data`.

    Args:
        data: Fields and files; a list holds several values of one field.
        use_tempfile: Move the result to disk when it gets large.
        threshold: How many bytes may stay in memory.
        boundary: The line between the parts; random if not given.

    Returns:
        A stream at its beginning, its length, and the boundary.
    """
    if boundary is None:
        from secrets import token_hex

        boundary = f"---------------HipflaskFormPart_{token_hex(16)}"

    stream: IO[bytes] = BytesIO()
    in_memory = True
    for piece in _multipart_pieces(data, boundary):
        stream.write(piece)
        if use_tempfile and in_memory and stream.tell() > threshold:
            from tempfile import TemporaryFile

            file = TemporaryFile("wb+")  # noqa: SIM115
            file.write(stream.getvalue())  # type: ignore[attr-defined]
            stream = file
            in_memory = False
    length = stream.tell()
    stream.seek(0)
    return stream, length, boundary


def encode_multipart(values: Mapping[str, Any], boundary: str | None = None) -> tuple[str, bytes]:
    """Encode form fields and files as `multipart/form-data` in memory.

    Returns:
        The boundary and the body.
    """
    stream, _, boundary = stream_encode_multipart(values, use_tempfile=False, boundary=boundary)
    return boundary, stream.read()


def _multipart_pieces(data: Mapping[str, Any], boundary: str) -> Iterator[bytes]:
    """The encoded form, a piece at a time."""
    from .sansio.multipart import Data, Epilogue, Field, File, MultipartEncoder, Preamble

    send = MultipartEncoder(boundary.encode()).send_event
    yield send(Preamble(data=b""))
    for name, value in _iter_data(data):
        if not hasattr(value, "read"):
            yield send(Field(name=name, headers=Headers()))
            yield send(Data(data=str(value).encode(), more_data=False))
            continue

        filename = getattr(value, "filename", getattr(value, "name", None))
        headers = value.headers
        headers.update([("Content-Type", _upload_type(value, filename))])
        if filename is None:
            yield send(Field(name=name, headers=headers))
        else:
            yield send(File(name=name, filename=filename, headers=headers))
        while chunk := value.read(16384):
            yield send(Data(data=chunk, more_data=True))
        yield send(Data(data=b"", more_data=False))
    yield send(Epilogue(data=b""))


def _upload_type(file: Any, filename: str | None) -> str:
    """The type that a file says it has, or that its name suggests."""
    content_type = getattr(file, "content_type", None)
    if content_type is None and filename:
        import mimetypes

        content_type = mimetypes.guess_type(filename)[0]
    return content_type or "application/octet-stream"


def _iter_data(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each value with its key. A list holds several values; a tuple is one, since it may describe a file."""
    if isinstance(data, MultiDict):
        yield from data.items(multi=True)
        return
    for key, value in data.items():
        if isinstance(value, list):
            for item in value:
                yield key, item
        else:
            yield key, value


def _host_and_path(environ: WSGIEnvironment) -> tuple[str, str]:
    url = urlsplit(get_current_url(environ))
    return url.hostname or "localhost", url.path


@lru_cache(maxsize=32)
def _test_response(wrapper: type[Response] | None) -> type[TestResponse]:
    """The wrapper if it is a test response, else a class that is both."""
    if wrapper is None or wrapper is Response:
        return TestResponse
    if issubclass(wrapper, TestResponse):
        return wrapper
    return type("WrapperTestResponse", (TestResponse, wrapper), {})
