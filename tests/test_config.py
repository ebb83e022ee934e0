"""The configuration and its loaders."""

from __future__ import annotations

import json
import os
import textwrap
from datetime import timedelta

import pytest

from hipflask import Config, Flask
from hipflask.config import ConfigAttribute


@pytest.fixture
def config(tmp_path):
    return Config(tmp_path, {"DEBUG": False})


class Settings:
    SECRET = "s"
    lower = "no"
    _PRIVATE = 1
    Mixed = 2

    @property
    def LAZY(self):
        return "made"


def test_defaults_and_repr(config):
    assert config == {"DEBUG": False}
    assert repr(config) == "<Config {'DEBUG': False}>"
    assert Config("/") == {}


def test_from_object_takes_upper_case_names(config):
    config.from_object(Settings)
    assert config["SECRET"] == "s"
    assert config["_PRIVATE"] == 1
    assert "lower" not in config
    assert "Mixed" not in config
    assert isinstance(config["LAZY"], property)
    config.from_object(Settings())
    assert config["LAZY"] == "made"


def test_from_object_imports_a_name(config):
    config.from_object("string.Formatter")
    config.from_object(f"{__name__}.Settings")
    assert config["SECRET"] == "s"
    with pytest.raises(ImportError):
        config.from_object("no.such.module")


def test_from_mapping(config):
    assert config.from_mapping({"A": 1, "b": 2}, C=3, d=4)
    assert config == {"DEBUG": False, "A": 1, "C": 3}
    assert config.from_mapping([("E", 5)])
    assert config["E"] == 5
    assert config.from_mapping()
    with pytest.raises(TypeError):
        config.from_mapping({}, {})


def test_from_pyfile(config, tmp_path):
    (tmp_path / "c.py").write_text(
        "# -*- coding: latin-1 -*-\nNAME = 'caf\xe9'\nPATH = __file__\nlow = 1\n", "latin-1"
    )
    assert config.from_pyfile("c.py")
    assert config["NAME"] == "café"
    assert config["PATH"] == str(tmp_path / "c.py")
    assert "low" not in config


@pytest.mark.parametrize("name", ["missing.py", ".", "c.py/x"])
def test_a_missing_file(config, tmp_path, name):
    (tmp_path / "c.py").write_text("")
    for load in (
        config.from_pyfile,
        lambda name, silent=False: config.from_file(name, json.load, silent=silent),
    ):
        assert load(name, silent=True) is False
        with pytest.raises(OSError, match="Unable to load configuration file"):
            load(name)


def test_an_error_in_the_file_is_raised(config, tmp_path):
    (tmp_path / "c.py").write_text("1/0")
    with pytest.raises(ZeroDivisionError):
        config.from_pyfile("c.py", silent=True)


def test_from_file(config, tmp_path):
    (tmp_path / "c.json").write_text('{"A": {"x": 1}, "b": 2}')
    assert config.from_file("c.json", load=json.load)
    assert config["A"] == {"x": 1}
    assert "b" not in config
    assert config.from_file(tmp_path / "c.json", load=lambda file: {"KIND": type(file.read())}, text=False)
    assert config["KIND"] is bytes


def test_from_envvar(config, tmp_path, monkeypatch):
    (tmp_path / "c.py").write_text("A = 1")
    with pytest.raises(RuntimeError, match="'HIP_SETTINGS' is not set"):
        config.from_envvar("HIP_SETTINGS")
    assert config.from_envvar("HIP_SETTINGS", silent=True) is False
    monkeypatch.setenv("HIP_SETTINGS", "missing.py")
    assert config.from_envvar("HIP_SETTINGS", silent=True) is False
    monkeypatch.setenv("HIP_SETTINGS", "c.py")
    assert config.from_envvar("HIP_SETTINGS")
    assert config["A"] == 1


def test_from_prefixed_env(config, monkeypatch):
    for key, value in {
        "FLASK_TEXT": "value",
        "FLASK_NUMBER": "1.5",
        "FLASK_OBJECT": '{"a": [1]}',
        "FLASK_TRUE": "true",
        "FLASK_BROKEN": '{"a"',
        "FLASK_DB__HOST": "h",
        "FLASK_DB__POOL__SIZE": "5",
        "FLASK_KNOWN__b": "2",
        "NOTFLASK_A": "1",
    }.items():
        monkeypatch.setenv(key, value)
    config["KNOWN"] = {"a": 1}
    assert config.from_prefixed_env()
    assert config["TEXT"] == "value"
    assert config["NUMBER"] == 1.5
    assert config["OBJECT"] == {"a": [1]}
    assert config["TRUE"] is True
    assert config["BROKEN"] == '{"a"'
    assert config["DB"] == {"HOST": "h", "POOL": {"SIZE": 5}}
    assert config["KNOWN"] == {"a": 1, "b": 2}
    assert "A" not in config


def test_from_prefixed_env_with_its_own_prefix_and_loader(config, monkeypatch):
    monkeypatch.setenv("MY_APP_N", "1")
    assert config.from_prefixed_env("MY_APP", loads=str)
    assert config["N"] == "1"


def test_get_namespace(config):
    config.from_mapping(FOO_A=1, FOO_BAR_B=2, BAR=3)
    assert config.get_namespace("FOO_") == {"a": 1, "bar_b": 2}
    assert config.get_namespace("FOO_", lowercase=False) == {"A": 1, "BAR_B": 2}
    assert config.get_namespace("FOO_", trim_namespace=False) == {"foo_a": 1, "foo_bar_b": 2}
    assert config.get_namespace("NONE_") == {}


def test_attributes_of_the_application():
    app = Flask(__name__)
    app.secret_key = "k"
    assert app.config["SECRET_KEY"] == "k"
    app.config["PERMANENT_SESSION_LIFETIME"] = 60
    assert app.permanent_session_lifetime == timedelta(seconds=60)
    app.permanent_session_lifetime = timedelta(hours=1)
    assert app.config["PERMANENT_SESSION_LIFETIME"] == timedelta(hours=1)
    assert isinstance(Flask.secret_key, ConfigAttribute)


def test_a_config_class_of_its_own():
    class Mine(Config):
        pass

    class App(Flask):
        config_class = Mine

    app = App(__name__)
    assert isinstance(app.config, Mine)
    app.config.from_object(__name__)
    assert app.config.root_path == app.root_path


def test_the_instance_folder(tmp_path):
    (tmp_path / "c.py").write_text(textwrap.dedent("A = 'instance'"))
    app = Flask(__name__, instance_path=str(tmp_path), instance_relative_config=True)
    app.config.from_pyfile("c.py")
    assert app.config["A"] == "instance"
    assert os.fspath(app.config.root_path) == str(tmp_path)
