"""Views and what they may return."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import TypedDict

from hipflask import (
    Blueprint,
    Flask,
    Response,
    abort,
    jsonify,
    make_response,
    redirect,
    render_template,
    url_for,
)
from hipflask.typing import ResponseReturnValue
from hipflask.views import MethodView, View
from hipflask.werkzeug.wrappers import Response as BaseResponse

app = Flask(__name__, static_folder=None)
pages = Blueprint("pages", __name__, url_prefix="/pages")


class Item(TypedDict):
    name: str
    price: float


@app.route("/text")
def text() -> str:
    return "text"


@app.get("/bytes")
def content() -> bytes:
    return b"content"


@app.get("/json")
def json_object() -> dict[str, int]:
    return {"a": 1}


@app.get("/list")
def json_list() -> list[str]:
    return ["a"]


@app.get("/item")
def item() -> Item:
    return {"name": "pen", "price": 1.5}


@app.get("/jsonify")
def jsonified() -> Response:
    return jsonify(a=1)


@app.post("/status")
def status() -> tuple[str, int]:
    return "made", 201


@app.post("/named-status")
def named_status() -> tuple[str, HTTPStatus]:
    return "made", HTTPStatus.CREATED


@app.get("/headers")
def headers() -> tuple[str, dict[str, str]]:
    return "text", {"X-Header": "value"}


@app.get("/all")
def everything() -> tuple[dict[str, str], int, list[tuple[str, str]]]:
    return {"a": "b"}, 201, [("X-Header", "value")]


@app.get("/made")
def made() -> Response:
    response = make_response(render_template("page.html", name="value"), 201)
    response.headers["X-Header"] = "value"
    response.set_cookie("name", "value", max_age=60, httponly=True, samesite="Lax")
    return response


@app.get("/redirect")
def elsewhere() -> BaseResponse:
    return redirect(url_for("user", name="a", _external=True), code=303)


@app.get("/stream")
def stream() -> Iterator[str]:
    yield "a"
    yield "b"


@app.get("/async")
async def asynchronous() -> str:
    return "text"


@app.get("/any/<int:number>")
def anything(number: int) -> ResponseReturnValue:
    if number < 0:
        abort(404, description="no such number")
    if number == 0:
        return "none", HTTPStatus.NOT_FOUND
    return {"number": number}


@pages.route("/users/<name>", methods=["GET", "POST"], defaults={"page": 1})
def user(name: str, page: int) -> str:
    return f"{name} {page}"


class Page(View):
    methods = ["GET"]
    init_every_request = False

    def __init__(self, template: str) -> None:
        self.template = template

    def dispatch_request(self, number: int) -> str:
        return render_template(self.template, number=number)


class Items(MethodView):
    def get(self, key: int) -> Item:
        return {"name": str(key), "price": 0}

    def delete(self, key: int) -> tuple[str, int]:
        return "", 204


app.add_url_rule("/page/<int:number>", view_func=Page.as_view("page", "page.html"))
app.add_url_rule("/items/<int:key>", view_func=Items.as_view("items"))
app.register_blueprint(pages, url_prefix="/more", name="more")


async def pieces() -> AsyncIterator[str]:
    yield "a"
