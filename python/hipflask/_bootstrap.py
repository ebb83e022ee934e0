"""Scaffolding, to be removed before the first release: modules that are not written yet come from the real Flask
and Werkzeug, so that those that are can be tested in place."""

import importlib
import importlib.abc
import importlib.util
import os
import sys

loaded: set = set()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    temporary = True

    def find_spec(self, name, path=None, target=None):
        for ours, theirs in (("hipflask.werkzeug.", "werkzeug."), ("hipflask.", "flask.")):
            if name.startswith(ours) and not name.startswith("hipflask._"):
                place = os.path.join(os.path.dirname(__file__), *name.split(".")[1:])
                if os.path.exists(place + ".py") or os.path.exists(os.path.join(place, "__init__.py")):
                    return None
                from . import alias

                real = theirs + name[len(ours):]
                try:
                    if real not in sys.modules and alias._installed_spec(real) is None:
                        return None
                except ModuleNotFoundError:
                    return None
                return importlib.util.spec_from_loader(name, self, origin=real)
        return None

    def create_module(self, spec):
        from . import alias

        before = set(sys.modules)
        module = importlib.import_module(spec.origin)
        if not any(isinstance(finder, alias._AliasFinder) for finder in sys.meta_path):
            loaded.update(n for n in set(sys.modules) - before if n.partition(".")[0] in ("flask", "werkzeug"))
        return module

    def exec_module(self, module):
        from . import alias

        spec = alias._installed_spec(module.__name__)
        if spec is not None:
            module.__spec__ = spec
            module.__loader__ = spec.loader


def _forward(name):
    if name.startswith("__"):
        raise AttributeError(name)
    for module in ("app", "blueprints", "config", "ctx", "globals", "helpers", "json", "signals", "templating",
                   "wrappers", "sessions"):
        try:
            return getattr(importlib.import_module("hipflask." + module), name)
        except AttributeError:
            pass
    try:
        return importlib.import_module("hipflask." + name)
    except ModuleNotFoundError:
        raise AttributeError(name) from None


# First, since the path of a package taken from Werkzeug would make second copies of its modules.
sys.meta_path.insert(0, _Finder())
sys.modules["hipflask"].__dict__.setdefault("__getattr__", _forward)
