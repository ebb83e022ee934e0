"""Rendering Jinja templates.

Implements `flask.templating` (3.1). Import it where templates are used only: it imports Jinja.
"""

from __future__ import annotations

from jinja2 import BaseLoader, TemplateNotFound
from jinja2 import Environment as BaseEnvironment

from . import signals
from .globals import _cv_app, _cv_request, current_app, g, request
from .helpers import stream_with_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from jinja2 import Template

    from .app import Flask
    from .sansio.app import App
    from .sansio.scaffold import Scaffold

    Source = tuple[str, str | None, Callable[[], bool] | None]


def _default_template_ctx_processor() -> dict[str, Any]:
    """Give templates `g` and `request` themselves: quicker than the proxies among the global names.

    The session stays a proxy, since reading it through the context counts as an access.
    """
    context: dict[str, Any] = {}
    if _cv_app.bound():
        context["g"] = g._get_current_object()
    if _cv_request.bound():
        context["request"] = request._get_current_object()  # type: ignore[attr-defined]
    return context


class Environment(BaseEnvironment):
    """Jinja's environment, with the app's and its blueprints' templates.

    Args:
        app: The app.
        options: Passed to Jinja.
    """

    def __init__(self, app: App, **options: Any) -> None:
        if "loader" not in options:
            options["loader"] = app.create_global_jinja_loader()
        super().__init__(**options)
        self.app = app


class DispatchingJinjaLoader(BaseLoader):
    """Looks for a template in the app's folder, then in each blueprint's.

    Args:
        app: The app.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    def get_source(self, environment: BaseEnvironment, template: str) -> Source:
        """Return a template's source, file name and a function that tells whether it is up to date.

        Raises:
            TemplateNotFound: If no loader has it.
        """
        if self.app.config["EXPLAIN_TEMPLATE_LOADING"]:
            return self._get_source_explained(environment, template)
        for _, loader in self._iter_loaders(template):
            try:
                return loader.get_source(environment, template)
            except TemplateNotFound:
                continue
        raise TemplateNotFound(template)

    def _get_source_explained(self, environment: BaseEnvironment, template: str) -> Source:
        """Ask every loader, and log what each one said."""
        attempts: list[tuple[BaseLoader, Scaffold, Source | None]] = []
        found: Source | None = None
        for owner, loader in self._iter_loaders(template):
            source: Source | None
            try:
                source = loader.get_source(environment, template)
            except TemplateNotFound:
                source = None
            found = found or source
            attempts.append((loader, owner, source))

        from .debughelpers import explain_template_loading_attempts

        explain_template_loading_attempts(self.app, template, attempts)
        if found is None:
            raise TemplateNotFound(template)
        return found

    def _iter_loaders(self, template: str) -> Iterator[tuple[Scaffold, BaseLoader]]:
        for owner in (self.app, *self.app.iter_blueprints()):
            loader = owner.jinja_loader
            if loader is not None:
                yield owner, loader

    def list_templates(self) -> list[str]:
        """Return the names of all templates."""
        return list({name for _, loader in self._iter_loaders("") for name in loader.list_templates()})


def _begin(app: Flask, template: Template, context: dict[str, Any]) -> None:
    app.update_template_context(context)
    signals.send("before_render_template", app, template=template, context=context)


def _render(app: Flask, template: Template, context: dict[str, Any]) -> str:
    _begin(app, template, context)
    text = template.render(context)
    signals.send("template_rendered", app, template=template, context=context)
    return text


def _stream(app: Flask, template: Template, context: dict[str, Any]) -> Iterator[str]:
    _begin(app, template, context)

    def generate() -> Iterator[str]:
        yield from template.generate(context)
        signals.send("template_rendered", app, template=template, context=context)

    pieces = generate()
    # The view's context is gone when the pieces are made.
    return stream_with_context(pieces) if request else pieces


def _current_app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]


def render_template(template_name_or_list: str | Template | list[str | Template], **context: Any) -> str:
    """Render a template of the app or of a blueprint.

    Args:
        template_name_or_list: The template's name; of a list, the first one that exists.
        context: The template's variables.

    Raises:
        TemplateNotFound: If there is no such template.
    """
    app = _current_app()
    return _render(app, app.jinja_env.get_or_select_template(template_name_or_list), context)


def render_template_string(source: str, **context: Any) -> str:
    """Render a template given as a string. Values are escaped.

    Args:
        source: The template. Never make it of what a user sent.
        context: The template's variables.
    """
    app = _current_app()
    return _render(app, app.jinja_env.from_string(source), context)


def stream_template(
    template_name_or_list: str | Template | list[str | Template], **context: Any
) -> Iterator[str]:
    """Do as `render_template`, piece by piece: an iterator that a view can return."""
    app = _current_app()
    return _stream(app, app.jinja_env.get_or_select_template(template_name_or_list), context)


def stream_template_string(source: str, **context: Any) -> Iterator[str]:
    """Do as `render_template_string`, piece by piece: an iterator that a view can return."""
    app = _current_app()
    return _stream(app, app.jinja_env.from_string(source), context)
