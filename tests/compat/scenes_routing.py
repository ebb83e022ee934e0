"""Scenes of routing: converters, slashes, redirects, methods, hosts, building."""

from __future__ import annotations

from typing import Any

from stage import Kit, ask, scene


def told(kit: Kit) -> Any:
    """A view that says what it was called with."""

    def view(**values: Any) -> str:
        request = kit.flask.request
        return f"{request.endpoint} {sorted(values.items())!r} {request.path!r} {request.url_rule}"

    return view


def rules(kit: Kit, *texts: str, **options: Any) -> Any:
    app = kit.app()
    for number, text in enumerate(texts):
        app.add_url_rule(text, f"r{number}", told(kit), **options)
    return app


@scene(
    "/",
    "/a",
    "/a/",
    "/b",
    "/b/",
    "/b?q=1&r=%20",
    "//a",
    "/a//",
    "/%61",
    "/a%2Fb",
    "/a;b",
    "/a+b",
    "/A",
    "/a%20b",
    "/%C3%A9",
    "/é".encode().decode("latin1"),
    "/%FF",
    "/a%00b",
    "/.",
    "/..",
    "/a/../b",
    "/a/.",
    "/a?",
    "/a?=&&",
    "/x",
    "/x%2F",
    "HEAD /a",
    "OPTIONS /a",
    "POST /a",
    "PUT /b/",
    "HEAD /x",
    "OPTIONS /x",
    "POST /b",
    "OPTIONS /b",
    "TRACE /a",
    "PROPFIND /a",
    "PATCH /a",
    "DELETE /a",
)
def static_paths(kit: Kit) -> Any:
    return rules(kit, "/", "/a", "/b/", "/a;b", "/a+b", "/a b", "/é", "/a%b")


@scene(
    "/i/5",
    "/i/05",
    "/i/-5",
    "/i/+5",
    "/i/5.0",
    "/i/99999999999999999999999",
    "/i/%35",
    "/i/٥".encode().decode("latin1"),
    "/i/",
    "/i/a",
    "/i/5/",
    "/ii/5",
    "/ii/-5",
    "/ii/11",
    "/ii/3",
    "/if/005",
    "/if/05",
    "/f/1.5",
    "/f/-1.5",
    "/f/1",
    "/f/.5",
    "/f/1.",
    "/f/1e5",
    "/f/1.50000000000000000001",
    "/fs/-1.5",
    "/s/abc",
    "/s/a%2Fb",
    "/s/",
    "/s/a b".replace(" ", "%20"),
    "/s/%E2%82%AC",
    "/s/%F0%9F%90%8D",
    "/sl/ab",
    "/sl/abc",
    "/sl/a",
    "/sm/abcd",
    "/p/a/b/c",
    "/p/a//b",
    "/p//a",
    "/p/",
    "/p/a/",
    "/p/a%2Fb",
    "/any/one",
    "/any/two",
    "/any/three",
    "/u/12345678-1234-5678-1234-567812345678",
    "/u/12345678123456781234567812345678",
    "/u/12345678-1234-5678-1234-56781234567G",
    "/u/12345678-1234-5678-1234-567812345678/",
    "/two/a-b",
    "/two/a-b-c",
    "/two/ab",
    "/mid/a/x/b",
    "/mid/x/x/x",
    "/v/1.2.tar",
    "/v/a.b",
)
def converters(kit: Kit) -> Any:
    return rules(
        kit,
        "/i/<int:x>",
        "/ii/<int(signed=True, max=10):x>",
        "/if/<int(fixed_digits=3):x>",
        "/f/<float:x>",
        "/fs/<float(signed=True):x>",
        "/s/<x>",
        "/sl/<string(length=2):x>",
        "/sm/<string(minlength=3, maxlength=4):x>",
        "/p/<path:x>",
        "/any/<any(one, two):x>",
        "/u/<uuid:x>",
        "/two/<a>-<b>",
        "/mid/<path:a>/x/<path:b>",
        "/v/<int:a>.<int:b>.<ext>",
    )


@scene("/c/5", "/c/x", "/c/", "/list/a+b+c", "/list/", "/deny/x", "/build")
def own_converters(kit: Kit) -> Any:
    routing = kit.module("werkzeug.routing")

    class Hex(routing.BaseConverter):
        regex = "[0-9a-f]+"

        def to_python(self, value: str) -> int:
            return int(value, 16)

        def to_url(self, value: int) -> str:
            return f"{value:x}"

    class Words(routing.BaseConverter):
        part_isolating = False
        regex = ".*"

        def to_python(self, value: str) -> list[str]:
            return value.split("+")

        def to_url(self, value: list[str]) -> str:
            return "+".join(value)

    class Denying(routing.BaseConverter):
        def to_python(self, value: str) -> str:
            raise routing.ValidationError

    app = kit.app()
    app.url_map.converters.update(hex=Hex, words=Words, denying=Denying)
    app.add_url_rule("/c/<hex:x>", "c", told(kit))
    app.add_url_rule("/list/<words:x>", "list", told(kit))
    app.add_url_rule("/deny/<denying:x>", "deny", told(kit))
    app.add_url_rule("/deny/<x>", "allowed", told(kit))
    app.add_url_rule(
        "/build", "build", lambda: kit.flask.url_for("c", x=255) + kit.flask.url_for("list", x=["a", "b"])
    )
    return app


@scene(
    "/a",
    "/a/",
    "/a//b",
    "//a",
    "/b",
    "/b/",
    "/q/1?a=1",
    "/q//1?a=%C3%A9",
    "/p/a//b",
    "POST /q//1",
    "/b?x=%26",
)
def merged_slashes(kit: Kit) -> Any:
    return rules(kit, "/a", "/a/b", "/b/", "/q/<int:x>", "/p/<path:x>")


@scene("/a", "/a/", "//a", "/a//b", "/b/", "/b", "/c", "/c/")
def without_strict_or_merged_slashes(kit: Kit) -> Any:
    app = kit.app()
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    for number, text in enumerate(["/a", "/b/", "/a/b"]):
        app.add_url_rule(text, f"r{number}", told(kit))
    app.add_url_rule("/c", "c", told(kit), strict_slashes=True)
    return app


@scene("/", "/1", "/2", "/all", "/all/", "/all/page/1", "/all/page/2", "/all/page/1?x=1")
def defaults_redirect(kit: Kit) -> Any:
    app = kit.app()
    view = told(kit)
    app.add_url_rule("/", "n", view, defaults={"page": 1})
    app.add_url_rule("/<int:page>", "n", view)
    app.add_url_rule("/all/", "all", view, defaults={"page": 1})
    app.add_url_rule("/all/page/<int:page>", "all", view)
    return app


@scene("/old/5", "/older/5?x=1", "/call/5", "/new/5", "/alias/5", "/only/5")
def redirect_to_and_alias(kit: Kit) -> Any:
    app = kit.app()
    view = told(kit)
    app.add_url_rule("/new/<int:x>", "new", view)
    app.add_url_rule("/old/<int:x>", "old", told(kit), redirect_to="/new/<x>")
    app.add_url_rule("/older/<int:x>", "older", told(kit), redirect_to="new/<x>")
    app.add_url_rule("/call/<int:x>", "call", told(kit), redirect_to=lambda adapter, x: f"/new/{x + 1}")
    app.add_url_rule("/alias/<int:x>", "new", view, alias=True)
    app.add_url_rule("/only/<int:x>", "only", told(kit), build_only=True)
    return app


@scene(
    "GET /a",
    "POST /a",
    "PUT /a",
    "HEAD /a",
    "OPTIONS /a",
    "GET /p",
    "POST /p",
    "HEAD /p",
    "OPTIONS /p",
    "OPTIONS /own",
    "GET /own",
    "OPTIONS /never",
    "GET /never",
    "OPTIONS /none",
    "FETCH /custom",
    "GET /custom",
    "OPTIONS /two",
    "PUT /two",
    "GET /two",
    "DELETE /two",
    "get /a",
    "OPTIONS *",
)
def methods(kit: Kit) -> Any:
    app = kit.app()
    app.add_url_rule("/a", "a", told(kit), methods=["GET", "POST"])
    app.add_url_rule("/p", "p", told(kit), methods=["post"])
    app.add_url_rule("/own", "own", lambda: f"own {kit.flask.request.method}", methods=["GET", "OPTIONS"])
    app.add_url_rule("/never", "never", told(kit), provide_automatic_options=False)
    app.add_url_rule("/custom", "custom", told(kit), methods=["FETCH"])
    app.get("/two")(lambda: "got")
    app.put("/two", endpoint="put")(lambda: "put")
    return app


@scene("/a/b", "/a/c", "/a/1", "/a/1/c", "/a/x/c", "/a/1.5", "/a/b/c/d", "/A/b")
def priorities(kit: Kit) -> Any:
    return rules(
        kit,
        "/<path:rest>",
        "/a/<x>",
        "/a/<int:x>",
        "/a/b",
        "/a/<float:x>",
        "/a/<x>/c",
        "/<any(a, b):first>/<x>",
    )


HOSTS = [
    "localhost",
    "example.com",
    "api.example.com",
    "x.users.example.com",
    "other.org",
    "example.com:8080",
    "EXAMPLE.com",
]


@scene(
    *(ask(path, host=host) for host in HOSTS for path in ("/", "/a", "/u")),
    ask("/slash", host="api.example.com"),
    ask("/links", host="api.example.com"),
    ask("/links", host="example.com"),
    each=[True, False],
)
def subdomains(kit: Kit, matching: bool) -> Any:
    app = kit.app(subdomain_matching=matching)
    app.config["SERVER_NAME"] = "example.com"
    app.add_url_rule("/", "main", told(kit))
    app.add_url_rule("/a", "api", told(kit), subdomain="api")
    app.add_url_rule("/u", "user", told(kit), subdomain="<user>.users")
    app.add_url_rule("/slash/", "slash", told(kit), subdomain="api")

    def links() -> str:
        url_for = kit.flask.url_for
        return " ".join(
            [url_for("main"), url_for("api"), url_for("user", user="x"), url_for("main", _external=True)]
        )

    app.add_url_rule("/links", "links", links)
    app.add_url_rule("/links", "api_links", links, subdomain="api")
    api = kit.flask.Blueprint("api_bp", kit.name, subdomain="api")
    api.add_url_rule("/u", "in_bp", told(kit))
    app.register_blueprint(api)
    return app


@scene(
    *(
        ask(path, host=host)
        for host in ("a.org", "b.org", "x.b.org", "c.org")
        for path in ("/", "/x", "/links")
    )
)
def host_matching(kit: Kit) -> Any:
    app = kit.app(host_matching=True, static_host="a.org")
    app.add_url_rule("/", "a", told(kit), host="a.org")
    app.add_url_rule("/", "b", told(kit), host="b.org")
    app.add_url_rule("/x", "sub", told(kit), host="<name>.b.org")
    app.add_url_rule(
        "/links",
        "links",
        lambda: " ".join(
            [kit.flask.url_for("a"), kit.flask.url_for("b"), kit.flask.url_for("sub", name="n")]
        ),
        host="a.org",
    )
    return app


BUILT: list[Any] = [
    ("plain", {}),
    ("plain", {"a": 1}),
    ("plain", {"a": [1, 2], "b": None}),
    ("plain", {"a": "ü&=? +"}),
    ("int", {"x": 5}),
    ("int", {"x": "5"}),
    ("int", {"x": -5}),
    ("int", {}),
    ("str", {"x": "a/b ü?"}),
    ("path", {"x": "a/b c//d"}),
    ("path", {"x": "a;b+c&d"}),
    ("plain", {"_external": True}),
    ("plain", {"_scheme": "https"}),
    ("plain", {"_scheme": "https", "_external": False}),
    ("plain", {"_anchor": "x y/ü#"}),
    ("plain", {"_anchor": ""}),
    ("plain", {"_method": "POST"}),
    ("both", {"_method": "GET"}),
    ("both", {"_method": "POST"}),
    ("nothing", {}),
    (".plain", {}),
    ("bp.view", {}),
    ("bp.view", {"_external": True, "a": "b"}),
    ("default", {}),
    ("default", {"page": 1}),
    ("default", {"page": 2}),
    ("float", {"x": 1.5}),
    ("float", {"x": 1e20}),
    ("uuid", {"x": "zz"}),
    ("static", {"filename": "a b.txt"}),
    ("any", {"x": "one"}),
    ("any", {"x": "nine"}),
    ("only", {"x": 1}),
    ("plain", {"_external": True, "_scheme": ""}),
    ("int", {"x": True}),
    ("str", {"x": ""}),
    ("plain", {"b": 2, "a": 1}),
    ("plain", {"a": True, "b": 1.0}),
]


@scene("/?i=1", ask("/", host="h.org:81"), "/p/")
def url_for(kit: Kit) -> Any:
    app = kit.app()
    for name, text in [
        ("plain", "/plain"),
        ("int", "/int/<int:x>"),
        ("str", "/str/<x>"),
        ("path", "/path/<path:x>"),
        ("float", "/f/<float:x>"),
        ("uuid", "/u/<uuid:x>"),
        ("any", "/any/<any(one,two):x>"),
        ("default", "/d/<int:page>"),
    ]:
        app.add_url_rule(text, name, told(kit))
    app.add_url_rule("/d/", "default", defaults={"page": 1})
    app.add_url_rule("/get", "both", lambda: "", methods=["GET"])
    app.add_url_rule("/post", "both", methods=["POST"])
    app.add_url_rule("/only/<int:x>", "only", build_only=True)

    def links() -> dict[str, Any]:
        found = {}
        for number, (endpoint, values) in enumerate(BUILT):
            try:
                found[str(number)] = kit.flask.url_for(endpoint, **values)
            except Exception as error:
                found[str(number)] = f"{type(error).__name__}: {error}"
        return found

    app.add_url_rule("/", "links", links)
    blueprint = kit.flask.Blueprint("bp", kit.name, url_prefix="/p")
    blueprint.add_url_rule("/", "links", links)
    blueprint.add_url_rule("/view", "view", links)
    app.register_blueprint(blueprint)
    return app


@scene("/", "/x/y")
def url_build_error_handlers(kit: Kit) -> Any:
    app = kit.app()

    def fallback(error: Exception, endpoint: str, values: dict[str, Any]) -> str:
        kit.note("handler", endpoint, sorted(values.items()))
        if endpoint == "lost":
            raise error
        return f"/fallback/{endpoint}"

    app.url_build_error_handlers.append(fallback)
    app.add_url_rule("/", "found", lambda: kit.flask.url_for("missing", a=1, _external=True))
    app.add_url_rule("/x/y", "lost_link", lambda: kit.flask.url_for("lost"))
    return app


@scene("/en/about", "/de/about", "/en/", "/xx/nothing", "/en/bp/page", "/links")
def url_values(kit: Kit) -> Any:
    app = kit.app()
    g = kit.flask.g

    @app.url_value_preprocessor
    def take(endpoint: Any, values: Any) -> None:
        kit.note("take", endpoint, sorted((values or {}).items()))
        g.lang = values.pop("lang", "none") if values else "none"

    @app.url_defaults
    def give(endpoint: str, values: dict[str, Any]) -> None:
        kit.note("give", endpoint)
        if app.url_map.is_endpoint_expecting(endpoint, "lang"):
            values.setdefault("lang", g.lang)

    app.add_url_rule("/<lang>/", "index", lambda: f"{g.lang} {kit.flask.url_for('about')}")
    app.add_url_rule("/<lang>/about", "about", lambda: f"{g.lang} {kit.flask.url_for('bp.page')}")
    app.add_url_rule("/links", "links", lambda: kit.flask.url_for("about", lang="fr"))
    blueprint = kit.flask.Blueprint("bp", kit.name, url_prefix="/<lang>/bp")

    @blueprint.url_value_preprocessor
    def take_too(endpoint: Any, values: Any) -> None:
        kit.note("take too", endpoint, sorted(values.items()))

    @blueprint.url_defaults
    def give_too(endpoint: str, values: dict[str, Any]) -> None:
        kit.note("give too", endpoint)

    blueprint.add_url_rule("/page", "page", lambda: f"{g.lang} {kit.flask.url_for('.page')}")
    app.register_blueprint(blueprint)
    return app


@scene("/a/x", "/a/b/x", "/a/b/c/x", "/other/x", "/other/b/x", "/a/nothing", "/links")
def nested_blueprints(kit: Kit) -> Any:
    Blueprint = kit.flask.Blueprint
    app = kit.app()
    request = kit.flask.request

    def view() -> Any:
        return {
            "endpoint": request.endpoint,
            "blueprint": request.blueprint,
            "blueprints": request.blueprints,
        }

    outer, middle, inner = (
        Blueprint("outer", kit.name),
        Blueprint("middle", kit.name),
        Blueprint("inner", kit.name),
    )
    for blueprint in (outer, middle, inner):
        blueprint.add_url_rule("/x", "x", view)
    middle.register_blueprint(inner, url_prefix="/c")
    outer.register_blueprint(middle, url_prefix="/b")
    app.register_blueprint(outer, url_prefix="/a")
    app.register_blueprint(outer, url_prefix="/other", name="again")
    app.add_url_rule(
        "/links",
        "links",
        lambda: " ".join(kit.flask.url_for(f"{n}.x") for n in ("outer.middle.inner", "again.middle")),
    )
    return app


@scene("/", "/x", "POST /", "/form/")
def class_based_views(kit: Kit) -> Any:
    views = kit.module("flask.views")
    app = kit.app()

    def noting(view: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            kit.note("decorated")
            return view(*args, **kwargs)

        return wrapped

    class Index(views.MethodView):
        decorators = [noting]
        init_every_request = False

        def __init__(self, word: str) -> None:
            kit.note("made", word)
            self.word = word

        def get(self, name: str = "nobody") -> str:
            return f"{self.word} {name}"

        def post(self) -> tuple[str, int]:
            return "made", 201

    class Form(views.View):
        methods = ["GET", "POST"]

        def dispatch_request(self) -> str:
            return kit.flask.request.method

    view = Index.as_view("index", "hello")
    app.add_url_rule("/", view_func=view)
    app.add_url_rule("/<name>", view_func=view, methods=["GET"])
    app.add_url_rule("/form/", view_func=Form.as_view("form"))
    return app


@scene("HEAD /", "HEAD /own", "PUT /", "OPTIONS /", "OPTIONS /own", "GET /own")
def method_view_methods(kit: Kit) -> Any:
    views = kit.module("flask.views")

    class Plain(views.MethodView):
        def get(self) -> str:
            return "got"

        def delete(self) -> str:
            return "deleted"

    class Own(Plain):
        def head(self) -> Any:
            return "", 200, {"X-Head": "own"}

    app = kit.app()
    app.add_url_rule("/", view_func=Plain.as_view("plain"))
    app.add_url_rule("/own", view_func=Own.as_view("own"))
    return app


@scene(
    *(f"POST {path}" for path in ("/b", "/b/", "/a/", "/moved")), "HEAD /b", "OPTIONS /b", each=[False, True]
)
def redirects_of_other_methods(kit: Kit, debug: bool) -> Any:
    app = rules(kit, "/b/", "/a", methods=["GET", "POST"])
    app.debug = debug
    app.add_url_rule("/moved", "moved", lambda: kit.flask.redirect("/a", 303), methods=["POST"])
    return app


@scene("/here", "/there", "/rule/1", "/late/2")
def endpoint_and_rules(kit: Kit) -> Any:
    app = kit.app()
    routing = kit.module("werkzeug.routing")
    app.add_url_rule("/here", endpoint="named")
    app.url_map.add(app.url_rule_class("/there", endpoint="named"))
    app.url_map.add(routing.Submount("/rule", [routing.Rule("/<int:x>", endpoint="named")]))
    app.endpoint("named")(told(kit))
    app.url_map.add(app.url_rule_class("/late/<int:x>", endpoint="missing"))
    return app
