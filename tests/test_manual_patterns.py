"""What people do once their app has grown: the patterns of a Flask manual, through every door.

An app imports all names from `hipflask`, as users of Flask import them from `flask`.
"""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import sys
from datetime import timedelta

import pytest

from hipflask import (
    Blueprint,
    Flask,
    Request,
    Response,
    abort,
    after_this_request,
    current_app,
    flash,
    g,
    got_request_exception,
    has_request_context,
    jsonify,
    redirect,
    render_template_string,
    request,
    send_file,
    send_from_directory,
    session,
    stream_template_string,
    stream_with_context,
    template_rendered,
    url_for,
)
from hipflask.werkzeug.exceptions import HTTPException, InternalServerError, NotFound
from hipflask.werkzeug.middleware.dispatcher import DispatcherMiddleware
from hipflask.werkzeug.middleware.proxy_fix import ProxyFix
from hipflask.werkzeug.routing import BaseConverter
from hipflask.werkzeug.security import check_password_hash, generate_password_hash

# Errors


def test_generic_error_handlers(through):
    class InvalidAPIUsage(Exception):
        status_code = 400

        def __init__(self, message, status_code=None, payload=None):
            super().__init__()
            self.message = message
            self.status_code = status_code or self.status_code
            self.payload = payload

        def to_dict(self):
            return {**(self.payload or {}), "message": self.message}

    app = Flask(__name__)

    @app.errorhandler(InvalidAPIUsage)
    def invalid_api_usage(error):
        return jsonify(error.to_dict()), error.status_code

    @app.errorhandler(InternalServerError)
    def handle_500(error):
        original = getattr(error, "original_exception", None)
        return f"a failure: {type(original).__name__}", 500

    @app.route("/user")
    def user():
        if not request.args.get("user_id"):
            raise InvalidAPIUsage("No user id provided!", payload={"field": "user_id"})
        return str(1 / 0)

    app.register_error_handler(NotFound, lambda error: (error.name, error.code))

    client = through(app)
    assert client.get("/user").json == {"field": "user_id", "message": "No user id provided!"}
    broken = client.get("/user?user_id=1")
    assert (broken.status_code, broken.text) == (500, "a failure: ZeroDivisionError")
    assert client.get("/none").text == "Not Found"


def test_an_error_of_ones_own(through):
    class InsufficientStorage(HTTPException):
        code = 507
        description = "Not enough storage space."

    app = Flask(__name__)

    @app.errorhandler(InsufficientStorage)
    def handle_507(error):
        return f"sorry: {error.description}", 507

    @app.route("/")
    def index():
        raise InsufficientStorage()

    answer = through(app).get("/")
    assert (answer.status_code, answer.text) == (507, "sorry: Not enough storage space.")


# Around a request


def test_deferred_callbacks(through):
    app = Flask(__name__)

    @app.before_request
    def detect_user_language():
        language = request.cookies.get("user_lang")
        if language is None:
            language = request.accept_languages.best_match(["de", "en"]) or "en"

            @after_this_request
            def remember_language(response):
                response.set_cookie("user_lang", language)
                return response

        g.language = language

    @app.route("/")
    def index():
        return g.language

    client = through(app)
    first = client.get("/", headers={"Accept-Language": "fr, de;q=0.8"})
    assert (first.text, first.header("Set-Cookie")) == ("de", "user_lang=de; Path=/")
    second = client.get("/", headers={"Accept-Language": "en"})
    assert (second.text, second.header("Set-Cookie")) == ("de", None)


def test_request_hooks(through):
    app = Flask(__name__)
    seen = []

    @app.before_request
    def before():
        seen.append("before")
        if request.path == "/stopped":
            return "stopped", 403
        return None

    @app.after_request
    def after(response):
        seen.append("after")
        response.headers["X-After"] = "yes"
        return response

    @app.teardown_request
    def teardown(error):
        seen.append(f"teardown {error}")

    @app.route("/")
    def index():
        seen.append("view")
        return "index"

    client = through(app)
    assert client.get("/").header("X-After") == "yes"
    assert client.get("/stopped").status_code == 403
    client.close()
    assert seen == ["before", "view", "after", "teardown None", "before", "after", "teardown None"]


def test_sqlite_per_request(through, tmp_path):
    app = Flask(__name__)
    database = str(tmp_path / "database.db")
    with sqlite3.connect(database) as setup:
        setup.execute("create table users (username text)")
        setup.executemany("insert into users values (?)", [("ada",), ("bob",)])
    setup.close()

    def get_db():
        db = getattr(g, "_database", None)
        if db is None:
            db = g._database = sqlite3.connect(database)
            db.row_factory = sqlite3.Row
        return db

    @app.teardown_appcontext
    def close_connection(exception):
        db = getattr(g, "_database", None)
        if db is not None:
            db.close()

    def query_db(query, args=(), one=False):
        cursor = get_db().execute(query, args)
        rows = cursor.fetchall()
        cursor.close()
        return (rows[0] if rows else None) if one else rows

    @app.route("/<name>")
    def user(name):
        found = query_db("select * from users where username = ?", [name], one=True)
        return found["username"] if found else ("no such user", 404)

    @app.route("/")
    def users():
        return " ".join(row["username"] for row in query_db("select * from users order by username"))

    client = through(app)
    assert client.get("/").text == "ada bob"
    assert client.get("/ada").text == "ada"
    assert client.get("/eve").status_code == 404


def test_url_processors(through):
    app = Flask(__name__)

    @app.url_defaults
    def add_language_code(endpoint, values):
        if "lang_code" in values or not g.get("lang_code"):
            return
        if current_app.url_map.is_endpoint_expecting(endpoint, "lang_code"):
            values["lang_code"] = g.lang_code

    @app.url_value_preprocessor
    def pull_lang_code(endpoint, values):
        g.lang_code = (values or {}).pop("lang_code", None)

    @app.route("/<lang_code>/")
    def index():
        return f"{g.lang_code} {url_for('about')}"

    @app.route("/<lang_code>/about")
    def about():
        return g.lang_code

    client = through(app)
    assert client.get("/de/").text == "de /de/about"
    assert client.get("/en/about").text == "en"


def test_a_converter_of_ones_own(through):
    class ListConverter(BaseConverter):
        def to_python(self, value):
            return value.split("+")

        def to_url(self, values):
            return "+".join(super(ListConverter, self).to_url(value) for value in values)

    app = Flask(__name__)
    app.url_map.converters["list"] = ListConverter

    @app.route("/tags/<list:tags>")
    def tags(tags):
        return f"{tags} {url_for('tags', tags=['x', 'y'])}"

    assert through(app).get("/tags/a+b").text == "['a', 'b'] /tags/x+y"


def test_streaming_contents(through):
    app = Flask(__name__)
    app.secret_key = "x"

    @app.route("/large.csv")
    def large_csv():
        def generate():
            for row in (("a", "1"), ("b", "2")):
                yield ",".join(row) + "\n"

        return app.response_class(generate(), mimetype="text/csv")

    @app.route("/stream")
    def streamed():
        @stream_with_context
        def generate():
            yield "Hello "
            yield request.args["name"]
            yield "!"

        return generate()

    @app.route("/template")
    def template():
        return stream_template_string("{% for i in range(3) %}{{ i }}{{ request.args.name }} {% endfor %}")

    client = through(app)
    assert client.get("/large.csv").text == "a,1\nb,2\n"
    assert client.get("/stream?name=Ada").text == "Hello Ada!"
    assert client.get("/template?name=x").text == "0x 1x 2x "


def test_sending_files(through, tmp_path):
    app = Flask(__name__)
    (tmp_path / "report.txt").write_text("0123456789")

    @app.route("/report")
    def report():
        return send_file(tmp_path / "report.txt", as_attachment=True, download_name="Bericht.txt", max_age=60)

    @app.route("/made")
    def made():
        return send_file(io.BytesIO(b"made"), mimetype="text/plain", etag=False)

    client = through(app)
    answer = client.get("/report")
    assert answer.header("Content-Disposition") == "attachment; filename=Bericht.txt"
    assert answer.header("Cache-Control") == "public, max-age=60"
    part = client.get("/report", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.text, part.header("Content-Range")) == (206, "234", "bytes 2-4/10")
    same = client.get("/report", headers={"If-None-Match": answer.header("ETag")})
    assert (same.status_code, same.data) == (304, b"")
    assert client.get("/made").text == "made"


def test_a_favicon(through, tmp_path):
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "favicon.ico").write_bytes(b"\0\0\1\0")
    app = Flask(__name__, root_path=str(tmp_path))

    @app.route("/favicon.ico")
    def favicon():
        return send_from_directory(
            os.path.join(app.root_path, "static"), "favicon.ico", mimetype="image/vnd.microsoft.icon"
        )

    answer = through(app).get("/favicon.ico")
    assert (answer.data, answer.header("Content-Type")) == (b"\0\0\1\0", "image/vnd.microsoft.icon")


def test_a_request_content_checksum(through):
    class ChecksumCalcStream:
        def __init__(self, stream):
            self._stream = stream
            self._hash = hashlib.sha1()

        def read(self, bytes):
            data = self._stream.read(bytes)
            self._hash.update(data)
            return data

        def readline(self, size_hint):
            data = self._stream.readline(size_hint)
            self._hash.update(data)
            return data

    def generate_checksum(request):
        stream = ChecksumCalcStream(request.environ["wsgi.input"])
        request.environ["wsgi.input"] = stream
        return stream._hash

    app = Flask(__name__)

    @app.route("/special-api", methods=["POST"])
    def special_api():
        checksum = generate_checksum(request)
        files = request.files  # noqa: F841 (reads the body)
        return f"Checksum: {checksum.hexdigest()}"

    body = "a=1&b=2"
    answer = through(app).post(
        "/special-api", data=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.text == f"Checksum: {hashlib.sha1(body.encode()).hexdigest()}"


# Shaping the app


def test_subclassing_flask_request_and_response(through):
    class OurRequest(Request):
        @property
        def shouted(self):
            return self.path.upper()

    class OurResponse(Response):
        default_mimetype = "text/plain"

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.headers["X-Ours"] = "1"

    class OurFlask(Flask):
        request_class = OurRequest
        response_class = OurResponse

        def make_response(self, rv):
            if isinstance(rv, set):
                rv = ",".join(sorted(rv))
            return super().make_response(rv)

    app = OurFlask(__name__)

    @app.route("/path")
    def path():
        return {request.shouted, "b"}

    answer = through(app).get("/path")
    assert (answer.text, answer.header("X-Ours")) == ("/PATH,b", "1")
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"


def test_overriding_the_method(through):
    class HTTPMethodOverrideMiddleware:
        allowed = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})

        def __init__(self, app):
            self.app = app

        def __call__(self, environ, start_response):
            method = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", "").upper()
            if method in self.allowed:
                environ["REQUEST_METHOD"] = method
            if method in {"GET", "HEAD", "OPTIONS", "DELETE"}:
                environ["CONTENT_LENGTH"] = "0"
            return self.app(environ, start_response)

    app = Flask(__name__)
    app.wsgi_app = HTTPMethodOverrideMiddleware(app.wsgi_app)

    @app.delete("/thing")
    def delete():
        return "deleted"

    client = through(app)
    assert client.post("/thing", headers={"X-HTTP-Method-Override": "delete"}).text == "deleted"
    assert client.post("/thing").status_code == 405


def test_behind_a_proxy(through):
    app = Flask(__name__)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)

    @app.route("/")
    def index():
        return f"{request.remote_addr} {request.url} {url_for('index', _external=True)}"

    forwarded = {
        "X-Forwarded-For": "6.6.6.6, 192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "example.com",
        "X-Forwarded-Prefix": "/app",
    }
    answer = through(app).get("/", headers=forwarded)
    assert answer.text == "192.0.2.7 https://example.com/app/ https://example.com/app/"


def test_dispatching_to_several_apps(through):
    frontend, backend = Flask("frontend"), Flask("backend")

    @frontend.route("/")
    def front():
        return f"front {url_for('front')}"

    @backend.route("/")
    def back():
        return f"back {url_for('back')}"

    frontend.wsgi_app = DispatcherMiddleware(frontend.wsgi_app, {"/backend": backend})
    client = through(frontend)
    assert client.get("/").text == "front /"
    assert client.get("/backend/").text == "back /backend/"


def test_dispatching_by_subdomain(through):
    class SubdomainDispatcher:
        def __init__(self, domain, create_app):
            self.domain, self.create_app, self.instances = domain, create_app, {}

        def __call__(self, environ, start_response):
            host = environ["HTTP_HOST"].split(":")[0]
            subdomain = host[: -len(self.domain)].rstrip(".")
            app = self.instances.get(subdomain)
            if app is None:
                app = self.instances[subdomain] = self.create_app(subdomain)
            return app(environ, start_response)

    def create_app(subdomain):
        app = Flask(__name__)
        app.add_url_rule("/", "index", lambda: f"app of {subdomain or 'nobody'}")
        return app

    outer = Flask(__name__)
    outer.wsgi_app = SubdomainDispatcher("example.com", create_app)
    assert through(outer, host="ada.example.com").get("/").text == "app of ada"


def test_subdomains(through):
    app = Flask(__name__, subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.com"

    @app.route("/", subdomain="<user>")
    def user_page(user):
        return f"{user} {url_for('index')}"

    @app.route("/")
    def index():
        return "index"

    assert through(app, host="ada.example.com").get("/").text == "ada http://example.com/"
    assert through(app, host="example.com").get("/").text == "index"


def test_a_single_page_application(through, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "index.html").write_text("the app")
    app = Flask(__name__, static_folder="app", static_url_path="/app", root_path=str(tmp_path))

    @app.route("/heartbeat")
    def heartbeat():
        return jsonify({"status": "healthy"})

    @app.route("/", defaults={"path": ""})
    @app.route("/<path:path>")
    def catch_all(path):
        return app.send_static_file("index.html")

    client = through(app)
    assert client.get("/some/page").text == "the app"
    assert client.get("/heartbeat").json == {"status": "healthy"}


def test_passwords():
    stored = generate_password_hash("secret")
    assert check_password_hash(stored, "secret")
    assert not check_password_hash(stored, "Secret")


# Signals, contexts, tests, commands


def test_signals_tell_about_templates_and_errors(through):
    app = Flask(__name__)
    rendered, errors = [], []

    def record(sender, template, context, **extra):
        rendered.append((sender, context["word"]))

    def log_exception(sender, exception, **extra):
        errors.append(repr(exception))

    @app.route("/")
    def index():
        return render_template_string("{{ word }}", word="hello")

    @app.route("/broken")
    def broken():
        raise ValueError("broken")

    client = through(app)
    with template_rendered.connected_to(record, app), got_request_exception.connected_to(log_exception, app):
        assert client.get("/").text == "hello"
        assert client.get("/broken").status_code == 500
    client.close()
    assert rendered == [(app, "hello")]
    assert errors == ["ValueError('broken')"]


def test_signals_of_ones_own():
    from blinker import Namespace

    saved = Namespace().signal("model-saved")
    heard = []
    app = Flask(__name__)

    @saved.connect_via(app)
    def hear(sender, model, **extra):
        heard.append(model)

    with app.app_context():
        saved.send(current_app._get_current_object(), model="it")
    assert heard == ["it"]


def test_context_locals():
    app = Flask(__name__)
    assert not has_request_context()
    with pytest.raises(RuntimeError, match="Working outside of application context"):
        print(current_app.name)
    with pytest.raises(RuntimeError, match="Working outside of request context"):
        print(request.path)
    with app.app_context():
        assert current_app.name == app.name
        g.x = 1
        with app.test_request_context("/hello?name=Peter", method="POST"):
            assert (request.path, request.method, request.args["name"]) == ("/hello", "POST", "Peter")
            assert g.x == 1
    with app.test_request_context("/make_report/2017", data={"format": "short"}, method="POST"):
        app.preprocess_request()
        assert request.form["format"] == "short"


def test_testing_an_application():
    app = Flask(__name__)
    app.config.update(TESTING=True, SECRET_KEY="x")

    @app.route("/user/edit", methods=["POST"])
    def edit():
        if session.get("user_id") != 1:
            abort(403)
        session["name"] = request.form["name"]
        flash("saved")
        return redirect(url_for("profile"))

    @app.route("/profile")
    def profile():
        return session["name"]

    @app.post("/graphql")
    def graphql():
        return {"got": request.json["query"]}

    with app.test_client() as client:
        assert client.post("/user/edit", data={"name": "x"}).status_code == 403
        with client.session_transaction() as sess:
            sess["user_id"] = 1
        response = client.post("/user/edit", data={"name": "Flask", "picture": (io.BytesIO(b"x"), "x.png")})
        assert response.status_code == 302
        response = client.post("/user/edit", data={"name": "Flask"}, follow_redirects=True)
        assert (len(response.history), response.request.path, response.text) == (1, "/profile", "Flask")
        assert session["name"] == "Flask"
        assert client.post("/graphql", json={"query": "users"}).json["got"] == "users"


def test_commands_and_their_runner():
    import click

    from hipflask.cli import AppGroup, with_appcontext

    app = Flask(__name__)
    user_cli = AppGroup("user")

    @user_cli.command("create")
    @click.argument("name")
    def create_user(name):
        click.echo(f"{current_app.name} creates {name}")

    app.cli.add_command(user_cli)

    @app.cli.command("hello")
    @click.option("--name", default="World")
    def hello(name):
        """Greets."""
        click.echo(f"Hello, {name}!")

    blue = Blueprint("students", __name__, cli_group="other")

    @blue.cli.command("list")
    def list_students():
        click.echo("students")

    app.register_blueprint(blue)

    @click.command()
    @with_appcontext
    def do_work():
        click.echo(current_app.name)

    app.cli.add_command(do_work)

    runner = app.test_cli_runner()
    assert runner.invoke(args=["user", "create", "ada"]).output == f"{app.name} creates ada\n"
    assert runner.invoke(args=["hello", "--name", "Flask"]).output == "Hello, Flask!\n"
    assert runner.invoke(hello, ["--name", "Flask"]).output == "Hello, Flask!\n"
    assert runner.invoke(args=["other", "list"]).output == "students\n"
    assert runner.invoke(args=["do-work"]).output == f"{app.name}\n"


def test_the_shell_knows_what_it_was_told():
    app = Flask(__name__)

    @app.shell_context_processor
    def more():
        return {"answer": 42}

    context = app.make_shell_context()
    assert (context["app"], context["answer"]) == (app, 42)
    assert "g" in context


def test_json_of_ones_own(through):
    from hipflask.json.provider import DefaultJSONProvider

    class OurProvider(DefaultJSONProvider):
        sort_keys = False

        def default(self, value):
            if isinstance(value, set):
                return sorted(value)
            return super().default(value)

    class OurFlask(Flask):
        json_provider_class = OurProvider

    app = OurFlask(__name__)

    @app.route("/")
    def index():
        return {"b": {2, 1}, "a": timedelta(days=1).total_seconds()}

    assert through(app).get("/").data == b'{"b":[1,2],"a":86400.0}\n'


def test_background_work_with_a_copied_context(through):
    from threading import Thread

    from hipflask import copy_current_request_context

    app = Flask(__name__)

    @app.route("/")
    def index():
        found = []

        @copy_current_request_context
        def work():
            found.append(request.path)

        thread = Thread(target=work)
        thread.start()
        thread.join()
        return found[0]

    assert through(app).get("/").text == "/"


# Larger applications


def test_an_application_that_is_a_package(through, tmp_path, monkeypatch):
    """Views in a module of their own, which imports the app from the package that imports it."""
    package = tmp_path / "harbour"
    (package / "templates").mkdir(parents=True)
    (package / "static").mkdir()
    framework = Flask.__module__.partition(".")[0]
    (package / "__init__.py").write_text(
        f"from {framework} import Flask\napp = Flask(__name__)\nimport harbour.views  # noqa: E402, F401\n"
    )
    (package / "views.py").write_text(
        f"from {framework} import render_template, url_for\nfrom harbour import app\n\n"
        "@app.route('/')\ndef index():\n    style = url_for('static', filename='a.css')\n"
        "    return render_template('index.html', style=style)\n"
    )
    (package / "templates" / "index.html").write_text("<link href='{{ style }}'>")
    (package / "static" / "a.css").write_text("a {}")
    monkeypatch.syspath_prepend(tmp_path)
    import harbour

    client = through(harbour.app)
    try:
        assert client.get("/").text == "<link href='/static/a.css'>"
        assert client.get("/static/a.css").text == "a {}"
    finally:
        client.close()
        for name in ("harbour", "harbour.views"):
            monkeypatch.delitem(sys.modules, name)


def test_requests_of_scripts(through, tmp_path):
    """A page hands values to its script, whose requests send and get JSON, forms and files."""
    app = Flask(__name__, root_path=str(tmp_path))

    @app.get("/")
    def page():
        data = {"text": "</script><b>", "list": [1, None]}
        return render_template_string("<script>const data = {{ data|tojson }}</script>", data=data)

    @app.post("/json")
    def sums():
        values = request.json
        return jsonify(sum=values["a"] + values["b"]), 201

    @app.post("/form")
    def form():
        return {key: request.form[key] for key in sorted(request.form)}

    @app.get("/missing")
    def missing():
        abort(404, "no such thing")

    @app.errorhandler(HTTPException)
    def told_in_json(error):
        return {"error": error.description}, error.code

    client = through(app)
    assert client.get("/").text == (
        '<script>const data = {"list": [1, null], "text": "\\u003c/script\\u003e\\u003cb\\u003e"}</script>'
    )
    answer = client.post("/json", json={"a": 1, "b": 2})
    assert (answer.status_code, answer.json) == (201, {"sum": 3})
    assert answer.header("Content-Type") == "application/json"
    assert client.post("/form", data={"b": "2", "a": "é"}).json == {"a": "é", "b": "2"}
    assert client.get("/missing").json == {"error": "no such thing"}
    assert client.post("/json", data="{", headers={"Content-Type": "application/json"}).status_code == 400
