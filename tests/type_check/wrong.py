"""Mistakes that a type checker must find: each line says which rule finds it."""

from __future__ import annotations

from hipflask import Flask, redirect, request, url_for

app = Flask(__name__)
app.route(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
redirect("/", code="303")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
url_for(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
name: int = request.args["name"]  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


@app.get("/")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
def nothing() -> int:
    return 1
