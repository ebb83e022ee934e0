"""How the command line finds the application: a module, and a name or a factory in it.

Does without click, which takes as long to load as all that a small application needs: it is loaded when
something is wrong, since `hipflask.cli.NoAppException` is one of click's.
"""

from __future__ import annotations

import os
import re
import sys
from keyword import iskeyword
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeGuard

from .helpers import get_debug_flag, get_load_dotenv
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .app import Flask
    from .cli import NoAppException


def no_app(message: str) -> NoAppException:
    """The error that says that there is no application."""
    from .cli import NoAppException

    return NoAppException(message)


def _is_app(value: object) -> TypeGuard[Flask]:
    from .app import Flask

    return isinstance(value, Flask)


def find_best_app(module: ModuleType) -> Flask:
    """Find the application in a module when nobody has said which.

    Looked for are, in this order: `app` and `application`; the only application there is; the factories
    `create_app` and `make_app`, called without arguments.

    Raises:
        NoAppException: If there is none, or more than one.
    """
    for name in ("app", "application"):
        app = getattr(module, name, None)
        if _is_app(app):
            return app
    apps = [value for value in vars(module).values() if _is_app(value)]
    if len(apps) == 1:
        return apps[0]
    where = module.__name__
    if apps:
        raise no_app(
            f"Detected multiple Flask applications in module '{where}'. Use '{where}:name' to specify the"
            f" correct one."
        )
    for name in ("create_app", "make_app"):
        factory = getattr(module, name, None)
        if not isinstance(factory, FunctionType):
            continue
        try:
            app = factory()
        except TypeError as error:
            if not _called_with_wrong_args(factory):
                raise
            raise no_app(
                f"Detected factory '{name}' in module '{where}', but could not call it without arguments."
                f" Use '{where}:{name}(args)' to specify arguments."
            ) from error
        if _is_app(app):
            return app
    raise no_app(
        f"Failed to find Flask application or factory in module '{where}'. Use '{where}:name' to specify one."
    )


def _called_with_wrong_args(function: FunctionType) -> bool:
    """Tell whether the TypeError being handled came from calling the function, not from within it."""
    trace = sys.exc_info()[2]
    try:
        while trace is not None:
            if trace.tb_frame.f_code is function.__code__:
                return False
            trace = trace.tb_next
        return True
    finally:
        # A traceback refers to this frame, and this frame to the traceback.
        del trace


def find_app_by_string(module: ModuleType, app_name: str) -> Flask:
    """Find the application by the part behind the colon: a name, or a factory's call with literal arguments.

    Raises:
        NoAppException: If it is neither, or does not give an application.
    """
    name, args, kwargs = _parse_app_name(app_name)
    where = module.__name__
    value: Any
    try:
        value = getattr(module, name)
    except AttributeError as error:
        raise no_app(f"Failed to find attribute {name!r} in {where!r}.") from error
    if isinstance(value, FunctionType):
        try:
            value = value(*args, **kwargs)
        except TypeError as error:
            if not _called_with_wrong_args(value):
                raise
            wrong = no_app(
                f"The factory {app_name!r} in module {where!r} could not be called with the specified"
                f" arguments."
            )
            if name == app_name.strip():
                wrong.found = value
            raise wrong from error
    if _is_app(value):
        return value
    none = no_app(f"A valid Flask application was not obtained from '{where}:{app_name}'.")
    none.found = value
    raise none


def _parse_app_name(app_name: str) -> tuple[str, list[Any], dict[str, Any]]:
    if app_name.isascii() and app_name.isidentifier() and not iskeyword(app_name):
        return app_name, [], {}
    import ast

    try:
        expression = ast.parse(app_name.strip(), mode="eval").body
    except SyntaxError:
        expression = None
    if isinstance(expression, ast.Name):
        return expression.id, [], {}
    if not isinstance(expression, ast.Call):
        raise no_app(f"Failed to parse {app_name!r} as an attribute name or function call.")
    if not isinstance(expression.func, ast.Name):
        raise no_app(f"Function reference must be a simple name: {app_name!r}.")
    try:
        args = [ast.literal_eval(value) for value in expression.args]
        kwargs = {
            item.arg: ast.literal_eval(item.value) for item in expression.keywords if item.arg is not None
        }
    except ValueError:
        raise no_app(f"Failed to parse arguments as literal values: {app_name!r}.") from None
    return expression.func.id, args, kwargs


def prepare_import(path: str) -> str:
    """Make a file importable, and return the module's name.

    Args:
        path: A module's file with or without `.py`, or a package's directory. The directory above the
            outermost package is put first on `sys.path`.
    """
    path = os.path.realpath(path)
    stem, extension = os.path.splitext(path)
    if extension == ".py":
        path = stem
    if os.path.basename(path) == "__init__":
        path = os.path.dirname(path)
    names = []
    while True:
        path, name = os.path.split(path)
        names.append(name)
        if not os.path.exists(os.path.join(path, "__init__.py")):
            break
    if sys.path[0] != path:
        sys.path.insert(0, path)
    return ".".join(reversed(names))


def locate_app(module_name: str, app_name: str | None, raise_if_not_found: bool = True) -> Flask | None:
    """Import a module and find the application in it.

    Args:
        module_name: The dotted name.
        app_name: What stands behind the colon, if anything.
        raise_if_not_found: If not set, a module that does not exist gives None.

    Raises:
        NoAppException: If there is no application, or importing the module fails for want of another module.
    """
    try:
        __import__(module_name)
    except ImportError as error:
        # A trace that goes on below this line means that the module is there and could not import something.
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            from .cli import short_traceback

            raise no_app(
                f"While importing {module_name!r}, an ImportError was raised:\n\n{short_traceback(error)}"
            ) from None
        if raise_if_not_found:
            raise no_app(
                f"Could not import {module_name!r}. There is no such module or file in {os.getcwd()!r}, nor"
                f" an installed package of that name."
            ) from None
        return None
    module = sys.modules[module_name]
    return find_best_app(module) if app_name is None else find_app_by_string(module, app_name)


class ScriptInfo:
    """What a command knows about the application: how to find it, and then the application.

    Args:
        app_import_path: The module or file, and behind a colon the name or call.
        create_app: Makes the application, instead of importing it.
        set_debug_flag: Set `app.debug` from `FLASK_DEBUG`.
        load_dotenv_defaults: Whether `.env` and `.flaskenv` are read; the option `--env-file` does that, not
            this class.

    Implements: flask.cli.ScriptInfo (3.1).
    """

    def __init__(
        self,
        app_import_path: str | None = None,
        create_app: Callable[..., Flask] | None = None,
        set_debug_flag: bool = True,
        load_dotenv_defaults: bool = True,
    ) -> None:
        self.app_import_path = app_import_path
        self.create_app = create_app
        #: For commands to keep what they like.
        self.data: dict[Any, Any] = {}
        self.set_debug_flag = set_debug_flag
        self.load_dotenv_defaults = get_load_dotenv(load_dotenv_defaults)
        self._loaded_app: Flask | None = None

    def load_app(self) -> Flask:
        """Return the application, importing it the first time.

        Raises:
            NoAppException: If it cannot be found.
        """
        if self._loaded_app is None:
            app = self._find_app()
            if self.set_debug_flag:
                app.debug = get_debug_flag()
            self._loaded_app = app
        return self._loaded_app

    def _find_app(self) -> Flask:
        app: Flask | None = None
        if self.create_app is not None:
            app = self.create_app()
        elif path := self.app_import_path or app_of_file():
            # The colon of a Windows drive stands before a slash.
            path, *name = re.split(r":(?![\\/])", path, maxsplit=1)
            app = locate_app(prepare_import(path), name[0] if name else None)
        else:
            for path in ("wsgi.py", "app.py"):
                app = locate_app(prepare_import(path), None, raise_if_not_found=False)
                if app is not None:
                    break
        if app is None:
            raise no_app(
                "Could not locate a Flask application. Use the '--app' option, the 'FLASK_APP' environment"
                " variable, or a 'wsgi.py' or 'app.py' file in the current directory."
            )
        return app


def app_of_file() -> str | None:
    """The application that the file of settings names."""
    from .setting_types import SettingError

    try:
        return Settings().app
    except SettingError as error:
        import click

        raise click.UsageError(str(error)) from None
