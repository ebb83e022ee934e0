"""Blueprints: what their rules, hooks and handlers become on the app."""

from __future__ import annotations

import pytest

import hipflask
from hipflask import Blueprint, Flask, abort, g, render_template_string, request, url_for
from hipflask.sansio.blueprints import BlueprintSetupState

ENDPOINT = "{{ request.endpoint }}|{{ request.blueprint }}|{{ request.blueprints|join(',') }}"


def show():
    return f"{request.endpoint}|{request.blueprint}|{','.join(request.blueprints)}"


@pytest.mark.parametrize(
    ("own", "given", "rule", "path"),
    [
        (None, None, "/x", "/x"),
        ("/pre", None, "/x", "/pre/x"),
        ("/pre/", None, "/x", "/pre/x"),
        ("/pre", "/other", "/x", "/other/x"),
        (None, "/other", "x", "/other/x"),
        ("/pre", None, "", "/pre"),
        ("/pre", None, "/", "/pre/"),
        ("/<lang>", None, "/x", "/en/x"),
    ],
)
def test_a_rule_is_joined_to_the_prefix(app, client, own, given, rule, path):
    blueprint = Blueprint("bp", __name__, url_prefix=own)

    @blueprint.route(rule)
    def view(**values):
        return show()

    app.register_blueprint(blueprint, **({} if given is None else {"url_prefix": given}))
    assert client.get(path).text == "bp.view|bp|bp"


def test_nested_blueprints_join_names_and_prefixes(app, client):
    inner = Blueprint("inner", __name__, url_prefix="/inner")
    middle = Blueprint("middle", __name__)
    outer = Blueprint("outer", __name__, url_prefix="/outer")
    inner.add_url_rule("/x", "x", show)
    middle.add_url_rule("/x", "x", show)
    middle.register_blueprint(inner)
    middle.register_blueprint(inner, name="again", url_prefix="/again")
    outer.register_blueprint(middle, url_prefix="/middle")
    app.register_blueprint(outer)
    assert client.get("/outer/middle/x").text == "outer.middle.x|outer.middle|outer.middle,outer"
    assert client.get("/outer/middle/inner/x").text == (
        "outer.middle.inner.x|outer.middle.inner|outer.middle.inner,outer.middle,outer"
    )
    assert client.get("/outer/middle/again/x").text.startswith("outer.middle.again.x|")
    assert list(app.blueprints) == ["outer", "outer.middle", "outer.middle.inner", "outer.middle.again"]
    assert list(app.iter_blueprints()) == [outer, middle, inner, inner]


@pytest.mark.parametrize(
    ("outer", "inner", "given", "host"),
    [
        ("api", None, None, "api.example.com"),
        (None, "v1", None, "v1.example.com"),
        ("api", "v1", None, "v1.api.example.com"),
        ("api", "v1", "v2", "v2.api.example.com"),
    ],
)
def test_nested_blueprints_join_subdomains(outer, inner, given, host):
    app = Flask("subdomains", subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.com"
    child = Blueprint("child", __name__, subdomain=inner)
    child.add_url_rule("/x", "x", show)
    parent = Blueprint("parent", __name__, subdomain=outer)
    parent.register_blueprint(child, **({"subdomain": given} if given else {}))
    app.register_blueprint(parent)
    with app.app_context():
        assert url_for("parent.child.x") == f"http://{host}/x"
    answer = app.test_client().get("/x", base_url=f"http://{host}")
    assert answer.text == "parent.child.x|parent.child|parent.child,parent"


def test_hooks_run_from_the_app_inwards_and_back(app, client):
    order = []
    outer, inner = Blueprint("outer", __name__), Blueprint("inner", __name__)
    for name, scaffold in (("app", app), ("outer", outer), ("inner", inner)):
        scaffold.url_value_preprocessor(lambda endpoint, values, name=name: order.append(f"values {name}"))
        scaffold.before_request(lambda name=name: order.append(f"before {name}"))
        scaffold.after_request(lambda response, name=name: order.append(f"after {name}") or response)
        scaffold.teardown_request(lambda exc, name=name: order.append(f"teardown {name}"))
    inner.before_app_request(lambda: order.append("before app_request"))
    inner.after_app_request(lambda response: order.append("after app_request") or response)
    inner.teardown_app_request(lambda exc: order.append("teardown app_request"))

    @inner.route("/")
    def view():
        order.append("view")
        return ""

    app.add_url_rule("/other", view_func=lambda: "", endpoint="other")
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    client.get("/")
    assert order == [
        "values app", "values outer", "values inner",
        "before app", "before app_request", "before outer", "before inner",
        "view",
        "after inner", "after outer", "after app_request", "after app",
        "teardown inner", "teardown outer", "teardown app_request", "teardown app",
    ]  # fmt: skip
    order.clear()
    client.get("/other")
    assert order == [
        "values app", "before app", "before app_request", "after app_request", "after app",
        "teardown app_request", "teardown app",
    ]  # fmt: skip


def test_error_handlers_of_the_innermost_blueprint_win(app, client):
    outer, inner = Blueprint("outer", __name__), Blueprint("inner", __name__)
    app.register_error_handler(403, lambda e: "app 403")
    outer.register_error_handler(403, lambda e: "outer 403")
    outer.register_error_handler(ZeroDivisionError, lambda e: "outer division")
    inner.app_errorhandler(404)(lambda e: "app 404 by inner")
    inner.register_error_handler(ValueError, lambda e: "inner value")

    def fail():
        raise {"403": lambda: abort(403), "zero": ZeroDivisionError, "value": UnicodeError}[
            request.args["how"]
        ]()

    for scaffold in (app, outer, inner):
        scaffold.add_url_rule(f"/{getattr(scaffold, 'name', '')}", endpoint="fail", view_func=fail)
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    assert client.get("/test_app?how=403").text == "app 403"
    assert client.get("/outer?how=403").text == "outer 403"
    assert client.get("/inner?how=403").text == "outer 403"
    assert client.get("/inner?how=zero").text == "outer division"
    assert client.get("/inner?how=value").text == "inner value"
    assert client.get("/nowhere").text == "app 404 by inner"
    assert client.get("/outer?how=value").status_code == 500


def test_templates_get_filters_tests_globals_and_context(app, client):
    blueprint = Blueprint("bp", __name__)
    blueprint.app_template_filter()(lambda s: s).__name__ = "same"

    @blueprint.app_template_filter("loud")
    def loud(text):
        return text.upper()

    @blueprint.app_template_test("short")
    def short(text):
        return len(text) < 3

    @blueprint.app_template_global()
    def answer():
        return 42

    blueprint.context_processor(lambda: {"where": "blueprint"})
    blueprint.app_context_processor(lambda: {"where": "app", "who": "all"})

    @blueprint.route("/bp")
    @app.route("/app")
    def view():
        return render_template_string(
            "{{ 'a'|loud }} {{ 'abc' is short }} {{ answer() }} {{ where }} {{ who }}"
        )

    app.register_blueprint(blueprint)
    assert client.get("/bp").text == "A False 42 blueprint all"
    assert client.get("/app").text == "A False 42 app all"


def test_url_defaults_and_values_of_a_blueprint(app, client):
    blueprint = Blueprint("bp", __name__, url_prefix="/<lang>", url_defaults={"size": 1})

    @blueprint.url_defaults
    def add_language(endpoint, values):
        values.setdefault("lang", g.lang)

    @blueprint.url_value_preprocessor
    def take_language(endpoint, values):
        g.lang = values.pop("lang")

    @blueprint.route("/a")
    def a(size):
        return f"{g.lang} {size} {url_for('.a')} {url_for('bp.b', page=3)}"

    @blueprint.route("/b/<int:page>", defaults={"extra": 2})
    def b(page, size, extra):
        return f"{page} {size} {extra}"

    app.register_blueprint(blueprint)
    assert client.get("/de/a").text == "de 1 /de/a /de/b/3"
    assert client.get("/de/b/7").text == "7 1 2"


def test_a_dot_means_the_current_blueprint(app, client):
    blueprint = Blueprint("bp", __name__, url_prefix="/bp")
    blueprint.add_url_rule("/x", "x", lambda: url_for(".x") + " " + url_for("bp.x"))
    app.add_url_rule("/x", "x", lambda: url_for(".x") + " " + url_for("x"))
    app.register_blueprint(blueprint)
    assert client.get("/bp/x").text == "/bp/x /bp/x"
    assert client.get("/x").text == "/x /x"


def test_registering_twice_needs_another_name(app):
    blueprint = Blueprint("bp", __name__)
    runs = []
    blueprint.record(lambda state: runs.append(state.name))
    blueprint.record_once(lambda state: runs.append("once"))
    app.register_blueprint(blueprint)
    with pytest.raises(ValueError, match="'bp' is already registered for this blueprint"):
        app.register_blueprint(blueprint)
    with pytest.raises(ValueError, match="already registered for a different blueprint"):
        app.register_blueprint(Blueprint("bp", __name__))
    app.register_blueprint(blueprint, name="bp2")
    assert runs == ["bp", "once", "bp2"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Blueprint("", __name__), ValueError, "may not be empty"),
        (lambda: Blueprint("a.b", __name__), ValueError, "may not contain a dot"),
        (
            lambda: Blueprint("a", __name__).add_url_rule("/", endpoint="a.b"),
            ValueError,
            "'endpoint' may not",
        ),
        (lambda: Blueprint("a", __name__).route("/", methods="POST"), None, ""),
        (lambda: Blueprint("a", __name__).get("/", methods=["POST"]), TypeError, "Use the 'route' decorator"),
    ],
)
def test_mistakes_are_told(call, error, message):
    if error is None:
        call()
        return
    with pytest.raises(error, match=message):
        call()


def test_a_view_function_with_a_dotted_name_is_refused():
    def view():
        return ""

    view.__name__ = "a.b"
    with pytest.raises(ValueError, match="'view_func' name may not contain a dot"):
        Blueprint("a", __name__).add_url_rule("/", view_func=view)


def test_a_blueprint_cannot_contain_itself():
    blueprint = Blueprint("a", __name__)
    with pytest.raises(ValueError, match="on itself"):
        blueprint.register_blueprint(blueprint)


SETUP = [
    lambda bp: bp.route("/late"),
    lambda bp: bp.before_request(print),
    lambda bp: bp.record(print),
    lambda bp: bp.register_blueprint(Blueprint("late", __name__)),
    lambda bp: bp.app_errorhandler(404),
]


@pytest.mark.parametrize("setup", SETUP)
def test_set_up_after_the_registration_is_refused(app, setup):
    blueprint = Blueprint("bp", __name__)
    app.register_blueprint(blueprint)
    with pytest.raises(AssertionError, match="can no longer be called on the blueprint 'bp'"):
        setup(blueprint)


def test_static_files_and_resources(app, client, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("static ä", "utf-8")
    blueprint = Blueprint("bp", __name__, root_path=str(tmp_path), static_folder="files", url_prefix="/bp")
    app.register_blueprint(blueprint)
    answer = client.get("/bp/files/a.txt")
    assert answer.text == "static ä"
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    assert client.get("/bp/files/b.txt").status_code == 404
    with app.test_request_context():
        assert url_for("bp.static", filename="a.txt") == "/bp/files/a.txt"
    with blueprint.open_resource("files/a.txt") as file:
        assert file.read() == "static ä".encode()
    with blueprint.open_resource("files/a.txt", "r") as file:
        assert file.read() == "static ä"
    with pytest.raises(ValueError, match="only be opened for reading"):
        blueprint.open_resource("files/a.txt", "w")
    with pytest.raises(RuntimeError, match="'static_folder' must be set"):
        Blueprint("none", __name__).send_static_file("x")


def test_a_setup_state_of_another_class(app):
    class State(BlueprintSetupState):
        pass

    class Custom(Blueprint):
        def make_setup_state(self, app, options, first_registration=False):
            return State(self, app, options, first_registration)

    states = []
    blueprint = Custom("bp", __name__)
    blueprint.record(states.append)
    app.register_blueprint(blueprint, url_defaults={"a": 1})
    (state,) = states
    assert isinstance(state, State)
    assert (state.app, state.blueprint, state.first_registration) == (app, blueprint, True)
    assert state.url_defaults == {"a": 1}


@pytest.mark.parametrize(("group", "commands"), [(..., ["bp"]), (None, ["hello"]), ("other", ["other"])])
def test_commands_of_a_blueprint(app, group, commands):
    blueprint = Blueprint("bp", __name__, **({} if group is ... else {"cli_group": group}))

    @blueprint.cli.command("hello")
    def hello():
        print("hello")

    app.register_blueprint(blueprint)
    assert list(app.cli.commands) == commands
    line = ["hello"] if group is None else [*commands, "hello"]
    assert app.test_cli_runner().invoke(args=line).output == "hello\n"


def test_blueprints_do_not_make_a_command_group_for_nothing(app):
    app.register_blueprint(Blueprint("bp", __name__))
    assert "cli" not in app.__dict__


def test_the_public_class_is_the_one_that_the_module_has():
    assert hipflask.Blueprint is hipflask.blueprints.Blueprint
    assert repr(Blueprint("bp", __name__)) == "<Blueprint 'bp'>"
