"""Hooks, error handlers, template functions, commands and signals."""

from __future__ import annotations

from typing import Any

import click

from hipflask import Blueprint, Flask, Response, g, got_request_exception, request, session
from hipflask.cli import with_appcontext
from hipflask.typing import ResponseReturnValue
from hipflask.werkzeug.exceptions import HTTPException, NotFound

app = Flask(__name__)
pages = Blueprint("pages", __name__)


class OutOfStock(Exception):
    pass


@app.before_request
def check() -> ResponseReturnValue | None:
    return None if session else ("no session", 401)


@app.before_request
async def check_later() -> None: ...


@app.after_request
def mark(response: Response) -> Response:
    response.headers.setdefault("X-Marked", "1")
    return response


@app.teardown_request
def close(error: BaseException | None) -> None:
    g.pop("database", None)


@app.teardown_appcontext
def close_all(error: BaseException | None) -> None: ...


@app.errorhandler(404)
def not_found(error: NotFound) -> tuple[str, int]:
    return error.description or "", 404


@app.errorhandler(HTTPException)
def any_http_error(error: HTTPException) -> ResponseReturnValue:
    return {"error": error.name}, error.code or 500


@pages.errorhandler(OutOfStock)
def out_of_stock(error: OutOfStock) -> str:
    return str(error)


@app.url_value_preprocessor
def take_language(endpoint: str | None, values: dict[str, Any] | None) -> None:
    g.language = (values or {}).pop("language", "en")


@app.url_defaults
def give_language(endpoint: str, values: dict[str, Any]) -> None:
    values.setdefault("language", g.language)


@app.context_processor
def names() -> dict[str, Any]:
    return {"name": "value"}


@app.template_filter()
def twice(text: str) -> str:
    return text * 2


@app.template_filter("thrice")
def three_times(text: str) -> str:
    return text * 3


@app.template_test("odd_number")
def is_odd(number: int) -> bool:
    return number % 2 == 1


@app.template_global()
def now() -> float:
    return 0.0


@app.shell_context_processor
def shell() -> dict[str, Any]:
    return {"app": app}


@app.cli.command("greet")
@click.argument("name")
@with_appcontext
def greet(name: str) -> None:
    click.echo(name)


@pages.before_app_request
def before_all() -> None: ...


@pages.after_app_request
def after_all(response: Response) -> Response:
    return response


@pages.record_once
def recorded(state: object) -> None: ...


def tell(sender: Flask, exception: BaseException, **extra: Any) -> None:
    sender.logger.error("failed on %s", request.path, exc_info=exception)


got_request_exception.connect(tell, app)
