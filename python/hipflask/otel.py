"""OpenTelemetry: a span for each request, as parent of the spans that views make, and the usual metrics.

Needs the API of OpenTelemetry, and its SDK to have anything exported: ``pip install 'hipflask[otel]'``. Names
and values follow the stable semantic conventions for HTTP servers. Works by hooks, so that the application
stays in the lane that it is in; `opentelemetry-instrumentation-flask` works too, by wrapping `wsgi_app`.

Implements: OpenTelemetry semantic conventions 1.23 and later, HTTP spans and metrics; W3C Trace Context
through the propagator that is set.
"""

from __future__ import annotations

import os
import re
import typing as t
from time import perf_counter

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from . import _core
from .globals import request
from .signals import got_request_exception

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from .app import Flask
    from .wrappers import Request, Response

    #: Called with the span and the request before the view.
    RequestHook = Callable[[Span, Request], object]
    #: Called with the span and the response after it.
    ResponseHook = Callable[[Span, Response], object]

# Where an instrumented app keeps its instrumentation.
_KEY = "hipflask.otel"
# Where a request keeps what is going on.
_STATE = "_hipflask_otel"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"))
# Parts of queries that are secrets, by the conventions.
_SECRET = re.compile(r"(?<![^&])(AWSAccessKeyId|Signature|sig|X-Goog-Signature)=[^&]*")
# Of `http.server.request.duration`, by the conventions.
_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_SCHEMA = "https://opentelemetry.io/schemas/1.26.0"


def instrument_app(
    app: Flask,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    excluded_urls: str | None = None,
    request_hook: RequestHook | None = None,
    response_hook: ResponseHook | None = None,
) -> None:
    """Make a span for each request of an application, and measure them.

    A request that says so in `traceparent` belongs to the caller's trace. The span begins before all
    functions of `before_request` and ends when the context ends: a body that is streamed is not waited for.
    An exception that nobody handles is recorded; a status from 500 on is an error.

    Call it when the application is set up. Calling it again does nothing.

    Args:
        app: The application.
        tracer_provider: Makes the tracer; the global one if None.
        meter_provider: Makes the meter; the global one if None.
        excluded_urls: Regular expressions with commas between them; a request whose URL has a match for one
            is left alone. None takes ``OTEL_PYTHON_EXCLUDED_URLS``.
        request_hook: Called with the span and the request before the view.
        response_hook: Called with the span and the response after it.
    """
    if _KEY in app.extensions:
        return
    app.extensions[_KEY] = instrumentation = _Instrumentation(
        tracer_provider, meter_provider, excluded_urls, request_hook, response_hook
    )
    app.before_request(instrumentation.begin)
    app.after_request(instrumentation.respond)
    app.teardown_request(instrumentation.end)
    for functions in (app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs):
        # The first to run before a request; those after it run in reverse.
        mine: list[t.Any] = t.cast("dict[t.Any, list[t.Any]]", functions)[None]
        mine.insert(0, mine.pop())
    got_request_exception.connect(instrumentation.fail, app)


def set_up() -> None:
    """Have spans sent where the variables of OpenTelemetry say, unless the program has set a provider.

    ``OTEL_TRACES_EXPORTER`` is ``otlp`` (the default), ``console`` or ``none``;
    ``OTEL_METRICS_EXPORTER`` the same, ``none`` by default. ``OTEL_EXPORTER_OTLP_PROTOCOL`` is
    ``http/protobuf`` or ``grpc``. The SDK and its exporters read the others by themselves:
    ``OTEL_SERVICE_NAME``, ``OTEL_EXPORTER_OTLP_ENDPOINT`` and so on.
    Begins threads: call it in the process that serves.

    Raises:
        ImportError: If the SDK or the exporter is not installed.
        ValueError: If a variable names something unknown.

    Implements: OpenTelemetry environment variables, as far as they are named here.
    """
    spans = _exporter("OTEL_TRACES_EXPORTER", "otlp", "trace", "Span")
    if spans is not None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(spans))
        trace.set_tracer_provider(provider)
    numbers = _exporter("OTEL_METRICS_EXPORTER", "none", "metric", "Metric")
    if numbers is not None and "Proxy" in type(metrics.get_meter_provider()).__name__:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(numbers)]))


def _exporter(variable: str, default: str, signal: str, noun: str) -> t.Any:
    """What sends spans or numbers, by a variable; None for nothing."""
    from importlib import import_module

    name = os.environ.get(variable) or default
    if name == "none":
        return None
    if name == "console":
        module = import_module(f"opentelemetry.sdk.{'trace' if signal == 'trace' else 'metrics'}.export")
        return getattr(module, f"Console{noun}Exporter")()
    if name != "otlp":
        raise ValueError(f"{variable} is otlp, console or none, not {name!r}.")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    place = {"http/protobuf": "http", "grpc": "grpc"}.get(protocol)
    if place is None:
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is http/protobuf or grpc, not {protocol!r}.")
    module = import_module(f"opentelemetry.exporter.otlp.proto.{place}.{signal}_exporter")
    return getattr(module, f"OTLP{noun}Exporter")()


def uninstrument_app(app: Flask) -> None:
    """Undo `instrument_app`.

    Args:
        app: The application.
    """
    instrumentation: _Instrumentation | None = app.extensions.pop(_KEY, None)
    if instrumentation is None:
        return
    app.before_request_funcs[None].remove(instrumentation.begin)
    app.after_request_funcs[None].remove(instrumentation.respond)
    app.teardown_request_funcs[None].remove(instrumentation.end)
    got_request_exception.disconnect(instrumentation.fail, app)
    _core.app_changed()


class _State:
    """What is going on for one request."""

    __slots__ = ("active", "begun", "error", "measured", "span", "status", "token")

    def __init__(
        self, span: Span, token: t.Any, active: dict[str, t.Any], measured: dict[str, t.Any], begun: float
    ) -> None:
        self.span = span
        self.token = token
        self.active = active
        self.measured = measured
        self.begun = begun
        self.status: int | None = None
        self.error: BaseException | None = None


class _Getter:
    """Reads the fields of a request for a propagator."""

    def get(self, carrier: t.Any, key: str) -> list[str] | None:
        return carrier.getlist(key) or None

    def keys(self, carrier: t.Any) -> list[str]:
        return [name.lower() for name, _ in carrier]


_GETTER = _Getter()


class _Instrumentation:
    """The hooks of one application."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        excluded_urls: str | None,
        request_hook: RequestHook | None,
        response_hook: ResponseHook | None,
    ) -> None:
        version = _core.__version__
        self.tracer = trace.get_tracer(__name__, version, tracer_provider, _SCHEMA)
        meter = metrics.get_meter(__name__, version, meter_provider, _SCHEMA)
        self.duration = meter.create_histogram(
            "http.server.request.duration",
            unit="s",
            description="Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        self.running = meter.create_up_down_counter(
            "http.server.active_requests",
            unit="{request}",
            description="Number of active HTTP server requests.",
        )
        if excluded_urls is None:
            excluded_urls = os.environ.get("OTEL_PYTHON_EXCLUDED_URLS", "")
        parts = [part.strip() for part in excluded_urls.split(",") if part.strip()]
        self.excluded = re.compile("|".join(parts)) if parts else None
        self.request_hook = request_hook
        self.response_hook = response_hook

    def begin(self) -> None:
        """Open the span, and make it the current one."""
        now: Request = request._get_current_object()  # type: ignore[attr-defined]
        if self.excluded is not None and self.excluded.search(now.url):
            return
        begun = perf_counter()
        method = now.method if now.method in _METHODS else "_OTHER"
        rule = now.url_rule
        span = self.tracer.start_span(
            _name(method, None if rule is None else rule.rule),
            propagate.extract(now.headers, getter=t.cast("t.Any", _GETTER)),
            SpanKind.SERVER,
            _attributes(now, method),
        )
        token = context.attach(trace.set_span_in_context(span))
        active = {"http.request.method": method, "url.scheme": now.scheme}
        measured = dict(active)
        if rule is not None:
            measured["http.route"] = rule.rule
        setattr(now, _STATE, _State(span, token, active, measured, begun))
        self.running.add(1, active)
        if self.request_hook is not None and span.is_recording():
            self.request_hook(span, now)

    def respond(self, response: Response) -> Response:
        """Note what became of it."""
        state: _State | None = getattr(request, _STATE, None)
        if state is not None:
            state.status = response.status_code
            if self.response_hook is not None and state.span.is_recording():
                self.response_hook(state.span, response)
        return response

    def fail(self, sender: object, exception: BaseException, **_more: object) -> None:
        """Note an exception that nobody has handled."""
        state: _State | None = getattr(request, _STATE, None)
        if state is not None:
            state.error = exception
            state.span.record_exception(exception)

    def end(self, error: BaseException | None) -> None:
        """Close the span, and count the request."""
        state: _State | None = getattr(request, _STATE, None)
        if state is None:
            return
        delattr(request, _STATE)
        error = state.error or error
        failure = None
        if state.status is not None:
            state.span.set_attribute("http.response.status_code", state.status)
            state.measured["http.response.status_code"] = state.status
            failure = str(state.status) if state.status >= 500 else None
        if error is not None:
            kind = type(error)
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            failure = f"{module}{kind.__qualname__}"
        if failure is not None:
            state.span.set_attribute("error.type", failure)
            state.span.set_status(Status(StatusCode.ERROR, None if error is None else str(error)))
            state.measured["error.type"] = failure
        state.span.end()
        self.running.add(-1, state.active)
        self.duration.record(perf_counter() - state.begun, state.measured)
        context.detach(state.token)


def _name(method: str, route: str | None) -> str:
    """The name of a span: few different ones, whatever clients ask for."""
    method = "HTTP" if method == "_OTHER" else method
    return method if route is None else f"{method} {route}"


def _attributes(now: Request, method: str) -> dict[str, t.Any]:
    """What is known about a request before it is answered."""
    rule, protocol = now.url_rule, now.environ.get("SERVER_PROTOCOL", "")
    host, _, port = now.host.rpartition(":") if re.search(r":\d+$", now.host) else (now.host, "", "")
    found: dict[str, t.Any] = {
        "http.request.method": method,
        "url.path": now.path,
        "url.scheme": now.scheme,
        "server.address": host,
    }
    if method == "_OTHER":
        found["http.request.method_original"] = now.method
    if rule is not None:
        found["http.route"] = rule.rule
    if port:
        found["server.port"] = int(port)
    if query := now.query_string.decode("utf-8", "replace"):
        found["url.query"] = _SECRET.sub(r"\1=REDACTED", query)
    if now.remote_addr:
        found["client.address"] = now.remote_addr
    if agent := now.headers.get("User-Agent"):
        found["user_agent.original"] = agent
    if protocol.startswith("HTTP/"):
        found["network.protocol.version"] = "2" if protocol == "HTTP/2.0" else protocol[5:]
    return found
