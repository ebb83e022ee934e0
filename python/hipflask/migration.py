"""Translates the options of gunicorn and uWSGI to those of `hipflask run`.

Reads command lines, `Procfile`, `gunicorn.conf.py` (its plain assignments; it is not run) and `uwsgi.ini`.
Says of each option what becomes of it; one that it does not know is named, never dropped in silence.

Sources: gunicorn's settings reference, uWSGI's options reference.
"""

from __future__ import annotations

import ast
import os
import shlex
from typing import NamedTuple

from .setting_table import BY_NAME
from .setting_types import SettingError, Switch
from .settings import parse

_SERVICE = "left to the service manager (systemd, a container)"
_NO_KILL = "no counterpart: a view that takes long is not cut off, and does not hold others up"
_NOT_NEEDED = "not needed"

# What becomes of an option. A text that begins with two dashes is an option of ours.
_OPTIONS = {
    "bind": "--bind",
    "threads": "--threads",
    "reload": "--reload",
    "reload_extra_file": "--extra-files",
    "reload_engine": "--reloader",
    "access_logfile": "--access-log-to",
    "accesslog": "--access-log-to",
    "chdir": "the directory in which the command is started",
    "env": "the environment, or --env-file",
    "workers": "--workers",
    "worker_class": "threads of the engine take the place of every worker class",
    "worker_connections": "--max-connections",
    "worker_tmp_dir": _NOT_NEEDED,
    "preload": "--preload",
    "preload_app": "--preload",
    "max_requests": "--max-requests",
    "max_requests_jitter": "--max-requests-jitter",
    "backlog": "--backlog",
    "reuse_port": "not needed: workers share one socket",
    "no_sendfile": _NOT_NEEDED,
    "sendfile": _NOT_NEEDED,
    "timeout": _NO_KILL,
    "graceful_timeout": "--grace",
    "keep_alive": "--idle-timeout",
    "keepalive": "--idle-timeout",
    "limit_request_line": "--max-request-line",
    "limit_request_fields": "--max-fields",
    "limit_request_field_size": "--max-field",
    "forwarded_allow_ips": "werkzeug.middleware.proxy_fix.ProxyFix in the application",
    "proxy_allow_ips": "no counterpart: the PROXY protocol is not spoken",
    "proxy_protocol": "no counterpart: the PROXY protocol is not spoken",
    "log_file": "standard error, which the service manager keeps",
    "error_logfile": "standard error, which the service manager keeps",
    "errorlog": "standard error, which the service manager keeps",
    "log_level": "logging.getLogger('hipflask').setLevel(...) in the application",
    "loglevel": "logging.getLogger('hipflask').setLevel(...) in the application",
    "access_logformat": "--access-log-format has Apache's directives: 'combined' is the usual format",
    "capture_output": _NOT_NEEDED,
    "disable_redirect_access_to_syslog": _NOT_NEEDED,
    "statsd_host": "no counterpart",
    "daemon": _SERVICE,
    "pid": "--pid-file",
    "pidfile": "--pid-file",
    "user": "--user",
    "group": "--group",
    "umask": _SERVICE,
    "name": _SERVICE,
    "proc_name": _SERVICE,
    "keyfile": "--key",
    "certfile": "--cert",
    "ca_certs": "--client-ca",
    "pythonpath": "PYTHONPATH",
    "config": "the options in that file",
}
_SHORT = {
    "-b": "bind", "-w": "workers", "-k": "worker_class", "-t": "timeout", "-c": "config", "-e": "env",
    "-D": "daemon", "-p": "pid", "-u": "user", "-g": "group", "-m": "umask", "-n": "name",
}  # fmt: skip
_FLAGS = {"reload", "preload", "daemon", "no_sendfile", "capture_output", "reuse_port", "proxy_protocol"}
_FLAGS |= {"disable_redirect_access_to_syslog"}

_UWSGI = {
    "http": "bind", "http_socket": "bind", "socket": "bind", "processes": "workers", "workers": "workers",
    "p": "workers", "threads": "threads", "harakiri": "timeout", "py_autoreload": "reload",
    "pyhome": "virtualenv", "virtualenv": "virtualenv", "venv": "virtualenv", "home": "virtualenv",
    "uid": "user", "gid": "group",
    "daemonize": "daemon", "pidfile": "pid", "max_requests": "max_requests", "chdir": "chdir", "env": "env",
    "listen": "backlog", "https": "certfile", "logto": "log_file", "buffer_size": "limit_request_line",
}  # fmt: skip
_UWSGI_NOT_NEEDED = {
    "master", "enable_threads", "single_interpreter", "need_app", "vacuum", "die_on_term", "lazy_apps",
    "strict", "thunder_lock", "plugin", "plugins", "chmod_socket", "offload_threads", "cheaper",
    "memory_report", "m", "M", "disable_logging", "log_4xx", "log_5xx", "static_map", "protocol",
    "manage_script_name", "auto_procname",
}  # fmt: skip


class Translation(NamedTuple):
    """A command line of ours, and what became of the other one's options."""

    command: str
    notes: list[tuple[str, str]]


def found_in(folder: str) -> tuple[str, Translation] | None:
    """Translate what a folder's `Procfile`, `gunicorn.conf.py` or `uwsgi.ini` says; None if there is none."""
    for name, read in (
        ("Procfile", _from_procfile),
        ("gunicorn.conf.py", _from_file),
        ("uwsgi.ini", from_uwsgi_ini),
    ):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                translated = read(file.read())
            if translated is not None:
                return name, translated
    return None


def _from_procfile(text: str) -> Translation | None:
    for line in text.splitlines():
        process, _, command = line.partition(":")
        if process.strip() == "web" and ("gunicorn" in command or "uwsgi" in command):
            return from_command(command)
    return None


def _from_file(text: str) -> Translation:
    return _translate(None, _assignments(text))


def _assignments(text: str) -> list[tuple[str, str]]:
    """The plain assignments of a `gunicorn.conf.py`; what is computed is named without its value."""
    found = []
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                value = ast.literal_eval(statement.value)
            except ValueError:
                value = ast.unparse(statement.value)
            if value is not None and value is not False:
                found.append((statement.targets[0].id, "" if value is True else str(value)))
    return found


def from_command(line: str) -> Translation:
    """Translate a command line that starts with `gunicorn` or `uwsgi`.

    Raises:
        ValueError: If it cannot be split, or is another program's.
    """
    words = shlex.split(line)
    # Assignments and wrappers such as `poetry run` come before it.
    start = next((i for i, word in enumerate(words) if os.path.basename(word) in ("gunicorn", "uwsgi")), None)
    if start is None:
        raise ValueError("there is neither 'gunicorn' nor 'uwsgi' in it")
    rest = words[start + 1 :]
    return _from_gunicorn(rest) if os.path.basename(words[start]) == "gunicorn" else _from_uwsgi(rest)


def _from_gunicorn(words: list[str]) -> Translation:
    app, options, position = None, [], 0
    while position < len(words):
        word, position = words[position], position + 1
        if not word.startswith("-"):
            app = word
            continue
        name, equals, value = word.partition("=")
        if not word.startswith("--"):
            name, equals, value = word[:2], word[2:], word[2:].removeprefix("=")
        key = _SHORT.get(name, name.lstrip("-").replace("-", "_"))
        if not equals and key not in _FLAGS and position < len(words):
            value, position = words[position], position + 1
        options.append((key, value))
    return _translate(app, options)


def _from_uwsgi(words: list[str]) -> Translation:
    options, position = [], 0
    while position < len(words):
        word, position = words[position], position + 1
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and position < len(words) and not words[position].startswith("-"):
            value, position = words[position], position + 1
        options.append((name, value))
    return _translate_uwsgi(options)


def from_uwsgi_ini(text: str) -> Translation:
    """Translate the text of a `uwsgi.ini`."""
    options = []
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.lstrip().startswith(("#", ";")):
            options.append((name.strip(), value.strip()))
    return _translate_uwsgi(options)


def _translate_uwsgi(options: list[tuple[str, str]]) -> Translation:
    module = function = None
    ours, notes = [], []
    for name, value in options:
        key = name.replace("-", "_")
        if key in ("module", "wsgi", "w", "wsgi_file", "file", "mount"):
            module = value.rpartition("=")[2]
        elif key == "callable":
            function = value
        elif key in _UWSGI_NOT_NEEDED:
            notes.append((name, _NOT_NEEDED))
        elif _UWSGI.get(key) == "virtualenv":
            notes.append((name, "the 'hipflask' command of that environment"))
        elif key in _UWSGI:
            ours.append((_UWSGI[key], value.partition(",")[0]))
        else:
            notes.append((name, "unknown here: see whether the application needs it"))
    app = f"{module}:{function}" if module and function and ":" not in module else module
    translated = _translate(app, ours)
    return Translation(translated.command, translated.notes + notes)


def _translate(app: str | None, options: list[tuple[str, str]]) -> Translation:
    command, notes, binds = ["hipflask", "run"], [], list[str]()
    if app is not None:
        command += ["--app", app]
    for key, value in options:
        meaning = _OPTIONS.get(key, "unknown here: see whether the application needs it")
        if key == "wsgi_app":
            command += ["--app", value]
        elif key == "bind":
            binds += _list(value)
        elif key == "reload":
            command.append("--reload")
        elif key == "reload_extra_file":
            command += ["--extra-files", value]
        elif meaning.startswith("--"):
            ours, note = _setting(meaning, value)
            command += ours
            notes += [(f"{key} {value}".rstrip(), note)] if note else []
        else:
            notes.append((f"{key} {value}".rstrip(), meaning))
    if len(binds) == 1:
        command += _place(binds[0])
    for bind in binds if len(binds) > 1 else ():
        command += ["--bind", _bind(bind)]
    return Translation(shlex.join(command), notes)


def _setting(flag: str, value: str) -> tuple[list[str], str]:
    """A setting of ours with another server's value, or why there is none."""
    name = flag[2:].replace("-", "_")
    if isinstance(BY_NAME[name].kind, Switch):
        return [flag], ""
    if name == "workers" and "cpu_count" in value:
        return [flag, "auto"], "--workers auto: one for each core"
    if value == "0":
        return [], f"{flag} has no value for 'off'; its default is {_default(name)}"
    try:
        parse(name, value)
    except SettingError:
        return [], f"{flag}, with a value that this cannot tell"
    return [flag, value], ""


def _default(name: str) -> str:
    row = BY_NAME[name]
    return row.reason if row.default is None else row.kind.show(row.default)


def _list(value: str) -> list[str]:
    """The texts of a list in a configuration file, or the one text that it is."""
    if not value.startswith("["):
        return [value]
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        # An address of version 6.
        return [value]
    return [str(each) for each in found]


def _split(value: str) -> tuple[str, str]:
    """Host and port of an address."""
    host, colon, port = value.rpartition(":")
    if not colon:
        host, port = (value, "8000") if not value.isdecimal() else ("", value)
    return host.strip("[]") or "0.0.0.0", port


def _place(value: str) -> list[str]:
    if value.startswith(("unix:", "/", "fd:", "fd://")):
        bind = _bind(value)
        return ["--bind", bind] if bind.startswith("fd:") else ["--host", bind]
    host, port = _split(value)
    return ["--host", host, "--port", port]


def _bind(value: str) -> str:
    if value.startswith(("unix:", "/")):
        return f"unix:{value.removeprefix('unix:').removeprefix('//')}"
    if value.startswith("fd:"):
        return f"fd:{value.removeprefix('fd:').removeprefix('//')}"
    host, port = _split(value)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
