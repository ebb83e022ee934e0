"""`hipflask bundle`: write a Dockerfile for the application of the working directory.

It goes by files: an application that cannot be imported here, for want of a database, is no hindrance. It
builds no image and does not call Docker.
"""

from __future__ import annotations

import os
import re
import sys
import typing as t

import click

if t.TYPE_CHECKING:
    from pathlib import Path

#: Files that none of the application's users need. `.env` holds secrets, which an image would publish.
IGNORED = """\
.git
.venv
venv
.env
.env.*
**/__pycache__
**/*.py[cod]
.pytest_cache
.mypy_cache
.ruff_cache
node_modules
instance
tests
dist
target
Dockerfile
.dockerignore
"""

_TEMPLATE = """\
# syntax=docker/dockerfile:1
# Written by `hipflask bundle`; yours to change.
FROM python:{python}-slim AS build
# The image's pip installs into the environment, which has none: a server needs neither pip nor setuptools.
RUN python -m venv --without-pip /venv
ENV PIP_PYTHON=/venv/bin/python PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
{install}

FROM python:{python}-slim
RUN useradd --uid 10001 --no-create-home --no-log-init --shell /usr/sbin/nologin app
COPY --from=build /venv /venv
WORKDIR /srv/app
{files}
ENV PATH=/venv/bin:$PATH \\
    PYTHONUNBUFFERED=1 \\
    PYTHONDONTWRITEBYTECODE=1 \\
    {settings}
RUN python -m compileall -q .
USER app
EXPOSE {port}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \\
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:{health}/readyz')"]
CMD ["hipflask", "run"]
"""


class Bundle(t.NamedTuple):
    """What a Dockerfile is written from."""

    #: `module:app`, or nothing where the command finds it by itself (`app.py`, `wsgi.py`).
    app: str | None
    #: The version of Python, as `3.13`.
    python: str
    port: int
    #: The port of `/readyz`, inside of the container only.
    health: int
    #: Number of processes, or `auto`.
    workers: str | None
    #: The application says `import flask`.
    as_flask: bool


@click.command("bundle", short_help="Write a Dockerfile for the app.")
@click.argument("import_path", metavar="[IMPORT]", required=False)
@click.option(
    "--output", "-o", default="Dockerfile", show_default=True, help="The file; `-` for the terminal."
)
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@click.option(
    "--python", metavar="VERSION", help="The version of Python in the image; this command's own by default."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option(
    "--health-port",
    type=click.IntRange(1, 65535),
    default=9100,
    show_default=True,
    help="Where the health check asks; not reachable from outside.",
)
@click.option("--workers", metavar="NUMBER|auto", help="Processes; one without a supervisor by default.")
@click.pass_context
def bundle_command(
    ctx: click.Context,
    import_path: str | None,
    output: str,
    force: bool,
    python: str | None,
    port: int,
    health_port: int,
    workers: str | None,
) -> None:
    """Write a Dockerfile, and a .dockerignore beside it, for the application of the working directory.

    IMPORT, --app or FLASK_APP names it. What it needs is installed from requirements.txt or pyproject.toml.
    """
    from pathlib import Path

    from .alias import is_installed

    if python is not None and not re.fullmatch(r"3\.\d{2}", python):
        raise click.BadParameter(f"{python!r} is not a version such as 3.13.", param_hint="--python")
    if workers is not None and workers != "auto" and not workers.isdecimal():
        raise click.BadParameter(f"{workers!r} is neither a number nor 'auto'.", param_hint="--workers")
    if port == health_port:
        raise click.UsageError("The health check needs a port of its own: choose another --health-port.")
    named = import_path or getattr(ctx.obj, "app_import_path", None) or os.environ.get("FLASK_APP")
    if named is not None and re.search(r"[\s\"'\\$]", named):
        raise click.UsageError(
            f"{named!r} cannot be written into a Dockerfile: name a module and a variable."
        )
    wanted = Bundle(
        app=named,
        python=python or f"{sys.version_info[0]}.{sys.version_info[1]}",
        port=port,
        health=health_port,
        workers=workers,
        as_flask=is_installed(),
    )
    folder = Path.cwd()
    text = dockerfile(folder, wanted)
    if output == "-":
        click.echo(text, nl=False)
        return
    target = folder / output
    if target.exists() and not force:
        raise click.ClickException(f"{output} is there already: --force overwrites it, --output - prints.")
    target.write_text(text)
    click.echo(f"Wrote {output}.")
    ignore = folder / ".dockerignore"
    if not ignore.exists() or force:
        ignore.write_text(IGNORED)
        click.echo("Wrote .dockerignore.")
    click.echo(f"Build and run it:\n  docker build -t app .\n  docker run --rm -p {port}:{port} app")


def dockerfile(folder: Path, bundle: Bundle) -> str:
    """Write the text of a Dockerfile.

    Args:
        folder: The application's folder, whose files say what is to be installed.
        bundle: The rest.

    Returns:
        The text: a stage that installs into a virtual environment, and one that has it and the application.
    """
    settings = [f"HIPFLASK_BIND=0.0.0.0:{bundle.port}", f"HIPFLASK_METRICS_BIND=127.0.0.1:{bundle.health}"]
    if bundle.app is not None:
        settings.append(f"FLASK_APP={bundle.app}")
    if bundle.workers is not None:
        settings.append(f"HIPFLASK_WORKERS={bundle.workers}")
    if bundle.as_flask:
        settings.append("HIPFLASK_AS_FLASK=1")
    return _TEMPLATE.format(
        python=bundle.python,
        port=bundle.port,
        health=bundle.health,
        install="\n".join(_install(folder)),
        files="COPY --from=build /srv/app ." if _has_wheels(folder) else "COPY . .",
        settings=" \\\n    ".join(settings),
    )


def _install(folder: Path) -> list[str]:
    """The lines that install what the application needs: from what changes least to what changes most."""
    lines = []
    more = ""
    if _has_wheels(folder):
        lines.append("COPY wheels /wheels")
        more = " --find-links /wheels"
    requirements, project = folder / "requirements.txt", folder / "pyproject.toml"
    own = f" hipflask=={_version()}"
    if requirements.is_file():
        # What the file says of the version holds.
        own = "" if _names_hipflask(requirements.read_text()) else own
        lines += ["COPY requirements.txt .", f"RUN pip install{more}{own} -r requirements.txt"]
    elif project.is_file() and _is_installable(project.read_text()):
        own = "" if _names_hipflask(project.read_text()) else own
        lines += ["COPY . .", f"RUN pip install{more}{own} ."]
    else:
        lines.append(f"RUN pip install{more}{own}")
    if _has_wheels(folder):
        # Not in the image, where they would be a second copy of what is installed.
        lines += ["COPY . /srv/app", "RUN rm -r /srv/app/wheels"]
    return lines


def _has_wheels(folder: Path) -> bool:
    return any((folder / "wheels").glob("*.whl"))


def _names_hipflask(text: str) -> bool:
    return re.search(r"^[\s\"'\[]*hipflask\b(?!-)", text, re.MULTILINE) is not None


def _is_installable(text: str) -> bool:
    """Whether a pyproject.toml describes a package; without a table for that it only configures tools."""
    return re.search(r"^\[(project|build-system|tool\.poetry)\]", text, re.MULTILINE) is not None


def _version() -> str:
    from . import _core

    return _core.__version__
