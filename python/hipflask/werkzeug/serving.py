"""Werkzeug's names for starting a server, in front of our own engine.

`run_simple` and `make_server` bind the socket here, so that it survives a reload and its errors are told in
plain words, and hand it to `hipflask._core.Server`. Does not parse HTTP and does not schedule requests: the
engine does. The engine does not use Python's TLS: of `ssl_context` it takes files or `adhoc`, not an
`ssl.SSLContext`.

Implements: werkzeug.serving (3.1).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ._internal import _log

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterable
    from typing import Any, NoReturn

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

    from .._core import Server, Tls

    _TSSLContextArg = ssl.SSLContext | tuple[str, str | None] | str

#: How long requests that run may go on when the server stops.
_GRACE_SECONDS = 10.0

#: How long a server that is told to stop waits before it says what it waits for.
_PATIENT_SECONDS = 0.5
_STEP_SECONDS = 0.5

#: How many connections may wait for `accept`.
LISTEN_QUEUE = 128

can_fork = hasattr(os, "fork")


class WSGIRequestHandler:
    """Writes the log of requests. Subclass it and hand it to `run_simple` to log differently.

    The engine reads the requests, so there is nothing else here to override. A server with a subclass calls
    the application in the full lane, since the handler stands in front of it.

    Args:
        client_address: Who sent the request.
        requestline: Its first line.
        server: The server that answered.
    """

    def __init__(
        self, client_address: tuple[str, int] | str, requestline: str, server: BaseWSGIServer
    ) -> None:
        self.client_address = client_address
        self.requestline = requestline
        self.server = server

    def address_string(self) -> str:
        """The client's address without its port."""
        if isinstance(self.client_address, str):
            return self.client_address or "<local>"
        return self.client_address[0]

    def port_integer(self) -> int:
        """The client's port; 0 on a Unix socket."""
        return 0 if isinstance(self.client_address, str) else self.client_address[1]

    def log_date_time_string(self) -> str:
        """The time in the form of the common log format."""
        import time

        return time.strftime("%d/%b/%Y %H:%M:%S")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log an answered request."""
        # A control character in the target could rewrite the terminal's lines.
        line = self.requestline.encode("unicode_escape").decode("ascii").replace('"', '\\"')
        self.log("info", '"%s" %s %s', _ansi_style(line, *_styles(str(code))), code, size)

    def log_error(self, format: str, *args: Any) -> None:
        """Log something that went wrong."""
        self.log("error", format, *args)

    def log_message(self, format: str, *args: Any) -> None:
        """Log anything else."""
        self.log("info", format, *args)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log a message with the client's address and the time in front."""
        prefix = f"{self.address_string()} - - [{self.log_date_time_string()}] ".replace("%", "%%")
        _log(type, prefix + message + "\n", *args)


class BaseWSGIServer:
    """A server on one socket that runs one view at a time.

    Args:
        host: A name, an address, or `unix://` and a path.
        port: The port; 0 lets the system choose.
        app: The application.
        handler: What logs the requests.
        passthrough_errors: Stop serving and raise what an application raises.
        ssl_context: Certificate and key as paths, or `adhoc`.
        fd: A listening socket to use instead of a new one.

    Raises:
        SystemExit: If the address is in use or not ours; the reason is printed.
        ValueError: If a certificate is no good.
        TypeError: If it is an `ssl.SSLContext`.
    """

    multithread = False
    multiprocess = False
    request_queue_size = LISTEN_QUEUE
    _tls: Tls | None = None

    def __init__(
        self,
        host: str,
        port: int,
        app: WSGIApplication,
        handler: type[WSGIRequestHandler] | None = None,
        passthrough_errors: bool = False,
        ssl_context: _TSSLContextArg | None = None,
        fd: int | None = None,
    ) -> None:
        import socket
        import threading

        self.host = host
        self.port = port
        self.app = app
        self.RequestHandlerClass = WSGIRequestHandler if handler is None else handler
        self.passthrough_errors = passthrough_errors
        self.address_family = select_address_family(host, port)
        self.ssl_context = ssl_context
        if ssl_context is not None:
            from ..tls import of_context

            self._tls = of_context(ssl_context)
        self._stop = threading.Event()
        self._done = threading.Event()
        self._done.set()
        self._failure: BaseException | None = None

        if fd is None:
            self.socket = self._bind(get_sockaddr(host, port, self.address_family))
        else:
            self.socket = socket.socket(fileno=os.dup(fd))
        self.server_address: Any = self.socket.getsockname()
        if isinstance(self.server_address, tuple):
            self.port = self.server_address[1]

    def _bind(self, address: Any) -> socket.socket:
        import socket

        if isinstance(address, str) and os.path.exists(address):
            os.unlink(address)
        listener = socket.socket(self.address_family, socket.SOCK_STREAM)
        try:
            if not isinstance(address, str):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(self.request_queue_size)
        except OSError as error:
            listener.close()
            _explain_bind_error(error, self.port)
        return listener

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until `shutdown` or Ctrl-C, then close the socket.

        Args:
            poll_interval: Without effect; the engine is woken at once.
        """
        server = self._engine()
        self._done.clear()
        try:
            server.start()
            # In steps: a signal that comes just before a wait without end is heard at its end.
            while not self._stop.wait(_STEP_SECONDS):
                pass
        except KeyboardInterrupt:
            pass
        finally:
            self._finish(server)
            self.server_close()
            self._done.set()
        if self._failure is not None:
            raise self._failure

    def _finish(self, server: Server) -> None:
        """Let requests that run finish, and cut them off at another Ctrl-C."""
        import threading

        from ..serving import cut_off

        done = threading.Event()

        def stop() -> None:
            server.stop(_GRACE_SECONDS)
            done.set()

        threading.Thread(target=stop, name="hipflask-stop", daemon=True).start()
        try:
            if not done.wait(_PATIENT_SECONDS):
                _log("info", " * Requests still run: waiting for them (press CTRL+C again to cut them off)")
            while not done.wait(_STEP_SECONDS):
                pass
        except KeyboardInterrupt:
            cut_off(server)

    def _engine(self) -> Server:
        from .._core import Server

        app = self.app
        if self.passthrough_errors:
            app = self._raising(app)
        own_log = self.RequestHandlerClass is not WSGIRequestHandler
        if own_log:
            app = self._logging(app)
        return Server(
            app,
            [f"fd:{self.socket.fileno()}"],
            threads=None if self.multithread else 1,
            access_log=not own_log,
            tls=self._tls,
        )

    def shutdown(self) -> None:
        """Make `serve_forever` return, from any other thread. Requests that run are finished."""
        self._stop.set()
        self._done.wait()

    def server_close(self) -> None:
        """Close the listening socket."""
        self.socket.close()

    def fileno(self) -> int:
        """The descriptor of the listening socket."""
        return self.socket.fileno()

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log a message of the server itself."""
        _log(type, message, *args)

    def log_startup(self) -> None:
        """Say where the server listens."""
        import socket

        if isinstance(self.server_address, str):
            _log("info", " * Running on %s", self.host)
            return
        scheme = "http" if self._tls is None else "https"
        hosts = [self.host]
        lines = []
        if self.host in ("0.0.0.0", "::"):
            lines.append(f" * Running on all addresses ({self.host})")
            hosts = ["127.0.0.1" if self.host == "0.0.0.0" else "::1", get_interface_ip(self.address_family)]
        for host in hosts:
            name = f"[{host}]" if self.address_family == socket.AF_INET6 and ":" in host else host
            lines.append(f" * Running on {scheme}://{name}:{self.port}")
        _log("info", "\n".join(lines))

    def _logging(self, app: WSGIApplication) -> WSGIApplication:
        """The application with a line of the log for each response that it starts."""

        def logged(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            address = environ.get("REMOTE_ADDR", ""), int(environ.get("REMOTE_PORT") or 0)
            line = f"{environ['REQUEST_METHOD']} {environ.get('RAW_URI') or environ['PATH_INFO']}"
            handler = self.RequestHandlerClass(address, f"{line} {environ['SERVER_PROTOCOL']}", self)

            def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
                handler.log_request(status.partition(" ")[0])
                return start_response(status, headers, exc_info)

            return app(environ, start)

        return logged

    def _raising(self, app: WSGIApplication) -> WSGIApplication:
        """The application, which stops the server when it raises."""

        def raising(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            try:
                return app(environ, start_response)
            except BaseException as error:
                self._failure = error
                self._stop.set()
                raise

        return raising

    def __enter__(self) -> BaseWSGIServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.server_close()


class ThreadedWSGIServer(BaseWSGIServer):
    """A server that runs views on as many threads as the engine finds right."""

    multithread = True


def make_server(
    host: str,
    port: int,
    app: WSGIApplication,
    threaded: bool = False,
    processes: int = 1,
    request_handler: type[WSGIRequestHandler] | None = None,
    passthrough_errors: bool = False,
    ssl_context: _TSSLContextArg | None = None,
    fd: int | None = None,
) -> BaseWSGIServer:
    """A bound server whose `serve_forever` may run in a thread and whose `shutdown` ends it.

    Args:
        threaded: Run views at the same time.
        processes: More than one is refused: one process serves with threads.

    The other arguments are those of `BaseWSGIServer`.
    """
    if processes > 1:
        if threaded:
            raise ValueError("Cannot have a multi-thread and multi-process server.")
        raise ValueError(
            "This server is one process that runs views on threads: leave out 'processes', set 'threaded'."
        )
    server = ThreadedWSGIServer if threaded else BaseWSGIServer
    return server(host, port, app, request_handler, passthrough_errors, ssl_context, fd)


def is_running_from_reloader() -> bool:
    """Whether this process is the one that the reloader started, the one that serves."""
    return os.environ.get("WERKZEUG_RUN_MAIN") == "true"


def run_simple(
    hostname: str,
    port: int,
    application: WSGIApplication,
    use_reloader: bool = False,
    use_debugger: bool = False,
    use_evalex: bool = True,
    extra_files: Iterable[str] | None = None,
    exclude_patterns: Iterable[str] | None = None,
    reloader_interval: int = 1,
    reloader_type: str = "auto",
    threaded: bool = False,
    processes: int = 1,
    request_handler: type[WSGIRequestHandler] | None = None,
    static_files: dict[str, str | tuple[str, str]] | None = None,
    passthrough_errors: bool = False,
    ssl_context: _TSSLContextArg | None = None,
) -> None:
    """Serve an application until Ctrl-C, with a developer's comforts if wanted.

    Args:
        hostname: A name, an address, or `unix://` and a path.
        port: The port; 0 lets the system choose.
        application: The application.
        use_reloader: Start again when a source file changes.
        use_debugger: Show tracebacks in the browser.
        use_evalex: Let the debugger run code in the frames of a traceback.
        extra_files: More files for the reloader to watch.
        exclude_patterns: Files for the reloader to ignore (`fnmatch`).
        reloader_interval: Seconds between two searches for new files.
        reloader_type: `stat`, `watchfiles`, `watchdog`, or `auto`: the second if installed, else the first.
        threaded: Run views at the same time.
        processes: See `make_server`.
        request_handler: What logs the requests.
        static_files: URL prefixes and the directories, files or `(package, path)` served below them.
        passthrough_errors: Stop serving and raise what the application raises.
        ssl_context: Certificate and key as paths, or `adhoc`.

    Raises:
        TypeError: If the port is not a number.
        SystemExit: If the address cannot be bound.
    """
    if not isinstance(port, int):
        raise TypeError("port must be an integer")

    if static_files:
        from .middleware.shared_data import SharedDataMiddleware

        application = SharedDataMiddleware(application, static_files)
    if use_debugger:
        from .debug import DebuggedApplication

        debugged = DebuggedApplication(application, evalex=use_evalex)
        debugged.trusted_hosts.append(hostname)
        application = debugged

    # The socket is bound once, by the first process: a browser that connects during a reload waits in its
    # queue.
    reloaded = is_running_from_reloader()
    fd = int(os.environ["WERKZEUG_SERVER_FD"]) if reloaded else None
    server = make_server(
        hostname,
        port,
        application,
        threaded,
        processes,
        request_handler,
        passthrough_errors,
        ssl_context,
        fd=fd,
    )
    if not reloaded:
        server.log_startup()
        _log("info", _ansi_style("Press CTRL+C to quit", "yellow"))
    if not use_reloader:
        server.serve_forever()
        return

    from ._reloader import run_with_reloader

    server.socket.set_inheritable(True)
    os.environ["WERKZEUG_SERVER_FD"] = str(server.fileno())
    try:
        run_with_reloader(
            server.serve_forever,
            extra_files=extra_files,
            exclude_patterns=exclude_patterns,
            interval=reloader_interval,
            reloader_type=reloader_type,
        )
    finally:
        server.server_close()


def select_address_family(host: str, port: int) -> socket.AddressFamily:
    """The family of addresses that a host belongs to."""
    import socket

    if host.startswith("unix://"):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def get_sockaddr(host: str, port: int, family: socket.AddressFamily) -> Any:
    """The address to bind: a path for a Unix socket, else what the name resolves to."""
    import socket

    if family == socket.AF_UNIX:
        return os.path.abspath(host.partition("://")[2])
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except socket.gaierror:
        return host, port
    return found[0][4]


def get_interface_ip(family: socket.AddressFamily) -> str:
    """The address by which other machines reach this one; loopback if it has no network."""
    import socket

    v6 = family == socket.AF_INET6
    # Connecting a datagram socket sends nothing, but makes the kernel choose an interface.
    private = "fd31:f903:5ab5:1::1" if v6 else "10.253.155.219"
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((private, 58162))
        except OSError:
            return "::1" if v6 else "127.0.0.1"
        return str(probe.getsockname()[0])


def generate_adhoc_ssl_pair(cn: str | None = None) -> tuple[Certificate, RSAPrivateKey]:
    """A self-signed certificate for a year, and its key.

    Args:
        cn: The host; any if not given.

    Raises:
        TypeError: If the `cryptography` package is missing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import rsa
    except ImportError:
        raise TypeError("Using ad-hoc certificates requires the cryptography library.") from None
    from datetime import datetime, timedelta, timezone

    host = "*" if cn is None else cn
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Development Certificate"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, host),
        ]
    )
    now = datetime.now(timezone.utc)
    hosts = x509.SubjectAlternativeName([x509.DNSName(host), x509.DNSName(f"*.{host}")])
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=365))
    builder = builder.add_extension(x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH]), critical=False)
    builder = builder.add_extension(hosts, critical=False)
    return builder.sign(key, hashes.SHA256()), key


def make_ssl_devcert(base_path: str, host: str | None = None, cn: str | None = None) -> tuple[str, str]:
    """Write a self-signed certificate and its key, to be used again and again.

    Args:
        base_path: Where; `.crt` and `.key` are appended.
        host: The host that it is for.
        cn: The same under another name; `host` goes first.

    Returns:
        The two paths.
    """
    certificate, key = _pem(generate_adhoc_ssl_pair(host if host is not None else cn))
    paths = f"{base_path}.crt", f"{base_path}.key"
    for path, content in zip(paths, (certificate, key), strict=True):
        with open(path, "wb") as file:
            file.write(content)
    return paths


def generate_adhoc_ssl_context() -> ssl.SSLContext:
    """A context with a fresh self-signed certificate, which is deleted when the process ends."""
    return load_ssl_context(*_adhoc_files())


def load_ssl_context(
    cert_file: str, pkey_file: str | None = None, protocol: int | None = None
) -> ssl.SSLContext:
    """A context for a certificate.

    Args:
        cert_file: The certificate.
        pkey_file: Its key, if it is in another file.
        protocol: A `PROTOCOL_…` constant of `ssl`.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if protocol is None else protocol)
    context.load_cert_chain(cert_file, pkey_file)
    return context


def is_ssl_error(error: BaseException | None = None) -> bool:
    """Whether an error, or the one being handled, comes from TLS."""
    import ssl

    return isinstance(sys.exc_info()[1] if error is None else error, ssl.SSLError)


def _adhoc_files() -> tuple[str, str]:
    import atexit
    import shutil
    import tempfile

    directory = tempfile.mkdtemp(prefix="hipflask-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return make_ssl_devcert(os.path.join(directory, "adhoc"))


def _pem(pair: tuple[Certificate, RSAPrivateKey]) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import serialization

    certificate, key = pair
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        encoding=serialization.Encoding.PEM,
        format=serialization.PrivateFormat.TraditionalOpenSSL,
        encryption_algorithm=serialization.NoEncryption(),
    )


def _explain_bind_error(error: OSError, port: int) -> NoReturn:
    """Say in plain words why nothing can listen here, and leave."""
    import errno

    print(error.strerror or error, file=sys.stderr)
    if error.errno == errno.EADDRINUSE:
        print(
            f"Port {port} is taken by another program. Stop that program, or choose another port.",
            file=sys.stderr,
        )
        if sys.platform == "darwin" and port == 5000:
            print(
                "On macOS it may be the AirPlay receiver, which System Settings turns off.", file=sys.stderr
            )
    sys.exit(1)


_COLOURS = {"bold": 1, "red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36}


def _styles(code: str) -> tuple[str, ...]:
    """How the log shows a status."""
    if code in ("304", "404"):
        return ("cyan",) if code == "304" else ("yellow",)
    return {"1": ("bold",), "3": ("green",), "4": ("bold", "red"), "5": ("bold", "magenta")}.get(code[:1], ())


def _ansi_style(value: str, *styles: str) -> str:
    """Text in colour, if somebody watches the terminal."""
    if not styles or sys.stderr is None or not sys.stderr.isatty():
        return value
    return "".join(f"\x1b[{_COLOURS[style]}m" for style in styles) + value + "\x1b[0m"
