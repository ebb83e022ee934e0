"""The same small site, written with each framework and served by `hipflask run`; ours, served by others.

Every framework has its own way with forms, uploads, streams, sessions, files and errors; what a browser gets
must be the same whoever serves.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

PATIENCE = 60

FLASK = """
from {package} import Flask, Response, request, send_from_directory, session

app = Flask(__name__, static_folder=None)
app.secret_key = "secret"
app.add_url_rule("/", "home", lambda: "home")
app.add_url_rule("/error", "error", lambda: 1 / 0)
app.add_url_rule("/query", "query", lambda: request.args.getlist("a"))
app.add_url_rule("/static/<path:name>", "file", lambda name: send_from_directory("static", name))


@app.post("/form")
def form():
    return request.form["field"]


@app.post("/upload")
def upload():
    file = request.files["file"]
    return f"{file.filename} {len(file.read())}"


@app.get("/stream")
def stream():
    return Response((f"{number}\\n" for number in range(3)), mimetype="text/plain")


@app.get("/visits")
def visits():
    session["visits"] = session.get("visits", 0) + 1
    return str(session["visits"])
"""

BOTTLE = """
import bottle
from bottle import Bottle, request, response, static_file

app = Bottle()
app.get("/")(lambda: "home")
app.get("/error")(lambda: 1 / 0)
app.get("/query")(lambda: str(request.query.decode().getall("a")).replace("'", '"'))
app.get("/static/<name>")(lambda name: static_file(name, root="static"))


@app.post("/form")
def form():
    return request.forms.field


@app.post("/upload")
def upload():
    file = request.files["file"]
    return f"{file.raw_filename} {len(file.file.read())}"


@app.get("/stream")
def stream():
    response.content_type = "text/plain"
    for number in range(3):
        yield f"{number}\\n"


@app.get("/visits")
def visits():
    count = int(request.get_cookie("visits", secret="secret", default="0")) + 1
    response.set_cookie("visits", str(count), secret="secret")
    return str(count)
"""

PYRAMID = """
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return Response(str(request.session["visits"]))


def upload(request):
    file = request.POST["file"]
    return Response(f"{file.filename} {len(file.file.read())}")


VIEWS = {
    "": lambda request: Response("home"),
    "error": lambda request: 1 / 0,
    "query": lambda request: Response(json_body=request.GET.getall("a")),
    "form": lambda request: Response(request.POST["field"]),
    "upload": upload,
    "stream": lambda request: Response(
        app_iter=(b"%d\\n" % number for number in range(3)), content_type="text/plain"
    ),
    "visits": visits,
}

with Configurator(session_factory=SignedCookieSessionFactory("secret")) as config:
    for name, view in VIEWS.items():
        config.add_route(name or "home", f"/{name}")
        config.add_view(view, route_name=name or "home")
    config.add_static_view("static", f"{__import__('os').getcwd()}/static")
    app = config.make_wsgi_app()
"""

DJANGO = """
import os

from django.conf import settings

settings.configure(
    DEBUG=False,
    SECRET_KEY="secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    FILE_UPLOAD_MAX_MEMORY_SIZE=1000,
)

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.static import serve


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


def upload(request):
    file = request.FILES["file"]
    return HttpResponse(f"{file.name} {len(file.read())}")


def stream(request):
    async def awaited():
        for number in range(3):
            yield f"{number}\\n"

    pieces = awaited() if hasattr(request, "scope") else (f"{number}\\n" for number in range(3))
    return StreamingHttpResponse(pieces, content_type="text/plain")


urlpatterns = [
    path("", lambda request: HttpResponse("home")),
    path("error", lambda request: 1 / 0),
    path("query", lambda request: JsonResponse(request.GET.getlist("a"), safe=False)),
    path("form", lambda request: HttpResponse(request.POST["field"])),
    path("upload", upload),
    path("stream", stream),
    path("visits", visits),
    path("static/<path:path>", serve, {"document_root": f"{os.getcwd()}/static"}),
]
app = get_wsgi_application()
awaited = get_asgi_application()
"""

STARLETTE = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles


async def home(request):
    return PlainTextResponse("home")


def error(request):
    return 1 / 0


async def query(request):
    return JSONResponse(request.query_params.getlist("a"))


async def form(request):
    async with request.form() as fields:
        return PlainTextResponse(fields["field"])


async def upload(request):
    async with request.form() as fields:
        file = fields["file"]
        return PlainTextResponse(f"{file.filename} {len(await file.read())}")


async def stream(request):
    return StreamingResponse((f"{number}\\n" for number in range(3)), media_type="text/plain")


async def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return PlainTextResponse(str(request.session["visits"]))


app = Starlette(
    routes=[
        Route("/", home),
        *(Route(f"/{view.__name__}", view) for view in (error, query, stream, visits)),
        *(Route(f"/{view.__name__}", view, methods=["POST"]) for view in (form, upload)),
        Mount("/static", StaticFiles(directory="static")),
    ],
    middleware=[Middleware(SessionMiddleware, secret_key="secret")],
)
"""

FASTAPI = """
from typing import Annotated

from fastapi import FastAPI, File, Form, Query, Request, UploadFile
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.sessions import SessionMiddleware

app = FastAPI(default_response_class=PlainTextResponse)
app.add_middleware(SessionMiddleware, secret_key="secret")
app.mount("/static", StaticFiles(directory="static"))


@app.api_route("/", methods=["GET", "HEAD"])
async def home():
    return "home"


@app.get("/error")
def error():
    return 1 / 0


@app.get("/query")
def query(a: Annotated[list[str], Query()]):
    return str(a).replace("'", '"')


@app.post("/form")
async def form(field: Annotated[str, Form()]):
    return field


@app.post("/upload")
async def upload(file: UploadFile):
    return f"{file.filename} {len(await file.read())}"


@app.get("/stream")
def stream():
    return StreamingResponse((f"{number}\\n" for number in range(3)), media_type="text/plain")


@app.get("/visits")
async def visits(request: Request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return str(request.session["visits"])
"""

VALIDATED = """
from wsgiref.validate import validator

app = validator(app)
"""

OURS = (
    FLASK.replace("{package}", "hipflask")
    + """

@app.before_serving
async def before():
    print("before serving", flush=True)


@app.websocket("/socket")
def socket(ws):
    ws.send("hello")
"""
)


@contextmanager
def serving(folder, source: str, *command: str, **environment: str):
    """A server for a site; gives its URL and the lines until then."""
    (folder / "site_of.py").write_text(source)
    (folder / "static").mkdir()
    (folder / "static/file.txt").write_text("file")
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said = ""
        for line in server.stdout:
            said += line
            if found := re.search(r"http://[\w.]+:\d+", line):
                break
        else:
            pytest.fail(said)
        yield found[0], said
        server.send_signal(signal.SIGTERM)
        rest, _ = server.communicate(timeout=PATIENCE)
        assert server.returncode in (0, -signal.SIGTERM), said + rest
    finally:
        # Its workers too.
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate(timeout=PATIENCE)


def visit(url: str, chunked: bool = True) -> None:
    """Do what a browser would, and check what it gets."""
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        home = client.get("/")
        assert (home.status_code, home.text) == (200, "home")
        head = client.head("/")
        assert (head.status_code, head.content) == (200, b"")
        assert client.get("/query?a=1&a=%C3%A4").text.replace(" ", "") in (
            '["1","ä"]',
            '["1","\\u00e4"]',
            '["1","\\u00e4"]\n',
        )
        assert client.post("/form", data={"field": "ä & b"}).text == "ä & b"
        content = bytes(range(256)) * 4000
        assert client.post("/upload", files={"file": ("name.bin", content)}).text == "name.bin 1024000"
        if chunked:
            # As browsers do not send it but programs do.
            request = client.build_request("POST", "/upload", files={"file": ("name.bin", content)})
            body = request.read()
            pieces = (body[at : at + 50_000] for at in range(0, len(body), 50_000))
            kind = {"Content-Type": request.headers["Content-Type"]}
            assert client.post("/upload", content=pieces, headers=kind).text == "name.bin 1024000"
        stream = client.get("/stream")
        assert stream.text == "0\n1\n2\n"
        assert [client.get("/visits").text for _ in range(3)] == ["1", "2", "3"]
        file = client.get("/static/file.txt")
        assert (file.text, file.headers["Content-Type"].partition(";")[0]) == ("file", "text/plain")
        unchanged = client.get(
            "/static/file.txt", headers={"If-Modified-Since": file.headers["Last-Modified"]}
        )
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert client.get("/error").status_code == 500
        assert client.get("/nowhere").status_code == 404
        assert client.get("/").text == "home"


@pytest.mark.parametrize(
    ("source", "app", "interface"),
    [
        pytest.param(FLASK.replace("{package}", "flask") + VALIDATED, "app", "wsgi", id="flask"),
        pytest.param(BOTTLE + VALIDATED, "app", "wsgi", id="bottle"),
        pytest.param(PYRAMID + VALIDATED, "app", "wsgi", id="pyramid"),
        pytest.param(DJANGO + VALIDATED, "app", "wsgi", id="django-wsgi"),
        pytest.param(DJANGO, "awaited", "asgi", id="django-asgi"),
        pytest.param(STARLETTE, "app", "auto", id="starlette"),
        pytest.param(FASTAPI, "app", "auto", id="fastapi"),
    ],
)
def test_a_site_of_another_framework(tmp_path, source, app, interface):
    command = ["hipflask", "run", f"site_of:{app}", "--port", "0", "--interface", interface]
    with serving(tmp_path, source, *command) as (url, _):
        # Django reads no form whose length it was not told, and by ASGI nobody can tell it.
        visit(url, chunked=app != "awaited")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["gunicorn", "-b", "127.0.0.1:0", "site_of:app"], id="gunicorn"),
        pytest.param(
            ["gunicorn", "-b", "127.0.0.1:0", "--threads", "4", "site_of:app"], id="gunicorn-threads"
        ),
        pytest.param(["waitress", "--listen=127.0.0.1:0", "site_of:app"], id="waitress"),
        pytest.param(["uvicorn", "--port", "0", "site_of:app.asgi_app"], id="uvicorn"),
        pytest.param(["hypercorn", "--bind", "127.0.0.1:0", "site_of:app.asgi_app"], id="hypercorn"),
    ],
)
def test_our_site_on_another_server(tmp_path, command):
    with serving(tmp_path, OURS, *command) as (url, said):
        visit(url)
        if "asgi_app" in command[-1]:
            # The server's lifespan is the app's.
            assert "before serving" in said
            with connect(f"ws{url[4:]}/socket", open_timeout=PATIENCE) as client:
                assert client.recv(timeout=PATIENCE) == "hello"
        else:
            with (
                pytest.raises(InvalidStatus) as caught,
                connect(f"ws{url[4:]}/socket", open_timeout=PATIENCE),
            ):
                pass
            assert caught.value.response.status_code == 501
