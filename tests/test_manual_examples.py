"""What people type in after reading a Flask manual: each idea in its usual spelling, through every door.

An app imports all names from `hipflask`, as users of Flask import them from `flask`.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta, timezone
from functools import wraps

from files import write

from hipflask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    make_response,
    redirect,
    render_template,
    render_template_string,
    request,
    send_from_directory,
    session,
    url_for,
)
from hipflask.views import MethodView, View
from hipflask.werkzeug.exceptions import HTTPException
from hipflask.werkzeug.utils import cached_property, import_string, secure_filename

# The first steps


def test_a_minimal_application(through):
    app = Flask(__name__)

    @app.route("/")
    def hello_world():
        return "<p>Hello, World!</p>"

    answer = through(app).get("/")
    assert (answer.status, answer.text) == ("200 OK", "<p>Hello, World!</p>")
    assert answer.header("Content-Type") == "text/html; charset=utf-8"


def test_markup_is_escaped(through):
    from markupsafe import escape

    app = Flask(__name__)

    @app.route("/<name>")
    def hello(name):
        return f"Hello, {escape(name)}!"

    assert through(app).get("/%3Cb%3E").text == "Hello, &lt;b&gt;!"


def test_variable_rules(through):
    app = Flask(__name__)

    @app.route("/user/<username>")
    def show_user_profile(username):
        return f"User {username}"

    @app.route("/post/<int:post_id>")
    def show_post(post_id):
        return f"Post {post_id + 1}"

    @app.route("/path/<path:subpath>")
    def show_subpath(subpath):
        return f"Subpath {subpath}"

    @app.route("/at/<float:x>")
    def at(x):
        return repr(x)

    @app.route("/thing/<uuid:id>")
    def thing(id):
        return id.hex

    client = through(app)
    assert client.get("/user/J%C3%BCrgen").text == "User Jürgen"
    assert client.get("/post/41").text == "Post 42"
    assert client.get("/post/x").status_code == 404
    assert client.get("/path/a/b/c").text == "Subpath a/b/c"
    assert client.get("/at/1.5").text == "1.5"
    assert (
        client.get("/thing/12345678-1234-5678-1234-567812345678").text == "12345678123456781234567812345678"
    )


def test_a_trailing_slash_means_a_folder(through):
    app = Flask(__name__)

    @app.route("/projects/")
    def projects():
        return "projects"

    @app.route("/about")
    def about():
        return "about"

    client = through(app)
    moved = client.get("/projects?page=2")
    assert (moved.status_code, moved.header("Location")) == (308, "http://localhost/projects/?page=2")
    assert client.get("/projects/").text == "projects"
    assert client.get("/about/").status_code == 404


def test_building_urls():
    app = Flask(__name__)

    @app.route("/")
    def index():
        return "index"

    @app.route("/login")
    def login():
        return "login"

    @app.route("/user/<username>")
    def profile(username):
        return username

    with app.test_request_context():
        assert url_for("index") == "/"
        assert url_for("login", next="/") == "/login?next=/"
        assert url_for("profile", username="John Doe") == "/user/John%20Doe"
        assert url_for("static", filename="style.css") == "/static/style.css"
        assert (
            url_for("login", _external=True, _scheme="https", _anchor="form")
            == "https://localhost/login#form"
        )


def test_methods_of_a_view(through):
    app = Flask(__name__)

    @app.route("/login", methods=["GET", "POST"])
    def login():
        return "doing it" if request.method == "POST" else "the form"

    @app.get("/read")
    def read():
        return "read"

    client = through(app)
    assert client.get("/login").text == "the form"
    assert client.post("/login").text == "doing it"
    assert client.open("/login", "DELETE").status_code == 405
    assert client.open("/read", "HEAD").data == b""
    assert set(client.open("/read", "OPTIONS").header("Allow").split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_static_files_and_templates(through, tmp_path):
    write(
        tmp_path, templates__hello="Hello {{ person or 'World' }}! {{ url_for('static', filename='a.css') }}"
    )
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "a.css").write_text("p {}")
    app = Flask(__name__, root_path=str(tmp_path))

    @app.route("/hello/")
    @app.route("/hello/<name>")
    def hello(name=None):
        return render_template("hello.html", person=name)

    client = through(app)
    assert client.get("/hello/").text == "Hello World! /static/a.css"
    assert client.get("/hello/<i>").text == "Hello &lt;i&gt;! /static/a.css"
    style = client.get("/static/a.css")
    assert (style.text, style.header("Content-Type")) == ("p {}", "text/css; charset=utf-8")


def test_template_inheritance_filters_and_context(through, tmp_path):
    write(
        tmp_path,
        templates__layout="<title>{% block title %}{% endblock %} - Us</title>{% block body %}{% endblock %}",
        templates__page="{% extends 'layout.html' %}{% block title %}{{ word|reverse_it }}{% endblock %}"
        "{% block body %}{{ price(2) }} {{ g.user }} {{ request.path }} {{ config.NAME }} {{ 4 is odd_one }}"
        "{% endblock %}",
    )
    app = Flask(__name__, root_path=str(tmp_path))
    app.config["NAME"] = "ours"

    @app.template_filter("reverse_it")
    def reverse_filter(text):
        return text[::-1]

    @app.template_test("odd_one")
    def odd(number):
        return number % 2 == 1

    @app.context_processor
    def utilities():
        return {"price": lambda amount: f"{amount:.2f}€"}

    @app.before_request
    def load_user():
        g.user = "ada"

    @app.route("/page")
    def page():
        return render_template("page.html", word="olleh")

    assert through(app).get("/page").text == "<title>hello - Us</title>2.00€ ada /page ours False"


def test_the_request_object(through):
    app = Flask(__name__)

    @app.route("/login", methods=["POST", "GET"])
    def login():
        if request.method == "POST":
            if request.form["username"] == "admin" and request.form["password"] == "default":
                return f"logged in as {request.form['username']}"
            return "invalid", 401
        return f"search for {request.args.get('key', '')}, page {request.args.get('page', 1, type=int)}"

    client = through(app)
    assert client.get("/login?key=a+b&page=x").text == "search for a b, page 1"
    assert (
        client.post("/login", data={"username": "admin", "password": "default"}).text == "logged in as admin"
    )
    assert client.post("/login", data={"username": "x", "password": "y"}).status == "401 UNAUTHORIZED"
    assert client.post("/login", data={"username": "admin"}).status_code == 400
    assert client.post("/login", data={}).status_code == 400


def multipart(name, filename, content):
    body = (
        f'--limit\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        f"Content-Type: text/plain\r\n\r\n{content}\r\n--limit--\r\n"
    )
    return {"data": body, "headers": {"Content-Type": "multipart/form-data; boundary=limit"}}


def test_uploading_files(through, tmp_path):
    app = Flask(__name__)
    app.config["UPLOAD_FOLDER"] = str(tmp_path)
    app.config["MAX_CONTENT_LENGTH"] = 1000
    allowed = {"txt", "pdf"}

    def allowed_file(filename):
        return "." in filename and filename.rsplit(".", 1)[1].lower() in allowed

    @app.route("/", methods=["GET", "POST"])
    def upload_file():
        if "file" not in request.files or request.files["file"].filename == "":
            return "no file", 400
        file = request.files["file"]
        if not allowed_file(file.filename):
            return "not this kind", 415
        filename = secure_filename(file.filename)
        file.save(os.path.join(app.config["UPLOAD_FOLDER"], filename))
        return redirect(url_for("download_file", name=filename))

    @app.route("/uploads/<name>")
    def download_file(name):
        return send_from_directory(app.config["UPLOAD_FOLDER"], name)

    client = through(app)
    moved = client.post("/", **multipart("file", "../../my notes.txt", "hello"))
    assert (moved.status_code, moved.header("Location")) == (302, "/uploads/my_notes.txt")
    assert client.get("/uploads/my_notes.txt").text == "hello"
    assert client.get("/uploads/%2e%2e/secret").status_code == 404
    assert client.post("/", **multipart("file", "a.exe", "x")).status_code == 415
    assert client.post("/", **multipart("other", "a.txt", "x")).status_code == 400
    assert client.post("/", **multipart("file", "a.txt", "x" * 2000)).status_code == 413


def test_cookies(through):
    app = Flask(__name__)

    @app.route("/")
    def index():
        resp = make_response(f"was {request.cookies.get('username')}")
        resp.set_cookie("username", "the username", max_age=60, httponly=True, samesite="Lax")
        return resp

    client = through(app)
    first = client.get("/")
    assert first.text == "was None"
    cookie = first.header("Set-Cookie")
    assert cookie.startswith('username="the username"; Expires=')
    assert cookie.endswith("Max-Age=60; HttpOnly; Path=/; SameSite=Lax")
    assert client.get("/").text == "was the username"


def test_redirects_and_errors(through):
    app = Flask(__name__)

    @app.route("/")
    def index():
        return redirect(url_for("login"))

    @app.route("/login")
    def login():
        abort(401)

    @app.errorhandler(404)
    def page_not_found(error):
        return f"nothing at {request.path}", 404

    client = through(app)
    assert (client.get("/").status_code, client.get("/").header("Location")) == (302, "/login")
    assert client.get("/login").status == "401 UNAUTHORIZED"
    missing = client.get("/nowhere")
    assert (missing.status_code, missing.text) == (404, "nothing at /nowhere")


def test_about_responses(through):
    app = Flask(__name__)

    @app.route("/tuple")
    def of_a_tuple():
        return "made", 201, {"X-Parachutes": "parachutes are cool"}

    @app.route("/made")
    def made():
        response = make_response("error", 404)
        response.headers["X-Something"] = "A value"
        return response

    @app.route("/class")
    def of_a_class():
        return Response("a,b\n", mimetype="text/csv")

    @app.route("/nothing")
    def nothing():
        return None

    client = through(app)
    first = client.get("/tuple")
    assert (first.status_code, first.header("X-Parachutes")) == (201, "parachutes are cool")
    assert client.get("/made").header("X-Something") == "A value"
    assert client.get("/class").header("Content-Type") == "text/csv; charset=utf-8"
    assert client.get("/nothing").status_code == 500


def test_apis_with_json(through):
    app = Flask(__name__)
    users = [{"username": "ada", "theme": None, "born": datetime(1815, 12, 10, tzinfo=timezone.utc)}]

    @app.route("/me")
    def me_api():
        return users[0]

    @app.route("/users")
    def users_api():
        return users

    @app.post("/add")
    def add():
        numbers = request.get_json()
        return jsonify(sum=numbers["a"] + numbers["b"])

    client = through(app)
    assert client.get("/me").data == (
        b'{"born":"Sun, 10 Dec 1815 00:00:00 GMT","theme":null,"username":"ada"}\n'
    )
    assert [user["username"] for user in client.get("/users").json] == ["ada"]
    assert client.post("/add", json={"a": 1, "b": 2}).json == {"sum": 3}
    assert client.post("/add", data="{", headers={"Content-Type": "application/json"}).status_code == 400
    assert client.post("/add", data="a=1").status_code == 415


def test_sessions(through):
    app = Flask(__name__)
    app.secret_key = b'_5#y2L"F4Q8z\n\xec]/'
    app.permanent_session_lifetime = timedelta(days=5)

    @app.route("/")
    def index():
        if "username" in session:
            return f"Logged in as {session['username']}"
        return "You are not logged in"

    @app.route("/login", methods=["POST"])
    def login():
        session.permanent = True
        session["username"] = request.form["username"]
        return redirect(url_for("index"))

    @app.route("/logout")
    def logout():
        session.pop("username", None)
        return redirect(url_for("index"))

    client = through(app)
    assert client.get("/").text == "You are not logged in"
    logged_in = client.post("/login", data={"username": "ada"})
    assert "Expires=" in logged_in.header("Set-Cookie")
    assert client.get("/").text == "Logged in as ada"
    client.get("/logout")
    assert client.get("/").text == "You are not logged in"


def test_message_flashing(through):
    app = Flask(__name__)
    app.secret_key = "x"

    @app.route("/")
    def index():
        return render_template_string(
            "{% for category, message in get_flashed_messages(with_categories=true) %}"
            "<li class={{ category }}>{{ message }}{% endfor %}"
        )

    @app.route("/login", methods=["POST"])
    def login():
        flash("You were successfully logged in")
        flash("Invalid <password>", "error")
        return redirect(url_for("index"))

    @app.route("/errors")
    def errors():
        return str(get_flashed_messages(category_filter=["error"]))

    client = through(app)
    client.post("/login")
    assert client.get("/").text == (
        "<li class=message>You were successfully logged in<li class=error>Invalid &lt;password&gt;"
    )
    assert client.get("/").text == ""
    client.post("/login")
    assert client.get("/errors").text == "['Invalid <password>']"


def test_logging(through, caplog):
    app = Flask("a_test_of_logging")

    @app.route("/")
    def index():
        app.logger.warning("A warning occurred (%d apples)", 42)
        return "logged"

    with caplog.at_level("WARNING", "a_test_of_logging"):
        assert through(app).get("/").text == "logged"
    assert "A warning occurred (42 apples)" in caplog.text


# Configuration, factories, blueprints


def test_configuration(tmp_path, monkeypatch):
    app = Flask(__name__)

    class Base:
        TESTING = False
        DB_SERVER = "192.168.1.56"

        @property
        def DATABASE_URI(self):
            return f"mysql://user@{self.DB_SERVER}/foo"

    class Testing(Base):
        DB_SERVER = "localhost"
        TESTING = True

    app.config.from_object(Testing())
    assert (app.config["DATABASE_URI"], app.testing) == ("mysql://user@localhost/foo", True)

    (tmp_path / "settings.cfg").write_text("SECRET_KEY = 'from the file'\nDEPTH = 3\nlower = 1\n")
    monkeypatch.setenv("YOURAPPLICATION_SETTINGS", str(tmp_path / "settings.cfg"))
    app.config.from_envvar("YOURAPPLICATION_SETTINGS")
    assert (app.secret_key, app.config["DEPTH"], "lower" in app.config) == ("from the file", 3, False)

    (tmp_path / "config.json").write_text('{"FROM_JSON": [1, 2]}')
    import json

    app.config.from_file(tmp_path / "config.json", load=json.load)
    monkeypatch.setenv("FLASK_MAIL_ENABLED", "true")
    monkeypatch.setenv("FLASK_IMAGE__WIDTH", "64")
    app.config.from_prefixed_env()
    app.config.from_mapping(IMAGE_STORE_TYPE="fs", IMAGE_STORE_PATH="/var/app/images")
    assert app.config["FROM_JSON"] == [1, 2]
    assert (app.config["MAIL_ENABLED"], app.config["IMAGE"]) == (True, {"WIDTH": 64})
    assert app.config.get_namespace("IMAGE_STORE_") == {"type": "fs", "path": "/var/app/images"}


def test_an_application_factory_with_an_extension(through):
    class Counter:
        def __init__(self, app=None):
            if app is not None:
                self.init_app(app)

        def init_app(self, app):
            app.extensions["counter"] = self
            app.config.setdefault("COUNTER_START", 0)
            app.teardown_appcontext(self.close)

        def close(self, error):
            g.pop("count", None)

        @property
        def count(self):
            if "count" not in g:
                g.count = current_app.config["COUNTER_START"]
            g.count += 1
            return g.count

    counter = Counter()

    def create_app(config=None):
        app = Flask(__name__, instance_relative_config=True)
        app.config.from_mapping(SECRET_KEY="dev", COUNTER_START=5)
        if config is not None:
            app.config.update(config)
        counter.init_app(app)

        @app.route("/")
        def index():
            return f"{counter.count} {counter.count}"

        return app

    client = through(create_app({"TESTING": True, "COUNTER_START": 10}))
    assert [client.get("/").text for _ in range(2)] == ["11 12", "11 12"]


def test_blueprints(through, tmp_path):
    write(tmp_path, blue__templates__show="page {{ page }} at {{ url_for('.show', page='b') }}")
    (tmp_path / "blue" / "static").mkdir()
    (tmp_path / "blue" / "static" / "style.css").write_text("i {}")
    simple_page = Blueprint(
        "simple_page",
        __name__,
        root_path=str(tmp_path / "blue"),
        template_folder="templates",
        static_folder="static",
    )

    @simple_page.route("/", defaults={"page": "index"})
    @simple_page.route("/<page>")
    def show(page):
        if page == "missing":
            abort(404)
        return render_template("show.html", page=page)

    @simple_page.errorhandler(404)
    def page_not_found(error):
        return "no such page", 404

    @simple_page.before_app_request
    def note():
        g.noted = request.blueprint

    app = Flask(__name__)
    app.register_blueprint(simple_page, url_prefix="/pages")

    @app.route("/")
    def index():
        return str(g.noted)

    client = through(app)
    assert client.get("/pages/").text == "page index at /pages/b"
    assert client.get("/pages/a").text == "page a at /pages/b"
    assert client.get("/pages/missing").text == "no such page"
    assert client.get("/pages/static/style.css").text == "i {}"
    assert client.get("/").text == "None"


def test_nested_blueprints(through):
    parent = Blueprint("parent", __name__, url_prefix="/parent")
    child = Blueprint("child", __name__, url_prefix="/child")

    @child.route("/create")
    def create():
        return f"{request.endpoint} {url_for('.create')} {' '.join(request.blueprints)}"

    parent.register_blueprint(child)
    app = Flask(__name__)
    app.register_blueprint(parent)
    app.register_blueprint(parent, name="other", url_prefix="/other")
    client = through(app)
    assert client.get("/parent/child/create").text == (
        "parent.child.create /parent/child/create parent.child parent"
    )
    assert (
        client.get("/other/child/create").text == "other.child.create /other/child/create other.child other"
    )


# Views


def login_required(view):
    @wraps(view)
    def decorated(*args, **kwargs):
        if g.user is None:
            return redirect(url_for("login", next=request.url))
        return view(*args, **kwargs)

    return decorated


def test_view_decorators(through):
    app = Flask(__name__)

    def templated(text):
        def decorator(view):
            @wraps(view)
            def decorated(*args, **kwargs):
                return render_template_string(text, **(view(*args, **kwargs) or {}))

            return decorated

        return decorator

    cache = {}

    def cached(view):
        @wraps(view)
        def decorated(*args, **kwargs):
            key = f"view/{request.path}"
            if key not in cache:
                cache[key] = view(*args, **kwargs)
            return cache[key]

        return decorated

    @app.before_request
    def load_user():
        g.user = request.headers.get("X-User")

    @app.route("/login")
    def login():
        return "log in"

    @app.route("/secret_page")
    @login_required
    @templated("for {{ name }}")
    def secret_page():
        return {"name": g.user}

    @app.route("/cached")
    @cached
    def expensive():
        return str(len(cache))

    client = through(app)
    moved = client.get("/secret_page")
    assert moved.header("Location") == "/login?next=http://localhost/secret_page"
    assert client.get("/secret_page", headers={"X-User": "ada"}).text == "for ada"
    assert [client.get("/cached").text for _ in range(2)] == ["0", "0"]


def test_class_based_views(through):
    class ListView(View):
        init_every_request = False
        methods = ["GET", "POST"]

        def __init__(self, items, text):
            self.items = items
            self.text = text

        def dispatch_request(self):
            if request.method == "POST":
                self.items.append(request.form["item"])
            return render_template_string(self.text, items=self.items)

    app = Flask(__name__)
    app.add_url_rule("/users/", view_func=ListView.as_view("user_list", ["ada"], "{{ items|join(',') }}"))
    client = through(app)
    assert client.get("/users/").text == "ada"
    assert client.post("/users/", data={"item": "bob"}).text == "ada,bob"


def test_a_rest_api_of_method_views(through):
    store = {1: {"name": "ada"}}

    class ItemAPI(MethodView):
        init_every_request = False

        def __init__(self, items):
            self.items = items

        def _item(self, id):
            return self.items.get(id) or abort(404, f"no item {id}")

        def get(self, id):
            return jsonify(self._item(id))

        def patch(self, id):
            self._item(id).update(request.json)
            return jsonify(self._item(id))

        def delete(self, id):
            del self.items[id]
            return "", 204

    class GroupAPI(MethodView):
        def __init__(self, items):
            self.items = items

        def get(self):
            return jsonify(list(self.items.values()))

        def post(self):
            self.items[max(self.items, default=0) + 1] = request.json
            return jsonify(request.json), 201

    app = Flask(__name__)
    app.add_url_rule("/users/<int:id>", view_func=ItemAPI.as_view("user-item", store))
    app.add_url_rule("/users/", view_func=GroupAPI.as_view("user-group", store))

    @app.errorhandler(HTTPException)
    def as_json(error):
        return {"code": error.code, "description": error.description}, error.code

    client = through(app)
    assert client.get("/users/1").json == {"name": "ada"}
    assert client.get("/users/2").json == {"code": 404, "description": "no item 2"}
    assert client.post("/users/", json={"name": "bob"}).status_code == 201
    assert client.open("/users/2", "PATCH", json={"age": 3}).json == {"name": "bob", "age": 3}
    gone = client.open("/users/1", "DELETE")
    assert (gone.status_code, gone.data) == (204, b"")
    assert client.get("/users/").json == [{"name": "bob", "age": 3}]
    assert client.open("/users/", "PUT").status_code == 405


def test_lazily_loaded_views(through, tmp_path, monkeypatch):
    (tmp_path / "lazy_views.py").write_text(
        "def index():\n    return 'index'\n\ndef user(name):\n    return name\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lazy_views", raising=False)

    class LazyView:
        def __init__(self, import_name):
            self.__module__, self.__name__ = import_name.rsplit(".", 1)
            self.import_name = import_name

        @cached_property
        def view(self):
            return import_string(self.import_name)

        def __call__(self, *args, **kwargs):
            return self.view(*args, **kwargs)

    app = Flask(__name__)
    app.add_url_rule("/", view_func=LazyView("lazy_views.index"))
    app.add_url_rule("/user/<name>", view_func=LazyView("lazy_views.user"))
    client = through(app)
    assert "lazy_views" not in sys.modules
    assert client.get("/").text == "index"
    assert client.get("/user/ada").text == "ada"


def test_async_views(through):
    app = Flask(__name__)

    @app.before_request
    async def before():
        g.word = "hello"

    @app.route("/get-data")
    async def get_data():
        import asyncio

        await asyncio.sleep(0)
        return {"word": g.word, "path": request.path}

    assert through(app).get("/get-data").json == {"word": "hello", "path": "/get-data"}
