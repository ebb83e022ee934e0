"""Spans and metrics of OpenTelemetry, through every door, as the SDK's own exporters get them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from processes import Command, eventually, get

from hipflask import abort, request
from hipflask.otel import instrument_app, uninstrument_app

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collected:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.tracer = self.tracers.get_tracer("test")

    def spans(self, number: int = 1):
        """So many spans, in the order of their ends; a response may be there before its span has ended."""
        eventually(lambda: len(self.exporter.get_finished_spans()) >= number, "the spans have ended")
        spans = self.exporter.get_finished_spans()
        assert len(spans) == number
        return spans

    def span(self):
        [span] = self.spans()
        return span

    def metrics(self):
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def collected(app):
    collected = Collected()

    @app.get("/users/<int:user>")
    def user(user):
        with collected.tracer.start_as_current_span("inside"):
            return str(user)

    @app.get("/awaited")
    async def awaited():
        with collected.tracer.start_as_current_span("inside"):
            return "awaited"

    @app.get("/fails")
    def fails():
        raise RuntimeError("on purpose")

    @app.get("/gone")
    def gone():
        abort(410)

    @app.get("/down")
    def down():
        return "down", 503

    @app.route("/any", methods=["GET", "BREW"])
    def brew():
        return request.method

    instrument_app(app, tracer_provider=collected.tracers, meter_provider=collected.meters)
    yield collected
    collected.meters.shutdown()
    collected.tracers.shutdown()


def test_a_request_has_a_span_by_the_conventions(client, collected):
    answer = client.get(
        "/users/5?a=1&sig=secret&b=2", headers={"User-Agent": "tests"}, host="example.org:8080"
    )
    assert answer.text == "5"
    inside, span = collected.spans(2)
    assert (span.name, span.kind, span.status.status_code) == (
        "GET /users/<int:user>",
        SpanKind.SERVER,
        StatusCode.UNSET,
    )
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "http.route": "/users/<int:user>",
        "http.response.status_code": 200,
        "url.path": "/users/5",
        "url.query": "a=1&sig=REDACTED&b=2",
        "url.scheme": "http",
        "server.address": "example.org",
        "server.port": 8080,
        "client.address": "127.0.0.1",
        "user_agent.original": "tests",
        "network.protocol.version": "1.1",
    }
    assert span.instrumentation_scope.name == "hipflask.otel"
    assert inside.parent.span_id == span.context.span_id


@pytest.mark.parametrize("path", ["/users/5", "/awaited"])
def test_the_callers_trace_goes_on(client, collected, path):
    client.get(path, headers={"Traceparent": f"00-{TRACE}-{PARENT}-01"})
    inside, span = collected.spans(2)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert inside.context.trace_id == span.context.trace_id
    assert inside.parent.span_id == span.context.span_id


@pytest.mark.parametrize(
    ("path", "name", "status", "failure"),
    [
        ("/fails", "GET /fails", 500, "RuntimeError"),
        ("/down", "GET /down", 503, "503"),
        ("/gone", "GET /gone", 410, None),
        ("/nowhere", "GET", 404, None),
    ],
)
def test_failures_are_told(client, collected, path, name, status, failure):
    assert client.get(path).status.startswith(str(status))
    span = collected.span()
    assert span.name == name
    assert span.attributes["http.response.status_code"] == status
    assert span.attributes.get("error.type") == failure
    assert span.status.status_code is (StatusCode.ERROR if failure else StatusCode.UNSET)
    events = [(event.name, event.attributes["exception.message"]) for event in span.events]
    assert events == ([("exception", "on purpose")] if path == "/fails" else [])


def test_methods_that_clients_make_up_are_others(client, collected):
    assert client.open("/any", "BREW").text == "BREW"
    span = collected.span()
    assert span.name == "HTTP /any"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"


def test_requests_are_measured(client, collected):
    for user in range(3):
        client.get(f"/users/{user}")
    client.get("/fails")
    collected.spans(7)
    # The measurement follows the span's end.
    eventually(lambda: active(collected) == 0, "no request is active")
    duration = collected.metrics()["http.server.request.duration"]
    assert duration.unit == "s"
    points = {
        (point.attributes["http.route"], point.attributes["http.response.status_code"]): point
        for point in duration.data.data_points
    }
    assert points["/users/<int:user>", 200].count == 3
    assert points["/fails", 500].count == 1
    assert points["/fails", 500].attributes["error.type"] == "RuntimeError"
    assert points["/fails", 500].explicit_bounds[:3] == (0.005, 0.01, 0.025)


def active(collected) -> int:
    metric = collected.metrics()["http.server.active_requests"]
    return sum(point.value for point in metric.data.data_points)


def test_hooks_see_span_and_request_and_response(client, app):
    collected = Collected()

    @app.before_request
    def refuse():
        # Functions of the app come after the span has begun, and may answer themselves.
        return "refused", 403

    instrument_app(
        app,
        tracer_provider=collected.tracers,
        request_hook=lambda span, request: span.set_attribute("app.path", request.path),
        response_hook=lambda span, response: span.set_attribute("app.length", response.content_length),
    )
    assert client.get("/x").status.startswith("403")
    attributes = collected.span().attributes
    assert (attributes["app.path"], attributes["app.length"]) == ("/x", 7)
    assert attributes["http.response.status_code"] == 403


def test_urls_may_be_left_out(client, app):
    collected = Collected()
    app.add_url_rule("/", "index", lambda: "index")
    app.add_url_rule("/health", "health", lambda: "ok")
    instrument_app(app, tracer_provider=collected.tracers, excluded_urls="nothing, /health$")
    client.get("/health")
    client.get("/")
    assert collected.span().name == "GET /"


def test_the_lane_stays_and_twice_is_once(app):
    from hipflask._core import lane_of

    collected = Collected()
    before = lane_of(app)
    instrument_app(app, tracer_provider=collected.tracers)
    instrument_app(app, tracer_provider=collected.tracers)
    assert lane_of(app) == before
    app.test_client().get("/")
    assert collected.span().name == "GET"
    uninstrument_app(app)
    uninstrument_app(app)
    app.test_client().get("/")
    collected.span()
    assert not any([app.before_request_funcs[None], app.after_request_funcs[None]])


def test_exceptions_that_pass_through_end_the_span(app, collected):
    app.testing = True
    with pytest.raises(RuntimeError, match="on purpose"):
        app.test_client().get("/fails")
    span = collected.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "RuntimeError"
    assert "http.response.status_code" not in span.attributes


def test_the_instrumentation_of_others_works_under_the_alias():
    program = """
        import hipflask
        hipflask.install_as_flask()
        from opentelemetry.instrumentation.flask import FlaskInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        import flask, urllib.request
        from hipflask import _core

        exporter, tracers = InMemorySpanExporter(), TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        app = flask.Flask("app")
        app.add_url_rule("/users/<int:user>", "user", lambda user: str(user))
        FlaskInstrumentor().instrument_app(app, tracer_provider=tracers)
        server = _core.Server(app, ["127.0.0.1:0"])
        server.start()
        urllib.request.urlopen(f"http://{server.addresses[0]}/users/5").read()
        app.test_client().get("/users/6")
        server.stop()
        print([span.name for span in exporter.get_finished_spans()])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "['GET /users/<int:user>', 'GET /users/<int:user>']\n", done.stderr


APP = """
from opentelemetry import trace
from hipflask import Flask

app = Flask(__name__)


@app.get("/users/<int:user>")
def show(user):
    with trace.get_tracer("notes").start_as_current_span("look up"):
        return str(user)
"""


@pytest.mark.parametrize("mode", [[], ["--workers", "1"], ["--workers", "1", "--preload"]])
def test_the_setting_needs_no_code(tmp_path, mode):
    (tmp_path / "hello.py").write_text(APP)
    environment = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "notes"}
    command = Command(tmp_path, "--port", "0", "--otel", *mode, env=environment)
    try:
        assert get(command.port(), "/users/7") == "7"
        # What is left is exported at the end.
        assert command.stop() == 0
        spans = command.text
        assert '"name": "GET /users/<int:user>"' in spans
        assert '"name": "look up"' in spans
        assert '"service.name": "notes"' in spans
    finally:
        command.close()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "carrier"}, "OTEL_TRACES_EXPORTER is otlp, console or none, not 'carrier'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"}, "is http/protobuf or grpc, not 'smoke'"),
        # The tests do without an exporter.
        ({}, "opentelemetry-exporter-otlp-proto-http"),
    ],
)
@pytest.mark.parametrize("mode", [[], ["--workers", "1"]])
def test_what_cannot_be_sent_is_told_at_the_start(tmp_path, environment, message, mode):
    (tmp_path / "hello.py").write_text(APP)
    command = Command(tmp_path, "--port", "0", "--otel", *mode, env=environment)
    try:
        assert command.wait() == 1
        assert message in command.text
        assert "Traceback" not in command.text
    finally:
        command.close()


def test_an_application_of_another_kind_is_served_without_spans(tmp_path):
    (tmp_path / "hello.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'plain']\n"
    )
    command = Command(tmp_path, "--port", "0", "--otel", "--interface", "wsgi")
    try:
        assert get(command.port(), "/") == "plain"
        assert "otel is not used" in command.text
        assert command.stop() == 0
    finally:
        command.close()
