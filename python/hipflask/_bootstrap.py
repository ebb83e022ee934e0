"""Scaffolding, to be removed before the first release: modules that are not written yet come from the real Flask
and Werkzeug, so that those that are can be tested in place."""

import importlib
import importlib.abc
import importlib.util
import sys


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        for ours, theirs in (("hipflask.werkzeug.", "werkzeug."), ("hipflask.", "flask.")):
            if name.startswith(ours) and not name.startswith("hipflask._"):
                real = theirs + name[len(ours):]
                try:
                    if importlib.util.find_spec(real) is None:
                        return None
                except ModuleNotFoundError:
                    return None
                return importlib.util.spec_from_loader(name, self, origin=real)
        return None

    def create_module(self, spec):
        return importlib.import_module(spec.origin)

    def exec_module(self, module):
        spec = importlib.util.find_spec(module.__name__)
        if spec is not None:
            module.__spec__ = spec
            module.__loader__ = spec.loader


sys.meta_path.append(_Finder())
