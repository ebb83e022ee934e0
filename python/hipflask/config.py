"""An application's configuration: a dictionary that loads itself from files, objects and the environment.

Only keys in upper case are settings; the loaders leave everything else where they found it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ._core import app_changed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

    from typing_extensions import Self

    from .sansio.app import App

T = TypeVar("T")


class ConfigAttribute(Generic[T]):
    """An attribute of the application that lives in its configuration.

    Args:
        name: The setting's key.
        get_converter: Applied to the value on each reading.
    """

    def __init__(self, name: str, get_converter: Callable[[Any], T] | None = None) -> None:
        self.__name__ = name
        self.get_converter = get_converter

    @overload
    def __get__(self, obj: None, owner: None) -> Self: ...

    @overload
    def __get__(self, obj: App, owner: type[App]) -> T: ...

    def __get__(self, obj: App | None, owner: type[App] | None = None) -> T | Self:
        if obj is None:
            return self
        value = obj.config[self.__name__]
        return value if self.get_converter is None else self.get_converter(value)

    def __set__(self, obj: App, value: Any) -> None:
        obj.config[self.__name__] = value


def loads(s: str) -> Any:
    """Read JSON text; by default the values of the environment are."""
    import json

    return json.loads(s)


class Config(dict[str, Any]):
    """A dictionary of settings.

    Args:
        root_path: Relative file names are looked up here.
        defaults: The first settings.

    Implements: flask.Config (3.1).
    """

    def __init__(self, root_path: str | os.PathLike[str], defaults: dict[str, Any] | None = None) -> None:
        super().__init__(defaults or {})
        self.root_path = root_path

    # The engine answers some requests without the interpreter, by what the settings were when it last looked:
    # whatever changes one tells it to look again.

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        app_changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        app_changed()

    def __ior__(self, other: Any) -> Self:  # type: ignore[override, misc]
        self.update(other)
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Change several settings at once, as `dict.update` does."""
        super().update(*args, **kwargs)
        app_changed()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return a setting, made with this value if it is missing."""
        value = super().setdefault(key, default)
        app_changed()
        return value

    def pop(self, *args: Any) -> Any:
        """Remove a setting and return it, as `dict.pop` does."""
        value = super().pop(*args)
        app_changed()
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove the last setting and return it with its key."""
        item = super().popitem()
        app_changed()
        return item

    def clear(self) -> None:
        """Remove all settings."""
        super().clear()
        app_changed()

    def from_envvar(self, variable_name: str, silent: bool = False) -> bool:
        """Load the Python file that an environment variable names.

        Args:
            variable_name: The variable that holds the file's path.
            silent: Return False, rather than raise, if the variable is unset or the file missing.

        Returns:
            Whether a file was loaded.

        Raises:
            RuntimeError: If the variable is unset or empty.
        """
        filename = os.environ.get(variable_name)
        if filename:
            return self.from_pyfile(filename, silent=silent)
        if silent:
            return False
        raise RuntimeError(
            f"The environment variable {variable_name!r} is not set: it should hold the path of a"
            f" configuration file."
        )

    def from_prefixed_env(self, prefix: str = "FLASK", *, loads: Callable[[str], Any] = loads) -> bool:
        """Load the environment variables that start with a prefix and an underscore.

        `FLASK_DB__POOL=5` sets `config["DB"]["POOL"]` to the number 5: two underscores reach into a
        dictionary, which is made if it is not there.

        Args:
            prefix: Without its underscore.
            loads: Turns the text into a value; text that it refuses stays text.

        Returns:
            True.
        """
        prefix += "_"
        for variable in sorted(name for name in os.environ if name.startswith(prefix)):
            value: Any = os.environ[variable]
            with suppress(Exception):  # What `loads` does not understand is plain text.
                value = loads(value)
            key = variable[len(prefix) :]
            if "__" not in key:
                self[key] = value
                continue
            *parents, last = key.split("__")
            place: Any = self
            for parent in parents:
                if parent not in place:
                    place[parent] = {}
                place = place[parent]
            place[last] = value
        return True

    def from_pyfile(self, filename: str | os.PathLike[str], silent: bool = False) -> bool:
        """Run a Python file and take its upper-case names.

        Args:
            filename: Relative to `root_path`, or absolute.
            silent: Return False if there is no such file.

        Returns:
            Whether the file was loaded.

        Raises:
            OSError: If the file cannot be read.
        """
        from types import ModuleType

        path = os.path.join(self.root_path, filename)
        module = ModuleType("config")
        module.__file__ = path
        try:
            with open(path, mode="rb") as file:
                exec(compile(file.read(), path, "exec"), vars(module))
        except OSError as error:
            return _missing(error, silent)
        self.from_object(module)
        return True

    def from_object(self, obj: object | str) -> None:
        """Take the upper-case attributes of a module or class.

        Args:
            obj: The object, or its dotted name. An instance with properties must be made first; classes are
                not called.
        """
        if isinstance(obj, str):
            from .werkzeug.utils import import_string

            obj = import_string(obj)
        for key in dir(obj):
            if key.isupper():
                self[key] = getattr(obj, key)

    def from_file(
        self,
        filename: str | os.PathLike[str],
        load: Callable[[IO[Any]], Mapping[str, Any]],
        silent: bool = False,
        text: bool = True,
    ) -> bool:
        """Load a file by a function such as `json.load` or `tomllib.load`.

        Args:
            filename: Relative to `root_path`, or absolute.
            load: Gets the open file, returns a mapping.
            silent: Return False if there is no such file.
            text: Open the file as text; `tomllib.load` wants False.

        Returns:
            Whether the file was loaded.

        Raises:
            OSError: If the file cannot be read.
        """
        path = os.path.join(self.root_path, filename)
        try:
            with open(path, "r" if text else "rb") as file:
                settings = load(file)
        except OSError as error:
            return _missing(error, silent)
        return self.from_mapping(settings)

    def from_mapping(self, mapping: Mapping[str, Any] | None = None, **kwargs: Any) -> bool:
        """Take the upper-case items of a mapping and of the keyword arguments.

        Returns:
            True.
        """
        settings = {} if mapping is None else dict(mapping)
        settings.update(kwargs)
        for key, value in settings.items():
            if key.isupper():
                self[key] = value
        return True

    def get_namespace(
        self, namespace: str, lowercase: bool = True, trim_namespace: bool = True
    ) -> dict[str, Any]:
        """Return the settings whose keys start with `namespace`, as keyword arguments for something else.

        Args:
            namespace: For instance `"IMAGE_STORE_"`.
            lowercase: Return the keys in lower case.
            trim_namespace: Return the keys without the namespace.
        """
        found = {}
        for key, value in self.items():
            if key.startswith(namespace):
                name = key[len(namespace) :] if trim_namespace else key
                found[name.lower() if lowercase else name] = value
        return found

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {dict.__repr__(self)}>"


def _missing(error: OSError, silent: bool) -> bool:
    from errno import EISDIR, ENOENT, ENOTDIR

    if silent and error.errno in (ENOENT, EISDIR, ENOTDIR):
        return False
    error.strerror = f"Unable to load configuration file ({error.strerror})"
    raise error
