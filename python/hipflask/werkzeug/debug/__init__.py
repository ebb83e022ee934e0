"""Show a traceback in the browser when the application raises, with a prompt in every frame.

Whoever can use the prompt can do anything as the server's user. So three things stand before it: the
request's host must be trusted, which keeps other sites from reaching in by DNS; the page's secret must be
known, and a page for an untrusted host does not hold it; and the PIN that the server's terminal shows must
have been entered. Even so this is for development and never for a server that strangers can reach.

Implements: werkzeug.debug (3.1).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from .._internal import _log
from ..exceptions import NotFound, SecurityError
from ..http import parse_cookie
from ..sansio.utils import host_is_trusted
from ..security import gen_salt
from ..wrappers.request import Request
from ..wrappers.response import Response
from .console import Console
from .tbtools import DebugFrameSummary, DebugTraceback, render_console_html

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: How many seconds a browser is remembered that has given the PIN: a week.
PIN_TIME = 60 * 60 * 24 * 7

#: How many wrong PINs lock the prompt until the server is started again.
_MOST_FAILURES = 10

#: How many tracebacks are kept for their prompts; each keeps all that its frames refer to.
_MOST_TRACEBACKS = 20

_RESOURCES = {"style.css": "text/css", "debugger.js": "text/javascript"}


class DebuggedApplication:
    """Calls an application and answers with a traceback if it raises.

    With `evalex`, `environ["werkzeug.debug.preserve_context"]` takes context managers that are entered around
    each piece of code that is run in a frame.

    Args:
        app: The application.
        evalex: Offer prompts.
        request_key: Without effect.
        console_path: The path of a page with a prompt; None for no such page.
        console_init_func: Makes the namespace of that prompt.
        show_hidden_frames: Show frames that ask to be hidden.
        pin_security: Ask for a PIN before code is run.
        pin_logging: Tell the PIN in the log.
    """

    _pin: str | None
    _pin_cookie: str

    def __init__(
        self,
        app: WSGIApplication,
        evalex: bool = False,
        request_key: str = "werkzeug.request",
        console_path: str | None = "/console",
        console_init_func: Callable[[], dict[str, Any]] | None = None,
        show_hidden_frames: bool = False,
        pin_security: bool = True,
        pin_logging: bool = True,
    ) -> None:
        self.app = app
        self.evalex = evalex
        self.request_key = request_key
        self.console_path = console_path
        self.console_init_func = console_init_func
        self.show_hidden_frames = show_hidden_frames
        self.pin_logging = pin_logging
        self.secret = gen_salt(20)
        #: Hosts that may use prompts. A leading dot stands for all subdomains too.
        self.trusted_hosts: list[str] = [".localhost", "127.0.0.1"]
        self.frames: dict[int, DebugFrameSummary | _ConsoleFrame] = {}
        self.frame_contexts: dict[int, list[AbstractContextManager[Any]]] = {}
        self._kept: deque[list[int]] = deque()
        self._failures = 0
        self._lock = threading.Lock()
        if not pin_security:
            self.pin = None
        elif pin_logging and os.environ.get("WERKZEUG_RUN_MAIN") == "true" and _is_first_start():
            if self.pin is None:
                _log("warning", " * Debugger PIN disabled. DEBUGGER UNSECURED!")
            else:
                _log("info", " * Debugger PIN: %s", self.pin)

    @property
    def pin(self) -> str | None:
        """The PIN; None lets everybody on a trusted host in."""
        if not hasattr(self, "_pin"):
            self._find_pin()
        return self._pin

    @pin.setter
    def pin(self, value: str | None) -> None:
        self._pin = value

    @property
    def pin_cookie_name(self) -> str:
        """The name of the cookie that remembers the PIN."""
        if not hasattr(self, "_pin_cookie"):
            self._find_pin()
        return self._pin_cookie

    def _find_pin(self) -> None:
        pin, cookie = get_pin_and_cookie_name(self.app)
        if not hasattr(self, "_pin"):
            self._pin = pin
        self._pin_cookie = cookie or "__hfd"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer the debugger's own requests; call the application for all others."""
        # The form must stay unread: the application could not read it again.
        if "__debugger__=yes" in environ.get("QUERY_STRING", ""):
            response = self._command(Request(environ))
            if response is not None:
                answer: Iterable[bytes] = response(environ, start_response)
                return answer
        elif self.evalex and self.console_path is not None and environ.get("PATH_INFO") == self.console_path:
            return self.display_console(Request(environ))(environ, start_response)
        return self.debug_application(environ, start_response)

    def debug_application(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        """Call the application, and answer with the traceback if it raises."""
        contexts: list[AbstractContextManager[Any]] = []
        if self.evalex:
            environ["werkzeug.debug.preserve_context"] = contexts.append
        try:
            body: Any = None
            try:
                body = self.app(environ, start_response)
                yield from body
            finally:
                if hasattr(body, "close"):
                    body.close()
        except Exception as error:
            traceback = DebugTraceback(error, skip=1, hide=not self.show_hidden_frames)
            response = Response(self._render(traceback, contexts, environ), 500, mimetype="text/html")
            try:
                yield from response(environ, start_response)
            except Exception:
                environ["wsgi.errors"].write(
                    "The application raised after it had started its response: the debugger cannot show it.\n"
                )
            environ["wsgi.errors"].write(traceback.render_traceback_text())

    def _render(
        self, traceback: DebugTraceback, contexts: list[AbstractContextManager[Any]], environ: WSGIEnvironment
    ) -> str:
        evalex = self.evalex and self.check_host_trust(environ)
        if evalex:
            self._keep(traceback.all_frames, contexts)
        return traceback.render_debugger_html(
            evalex=evalex,
            secret=self.secret if evalex else "",
            evalex_trusted=evalex and bool(self.check_pin_trust(environ)),
        )

    def _keep(self, frames: list[DebugFrameSummary], contexts: list[AbstractContextManager[Any]]) -> None:
        """Remember frames for their prompts, and forget the oldest ones."""
        with self._lock:
            for frame in frames:
                self.frames[frame.id] = frame
                self.frame_contexts[frame.id] = contexts
            self._kept.append([frame.id for frame in frames])
            while len(self._kept) > _MOST_TRACEBACKS:
                for key in self._kept.popleft():
                    self.frames.pop(key, None)
                    self.frame_contexts.pop(key, None)

    def _command(self, request: Request) -> Any:
        """What answers one of the page's own requests; None if it is none."""
        args = request.args
        if args.get("__debugger__") != "yes":
            return None
        command = args.get("cmd")
        if command == "resource" and "f" in args:
            return self.get_resource(request, args["f"])
        if not hmac.compare_digest(args.get("s", "").encode(), self.secret.encode()):
            return None
        if command == "pinauth":
            return self.pin_auth(request)
        if command == "printpin":
            return self.log_pin_request(request)
        frame = self.frames.get(args.get("frm", -1, type=int))
        if (
            self.evalex
            and command is not None
            and frame is not None
            and self.check_pin_trust(request.environ)
        ):
            return self.execute_command(request, command, frame)
        return None

    def execute_command(
        self, request: Request, command: str, frame: DebugFrameSummary | _ConsoleFrame
    ) -> Response | SecurityError:
        """Run code in a frame, inside the contexts that were preserved for it."""
        if not self.check_host_trust(request.environ):
            return SecurityError()
        from contextlib import ExitStack

        with ExitStack() as stack:
            for context in self.frame_contexts.get(frame.id, ()):
                stack.enter_context(context)
            return Response(frame.eval(command), mimetype="text/html")

    def display_console(self, request: Request) -> Response | SecurityError:
        """The page with a prompt of its own."""
        if not self.check_host_trust(request.environ):
            return SecurityError()
        if 0 not in self.frames:
            names = {} if self.console_init_func is None else dict(self.console_init_func())
            names.setdefault("app", self.app)
            self.frames[0] = _ConsoleFrame(names)
        trusted = bool(self.check_pin_trust(request.environ))
        return Response(render_console_html(self.secret, trusted), mimetype="text/html")

    def get_resource(self, request: Request, filename: str) -> Response | NotFound:
        """A style sheet or script of the page."""
        mimetype = _RESOURCES.get(filename)
        if mimetype is None:
            return NotFound()
        import pkgutil

        data = pkgutil.get_data(__package__ or "", f"shared/{filename}")
        response = Response(data, mimetype=mimetype)
        response.add_etag()
        return response.make_conditional(request.environ)

    def check_host_trust(self, environ: WSGIEnvironment) -> bool:
        """Whether the request's host is one of `trusted_hosts`."""
        return host_is_trusted(environ.get("HTTP_HOST"), self.trusted_hosts)

    def check_pin_trust(self, environ: WSGIEnvironment) -> bool | None:
        """Whether the browser has given the PIN; None if its cookie is forged or belongs to another PIN."""
        if self.pin is None:
            return True
        if self._failures >= _MOST_FAILURES:
            return False
        since, separator, signature = parse_cookie(environ).get(self.pin_cookie_name, "").partition("|")
        if not separator or not since.isdecimal():
            return False
        if not hmac.compare_digest(signature.encode(), self._sign(since).encode()):
            return None
        return time.time() - PIN_TIME < int(since)

    def pin_auth(self, request: Request) -> Response | SecurityError:
        """Check a PIN that was entered, and remember the browser if it is right."""
        if not self.check_host_trust(request.environ):
            return SecurityError()
        import json

        trust = self.check_pin_trust(request.environ)
        exhausted = False
        granted = bool(trust)
        if trust is None:
            self._fail_pin_auth()
        elif not trust:
            # Counted before it is checked: many guesses at the same time are still as many guesses.
            with self._lock:
                exhausted = self._failures >= _MOST_FAILURES
                self._failures += not exhausted
            entered = request.args.get("pin", "").strip().replace("-", "")
            pin = (self.pin or "").replace("-", "")
            if not exhausted and hmac.compare_digest(entered.encode(), pin.encode()):
                granted = True
                self._failures = 0
            elif not exhausted:
                self._delay()

        response = Response(
            json.dumps({"auth": granted, "exhausted": exhausted}), mimetype="application/json"
        )
        if granted and self.pin is not None:
            now = str(int(time.time()))
            response.set_cookie(
                self.pin_cookie_name,
                f"{now}|{self._sign(now)}",
                httponly=True,
                samesite="Strict",
                secure=request.is_secure,
            )
        elif trust is None:
            response.delete_cookie(self.pin_cookie_name)
        return response

    def _sign(self, since: str) -> str:
        """Proof that the browser gave this PIN on this machine at that time. Survives a reload."""
        key = hash_pin(self.pin or "") + str(get_machine_id())
        return hmac.new(key.encode(), since.encode(), hashlib.sha256).hexdigest()[:32]

    def _fail_pin_auth(self) -> None:
        with self._lock:
            self._failures += 1
        self._delay()

    def _delay(self) -> None:
        """Make guessing slow, and slower after some guesses."""
        time.sleep(5.0 if self._failures > 5 else 0.5)

    def log_pin_request(self, request: Request) -> Response | SecurityError:
        """Tell the PIN in the log, where whoever asked for it should be able to read it."""
        if not self.check_host_trust(request.environ):
            return SecurityError()
        if self.pin_logging and self.pin is not None:
            _log("info", " * To use the debugger's prompt, enter this PIN: %s", self.pin)
        return Response("")


class _ConsoleFrame:
    """The prompt of the console's page, in the place of a frame."""

    id = 0

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.console = Console(namespace)

    def eval(self, code: str) -> str:
        return self.console.eval(code)


def _is_first_start() -> bool:
    """Whether the reloader has not started this process again: the PIN stays the same."""
    return "HIPFLASK_RELOADS" not in os.environ


def hash_pin(pin: str) -> str:
    """A digest of a PIN."""
    return hashlib.sha256(f"{pin} hipflask debugger".encode("utf-8", "replace")).hexdigest()[:20]


def get_pin_and_cookie_name(app: WSGIApplication) -> tuple[str, str] | tuple[None, None]:
    """The PIN for an application on this machine, the same after each start, and the name of its cookie.

    The variable `WERKZEUG_DEBUG_PIN` replaces the PIN; `off` means none.
    """
    wanted = os.environ.get("WERKZEUG_DEBUG_PIN")
    if wanted == "off":
        return None, None

    import uuid

    module = getattr(app, "__module__", type(app).__module__)
    parts = [
        _username(),
        module,
        getattr(app, "__name__", type(app).__name__),
        getattr(sys.modules.get(module), "__file__", None),
        # What follows is hard to know for somebody who sees no more than pages of the application.
        str(uuid.getnode()),
        get_machine_id(),
    ]
    digest = hashlib.sha256(b"\0".join(p if isinstance(p, bytes) else str(p).encode() for p in parts))
    cookie = f"__hfd{digest.hexdigest()[:20]}"
    if wanted is not None and wanted.replace("-", "").isdecimal():
        return (wanted if "-" in wanted else _grouped(wanted)), cookie
    digest.update(b"pin")
    return _grouped(f"{int(digest.hexdigest(), 16) % 10**9:09d}"), cookie


def _grouped(digits: str) -> str:
    """Digits in groups that are easy to read."""
    for size in (5, 4, 3):
        if len(digits) % size == 0:
            return "-".join(digits[i : i + size] for i in range(0, len(digits), size))
    return digits


def _username() -> str | None:
    import getpass

    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return None


_machine_id: bytes | None = None


def get_machine_id() -> bytes | None:
    """Something that tells this machine, or this container, from others; None if nothing does."""
    global _machine_id
    if _machine_id is None:
        _machine_id = _linux_id() or _other_id()
    return _machine_id


def _linux_id() -> bytes:
    found = b""
    # The second changes at each boot, so it is only for machines without the first.
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        found = _first_line(path)
        if found:
            break
    # Containers share the machine's; their control group has a name of its own.
    return found + _first_line("/proc/self/cgroup").rpartition(b"/")[2]


def _first_line(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.readline().strip()
    except OSError:
        return b""


def _other_id() -> bytes | None:
    """The serial number of a Mac, or what Windows calls the machine's GUID."""
    if sys.platform == "darwin":
        import re
        import subprocess

        command = ["ioreg", "-c", "IOPlatformExpertDevice", "-d", "2"]
        try:
            output = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
        except OSError:
            return None
        match = re.search(rb'"serial-number" = <([^>]+)', output)
        return match[1] if match else None
    if sys.platform == "win32":
        import winreg

        access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        try:
            with winreg.OpenKey(
                winreg.HKEY_LOCAL_MACHINE, "SOFTWARE\\Microsoft\\Cryptography", 0, access
            ) as key:
                value = winreg.QueryValueEx(key, "MachineGuid")[0]
        except OSError:
            return None
        return value.encode() if isinstance(value, str) else value
    return None
