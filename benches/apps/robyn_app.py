"""The benchmark's application in Robyn."""

import os
import sys
from pathlib import Path
from urllib.parse import parse_qs

import jinja2
from itsdangerous import URLSafeTimedSerializer
from robyn import Headers, Request, Response, Robyn

HERE = Path(__file__).parent
ROWS = [{"id": number, "name": f"row {number}", "tag": "<b>"} for number in range(20)]
templates = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True)
signer = URLSafeTimedSerializer("benchmark")
HTML = {"Content-Type": "text/html; charset=utf-8"}

port = int(sys.argv.pop())
app = Robyn(__file__)


@app.get("/plain")
def plain(request: Request):
    return Response(200, Headers(HTML), "Hello, World!")


@app.get("/json")
def json(request: Request):
    return {"message": "Hello, World!"}


@app.get("/users/:number")
def user(request: Request):
    return {"id": int(request.path_params["number"]), "q": request.query_params.get("q", "")}


@app.post("/json")
def post_json(request: Request):
    return {"items": len(request.json()["items"])}


@app.post("/form")
def form(request: Request):
    # Its form data holds multipart forms only.
    fields = parse_qs(request.body)
    return {"name": fields["name"][0], "fields": len(fields)}


@app.post("/upload")
def upload(request: Request):
    return {"size": len(next(iter(request.files.values())))}


@app.get("/page")
def page(request: Request):
    return Response(200, Headers(HTML), templates.get_template("page.html").render(title="A page", rows=ROWS))


@app.get("/session")
def count(request: Request):
    cookie = request.headers.get("cookie")
    session = signer.loads(cookie.partition("=")[2]) if cookie else {}
    session["n"] = session.get("n", 0) + 1
    answer = Response(200, Headers({"Content-Type": "application/json"}), f'{{"n":{session["n"]}}}')
    answer.set_cookie("session", signer.dumps(session))
    return answer


def many(index):
    @app.get(f"/many/{index}/:name")
    def view(request: Request):
        return {"name": request.path_params["name"]}


for index in range(200):
    many(index)
app.serve_directory(route="/static", directory_path=str(HERE / "static"))
os.environ["ROBYN_HOST"] = "127.0.0.1"
app.start(host="127.0.0.1", port=port)
