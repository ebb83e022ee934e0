"""The benchmark's application in Falcon."""

import os
from pathlib import Path

import falcon
import jinja2
from itsdangerous import URLSafeTimedSerializer

HERE = Path(__file__).parent
ROWS = [{"id": number, "name": f"row {number}", "tag": "<b>"} for number in range(20)]
templates = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True)
signer = URLSafeTimedSerializer("benchmark")


class Plain:
    def on_get(self, request, response):
        response.content_type = "text/html; charset=utf-8"
        response.text = "Hello, World!"


class Json:
    def on_get(self, request, response):
        response.media = {"message": "Hello, World!"}

    def on_post(self, request, response):
        response.media = {"items": len(request.media["items"])}


class User:
    def on_get(self, request, response, number):
        response.media = {"id": number, "q": request.get_param("q", default="")}


class Form:
    def on_post(self, request, response):
        form = request.media
        response.media = {"name": form["name"], "fields": len(form)}


class Upload:
    def on_post(self, request, response):
        for part in request.media:
            if part.name == "file":
                response.media = {"size": len(part.stream.read())}


class Page:
    def on_get(self, request, response):
        response.content_type = "text/html; charset=utf-8"
        response.text = templates.get_template("page.html").render(title="A page", rows=ROWS)


class Session:
    def on_get(self, request, response):
        cookie = request.cookies.get("session")
        session = signer.loads(cookie) if cookie else {}
        session["n"] = session.get("n", 0) + 1
        response.set_cookie("session", signer.dumps(session))
        response.media = {"n": session["n"]}


class Many:
    def on_get(self, request, response, name):
        response.media = {"name": name}


app = falcon.App()
app.req_options.media_handlers[falcon.MEDIA_MULTIPART].parse_options.max_body_part_buffer_size = 1 << 20
for path, resource in {
    "/plain": Plain(),
    "/json": Json(),
    "/users/{number:int}": User(),
    "/form": Form(),
    "/upload": Upload(),
    "/page": Page(),
    "/session": Session(),
}.items():
    app.add_route(path, resource)
for index in range(200):
    app.add_route(f"/many/{index}/{{name}}", Many())
if not os.environ.get("BENCH_NO_STATIC"):
    app.add_static_route("/static", HERE / "static")
