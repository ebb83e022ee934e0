"""`install_as_flask`: each case in a process of its own, since an alias cannot be taken back."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PYTHON = str(Path(sys.executable))


def run(code: str, *args: str, cwd: Path | None = None, **env: str) -> str:
    """Run Python code in a new process, and return what it prints."""
    done = subprocess.run(
        [PYTHON, *args, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={key: value for key, value in os.environ.items() if key != "HIPFLASK_AS_FLASK"} | env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


INSTALLED = """
    import sys
    import hipflask
    hipflask.install_as_flask()
"""

CASES = {
    "the top modules are ours": """
        import flask, werkzeug, hipflask.werkzeug
        assert flask is hipflask
        assert werkzeug is hipflask.werkzeug
    """,
    "submodules are the same objects": """
        import flask.app, flask.json.tag, werkzeug.exceptions, werkzeug.datastructures
        import hipflask.app, hipflask.json.tag, hipflask.werkzeug.exceptions
        assert sys.modules["flask.app"] is hipflask.app
        assert flask.json.tag is hipflask.json.tag
        assert werkzeug.exceptions is hipflask.werkzeug.exceptions
    """,
    "the order of imports does not matter": """
        import flask.sessions
        import hipflask.sessions, hipflask.config
        from flask.config import Config
        assert flask.sessions is hipflask.sessions
        assert Config is hipflask.config.Config
    """,
    "modules keep their own names": """
        import flask.config, werkzeug.exceptions
        for module in (flask, flask.config, werkzeug.exceptions):
            assert module.__name__.startswith("hipflask")
            assert module.__spec__.name == module.__name__
            assert module.__package__.startswith("hipflask")
        import importlib
        assert importlib.reload(flask.config).__name__ == "hipflask.config"
    """,
    "exceptions are caught under either name": """
        from werkzeug.exceptions import HTTPException, NotFound
        from hipflask import abort
        try:
            abort(404)
        except NotFound as error:
            assert isinstance(error, HTTPException)
    """,
    "pickles go by our names": """
        import pickle
        from flask.config import Config
        data = pickle.dumps(Config)
        assert b"hipflask" in data
        assert pickle.loads(data) is Config
        assert pickle.loads(b"cflask.config\\nConfig\\n.") is Config
    """,
    "loaders answer under the name of the alias": """
        import importlib.util, pkgutil
        import flask.config
        spec = importlib.util.find_spec("flask.config")
        assert spec.loader.name == "hipflask.config"  # Of a loaded module: its own spec.
        finder = sys.meta_path[0]
        spec = finder.find_spec("flask.config")
        assert spec.name == "flask.config"
        assert spec.origin == flask.config.__file__ == spec.loader.get_filename("flask.config")
        assert "class Config" in spec.loader.get_source("flask.config")
        assert spec.loader.get_code("flask.config").co_filename.endswith("config.py")
        assert not spec.loader.is_package("flask.config")
        assert b"class Config" in spec.loader.get_data(flask.config.__file__)
        package = finder.find_spec("flask")
        assert package.submodule_search_locations == list(flask.__path__)
        assert package.loader.is_package("flask")
        assert pkgutil.get_data("flask", "py.typed") is not None
    """,
    "resources are found under the name of the alias": """
        import importlib.resources
        assert importlib.resources.files("flask").joinpath("py.typed").is_file()
        reader = sys.meta_path[0].find_spec("flask").loader.get_resource_reader("flask")
        assert "config.py" in list(reader.contents())
    """,
    "installing twice is installing once": """
        before = list(sys.meta_path)
        hipflask.install_as_flask()
        assert sys.meta_path == before
    """,
    "a module that does not exist is not found": """
        for name in ("flask.nothing", "werkzeug.nothing", "flask.app.nothing"):
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                assert error.name == name, error.name
            else:
                raise AssertionError(name)
    """,
    "versions are answered": """
        from importlib.metadata import version
        assert version("flask") == version("Flask") == "3.1.3"
        assert version("werkzeug") == "3.1.6"
    """,
    "other distributions are not": """
        from importlib.metadata import PackageNotFoundError, version, distributions
        try:
            version("no-such-distribution")
        except PackageNotFoundError:
            pass
        list(distributions())
    """,
    "names that Flask's modules import are found in them": """
        from flask.app import Rule, ft
        from flask.cli import import_string
        from flask.json import tag
        from flask.signals import Namespace
        from flask.testing import EnvironBuilder
        from flask.wrappers import BadRequest, t
        import flask, blinker, typing, werkzeug.exceptions, werkzeug.routing
        assert Rule is werkzeug.routing.Rule
        assert Namespace is blinker.Namespace
        assert BadRequest is werkzeug.exceptions.BadRequest
        assert t is typing
        assert not hasattr(flask.signals, "Rule")
        from hipflask import _imported_names
        from importlib import import_module
        for module, names in _imported_names._IMPORTED.items():
            for name in names.split():
                getattr(import_module(module), name.partition("=")[0])
    """,
    "everything is imported with a star": """
        names = {}
        exec("from flask import *; from flask.signals import *; from werkzeug import *", names)
        import flask, flask.app, werkzeug.test
        assert names["Flask"] is flask.app.Flask
        assert names["request_started"] is flask.request_started
        assert names["sessions"] is flask.sessions
        assert names["Client"] is werkzeug.test.Client
    """,
    "from flask import submodule": """
        from flask import json, sessions, config
        assert json.__name__ == "hipflask.json"
        from werkzeug import exceptions
        assert exceptions.__name__ == "hipflask.werkzeug.exceptions"
    """,
}


@pytest.mark.parametrize("code", CASES.values(), ids=CASES.keys())
def test_installed(code):
    run(textwrap.dedent(INSTALLED) + textwrap.dedent(code))


def test_the_real_flask_may_not_be_loaded_already():
    out = run(
        """
        import flask, hipflask
        try:
            hipflask.install_as_flask()
        except RuntimeError as error:
            print(error)
        """
    )
    assert "'flask' is already imported from" in out
    assert "hipflask --as-flask" in out


def test_without_the_alias_the_real_flask_stays():
    run(
        """
        import hipflask, flask
        assert flask is not hipflask
        assert flask.__file__ != hipflask.__file__
        """
    )


@pytest.mark.parametrize(("value", "installed"), [("1", True), ("0", False), ("", False)])
def test_the_environment_switches_it_on(value, installed):
    out = run("import hipflask, sys; import flask; print(flask is hipflask)", HIPFLASK_AS_FLASK=value)
    assert out == f"{installed}\n"


def test_a_module_that_we_lack_comes_from_the_installed_werkzeug(tmp_path):
    package = tmp_path / "werkzeug"
    (package / "exceptions2").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('the real package is not imported')")
    (package / "extra.py").write_text("from .exceptions import NotFound\nfrom . import exceptions\n")
    (package / "exceptions2" / "__init__.py").write_text("")
    (package / "exceptions2" / "deep.py").write_text("from ..exceptions import NotFound\n")
    run(
        INSTALLED
        + """
    import werkzeug.extra, werkzeug.exceptions2.deep
    from hipflask.werkzeug.exceptions import NotFound
    assert werkzeug.extra.NotFound is NotFound
    assert werkzeug.exceptions2.deep.NotFound is NotFound
    assert werkzeug.extra.__name__ == "werkzeug.extra"
    """,
        PYTHONPATH=str(tmp_path),
    )


def test_an_inner_module_of_werkzeug_has_our_classes(tmp_path):
    package = tmp_path / "werkzeug" / "datastructures"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("class Headers: pass\nclass Other: pass\n")
    run(
        INSTALLED
        + """
    from werkzeug.datastructures.inner import Headers, Other
    import hipflask.werkzeug.datastructures as ours
    assert Headers is ours.Headers
    assert Other.__module__ == "werkzeug.datastructures.inner"
    """,
        PYTHONPATH=str(tmp_path),
    )


def test_the_pytest_plugin_comes_before_others(tmp_path):
    (tmp_path / "early_plugin.py").write_text("import flask\n")
    (tmp_path / "test_it.py").write_text("import flask, hipflask\ndef test_it(): assert flask is hipflask\n")
    subprocess.run(
        [
            PYTHON,
            "-m",
            "pytest",
            "-q",
            "-p",
            "hipflask.pytest_alias",
            "-p",
            "early_plugin",
            "-p",
            "no:cacheprovider",
        ],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
    )


def test_the_module_runs_under_its_alias(tmp_path):
    out = run(
        INSTALLED
        + """
    import runpy
    sys.argv = ["flask", "--version"]
    runpy.run_module("flask", run_name="__main__", alter_sys=True)
    """
    )
    assert "Flask 3.1.3" in out


def test_importing_the_alias_is_cheap():
    out = run(
        """
        import sys
        import hipflask.alias
        print(sorted({"importlib.metadata", "email", "json", "click", "jinja2"} & sys.modules.keys()))
        """,
        "-S",
        PYTHONPATH=str(Path(__file__).parent.parent / "python"),
    )
    assert out == "[]\n"
