"""Rendering Jinja templates.

Implements `flask.templating` (3.1). Import it where templates are used only: it imports Jinja.
"""

from __future__ import annotations

from collections import ChainMap
from weakref import ref

from jinja2 import BaseLoader, TemplateNotFound
from jinja2 import Environment as BaseEnvironment
from jinja2 import Template as BaseTemplate
from jinja2.runtime import new_context
from jinja2.utils import LRUCache

from . import signals
from ._core import add_template_names
from .globals import current_app, request
from .helpers import stream_with_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping
    from typing import Any

    from jinja2.runtime import Context

    from .app import Flask
    from .sansio.app import App
    from .sansio.scaffold import Scaffold

    Source = tuple[str, str | None, Callable[[], bool] | None]


def _default_template_ctx_processor() -> dict[str, Any]:
    """Give templates `g` and `request` themselves: quicker than the proxies among the global names.

    The session stays a proxy, since reading it through the context counts as an access.
    """
    context: dict[str, Any] = {}
    add_template_names(context)
    return context


class Template(BaseTemplate):
    """Jinja's template, whose context is made in fewer steps."""

    def new_context(
        self,
        vars: dict[str, Any] | None = None,
        shared: bool = False,
        locals: Mapping[str, Any] | None = None,
    ) -> Context:
        """Make a context of the global names and these variables. See Jinja."""
        names = self.globals
        if shared or type(names) is not ChainMap:
            return super().new_context(vars, shared, locals)
        # A chain of mappings is copied name by name, in Python; its parts are plain dicts.
        known: dict[str, Any] = {}
        for part in reversed(names.maps):
            known.update(part)
        parent = known if vars is None else {**known, **vars}
        return new_context(self.environment, self.name, self.blocks, parent, True, known, locals)


class Environment(BaseEnvironment):
    """Jinja's environment, with the app's and its blueprints' templates.

    Args:
        app: The app.
        options: Passed to Jinja.
    """

    template_class = Template

    def __init__(self, app: App, **options: Any) -> None:
        if "loader" not in options:
            options["loader"] = app.create_global_jinja_loader()
        super().__init__(**options)
        self.app = app

    def get_template(
        self,
        name: str | BaseTemplate,
        parent: str | None = None,
        globals: MutableMapping[str, Any] | None = None,
    ) -> BaseTemplate:
        """Return a template, loading it unless it is in the cache. See Jinja."""
        cache = self.cache
        # The order of use matters only to a cache that has to drop something.
        if (
            parent is None
            and globals is None
            and not self.auto_reload
            and isinstance(cache, LRUCache)
            and len(cache._mapping) < cache.capacity
        ):
            template: BaseTemplate | None = cache._mapping.get((ref(self.loader), name))
            if template is not None:
                return template
        return super().get_template(name, parent, globals)


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


def _begin(app: Flask, template: BaseTemplate, context: dict[str, Any]) -> None:
    app.update_template_context(context)
    if signals._made:
        signals.send("before_render_template", app, template=template, context=context)


def _render(app: Flask, template: BaseTemplate, context: dict[str, Any]) -> str:
    _begin(app, template, context)
    text = template.render(context)
    if signals._made:
        signals.send("template_rendered", app, template=template, context=context)
    return text


def _stream(app: Flask, template: BaseTemplate, context: dict[str, Any]) -> Iterator[str]:
    _begin(app, template, context)

    def generate() -> Iterator[str]:
        yield from template.generate(context)
        signals.send("template_rendered", app, template=template, context=context)

    pieces = generate()
    # The view's context is gone when the pieces are made.
    return stream_with_context(pieces) if request else pieces


def _current_app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]


def render_template(
    template_name_or_list: str | BaseTemplate | list[str | BaseTemplate], **context: Any
) -> str:
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
    template_name_or_list: str | BaseTemplate | list[str | BaseTemplate], **context: Any
) -> Iterator[str]:
    """Do as `render_template`, piece by piece: an iterator that a view can return."""
    app = _current_app()
    return _stream(app, app.jinja_env.get_or_select_template(template_name_or_list), context)


def stream_template_string(source: str, **context: Any) -> Iterator[str]:
    """Do as `render_template_string`, piece by piece: an iterator that a view can return."""
    app = _current_app()
    return _stream(app, app.jinja_env.from_string(source), context)
