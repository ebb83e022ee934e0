"""Serve Hipflask under the names `flask` and `werkzeug`.

Extensions and existing applications import `flask` and `werkzeug` by name, catch their exceptions and compare
their classes. `install_as_flask` makes those names resolve to Hipflask's modules: the same module objects,
not copies, so that every `except` and `isinstance` holds. A module of Werkzeug that Hipflask does not have is
loaded from the installed Werkzeug; what it imports from its siblings is then Hipflask's.

It does not patch modules that were imported before it ran: it refuses, because two sets of classes would
result.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.abc import Loader
    from importlib.metadata import Distribution, DistributionFinder
    from types import CodeType, ModuleType

#: The versions whose behaviour Hipflask implements: distribution name, name as published, version.
REFERENCE = {"flask": ("Flask", "3.1.3"), "werkzeug": ("Werkzeug", "3.1.6")}

_TARGETS = {"flask": "hipflask", "werkzeug": "hipflask.werkzeug"}
_IDENTITY = ("__name__", "__loader__", "__package__", "__path__", "__file__", "__cached__")


def install_as_flask() -> None:
    """Make `import flask` and `import werkzeug` mean Hipflask, in this process.

    Call it before anything imports either of them. Three ways to do so without touching the program: the
    command `hipflask --as-flask ...`, the environment variable `HIPFLASK_AS_FLASK=1` for programs that import
    `hipflask` first, and `pytest -p hipflask.pytest_alias` for test suites whose plugins import `flask`
    early.

    Calling it again does nothing.

    Raises:
        RuntimeError: If the real `flask` or `werkzeug` is already imported.
    """
    if is_installed():
        return
    for name, module in sorted(sys.modules.items()):
        if module is not None and name.partition(".")[0] in _TARGETS and not _is_ours(module):
            where = getattr(module, "__file__", None)
            raise RuntimeError(
                f"{name!r} is already imported{f' from {where}' if where else ''}, so its classes are in use."
                " Call hipflask.install_as_flask() before anything imports flask or werkzeug, or start the"
                " program with 'hipflask --as-flask', or its tests with 'pytest -p hipflask.pytest_alias'."
            )
    sys.meta_path.insert(0, _AliasFinder())
    sys.meta_path.append(_ReferenceVersions())


def is_installed() -> bool:
    """Tell whether `install_as_flask` was called in this process."""
    return any(isinstance(finder, _AliasFinder) for finder in sys.meta_path)


def _real_name(name: str) -> str:
    top, dot, rest = name.partition(".")
    return _TARGETS.get(top, top) + dot + rest


def _is_ours(module: Any) -> bool:
    return bool(getattr(module, "__name__", "").partition(".")[0] == "hipflask")


class _AliasFinder:
    """Answers for `flask`, `werkzeug` and all below them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module that stands behind an aliased name."""
        top = fullname.partition(".")[0]
        if top not in _TARGETS:
            return None
        ours = _real_name(fullname)
        if ours not in sys.modules and not _provided(ours):
            return _installed_spec(fullname) if top == "werkzeug" else None
        module = importlib.import_module(ours)
        own = module.__spec__
        spec = importlib.machinery.ModuleSpec(
            fullname,
            cast("Loader", _AliasLoader(module, fullname)),
            origin=own.origin if own is not None else None,
            is_package=hasattr(module, "__path__"),
        )
        spec.has_location = own is not None and own.has_location
        if hasattr(module, "__path__"):
            spec.submodule_search_locations = list(module.__path__)
        return spec


class _AliasLoader:
    """Hands out a module that is loaded already, and answers questions about it under the alias' name."""

    def __init__(self, module: ModuleType, alias: str) -> None:
        self._module = module
        self._alias = alias
        self._spec = module.__spec__
        self._identity = {key: vars(module)[key] for key in _IDENTITY if key in vars(module)}

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return Hipflask's own module."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Undo what importlib wrote into the module: pickling and reloading go by its real name."""
        module.__spec__ = self._spec
        vars(module).update(self._identity)
        from ._imported_names import answer_for

        answer_for(module, self._alias, _real_name)

    # The module's own loader refuses names that are not its own, so each question is passed on with the real
    # name.

    def _ask(self, method: str, *args: Any) -> Any:
        loader = self._spec.loader if self._spec is not None else None
        question = getattr(loader, method, None)
        if question is None:
            raise ImportError(
                f"the loader of {self._module.__name__!r} has no {method}()", name=self._module.__name__
            )
        return question(*args)

    def get_filename(self, fullname: str | None = None) -> str:
        """Return the path of the module's file."""
        path: str = self._ask("get_filename", self._module.__name__)
        return path

    def get_code(self, fullname: str | None = None) -> CodeType | None:
        """Return the module's code, which `python -m` runs."""
        code: CodeType | None = self._ask("get_code", self._module.__name__)
        return code

    def get_source(self, fullname: str | None = None) -> str | None:
        """Return the module's source text, which tracebacks show."""
        source: str | None = self._ask("get_source", self._module.__name__)
        return source

    def is_package(self, fullname: str | None = None) -> bool:
        """Tell whether the module has submodules."""
        return hasattr(self._module, "__path__")

    def get_data(self, path: str) -> bytes:
        """Return the bytes of a file beside the module."""
        data: bytes = self._ask("get_data", path)
        return data

    def get_resource_reader(self, fullname: str | None = None) -> Any:
        """Return the reader of the package's resources, or None."""
        loader = self._spec.loader if self._spec is not None else None
        reader = getattr(loader, "get_resource_reader", None)
        return reader(self._module.__name__) if reader is not None else None


class _SiblingLoader:
    """Loads a module of the installed Werkzeug that lies in a package which Hipflask has.

    The module's classes that the package exports are replaced by Hipflask's, so that
    `werkzeug.datastructures.structures.MultiDict` is `werkzeug.datastructures.MultiDict` here too.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Let the file's own loader decide."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then put our classes in the place of its own."""
        self._loader.exec_module(module)
        package = vars(sys.modules[module.__name__.rpartition(".")[0]])
        for name, value in list(vars(module).items()):
            if getattr(value, "__module__", None) == module.__name__ and name in package:
                setattr(module, name, package[name])


def _provided(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return False
    return spec is not None


def _installed_spec(fullname: str) -> importlib.machinery.ModuleSpec | None:
    """Find a module of the installed distribution on `sys.path`, without importing its parents."""
    name, path, spec = "", None, None
    for part in fullname.split("."):
        name = f"{name}.{part}" if name else part
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    if (
        spec is not None
        and spec.loader is not None
        and _is_ours(sys.modules.get(fullname.rpartition(".")[0]))
    ):
        spec.loader = _SiblingLoader(spec.loader)  # type: ignore[assignment]
    return spec


class _ReferenceVersions:
    """Lets `importlib.metadata.version("flask")` answer where only Hipflask is installed.

    It stands last on `sys.meta_path`: an installed Flask or Werkzeug answers for itself.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Find nothing: this finder knows distributions, not modules."""

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterator[Distribution]:
        """Yield the distribution that was asked for by name; a listing of all of them does not contain it."""
        from importlib.metadata import Distribution

        class Reference(Distribution):
            def __init__(self, name: str, version: str) -> None:
                self._text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"

            def read_text(self, filename: str) -> str | None:
                return self._text if filename == "METADATA" else None

            def locate_file(self, path: Any) -> Any:
                from pathlib import Path

                return Path(__file__).parent.parent / path

        wanted = getattr(context, "name", None)
        if wanted is not None and wanted.lower() in REFERENCE:
            yield Reference(*REFERENCE[wanted.lower()])
