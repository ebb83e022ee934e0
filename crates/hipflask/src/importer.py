"""Import `hipflask` from the binary; run in it before anything else, never from a file.

The package comes before an installed one of the same name, since the native module that belongs to it is
linked into the binary. Everything else, Jinja and Click too, comes from the environment as for any Python.
"""

from __future__ import annotations

import marshal
import sys
from importlib.machinery import BuiltinImporter, ModuleSpec
from importlib.util import MAGIC_NUMBER
from typing import TYPE_CHECKING

import _hipflask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import Distribution, DistributionFinder
    from types import CodeType, ModuleType

#: Paths of modules begin with the binary's, as those in a zip archive do with the archive's.
ROOT = sys.orig_argv[0]
FILES = {name: number for number, name in enumerate(_hipflask.names())}


class Importer:
    """Finds and loads the modules of the package."""

    @classmethod
    def find_spec(cls, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find a module of the package, or its native one."""
        if not fullname.startswith("hipflask"):
            return None
        if fullname == "hipflask._core":
            return ModuleSpec(fullname, BuiltinImporter, origin="built-in")
        name = fullname.replace(".", "/")
        package = f"{name}/__init__.py" in FILES
        if not package and f"{name}.py" not in FILES:
            return None
        origin = cls.get_filename(fullname)
        spec = ModuleSpec(fullname, cls, origin=origin, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [f"{ROOT}/{name}"]
        return spec

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Have the usual module made."""

    @classmethod
    def exec_module(cls, module: ModuleType) -> None:
        """Run a module's code."""
        exec(cls.get_code(module.__name__), module.__dict__)

    @classmethod
    def get_code(cls, fullname: str) -> CodeType:
        """Return a module's code: made when the binary was built, or now if Python's bytecode has changed."""
        origin = cls.get_filename(fullname)
        code = _hipflask.code(cls._number(fullname))
        if code[:4] != MAGIC_NUMBER:
            return compile(cls.get_source(fullname), origin, "exec", dont_inherit=True)
        import _imp

        loaded: CodeType = marshal.loads(memoryview(code)[4:])
        _imp._fix_co_filename(loaded, origin)
        return loaded

    @classmethod
    def get_source(cls, fullname: str) -> str:
        """Return a module's text, for tracebacks."""
        return str(_hipflask.data(cls._number(fullname)), "utf-8")

    @staticmethod
    def get_data(path: str) -> bytes:
        """Return what a file of the package holds.

        Raises:
            OSError: If there is none of that path.
        """
        number = FILES.get(path.removeprefix(f"{ROOT}/"))
        if number is None:
            raise OSError(0, "the binary has no such file", path)
        return bytes(_hipflask.data(number))

    @classmethod
    def get_filename(cls, fullname: str) -> str:
        """Return the path that stands for a module."""
        return f"{ROOT}/{cls._file(fullname)}"

    @classmethod
    def is_package(cls, fullname: str) -> bool:
        """Tell whether a module has submodules."""
        return cls._file(fullname).endswith("/__init__.py")

    @staticmethod
    def _file(fullname: str) -> str:
        name = fullname.replace(".", "/")
        for file in (f"{name}/__init__.py", f"{name}.py"):
            if file in FILES:
                return file
        raise ImportError(f"the binary has no module {fullname!r}", name=fullname)

    @classmethod
    def _number(cls, fullname: str) -> int:
        return FILES[cls._file(fullname)]

    @staticmethod
    def find_distributions(context: DistributionFinder.Context | None = None) -> Iterator[Distribution]:
        """Say which version of Hipflask this is."""
        from importlib.metadata import Distribution

        class Own(Distribution):
            def read_text(self, filename: str) -> str | None:
                known = f"Metadata-Version: 2.1\nName: hipflask\nVersion: {_hipflask.VERSION}\n"
                return known if filename == "METADATA" else None

            def locate_file(self, path: object) -> object:  # type: ignore[override]
                from pathlib import Path

                return Path(ROOT, str(path))

        if getattr(context, "name", None) in (None, "hipflask"):
            yield Own()


def compare_installed() -> None:
    """Tell of a `hipflask` in the environment that is of another version: its users may expect that one."""
    import os

    for folder in sys.path:
        if folder.endswith(("site-packages", "dist-packages")):
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            for name in names:
                if name.startswith("hipflask-") and name.endswith(".dist-info"):
                    version = name[len("hipflask-") : -len(".dist-info")]
                    if version != _hipflask.VERSION:
                        print(
                            f"hipflask: this binary is version {_hipflask.VERSION} and is what runs;"
                            f" {folder} has version {version}.",
                            file=sys.stderr,
                        )


def run() -> None:
    """Run the command line."""
    # As for any program; until here it said that the interpreter was given commands, which puts the current
    # folder on `sys.path`.
    sys.argv[0] = ROOT
    # A reloader's child says nothing that its parent has said.
    import os

    if "WERKZEUG_RUN_MAIN" not in os.environ:
        compare_installed()
    try:
        from hipflask.fast_start import main

        main()
    except ModuleNotFoundError as error:
        needed = ("blinker", "click", "itsdangerous", "jinja2", "markupsafe")
        if error.name not in needed:
            raise
        sys.exit(
            f"hipflask: {error.name} is not installed for Python"
            f" {sys.version_info[0]}.{sys.version_info[1]} in {sys.prefix}."
            " Set VIRTUAL_ENV to an environment that has it, or install it:"
            f" {sys.executable or 'python3'} -m pip install {' '.join(needed)}"
        )


sys.meta_path.insert(0, Importer)
