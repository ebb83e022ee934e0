"""JSON that keeps the types which JSON does not have, by tags.

A tuple becomes `{" t": [...]}`, and so on; reading gives the tuple back. The session cookie is written this
way, so the bytes are Flask's. To add a type, subclass `JSONTag` and `TaggedJSONSerializer.register` it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import datetime
from typing import Any
from uuid import UUID

from markupsafe import Markup

from ..json import dumps, loads
from ..werkzeug.http import http_date, parse_date


class JSONTag:
    """One type's way through JSON.

    Args:
        serializer: The serializer that the tag belongs to; it tags what lies within a value.
    """

    __slots__ = ("serializer",)

    #: The key that marks the value. Empty for steps that only walk through a container.
    key: str = ""

    def __init__(self, serializer: TaggedJSONSerializer) -> None:
        self.serializer = serializer

    def check(self, value: Any) -> bool:
        """Tell whether this tag is for the value."""
        raise NotImplementedError

    def to_json(self, value: Any) -> Any:
        """Turn the value into something that JSON knows."""
        raise NotImplementedError

    def to_python(self, value: Any) -> Any:
        """Turn what JSON gave, without its tag, back into the value."""
        raise NotImplementedError

    def tag(self, value: Any) -> dict[str, Any]:
        """Turn the value into its tagged form."""
        return {self.key: self.to_json(value)}


class TagDict(JSONTag):
    """A dictionary of one item whose key looks like a tag: it gets two underscores, so that it does not."""

    __slots__ = ()
    key = " di"

    def check(self, value: Any) -> bool:
        """Tell whether the value is such a dictionary."""
        return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in self.serializer.tags

    def to_json(self, value: Any) -> Any:
        """Add the underscores."""
        [(key, inner)] = value.items()
        return {f"{key}__": self.serializer.tag(inner)}

    def to_python(self, value: Any) -> Any:
        """Remove the underscores."""
        [(key, inner)] = value.items()
        return {key[:-2]: inner}


class PassDict(JSONTag):
    """Walks through a dictionary. Keys are not tagged: in JSON they are text."""

    __slots__ = ()

    def check(self, value: Any) -> bool:
        """Tell whether the value is a dictionary."""
        return isinstance(value, dict)

    def to_json(self, value: Any) -> Any:
        """Tag the values."""
        return {key: self.serializer.tag(inner) for key, inner in value.items()}

    tag = to_json


class TagTuple(JSONTag):
    """A tuple, as a list."""

    __slots__ = ()
    key = " t"

    def check(self, value: Any) -> bool:
        """Tell whether the value is a tuple."""
        return isinstance(value, tuple)

    def to_json(self, value: Any) -> Any:
        """Tag the items."""
        return [self.serializer.tag(item) for item in value]

    def to_python(self, value: Any) -> Any:
        """Make the tuple."""
        return tuple(value)


class PassList(JSONTag):
    """Walks through a list."""

    __slots__ = ()

    def check(self, value: Any) -> bool:
        """Tell whether the value is a list."""
        return isinstance(value, list)

    def to_json(self, value: Any) -> Any:
        """Tag the items."""
        return [self.serializer.tag(item) for item in value]

    tag = to_json


class TagBytes(JSONTag):
    """Bytes, in base 64."""

    __slots__ = ()
    key = " b"

    def check(self, value: Any) -> bool:
        """Tell whether the value is bytes."""
        return isinstance(value, bytes)

    def to_json(self, value: Any) -> Any:
        """Encode the bytes."""
        return b64encode(value).decode("ascii")

    def to_python(self, value: Any) -> Any:
        """Decode the bytes."""
        return b64decode(value)


class TagMarkup(JSONTag):
    """Anything with `__html__`; it comes back as `markupsafe.Markup`."""

    __slots__ = ()
    key = " m"

    def check(self, value: Any) -> bool:
        """Tell whether the value has an `__html__` method."""
        return callable(getattr(value, "__html__", None))

    def to_json(self, value: Any) -> Any:
        """Take the markup as text."""
        return str(value.__html__())

    def to_python(self, value: Any) -> Any:
        """Mark the text as safe."""
        return Markup(value)


class TagUUID(JSONTag):
    """A UUID, as its 32 hexadecimal digits."""

    __slots__ = ()
    key = " u"

    def check(self, value: Any) -> bool:
        """Tell whether the value is a UUID."""
        return isinstance(value, UUID)

    def to_json(self, value: Any) -> Any:
        """Take the digits."""
        return value.hex

    def to_python(self, value: Any) -> Any:
        """Make the UUID."""
        return UUID(value)


class TagDateTime(JSONTag):
    """A date and time, as an HTTP date: in UTC, to the second."""

    __slots__ = ()
    key = " d"

    def check(self, value: Any) -> bool:
        """Tell whether the value is a datetime."""
        return isinstance(value, datetime)

    def to_json(self, value: Any) -> Any:
        """Write the HTTP date."""
        return http_date(value)

    def to_python(self, value: Any) -> Any:
        """Read the HTTP date."""
        return parse_date(value)


#: What `hipflask._core` writes and reads by itself, in this order.
NATIVE_TAGS = (TagDict, PassDict, TagTuple, PassList, TagBytes, TagMarkup, TagUUID, TagDateTime)


class TaggedJSONSerializer:
    """Writes and reads JSON with tags for dictionaries, tuples, bytes, markup, UUIDs and datetimes.

    Implements: flask.json.tag.TaggedJSONSerializer (3.1).
    """

    __slots__ = ("tags", "order")

    #: The tags that a new serializer has, in the order in which they are tried.
    default_tags = [*NATIVE_TAGS]

    def __init__(self) -> None:
        self.tags: dict[str, JSONTag] = {}
        self.order: list[JSONTag] = []
        for tag_class in self.default_tags:
            self.register(tag_class)

    def register(self, tag_class: type[JSONTag], force: bool = False, index: int | None = None) -> None:
        """Add a tag.

        Args:
            tag_class: Called with this serializer.
            force: Replace the tag that has the same key.
            index: Where in the order of tries; None is last. A special case goes before the general one.

        Raises:
            KeyError: If the key is taken and `force` is not set.
        """
        tag = tag_class(self)
        if tag.key:
            if tag.key in self.tags and not force:
                raise KeyError(f"Tag '{tag.key}' is already registered.")
            self.tags[tag.key] = tag
        self.order.insert(len(self.order) if index is None else index, tag)

    def tag(self, value: Any) -> Any:
        """Turn a value into its tagged form, if it has one."""
        for tag in self.order:
            if tag.check(value):
                return tag.tag(value)
        return value

    def untag(self, value: dict[str, Any]) -> Any:
        """Turn a tagged form back into its value; any other dictionary is returned as it is."""
        if len(value) != 1:
            return value
        [(key, inner)] = value.items()
        tag = self.tags.get(key)
        return value if tag is None else tag.to_python(inner)

    def _untag_scan(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self.untag({key: self._untag_scan(inner) for key, inner in value.items()})
        if isinstance(value, list):
            return [self._untag_scan(item) for item in value]
        return value

    def dumps(self, value: Any) -> str:
        """Write a value as compact JSON text."""
        return dumps(self.tag(value), separators=(",", ":"))

    def loads(self, value: str) -> Any:
        """Read what `dumps` wrote."""
        return self._untag_scan(loads(value))
