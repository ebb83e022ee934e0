"""Names that modules of Flask and Werkzeug have only because they import them.

Programs take such names where they find them: `from flask.signals import Namespace`,
`from flask.testing import EnvironBuilder`. Hipflask's modules import less, and later, so those that stand for
Flask's under its own names answer for these too, from where each is defined. Names that only Flask's own
implementation could use (compiled expressions, private helpers) are not among them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

#: Modules, by the name under which they are imported.

_MODULES = {
    "_json": "json",
    "_sansio_http": "werkzeug.sansio.http",
    "c": "collections.abc",
    "cabc": "collections.abc",
    "cli": "flask.cli",
    "client": "http.client",
    "ds": "werkzeug.datastructures",
    "exceptions": "werkzeug.exceptions",
    "ft": "flask.typing",
    "http": "werkzeug.http",
    "t": "typing",
}

#: Modules imported under their own names.
_PLAIN_MODULES = (
    "ast base64 binascii click codecs contextvars copy dataclasses decimal difflib email errno fnmatch "
    "getpass hashlib hmac importlib io itertools json logging math mimetypes operator os pkgutil platform "
    "posixpath re secrets selectors socket socketserver ssl subprocess sys sysconfig threading types "
    "unicodedata urllib uuid warnings weakref werkzeug"
)

#: Where the other names are defined; `imported=defined` where the two differ.
_DEFINED = {
    "blinker.base": "Namespace",
    "click.testing": "Result",
    "collections": "defaultdict",
    "contextlib": "ExitStack",
    "contextvars": "ContextVar",
    "copy": "deepcopy",
    "dataclasses": "dataclass field",
    "datetime": "date datetime dt=datetime timedelta timezone",
    "flask": (
        "annotations appcontext_popped appcontext_pushed appcontext_tearing_down before_render_template "
        "current_app got_request_exception message_flashed request_finished request_started "
        "request_tearing_down template_rendered"
    ),
    "flask.app": "_sentinel request_ctx",
    "flask.cli": "AppGroup ScriptInfo",
    "flask.helpers": "_split_blueprint_path get_flashed_messages",
    "flask.json.provider": "_default",
    "flask.json.tag": "TaggedJSONSerializer",
    "flask.sessions": "SecureCookieSessionInterface SessionInterface SessionMixin",
    "flask.templating": "Environment",
    "flask.wrappers": "Request Response",
    "functools": "partial update_wrapper",
    "hashlib": "sha1",
    "http": "HTTPStatus",
    "http.server": "BaseHTTPRequestHandler HTTPServer",
    "inspect": "cleandoc iscoroutinefunction",
    "io": "BytesIO",
    "itertools": "chain repeat",
    "itsdangerous.exc": "BadSignature",
    "itsdangerous.url_safe": "URLSafeTimedSerializer",
    "jinja2.environment": "Template",
    "jinja2.loaders": "BaseLoader",
    "markupsafe": "Markup escape",
    "operator": "attrgetter itemgetter",
    "os": "fspath",
    "os.path": "basename join",
    "pathlib": "PurePath",
    "pprint": "pformat",
    "re": "RegexType=Pattern",
    "socketserver": "ForkingMixIn",
    "tempfile": "SpooledTemporaryFile TemporaryFile",
    "textwrap": "wrap",
    "time": "mktime struct_time time",
    "traceback": "format_exception_only",
    "types": "CodeType ModuleType TracebackType",
    "urllib.parse": ("_url_quote=quote parse_qsl quote unquote urljoin urlparse urlsplit urlunsplit"),
    "urllib.request": "_parse_list_header=parse_http_list",
    "werkzeug._internal": (
        "_TAccessorValue _get_environ _missing _plain_int _wsgi_decoding_dance _wsgi_encoding_dance"
    ),
    "werkzeug.datastructures.accept": "Accept CharsetAccept LanguageAccept MIMEAccept",
    "werkzeug.datastructures.auth": "Authorization WWWAuthenticate",
    "werkzeug.datastructures.cache_control": "RequestCacheControl ResponseCacheControl",
    "werkzeug.datastructures.csp": "ContentSecurityPolicy",
    "werkzeug.datastructures.etag": "ETags",
    "werkzeug.datastructures.file_storage": "FileStorage",
    "werkzeug.datastructures.headers": "EnvironHeaders Headers",
    "werkzeug.datastructures.mixins": "ImmutableHeadersMixin",
    "werkzeug.datastructures.range": "ContentRange IfRange Range",
    "werkzeug.datastructures.structures": (
        "CallbackDict CombinedMultiDict HeaderSet ImmutableMultiDict MultiDict iter_multi_items"
    ),
    "werkzeug.exceptions": (
        "BadHost BadRequest BadRequestKeyError ClientDisconnected HTTPException InternalServerError "
        "MethodNotAllowed NotFound RequestEntityTooLarge RequestedRangeNotSatisfiable SecurityError "
        "UnsupportedMediaType _wz_abort=abort"
    ),
    "werkzeug.http": (
        "COEP COOP HTTP_STATUS_CODES dump_age dump_cookie dump_header dump_options_header generate_etag "
        "http_date is_resource_modified parse_accept_header parse_age parse_cache_control_header "
        "parse_content_range_header parse_csp_header parse_date parse_etags parse_if_range_header "
        "parse_list_header parse_options_header parse_range_header parse_set_header quote_etag "
        "remove_entity_headers unquote_etag"
    ),
    "werkzeug.routing.converters": "ValidationError",
    "werkzeug.routing.exceptions": "BuildError NoMatch RequestAliasRedirect RequestPath",
    "werkzeug.routing.map": "MapAdapter",
    "werkzeug.routing.matcher": "StateMachineMatcher",
    "werkzeug.routing.rules": "Rule",
    "werkzeug.sansio.http": "parse_cookie",
    "werkzeug.sansio.multipart": (
        "Data Epilogue Field File MultipartDecoder MultipartEncoder NeedData Preamble"
    ),
    "werkzeug.sansio.utils": "get_current_url",
    "werkzeug.serving": "is_running_from_reloader run_simple",
    "werkzeug.test": "Client",
    "werkzeug.urls": "_urlencode iri_to_uri uri_to_iri",
    "werkzeug.utils": ("_wz_redirect=redirect cached_property import_string redirect send_file"),
    "werkzeug.wrappers.request": "BaseRequest=Request",
    "werkzeug.wrappers.response": "BaseResponse=Response ResponseStream",
    "werkzeug.wsgi": (
        "ClosingIterator _RangeWrapper _get_server get_content_length get_host get_input_stream wrap_file"
    ),
    "zlib": "adler32",
}

#: The names of each module; `name=place` where it is not the one above.
_IMPORTED = {
    "flask": "t",
    "flask.app": (
        "BaseResponse Environment MapAdapter Request Response Rule SecureCookieSessionInterface "
        "SessionInterface TracebackType _url_quote appcontext_tearing_down cabc chain cli click current_app "
        "ft get_flashed_messages get_host got_request_exception is_running_from_reloader "
        "iscoroutinefunction request_finished request_started request_tearing_down t"
    ),
    "flask.blueprints": "AppGroup _sentinel current_app t timedelta",
    "flask.cli": (
        "ModuleType cabc import_string importlib is_running_from_reloader itemgetter platform run_simple t"
    ),
    "flask.config": "errno import_string json t types",
    "flask.ctx": ("TracebackType appcontext_popped appcontext_pushed contextvars ft t"),
    "flask.debughelpers": "BaseLoader request_ctx t",
    "flask.globals": "ContextVar t",
    "flask.helpers": ("BaseResponse _wz_abort _wz_redirect datetime importlib message_flashed t"),
    "flask.json": "_default _json t",
    "flask.json.provider": "dataclasses date decimal http_date json t uuid weakref",
    "flask.json.tag": "t",
    "flask.logging": "t",
    "flask.sessions": (
        "BadSignature TaggedJSONSerializer URLSafeTimedSerializer c datetime hashlib t timezone"
    ),
    "flask.signals": "Namespace",
    "flask.templating": "Template before_render_template t template_rendered",
    "flask.testing": (
        "BaseRequest Client Result ScriptInfo SessionMixin TracebackType importlib t urlsplit werkzeug"
    ),
    "flask.typing": "cabc t",
    "flask.views": "ft t",
    "flask.wrappers": "BadRequest HTTPException _split_blueprint_path t",
    "werkzeug._internal": "datetime logging re sys t timezone",
    "werkzeug._reloader": "PurePath chain fnmatch subprocess t threading",
    "werkzeug.datastructures": "t",
    "werkzeug.datastructures.accept": "cabc codecs re t",
    "werkzeug.datastructures.auth": "base64 binascii cabc t",
    "werkzeug.datastructures.cache_control": "cabc cleandoc http t",
    "werkzeug.datastructures.csp": "cabc t",
    "werkzeug.datastructures.etag": "cabc",
    "werkzeug.datastructures.file_storage": "BytesIO cabc fspath http mimetypes t",
    "werkzeug.datastructures.headers": (
        "BadRequestKeyError ImmutableHeadersMixin MultiDict _missing annotations cabc http iter_multi_items "
        "re t"
    ),
    "werkzeug.datastructures.mixins": "cabc repeat t update_wrapper",
    "werkzeug.datastructures.range": "cabc datetime http t",
    "werkzeug.datastructures.structures": "_missing cabc deepcopy exceptions http t",
    "werkzeug.debug": (
        "BytesIO ExitStack adler32 basename chain getpass join json pkgutil re send_file t uuid"
    ),
    "werkzeug.debug.console": "CodeType t",
    "werkzeug.debug.repr": "RegexType codecs format_exception_only t",
    "werkzeug.debug.tbtools": "itertools re sysconfig t",
    "werkzeug.exceptions": "Markup _get_environ datetime escape t",
    "werkzeug.formparser": (
        "BytesIO Data Epilogue Field File FileStorage Headers MultipartDecoder NeedData "
        "RequestEntityTooLarge SpooledTemporaryFile _plain_int get_content_length get_input_stream "
        "parse_options_header parse_qsl t"
    ),
    "werkzeug.http": (
        "_parse_list_header _sansio_http date datetime ds email mktime quote re sha1 struct_time t "
        "time=datetime:time timedelta timezone unquote warnings"
    ),
    "werkzeug.local": "ClosingIterator attrgetter copy math operator partial t",
    "werkzeug.middleware.dispatcher": "t",
    "werkzeug.middleware.http_proxy": "client t",
    "werkzeug.middleware.lint": "TracebackType t urlparse",
    "werkzeug.middleware.profiler": "t",
    "werkzeug.middleware.proxy_fix": "t",
    "werkzeug.middleware.shared_data": "BytesIO adler32 cabc importlib mimetypes posixpath t time",
    "werkzeug.routing.converters": "quote re t uuid",
    "werkzeug.routing.exceptions": "cached_property difflib redirect t",
    "werkzeug.routing.map": (
        "BadHost BuildError HTTPException MethodNotAllowed MultiDict NoMatch NotFound RequestAliasRedirect "
        "RequestPath Rule StateMachineMatcher _get_environ _urlencode _wsgi_decoding_dance get_host pformat "
        "quote t urljoin urlunsplit warnings"
    ),
    "werkzeug.routing.matcher": "Rule ValidationError dataclass field re t",
    "werkzeug.routing.rules": (
        "CodeType Template=string:Template _urlencode ast dataclass iter_multi_items quote re t"
    ),
    "werkzeug.sansio.http": "datetime ds re t",
    "werkzeug.sansio.multipart": "Headers RequestEntityTooLarge parse_options_header re t",
    "werkzeug.sansio.request": (
        "Accept Authorization CharsetAccept ETags HeaderSet Headers IfRange LanguageAccept MIMEAccept "
        "MultiDict Range RequestCacheControl datetime "
        "get_content_length=werkzeug.sansio.utils:get_content_length get_current_url "
        "get_host=werkzeug.sansio.utils:get_host parse_accept_header parse_cache_control_header "
        "parse_cookie parse_date parse_etags parse_if_range_header parse_list_header parse_options_header "
        "parse_qsl parse_range_header parse_set_header t"
    ),
    "werkzeug.sansio.response": (
        "COEP COOP CallbackDict ContentRange ContentSecurityPolicy HTTPStatus HTTP_STATUS_CODES HeaderSet "
        "Headers ResponseCacheControl WWWAuthenticate datetime dump_age dump_cookie dump_header "
        "dump_options_header http_date parse_age parse_cache_control_header parse_content_range_header "
        "parse_csp_header parse_date parse_options_header parse_set_header quote_etag t timedelta timezone "
        "unquote_etag"
    ),
    "werkzeug.sansio.utils": "SecurityError _plain_int quote t uri_to_iri",
    "werkzeug.security": "hashlib hmac secrets",
    "werkzeug.serving": (
        "BaseHTTPRequestHandler ForkingMixIn HTTPServer InternalServerError _wsgi_encoding_dance dt errno "
        "io selectors socket socketserver ssl t timedelta timezone unquote uri_to_iri urlsplit"
    ),
    "werkzeug.test": (
        "Data Epilogue Field File MultipartEncoder Preamble TemporaryFile dataclasses datetime defaultdict "
        "mimetypes t time"
    ),
    "werkzeug.testapp": "escape importlib os t wrap",
    "werkzeug.urls": "re t unquote urllib",
    "werkzeug.utils": (
        "Headers NotFound RequestedRangeNotSatisfiable _TAccessorValue adler32 datetime escape io mimetypes "
        "pkgutil quote re t time unicodedata wrap_file"
    ),
    "werkzeug.wrappers": "ResponseStream",
    "werkzeug.wrappers.request": (
        "BadRequest BytesIO CombinedMultiDict EnvironHeaders FileStorage ImmutableMultiDict MultiDict "
        "UnsupportedMediaType _get_server _wsgi_decoding_dance cabc cached_property get_input_stream "
        "iter_multi_items t"
    ),
    "werkzeug.wrappers.response": (
        "ClosingIterator HTTPStatus Headers _RangeWrapper _get_environ generate_etag "
        "get_current_url=werkzeug.wsgi:get_current_url http_date iri_to_uri is_resource_modified "
        "parse_etags parse_range_header remove_entity_headers t urljoin"
    ),
    "werkzeug.wsgi": ("ClientDisconnected RequestEntityTooLarge partial t update_wrapper"),
}


def answer_for(module: ModuleType, alias: str, real_name: Callable[[str], str]) -> None:
    """Let `module` answer for the names that the module it stands for has imported.

    Args:
        module: One of ours.
        alias: The name of Flask's or Werkzeug's module that it stands for.
        real_name: Turns the name of a module of theirs into that of ours.
    """
    names = {
        name: place for name, _, place in (each.partition("=") for each in _IMPORTED.get(alias, "").split())
    }
    if not names:
        return
    own: Callable[[str], Any] | None = vars(module).get("__getattr__")

    def __getattr__(name: str) -> Any:
        if own is not None:
            try:
                return own(name)
            except AttributeError:
                if name not in names:
                    raise
        if name not in names:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        from importlib import import_module

        place, _, attribute = (names[name] or _place(name)).partition(":")
        found = import_module(real_name(place))
        return getattr(found, attribute) if attribute else found

    vars(module)["__getattr__"] = __getattr__


def _place(name: str) -> str:
    if name in _PLAIN_MODULES.split():
        return name
    if name in _MODULES:
        return _MODULES[name]
    for place, names in _DEFINED.items():
        for each in names.split():
            imported, _, defined = each.partition("=")
            if imported == name:
                return f"{place}:{defined or imported}"
    raise LookupError(name)
