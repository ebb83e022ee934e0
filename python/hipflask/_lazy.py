"""Class attributes whose default is imported when somebody first looks at them.

An app's class names the classes that it works with (`json_provider_class`, `request_class`, ...). Importing
each of them just to define the class would cost a program that never uses them most of its start-up time.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class imported:
    """A class attribute that stands for `module.name` until it is read or overridden.

    Args:
        module: The module's name below `hipflask`.
        name: The name in that module.
        call: Use the result of calling it.
    """

    def __init__(self, module: str, name: str, *, call: bool = False) -> None:
        self.module = module
        self.name = name
        self.call = call
        self.owner: tuple[type, str] | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner = owner, name

    def __get__(self, instance: object, owner: type) -> Any:
        from importlib import import_module

        value = getattr(import_module(f"hipflask.{self.module}"), self.name)
        if self.call:
            value = value()
        if self.owner is not None:
            # The class that holds the default may be a base of the one that was asked.
            setattr(*self.owner, value)
        return value
