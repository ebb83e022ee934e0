"""Write the reference, one page for each module, from the docstrings: `make docs`.

Reads what is imported, not what is written, so that inherited and native members are there too; only the
docstrings of variables, which Python does not keep, come from the source.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).resolve().parent / "reference"

#: The modules with a page, under the headings of the table of contents.
MODULES = {
    "Applications": [
        "app",
        "blueprints",
        "limits",
        "config",
        "globals",
        "ctx",
        "background",
        "helpers",
        "templating",
        "sessions",
        "views",
    ],
    "Requests and responses": [
        "wrappers",
        "websocket",
        "sse",
        "channel",
        "json",
        "json.provider",
        "json.tag",
        "signals",
    ],
    "Tools": ["testing", "websocket_testing", "cli", "fast_start", "locating", "bundle", "alias", "logging"],
    "Serving": [
        "serving",
        "hosting",
        "asgi",
        "asgi_app",
        "asgi_connection",
        "asgi_websocket",
        "supervisor",
        "worker",
        "listening",
        "process",
        "metrics",
        "stacks",
        "precompress",
        "top",
        "otel",
        "server_log",
        "settings",
        "setting_table",
        "setting_types",
        "tls",
    ],
    "Werkzeug's part": [
        *("werkzeug.exceptions", "werkzeug.datastructures", "werkzeug.routing", "werkzeug.wrappers"),
        *("werkzeug.http", "werkzeug.utils", "werkzeug.security", "werkzeug.local", "werkzeug.urls"),
        *("werkzeug.wsgi", "werkzeug.formparser", "werkzeug.test", "werkzeug.middleware.proxy_fix"),
        *("werkzeug.middleware.dispatcher", "werkzeug.middleware.shared_data", "werkzeug.middleware.lint"),
        *("werkzeug.middleware.profiler", "werkzeug.middleware.http_proxy"),
    ],
}
SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes|Implements|Use|Example):\s*", re.M)


def markdown(docstring: str | None) -> str:
    """A docstring in our style as Markdown."""
    text = inspect.cleandoc(docstring or "").replace("``", "`")
    parts = SECTION.split(text)
    out = [parts[0].strip()]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        body = textwrap.dedent(body.strip("\n"))
        if title in ("Args", "Raises", "Attributes"):
            entries = re.sub(r"\n\s+", " ", textwrap.dedent(f"    {body}" if body[:1] != " " else body))
            items = [re.sub(r"^([\w*., ]+?):", r"`\1`:", entry) for entry in entries.splitlines() if entry]
            out.append(f"**{title}**\n\n" + "\n".join(f"- {item}" for item in items))
        else:
            out.append(f"**{title}**: {' '.join(body.split())}")
    return "\n\n".join(part for part in out if part)


def signature(value: Any, drop_first: bool = False) -> str:
    """A callable's signature as text, or empty brackets where Python cannot tell."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "(…)"
    parameters = list(found.parameters.values())
    if drop_first and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    plain = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
    text = str(found.replace(parameters=plain, return_annotation=found.empty))
    return re.sub(r"<(?:object|function|class) ?'?([\w.]*)[^>]*>", r"\1…", text)


def variables(source: ast.AST) -> Iterator[tuple[str, str]]:
    """The variables of a module or class that have a docstring, that is a text behind the assignment."""
    body = getattr(source, "body", [])
    for before, after in zip(body, body[1:], strict=False):
        match before, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ) if not name.startswith("_"):
                yield name, text


def members(class_: type, documented: list[type]) -> Iterator[str]:
    """The public methods and properties of a class, and those of its bases that are not on the page."""
    seen: set[str] = set()
    bases = [base for base in class_.__mro__[1:] if base in documented]
    if bases:
        yield f"Has also what {', '.join(f'`{base.__name__}`' for base in bases)} has.\n"
        seen.update(name for base in bases for name in dir(base) if not overridden(class_, base, name))
    for base in class_.__mro__:
        if not base.__module__.startswith("hipflask"):
            continue
        for name, value in sorted(vars(base).items()):
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            plain = getattr(value, "__func__", value)
            doc = (
                inspect.getdoc(getattr(class_, name, None))
                if callable(plain)
                else getattr(value, "__doc__", None)
            )
            own_doc = doc and doc != getattr(type(value), "__doc__", None)
            if inspect.isclass(plain) or inspect.ismodule(plain) or not own_doc:
                continue
            title = f"{name}{signature(plain, drop_first=True)}" if callable(plain) else name
            yield f"### `{title}`\n\n{markdown(doc)}\n"


def overridden(class_: type, base: type, name: str) -> bool:
    """Whether a class has a member of its own in the place of its base's, with a docstring of its own."""
    ours, theirs = getattr(class_, name, None), getattr(base, name, None)
    return ours is not theirs and getattr(ours, "__doc__", None) != getattr(theirs, "__doc__", None)


def public_names(module: Any) -> list[str]:
    """What a module offers: its own functions and classes, and those of its private and native parts."""
    listed = getattr(module, "__all__", None)
    names = listed or [name for name in dir(module) if not name.startswith("_")]
    return sorted(name for name in names if belongs(module, name))


def belongs(module: Any, name: str) -> bool:
    value = getattr(module, name, None)
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return False
    home = getattr(value, "__module__", None) or ""
    if home.startswith("hipflask._core") and inspect.isroutine(value):
        # Flask's part has native functions to work with, Werkzeug's to offer.
        return ".werkzeug." in module.__name__
    return home == module.__name__ or home.startswith((f"{module.__name__}.", "hipflask._core"))


def page(name: str) -> str:
    """The page of a module."""
    module = importlib.import_module(f"hipflask.{name}")
    out = [f"# hipflask.{name}\n", markdown(module.__doc__) + "\n"]
    source = ast.parse(inspect.getsource(module))
    for variable, text in variables(source):
        out.append(f"## `{variable}`\n\n{markdown(text)}\n")
    if name == "signals":
        out += [f"## `{signal}`\n\n{getattr(module, signal).__doc__}\n" for signal in module._NAMES]
    names = public_names(module)
    documented = [value for value in map(vars(module).get, names) if inspect.isclass(value)]
    for public in names:
        value = getattr(module, public)
        kind = "class " if inspect.isclass(value) else ""
        out.append(f"## {kind}`{public}{signature(value)}`\n\n{markdown(value.__doc__)}\n")
        if inspect.isclass(value):
            out.extend(members(value, documented))
    return "\n".join(out)


def contents() -> str:
    """The table of contents: the modules, and where each name of `hipflask` itself is."""
    import hipflask

    out = ["# Reference\n", "Made from the docstrings by `make docs`.\n"]
    out.append("The names of `hipflask` itself:\n")
    by_module: dict[str, list[str]] = {}
    for name, module in hipflask._EXPORTS.items():
        by_module.setdefault(module, []).append(name)
    by_module["alias"] = ["install_as_flask"]
    for module, names in sorted(by_module.items()):
        out.append(f"- [{module}]({module}.md): {', '.join(f'`{name}`' for name in sorted(names))}")
    for title, modules in MODULES.items():
        out.append(f"\n## {title}\n")
        for name in modules:
            summary = markdown(importlib.import_module(f"hipflask.{name}").__doc__).partition("\n")[0]
            out.append(f"- [hipflask.{name}]({name}.md): {summary}")
    return "\n".join(out) + "\n"


MARK = "<!-- The tables below are written by docs/build_reference.py from hipflask/setting_table.py. -->\n"


def with_settings(text: str) -> str:
    """The page on configuration with the server's settings as they are."""
    from hipflask.setting_table import SETTINGS

    out = [text.partition(MARK)[0] + MARK]
    for heading, rows in SETTINGS.items():
        out.append(f"### {heading}\n")
        out.append("| setting | default | sets | because | beyond it |\n|---|---|---|---|---|")
        for row in rows:
            default = "" if row.default is None else f"`{row.kind.show(row.default)}`"
            # What nobody has set has no value, but its reason says what happens.
            reason = row.reason if default else f"(default: {row.reason})"
            flags = f"`{row.name}`" + (f", `-{row.short}`" if row.short else "")
            cells = (flags, default, row.text.replace("|", "or"), reason, row.beyond)
            out.append("| " + " | ".join(cells) + " |")
        out.append("")
    return "\n".join(out)


def main() -> None:
    """Write every page."""
    configuration = REFERENCE.parent / "configuration.md"
    configuration.write_text(with_settings(configuration.read_text()))
    REFERENCE.mkdir(exist_ok=True)
    for old in REFERENCE.glob("*.md"):
        old.unlink()
    names = [name for modules in MODULES.values() for name in modules]
    for name in names:
        (REFERENCE / f"{name}.md").write_text(page(name))
    (REFERENCE / "index.md").write_text(contents())
    sys.stdout.write(f"{len(names) + 1} pages in {REFERENCE}\n")


if __name__ == "__main__":
    main()
