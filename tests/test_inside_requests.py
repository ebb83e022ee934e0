"""What views do natively gives what Flask's Python gives: through every door, beside Flask itself."""

from __future__ import annotations

import io
from typing import Any

import flask
import pytest
from doors import DOORS, Client

import hipflask


def make(package: Any, **options: Any) -> Any:
    """The same app, of Flask or of Hipflask."""
    app = package.Flask("inside", static_folder=None, **options)
    app.secret_key = "for tests only"

    def probe() -> Any:
        return app.probe()

    def both(x: str) -> Any:
        return probe()

    inner = package.Blueprint("inner", "inside")
    inner.add_url_rule("/deep/<word>", "deep", lambda word: probe())
    outer = package.Blueprint("outer", "inside", url_prefix="/outer")
    outer.add_url_rule("/", "index", lambda: probe())
    outer.add_url_rule("/<int:number>", "number", lambda number: probe())
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer)
    app.add_url_rule("/", "index", lambda: probe(), methods=["GET", "POST"])
    app.add_url_rule("/users/<int:number>/<path:rest>", "user", lambda number, rest: probe())
    app.add_url_rule("/put/<x>", "both", both, methods=["PUT"])
    app.add_url_rule("/get/<x>", "both", both)
    app.add_url_rule("/floats/<float:f>/<any(a,b):word>", "odd", lambda f, word: probe())

    return app


URLS: list[tuple[str, dict[str, Any]]] = [
    ("index", {}),
    ("index", {"q": "a b&c", "n": [1, 2], "none": None}),
    ("index", {"_anchor": "é x/%41#?"}),
    ("index", {"_anchor": ""}),
    ("index", {"_anchor": b"bytes \xff"}),
    ("index", {"_external": True}),
    ("index", {"_external": False, "q": "é"}),
    ("index", {"_scheme": "https"}),
    ("index", {"_scheme": "", "_external": True}),
    ("index", {"_scheme": "https", "_external": False}),
    ("index", {"_scheme": "ftp", "_external": True}),
    ("user", {"number": 7, "rest": "a/b c/é"}),
    ("user", {"number": "7", "rest": "x"}),
    ("user", {"number": 7}),
    ("user", {"number": "seven", "rest": "x"}),
    ("user", {"number": 7, "rest": "x", "extra": "y", "_anchor": "z", "_external": True}),
    ("both", {"x": "y"}),
    ("both", {"x": "y", "_method": "PUT"}),
    ("both", {"x": "y", "_method": "DELETE"}),
    ("odd", {"f": 1.5, "word": "a"}),
    ("odd", {"f": 1.5, "word": "c"}),
    (".index", {}),
    (".number", {"number": 3}),
    (".inner.deep", {"word": "w"}),
    ("outer.inner.deep", {"word": "w"}),
    ("missing", {}),
    (".missing", {}),
    ("missing", {"a": 1, "_anchor": "x"}),
]


def outcome(call: Any) -> Any:
    """A result, or the kind and text of an error."""
    try:
        return call()
    except Exception as error:
        return type(error).__name__, str(error)


def in_flask(app: Any, probe: Any, path: str) -> Any:
    found: list[Any] = []
    app.probe = lambda: found.append(outcome(probe)) or ""
    app.test_client().get(path, base_url="http://localhost")
    return found[0]


def in_hipflask(app: Any, probe: Any, path: str, door: str) -> Any:
    found: list[Any] = []
    app.probe = lambda: found.append(outcome(probe)) or ""
    client = Client(app, DOORS[door])
    try:
        client.open(path)
    finally:
        client.close()
    return found[0]


@pytest.mark.parametrize("path", ["/", "/outer/", "/outer/inner/deep/x"])
@pytest.mark.parametrize("door", list(DOORS))
@pytest.mark.parametrize(
    "config", [{}, {"SERVER_NAME": "localhost"}, {"APPLICATION_ROOT": "/app"}], ids=["plain", "name", "root"]
)
def test_url_for_gives_what_flask_gives(path: str, door: str, config: dict[str, Any]) -> None:
    def calls(package: Any) -> Any:
        app = make(package)
        app.config.update(config)
        return app, lambda: [
            outcome(lambda call=call, values=values: call(values))
            for call in (
                lambda pair: package.url_for(pair[0], **pair[1]),
                lambda pair: package.current_app.url_for(pair[0], **pair[1]),
                lambda pair: app.jinja_env.globals["url_for"](pair[0], **pair[1]),
            )
            for values in URLS
        ]

    expected = in_flask(*calls(flask), path)
    assert in_hipflask(*calls(hipflask), path, door) == expected


def with_defaults(app: Any) -> None:
    app.url_defaults(lambda endpoint, values: values.setdefault("lang", "de"))


def with_blueprint_defaults(app: Any) -> None:
    app.url_default_functions["outer"].append(lambda endpoint, values: values.setdefault("lang", "de"))


def with_error_handler(app: Any) -> None:
    app.url_build_error_handlers.append(lambda error, endpoint, values: f"/other/{endpoint}/{sorted(values)}")


def with_counted_defaults_and_error_handler(app: Any) -> None:
    """Whatever becomes of the URL, functions for defaults run once."""
    app.url_defaults(lambda endpoint, values: values.update(times=values.get("times", 0) + 1))
    app.url_build_error_handlers.append(
        lambda error, endpoint, values: f"/other/{endpoint}/{sorted(values.items(), key=str)}"
    )


def with_own_method(app: Any) -> None:
    app.inject_url_defaults = lambda endpoint, values: values.update(own="yes")


def with_own_url_for(app: Any) -> None:
    app.url_for = lambda endpoint, **values: f"own {endpoint}"


@pytest.mark.parametrize("door", list(DOORS))
@pytest.mark.parametrize(
    "change",
    [
        with_defaults,
        with_blueprint_defaults,
        with_error_handler,
        with_counted_defaults_and_error_handler,
        with_own_method,
        with_own_url_for,
    ],
    ids=lambda change: change.__name__,
)
def test_url_for_asks_whatever_an_app_has_set(door: str, change: Any) -> None:
    def calls(package: Any) -> Any:
        app = make(package)
        change(app)
        return app, lambda: [
            outcome(lambda name=name: package.url_for(name))
            for name in ("index", "outer.index", "missing", ".index")
        ]

    assert in_hipflask(*calls(hipflask), "/outer/", door) == in_flask(*calls(flask), "/outer/")


def test_url_for_refuses_what_its_signature_refuses() -> None:
    with hipflask.Flask(__name__).test_request_context():
        for arguments, options in [((), {}), (("a", "b"), {}), ((5,), {}), (("a",), {"endpoint": "b"})]:
            with pytest.raises(TypeError):
                hipflask.url_for(*arguments, **options)


def test_a_context_with_another_bound_map_is_asked() -> None:
    app = make(hipflask)
    with app.test_request_context("/") as context:
        context.url_adapter = app.url_map.bind("elsewhere", script_name="/mounted")
        assert hipflask.url_for("index") == "/mounted/"
        assert hipflask.url_for("index", _external=True) == "http://elsewhere/mounted/"


def test_an_upload_in_memory_is_a_file_in_every_respect(app: Any, client: Client) -> None:
    def upload() -> Any:
        file = hipflask.request.files["file"]
        stream = file.stream
        first = stream.read(3)
        # Before Python 3.11 a SpooledTemporaryFile has no `readable`; and without an encoding TextIOWrapper
        # would ask for `fileno` there, which makes a file of it.
        text = io.TextIOWrapper(stream if hasattr(stream, "readable") else stream._file, encoding="utf-8")
        text.seek(0)
        whole = text.read()
        text.detach()
        stream.seek(2)
        with open(stream.fileno(), "rb", closefd=False) as on_disk:
            rest = on_disk.read()
        stream.seek(0, 2)
        stream.write(b"!")
        stream.seek(0)
        return {
            "first": first.decode(),
            "whole": whole,
            "rest": rest.decode(),
            "value": stream.read().decode(),
            "name": file.name,
            "filename": file.filename,
            "type": file.content_type,
            "form": hipflask.request.form.to_dict(),
            "left": hipflask.request.stream.read().decode(),
        }

    app.add_url_rule("/", view_func=upload, methods=["POST"])
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\nabcdef\r\n--x\r\n"
        b'Content-Disposition: form-data; name="word"\r\n\r\n\xc3\xa9\xff\r\n'
        b'--x\r\nContent-Disposition: form-data; name="latin"\r\n'
        b"Content-Type: text/plain; charset=ISO-8859-1\r\n\r\n\xe9\r\n--x--\r\n"
    )
    answer = client.open("/", "POST", data=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.json == {
        "first": "abc",
        "whole": "abcdef",
        "rest": "cdef",
        "value": "abcdef!",
        "name": "file",
        "filename": "a.txt",
        "type": "text/plain",
        "form": {"word": "é\ufffd", "latin": "é"},
        "left": "",
    }


@pytest.mark.parametrize(
    "limits",
    [{"MAX_FORM_PARTS": 1}, {"MAX_FORM_MEMORY_SIZE": 20}, {"MAX_CONTENT_LENGTH": 50}],
    ids=lambda limits: next(iter(limits)),
)
def test_uploads_are_held_to_each_limit(app: Any, client: Client, limits: dict[str, int]) -> None:
    app.config.update(limits)
    app.add_url_rule("/", view_func=lambda: str(len(hipflask.request.files)), methods=["POST"])
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nabc\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.open("/", "POST", data=part * 2 + b"--x--\r\n", headers=headers).status_code == 413


@pytest.mark.parametrize("cut", [3, 20, 60, 75])
def test_a_form_that_ends_early_is_empty(app: Any, client: Client, cut: int) -> None:
    app.add_url_rule("/", view_func=lambda: dict(hipflask.request.files), methods=["POST"])
    body = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nabc\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.open("/", "POST", data=body[:-cut], headers=headers).json == {}


@pytest.mark.parametrize("limit", [5, None])
def test_a_limit_set_on_a_request_counts_before_the_configuration(
    app: Any, client: Client, limit: int | None
) -> None:
    def view() -> Any:
        hipflask.request.max_content_length = limit
        return [hipflask.request.max_content_length, hipflask.request.max_form_parts]

    app.config.update(MAX_CONTENT_LENGTH=100, MAX_FORM_PARTS=7)
    app.add_url_rule("/", view_func=view)
    assert client.open("/").json == [limit or 100, 7]


def test_a_provider_that_reads_json_in_its_own_way_is_asked(app: Any, client: Client) -> None:
    class Provider(type(app.json)):  # type: ignore[misc]
        def loads(self, s: Any, **kwargs: Any) -> Any:
            return ["own", len(s)]

    app.json = Provider(app)
    app.add_url_rule("/", view_func=lambda: hipflask.request.get_json(), methods=["POST"])
    assert client.open("/", "POST", json={}).json == ["own", 2]


def test_the_blueprints_of_a_request(client: Client, app: Any) -> None:
    inner = hipflask.Blueprint("inner", __name__)
    outer = hipflask.Blueprint("outer", __name__)

    @inner.route("/")
    def index() -> Any:
        request = hipflask.request
        return [request.endpoint, request.blueprint, request.blueprints]

    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    assert client.open("/").json == ["outer.inner.index", "outer.inner", ["outer.inner", "outer"]]
