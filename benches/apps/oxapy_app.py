"""The benchmark's application in OxAPY. It has no Jinja2: the engine that it brings renders its page."""

import sys
from pathlib import Path

from oxapy import HttpServer, Response, Router, Session, get, post, render, static_file, templating

ROWS = [{"id": number, "name": f"row {number}", "tag": "<b>"} for number in range(20)]


@get("/plain")
def plain(request):
    return Response("Hello, World!", content_type="text/html; charset=utf-8")


@get("/json")
def json(request):
    return {"message": "Hello, World!"}


@get("/users/{number:int}")
def user(request, number):
    return {"id": number, "q": request.query["q"]}


@post("/json")
def post_json(request):
    return {"items": len(request.json()["items"])}


@post("/form")
def form(request):
    fields = request.form
    return {"name": fields["name"], "fields": len(fields)}


@post("/upload")
def upload(request):
    return {"size": len(request.files["file"].content)}


@get("/page")
def page(request):
    return render(request, "page.html", {"title": "A page", "rows": ROWS})


@get("/session")
def count(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return {"n": request.session["n"]}


def many(index):
    @get(f"/many/{index}/{{name}}")
    def view(request, name):
        return {"name": name}

    return view


router = Router()
router.routes([plain, json, user, post_json, form, upload, page, *(many(index) for index in range(200))])
router.route(static_file("/static", str(Path(__file__).parent / "static")))
app = HttpServer(("127.0.0.1", int(sys.argv[1])))
router.middleware(Session(b"benchmark"))
router.route(count)
template = templating.Template()
template.load(str(Path(__file__).parent / "templates/**/*.html"))
app.template(template)
app.attach(router)
app.run(1)
